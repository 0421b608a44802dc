//! `faas inspect`

use crate::command::{CGI_WAT, Faas};
use serde_json::json;

#[test]
fn a_module_in_text_form() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let faas = Faas::new().file("hello.wat", wat);
    let output = faas.run(&["inspect", "hello.wat"]).exits(0);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [file, kind, size, memory, digest, rest @ ..] = lines.as_slice() else {
        panic!("{output:?}");
    };
    assert_eq!(*file, "hello.wat");
    assert_eq!(*kind, "  kind     core module, WASI 0.1, called as CGI");
    assert_eq!(*size, "  size     95 B");
    assert_eq!(*memory, "  memory   64 KiB at start");
    assert!(digest.starts_with("  digest   sha256:"));
    assert_eq!(
        rest,
        ["  imports  wasi_snapshot_preview1.fd_write", "  exports  _start", "           memory"]
    );
    let document = faas.run(&["inspect", "hello.wat", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["kind"], json!("cgi-0.1"));
    assert_eq!(document["data"]["imports"], json!(["wasi_snapshot_preview1.fd_write"]));
}

#[test]
fn an_unknown_kind_is_shown_and_refused() {
    let faas = Faas::new().file("lib.wat", r#"(module (func (export "run\1b[2J")))"#);
    let output = faas.run(&["inspect", "lib.wat"]).exits(8);
    assert!(output.stdout.contains("  exports  run\\u{1b}[2J\n"), "{output:?}");
    assert!(output.stderr.starts_with("error: `lib.wat` has nothing the host can call"));
    assert!(output.stderr.contains("\nhint: export wasi:http/"));
    let document = faas.run(&["inspect", "lib.wat", "-o", "json"]).exits(8).json();
    assert_eq!(document["ok"], json!(false));
    assert_eq!(document["error"]["code"], json!("unknown_kind"));
    assert_eq!(document["data"]["imports"], json!([]));
}

#[test]
fn what_is_no_artifact_exits_8() {
    let faas = Faas::new()
        .file("native.wasm", b"\x7fELF\x02\x01\x01")
        .file("text.wasm", CGI_WAT)
        .file("broken.wat", "(module (func (export");
    let code = |file: &str| {
        let document = faas.run(&["inspect", file, "-o", "json"]).exits(8).json();
        document["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("native.wasm"), "precompiled");
    assert_eq!(code("text.wasm"), "invalid_wasm");
    assert_eq!(code("broken.wat"), "invalid_wasm");
    let output = faas.run(&["inspect", "text.wasm"]).exits(8);
    assert!(output.stderr.contains("name the file .wat"), "{output:?}");
    let output = faas.run(&["inspect", "broken.wat"]).exits(8);
    assert!(output.stderr.lines().count() > 2, "the place is shown: {output:?}");
}

#[test]
fn a_missing_file_is_a_wrong_command_line() {
    let output = Faas::new().run(&["inspect", "nothing.wasm"]).exits(2);
    assert_eq!(output.stderr, "error: cannot read `nothing.wasm`: no such file or directory\n");
}
