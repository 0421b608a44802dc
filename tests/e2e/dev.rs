//! `faas new` and `faas dev`: from nothing to a function that answers, and from a change to the
//! next version, with the real tools.

use crate::cli::Following;
use faas_api::ErrorCode;
use faas_tests::{Answer, Cli, Connection, Request, artifacts, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// Rust is built here, perhaps beside other builds.
const PATIENCE: Duration = Duration::from_secs(300);

fn home() -> TempDir {
    tempfile::Builder::new().prefix("faas-dev-").tempdir().unwrap()
}

/// A copy of examples/hello that finds the SDK where it is.
fn copy_of_hello(home: &Path) -> PathBuf {
    let (from, to) = (artifacts::repository().join("examples/hello"), home.join("hello"));
    fs::create_dir_all(to.join("src")).unwrap();
    for file in ["Cargo.toml", "Cargo.lock", "faas.toml", "src/lib.rs"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let sdk = artifacts::repository().join("sdk");
    let manifest = fs::read_to_string(to.join("Cargo.toml")).unwrap();
    let path = format!("path = {:?}", sdk.display().to_string());
    let changed = manifest.replace("path = \"../../sdk\"", &path);
    assert_ne!(changed, manifest);
    fs::write(to.join("Cargo.toml"), changed).unwrap();
    to
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    let changed = text.replace(from, to);
    assert_ne!(changed, text, "{}", file.display());
    fs::write(file, changed).unwrap();
}

fn get(url: &str) -> String {
    ask(url).expect(200).text()
}

fn ask(url: &str) -> Answer {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    Connection::open(host.parse().unwrap()).ask(&Request::get(&format!("/{path}")))
}

/// The next event of this name.
#[track_caller]
fn event(dev: &Following, name: &str) -> Value {
    let line = dev.says_within(PATIENCE, &[&format!("\"event\":\"{name}\"")]);
    serde_json::from_str(&line).unwrap()
}

#[test]
fn an_example_is_built_served_and_watched() {
    let home = home();
    let project = copy_of_hello(home.path());
    let source = project.join("src/lib.rs");
    let args = ["dev", "hello", "--listen", "127.0.0.1:0", "-o", "json"];
    let mut dev = Following::start(Cli::new(home.path(), args).toolchains());
    let first = event(&dev, "deployed");
    assert_eq!((&first["app"], &first["version"]), (&"hello".into(), &"v1".into()));
    let url = first["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/hello/"), "{url}");
    assert_eq!(get(&url), "Hello!\n");
    assert_eq!(event(&dev, "log")["source"], "request");
    assert!(project.join(".faas/.gitignore").is_file(), "git shall not see it");

    replace(&source, "\"Hello!\\n\".into_response()", "\"Changed!\\n\".into_response()");
    let changed = event(&dev, "changed");
    assert!(changed["paths"][0].as_str().unwrap().ends_with("src/lib.rs"), "{changed}");
    assert_eq!(event(&dev, "deployed")["version"], "v2");
    assert_eq!(get(&url), "Changed!\n");

    // A panic is told with its line, and so is the way there.
    replace(&source, "\"Changed!\\n\".into_response()", "todo!()");
    assert_eq!(event(&dev, "deployed")["version"], "v3");
    let answer = ask(&url);
    answer.failure(ErrorCode::GuestTrap);
    let line = dev.says_within(PATIENCE, &["\"source\":\"failure\"", "unreachable"]);
    let failure: Value = serde_json::from_str(&line).unwrap();
    let text = fs::read_to_string(&source).unwrap();
    let at = text.lines().position(|line| line.contains("todo!()")).unwrap() + 1;
    let frames = failure["message"].as_str().unwrap();
    assert!(frames.contains("hello::handle"), "{frames}");
    assert!(frames.contains(&format!("src/lib.rs:{at}")), "{frames}");
    replace(&source, "todo!()", "\"Changed!\\n\".into_response()");
    assert_eq!(event(&dev, "deployed")["version"], "v4");

    // A mistake is told, and does not take down what is live.
    replace(&source, "\"Changed!\\n\".into_response()", "\"Changed!\\n\".into_respons()");
    assert_eq!(event(&dev, "failed")["error"]["code"], "build_failed");
    assert_eq!(get(&url), "Changed!\n");

    faas_tests::process::signal(dev.id(), Signal::INT);
    assert_eq!(dev.ends(), 0);
    assert!(Connection::try_open(url[7..url.len() - "/hello/".len()].parse().unwrap()).is_err());
}

#[test]
fn a_new_project_works_at_once() {
    let home = home();
    let made = Cli::new(home.path(), ["new", "my-app"]).run().expect(0);
    assert_eq!(made.stdout, "");
    assert!(made.stderr.contains("faas dev"), "it says what comes next: {}", made.stderr);
    let project = home.path().join("my-app");
    let manifest = fs::read_to_string(project.join("Cargo.toml")).unwrap();
    let sdk = manifest.lines().find_map(|line| line.strip_prefix("faas-sdk = { path = \""));
    let sdk = sdk.and_then(|rest| rest.split('"').next());
    let sdk = Path::new(sdk.unwrap_or_else(|| panic!("not by path: {manifest}")));
    assert!(sdk.join("Cargo.toml").is_file(), "{}", sdk.display());
    let args = ["dev", "--once", "--listen", "127.0.0.1:0"];
    let output = Cli::new(home.path(), args).toolchains().dir(&project).run().expect(0);
    assert!(output.stdout.starts_with("http://127.0.0.1:"), "{output:?}");
    assert!(output.stdout.ends_with("/my-app/\n"), "{output:?}");
    // What it made can be deployed as it is.
    let wasm = project.join("target/wasm32-wasip2/release/my_app.wasm");
    let inspected = Cli::new(home.path(), ["inspect", wasm.to_str().unwrap(), "-o", "json"]);
    assert_eq!(inspected.run().expect(0).json()["data"]["kind"], "http-0.3");
    // A second time there is nothing to build, and all that was deployed is there.
    let args = ["dev", "--once", "--listen", "127.0.0.1:0"];
    let again = Cli::new(home.path(), args).toolchains().dir(&project).run().expect(0);
    assert!(again.stdout.ends_with("/my-app/\n"), "{again:?}");
}

/// The C template, where its compiler is: the quickest of the others.
#[test]
fn a_new_project_in_c() {
    let home = home();
    Cli::new(home.path(), ["new", "--lang", "c", "my-c"]).run().expect(0);
    let project = home.path().join("my-c");
    let args = ["dev", "--listen", "127.0.0.1:0", "-o", "json"];
    let mut dev = Following::start(Cli::new(home.path(), args).toolchains().dir(&project));
    let url = event(&dev, "deployed")["url"].as_str().unwrap().to_owned();
    assert!(!get(&url).is_empty());
    faas_tests::process::signal(dev.id(), Signal::TERM);
    assert_eq!(dev.ends(), 0);
}

#[test]
fn a_missing_tool_is_named() {
    let home = home();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/bin/sh", bin.join("sh")).unwrap();
    for (lang, tool, way) in [
        ("rust", "cargo", "https://rustup.rs"),
        ("js", "npm", "https://nodejs.org"),
        ("python", "componentize-py", "pip install -r requirements.txt"),
        ("c", "zig", "pip install"),
    ] {
        Cli::new(home.path(), ["new", "--lang", lang, lang]).run().expect(0);
        let args = ["dev", lang, "--once", "--listen", "127.0.0.1:0"];
        let output = Cli::new(home.path(), args).env("PATH", &bin).run().expect(7);
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains(&format!("`{tool}`")), "{lang}: {output:?}");
        assert!(output.stderr.contains(way), "{lang}: {output:?}");
        let args = ["dev", lang, "--once", "--listen", "127.0.0.1:0", "-o", "json"];
        let output = Cli::new(home.path(), args).env("PATH", &bin).run().expect(7);
        assert_eq!(output.json()["error"]["code"], "tool_missing", "{lang}");
    }
}

