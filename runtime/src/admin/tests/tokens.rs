//! Tokens over the API: who may do what, and what the audit log says of it.

use super::*;
use faas_api::{AuditEntry, Scope, Verb};
use serde_json::json;

impl Node {
    /// Makes a token through the API, and returns its text and id.
    async fn token(&self, apps: Option<&[&str]>, can: &[&str]) -> (String, String) {
        let new = json!({ "name": "t", "scope": { "apps": apps, "can": can } });
        let answer = self.send("POST", "/v1/tokens", "application/json", &new.to_string()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["secret"]), text(&made["token"]["id"]))
    }

    async fn as_token(&self, token: &str, method: &str, target: &str, body: &str) -> Answer {
        let mut request = request(method, target);
        let headers = request.headers_mut().unwrap();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        if !body.is_empty() {
            let kind = match target {
                BLOB => "application/wasm",
                target if target.ends_with("/deploy") => "application/wasm",
                target if target.contains("/secrets/") || target.contains("/env/") => "text/plain",
                _ => "application/json",
            };
            headers.insert("content-type", kind.parse().unwrap());
        }
        self.call(request.body(body.to_owned().into()).unwrap()).await
    }

    async fn entries(&self, query: &str) -> Vec<AuditEntry> {
        let answer = self.ask("GET", &format!("/v1/audit{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_value(answer.json()["entries"].clone()).unwrap()
    }
}

/// Where [`WASM`] goes.
const BLOB: &str = "/v1/blobs/7ca16a7d4074c124c63243bb71ddf8c4347314545c4876db523b3b8752981776";

/// Every operation, with names filled in and a body that is good.
const OPERATIONS: [(&str, &str, &str); 16] = [
    ("GET", "/v1/apps", ""),
    ("GET", "/v1/apps/shop", ""),
    ("DELETE", "/v1/apps/shop", ""),
    ("GET", "/v1/apps/shop/versions", ""),
    ("GET", "/v1/apps/shop/versions/v1", ""),
    ("POST", "/v1/apps/shop/versions/v1/activate", ""),
    ("PUT", "/v1/apps/shop/traffic", r#"{"shares":[{"version":"v1","percent":100}]}"#),
    ("GET", "/v1/apps/shop/logs", ""),
    ("POST", "/v1/apps/shop/deploy", WASM),
    ("GET", "/v1/tokens", ""),
    ("POST", "/v1/tokens", r#"{"scope":{"apps":["shop"],"can":["read"]}}"#),
    ("DELETE", "/v1/tokens/0123456789", ""),
    ("GET", "/v1/whoami", ""),
    ("GET", "/v1/audit", ""),
    ("GET", "/metrics", ""),
    ("GET", "/livez", ""),
];

/// More operations, each open to whoever may do the one at this place of the table above.
const ALIKE: [(&str, &str, &str, usize); 7] = [
    ("PUT", "/v1/apps/shop/versions/v1/pin", "", 5),
    ("DELETE", "/v1/apps/shop/versions/v1/pin", "", 5),
    ("POST", "/v1/apps/shop/versions", ONE_FUNCTION, 8),
    ("GET", "/v1/apps/shop/usage", "", 7),
    ("GET", "/v1/usage", "", 14),
    ("GET", "/v1/logs", "", 14),
    ("GET", "/v1/backup", "", 11),
];
/// Operations on an app, each open to whoever has one of these verbs there.
const CONFIGURE: [(&str, &str, &str, &[&str]); 12] = [
    ("GET", "/v1/apps/shop/env", "", &["read"]),
    ("PUT", "/v1/apps/shop/env", r#"{"A":"1"}"#, &["deploy", "secrets"]),
    ("PUT", "/v1/apps/shop/env/B", "1", &["deploy", "secrets"]),
    ("GET", "/v1/apps/shop/env/B", "", &["read"]),
    ("DELETE", "/v1/apps/shop/env/B", "", &["deploy", "secrets"]),
    ("DELETE", "/v1/apps/shop/env", "", &["deploy", "secrets"]),
    ("PUT", "/v1/apps/shop/secrets/S", "1", &["secrets"]),
    ("GET", "/v1/apps/shop/secrets", "", &["read", "secrets"]),
    ("DELETE", "/v1/apps/shop/secrets/S", "", &["secrets"]),
    ("POST", "/v1/apps/shop/keys", r#"{"name":"k"}"#, &["secrets"]),
    ("GET", "/v1/apps/shop/keys", "", &["read", "secrets"]),
    ("DELETE", "/v1/apps/shop/keys/k", "", &["secrets"]),
];
const ONE_FUNCTION: &str = r#"{"manifest":{"functions":[{"name":"main","digest":
    "0000000000000000000000000000000000000000000000000000000000000000"}]}}"#;

/// Apps and verbs of a token, and whether it may do these, in the same order.
type Row = (Option<&'static [&'static str]>, &'static [&'static str], [bool; 16]);

