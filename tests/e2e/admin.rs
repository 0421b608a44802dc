//! The API's own manners: who may ask, from where, and what every answer has.

use faas_api::ErrorCode;
use faas_tests::{Answer, Cli, Connection, Node, Request, artifacts::says};
use serde_json::Value;
use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

/// Without a token.
#[track_caller]
fn anybody(node: &Node, request: &Request) -> Answer {
    Connection::open(node.admin()).ask(request)
}

#[test]
fn probes_are_open_and_the_rest_is_not() {
    let node = Node::start();
    node.deploy("hello", &says("hello"));
    for (path, word) in [
        ("/livez", "ok"),
        ("/readyz", "ready"),
        ("/metrics", "faas_build_info"),
        ("/v1/openapi.json", "openapi"),
    ] {
        assert!(anybody(&node, &Request::get(path)).expect(200).text().contains(word), "{path}");
    }
    // What there is and what there is not looks the same from outside.
    for path in [
        "/v1/apps",
        "/v1/apps/hello",
        "/v1/apps/nothing",
        "/v1/apps/hello/versions",
        "/v1/apps/hello/logs",
        "/v1/nothing",
        "/",
        "/livez/",
        "/metrics/../v1/apps",
    ] {
        let answer = anybody(&node, &Request::get(path));
        answer.failure(ErrorCode::Unauthorized);
        assert!(answer.header("www-authenticate").is_some(), "{path}: {answer:?}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = anybody(&node, &Request::new(method, "/v1/apps/hello"));
        answer.failure(ErrorCode::Unauthorized);
    }
    assert_eq!(node.get("/hello/").expect(200).text().trim(), "hello");
}

#[test]
fn probes_can_be_closed() {
    let node = Node::with("[admin]\nopen_probes = false\n");
    for path in ["/livez", "/readyz", "/metrics"] {
        anybody(&node, &Request::get(path)).failure(ErrorCode::Unauthorized);
        assert_eq!(node.api(Request::get(path)).status, 200);
    }
}

#[test]
fn the_token_is_made_once_and_for_its_owner_only() {
    let mut node = Node::start();
    let file = node.data_dir().join("admin.token");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = node.token();
    assert!(token.len() >= 43, "256 bits need 43 characters of 64 kinds: {}", token.len());
    assert_ne!(token, Node::start().token());
    node.restart();
    assert_eq!(node.token(), token);
    node.api(Request::get("/v1/apps")).expect(200);
    assert!(!node.log().contains(&token));
}

#[test]
fn web_pages_of_others_may_not_ask() {
    let node = Node::start();
    let port = node.admin().port();
    let ask = |host: &str, origin: Option<&str>| {
        let request = Request::get("/v1/apps").header("host", host);
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        node.api(request)
    };
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "localhost".into()] {
        assert_eq!(ask(&host, None).status, 200, "{host}");
        assert_eq!(ask(&host, Some(&format!("http://{host}"))).status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example"] {
        ask(host, None).failure(ErrorCode::Forbidden);
    }
    let own = format!("127.0.0.1:{port}");
    for origin in ["http://evil.example", "null", &format!("http://127.0.0.1:{}", port - 1)] {
        ask(&own, Some(origin)).failure(ErrorCode::Forbidden);
    }
    for host in ["", "a b", "127.0.0.1@evil"] {
        let answer = ask(host, None);
        assert!(matches!(answer.status, 400 | 403), "{host}: {answer:?}");
    }
}

#[test]
fn the_platforms_addresses_are_not_on_the_ingress() {
    let node = Node::start();
    for path in ["/metrics", "/livez", "/readyz", "/v1/apps", "/v1/openapi.json", "/admin/"] {
        node.get(path).failure(ErrorCode::NotFound);
    }
}

#[test]
fn the_description_is_true() {
    let node = Node::start();
    node.deploy("hello", &says("hello"));
    let document = node.api(Request::get("/v1/openapi.json")).expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{document}");
    let mut ids = BTreeSet::new();
    let mut found = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(operation["responses"].as_object().is_some_and(|all| all.len() > 1), "{id}");
            // Every address that is described exists; every body is refused in a described way.
            let path = path.replace("{app}", "hello").replace("{version}", "v1");
            let answer = node.api(Request::new(&method.to_uppercase(), &path));
            assert!(!matches!(answer.status, 405 | 500..), "{method} {path}: {answer:?}");
            let responses = operation["responses"].as_object().unwrap();
            let status = answer.status.to_string();
            let range = format!("{}XX", answer.status / 100);
            let described = responses.contains_key(&status) || responses.contains_key(&range);
            assert!(described, "{method} {path} answers {status}: {responses:?}");
            found += 1;
        }
    }
    assert!(found >= 10, "{ids:?}");
    references_resolve(&document, &document);
}

