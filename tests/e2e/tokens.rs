//! Tokens with a scope and an end, stored logins, and the audit log.

use faas_api::ErrorCode;
use faas_tests::{Answer, Cli, Connection, Node, Output, Request, artifacts::says, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);

/// A token made on the command line.
struct Made {
    text: String,
    id: String,
}

fn create(node: &Node, args: &[&str]) -> Made {
    let words = ["token", "create", "-o", "json"].into_iter().chain(args.iter().copied());
    let document = node.cli(words).run().expect(0).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let data = &document["data"];
    Made { text: text(&data["secret"]), id: text(&data["token"]["id"]) }
}

fn revoke(node: &Node, token: &Made) {
    node.cli(["token", "revoke", &token.id]).run().expect(0);
}

/// A request with a token.
fn with(token: &str, request: Request) -> Request {
    request.header("authorization", &format!("Bearer {token}"))
}

#[track_caller]
fn ask(node: &Node, token: &str, request: Request) -> Answer {
    Connection::open(node.admin()).ask(&with(token, request))
}

/// The audit log, newest first.
fn audit(node: &Node) -> Vec<Value> {
    let document = node.cli(["audit", "-o", "json"]).run().expect(0).json();
    document["data"]["entries"].as_array().unwrap().clone()
}

/// `faas` of somebody who has this token and nothing else.
fn as_holder(node: &Node, token: &str, args: &[&str]) -> Output {
    Cli::new(node.home(), args)
        .env("FAAS_SERVER", format!("http://{}", node.admin()))
        .env("FAAS_TOKEN", token)
        .run()
}

#[test]
fn a_deploy_token_deploys_its_app_and_nothing_else() {
    let node = Node::start();
    node.deploy("other", &says("other"));
    fs::write(node.home().join("shop.wasm"), says("from ci")).unwrap();
    let token = create(&node, &["--name", "ci", "--app", "shop", "--can", "deploy"]);
    let run = |args: &[&str]| as_holder(&node, &token.text, args);
    run(&["deploy", "shop.wasm"]).expect(0);
    assert_eq!(node.get("/shop/").expect(200).text().trim(), "from ci");
    run(&["deploy", "shop.wasm"]).expect(0);
    run(&["rollback", "shop"]).expect(0);
    let versions = run(&["versions", "shop", "-o", "json"]).expect(0).json();
    assert_eq!(versions["data"]["versions"][0]["created_by"], "ci");
    let listed = run(&["list", "-o", "json"]).expect(0).json();
    let apps = listed["data"]["apps"].as_array().unwrap();
    assert_eq!(apps.len(), 1, "{listed}");

    for args in [
        &["deploy", "shop.wasm", "--name", "other"][..],
        &["deploy", "shop.wasm", "--name", "nothing-yet"],
        &["describe", "other"],
        &["delete", "shop", "--yes"],
        &["logs", "shop"],
        &["token", "list"],
        &["token", "create", "--app", "shop"],
        &["audit"],
    ] {
        let words: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let error = &run(&words).expect(3).json()["error"];
        assert_eq!(error["code"], "missing_scope", "{args:?}");
        assert!(error["message"].as_str().unwrap().contains("`ci` lacks"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("faas token create"), "{error}");
    }
    assert_eq!(node.get("/other/").expect(200).text().trim(), "other");
    node.get("/nothing-yet/").failure(ErrorCode::NotFound);
}

/// Nothing but what needs no particular right answers a token without any.
#[test]
fn every_operation_looks_at_the_scope() {
    let node = Node::with("[admin]\nopen_probes = false\n");
    node.deploy("hello", &says("hello"));
    let token = create(&node, &["--app", "none", "--can", "secrets"]);
    let document = node.api(Request::get("/v1/openapi.json")).expect(200).json();
    let mut refused = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let target = path.replace("{app}", "hello").replace("{version}", "v1");
            let target = target.replace("{id}", "0123456789");
            let answer = ask(&node, &token.text, Request::new(&method.to_uppercase(), &target));
            let open = ["/v1/openapi.json", "/v1/whoami", "/livez", "/readyz"];
            if open.contains(&path.as_str()) {
                assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
            } else {
                answer.failure(ErrorCode::MissingScope);
                refused += 1;
            }
            assert!(operation["security"].is_array(), "{method} {path} says nothing");
        }
    }
    assert!(refused >= 12, "{refused}");
    assert_eq!(node.get("/hello/").expect(200).text().trim(), "hello");
}

#[test]
fn a_token_expires() {
    let node = Node::start();
    let token = create(&node, &["--name", "short", "--expires", "1s"]);
    let answer = eventually("its end", PATIENCE, || {
        let answer = ask(&node, &token.text, Request::get("/v1/apps"));
        (answer.status != 200).then_some(answer)
    });
    let error = answer.failure(ErrorCode::TokenExpired);
    assert!(error.detail.unwrap().starts_with("the token `short` expired on "));
    let output = as_holder(&node, &token.text, &["list"]).expect(3);
    assert!(output.stderr.contains("the token `short` expired on "), "{output:?}");
    assert!(output.stderr.contains("hint: ask for a new one: faas token create"), "{output:?}");
    let listed = node.cli(["token", "list"]).run().expect(0);
    assert!(listed.stdout.contains("expired"), "{listed:?}");
}

