//! API keys.

use super::*;

const KEYS: &str = "/v1/apps/hello/keys";

async fn made(node: &Node, body: &str) -> Answer {
    node.send("POST", KEYS, "application/json", body).await
}

#[tokio::test]
async fn a_key_is_shown_once_and_revoked() {
    let node = Node::new().await;
    node.add("hello", true).await;
    let answer = made(&node, r#"{"name":"ci","functions":["main"]}"#).await;
    assert_eq!(answer.status, 201);
    let secret = answer.json()["secret"].as_str().unwrap().to_owned();
    let app: AppName = "hello".parse().unwrap();
    let hash = Digest::of(secret.as_bytes());
    assert!(node.keys.find(&app, &hash).is_some());
    let listed = node.ask("GET", KEYS).await;
    assert!(!listed.body.contains(&secret) && !listed.body.contains(&hash.to_string()));
    let listed = &listed.json()["keys"][0];
    assert_eq!(listed["functions"], serde_json::json!(["main"]));
    assert_eq!(*listed, answer.json()["key"]);
    let id = listed["id"].as_str().unwrap();
    assert_eq!(node.ask("DELETE", &format!("{KEYS}/{id}")).await.status, 204);
    assert!(node.keys.find(&app, &hash).is_none());
    node.ask("DELETE", &format!("{KEYS}/{id}")).await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn names_are_taken_once_and_serve_to_revoke() {
    let node = Node::new().await;
    node.add("hello", true).await;
    assert_eq!(made(&node, r#"{"name":"ci"}"#).await.status, 201);
    made(&node, r#"{"name":"ci"}"#).await.error(ErrorCode::Conflict);
    assert_eq!(node.ask("DELETE", &format!("{KEYS}/ci")).await.status, 204);
    assert_eq!(made(&node, r#"{"name":"ci"}"#).await.status, 201);
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let node = Node::new().await;
    made(&node, r#"{"name":"ci"}"#).await.error(ErrorCode::NotFound);
    node.ask("GET", KEYS).await.error(ErrorCode::NotFound);
    node.add("hello", true).await;
    for bad in [
        r#"{}"#,
        r#"{"name":"C I"}"#,
        r#"{"name":"ci","expires":"2030-01-01T00:00:00Z"}"#,
        r#"{"name":"ci","expires_at":"2020-01-01T00:00:00Z"}"#,
        r#"{"name":"ci","functions":["a b"]}"#,
    ] {
        made(&node, bad).await.error(ErrorCode::Unprocessable);
    }
    node.ask("DELETE", &format!("{KEYS}/%00")).await.error(ErrorCode::NotFound);
    node.ask("GET", &format!("{KEYS}?all")).await.error(ErrorCode::BadRequest);
}

#[tokio::test]
async fn keys_end_with_their_app() {
    let node = Node::new().await;
    node.add("hello", true).await;
    let secret =
        made(&node, r#"{"name":"ci"}"#).await.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(node.ask("DELETE", "/v1/apps/hello").await.status, 204);
    node.add("hello", true).await;
    let app: AppName = "hello".parse().unwrap();
    assert!(node.keys.find(&app, &Digest::of(secret.as_bytes())).is_none());
}
