//! `faas serve`: what it says, and how it ends.

use crate::command::{Faas, Running};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

fn serve(faas: &Faas, more: &[&str]) -> Running {
    faas.start(&[&["serve"], &FREE[..], more].concat())
}

#[test]
fn it_says_where_it_is_and_drains() {
    let faas = Faas::new();
    let mut server = serve(&faas, &[]);
    let ingress = server.line();
    let admin = server.line();
    assert!(ingress.starts_with("ingress http://127.0.0.1:"), "{ingress}");
    let admin = admin.strip_prefix("admin ").unwrap();
    // On the same machine a client finds the token by itself.
    faas.run(&["list", "--server", admin]).exits(0);
    assert!(faas.home().join(".local/share/faas/admin.token").is_file());

    let second = serve(&faas, &[]);
    let (exit, rest) = second.end();
    assert_eq!((exit, rest), (5, Vec::new()), "one server per data directory");

    server.signal("TERM");
    let (exit, rest) = server.end();
    assert_eq!((exit, rest), (0, Vec::new()));
}

#[test]
fn json_and_sigint() {
    let faas = Faas::new();
    let mut server = serve(&faas, &["-o", "json", "--data-dir", "here"]);
    let ready: Value = serde_json::from_str(&server.line()).unwrap();
    assert_eq!(ready["ok"], json!(true));
    assert_eq!(ready["command"], json!("serve"));
    assert!(ready["data"]["admin"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert!(faas.dir().join("here/admin.token").is_file());
    server.signal("INT");
    assert_eq!(server.end().0, 0);
}

/// Reads standard input, and answers nothing.
const READER: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read"
        (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 4) (i32.const 10))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;

#[test]
fn a_second_signal_does_not_wait_for_requests() {
    let faas = Faas::new().file("reader.wat", READER);
    let mut server = serve(&faas, &[]);
    let ingress = server.line();
    let admin = server.line();
    let admin = admin.strip_prefix("admin ").unwrap();
    faas.run(&["deploy", "reader.wat", "--server", admin]).exits(0);
    let mut request = TcpStream::connect(ingress.strip_prefix("ingress http://").unwrap()).unwrap();
    request
        .write_all(
            b"POST /reader/ HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\
              expect: 100-continue\r\n\r\n",
        )
        .unwrap();
    // The body is asked for: the function runs, and waits for it.
    let mut go_on = [0; 12];
    request.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");

    server.signal("TERM");
    server.signal("INT");
    assert_eq!(server.end().0, 130);
}

#[test]
fn settings_that_cannot_be_used() {
    let faas = Faas::new().file("config.toml", "[ingress]\nlissten = 1\n");
    let output = faas.run(&["serve", "--config", "config.toml"]).exits(2);
    assert!(output.stderr.starts_with("error: config.toml: "), "{output:?}");
    assert!(output.stderr.contains("lissten"), "{output:?}");
    faas.run(&["serve", "--config", "nothing.toml"]).exits(2);
    let document = faas.run(&["serve", "--config", "config.toml", "-o", "json"]).exits(2).json();
    assert_eq!(document["error"]["code"], json!("config"));
}
