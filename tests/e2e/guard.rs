//! Who may call a function, how often, and from which web pages.

use faas_api::ErrorCode;
use faas_tests::{
    Answer, Connection, Deploy, Issuer, Node, Request,
    artifacts::{self, Guest, says},
    eventually,
};
use serde_json::{Value, json};
use std::{thread, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: &str = "https://app.example.com";

/// A function that shows its request, guarded like this.
fn deploy(node: &Node, settings: Value) {
    node.deploy_functions("shop", &[Deploy::new("main", Guest::Http02.wasm(), settings)]);
}

/// Makes a key of the app and returns its text.
fn key(node: &Node, body: &Value) -> String {
    let request = Request::post("/v1/apps/shop/keys", body.to_string())
        .header("content-type", "application/json");
    let made = node.api(request).expect(201).json();
    made["secret"].as_str().unwrap().to_owned()
}

fn seen() -> Request {
    Request::get("/shop/headers")
}

fn bearer(text: &str) -> Request {
    seen().header("authorization", &format!("Bearer {text}"))
}

/// A header as the function saw it.
fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[track_caller]
fn challenge(answer: &Answer) -> &str {
    answer.header("www-authenticate").unwrap()
}

#[test]
fn a_function_that_wants_a_key() {
    let node = Node::start();
    deploy(&node, json!({ "auth": { "kind": "key" } }));
    let answer = node.send(&seen());
    answer.failure(ErrorCode::Unauthenticated);
    assert_eq!(challenge(&answer), "Bearer");
    let secret = key(&node, &json!({ "name": "ci" }));
    for request in [
        bearer(&secret),
        seen().header("x-api-key", &secret),
        bearer(&secret).header("x-faas-caller", "key:admin"),
    ] {
        let text = node.send(&request).expect(200).text();
        assert_eq!(header(&text, "x-faas-caller"), Some("key:ci"));
        assert!(!text.contains(&secret), "the function sees no key: {text}");
    }
    // What else the function's clients send is the function's.
    let text = node.send(&bearer("mine").header("x-api-key", &secret)).expect(200).text();
    assert_eq!(header(&text, "authorization"), Some("Bearer mine"));
    for wrong in ["faas_key_0", &secret[..secret.len() - 1], &node.token()] {
        let answer = node.send(&bearer(wrong));
        answer.failure(ErrorCode::Unauthenticated);
        assert!(challenge(&answer).contains("error=\"invalid_token\""), "{answer:?}");
    }
    // Not in the target, where logs would have it.
    node.get(&format!("/shop/headers?key={secret}")).failure(ErrorCode::Unauthenticated);
    // The next request knows that it is revoked.
    node.api(Request::new("DELETE", "/v1/apps/shop/keys/ci")).expect(204);
    node.send(&bearer(&secret)).failure(ErrorCode::Unauthenticated);
    let rejected = [("app", "shop"), ("reason", "unauthenticated")];
    assert_eq!(node.metrics().sum("faas_rejected_total", &rejected), 6.0);
    assert_eq!(node.metrics().sum("faas_guest_failures_total", &[]), 0.0);
}

#[test]
fn a_key_for_some_functions_of_one_app() {
    let node = Node::start();
    let guarded = |route: &str| json!({ "routes": [route], "auth": { "kind": "key" } });
    node.deploy_functions(
        "shop",
        &[
            Deploy::new("api", says("api"), guarded("/api/*")),
            Deploy::new("jobs", says("jobs"), guarded("/jobs/*")),
            Deploy::new("open", says("open"), json!({})),
        ],
    );
    node.deploy_functions(
        "other",
        &[Deploy::new("api", says("other"), json!({ "auth": { "kind": "key" } }))],
    );
    let secret = key(&node, &json!({ "name": "ci", "functions": ["api"] }));
    let ask = |path: &str| node.send(&Request::get(path).header("x-api-key", &secret));
    assert_eq!(ask("/shop/api/x").expect(200).text().trim(), "api");
    let answer = ask("/shop/jobs/x");
    answer.failure(ErrorCode::Forbidden);
    assert!(challenge(&answer).contains("error=\"insufficient_scope\""), "{answer:?}");
    ask("/other/").failure(ErrorCode::Unauthenticated);
    assert_eq!(node.get("/shop/").expect(200).text().trim(), "open");
    // A name below the domain of the node is no way around.
    let by_host = Request::get("/jobs/x").header("host", "shop.localhost");
    node.send(&by_host).failure(ErrorCode::Unauthenticated);
    let preview = node.get("/shop@v1/api/x");
    preview.failure(ErrorCode::Unauthenticated);
}

#[test]
fn keys_outlive_the_node_and_not_their_app() {
    let mut node = Node::start();
    let guarded = json!({ "auth": { "kind": "key" } });
    deploy(&node, guarded.clone());
    let secret = key(&node, &json!({ "name": "ci" }));
    node.kill();
    node.launch();
    node.send(&bearer(&secret)).expect(200);
    let state = std::fs::read(node.data_dir().join("state.db")).unwrap();
    let bits = secret.strip_prefix("faas_key_").unwrap();
    assert!(!String::from_utf8_lossy(&state).contains(bits), "its text is on the disk");
    assert!(!node.log().contains(bits), "its text is in the log");
    node.api(Request::new("DELETE", "/v1/apps/shop")).expect(204);
    deploy(&node, guarded);
    node.send(&bearer(&secret)).failure(ErrorCode::Unauthenticated);
}

#[test]
fn keys_by_the_command_line() {
    let node = Node::start();
    deploy(&node, json!({ "auth": { "kind": "key" } }));
    let made = ["key", "create", "ci", "--app", "shop", "--expires", "90d"];
    let secret = node.cli(made).run().expect(0).stdout;
    node.send(&bearer(secret.trim())).expect(200);
    node.cli(made).run().expect(5);
    let listed = node.cli(["key", "list", "--app", "shop", "-o", "json"]).run().expect(0).json();
    let id = listed["data"]["keys"][0]["id"].as_str().unwrap();
    node.cli(["key", "revoke", id, "--app", "shop"]).run().expect(0);
    node.send(&bearer(secret.trim())).failure(ErrorCode::Unauthenticated);
    node.cli(["key", "revoke", id, "--app", "shop"]).run().expect(4);
    node.cli(["key", "list", "--app", "nothing"]).run().expect(4);
}

const LOOPBACK: &str = "[auth]\nallow_private_issuers = true\njwks_pause_s = 1\n";

fn jwt(issuer: &Issuer) -> Value {
    json!({ "auth": { "kind": "jwt", "issuer": issuer.url(), "audience": "shop" } })
}

fn good(issuer: &Issuer) -> String {
    issuer.token("auth0|ada", json!({ "aud": ["shop", "other"] }))
}

#[test]
fn a_function_that_wants_a_token() {
    let node = Node::with(LOOPBACK);
    let issuer = Issuer::start();
    deploy(&node, jwt(&issuer));
    let answer = node.send(&seen());
    answer.failure(ErrorCode::Unauthenticated);
    assert_eq!(challenge(&answer), "Bearer");
    node.send(&bearer("no.token.at-all")).failure(ErrorCode::Unauthenticated);
    assert_eq!(issuer.asked(), 0, "nothing is fetched for what is no token");
    let token = good(&issuer);
    let text = node.send(&bearer(&token)).expect(200).text();
    assert_eq!(header(&text, "x-faas-caller"), Some("jwt:auth0|ada"));
    // The function reads what else it says.
    assert_eq!(header(&text, "authorization"), Some(format!("Bearer {token}").as_str()));
    for (claims, why) in [
        (json!({ "aud": "other" }), "another audience"),
        (json!({ "aud": "shop", "iss": "https://evil.example" }), "another issuer"),
        (json!({ "aud": "shop", "exp": 1 }), "expired"),
        (json!({ "aud": "shop", "exp": null }), "when it expires"),
        (json!({ "aud": "shop", "nbf": 99_999_999_999_u64 }), "not valid yet"),
    ] {
        let answer = node.send(&bearer(&issuer.token("ada", claims)));
        let detail = answer.failure(ErrorCode::Unauthenticated).detail.unwrap();
        assert!(detail.contains(why), "{detail}");
        let challenge = challenge(&answer);
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
        assert!(challenge.contains(why), "{challenge}");
    }
    let forged = Issuer::start();
    forged.rotate();
    let forged = forged.token("ada", json!({ "iss": issuer.url(), "aud": "shop" }));
    node.send(&bearer(&forged)).failure(ErrorCode::Unauthenticated);
    assert!(!node.log().contains(token.rsplit('.').next().unwrap()), "a token is in the log");
}

#[test]
fn an_issuer_changes_its_keys_and_goes_away() {
    let node = Node::with(LOOPBACK);
    let issuer = Issuer::start();
    deploy(&node, jwt(&issuer));
    let first = good(&issuer);
    node.send(&bearer(&first)).expect(200);
    issuer.rotate();
    let second = good(&issuer);
    // Within a second of the last fetch nobody asks again.
    eventually("the new key is known", PATIENCE, || {
        (node.send(&bearer(&second)).status == 200).then_some(())
    });
    node.send(&bearer(&first)).failure(ErrorCode::Unauthenticated);
    let asked = issuer.asked();
    issuer.fail();
    let third = {
        issuer.rotate();
        issuer.fail();
        good(&issuer)
    };
    eventually("the issuer was asked and failed", PATIENCE, || {
        node.send(&bearer(&third)).failure(ErrorCode::Unauthenticated);
        (issuer.asked() > asked).then_some(())
    });
    // What was known is still good.
    node.send(&bearer(&second)).expect(200);
    assert!(node.log().contains("an issuer's keys could not be fetched"), "{}", node.log());
}

#[test]
fn keys_that_ended_serve_while_the_issuer_is_away() {
    let node = Node::with(
        "[auth]\nallow_private_issuers = true\njwks_pause_s = 1\njwks_max_age_s = 1\n\
         jwks_stale_s = 3600\n",
    );
    let issuer = Issuer::start();
    deploy(&node, jwt(&issuer));
    let token = good(&issuer);
    node.send(&bearer(&token)).expect(200);
    // They are renewed before they end, while requests go on.
    eventually("the keys are renewed", PATIENCE, || {
        node.send(&bearer(&token)).expect(200);
        (issuer.asked() > 1).then_some(())
    });
    issuer.fail();
    let failed = issuer.asked();
    eventually("two fetches have failed", PATIENCE, || {
        node.send(&bearer(&token)).expect(200);
        (issuer.asked() > failed + 1).then_some(())
    });
}

#[test]
fn without_keys_nobody_can_be_checked() {
    let node = Node::with(LOOPBACK);
    let issuer = Issuer::start();
    issuer.fail();
    deploy(&node, jwt(&issuer));
    let answer = node.send(&bearer(&good(&issuer)));
    let body = answer.failure(ErrorCode::AuthUnavailable);
    assert!(!body.detail.unwrap().contains("127.0.0.1"));
    assert!(answer.header("retry-after").is_some());
    let id = answer.header("x-request-id").unwrap();
    let log = node.api(Request::get(&format!("/v1/apps/shop/logs?request_id={id}"))).text();
    assert!(log.contains("auth_unavailable") && log.contains("cannot be had"), "{log}");
    // A key's way is no way in.
    let secret = key(&node, &json!({ "name": "ci" }));
    node.send(&bearer(&secret)).failure(ErrorCode::Unauthenticated);
}

#[test]
fn nobody_makes_the_node_ask_its_own_network() {
    let node = Node::start();
    let issuer = Issuer::start();
    for (number, jwks) in [
        issuer.url(),
        issuer.url().replace("http:", "https:"),
        issuer.url().replace("127.0.0.1", "localhost").replace("http:", "https:"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let app = format!("app-{number}");
        let auth = json!({ "kind": "jwt", "issuer": issuer.url(), "jwks": jwks });
        node.deploy_functions(&app, &[Deploy::new("main", says("in"), json!({ "auth": auth }))]);
        let request = Request::get(&format!("/{app}/"))
            .header("authorization", &format!("Bearer {}", good(&issuer)));
        node.send(&request).failure(ErrorCode::AuthUnavailable);
    }
    assert_eq!(issuer.asked(), 0);
}

#[test]
fn a_client_may_call_so_often() {
    let node = Node::with(LOOPBACK);
    let issuer = Issuer::start();
    let limit = json!({ "requests": 3, "per_ms": 3_600_000 });
    let mut by_key = json!({ "auth": { "kind": "key" }, "routes": ["/key/*"] });
    by_key["rate_limit"] = limit.clone();
    let mut by_token = jwt(&issuer);
    by_token["routes"] = json!(["/token/*"]);
    by_token["rate_limit"] = limit.clone();
    let open = json!({ "rate_limit": limit });
    node.deploy_functions(
        "shop",
        &[
            Deploy::new("key", says("key"), by_key),
            Deploy::new("token", says("token"), by_token),
            Deploy::new("open", says("open"), open),
        ],
    );
    let ask = |path: &str, credential: &str| {
        let header = format!("Bearer {credential}");
        node.send(&Request::get(path).header("authorization", &header))
    };
    let spend = |path: &str, credential: &str| {
        for _ in 0..3 {
            ask(path, credential).expect(200);
        }
        let answer = ask(path, credential);
        answer.failure(ErrorCode::RateLimited);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=1200).contains(&wait), "{wait}");
    };
    let keys = ["one", "two"].map(|name| key(&node, &json!({ "name": name })));
    let tokens = ["ada", "bob"].map(|subject| issuer.token(subject, json!({ "aud": "shop" })));
    for key in &keys {
        spend("/shop/key/", key);
    }
    for token in &tokens {
        spend("/shop/token/", token);
    }
    // Another token of the same person is the same client; no credential is no token spent.
    let again = issuer.token("ada", json!({ "aud": "shop", "jti": "2" }));
    ask("/shop/token/", &again).failure(ErrorCode::RateLimited);
    spend("/shop/", "anything");
    // A new version begins nothing anew.
    let open = json!({ "rate_limit": { "requests": 3, "per_ms": 3_600_000 } });
    node.deploy_functions("shop", &[Deploy::new("open", says("again"), open)]);
    node.get("/shop/").failure(ErrorCode::RateLimited);
    let rejected = [("app", "shop"), ("reason", "rate_limited")];
    assert_eq!(node.metrics().sum("faas_rejected_total", &rejected), 7.0);
}

