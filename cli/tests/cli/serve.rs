//! `faas serve`: what it says, and how it ends.

use crate::command::{Faas, Running};
use serde_json::{Value, json};

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