#[test]
fn a_revoked_token_is_refused_at_once_on_open_connections_too() {
    let node = Node::start();
    node.deploy("hello", &says("hello"));
    let token = create(&node, &["--name", "leaked", "--app", "hello"]);
    let list = with(&token.text, Request::get("/v1/apps"));
    let mut kept = Connection::open(node.admin());
    assert_eq!(kept.ask(&list).expect(200).json()["apps"].as_array().unwrap().len(), 1);
    node.get("/hello/").expect(200);
    let mut following = Connection::open(node.admin());
    let follow = Request::get("/v1/apps/hello/logs?follow=true");
    following.start(&with(&token.text, follow));
    following.read_head(false).unwrap();

    revoke(&node, &token);
    let error = kept.ask(&list).failure(ErrorCode::Unauthorized);
    assert!(error.detail.unwrap().starts_with("the token `leaked` was revoked on "));
    // What is written from now on does not reach its holder.
    let later = node.get("/hello/").expect(200);
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = following.read_body(&mut piece) {
        received.extend_from_slice(&piece[..length]);
    }
    let received = String::from_utf8_lossy(&received).into_owned();
    assert!(!received.contains(later.header("x-request-id").unwrap()), "{received}");
    let output = as_holder(&node, &token.text, &["list", "-o", "json"]).expect(3);
    assert_eq!(output.json()["error"]["code"], "unauthorized");
    // Once more is no mistake, and it is not listed any more.
    revoke(&node, &token);
    let listed = node.cli(["token", "list"]).run().expect(0);
    assert!(!listed.stdout.contains(&token.id), "{listed:?}");
    node.cli(["token", "revoke", "0123456789"]).run().expect(4);
}

#[test]
fn tokens_and_the_audit_log_survive_restarts_and_kills() {
    let mut node = Node::start();
    let good = create(&node, &["--name", "good", "--can", "read,deploy"]);
    let bad = create(&node, &["--name", "bad"]);
    revoke(&node, &bad);
    let deploy = with(&good.text, Node::deploy_request("hello", &says("hello")));
    Connection::open(node.admin()).ask(&deploy).expect(201);
    let before = audit(&node);
    let actions: Vec<&str> = before.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["deploy", "revoke_token", "create_token", "create_token"]);

    node.restart();
    assert_eq!(audit(&node), before);
    ask(&node, &good.text, Request::get("/v1/whoami")).expect(200);
    ask(&node, &bad.text, Request::get("/v1/whoami")).failure(ErrorCode::Unauthorized);
    let listed = node.cli(["token", "list", "--all", "-o", "json"]).run().expect(0).json();
    let tokens = listed["data"]["tokens"].as_array().unwrap();
    let last_used = |name: &str| {
        let token = tokens.iter().find(|token| token["name"] == name).unwrap();
        token["last_used_at"].is_string()
    };
    assert!(last_used("good"), "a node that ends in order writes that down: {listed}");
    assert!(!last_used("bad"), "{listed}");

    // What was acknowledged is there, however the node ended.
    for round in 0..10 {
        let token = create(&node, &["--name", &format!("round-{round}")]);
        node.kill();
        node.launch();
        let who = ask(&node, &token.text, Request::get("/v1/whoami")).expect(200).json();
        assert_eq!(who["name"], format!("round-{round}"));
        let newest = &audit(&node)[0];
        assert_eq!(
            (&newest["action"], &newest["object"]),
            (&json!("create_token"), &json!(token.id))
        );
        revoke(&node, &token);
        node.kill();
        node.launch();
        let answer = ask(&node, &token.text, Request::get("/v1/whoami"));
        answer.failure(ErrorCode::Unauthorized);
        let newest = &audit(&node)[0];
        assert_eq!(
            (&newest["action"], &newest["object"]),
            (&json!("revoke_token"), &json!(token.id))
        );
    }
}

