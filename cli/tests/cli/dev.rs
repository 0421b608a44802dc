//! `faas dev`: a project, its own node, and what a change does.

use crate::command::{Faas, Running, write};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

const MANIFEST: &str = r#"[app]
name = "shop"

[build]
command = "sh build.sh"
watch = ["src"]

[functions.main]
source = "dist/shop.wat"
"#;

/// The build: one line of text in, one artifact out; `broken` does not build.
const BUILD: &str = r#"
grep -q broken src/answer && { echo "this is broken"; exit 1; }
answer=$(cat src/answer)
mkdir -p dist
cat > dist/shop.wat <<END
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func \$write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "content-type: text/plain\0a\0a$answer")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const $((26 + ${#answer}))))
    (drop (call \$write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
END
"#;

fn project() -> Faas {
    Faas::new()
        .file("shop/faas.toml", MANIFEST)
        .file("shop/build.sh", BUILD)
        .file("shop/src/answer", "one")
}

const DEV: [&str; 4] = ["dev", "shop", "--listen", "127.0.0.1:0"];

fn get(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = TcpStream::connect(host).unwrap();
    write!(connection, "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The next event of this name; others in between are about requests.
fn event(dev: &mut Running, name: &str) -> Value {
    loop {
        let line: Value = serde_json::from_str(&dev.line()).unwrap();
        if line["event"] == json!(name) {
            return line;
        }
        assert_eq!(line["event"], json!("log"), "{line}");
    }
}

#[test]
fn once_is_a_check() {
    let faas = project();
    let output = faas.run(&[&DEV[..], &["--once"]].concat()).exits(0);
    assert!(output.stdout.starts_with("http://127.0.0.1:"), "{output:?}");
    assert!(output.stdout.ends_with("/shop/\n"), "{output:?}");
    assert!(faas.dir().join("shop/.faas/.gitignore").is_file());

    write(&faas.dir().join("shop/src/answer"), "broken");
    let output = faas.run(&[&DEV[..], &["--once"]].concat()).exits(7);
    assert!(
        output.stderr.contains("this is broken\nerror: `sh build.sh` ended with 1\n"),
        "{output:?}"
    );
}

#[test]
fn a_change_goes_live_and_a_mistake_does_not() {
    let faas = project();
    let source = faas.dir().join("shop/src/answer");
    let mut dev = faas.start(&[&DEV[..], &["-o", "json"]].concat());
    let deployed = event(&mut dev, "deployed");
    assert_eq!(deployed["version"], json!("v1"));
    let url = deployed["url"].as_str().unwrap().to_owned();
    assert_eq!(get(&url), "one");
    assert_eq!(event(&mut dev, "log")["source"], json!("request"));

    write(&source, "two!");
    assert!(event(&mut dev, "changed")["paths"][0].as_str().unwrap().ends_with("src/answer"));
    assert_eq!(event(&mut dev, "deployed")["version"], json!("v2"));
    assert_eq!(get(&url), "two!");

    write(&source, "broken");
    event(&mut dev, "changed");
    assert_eq!(event(&mut dev, "failed")["error"]["code"], json!("build_failed"));
    assert_eq!(get(&url), "two!");

    write(&faas.dir().join("shop/faas.toml"), "[ap]");
    assert_eq!(event(&mut dev, "failed")["error"]["code"], json!("manifest"));
    write(&faas.dir().join("shop/faas.toml"), MANIFEST);
    event(&mut dev, "changed");
    event(&mut dev, "failed");
    write(&source, "three");
    event(&mut dev, "changed");
    assert_eq!(event(&mut dev, "deployed")["version"], json!("v3"));

    dev.signal("INT");
    assert_eq!(dev.end().0, 0);
}

#[test]
fn a_taken_address_that_was_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = project().run(&["dev", "shop", "--listen", &address]).exits(5);
    assert!(output.stderr.contains("cannot listen on"), "{output:?}");
}
