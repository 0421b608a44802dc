//! Whoever may do something with one app gets nowhere near another one, and web pages of others and
//! strangers get nowhere at all: through the shipped binary, over sockets.

use faas_api::{Digest, ErrorCode};
use faas_tests::{
    Answer, Connection, Deploy, Node, Request,
    artifacts::{Guest, says},
    process,
};
use serde_json::{Value, json};
use std::{
    io,
    time::{Duration, Instant},
};

/// The app of the token, and one whose name begins the same.
const OWN: &str = "a";
const OTHER: &str = "a-b";

/// A token for some apps.
fn token(node: &Node, apps: &[&str], can: &[&str]) -> String {
    let new = json!({ "name": "t", "scope": { "apps": apps, "can": can } }).to_string();
    let request = Request::post("/v1/tokens", new).header("content-type", "application/json");
    node.api(request).expect(201).json()["secret"].as_str().unwrap().to_owned()
}

fn ask(node: &Node, token: &str, request: Request) -> Answer {
    let bearer = format!("Bearer {token}");
    Connection::open(node.admin()).ask(&request.header("authorization", &bearer))
}

fn json_body(method: &str, target: &str, body: &Value) -> Request {
    let request = Request::new(method, target).header("content-type", "application/json");
    request.body(body.to_string())
}

/// All that the API tells of an app, and how it answers.
fn all_of(node: &Node, app: &str) -> Vec<String> {
    let parts = ["", "/versions", "/versions/v1", "/env", "/secrets", "/keys"];
    let mut all: Vec<String> = parts
        .iter()
        .map(|part| {
            let answer = node.api(Request::get(&format!("/v1/apps/{app}{part}"))).expect(200);
            format!("{:?} {}", answer.header("etag"), answer.text())
        })
        .collect();
    all.push(node.get(&format!("/{app}/")).expect(200).text());
    all
}

/// Two apps; the other one has a domain, a variable, a secret, a key and a function of its own.
fn two_apps() -> (Node, Vec<u8>) {
    let node = Node::start();
    node.deploy(OWN, &says("own"));
    let wasm = says("other");
    let put = |target: &str, body: &str| {
        let request = Request::new("PUT", target).header("content-type", "text/plain");
        assert!(node.api(request.body(body)).status < 300, "{target}");
    };
    put("/v1/apps/a-b/secrets/KEY", "other's secret");
    let settings = json!({ "secrets": ["KEY"] });
    node.deploy_functions(OTHER, &[Deploy::new("api", wasm.clone(), settings.clone())]);
    put("/v1/apps/a-b/env/SETTING", "other's setting");
    let key = json_body("POST", "/v1/apps/a-b/keys", &json!({ "name": "partner" }));
    node.api(key).expect(201);
    let function = json!({
        "name": "api", "digest": Digest::of(&wasm).to_string(), "settings": settings,
    });
    let manifest = json!({ "domains": ["shop.example.com"], "functions": [function] });
    let version = json!({ "manifest": manifest });
    let deployed = node.api(json_body("POST", "/v1/apps/a-b/versions", &version));
    assert_eq!(deployed.status, 201, "{deployed:?}");
    (node, wasm)
}

