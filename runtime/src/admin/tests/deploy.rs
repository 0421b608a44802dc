//! Deploys: what is taken, what is told, and what a client that leaves leaves behind.

use super::*;
use serde_json::json;

const TARGET: &str = "/v1/apps/hello/deploy";

/// The events of an answer in JSON lines.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.body.ends_with('\n'));
    let lines = answer.body.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn streamed(target: &str, body: impl Into<Body>) -> Request<Body> {
    let request = request("POST", target)
        .header("accept", "text/html, application/x-ndjson;q=0.9")
        .header("content-type", "application/wasm");
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_deploy_answers_with_the_version() {
    let node = Node::new().await;
    let answer = node.deploy(TARGET, WASM).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), "/v1/apps/hello/versions/v1");
    let deployed = answer.json();
    assert_eq!(deployed["version"], "v1");
    assert_eq!(deployed["active"], true);
    assert_eq!(deployed["digest"], Digest::of(WASM.as_bytes()).to_string());

    let target = format!("{TARGET}?function=api&activate=false&message=checkout%3A+new%20totals");
    let deployed = node.deploy(&target, WASM).await.json();
    assert_eq!((&deployed["function"], &deployed["active"]), (&json!("api"), &json!(false)));
    let version = node.ask("GET", "/v1/apps/hello/versions/v2").await.json();
    assert_eq!(version["message"], "checkout: new totals");
    assert_eq!(version["created_by"], "admin");
    assert_eq!(version["live_percent"], 0);
}

#[tokio::test]
async fn steps_are_told_as_they_happen() {
    let node = Node::new().await;
    let steps = events(&node.call(streamed(TARGET, WASM)).await);
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0]["event"], "received");
    assert_eq!(steps[0]["size"], WASM.len());
    assert_eq!(steps[1]["event"], "done");
    assert_eq!(steps[1]["version"], "v1");

    // The first step is told before the second is taken.
    node.deployer.go.forget_permits(1000);
    let mut body = node.open(streamed(TARGET, WASM)).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"{\"event\":\"received\""), "{first:?}");
    node.deployer.go.add_permits(1);
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(rest.starts_with(b"{\"event\":\"done\""), "{rest:?}");
}

#[tokio::test]
async fn a_failed_deploy_says_why_and_a_platform_failure_does_not() {
    let node = Node::new().await;
    let body = node.deploy(TARGET, "bad").await.error(ErrorCode::InvalidWasm);
    assert_eq!(body.detail.as_deref(), Some("not Wasm"));
    let answer = node.call(streamed(TARGET, "bad")).await;
    assert_eq!(answer.status, 200);
    let steps = events(&answer);
    let last = steps.last().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&json!("failed"), &json!("invalid_wasm")));
    assert_eq!(last["request_id"], answer.header("x-request-id"));
    for broken in ["boom", "panic"] {
        let body = node.deploy(TARGET, broken).await.error(ErrorCode::Internal);
        assert_eq!(body.detail, None);
        let steps = events(&node.call(streamed(TARGET, broken)).await);
        let last = steps.last().unwrap();
        assert_eq!((&last["code"], &last["detail"]), (&json!("internal"), &Value::Null));
    }
}

#[tokio::test]
async fn content_types() {
    let node = Node::new().await;
    for kind in [
        "application/wasm",
        "Application/WASM; x=y",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    ] {
        assert_eq!(node.send("POST", TARGET, kind, WASM).await.status, 201, "{kind}");
    }
    let without = request("POST", TARGET).body(WASM.into()).unwrap();
    assert_eq!(node.call(without).await.status, 201);
    for kind in ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "wasm"] {
        let answer = node.send("POST", TARGET, kind, WASM).await;
        answer.error(ErrorCode::UnsupportedMediaType);
    }
    let encoded = request("POST", TARGET).header("content-encoding", "gzip");
    let answer = node.call(encoded.body(WASM.into()).unwrap()).await;
    answer.error(ErrorCode::UnsupportedMediaType);
}

#[tokio::test]
async fn queries() {
    let node = Node::new().await;
    for bad in ["activ=false", "activate=no", "activate=", "activate", "function=a&function=b"] {
        let answer = node.deploy(&format!("{TARGET}?{bad}"), WASM).await;
        let body = answer.error(ErrorCode::BadRequest);
        assert!(body.detail.unwrap().starts_with("query: "));
    }
    let body = node.deploy(&format!("{TARGET}?activ=1"), WASM).await.error(ErrorCode::BadRequest);
    let detail = body.detail.unwrap();
    assert!(detail.contains("unknown field `activ`, expected one of `function`"), "{detail}");
    for bad in ["Main", "a--b", "", "..%2Fx", "%00"] {
        let answer = node.deploy(&format!("{TARGET}?function={bad}"), WASM).await;
        answer.error(ErrorCode::InvalidName);
    }
    let long = "x".repeat(1025);
    for bad in ["a%0Ab", "%1b[31m", &long] {
        let answer = node.deploy(&format!("{TARGET}?message={bad}"), WASM).await;
        answer.error(ErrorCode::Unprocessable);
    }
    assert_eq!(node.deploy(&format!("{TARGET}?message="), WASM).await.status, 201);
}

