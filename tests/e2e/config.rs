//! Variables and secrets: what functions see of them, and what nobody else does.

use crate::cli::Following;
use faas_api::{Digest, ErrorCode, FunctionSpec, Manifest, Settings};
use faas_tests::{Answer, Cli, Node, Request, artifacts::Guest, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough not to stand in a file by chance.
const SECRET: &str = "sk_live_0xC0FFEE_hunter2_tr0ub4dor";

fn artifact(node: &Node, wasm: &[u8]) -> Digest {
    let digest = Digest::of(wasm);
    let request = Request::new("PUT", &format!("/v1/blobs/{digest}"))
        .header("content-type", "application/wasm")
        .body(wasm);
    assert!(node.api(request).status < 300);
    digest
}

/// Deploys functions of one artifact, with these settings.
fn try_deploy(node: &Node, app: &str, wasm: &[u8], functions: &[(&str, Value)]) -> Answer {
    let digest = artifact(node, wasm);
    let functions = functions.iter().map(|(name, settings)| {
        let mut settings = settings.clone();
        let reuse = settings.as_object_mut().unwrap().remove("reuse");
        FunctionSpec {
            name: name.parse().unwrap(),
            digest,
            reuse: reuse.map(|reuse| serde_json::from_value(reuse).unwrap()),
            settings: serde_json::from_value::<Settings>(settings).unwrap(),
        }
    });
    let manifest = Manifest { functions: functions.collect(), ..Manifest::default() };
    let body = json!({ "manifest": manifest }).to_string();
    node.api(
        Request::new("POST", &format!("/v1/apps/{app}/versions"))
            .header("content-type", "application/json")
            .body(body),
    )
}

#[track_caller]
fn deploy(node: &Node, app: &str, wasm: &[u8], functions: &[(&str, Value)]) {
    try_deploy(node, app, wasm, functions).expect(201);
}

#[track_caller]
fn faas<'a>(node: &Node, args: impl IntoIterator<Item = &'a str>) -> String {
    node.cli(args).run().expect(0).stdout
}

#[track_caller]
fn put_secret(node: &Node, app: &str, name: &str, value: &str) {
    node.cli(["secret", "put", name, "--app", app]).stdin(value).run().expect(0);
}

/// The value of a variable as the function at this path sees it.
#[track_caller]
fn seen(node: &Node, path: &str, name: &str) -> Option<String> {
    let text = node.get(&format!("{path}/variable?name={name}")).expect(200).text();
    text.trim_end().strip_prefix('=').map(str::to_owned)
}