/// A node of its own for each project: two of them do not meet, the same one twice is refused.
#[test]
fn one_project_one_node() {
    let home = home();
    let wat = artifacts::repository().join("examples/wat-hello/wat-hello.wat");
    for app in ["one", "two"] {
        let dir = home.path().join(app);
        fs::create_dir(&dir).unwrap();
        fs::copy(&wat, dir.join("hello.wat")).unwrap();
        let manifest =
            format!("[app]\nname = \"{app}\"\n\n[functions.main]\nsource = \"hello.wat\"\n");
        fs::write(dir.join("faas.toml"), manifest).unwrap();
    }
    let dev = |app: &str| {
        let args = ["dev", app, "--listen", "127.0.0.1:0", "-o", "json"];
        Following::start(Cli::new(home.path(), args))
    };
    let mut nodes = ["one", "two"].map(dev);
    for node in &nodes {
        let url = event(node, "deployed")["url"].as_str().unwrap().to_owned();
        assert_eq!(get(&url), "Hello from WebAssembly text!\n");
    }
    let args = ["dev", "one", "--listen", "127.0.0.1:0"];
    let twice = Cli::new(home.path(), args).run().expect(5);
    assert!(twice.stderr.contains("another server"), "{twice:?}");
    // Without an address it takes the usual one or any that is free.
    for node in &mut nodes {
        faas_tests::process::signal(node.id(), Signal::INT);
        assert_eq!(node.ends(), 0);
    }
    // A text that is edited goes live, too: nothing has to be built.
    let node = dev("one");
    let url = event(&node, "deployed")["url"].as_str().unwrap().to_owned();
    replace(&home.path().join("one/hello.wat"), "WebAssembly", "webassembly");
    eventually("the change is live", PATIENCE, || {
        (get(&url) == "Hello from webassembly text!\n").then_some(())
    });
}
