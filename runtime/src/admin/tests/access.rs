//! Who is let in, and from where.

use super::*;

/// Every documented operation with names filled in.
fn operations(node: &Node) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (path, item) in node.spec["paths"].as_object().unwrap() {
        let path = path.replace("{app}", "hello").replace("{version}", "v1");
        let methods = item.as_object().unwrap().keys();
        all.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
    }
    all
}

#[tokio::test]
async fn every_operation_needs_the_token_but_the_open_ones() {
    let mut node = Node::new().await;
    node.add("hello", true).await;
    for open_probes in [true, false] {
        node.config.open_probes = open_probes;
        for (method, path) in operations(&node) {
            let open = auth::is_open(&path, open_probes);
            for token in ["", "Bearer wrong", "Basic faas_c0ffee", "Bearer faas_c0ffe"] {
                let mut request = request(&method, &path);
                request.headers_mut().unwrap().remove("authorization");
                if !token.is_empty() {
                    request = request.header("authorization", token);
                }
                let answer = node.call(request.body(Body::empty()).unwrap()).await;
                if open {
                    assert_eq!(answer.status, 200, "{method} {path}");
                } else {
                    answer.error(ErrorCode::Unauthorized);
                    assert_eq!(answer.header("www-authenticate"), "Bearer");
                }
            }
        }
    }
    assert!(node.functions.get(&"hello".parse().unwrap()).await.is_ok(), "nothing was deleted");
}

#[tokio::test]
async fn without_a_token_every_address_looks_the_same() {
    let node = Node::new().await;
    let mut answers = Vec::new();
    for (method, target) in [
        ("GET", "/v1/apps"),
        ("GET", "/v1/apps/no-such-app"),
        ("GET", "/v1/apps/NOT%00A..NAME"),
        ("DELETE", "/v1/apps"),
        ("POST", "/v1/apps/a/deploy?what=1"),
        ("GET", "/"),
        ("GET", "/admin/../x"),
        ("OPTIONS", "*"),
        ("BREW", "/v1/openapi.json/"),
    ] {
        let mut request = request(method, target).body(Body::empty()).unwrap();
        request.headers_mut().remove("authorization");
        let answer = node.call(request).await;
        answer.error(ErrorCode::Unauthorized);
        let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort();
        answers.push((names, answer.body.replace(answer.header("x-request-id"), "")));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn requests_of_foreign_pages_are_refused_before_anything_else() {
    let node = Node::new().await;
    node.add("hello", true).await;
    for (name, value) in [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:8080"),
    ] {
        for (method, path) in operations(&node) {
            let mut request = request(&method, &path).body(Body::empty()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
            node.call(request).await.error(ErrorCode::Forbidden);
        }
    }
    let own = request("GET", "/v1/apps").header("origin", "http://localhost:8081");
    assert_eq!(node.call(own.body(Body::empty()).unwrap()).await.status, 200);
}

#[tokio::test]
async fn addresses_and_methods_that_are_none() {
    let node = Node::new().await;
    for target in ["/", "/v1", "/v1/", "/v1/apps/", "/v2/apps", "/metrics/x"] {
        node.ask("GET", target).await.error(ErrorCode::NotFound);
    }
    let nameless = node.ask("POST", "/v1/apps//deploy").await;
    nameless.error(ErrorCode::InvalidName);
    for (method, target, allow) in [
        ("DELETE", "/v1/apps", "GET,HEAD"),
        ("POST", "/v1/apps/hello", "GET,HEAD,DELETE"),
        ("GET", "/v1/apps/hello/deploy", "POST"),
        ("PUT", "/livez", "GET,HEAD"),
        ("OPTIONS", "/v1/apps", "GET,HEAD"),
        ("CONNECT", "/v1/apps", "GET,HEAD"),
    ] {
        let answer = node.ask(method, target).await;
        answer.error(ErrorCode::MethodNotAllowed);
        assert_eq!(answer.header("allow"), allow, "{method} {target}");
    }
}

#[tokio::test]
async fn probes_and_metrics() {
    let node = Node::new().await;
    node.metrics.deploy("ok");
    let answer = node.ask("GET", "/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    assert!(answer.body.contains(r#"faas_deploys_total{result="ok"} 1"#), "{}", answer.body);
    assert_eq!(node.ask("GET", "/livez").await.body, "ok\n");
    assert_eq!(node.ask("GET", "/readyz").await.body, "ready\n");
    assert_eq!(node.ask("HEAD", "/readyz").await.status, 200);

    let mut starting = Node::new().await;
    starting.readiness = Readiness::starting();
    let answer = starting.ask("GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("starting"), "{}", answer.body);

    node.readiness.draining();
    let answer = node.ask("GET", "/readyz").await;
    assert_eq!((answer.status.as_u16(), answer.body.starts_with("draining")), (503, true));
    assert_eq!(node.ask("GET", "/livez").await.status, 200);
}

#[tokio::test]
async fn the_description_is_served() {
    let node = Node::new().await;
    let answer = node.ask("GET", "/v1/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json(), node.spec);
}

/// What was logged while a test's future ran.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_each_cause_once_and_never_a_token() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let node = Node::new().await;
    node.add("hello", true).await;
    node.disk.mood.store(FAILS, Ordering::SeqCst);
    let failed = node.ask("GET", "/v1/apps").await;
    node.disk.mood.store(WORKS, Ordering::SeqCst);
    let boom = node.deploy("/v1/apps/hello/deploy", "boom").await;
    for (method, path) in operations(&node) {
        node.ask(&method, &path).await;
        let mut guess = request(&method, &path).body(Body::empty()).unwrap();
        let token = format!("Bearer {TOKEN}-guess").parse().unwrap();
        guess.headers_mut().insert("authorization", token);
        node.call(guess).await;
    }
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    for answer in [failed, boom] {
        let id = answer.header("x-request-id");
        let causes = log.lines().filter(|line| line.contains(id) && line.contains("/secret/path"));
        assert_eq!(causes.count(), 1, "{log}");
    }
    assert!(!log.contains(TOKEN), "{log}");
}
