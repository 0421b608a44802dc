//! Apps, versions and traffic.

use super::*;
use serde_json::json;

#[tokio::test]
async fn an_app_is_listed_and_described() {
    let node = Node::new().await;
    assert_eq!(node.ask("GET", "/v1/apps").await.json(), json!({ "apps": [] }));
    for app in ["zeta", "alpha"] {
        node.add(app, true).await;
    }
    let list = node.ask("GET", "/v1/apps").await.json();
    assert_eq!(list["apps"][0]["name"], "alpha");
    assert_eq!(list["apps"][1]["name"], "zeta");
    assert_eq!(list["apps"][0]["url"], "http://127.0.0.1:8080/alpha/");
    let app = node.ask("GET", "/v1/apps/zeta").await;
    assert!(app.header("etag").starts_with('"'), "{app:?}");
    let app = app.json();
    assert_eq!(app["functions"][0]["name"], "main");
    assert_eq!(app["urls"][1], "http://zeta.localhost:8080/");
    assert_eq!(app["traffic"], json!({ "shares": [{ "version": "v1", "percent": 100 }] }));
    assert_eq!(node.ask("HEAD", "/v1/apps/zeta").await.body, "");
    node.ask("GET", "/v1/apps/nobody").await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn versions_are_listed_newest_first() {
    let node = Node::new().await;
    node.add("hello", true).await;
    node.add("hello", false).await;
    let list = node.ask("GET", "/v1/apps/hello/versions").await.json();
    let versions = list["versions"].as_array().unwrap();
    assert_eq!(versions[0]["version"], "v2");
    assert_eq!(versions[0]["live_percent"], 0);
    assert_eq!(versions[1]["live_percent"], 100);
    assert_eq!(versions[1]["size"], 7);
    assert_eq!(versions[1]["created_by"], "test");
    assert_eq!(versions[1]["preview_url"], "http://127.0.0.1:8080/hello@v1/");
    let one = node.ask("GET", "/v1/apps/hello/versions/v2").await.json();
    assert_eq!(one, versions[0]);
    for missing in ["/v1/apps/hello/versions/v3", "/v1/apps/nobody/versions/v1"] {
        node.ask("GET", missing).await.error(ErrorCode::NotFound);
    }
    node.ask("GET", "/v1/apps/nobody/versions").await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn traffic_moves_and_the_tag_guards_it() {
    let node = Node::new().await;
    node.add("hello", true).await;
    node.add("hello", false).await;
    let etag = node.ask("GET", "/v1/apps/hello").await.header("etag").to_owned();
    let put = async |tag: &str, body: &str| {
        let request = request("PUT", "/v1/apps/hello/traffic")
            .header("content-type", "application/json; charset=utf-8")
            .header("if-match", tag);
        node.call(request.body(body.to_owned().into()).unwrap()).await
    };
    let half = r#"{"shares":[{"version":"v1","percent":50},{"version":"v2","percent":50}]}"#;
    let moved = put(&etag, half).await;
    assert_eq!(moved.status, 200, "{moved:?}");
    assert_eq!(moved.json()["previous"]["shares"][0]["percent"], 100);
    assert_eq!(moved.json()["traffic"]["shares"][1]["percent"], 50);
    let newer = moved.header("etag").to_owned();
    assert_ne!(newer, etag);
    assert_eq!(node.ask("GET", "/v1/apps/hello").await.header("etag"), newer);

    for stale in [etag.as_str(), "\"x\"", "W/\"1\"", &format!("W/{newer}"), "\"1\", \"2\""] {
        put(stale, half).await.error(ErrorCode::Conflict);
    }
    for bad in ["x", "", "\"1", "\u{e9}", "1,", "-1"] {
        put(bad, half).await.error(ErrorCode::BadRequest);
    }
    for good in [format!("\"0\", {newer}"), "*".to_owned()] {
        assert_eq!(put(&good, half).await.status, 200);
    }
    assert_eq!(node.put("/v1/apps/hello/traffic", half).await.status, 200);
    let missing = put("*", &half.replace("v2", "v9")).await;
    let body = missing.error(ErrorCode::Unprocessable);
    assert_eq!(body.detail.as_deref(), Some("there is no version v9"));
    node.put("/v1/apps/nobody/traffic", half).await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn a_version_is_activated() {
    let node = Node::new().await;
    node.add("hello", true).await;
    node.add("hello", true).await;
    let etag = node.ask("GET", "/v1/apps/hello").await.header("etag").to_owned();
    let answer = node.ask("POST", "/v1/apps/hello/versions/v1/activate").await;
    assert_eq!(answer.json()["traffic"]["shares"][0]["version"], "v1");
    assert_eq!(answer.json()["previous"]["shares"][0]["version"], "v2");
    assert_eq!(answer.json()["url"], "http://127.0.0.1:8080/hello/");
    let stale = request("POST", "/v1/apps/hello/versions/v2/activate").header("if-match", &etag);
    node.call(stale.body(Body::empty()).unwrap()).await.error(ErrorCode::Conflict);
    for missing in ["/v1/apps/hello/versions/v9/activate", "/v1/apps/nobody/versions/v1/activate"] {
        node.ask("POST", missing).await.error(ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn an_app_is_deleted_once_and_swept_after() {
    let mut node = Node::new().await;
    node.add("hello", true).await;
    let etag = node.ask("GET", "/v1/apps/hello").await.header("etag").to_owned();
    node.add("hello", true).await;
    let stale = request("DELETE", "/v1/apps/hello").header("if-match", &etag);
    node.call(stale.body(Body::empty()).unwrap()).await.error(ErrorCode::Conflict);
    let answer = node.ask("DELETE", "/v1/apps/hello").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""));
    node.sweeps.recv().await.unwrap();
    node.ask("DELETE", "/v1/apps/hello").await.error(ErrorCode::NotFound);
    node.ask("GET", "/v1/apps/hello").await.error(ErrorCode::NotFound);
    node.ask("GET", "/v1/apps/hello/logs").await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn names_that_are_none_say_why() {
    let node = Node::new().await;
    let long = "a".repeat(41);
    for (name, why) in [
        ("..%2fx", "`.` cannot stand in a name"),
        ("%2e%2e", "`.` cannot stand in a name"),
        ("a%00", "`\\0` cannot stand in a name"),
        ("a%0d%0ab", "`\\r` cannot stand in a name"),
        ("A", "`A` cannot stand in a name"),
        ("caf%C3%A9", "`é` cannot stand in a name"),
        ("%ff", "not UTF-8"),
        ("a--b", "`--` cannot stand in a name"),
        ("1a", "starts with a letter"),
        ("admin", "the name `admin` is reserved"),
        (long.as_str(), "this one has 41"),
    ] {
        for (method, path) in [
            ("GET", format!("/v1/apps/{name}")),
            ("DELETE", format!("/v1/apps/{name}")),
            ("POST", format!("/v1/apps/{name}/deploy")),
            ("GET", format!("/v1/apps/{name}/logs")),
            ("GET", format!("/v1/apps/{name}/versions")),
            ("GET", format!("/v1/apps/{name}/versions/v1")),
            ("POST", format!("/v1/apps/{name}/versions/v1/activate")),
            ("PUT", format!("/v1/apps/{name}/traffic")),
        ] {
            let body = node.ask(method, &path).await.error(ErrorCode::InvalidName);
            let detail = body.detail.unwrap();
            assert!(detail.contains(why), "{name}: {detail}");
            assert!(body.hint.is_some(), "{name}");
        }
    }
    for version in ["1", "v0", "v01", "latest", "v4294967296"] {
        let path = format!("/v1/apps/hello/versions/{version}/activate");
        let body = node.ask("POST", &path).await.error(ErrorCode::InvalidName);
        assert_eq!(body.hint.as_deref(), Some("versions are written v1, v2, …"));
    }
}

#[tokio::test]
async fn bodies_that_are_not_what_they_must_be() {
    let node = Node::new().await;
    node.add("hello", true).await;
    let target = "/v1/apps/hello/traffic";
    for bad in ["", "{", "{\"shares\":[}", "\u{0}", "{\"shares\":[]} []"] {
        node.put(target, bad).await.error(ErrorCode::BadRequest);
    }
    for (bad, why) in [
        ("[]", "expected struct Traffic"),
        ("{}", "missing field `shares`"),
        (r#"{"shares":[],"x":1}"#, "unknown field `x`"),
        (r#"{"shares":[],"shares":[]}"#, "duplicate field `shares`"),
        (r#"{"shares":[{"version":"1","percent":100}]}"#, "a version is written"),
        (r#"{"shares":[{"version":"v1","percent":256}]}"#, "256"),
        (r#"{"shares":[{"version":"v1","percent":-1}]}"#, "-1"),
        (r#"{"shares":[{"version":"v1","percent":99}]}"#, "sum to 100"),
        (r#"{"shares":[]}"#, "sum to 100"),
    ] {
        let body = node.put(target, bad).await.error(ErrorCode::Unprocessable);
        let detail = body.detail.unwrap();
        assert!(detail.contains(why), "{bad}: {detail}");
        assert!(detail.len() < 600);
    }
    let long = format!(r#"{{"{}":1}}"#, "x".repeat(60_000));
    let body = node.put(target, &long).await.error(ErrorCode::Unprocessable);
    assert!(body.detail.unwrap().len() < 600);
    let huge = format!(r#"{{"shares":[]{}}}"#, " ".repeat(64 * 1024));
    node.put(target, &huge).await.error(ErrorCode::BodyTooLarge);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let answer = node.send("PUT", target, kind, "{}").await;
        answer.error(ErrorCode::UnsupportedMediaType);
    }
    node.ask("PUT", target).await.error(ErrorCode::UnsupportedMediaType);
    for (method, target) in [
        ("GET", "/v1/apps?limit=3"),
        ("GET", "/v1/apps/hello?x"),
        ("DELETE", "/v1/apps/hello?force=true"),
        ("GET", "/v1/apps/hello/versions?x=1"),
        ("POST", "/v1/apps/hello/versions/v1/activate?percent=5"),
        ("PUT", "/v1/apps/hello/traffic?x=1"),
    ] {
        node.ask(method, target).await.error(ErrorCode::BadRequest);
    }
}

#[tokio::test]
async fn a_disk_that_fails_says_so_to_the_log_only() {
    let mut node = Node::new().await;
    node.patience.request = Duration::from_millis(20);
    node.add("hello", true).await;
    for (mood, code) in [
        (FAILS, ErrorCode::Internal),
        (FULL, ErrorCode::StorageFull),
        (HANGS, ErrorCode::Overloaded),
        (PANICS, ErrorCode::Internal),
    ] {
        node.disk.mood.store(mood, Ordering::SeqCst);
        let targets: &[&str] = match mood {
            FULL => &["/v1/apps/hello/versions/v1/activate"],
            _ => &["/v1/apps/hello/versions/v1/activate", "/v1/apps", "/v1/apps/hello"],
        };
        for target in targets {
            let method = if target.ends_with("activate") { "POST" } else { "GET" };
            let body = node.ask(method, target).await.error(code);
            assert_eq!((body.detail, body.hint), (None, None), "{target}");
        }
    }
    node.disk.mood.store(WORKS, Ordering::SeqCst);
    assert_eq!(node.ask("GET", "/v1/apps/hello").await.status, 200);
}