/// All variables, but for those of CGI.
#[track_caller]
fn all_seen(node: &Node, path: &str) -> BTreeMap<String, String> {
    const CGI: [&str; 12] = [
        "GATEWAY_INTERFACE",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
        "SERVER_NAME",
        "SERVER_PORT",
        "REQUEST_METHOD",
        "REQUEST_URI",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "REMOTE_ADDR",
        "CONTENT_TYPE",
    ];
    let text = node.get(&format!("{path}/variables")).expect(200).text();
    let pairs = text.lines().map(|line| line.split_once('=').unwrap());
    let own = pairs.filter(|(name, _)| !name.starts_with("HTTP_") && !CGI.contains(name));
    own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn count(node: &Node, path: &str) -> u32 {
    node.get(&format!("{path}/count")).expect(200).text().trim().parse().unwrap()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Settings of a function that names these secrets.
fn with_secrets(names: &[&str]) -> Value {
    json!({ "secrets": names })
}

#[test]
fn every_kind_of_function_sees_what_it_was_given_and_nothing_else() {
    let node = Node::start();
    for guest in Guest::ALL {
        let app = guest.app();
        // All of it before there is such an app.
        faas(&node, ["env", "set", "SHARED=of the app", "PLAIN=1", "--app", app]);
        put_secret(&node, app, "KEY", SECRET);
        put_secret(&node, app, "OTHER", "not asked for");
        let settings = json!({
            "env": { "OWN": "of the manifest", "SHARED": "of the manifest" },
            "secrets": ["KEY"],
        });
        deploy(&node, app, &guest.wasm(), &[("main", settings)]);
        let expected = map(&[
            ("KEY", SECRET),
            ("OWN", "of the manifest"),
            ("PLAIN", "1"),
            ("SHARED", "of the app"),
        ]);
        assert_eq!(all_seen(&node, &format!("/{app}")), expected, "{guest:?}");
        // The next request sees each change; no version is made.
        let path = format!("/{app}");
        faas(&node, ["env", "unset", "SHARED", "--app", app]);
        assert_eq!(seen(&node, &path, "SHARED").as_deref(), Some("of the manifest"), "{guest:?}");
        faas(&node, ["env", "set", "OWN=a=b c", "--app", app]);
        assert_eq!(seen(&node, &path, "OWN").as_deref(), Some("a=b c"), "{guest:?}");
        put_secret(&node, app, "KEY", "rotated\n");
        assert_eq!(seen(&node, &path, "KEY").as_deref(), Some("rotated"), "{guest:?}");
        let answer = node.get(&format!("/{app}/")).expect(200);
        assert_eq!(answer.header("x-faas-version"), Some("v1"));
        // What CGI says of a request cannot be changed.
        faas(&node, ["env", "set", "SERVER_SOFTWARE=forged", "--app", app]);
        let software = seen(&node, &path, "SERVER_SOFTWARE").unwrap();
        assert_eq!(software == "forged", !guest.is_cgi(), "{guest:?}: {software}");
        let text = node.get(&format!("/{app}/variables")).expect(200).text();
        assert_eq!(text.matches("SERVER_SOFTWARE=").count(), 1, "{guest:?}");
    }
}

/// `wasi:config/store`, under both of its names.
#[test]
fn components_read_their_configuration_from_its_store() {
    let node = Node::start();
    let wasm = fs::read(Guest::Cgi02.file().with_file_name("guest-config.wasm"))
        .expect("tests/run.sh builds what the tests need");
    put_secret(&node, "app", "KEY", SECRET);
    put_secret(&node, "app", "OTHER", "not asked for");
    let settings = json!({ "env": { "OWN": "x" }, "secrets": ["KEY"] });
    deploy(&node, "app", &wasm, &[("main", settings)]);
    faas(&node, ["env", "set", "A=1", "--app", "app"]);
    for (name, value) in [("KEY", SECRET), ("A", "1"), ("OWN", "x")] {
        let text = node.get(&format!("/app/?{name}")).expect(200).text();
        assert!(text.contains(&format!("rc Some({value:?})\n")), "{text}");
        assert!(text.contains(&format!("draft Some({value:?})\n")), "{text}");
        for list in ["rc-all", "draft-all"] {
            assert!(text.contains(&format!("{list} A=1,KEY={SECRET},OWN=x\n")), "{text}");
        }
    }
    for name in ["OTHER", "QUERY_STRING", "PATH"] {
        let text = node.get(&format!("/app/?{name}")).expect(200).text();
        assert!(text.contains("rc None\n") && text.contains("draft None\n"), "{name}: {text}");
    }
}

#[test]
fn an_environment_is_one_functions_own() {
    let node = Node::start();
    for guest in [Guest::Http03, Guest::Cgi01] {
        let app = guest.app();
        put_secret(&node, app, "KEY", SECRET);
        let route = |path: &str, more: Value| {
            let mut settings = json!({ "routes": [format!("/{path}/*")], "strip_prefix": true });
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            settings
        };
        let functions = [
            ("one", route("one", json!({ "secrets": ["KEY"], "env": { "A": "one" } }))),
            ("two", route("two", json!({ "env": { "B": "two" } }))),
            ("three", route("three", json!({}))),
        ];
        deploy(&node, app, &guest.wasm(), &functions);
        deploy(&node, "other", &guest.wasm(), &[("main", json!({}))]);
        let all = |path: &str| all_seen(&node, path);
        assert_eq!(all(&format!("/{app}/one")), map(&[("A", "one"), ("KEY", SECRET)]));
        assert_eq!(all(&format!("/{app}/two")), map(&[("B", "two")]));
        assert_eq!(all(&format!("/{app}/three")), map(&[]));
        faas(&node, ["env", "set", "C=all", "--app", app]);
        assert_eq!(all(&format!("/{app}/two")), map(&[("B", "two"), ("C", "all")]));
        assert_eq!(all(&format!("/{app}/three")), map(&[("C", "all")]));
        assert_eq!(all("/other"), map(&[]));
    }
}

/// An instance that was made with an old environment serves nobody who comes after the change.
#[test]
fn a_change_retires_instances_of_the_functions_it_concerns() {
    let node = Node::start();
    for (guest, reuse) in [
        (Guest::Http02, json!({ "requests": 1000 })),
        (Guest::Http03, json!({ "requests": 1000 })),
        (Guest::Http03, json!({ "requests": 1000, "concurrency": 4 })),
    ] {
        put_secret(&node, "app", "KEY", "1");
        let settings = |path: &str, secrets: &[&str]| {
            json!({
                "routes": [format!("/{path}/*")], "strip_prefix": true,
                "secrets": secrets, "reuse": reuse,
            })
        };
        let functions = [("one", settings("one", &["KEY"])), ("two", settings("two", &[]))];
        deploy(&node, "app", &guest.wasm(), &functions);
        let counts = || (count(&node, "/app/one"), count(&node, "/app/two"));
        assert_eq!((counts(), counts()), ((1, 1), (2, 2)), "{guest:?}");
        put_secret(&node, "app", "KEY", "1");
        assert_eq!(counts(), (3, 3), "{guest:?}: the same value is no change");
        put_secret(&node, "app", "KEY", "2");
        assert_eq!(counts(), (1, 4), "{guest:?}: a secret concerns those that name it");
        assert_eq!(seen(&node, "/app/one", "KEY").as_deref(), Some("2"));
        faas(&node, ["env", "set", "A=1", "--app", "app"]);
        assert_eq!(counts(), (1, 1), "{guest:?}: a variable concerns all");
        faas(&node, ["env", "set", "A=1", "--app", "other"]);
        assert_eq!(counts(), (2, 2), "{guest:?}: other apps are other apps");
        faas(&node, ["env", "unset", "A", "--app", "app"]);
        assert_eq!(counts(), (1, 1), "{guest:?}");
        node.api(Request::new("DELETE", "/v1/apps/app")).expect(204);
    }
    node.idle();
}

/// Neither a change nor its moment loses a request, and one that is being answered goes on.
#[test]
fn a_change_loses_no_request() {
    let node = Node::start();
    put_secret(&node, "app", "KEY", "0");
    deploy(&node, "app", &Guest::Http03.wasm(), &[("main", with_secrets(&["KEY"]))]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let slow = scope.spawn(|| node.get("/app/slow?pieces=10&ms=100&bytes=5"));
        let load: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let now = seen(&node, "/app", "KEY").unwrap().parse::<u32>().unwrap();
                        assert!(now >= last, "{now} after {last}");
                        last = now;
                    }
                })
            })
            .collect();
        for value in 1..=20 {
            put_secret(&node, "app", "KEY", &value.to_string());
            assert_eq!(seen(&node, "/app", "KEY").unwrap(), value.to_string());
        }
        stop.store(true, Ordering::Relaxed);
        load.into_iter().for_each(|load| load.join().unwrap());
        assert_eq!(slow.join().unwrap().expect(200).body.len(), 50);
    });
    let metrics = node.metrics();
    assert_eq!(metrics.sum("faas_cold_starts_total", &[]), 1.0, "nothing is loaded again");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut node = Node::start();
    deploy(&node, "app", &Guest::Cgi01.wasm(), &[("main", json!({}))]);
    for value in ["1", "2", "3"] {
        faas(&node, ["env", "set", &format!("A={value}"), "--app", "app"]);
        put_secret(&node, "app", "KEY", value);
        node.kill();
        node.launch();
        assert_eq!(seen(&node, "/app", "A").as_deref(), Some(value));
    }
    deploy(&node, "app", &Guest::Cgi01.wasm(), &[("main", with_secrets(&["KEY"]))]);
    assert_eq!(seen(&node, "/app", "KEY").as_deref(), Some("3"));
    node.restart();
    assert_eq!(all_seen(&node, "/app"), map(&[("A", "3"), ("KEY", "3")]));
}