/// Everything that is described, on the other app: refused, and nothing has changed.
#[test]
fn no_operation_reaches_another_app() {
    let (node, _) = two_apps();
    let before = all_of(&node, OTHER);
    let document = node.api(Request::get("/v1/openapi.json")).expect(200).json();
    let tokens = [
        token(&node, &[OWN], &["admin"]),
        token(&node, &[OWN, "ab"], &["read", "deploy", "invoke", "secrets"]),
    ];
    let expired = token(&node, &[OTHER], &["secrets"]);
    let mut refused = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if !path.contains("{app}") {
            continue;
        }
        for method in methods.as_object().unwrap().keys() {
            let target = path.replace("{app}", OTHER).replace("{version}", "v1");
            let target = target.replace("{name}", "KEY").replace("{key}", "partner");
            for body in [None, Some(json!({})), Some(json!("1"))] {
                let request = || match &body {
                    None => Request::new(&method.to_uppercase(), &target),
                    Some(body) => json_body(&method.to_uppercase(), &target, body),
                };
                for token in &tokens {
                    ask(&node, token, request()).failure(ErrorCode::MissingScope);
                    refused += 1;
                }
                for wrong in ["", "faas_", &expired[..expired.len() - 1], &node.token()[1..]] {
                    ask(&node, wrong, request()).failure(ErrorCode::Unauthorized);
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
    assert_eq!(all_of(&node, OTHER), before);
}

/// What a manifest can name of another app.
#[test]
fn a_deploy_gets_nothing_of_another_app() {
    let (node, wasm) = two_apps();
    let token = token(&node, &[OWN], &["read", "deploy"]);
    let (before, own) = (all_of(&node, OTHER), all_of(&node, OWN));
    let digest = Digest::of(&says("own")).to_string();
    let deploy = |digest: &str, domains: &[&str], settings: Value| {
        let function = json!({ "name": "main", "digest": digest, "settings": settings });
        let manifest = json!({ "domains": domains, "functions": [function] });
        let version = json!({ "manifest": manifest, "activate": true });
        ask(&node, &token, json_body("POST", "/v1/apps/a/versions", &version))
    };
    // Its domain, in several spellings; whoever has it is named.
    for domain in ["shop.example.com", "SHOP.example.com"] {
        let refused = deploy(&digest, &[domain], json!({}));
        assert!(matches!(refused.status, 409 | 422), "{domain}: {refused:?}");
        assert!(!refused.text().contains("other's"), "{refused:?}");
    }
    deploy(&digest, &["shop.example.com"], json!({})).failure(ErrorCode::RouteConflict);
    // A host that is none of its own.
    let route = json!({ "routes": ["shop.example.com/x"] });
    assert_eq!(deploy(&digest, &[], route).status, 422);
    // Its secret, by name and by path.
    deploy(&digest, &[], json!({ "secrets": ["KEY"] })).failure(ErrorCode::MissingSecret);
    for name in ["a-b/KEY", "../a-b/KEY", "a-b.KEY"] {
        assert_eq!(deploy(&digest, &[], json!({ "secrets": [name] })).status, 422, "{name}");
    }
    // A digest that nobody sent is asked for.
    let nowhere = Digest::of(b"nowhere").to_string();
    let planned = deploy(&nowhere, &[], json!({})).expect(200).json();
    assert_eq!(planned["missing"], json!([nowhere]), "{planned}");
    assert_eq!((all_of(&node, OTHER), all_of(&node, OWN)), (before.clone(), own));
    // Artifacts have no owner: whoever may deploy, and knows the digest, may run the same program –
    // as a function of their own, with nothing that was the other app's.
    let same = deploy(&Digest::of(&wasm).to_string(), &[], json!({}));
    assert_eq!(same.status, 201, "{same:?}");
    assert_eq!(all_of(&node, OTHER), before);
    // Its function is nobody's sibling.
    let guest = Guest::Http02.wasm();
    node.deploy_functions(OWN, &[Deploy::new("main", guest, json!({}))]);
    for host in ["api.internal", "a-b.internal", "api.a-b.internal", "a-b.localhost"] {
        let said = node.get(&format!("/a/fetch?url=http://{host}/")).expect(200).text();
        assert!(said.contains("error") && !said.contains("other"), "{host}: {said}");
    }
    let by_domain = node.send(&Request::get("/").header("host", "shop.example.com"));
    assert_eq!(by_domain.expect(200).text().trim(), "other");
    assert_eq!(all_of(&node, OTHER), before);
}

/// Names that other systems took for paths, wherever the API takes one.
#[test]
fn names_are_no_paths() {
    let node = Node::start();
    node.deploy(OWN, &says("own"));
    let files = || {
        let mut files = node.files("");
        files.retain(|file| !file.ends_with("state.db-wal") && !file.ends_with("state.db-shm"));
        files
    };
    let before = files();
    let long = "..%2f".repeat(2000);
    let mut refused = 0;
    for name in [
        "..%2f..%2froot%2f.ssh%2fauthorized_keys",
        "..",
        "%2e%2e",
        "..;",
        "..%5c..%5cx",
        "%2fetc%2fpasswd",
        "%252e%252e%252f",
        "a%00",
        "a%00.html",
        "c:%2fx",
        ".git%2fconfig",
        "%c0%ae%c0%ae%2f",
        "%ff",
        "KEY.",
        "KEY%20",
        "%20KEY",
        "KEY%0a",
        "KEY%0d%0aX: y",
        "%e2%80%aeYEK",
        "%1b%5d0;x%07",
        "*",
        "KEY%2f",
        "%f0%9f%98%80",
        &long,
    ] {
        for target in [
            format!("/v1/apps/a/secrets/{name}"),
            format!("/v1/apps/a/env/{name}"),
            format!("/v1/apps/{name}/secrets/KEY"),
            format!("/v1/blobs/{name}"),
        ] {
            let target = target.replace(' ', "%20");
            let request = Request::new("PUT", &target).header("content-type", "text/plain");
            let answer = node.api(request.body("1"));
            assert!(matches!(answer.status, 400..=422), "{target}: {answer:?}");
            let text = answer.text();
            assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{target}: {text}");
            refused += 1;
        }
        for target in [
            format!("/v1/apps/a/versions/{name}"),
            format!("/v1/apps/a/keys/{name}"),
            format!("/v1/tokens/{name}"),
        ] {
            let answer = node.api(Request::new("DELETE", &target.replace(' ', "%20")));
            assert!(matches!(answer.status, 400..=422), "{target}: {answer:?}");
        }
    }
    assert!(refused > 80, "{refused}");
    assert_eq!(files(), before);
    for line in node.log().lines() {
        assert!(!line.contains(['\u{1b}', '\u{7}']), "{line:?}");
    }
}

/// Pages that a browser of the operator's shows, also through a name that is pointed at this
/// machine: refused before anybody looks at the token, on every address.
#[test]
fn pages_of_other_sites_get_nowhere() {
    let node = Node::start();
    node.deploy(OWN, &says("own"));
    let before = all_of(&node, OWN);
    let document = node.api(Request::get("/v1/openapi.json")).expect(200).json();
    let own = node.admin().to_string();
    let port = node.admin().port();
    let rebound = format!("rebound.example:{port}");
    let mut refused = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let target = path.replace("{app}", OWN).replace("{version}", "v1");
            let request = || Request::new(&method, &target).header("content-type", "text/plain");
            for request in [
                request().header("origin", "https://evil.example"),
                request().header("origin", "null"),
                // Another port of this very machine: a function's page.
                request().header("origin", &format!("http://{}", node.ingress())),
                request().header("host", &rebound).header("origin", &format!("http://{rebound}")),
                request().header("host", &rebound),
                request().header("host", "localhost.evil.example"),
                request().header("sec-fetch-site", "cross-site"),
                request().header("sec-fetch-site", "same-site"),
                request()
                    .header("sec-fetch-site", "cross-site")
                    .header("sec-fetch-mode", "no-cors"),
            ] {
                let answer = node.api(request.clone());
                answer.failure(ErrorCode::Forbidden);
                let without = Connection::open(node.admin()).ask(&request);
                without.failure(ErrorCode::Forbidden);
                for answer in [answer, without] {
                    let cors = answer.headers.iter().any(|(name, _)| name.contains("allow-origin"));
                    assert!(!cors, "{answer:?}");
                }
                refused += 1;
            }
        }
    }
    assert!(refused > 300, "{refused}");
    assert_eq!(all_of(&node, OWN), before);
    // A person who types the address, a page of the server's own, and whoever is no browser.
    for site in ["none", "same-origin"] {
        let request = Request::get("/v1/apps").header("sec-fetch-site", site).header("host", &own);
        node.api(request).expect(200);
    }
    // No preflight is answered as a browser would need it.
    let preflight = Request::new("OPTIONS", "/v1/apps")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "DELETE");
    Connection::open(node.admin()).ask(&preflight).failure(ErrorCode::Forbidden);
}

