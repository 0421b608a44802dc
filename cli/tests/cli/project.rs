//! `faas deploy` in a project: its manifest and its build, before any server is asked.

use crate::{
    command::{CGI_WAT, Faas},
    server::nobody,
};
use serde_json::json;

const MANIFEST: &str = r#"[app]
name = "shop"

[build]
command = "sh build.sh"

[functions.main]
source = "dist/shop.wat"
"#;

fn user() -> Faas {
    Faas::with_server(&nobody()).file("faas.toml", MANIFEST)
}

#[test]
fn without_a_manifest() {
    let output = Faas::new().run(&["deploy"]).exits(2);
    assert!(output.stderr.starts_with("error: no faas.toml in `"), "{output:?}");
    assert!(output.stderr.contains("\nhint: `faas new NAME` starts a project"));
}

#[test]
fn a_mistake_has_a_line_and_a_suggestion() {
    let faas = Faas::new().file("faas.toml", MANIFEST.replace("source", "scource"));
    assert_eq!(
        faas.run(&["deploy"]).exits(2).stderr,
        "error: unknown key `scource` in faas.toml, line 8\n\
         8 | scource = \"dist/shop.wat\"\n  \
           | ^^^^^^^ did you mean `source`?\n"
    );
    let error = &faas.run(&["deploy", "-o", "json"]).exits(2).json()["error"];
    assert_eq!(error["code"], json!("manifest"));
    assert_eq!(error["details"].as_array().unwrap().len(), 2);
}

#[test]
fn a_failing_build_exits_7_and_shows_why() {
    let faas = user().file("build.sh", "echo one; echo two >&2; exit 3");
    let output = faas.run(&["deploy"]).exits(7);
    assert_eq!(output.stdout, "");
    assert_eq!(output.stderr, "one\ntwo\nerror: `sh build.sh` ended with 3\n");
    let output = faas.run(&["deploy", "-o", "json"]).exits(7);
    assert_eq!(output.json()["error"]["code"], json!("build_failed"));
    assert_eq!(output.stderr, "one\ntwo\n");
}

#[test]
fn a_build_that_makes_something_else_exits_7() {
    let faas = user().file("build.sh", "true");
    let output = faas.run(&["deploy"]).exits(7);
    assert!(output.stderr.contains("made no `dist/shop.wat`"), "{output:?}");
}

#[test]
fn a_missing_tool_exits_7_and_is_named() {
    let faas = user()
        .file("build.sh", "componentize-py -o dist/shop.wasm")
        .file("requirements.txt", "componentize-py==0.25.1\n");
    let path = faas.home().join("bin");
    std::fs::create_dir(&path).unwrap();
    std::os::unix::fs::symlink("/bin/sh", path.join("sh")).unwrap();
    let faas = faas.env("PATH", path.to_str().unwrap());
    let output = faas.run(&["deploy"]).exits(7);
    assert!(output.stderr.contains("the build needs `componentize-py`"), "{output:?}");
    assert!(
        output
            .stderr
            .contains("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
        "{output:?}"
    );
}

#[test]
fn the_build_runs_before_the_server_is_asked() {
    let script = format!("mkdir -p dist; echo '{CGI_WAT}' > dist/shop.wat");
    let faas = user().file("build.sh", script).file("src/deep/x", "");
    faas.run(&["deploy", "--skip-build"]).exits(2);
    // From a folder below too.
    faas.run(&["-C", "src/deep", "deploy"]).exits(6);
    faas.run(&["deploy", "--skip-build"]).exits(6);
}

#[test]
fn what_cannot_run_needs_no_server() {
    let faas = user().file("a.wasm", "no").file("b.wat", "(module)").file("c.wasm", "\x7fELF");
    for file in ["a.wasm", "b.wat", "c.wasm"] {
        faas.run(&["deploy", file]).exits(8);
    }
}

#[test]
fn a_file_names_its_app_or_is_told_to() {
    let faas = user().file("My Fn.wat", CGI_WAT).file("admin.wat", CGI_WAT);
    for file in ["My Fn.wat", "admin.wat"] {
        let output = faas.run(&["deploy", file]).exits(2);
        assert!(output.stderr.ends_with("hint: name it: --name APP\n"), "{output:?}");
    }
    faas.run(&["deploy", "admin.wat", "--name", "shop"]).exits(6);
}