const MATRIX: [Row; 12] = {
    const Y: bool = true;
    const N: bool = false;
    const SHOP: Option<&'static [&'static str]> = Some(&["shop"]);
    const OTHER: Option<&'static [&'static str]> = Some(&["other"]);
    [
        (SHOP, &["read"], [Y, Y, N, Y, Y, N, N, Y, N, N, N, N, Y, N, N, Y]),
        (SHOP, &["deploy"], [Y, Y, N, Y, Y, Y, Y, N, Y, N, N, N, Y, N, N, Y]),
        (SHOP, &["invoke"], [Y, Y, N, N, N, N, N, N, N, N, N, N, Y, N, N, Y]),
        (SHOP, &["secrets"], [N, N, N, N, N, N, N, N, N, N, N, N, Y, N, N, Y]),
        (SHOP, &["read", "deploy"], [Y, Y, N, Y, Y, Y, Y, Y, Y, N, N, N, Y, N, N, Y]),
        (SHOP, &["admin"], [Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, N, Y, Y, N, Y]),
        (OTHER, &["read"], [Y, N, N, N, N, N, N, N, N, N, N, N, Y, N, N, Y]),
        (OTHER, &["admin"], [Y, N, N, N, N, N, N, N, N, Y, N, N, Y, Y, N, Y]),
        (None, &["read"], [Y, Y, N, Y, Y, N, N, Y, N, N, N, N, Y, N, Y, Y]),
        (None, &["deploy"], [Y, Y, N, Y, Y, Y, Y, N, Y, N, N, N, Y, N, N, Y]),
        (None, &["secrets"], [N, N, N, N, N, N, N, N, N, N, N, N, Y, N, N, Y]),
        (None, &["admin"], [Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, Y, Y]),
    ]
};