#[test]
fn a_secret_is_nowhere_but_in_functions() {
    let mut node = Node::with("[log]\nfilter = \"debug\"\n");
    put_secret(&node, "app", "KEY", SECRET);
    deploy(&node, "app", &Guest::Http02.wasm(), &[("main", with_secrets(&["KEY"]))]);
    assert_eq!(seen(&node, "/app", "KEY").as_deref(), Some(SECRET));
    // Wrong in many ways, and never repeated.
    let refused = |method: &str, target: &str, kind: &str, body: &str| {
        let request = Request::new(method, target).header("content-type", kind).body(body);
        let answer = node.api(request);
        assert!(answer.status >= 400, "{answer:?}");
        answer.text()
    };
    let target = "/v1/apps/app/secrets/KEY";
    let mut said = vec![
        refused("PUT", target, "text/plain", &format!("{SECRET}\0")),
        refused("PUT", target, "application/json", SECRET),
        refused("PUT", "/v1/apps/app/secrets/1", "text/plain", SECRET),
        refused("PUT", target, "text/plain", &SECRET.repeat(2000)),
    ];
    for args in [
        &["secret", "list", "--app", "app"][..],
        &["secret", "list", "--app", "app", "-o", "json"],
        &["describe", "app", "-o", "json"],
        &["versions", "app", "-o", "json"],
        &["env", "list", "--app", "app"],
        &["logs", "app", "-o", "json"],
    ] {
        said.push(faas(&node, args.iter().copied()));
    }
    for path in ["/v1/apps/app/secrets", "/v1/apps/app/versions", "/metrics"] {
        said.push(node.api(Request::get(path)).expect(200).text());
    }
    node.signal(Signal::TERM);
    node.wait();
    said.push(node.log());
    assert!(said.iter().all(|text| !text.contains("hunter2")), "{said:?}");
    let files = node.files("");
    assert!(files.iter().any(|file| file.ends_with("state.db")), "{files:?}");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{}", file.display());
    }
}