/// No answer of the API is a page, nor can be taken for one.
#[test]
fn no_answer_can_be_taken_for_a_page() {
    let node = Node::start();
    node.deploy(OWN, &says("own"));
    let markup = "%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let document = node.api(Request::get("/v1/openapi.json")).expect(200).json();
    let mut kinds = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            for name in [OWN, markup] {
                let target = path.replace("{app}", name).replace("{version}", "v1");
                let target = target.replace('{', "%7B").replace('}', "%7D");
                for accept in ["text/html", "*/*"] {
                    let request = Request::new(&method, &target).header("accept", accept);
                    let with = node.api(request.clone());
                    let without = Connection::open(node.admin()).ask(&request);
                    for answer in [with, without] {
                        let at = format!("{method} {target}: {answer:?}");
                        assert_eq!(
                            answer.header("x-content-type-options"),
                            Some("nosniff"),
                            "{at}"
                        );
                        assert_eq!(answer.header("cache-control"), Some("no-store"), "{at}");
                        let kind = answer.header("content-type").unwrap_or("none");
                        kinds.insert(kind.split(';').next().unwrap().to_owned());
                    }
                }
                // What was deleted on the way.
                if method == "DELETE" && name == OWN {
                    node.deploy(OWN, &says("own"));
                }
            }
        }
    }
    let allowed = [
        "none",
        "application/json",
        "application/problem+json",
        "application/x-ndjson",
        "application/x-tar",
        "text/plain",
    ];
    assert!(kinds.iter().all(|kind| allowed.contains(&&**kind)), "{kinds:?}");
    // Nor is what is said to somebody who speaks another protocol.
    let mut connection = Connection::open(node.admin());
    connection.write(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03").unwrap();
    if let Ok(answer) = connection.read_answer(false) {
        assert_eq!(answer.text(), "", "{answer:?}");
    }
}