#[tokio::test]
async fn a_token_may_do_what_its_scope_says_and_nothing_else() {
    let mut node = Node::new().await;
    node.config.open_probes = false;
    for (apps, can, allowed) in MATRIX {
        let (token, _) = node.token(apps, can).await;
        let alike = ALIKE.map(|(method, target, body, place)| {
            ((method, target, body), allowed.get(place).copied().unwrap_or_default())
        });
        // Artifacts belong to no app: whoever deploys some app may send one.
        let deploys = can.iter().any(|verb| ["deploy", "admin"].contains(verb));
        let blob = (("PUT", BLOB, WASM), deploys);
        let here = apps.is_none_or(|apps| apps.contains(&"shop"));
        let configure = CONFIGURE.map(|(method, target, body, verbs)| {
            let has = |verb: &&str| verbs.contains(verb) || *verb == "admin";
            ((method, target, body), here && can.iter().any(has))
        });
        let all = OPERATIONS.into_iter().zip(allowed).chain(alike).chain([blob]).chain(configure);
        for ((method, target, body), allowed) in all {
            if node.functions.get(&"shop".parse().unwrap()).await.is_err() {
                node.add("shop", true).await;
            }
            let answer = node.as_token(&token, method, target, body).await;
            let at = format!("{apps:?} {can:?}: {method} {target}: {answer:?}");
            if allowed {
                // The id of a token that is not there, a variable that another row removed.
                let missing = target.ends_with("0123456789") || target.ends_with("env/B");
                assert!(answer.status.is_success() || (missing && answer.status == 404), "{at}");
                continue;
            }
            let error = answer.error(ErrorCode::MissingScope);
            assert!(error.detail.unwrap().contains("the token `t` "), "{at}");
            assert!(error.hint.is_some(), "{at}");
            assert!(answer.header("www-authenticate").contains("insufficient_scope"), "{at}");
            let shop = node.functions.get(&"shop".parse().unwrap()).await;
            assert!(shop.is_ok(), "{at}: nothing was deleted");
        }
    }
    // The table has them all.
    let described: usize = node.spec["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|item| item.as_object().unwrap().len())
        .sum();
    let known = OPERATIONS.len() + ALIKE.len() + 1 + CONFIGURE.len();
    assert_eq!(described, known + 2, "readyz is as livez, the description is open");
}

#[tokio::test]
async fn what_a_token_may_not_see_looks_the_same_whether_it_is_there_or_not() {
    let node = Node::new().await;
    node.add("shop", true).await;
    let (token, _) = node.token(Some(&["other"]), &["admin"]).await;
    for method in ["GET", "DELETE"] {
        for app in ["shop", "nothing"] {
            let answer = node.as_token(&token, method, &format!("/v1/apps/{app}"), "").await;
            answer.error(ErrorCode::MissingScope);
        }
    }
    for bad in ["NOT%00A..NAME", "%ff", "shop%2f..%2fother", "OTHER", "other%20"] {
        let answer = node.as_token(&token, "GET", &format!("/v1/apps/{bad}"), "").await;
        answer.error(ErrorCode::MissingScope);
    }
    assert_eq!(node.as_token(&token, "GET", "/v1/apps/other", "").await.status, 404);
    // Where there is nothing, there is nothing to be allowed.
    node.as_token(&token, "GET", "/v1/nothing", "").await.error(ErrorCode::NotFound);
    node.as_token(&token, "PATCH", "/v1/apps", "").await.error(ErrorCode::MethodNotAllowed);
    assert_eq!(node.as_token(&token, "HEAD", "/v1/apps/shop", "").await.status, 403);
}

#[tokio::test]
async fn a_list_of_apps_has_those_that_the_token_may_see() {
    let node = Node::new().await;
    for app in ["blog", "news", "shop"] {
        node.add(app, true).await;
    }
    let names = |answer: Answer| -> Vec<String> {
        let listed = answer.json()["apps"].clone();
        let apps = listed.as_array().unwrap().iter();
        apps.map(|app| app["name"].as_str().unwrap().to_owned()).collect()
    };
    for (apps, can, expected) in [
        (Some(&["news", "shop", "none"][..]), "read", &["news", "shop"][..]),
        (Some(&["blog"]), "deploy", &["blog"]),
        (None, "invoke", &["blog", "news", "shop"]),
    ] {
        let (token, _) = node.token(apps, &[can]).await;
        let answer = node.as_token(&token, "GET", "/v1/apps", "").await;
        assert_eq!(names(answer), expected);
    }
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let node = Node::new().await;
    let (shop, _) = node.token(Some(&["shop", "blog"]), &["admin"]).await;
    let ask = async |token: &str, new: Value| {
        node.as_token(token, "POST", "/v1/tokens", &new.to_string()).await
    };
    for scope in [
        json!({ "can": ["read"] }),
        json!({ "apps": ["news"], "can": ["read"] }),
        json!({ "apps": ["shop", "news"], "can": ["read"] }),
    ] {
        let answer = ask(&shop, json!({ "scope": scope })).await;
        let error = answer.error(ErrorCode::MissingScope);
        assert!(error.detail.unwrap().contains("cannot give"), "{scope}");
    }
    let less = ask(&shop, json!({ "scope": { "apps": ["shop"], "can": ["admin", "read"] } })).await;
    assert_eq!(less.status, 201, "{less:?}");
    // Time is power too.
    let new = json!({ "scope": { "can": ["admin"] }, "expires_in_s": 3600 });
    let hour = ask(TOKEN, new).await.json();
    let hour = hour["secret"].as_str().unwrap();
    for longer in [json!({}), json!({ "expires_in_s": 7200 })] {
        let mut new = json!({ "scope": { "can": ["read"] } });
        new.as_object_mut().unwrap().extend(longer.as_object().unwrap().clone());
        let error = ask(hour, new).await.error(ErrorCode::MissingScope);
        assert!(error.detail.unwrap().contains("outlive"));
    }
    let new = json!({ "scope": { "can": ["read"] }, "expires_in_s": 60 });
    assert_eq!(ask(hour, new).await.status, 201);
}

#[tokio::test]
async fn an_administrator_of_some_apps_sees_and_ends_their_tokens_only() {
    let node = Node::new().await;
    let (shop, shop_id) = node.token(Some(&["shop"]), &["admin"]).await;
    let (_, ci) = node.token(Some(&["shop"]), &["deploy"]).await;
    let (both_token, both) = node.token(Some(&["shop", "blog"]), &["read"]).await;
    let (_, all) = node.token(None, &["read"]).await;
    let ids = |answer: Answer| -> Vec<String> {
        let listed = answer.json()["tokens"].clone();
        let mut ids: Vec<String> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|token| token["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let mut own = vec![shop_id, ci.clone()];
    own.sort();
    assert_eq!(ids(node.as_token(&shop, "GET", "/v1/tokens", "").await), own);
    assert_eq!(ids(node.ask("GET", "/v1/tokens").await).len(), 4);
    for id in [&both, &all, "0123456789"] {
        let answer = node.as_token(&shop, "DELETE", &format!("/v1/tokens/{id}"), "").await;
        answer.error(ErrorCode::MissingScope);
    }
    let delete = async |token: &str, id: &str| {
        node.as_token(token, "DELETE", &format!("/v1/tokens/{id}"), "").await
    };
    assert_eq!(delete(&shop, &ci).await.status, 204);
    assert_eq!(delete(&shop, &ci).await.status, 204, "it has ended already");
    // Whoever finds a token that leaked can end it with itself.
    assert_eq!(delete(&both_token, &both).await.status, 204);
    delete(&both_token, &both).await.error(ErrorCode::Unauthorized);
    assert_eq!(delete(TOKEN, &all).await.status, 204);
    delete(TOKEN, "0123456789").await.error(ErrorCode::NotFound);
    delete(TOKEN, "not-an-id").await.error(ErrorCode::InvalidName);
}

#[tokio::test]
async fn a_token_that_ended_says_so_to_its_holder() {
    let node = Node::new().await;
    let (token, id) = node.token(None, &["read"]).await;
    assert_eq!(node.as_token(&token, "GET", "/v1/apps", "").await.status, 200);
    node.ask("DELETE", &format!("/v1/tokens/{id}")).await;
    let answer = node.as_token(&token, "GET", "/v1/apps", "").await;
    let error = answer.error(ErrorCode::Unauthorized);
    assert!(error.detail.unwrap().starts_with("the token `t` was revoked on 2"));
    assert!(error.hint.unwrap().contains("faas token create"));

    let scope = Scope { apps: None, can: vec![Verb::Read] };
    let past = crate::clock::now() - jiff::SignedDuration::from_secs(5);
    let wanted = crate::tokens::Wanted {
        name: Some("old".into()),
        scope,
        expires_at: Some(past),
        created_by: "test".into(),
    };
    let (secret, _) = node.tokens.create(wanted).await.unwrap();
    let answer = node.as_token(&secret.reveal(), "GET", "/v1/apps", "").await;
    let error = answer.error(ErrorCode::TokenExpired);
    assert_eq!(error.detail.unwrap(), format!("the token `old` expired on {past}"));
    assert!(error.hint.unwrap().contains("faas token create"));
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
}

#[tokio::test]
async fn tokens_that_make_no_sense_are_refused() {
    let node = Node::new().await;
    let ask = async |new: &str| node.send("POST", "/v1/tokens", "application/json", new).await;
    for new in [
        r#"{"scope":{"can":[]}}"#,
        r#"{"scope":{"can":["fly"]}}"#,
        r#"{"scope":{"apps":[],"can":["read"]}}"#,
        r#"{"scope":{"apps":["Not_A_Name"],"can":["read"]}}"#,
        r#"{"scope":{"can":["read"],"more":1}}"#,
        r#"{"scope":{"can":["read"]},"more":1}"#,
        r#"{"name":"ci"}"#,
        r#"{"name":"","scope":{"can":["read"]}}"#,
        r#"{"name":" ci","scope":{"can":["read"]}}"#,
        r#"{"name":"c\ni","scope":{"can":["read"]}}"#,
        r#"{"name":"admin","scope":{"can":["read"]}}"#,
        r#"{"scope":{"can":["read"]},"expires_in_s":0}"#,
        r#"{"scope":{"can":["read"]},"expires_in_s":-1}"#,
        r#"{"scope":{"can":["read"]},"expires_in_s":18446744073709551615}"#,
    ] {
        ask(new).await.error(ErrorCode::Unprocessable);
    }
    let long = format!(r#"{{"name":"{}","scope":{{"can":["read"]}}}}"#, "x".repeat(65));
    ask(&long).await.error(ErrorCode::Unprocessable);
    assert!(node.tokens.list().is_empty());
    node.ask("GET", "/v1/tokens?x=1").await.error(ErrorCode::BadRequest);
    node.ask("GET", "/v1/whoami?x=1").await.error(ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_disk_that_fails_makes_no_token() {
    let node = Node::new().await;
    let who = node.ask("GET", "/v1/whoami").await.json();
    assert_eq!(who["name"], "admin");
    assert!(who["id"].is_null() && who["expires_at"].is_null());
    assert_eq!(who["scope"]["can"].as_array().unwrap().len(), Verb::ALL.len());
    let (token, id) = node.token(None, &["admin"]).await;
    node.disk.mood.store(FAILS, Ordering::SeqCst);
    let answer = node.as_token(&token, "DELETE", &format!("/v1/tokens/{id}"), "").await;
    answer.error(ErrorCode::Internal);
    node.disk.mood.store(WORKS, Ordering::SeqCst);
    assert_eq!(node.as_token(&token, "GET", "/v1/whoami", "").await.status, 200);
}

#[tokio::test]
async fn every_change_is_recorded_and_no_question() {
    let node = Node::new().await;
    node.add("shop", true).await;
    let (token, id) = node.token(Some(&["shop"]), &["deploy"]).await;
    let mut answers = Vec::new();
    for (method, target, body) in OPERATIONS {
        answers.push((method, target, node.as_token(&token, method, target, body).await));
    }
    let entries = node.entries("").await;
    let changes: Vec<_> = answers.iter().filter(|(method, ..)| *method != "GET").rev().collect();
    assert_eq!(entries.len(), changes.len() + 1, "{entries:?}");
    for (entry, (method, target, answer)) in entries.iter().zip(changes) {
        let at = format!("{method} {target}: {entry:?}");
        let operation = operation(&node.spec, &method.parse().unwrap(), target).unwrap();
        assert_eq!(entry.action, operation["operationId"], "{at}");
        assert_eq!(
            (entry.by.as_str(), entry.token.as_ref().unwrap().as_str()),
            ("t", &*id),
            "{at}"
        );
        assert_eq!(entry.request_id, answer.header("x-request-id"), "{at}");
        let outcome = if answer.status.is_success() { "ok" } else { answer.header("x-faas-error") };
        assert_eq!(entry.outcome, outcome, "{at}");
        let app = target.starts_with("/v1/apps").then_some("shop");
        assert_eq!(entry.app.as_ref().map(AppName::as_str), app, "{at}");
    }
    let object =
        |action: &str| entries.iter().find(|entry| entry.action == action).unwrap().object.clone();
    assert_eq!(object("deploy").as_deref(), Some("v2"));
    assert_eq!(object("activate_version").as_deref(), Some("v1"));
    assert_eq!(object("set_traffic").as_deref(), Some("v1"));
    assert_eq!(object("revoke_token").as_deref(), Some("0123456789"));
    let first = entries.last().unwrap();
    assert_eq!((first.action.as_str(), first.by.as_str()), ("create_token", "admin"));
    assert_eq!((first.object.as_deref(), &first.token), (Some(&*id), &None));
}

#[tokio::test]
async fn strangers_leave_no_trace_on_the_disk() {
    let node = Node::new().await;
    for (method, target, body) in OPERATIONS {
        if method == "GET" {
            continue;
        }
        node.as_token("faas_wrong", method, target, body).await.error(ErrorCode::Unauthorized);
        let mut foreign = request(method, target);
        foreign.headers_mut().unwrap().insert("origin", "http://evil.example".parse().unwrap());
        node.call(foreign.body(body.to_owned().into()).unwrap()).await.error(ErrorCode::Forbidden);
        node.ask(method, "/v1/nothing").await.error(ErrorCode::NotFound);
    }
    assert_eq!(node.entries("").await, []);
}

#[tokio::test]
async fn failures_are_recorded_as_they_were_answered() {
    let node = Node::new().await;
    node.add("shop", true).await;
    node.deploy("/v1/apps/shop/deploy", "bad").await.error(ErrorCode::InvalidWasm);
    node.deploy("/v1/apps/shop/deploy?x=1", "x").await.error(ErrorCode::BadRequest);
    node.deploy("/v1/apps/NO/deploy", "x").await.error(ErrorCode::InvalidName);
    node.deploy("/v1/apps/shop/deploy", "panic").await.error(ErrorCode::Internal);
    let mut events = request("POST", "/v1/apps/shop/deploy")
        .header("content-type", "application/wasm")
        .header("accept", "application/x-ndjson");
    events = events.header("user-agent", "x".repeat(500));
    let answer = node.call(events.body("bad".into()).unwrap()).await;
    assert_eq!(answer.status, 200, "the failure comes in the stream");
    node.disk.mood.store(PANICS, Ordering::SeqCst);
    node.ask("DELETE", "/v1/apps/shop").await.error(ErrorCode::Internal);
    node.disk.mood.store(WORKS, Ordering::SeqCst);
    let entries = node.entries("").await;
    let outcomes: Vec<&str> = entries.iter().map(|entry| entry.outcome.as_str()).collect();
    let expected =
        ["internal", "invalid_wasm", "internal", "invalid_name", "bad_request", "invalid_wasm"];
    assert_eq!(outcomes, expected);
    assert_eq!(entries[1].agent.as_ref().unwrap().len(), 120);
    assert_eq!(entries[3].app, None, "what is no name is not kept as one");
}

#[tokio::test]
async fn the_audit_log_is_read_in_parts() {
    let node = Node::new().await;
    for app in ["shop", "blog", "shop", "news"] {
        node.add(app, true).await;
        node.ask("POST", &format!("/v1/apps/{app}/versions/v1/activate")).await;
    }
    let apps = |entries: &[AuditEntry]| -> Vec<String> {
        entries.iter().map(|entry| entry.app.as_ref().unwrap().to_string()).collect()
    };
    assert_eq!(apps(&node.entries("").await), ["news", "shop", "blog", "shop"]);
    assert_eq!(apps(&node.entries("?app=shop").await), ["shop", "shop"]);
    let page = node.entries("?limit=3").await;
    assert_eq!(apps(&page), ["news", "shop", "blog"]);
    let next = format!("?limit=3&before={}", page[2].seq);
    assert_eq!(apps(&node.entries(&next).await), ["shop"]);
    assert_eq!(node.entries("?since=1h").await.len(), 4);
    assert_eq!(node.entries("?since=2999-01-01T00:00:00Z").await.len(), 0);
    for bad in ["?since=soon", "?app=NO", "?limit=-1", "?limit=1001", "?more=1", "?before=x"] {
        node.ask("GET", &format!("/v1/audit{bad}")).await.error(ErrorCode::BadRequest);
    }
    let (token, _) = node.token(Some(&["shop", "news"]), &["admin"]).await;
    let read =
        async |query: &str| node.as_token(&token, "GET", &format!("/v1/audit{query}"), "").await;
    let own: Vec<AuditEntry> =
        serde_json::from_value(read("").await.json()["entries"].clone()).unwrap();
    assert_eq!(apps(&own), ["news", "shop", "shop"], "changes of tokens are not an app's");
    read("?app=blog").await.error(ErrorCode::MissingScope);
}

#[tokio::test]
async fn a_change_whose_client_left_is_recorded() {
    let node = Node::new().await;
    node.deployer.go.forget_permits(1000);
    let deploying = node.deploy("/v1/apps/shop/deploy", "x");
    let left = tokio::time::timeout(Duration::from_millis(50), deploying).await;
    assert!(left.is_err(), "it waits for the deployer");
    assert_eq!(node.entries("").await, []);
    node.deployer.go.add_permits(1);
    let recorded = async {
        loop {
            if let [entry] = &node.entries("").await[..] {
                break entry.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let entry = tokio::time::timeout(Duration::from_secs(30), recorded).await.unwrap();
    assert_eq!((entry.action.as_str(), entry.outcome.as_str()), ("deploy", "ok"));
    assert_eq!(entry.object.as_deref(), Some("v1"));
}

#[tokio::test]
async fn a_log_that_is_followed_ends_with_its_token() {
    let mut node = Node::new().await;
    node.patience.heartbeat = Duration::from_millis(10);
    node.add("shop", true).await;
    let (token, id) = node.token(Some(&["shop"]), &["read"]).await;
    let mut follow = request("GET", "/v1/apps/shop/logs?follow=true");
    let bearer = format!("Bearer {token}").parse().unwrap();
    follow.headers_mut().unwrap().insert("authorization", bearer);
    let response = node.open(follow.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap();
    assert!(frame.is_ok(), "a sign of life: {frame:?}");
    node.ask("DELETE", &format!("/v1/tokens/{id}")).await;
    let ended = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap(), "it breaks off");
}