#[test]
fn all_threads_share_a_rate() {
    let node = Node::with("[ingress]\nthreads = 4\n");
    let limit = json!({ "rate_limit": { "requests": 50, "per_ms": 86_400_000 } });
    node.deploy_functions("shop", &[Deploy::new("main", says("in"), limit)]);
    let passed: usize = thread::scope(|scope| {
        let ask = || (0..20).filter(|_| node.get("/shop/").status == 200).count();
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(passed, 50);
}

#[test]
fn a_rate_comes_back() {
    let node = Node::start();
    let limit = json!({ "rate_limit": { "requests": 1, "per_ms": 300 } });
    node.deploy_functions("shop", &[Deploy::new("main", says("in"), limit)]);
    eventually("a refusal", PATIENCE, || (node.get("/shop/").status == 429).then_some(()));
    eventually("a success again", PATIENCE, || (node.get("/shop/").status == 200).then_some(()));
}

/// A CGI program that allows everything to everybody, and shows how it was called.
fn generous() -> Vec<u8> {
    let head = "Access-Control-Allow-Origin: *\\0aAccess-Control-Allow-Credentials: true\\0a\
                Vary: accept\\0aContent-Type: text/plain\\0a\\0ain";
    let length = head.replace("\\0a", "\n").len();
    artifacts::assemble(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\{length:02x}\00\00\00")
            (data (i32.const 16) "{head}")
            (func (export "_start")
                (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    ))
}

fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let fields = answer.headers.iter().filter(|(n, _)| n == name);
    fields.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn web_pages_of_other_origins() {
    let node = Node::start();
    let cors = json!({ "origins": [PAGE], "credentials": true, "expose": ["x-total"] });
    let settings = json!({ "routes": ["PUT /things/*", "GET /things/*"], "cors": cors });
    node.deploy_functions(
        "shop",
        &[
            Deploy::new("things", generous(), settings),
            Deploy::new("rest", says("rest"), json!({})),
        ],
    );
    let ask = |method: &str, origin: &str| {
        node.send(&Request::new(method, "/shop/things/1").header("origin", origin))
    };
    let answer = ask("GET", PAGE).expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-total"));
    assert_eq!(values(&answer, "vary"), ["accept", "origin"]);
    let answer = ask("GET", "https://evil.example").expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let question = |origin: &str| {
        let request = Request::new("OPTIONS", "/shop/things/1")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "x-one");
        node.send(&request)
    };
    let answer = question(PAGE).expect(204);
    assert!(answer.body.is_empty() && answer.header("x-request-id").is_some());
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert!(answer.header("access-control-allow-methods").unwrap().contains("PUT"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-one"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert!(answer.header("vary").unwrap().contains("origin"));
    let answer = question("https://evil.example");
    answer.failure(ErrorCode::ForbiddenOrigin);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    // A function that says nothing answers for itself, `OPTIONS` included.
    let request = Request::new("OPTIONS", "/shop/")
        .header("origin", PAGE)
        .header("access-control-request-method", "PUT");
    assert_eq!(node.send(&request).expect(200).text().trim(), "rest");
}

#[test]
fn a_page_can_read_why_it_was_refused() {
    let node = Node::start();
    let settings = json!({ "auth": { "kind": "key" }, "cors": { "origins": ["*"] } });
    deploy(&node, settings);
    let answer = node.send(&seen().header("origin", PAGE));
    answer.failure(ErrorCode::Unauthenticated);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    // A browser asks without a key.
    let question = Request::new("OPTIONS", "/shop/headers")
        .header("origin", PAGE)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization");
    let answer = node.send(&question).expect(204);
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"));
    // What is no such question goes the way of all requests.
    let options = Request::new("OPTIONS", "/shop/headers").header("origin", PAGE);
    node.send(&options).failure(ErrorCode::Unauthenticated);
    let secret = key(&node, &json!({ "name": "ci" }));
    let text = node.send(&options.header("x-api-key", &secret)).expect(200).text();
    assert!(text.starts_with("method OPTIONS"), "{text}");
}

#[test]
fn nothing_of_a_body_is_read_before_its_sender_is_known() {
    let node = Node::start();
    deploy(&node, json!({ "auth": { "kind": "key" } }));
    let mut connection = Connection::open(node.ingress());
    let head = "POST /shop/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\
                expect: 100-continue\r\n\r\n";
    connection.write(head.as_bytes()).unwrap();
    let answer = connection.read_answer(false).unwrap();
    answer.failure(ErrorCode::Unauthenticated);
    assert_eq!(answer.header("connection"), Some("close"));
}