#[test]
fn every_change_is_in_the_audit_log() {
    let node = Node::start();
    let token = create(&node, &["--name", "ci", "--app", "shop", "--can", "deploy"]);
    fs::write(node.home().join("shop.wasm"), says("shop")).unwrap();
    let run = |args: &[&str]| as_holder(&node, &token.text, args);
    run(&["deploy", "shop.wasm"]).expect(0);
    run(&["deploy", "shop.wasm"]).expect(0);
    run(&["rollback", "shop"]).expect(0);
    run(&["deploy", "shop.wasm", "--name", "blog"]).expect(3);
    ask(&node, &token.text, Node::deploy_request("shop", b"not wasm"));
    node.cli(["delete", "shop", "--yes"]).run().expect(0);
    // Questions, and whoever has no token, are not.
    run(&["list"]).expect(0);
    ask(&node, "faas_guess", Request::new("DELETE", "/v1/apps/shop"));

    let entries = audit(&node);
    let short = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {} {} {}",
            text("by"),
            text("action"),
            text("app"),
            text("object"),
            text("outcome")
        )
    };
    let made = format!("admin create_token - {} ok", token.id);
    assert_eq!(
        entries.iter().map(short).collect::<Vec<_>>(),
        [
            "admin delete_app shop - ok",
            "ci deploy shop - invalid_wasm",
            "ci deploy blog - missing_scope",
            "ci set_traffic shop v1 ok",
            "ci deploy shop v2 ok",
            "ci deploy shop v1 ok",
            &made,
        ]
    );
    for entry in &entries {
        assert_eq!(entry["from"], "127.0.0.1", "{entry}");
        assert_eq!(entry["request_id"].as_str().unwrap().len(), 26, "{entry}");
        let by_ci = entry["by"] == "ci";
        assert_eq!(entry["token"], if by_ci { json!(token.id) } else { Value::Null }, "{entry}");
    }
    assert!(entries[0]["agent"].as_str().unwrap().starts_with("faas/"), "{}", entries[0]);
    let table = node.cli(["audit", "--app", "blog", "--since", "1h"]).run().expect(0);
    assert_eq!(table.stdout.lines().count(), 2, "{table:?}");
    assert!(table.stdout.contains("missing_scope"), "{table:?}");
}

#[test]
fn no_token_is_on_the_disk_or_in_the_log() {
    let mut node = Node::with("[log]\nfilter = \"trace\"\n");
    let token = create(&node, &["--name", "ci", "--can", "admin"]);
    let answer = ask(&node, &token.text, Request::get("/v1/apps"));
    answer.expect(200);
    ask(&node, &format!("{}0", token.text), Request::get("/v1/apps"))
        .failure(ErrorCode::Unauthorized);
    ask(&node, &token.text, Request::new("DELETE", &format!("/v1/tokens/{}", token.id)));
    ask(&node, &token.text, Request::get("/v1/apps")).failure(ErrorCode::Unauthorized);
    let part = &token.text.as_bytes()[5..37];
    let search = |node: &Node| {
        let files = node.files("");
        assert!(files.iter().any(|file| file.ends_with("state.db")), "{files:?}");
        for file in files {
            let bytes = fs::read(&file).unwrap();
            let found = bytes.windows(part.len()).any(|window| window == part);
            assert!(!found, "{}", file.display());
        }
    };
    // While it runs, with SQLite's log, and when it has ended.
    search(&node);
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    search(&node);
    assert!(!node.log().contains(&token.text[5..37]));
}

#[test]
fn one_user_has_logins_on_several_servers() {
    let (one, two) = (Node::start(), Node::start());
    one.deploy("first", &says("1"));
    two.deploy("second", &says("2"));
    let home = tempfile::tempdir().unwrap();
    let faas = |args: &[&str]| Cli::new(home.path(), args);
    for (node, name) in [(&one, "one"), (&two, "two")] {
        let token = create(node, &["--name", name]);
        let url = format!("http://{}", node.admin());
        let login = faas(&["login", &url, "--name", name, "--token-stdin"]);
        let output = login.stdin(format!("{}\n", token.text)).run().expect(0);
        assert!(output.stderr.contains(&format!("as {name} (")), "{output:?}");
        assert!(!output.stderr.contains(&token.text));
    }
    let tokens = home.path().join(".config/faas/tokens.toml");
    assert_eq!(fs::metadata(&tokens).unwrap().permissions().mode() & 0o777, 0o600);
    let apps = |args: &[&str]| {
        let words: Vec<&str> =
            ["list", "-o", "json"].into_iter().chain(args.iter().copied()).collect();
        let document = faas(&words).run().expect(0).json();
        document["data"]["apps"][0]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(apps(&[]), "second");
    assert_eq!(apps(&["--context", "one"]), "first");
    faas(&["context", "use", "one"]).run().expect(0);
    assert_eq!(apps(&[]), "first");
    let who = faas(&["whoami"]).run().expect(0);
    assert!(who.stdout.contains("read on every app"), "{who:?}");
    faas(&["logout", "one"]).run().expect(0);
    assert_eq!(apps(&["--context", "two"]), "second");
    faas(&["list", "--context", "one"]).run().expect(2);
    // Without a context in use, the default server counts; nobody knows who is there.
    let url = format!("http://{}", one.admin());
    let output = faas(&["login", &url, "--token-stdin"]).stdin("faas_0123").run().expect(3);
    assert!(output.stderr.contains("was not copied whole"), "{output:?}");
    assert!(!fs::read_to_string(&tokens).unwrap().contains("faas_0123"));
}