/// Without the right key a node does not start, and says what to do; with it all is there.
#[test]
fn a_wrong_key_refuses_to_start() {
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=";
    let mut node = Node::start();
    put_secret(&node, "app", "KEY", SECRET);
    deploy(&node, "app", &Guest::Cgi01.wasm(), &[("main", with_secrets(&["KEY"]))]);
    node.signal(Signal::TERM);
    node.wait();
    let own = node.data_dir().join("secrets.key");
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read(&own).unwrap();
    let refused = |variable: &str, value: &str| {
        let serve = Cli::new(node.home(), node.serve_arguments()).env(variable, value);
        let output = serve.run().expect(1);
        assert!(!output.stderr.contains(KEY), "{}", output.stderr);
        output.stderr
    };
    let text = refused("FAAS_SECRETS_KEY", KEY);
    assert!(text.contains("another key") && text.contains("FAAS_SECRETS_KEY"), "{text}");
    let text = refused("FAAS_SECRETS_KEY", "hunter2");
    assert!(text.contains("is no key") && !text.contains("hunter2"), "{text}");
    let credentials = node.home().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let credential = credentials.join("faas-secrets-key");
    fs::write(&credential, KEY).unwrap();
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o400)).unwrap();
    let text = refused("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    assert!(text.contains("another key") && text.contains("credential"), "{text}");
    fs::remove_file(&own).unwrap();
    let text = refused("NOTHING", "");
    assert!(text.contains("secrets.key") && text.contains("restore"), "{text}");
    assert!(!own.exists(), "a new key would open nothing");
    fs::write(&own, kept).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
    node.launch();
    assert_eq!(seen(&node, "/app", "KEY").as_deref(), Some(SECRET));
}