/// Gigabytes from somebody who may send none: answered after the head, and nothing is kept.
#[test]
fn a_stranger_cannot_upload() {
    let node = Node::start();
    let (before, files) = (process::resident_bytes(node.pid()), node.files("blobs"));
    let digest = Digest::of(b"x").to_string();
    for framing in ["content-length: 10737418240", "transfer-encoding: chunked"] {
        for target in ["POST /v1/apps/a/deploy".to_owned(), format!("PUT /v1/blobs/{digest}")] {
            let mut connection = Connection::open(node.admin());
            connection.set_patience(Duration::from_secs(10));
            let head = format!(
                "{target} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/wasm\r\n{framing}\r\n\r\n",
                node.admin()
            );
            connection.write(head.as_bytes()).unwrap();
            let answer = connection.read_answer(false).unwrap();
            answer.failure(ErrorCode::Unauthorized);
            assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
            let piece = [b"10000\r\n".as_slice(), &[0; 1 << 16], b"\r\n"].concat();
            // What is sent is thrown away for a moment, so that the answer can be read.
            let begun = Instant::now();
            let broken = loop {
                match connection.write(&piece) {
                    Ok(()) => {
                        assert!(begun.elapsed() < Duration::from_secs(30), "it goes on reading")
                    }
                    Err(error) => break error,
                }
            };
            let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(kinds.contains(&broken.kind()), "{broken}");
        }
    }
    let grown = process::resident_bytes(node.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(node.files("blobs"), files);
}

/// What people see on a terminal is no command to it.
#[test]
fn names_and_messages_are_shown_as_text() {
    let node = Node::start();
    let evil = "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m";
    std::fs::write(node.home().join("a.wasm"), says("own")).unwrap();
    let deployed = node.cli(["deploy", "a.wasm", "--message", evil]).run();
    assert_ne!(deployed.code, 0);
    for (body, target) in [
        (json!({ "name": evil, "scope": { "can": ["read"] } }), "/v1/tokens"),
        (json!({ "name": evil }), "/v1/apps/a/keys"),
    ] {
        let refused = node.api(json_body("POST", target, &body));
        assert!(matches!(refused.status, 404 | 422), "{target}: {refused:?}");
    }
    // Text that runs backwards, and marks that nobody sees, are characters like any other to the
    // API, and are shown as what they are.
    let backwards = "\u{202e}nigol\u{2066}\u{200f}";
    node.cli(["deploy", "a.wasm", "--message", backwards]).run().expect(0);
    let named = json!({ "name": backwards, "scope": { "can": ["read"] } });
    node.api(json_body("POST", "/v1/tokens", &named)).expect(201);
    let agent = Request::new("DELETE", "/v1/apps/nothing").header("user-agent", "a\tb\u{9b}31m");
    node.api(agent);
    for args in [
        &["versions", "a"][..],
        &["describe", "a"],
        &["token", "list"],
        &["audit"],
        &["logs", "a"],
        &["list"],
    ] {
        let output = node.cli(args.iter().copied()).run().expect(0);
        let all = output.stdout + &output.stderr;
        let harmful = |c: char| {
            c.is_control() && c != '\n' && c != '\t'
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!all.contains(harmful), "{args:?}: {all:?}");
    }
}