#[tokio::test]
async fn an_artifact_over_the_limit() {
    let mut node = Node::new().await;
    // Announced: the body is not touched.
    let untouched = Body::from_stream(futures::stream::poll_fn(
        |_| -> std::task::Poll<Option<Result<Bytes, std::io::Error>>> {
            panic!("the body was read")
        },
    ));
    let sized = Sized(untouched, 1001);
    let request = request("POST", TARGET).body(Body::new(sized)).unwrap();
    node.call(request).await.error(ErrorCode::BodyTooLarge);
    // Not announced: it ends where the limit is.
    for request in [chunked(&["x"; 600]), {
        let mut request = chunked(&["xxx"; 400]);
        request.headers_mut().insert("content-type", "application/wasm".parse().unwrap());
        request
    }] {
        let whole = request.headers().get("content-type").is_none();
        let answer = node.call(request).await;
        let upload = node.uploads.recv().await.unwrap();
        if whole {
            assert_eq!((answer.status.as_u16(), upload), (201, Ok(600)));
        } else {
            answer.error(ErrorCode::BodyTooLarge);
            upload.unwrap_err();
        }
    }
    let mut request = chunked(&["xxx"; 400]);
    request.headers_mut().insert("accept", "application/x-ndjson".parse().unwrap());
    let steps = events(&node.call(request).await);
    assert_eq!(steps.last().unwrap()["code"], "body_too_large");
}

/// A deploy whose length is not announced.
fn chunked(pieces: &'static [&'static str]) -> Request<Body> {
    let pieces = futures::stream::iter(pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece)));
    request("POST", TARGET).body(Body::from_stream(pieces)).unwrap()
}

/// A body that says how long it is.
struct Sized(Body, u64);

impl http_body::Body for Sized {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn an_upload_that_is_not_whole_is_never_taken_for_shorter() {
    let mut node = Node::new().await;
    node.patience.body = Duration::from_millis(20);
    let piece = || futures::stream::iter([Ok("some")]);
    let broken = futures::stream::iter([Err(std::io::Error::other("gone"))]);
    let silent = futures::stream::pending();
    for (body, code) in [
        (Body::from_stream(piece().chain(broken)), ErrorCode::BadRequest),
        (Body::from_stream(piece().chain(silent)), ErrorCode::RequestTimeout),
        (Body::new(Sized(Body::from("some"), 5)), ErrorCode::BadRequest),
    ] {
        let request = request("POST", TARGET).body(body).unwrap();
        node.call(request).await.error(code);
        node.uploads.recv().await.unwrap().unwrap_err();
    }
    assert!(node.functions.get(&"hello".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_deploy_finishes_without_its_client_once_its_upload_is_complete() {
    let mut node = Node::new().await;
    node.deployer.go.forget_permits(1000);
    for accept in ["application/json", "application/x-ndjson"] {
        let request = request("POST", TARGET).header("accept", accept);
        let api = Arc::new(serve::api(node.admin(), node.shutdown.clone()));
        let gate = Gate::new(api, [127, 0, 0, 1].into());
        let request = request.body(WASM.into()).unwrap();
        let client = tokio::spawn(async move { gate.answer(request).await });
        assert_eq!(node.uploads.recv().await.unwrap(), Ok(WASM.len()));
        client.abort();
        let _ = client.await;
        node.deployer.go.add_permits(1);
        assert_eq!(node.done.recv().await.unwrap(), "hello");
    }
    let (record, _) = node.functions.get(&"hello".parse().unwrap()).await.unwrap();
    assert_eq!(record.versions.len(), 2);
}

#[tokio::test]
async fn a_node_that_stops_takes_no_new_deploys() {
    let node = Node::new().await;
    node.readiness.draining();
    let answer = node.deploy(TARGET, WASM).await;
    answer.error(ErrorCode::ShuttingDown);
    assert_eq!(answer.header("retry-after"), "1");
    let node = Node::new().await;
    node.shutdown.drain();
    node.deploy(TARGET, WASM).await.error(ErrorCode::ShuttingDown);
}
