//! Deploying: the one-shot API, versions, rollback, retention.

use faas_api::{DeployEvent, Deployed, VersionId};
use faas_tests::{Connection, Node, Request, artifacts::says};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

fn text(node: &Node, path: &str) -> String {
    node.get(path).expect(200).text().trim().to_owned()
}

#[test]
fn an_upload_as_curl_sends_it() {
    let node = Node::start();
    let wasm = says("one");
    for kind in ["application/wasm", "application/x-www-form-urlencoded"] {
        let request = Request::new("POST", "/v1/apps/hello/deploy?message=first%20try")
            .header("content-type", kind)
            .body(wasm.clone());
        let answer = node.api(request).expect(201);
        let deployed: Deployed = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(deployed.app.as_str(), "hello");
        assert_eq!(deployed.function.as_str(), "main");
        assert_eq!(deployed.kind.as_str(), "cgi-0.1");
        assert_eq!(deployed.digest, faas_api::Digest::of(&wasm));
        assert_eq!(deployed.size, wasm.len() as u64);
        assert!(deployed.active);
        assert_eq!(deployed.url, format!("http://{}/hello/", node.ingress()));
    }
    let answer = node.get("/hello/").expect(200);
    assert_eq!(answer.text().trim(), "one");
    assert_eq!(answer.header("x-faas-version"), Some("v2"));
    let versions = node.api(Request::get("/v1/apps/hello/versions")).json();
    assert_eq!(versions["versions"][0]["version"], "v2");
    assert_eq!(versions["versions"][0]["message"], "first try");
    assert_eq!(versions["versions"][0]["live_percent"], 100);
    assert_eq!(versions["versions"][1]["live_percent"], 0);
}

#[test]
fn an_upload_of_unknown_length() {
    let node = Node::start();
    let mut connection = Connection::open(node.admin());
    let head = format!(
        "POST /v1/apps/hello/deploy HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         transfer-encoding: chunked\r\n\r\n",
        node.admin(),
        node.token()
    );
    connection.write(head.as_bytes()).unwrap();
    for piece in says("in pieces").chunks(50) {
        let frame = format!("{:x}\r\n", piece.len());
        connection.write(frame.as_bytes()).unwrap();
        connection.write(piece).unwrap();
        connection.write(b"\r\n").unwrap();
    }
    connection.write(b"0\r\n\r\n").unwrap();
    let answer = connection.read_answer(false).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(text(&node, "/hello/"), "in pieces");
}

