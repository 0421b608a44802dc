//! Variables and secrets.

use super::*;
use faas_api::{Env, EnvVar, SecretList, configuration::MAX_SECRET_LEN};

const SECRET: &str = "hunter2-hunter2";

impl Node {
    async fn put_text(&self, target: &str, body: &str) -> Answer {
        self.send("PUT", target, "text/plain", body).await
    }

    /// Stores a version that names these secrets.
    async fn add_with(&self, app: &str, secrets: &[&str], activate: bool) {
        let mut function = function_of("main", Digest::of(b"x"));
        function.settings.secrets = secrets.iter().map(|name| name.parse().unwrap()).collect();
        let new = super::version("test".into(), vec![function], activate);
        self.functions.add_version(&app.parse().unwrap(), new).await.unwrap();
    }
}

#[tokio::test]
async fn variables_are_set_read_and_removed() {
    let node = Node::new().await;
    node.ask("GET", "/v1/apps/shop/env").await.error(ErrorCode::NotFound);
    let answer = node.put("/v1/apps/shop/env", r#"{"A":"1","B":"x=y\n","GONE":null}"#).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let set: Env = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer.header("etag"), format!("\"{}\"", set.revision));
    assert_eq!(set.env.len(), 2);
    let answer = node.put("/v1/apps/shop/env", r#"{"A":"2","C":"3"}"#).await.json();
    assert_eq!(answer["env"], serde_json::json!({"A":"2","B":"x=y\n","C":"3"}));
    let read = node.ask("GET", "/v1/apps/shop/env").await.json();
    assert_eq!(read, answer);
    let answer = node.put_text("/v1/apps/shop/env/A", " as it is\n").await;
    assert_eq!(answer.json()["env"]["A"], " as it is\n");
    let one = node.ask("GET", "/v1/apps/shop/env/A").await;
    let one: EnvVar = serde_json::from_str(&one.body).unwrap();
    assert_eq!(one.value, " as it is\n");
    assert_eq!(node.ask("DELETE", "/v1/apps/shop/env/A").await.status, StatusCode::NO_CONTENT);
    let gone = node.ask("DELETE", "/v1/apps/shop/env/A").await.error(ErrorCode::NotFound);
    assert!(gone.hint.unwrap().contains("faas env list --app shop"));
    node.ask("GET", "/v1/apps/shop/env/A").await.error(ErrorCode::NotFound);
    assert_eq!(node.ask("DELETE", "/v1/apps/shop/env").await.status, StatusCode::NO_CONTENT);
    node.ask("GET", "/v1/apps/shop/env").await.error(ErrorCode::NotFound);
    // An app without a configuration has an empty one.
    node.add("shop", true).await;
    let empty = node.ask("GET", "/v1/apps/shop/env").await.json();
    assert_eq!(empty, serde_json::json!({"app":"shop","revision":0,"env":{}}));
}

#[tokio::test]
async fn secrets_are_never_read() {
    let node = Node::new().await;
    let target = "/v1/apps/shop/secrets/KEY";
    let put = node.put_text(target, SECRET).await;
    assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
    assert_eq!(put.json()["updated_by"], "admin");
    let again = node.send("PUT", target, "application/octet-stream", SECRET).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.header("etag"), put.header("etag"), "the same value changes nothing");
    let other = node.put_text(target, "another").await;
    assert_ne!(other.header("etag"), put.header("etag"));
    let list = node.ask("GET", "/v1/apps/shop/secrets").await;
    let list: SecretList = serde_json::from_str(&list.body).unwrap();
    assert_eq!(list.secrets.len(), 1);
    node.ask("GET", target).await.error(ErrorCode::MethodNotAllowed);
    let (docs, _) = node.disk.list("config/").await.unwrap();
    let text = String::from_utf8(docs[0].1.body.to_vec()).unwrap();
    assert!(!text.contains("another") && !text.contains(SECRET), "{text}");
    assert_eq!(node.ask("DELETE", target).await.status, StatusCode::NO_CONTENT);
    node.ask("DELETE", target).await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn what_cannot_be_a_value_is_refused_without_being_shown() {
    let node = Node::new().await;
    let target = "/v1/apps/shop/secrets/KEY";
    let long = SECRET.repeat((1 << 20) / SECRET.len());
    let body = node.put_text(target, &long).await.error(ErrorCode::BodyTooLarge);
    let detail = body.detail.unwrap();
    let (has, most) = (long.len().to_string(), MAX_SECRET_LEN.to_string());
    assert!(detail.contains(&has) && detail.contains(&most), "{detail}");
    assert!(!detail.contains("hunter"));
    let nul = node.put_text(target, "hunter2\0").await.error(ErrorCode::Unprocessable);
    assert!(!nul.detail.unwrap().contains("hunter"));
    let request = request("PUT", target).body(Body::from(vec![b'h', 0xff])).unwrap();
    node.call(request).await.error(ErrorCode::Unprocessable);
    node.put(target, "\"x\"").await.error(ErrorCode::UnsupportedMediaType);
    for name in ["1A", "A-B", "HTTP_PROXY", "PATH_INFO", "%00"] {
        let target = format!("/v1/apps/shop/secrets/{name}");
        node.put_text(&target, "x").await.error(ErrorCode::InvalidName);
    }
    for body in [r#"{"A-B":"x"}"#, r#"{"A":1}"#, "[]", r#"{"A":"\u0000"}"#] {
        node.put("/v1/apps/shop/env", body).await.error(ErrorCode::Unprocessable);
    }
    let long = format!(r#"{{"A":"{}"}}"#, "v".repeat(5121));
    node.put("/v1/apps/shop/env", &long).await.error(ErrorCode::BodyTooLarge);
    node.put_text("/v1/apps/shop/env/A", &"v".repeat(5121)).await.error(ErrorCode::BodyTooLarge);
    let many: Vec<String> = (0..129).map(|number| format!("\"V{number}\":\"\"")).collect();
    let many = format!("{{{}}}", many.join(","));
    let refused = node.put("/v1/apps/shop/env", &many).await.error(ErrorCode::Unprocessable);
    let detail = refused.detail.unwrap();
    assert!(detail.contains("129") && detail.contains("128"), "{detail}");
    for name in ["A", "B", "C"] {
        let target = format!("/v1/apps/shop/secrets/{name}");
        let value = "v".repeat(MAX_SECRET_LEN - 1);
        assert_eq!(node.put_text(&target, &value).await.status, StatusCode::CREATED);
    }
    let more = node.put_text(target, "one too many").await.error(ErrorCode::Unprocessable);
    assert!(more.detail.unwrap().contains("98304"));
    node.ask("GET", "/v1/apps/shop/env?x=1").await.error(ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_precondition_guards_a_change() {
    let node = Node::new().await;
    let conditional = async |method: &str, target: &str, tag: &str, body: &'static str| {
        let kind = if target.ends_with("env") { "application/json" } else { "text/plain" };
        let request = request(method, target).header("if-match", tag).header("content-type", kind);
        node.call(request.body(body.into()).unwrap()).await
    };
    let first = conditional("PUT", "/v1/apps/shop/env", "\"0\"", r#"{"A":"1"}"#).await;
    let tag = first.header("etag").to_owned();
    for (method, target, body) in [
        ("PUT", "/v1/apps/shop/env", r#"{"A":"2"}"#),
        ("PUT", "/v1/apps/shop/env/A", "2"),
        ("PUT", "/v1/apps/shop/secrets/S", "2"),
        ("DELETE", "/v1/apps/shop/env/A", ""),
        ("DELETE", "/v1/apps/shop/env", ""),
    ] {
        let refused = conditional(method, target, "\"0\"", body).await;
        let detail = refused.error(ErrorCode::Conflict).detail.unwrap();
        assert!(detail.contains("configuration"), "{detail}");
    }
    let second = conditional("PUT", "/v1/apps/shop/secrets/S", &tag, "2").await;
    assert_eq!(second.status, StatusCode::CREATED);
    let third = conditional("DELETE", "/v1/apps/shop/secrets/S", second.header("etag"), "").await;
    assert_eq!(third.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_secret_in_use_stays_and_a_version_without_its_secret_does_not_go_live() {
    let node = Node::new().await;
    let target = "/v1/apps/shop/secrets/KEY";
    node.put_text(target, SECRET).await;
    node.add_with("shop", &["KEY"], true).await;
    let refused = node.ask("DELETE", target).await.error(ErrorCode::SecretInUse);
    assert!(refused.detail.unwrap().contains("v1"));
    node.add("shop", true).await;
    assert_eq!(node.ask("DELETE", target).await.status, StatusCode::NO_CONTENT);
    let all_to_v1 = r#"{"shares":[{"version":"v1","percent":100}]}"#;
    for refused in [
        node.ask("POST", "/v1/apps/shop/versions/v1/activate").await,
        node.put("/v1/apps/shop/traffic", all_to_v1).await,
    ] {
        let body = refused.error(ErrorCode::MissingSecret);
        assert!(body.detail.unwrap().contains("`KEY`"));
        assert_eq!(body.hint.unwrap(), "faas secret put KEY --app shop");
    }
    node.put_text(target, SECRET).await;
    let live = node.put("/v1/apps/shop/traffic", all_to_v1).await;
    assert_eq!(live.status, StatusCode::OK, "{live:?}");
}

#[tokio::test]
async fn a_deleted_app_leaves_nothing() {
    let node = Node::new().await;
    node.add("shop", true).await;
    node.put("/v1/apps/shop/env", r#"{"A":"1"}"#).await;
    node.put_text("/v1/apps/shop/secrets/S", SECRET).await;
    assert_eq!(node.ask("DELETE", "/v1/apps/shop").await.status, StatusCode::NO_CONTENT);
    assert!(node.disk.list("config/").await.unwrap().0.is_empty());
    node.ask("GET", "/v1/apps/shop/secrets").await.error(ErrorCode::NotFound);
    // One that was never deployed can be deleted, too.
    node.put_text("/v1/apps/shop/secrets/S", SECRET).await;
    assert_eq!(node.ask("DELETE", "/v1/apps/shop").await.status, StatusCode::NO_CONTENT);
    node.ask("DELETE", "/v1/apps/shop").await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn a_failing_disk_changes_nothing() {
    let node = Node::new().await;
    node.put_text("/v1/apps/shop/secrets/S", SECRET).await;
    node.disk.mood.store(FAILS, Ordering::SeqCst);
    node.put_text("/v1/apps/shop/secrets/S", "other").await.error(ErrorCode::Internal);
    node.ask("DELETE", "/v1/apps/shop/secrets/S").await.error(ErrorCode::Internal);
    node.put("/v1/apps/shop/env", r#"{"A":"1"}"#).await.error(ErrorCode::Internal);
    node.disk.mood.store(WORKS, Ordering::SeqCst);
    assert_eq!(node.ask("GET", "/v1/apps/shop/env").await.json()["env"], serde_json::json!({}));
}

#[tokio::test]
async fn changes_at_once_are_all_kept() {
    let node = Arc::new(Node::new().await);
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let node = node.clone();
            tokio::spawn(async move {
                let target = format!("/v1/apps/shop/env/V{number}");
                assert_eq!(node.put_text(&target, "x").await.status, StatusCode::OK);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let read = node.ask("GET", "/v1/apps/shop/env").await.json();
    assert_eq!(read["env"].as_object().unwrap().len(), 20);
}