fn references_resolve(document: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            members.values().for_each(|value| references_resolve(document, value));
        }
        Value::Array(values) => values.iter().for_each(|value| references_resolve(document, value)),
        _ => {}
    }
}

#[test]
fn every_answer_has_an_id() {
    let node = Node::start();
    let mut ids = BTreeSet::new();
    for path in ["/v1/apps", "/v1/apps/nothing", "/livez", "/metrics", "/nothing"] {
        for answer in [node.api(Request::get(path)), anybody(&node, &Request::get(path))] {
            let id = answer.header("x-request-id").unwrap().to_owned();
            assert!(ids.insert(id), "{answer:?}");
        }
    }
}

#[test]
fn bodies_that_are_not_what_they_should_be() {
    let node = Node::start();
    node.deploy("hello", &says("hello"));
    let put = |kind: &str, body: &[u8]| {
        let request = Request::new("PUT", "/v1/apps/hello/traffic").header("content-type", kind);
        node.api(request.body(body))
    };
    let json = "application/json";
    put("text/plain", b"{}").failure(ErrorCode::UnsupportedMediaType);
    put(json, b"{").failure(ErrorCode::BadRequest);
    put(json, b"").failure(ErrorCode::BadRequest);
    put(json, b"\xff").failure(ErrorCode::BadRequest);
    put(json, b"{}").failure(ErrorCode::Unprocessable);
    put(json, br#"{"shares": [], "more": 1}"#).failure(ErrorCode::Unprocessable);
    put(json, br#"{"shares": [{"version": "v1", "percent": 300}]}"#)
        .failure(ErrorCode::Unprocessable);
    put(json, &vec![b' '; 1 << 20]).failure(ErrorCode::BodyTooLarge);
    put(json, "[".repeat(10_000).as_bytes()).failure(ErrorCode::Unprocessable);
    assert_eq!(node.get("/hello/").expect(200).text().trim(), "hello");
    for (method, path) in
        [("POST", "/v1/apps"), ("PUT", "/v1/apps/hello"), ("GET", "/v1/apps/hello/deploy")]
    {
        let answer = node.api(Request::new(method, path));
        answer.failure(ErrorCode::MethodNotAllowed);
        assert!(answer.header("allow").is_some(), "RFC 9110 §15.5.6: {answer:?}");
    }
}

#[test]
fn beyond_loopback_only_when_told() {
    let node = Node::unstarted("[admin]\nlisten = \"0.0.0.0:0\"\n");
    let arguments = |node: &Node| -> Vec<String> {
        let mut arguments = node.serve_arguments();
        // The file's address counts, as there is no flag.
        let flag = arguments.iter().position(|word| word == "--admin-listen").unwrap();
        arguments.drain(flag..=flag + 1);
        arguments
    };
    let refused = Cli::new(node.home(), arguments(&node)).run().expect(2);
    assert_eq!(refused.stdout, "");
    assert!(refused.stderr.contains("admin.insecure"), "{}", refused.stderr);
    assert!(!node.data_dir().exists(), "it was refused before anything was made");
    let node = Node::unstarted("[admin]\nlisten = \"0.0.0.0:0\"\ninsecure = true\n");
    let mut child = Cli::new(node.home(), arguments(&node)).spawn();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let lines: Vec<String> = lines.by_ref().take(2).map_while(Result::ok).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[1].starts_with("admin http://0.0.0.0:"), "{lines:?}");
}