#[test]
fn a_key_file_of_the_operators() {
    let mut node = Node::unstarted("");
    let key = node.home().join("key");
    fs::write(&key, "00".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!("[secrets]\nkey_file = {key:?}\n");
    fs::write(node.home().join("config.toml"), config).unwrap();
    node.launch();
    assert!(!node.data_dir().join("secrets.key").exists());
    put_secret(&node, "app", "KEY", SECRET);
    deploy(&node, "app", &Guest::Cgi01.wasm(), &[("main", with_secrets(&["KEY"]))]);
    node.restart();
    assert_eq!(seen(&node, "/app", "KEY").as_deref(), Some(SECRET));
    node.signal(Signal::TERM);
    node.wait();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let output = Cli::new(node.home(), node.serve_arguments()).run().expect(1);
    assert!(output.stderr.contains("can be read by everybody"), "{output:?}");
}

#[test]
fn a_missing_secret_refuses_the_deploy_and_not_the_first_request() {
    let node = Node::start();
    let wasm = Guest::Cgi01.wasm();
    let settings = with_secrets(&["KEY", "OTHER"]);
    let refused = try_deploy(&node, "app", &wasm, &[("main", settings.clone())]);
    let body = refused.failure(ErrorCode::MissingSecret);
    let detail = body.detail.unwrap();
    assert!(detail.contains("`KEY`, `OTHER`"), "{detail}");
    assert_eq!(body.hint.unwrap(), "faas secret put KEY --app app");
    node.api(Request::get("/v1/apps/app")).failure(ErrorCode::NotFound);
    put_secret(&node, "app", "KEY", "1");
    let refused = try_deploy(&node, "app", &wasm, &[("main", settings.clone())]);
    let detail = refused.failure(ErrorCode::MissingSecret).detail.unwrap();
    assert!(detail.contains("`OTHER` is") && !detail.contains("KEY"), "{detail}");
    put_secret(&node, "app", "OTHER", "2");
    deploy(&node, "app", &wasm, &[("main", settings)]);
    assert_eq!(all_seen(&node, "/app"), map(&[("KEY", "1"), ("OTHER", "2")]));
    // It stays as long as it is needed,
    let output = node.cli(["secret", "rm", "KEY", "--app", "app", "-o", "json"]).run().expect(5);
    let error = &output.json()["error"];
    assert_eq!(error["code"], "secret_in_use");
    assert!(error["message"].as_str().unwrap().contains("v1"), "{error}");
    // and no version comes back without it.
    deploy(&node, "app", &wasm, &[("main", json!({}))]);
    faas(&node, ["secret", "rm", "KEY", "OTHER", "--app", "app"]);
    let output = node.cli(["rollback", "app", "-o", "json"]).run().expect(1);
    let error = &output.json()["error"];
    assert_eq!(error["code"], "missing_secret");
    assert!(error["hint"].as_str().unwrap().contains("faas secret put"), "{error}");
    assert_eq!(all_seen(&node, "/app"), map(&[]));
    // Its preview goes on, without.
    assert_eq!(all_seen(&node, "/app@v1"), map(&[]));
    put_secret(&node, "app", "KEY", "3");
    assert_eq!(all_seen(&node, "/app@v1"), map(&[("KEY", "3")]));
    put_secret(&node, "app", "OTHER", "4");
    faas(&node, ["rollback", "app"]);
    assert_eq!(all_seen(&node, "/app"), map(&[("KEY", "3"), ("OTHER", "4")]));
}

#[test]
fn too_much_is_refused_with_both_numbers() {
    let node = Node::start();
    let long = "x".repeat(1 << 20);
    let args = ["secret", "put", "KEY", "--app", "app", "-o", "json"];
    let output = node.cli(args).stdin(long.clone()).run().expect(8);
    let error = &output.json()["error"];
    assert_eq!(error["code"], "body_too_large");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("1048576") && message.contains("32768"), "{message}");
    let put = Request::new("PUT", "/v1/apps/app/secrets/KEY").header("content-type", "text/plain");
    let body = node.api(put.clone().body(long)).failure(ErrorCode::BodyTooLarge);
    let detail = body.detail.unwrap();
    assert!(detail.contains("1048576") && detail.contains("32768"), "{detail}");
    node.api(put.body("x".repeat(32768))).expect(201);
    // A file of variables that are too many is refused whole.
    let many: String = (0..200).map(|number| format!("V{number}=1\n")).collect();
    let output = node.cli(["env", "import", "-", "--app", "app"]).stdin(many).run().expect(1);
    assert!(output.stderr.contains("200") && output.stderr.contains("128"), "{output:?}");
    assert_eq!(faas(&node, ["env", "list", "--app", "app"]), "");
}