fn events(node: &Node, wasm: &[u8]) -> Vec<DeployEvent> {
    let request = Node::deploy_request("hello", wasm).header("accept", "application/x-ndjson");
    let answer = node.api(request).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = answer.text();
    let lines = text.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn progress_is_told_as_it_happens() {
    let node = Node::start();
    let first = events(&node, &says("one"));
    assert!(
        matches!(
            first.as_slice(),
            [
                DeployEvent::Received { new: true, .. },
                ..,
                DeployEvent::Compiled { cached: false, .. },
                DeployEvent::Done(Deployed { active: true, .. }),
            ]
        ),
        "{first:?}"
    );
    let again = events(&node, &says("one"));
    assert!(
        matches!(
            again.as_slice(),
            [
                DeployEvent::Received { new: false, .. },
                DeployEvent::Compiled { cached: true, .. },
                DeployEvent::Done(_),
            ]
        ),
        "{again:?}"
    );
    let bad = events(&node, b"no wasm at all");
    let Some(DeployEvent::Failed(error)) = bad.last() else {
        panic!("{bad:?}");
    };
    assert_eq!(error.code, faas_api::ErrorCode::InvalidWasm);
    assert!(error.hint.is_some() && error.request_id.is_some());
}

#[test]
fn one_artifact_is_stored_once() {
    let node = Node::start();
    for app in ["a", "b"] {
        node.deploy(app, &says("shared"));
        node.deploy(app, &says("shared"));
    }
    assert_eq!(node.files("blobs/sha256").len(), 1);
    assert_eq!(node.metrics().sum("faas_compile_seconds_count", &[]), 1.0);
    // Whoever still needs it keeps it.
    node.api(Request::new("DELETE", "/v1/apps/a")).expect(204);
    assert_eq!(text(&node, "/b/"), "shared");
    node.api(Request::new("DELETE", "/v1/apps/b")).expect(204);
    node.get("/b/").failure(faas_api::ErrorCode::NotFound);
    node.deploy("c", &says("other"));
    assert_eq!(node.files("blobs/sha256").len(), 1, "the swept one is gone");
}

#[test]
fn traffic_moves_and_comes_back() {
    let node = Node::start();
    for version in ["one", "two", "three"] {
        node.deploy("hello", &says(version));
    }
    assert_eq!(text(&node, "/hello/"), "three");
    let move_to = |version: &str| {
        let traffic = json!({"shares": [{"version": version, "percent": 100}]});
        Request::new("PUT", "/v1/apps/hello/traffic")
            .header("content-type", "application/json")
            .body(traffic.to_string())
    };
    let changed = node.api(move_to("v1")).expect(200).json();
    assert_eq!(changed["previous"]["shares"][0]["version"], "v3");
    assert_eq!(text(&node, "/hello/"), "one");
    let tag = node.api(Request::get("/v1/apps/hello"));
    let tag = tag.header("etag").unwrap().to_owned();
    node.api(move_to("v2").header("if-match", &tag)).expect(200);
    let stale = node.api(move_to("v3").header("if-match", &tag));
    stale.failure(faas_api::ErrorCode::Conflict);
    assert_eq!(text(&node, "/hello/"), "two");
    for (bad, status) in [("v9", 404), ("v0", 422), ("3", 422)] {
        let answer = node.api(move_to(bad));
        assert!(answer.status == status || answer.status == 422, "{bad}: {answer:?}");
    }
    assert_eq!(text(&node, "/hello/"), "two");
    let back = node.cli(["rollback", "hello", "-o", "json"]).run().expect(0);
    assert_eq!(back.json()["data"]["traffic"]["shares"][0]["version"], "v1");
    assert_eq!(text(&node, "/hello/"), "one");
    let none = node.cli(["rollback", "hello"]).run();
    assert_eq!(none.expect(4).stdout, "", "there is no older one");
}

#[test]
fn traffic_is_split_by_share() {
    let node = Node::start();
    node.deploy("hello", &says("one"));
    node.deploy("hello", &says("two"));
    let traffic = json!({"shares": [
        {"version": "v1", "percent": 30}, {"version": "v2", "percent": 70}]});
    let request = Request::new("PUT", "/v1/apps/hello/traffic")
        .header("content-type", "application/json")
        .body(traffic.to_string());
    node.api(request).expect(200);
    let mut connection = Connection::open(node.ingress());
    let ones = (0..1000)
        .filter(|_| connection.ask(&Request::get("/hello/")).header("x-faas-version") == Some("v1"))
        .count();
    // Six standard deviations to both sides.
    assert!((213..388).contains(&ones), "{ones} of 1000");
    for shares in [
        json!([{"version": "v1", "percent": 30}]),
        json!([{"version": "v1", "percent": 101}]),
        json!([{"version": "v1", "percent": 0}, {"version": "v2", "percent": 100}]),
        json!([{"version": "v1", "percent": 50}, {"version": "v1", "percent": 50}]),
        json!([]),
    ] {
        let request = Request::new("PUT", "/v1/apps/hello/traffic")
            .header("content-type", "application/json")
            .body(json!({"shares": shares}).to_string());
        let answer = node.api(request);
        assert_eq!(answer.status, 422, "{shares}: {answer:?}");
    }
}

#[test]
fn stored_without_becoming_live() {
    let node = Node::start();
    node.deploy("hello", &says("one"));
    let request = Request::new("POST", "/v1/apps/hello/deploy?activate=false&function=side")
        .header("content-type", "application/wasm")
        .body(says("two"));
    let deployed = node.api(request).expect(201).json();
    assert_eq!(deployed["active"], false);
    assert_eq!(deployed["function"], "side");
    assert_eq!(text(&node, "/hello/"), "one");
    assert_eq!(text(&node, "/hello@v2/"), "two");
    node.api(Request::new("POST", "/v1/apps/hello/versions/v2/activate")).expect(200);
    assert_eq!(text(&node, "/hello/"), "two");
}

#[test]
fn twenty_versions_are_kept_and_a_live_one_always() {
    let node = Node::start();
    for number in 1..=3 {
        node.deploy("hello", &says(&format!("version {number}")));
    }
    let back = node.cli(["rollback", "hello", "v2"]).run();
    assert_eq!(back.expect(0).stderr, "");
    for number in 4..=25 {
        let request = Request::new("POST", "/v1/apps/hello/deploy?activate=false")
            .header("content-type", "application/wasm")
            .body(says(&format!("version {number}")));
        node.api(request).expect(201);
    }
    let listed = node.api(Request::get("/v1/apps/hello/versions")).json();
    let listed: Vec<&str> = listed["versions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|version| version["version"].as_str())
        .collect();
    // What a rollback would go back to is kept as well.
    let newest: Vec<String> = (8..=25).rev().map(|number| format!("v{number}")).collect();
    let expected: Vec<&str> = newest.iter().map(String::as_str).chain(["v2", "v1"]).collect();
    assert_eq!(listed, expected);
    assert_eq!(node.files("blobs/sha256").len(), 20);
    assert_eq!(text(&node, "/hello/"), "version 2");
    assert_eq!(text(&node, "/hello@v1/"), "version 1");
    assert_eq!(text(&node, "/hello@v8/"), "version 8");
    node.get("/hello@v7/").failure(faas_api::ErrorCode::NotFound);
    node.get("/hello@v3/").failure(faas_api::ErrorCode::NotFound);
}

#[test]
fn deploys_at_once_are_all_kept() {
    let node = Node::with("[deploy]\ncompile_concurrency = 2\n");
    let numbers: BTreeSet<VersionId> = thread::scope(|scope| {
        let deploys: Vec<_> = (0..8)
            .map(|number| {
                let node = &node;
                scope.spawn(move || node.deploy("hello", &says(&number.to_string())).version)
            })
            .collect();
        deploys.into_iter().map(|deploy| deploy.join().unwrap()).collect()
    });
    assert_eq!(numbers, (1..=8).map(VersionId::new).collect());
    assert_eq!(node.get("/hello/").header("x-faas-version"), Some("v8"));
}

#[test]
fn an_app_deleted_and_deployed_again() {
    let node = Node::start();
    node.deploy("hello", &says("one"));
    let missing = node.cli(["delete", "hello"]).run();
    assert!(missing.expect(2).stderr.contains("yes"), "it asks first");
    assert_eq!(node.cli(["delete", "hello", "-y"]).run().expect(0).stdout, "");
    node.get("/hello/").failure(faas_api::ErrorCode::NotFound);
    assert_eq!(node.cli(["delete", "hello", "-y"]).run().code, 4);
    node.deploy("hello", &says("two"));
    assert_eq!(text(&node, "/hello/"), "two");
}

/// Deploys and rollbacks while requests come in: none is lost, and none sees an older version
/// than the one that was acknowledged before it was sent.
#[test]
fn no_request_notices_a_deploy() {
    let node = Node::start();
    node.deploy("hello", &says("1"));
    let done = AtomicBool::new(false);
    let asked: usize = thread::scope(|scope| {
        let probes: Vec<_> = (0..3)
            .map(|fresh| {
                let (node, done) = (&node, &done);
                scope.spawn(move || probe(node, done, fresh == 0))
            })
            .collect();
        for number in 2..=15 {
            node.deploy("hello", &says(&number.to_string()));
            assert_eq!(text(&node, "/hello/"), number.to_string());
            if number % 3 == 0 {
                assert_eq!(node.cli(["rollback", "hello"]).run().expect(0).code, 0);
                assert_eq!(text(&node, "/hello/"), (number - 1).to_string());
            }
        }
        done.store(true, Ordering::Relaxed);
        probes.into_iter().map(|probe| probe.join().unwrap()).sum()
    });
    assert!(asked > 100, "{asked}");
}

fn probe(node: &Node, done: &AtomicBool, fresh: bool) -> usize {
    let mut connection = Connection::open(node.ingress());
    let mut asked = 0;
    while !done.load(Ordering::Relaxed) {
        if fresh {
            connection = Connection::open(node.ingress());
        }
        let answer = connection.ask(&Request::get("/hello/")).expect(200);
        let version = answer.header("x-faas-version").unwrap().to_owned();
        assert_eq!(version, format!("v{}", answer.text().trim()), "half a version");
        asked += 1;
    }
    asked
}

#[test]
fn json_documents_of_every_verb() {
    let node = Node::start();
    let file = node.home().join("hello.wasm");
    std::fs::write(&file, says("one")).unwrap();
    let data = |args: &[&str]| -> Value {
        let args = args.iter().copied().chain(["-o", "json"]);
        let document = node.cli(args.collect::<Vec<_>>()).run().expect(0).json();
        document["data"].clone()
    };
    let empty = data(&["list"]);
    assert_eq!(empty["apps"], json!([]));
    let deployed = data(&["deploy", "hello.wasm", "-m", "a word"]);
    assert_eq!(deployed["version"], "v1");
    assert_eq!(deployed["previous"]["shares"], json!([]));
    assert_eq!(data(&["ls"])["apps"][0]["name"], "hello");
    let described = data(&["describe", "hello"]);
    assert_eq!(described["traffic"]["shares"][0]["percent"], 100);
    assert_eq!(described["functions"][0]["route"], "/*");
    assert_eq!(data(&["versions", "hello"])["versions"][0]["message"], "a word");
    let invoked = data(&["invoke", "hello"]);
    assert_eq!(invoked["status"], 200);
    assert_eq!(invoked["body"].as_str().unwrap().trim(), "one");
    assert_eq!(data(&["inspect", "hello.wasm"])["kind"], "cgi-0.1");
    assert_eq!(data(&["delete", "hello", "-y"])["app"], "hello");
}