/// The command line, as a person and as a script use it.
#[test]
fn the_verbs() {
    let node = Node::start();
    let project = node.home().join("project");
    fs::create_dir(&project).unwrap();
    let manifest = "[app]\nname = \"shop\"\n\n[functions.main]\nsource = \"x.wasm\"\n";
    fs::write(project.join("faas.toml"), manifest).unwrap();
    let run = |args: &[&str], stdin: &str| {
        node.cli(args.iter().copied()).dir(&project).stdin(stdin).run()
    };
    let listed = run(&["env", "list"], "").expect(4);
    assert!(listed.stderr.contains("shop"), "{listed:?}");
    let file = "# comment\nexport A=1\nB='two words'\nC=\"line\\nnext $HOME\"\n";
    fs::write(project.join("some.env"), file).unwrap();
    let imported = run(&["env", "import", "some.env", "-o", "json"], "").expect(0).json();
    let expected = json!({ "A": "1", "B": "two words", "C": "line\nnext $HOME" });
    assert_eq!(imported["data"]["env"], expected);
    let listed = run(&["env", "list"], "").expect(0).stdout;
    assert_eq!(listed, "A=1\nB=\"two words\"\nC=\"line\\nnext \\$HOME\"\n");
    // What is listed can be imported.
    run(&["env", "import", "-", "--app", "copy"], &listed).expect(0);
    let copied = run(&["env", "ls", "--app", "copy", "-o", "json"], "").expect(0).json();
    assert_eq!(copied["data"]["env"], expected);
    let said = run(&["env", "set", "A=2", "D=x=y"], "").expect(0);
    assert_eq!(said.stdout, "");
    assert!(said.stderr.contains("set 2 variables of shop"), "{said:?}");
    run(&["env", "unset", "B", "C", "GONE"], "").expect(0);
    assert_eq!(run(&["env", "list"], "").expect(0).stdout, "A=2\nD=x=y\n");
    let put = run(&["secret", "put", "KEY", "-o", "json"], "hunter2\r\n").expect(0).json();
    assert_eq!(put["data"]["name"], "KEY");
    run(&["secret", "import", "-"], "ONE=1\nTWO=2\n").expect(0);
    let listed = run(&["secret", "list"], "").expect(0).stdout;
    let names: Vec<&str> =
        listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["KEY", "ONE", "TWO"]);
    run(&["secret", "rm", "ONE", "TWO"], "").expect(0);
    run(&["secret", "rm", "ONE"], "").expect(4);
    deploy(&node, "shop", &Guest::Cgi01.wasm(), &[("main", with_secrets(&["KEY"]))]);
    assert_eq!(seen(&node, "/shop", "KEY").as_deref(), Some("hunter2"));
    // Everything goes with the app.
    run(&["delete", "shop", "--yes"], "").expect(0);
    run(&["secret", "list"], "").expect(4);
    deploy(&node, "shop", &Guest::Cgi01.wasm(), &[("main", json!({}))]);
    assert_eq!(all_seen(&node, "/shop"), map(&[]));
    for wrong in [
        &["env", "set", "NO_VALUE"][..],
        &["env", "set", "BAD-NAME=1"],
        &["env", "set", "HTTP_PROXY=1"],
        &["env", "set"],
        &["env", "import", "nowhere.env"],
        &["secret", "put", "KEY"],
        &["secret", "put", "KEY", "value"],
        &["secret", "get", "KEY"],
    ] {
        run(wrong, "").expect(2);
    }
    let outside = node.cli(["env", "list"]).run().expect(2);
    assert!(outside.stderr.contains("--app"), "{outside:?}");
    let broken = run(&["env", "import", "-"], "A=1\nsecret words\n").expect(2);
    assert!(broken.stderr.contains("line 2") && !broken.stderr.contains("words"), "{broken:?}");
}

fn dev_project(home: &Path, guest: Guest) -> PathBuf {
    let project = home.join("project");
    fs::create_dir(&project).unwrap();
    fs::copy(guest.file(), project.join("app.wasm")).unwrap();
    let manifest = "[app]\nname = \"shop\"\n\n[functions.main]\nsource = \"app.wasm\"\n";
    fs::write(project.join("faas.toml"), manifest).unwrap();
    project
}

/// `faas dev` has the variables of `.env`, and of `.env.local` over them, as they are now.
#[test]
fn a_development_node_follows_its_files() {
    let home = tempfile::Builder::new().prefix("faas-dev-").tempdir().unwrap();
    let project = dev_project(home.path(), Guest::Cgi01);
    fs::write(project.join(".env"), "A=1\nB=1\n").unwrap();
    let args = ["dev", "--listen", "127.0.0.1:0", "-o", "json"];
    let mut dev = Following::start(Cli::new(home.path(), args).dir(&project));
    let line = dev.says_within(PATIENCE, &["\"event\":\"deployed\""]);
    let event: Value = serde_json::from_str(&line).unwrap();
    let url = event["url"].as_str().unwrap().to_owned();
    let seen = |name: &str| {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let request = Request::get(&format!("/{path}variable?name={name}"));
        let answer = faas_tests::Connection::open(host.parse().unwrap()).ask(&request);
        answer.expect(200).text().trim().to_owned()
    };
    assert_eq!((seen("A"), seen("B")), ("=1".to_owned(), "=1".to_owned()));
    let becomes = |name: &str, value: &str| {
        eventually("the change is seen", PATIENCE, || (seen(name) == value).then_some(()));
    };
    fs::write(project.join(".env"), "A=2\n").unwrap();
    becomes("A", "=2");
    becomes("B", "none");
    fs::write(project.join(".env.local"), "A=3\n").unwrap();
    becomes("A", "=3");
    fs::remove_file(project.join(".env.local")).unwrap();
    becomes("A", "=2");
    fs::remove_file(project.join(".env")).unwrap();
    becomes("A", "none");
    faas_tests::process::signal(dev.id(), Signal::TERM);
    assert_eq!(dev.ends(), 0);
}
