//! Requests over real sockets, with a function of a few lines in place of what is deployed.

use super::{
    backend::{Asked, Backend, Found, Function, Missed},
    body::RequestBody,
    router::Key,
    *,
};
use crate::{
    engine::{Call, InvokeError},
    functions::{guard::Guard, keys::Keys},
    request_id::RequestId,
    storage::memory::MemoryRegistry,
    telemetry::{guest_logs::Event, metrics::FunctionMetrics},
};
use bytes::Bytes;
use faas_api::{AppName, ErrorBody, LogSource, VersionId};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Mutex,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    sync::Notify,
};

const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(60);

/// What the function did and what was written about it.
struct Seen {
    metrics: Arc<Metrics>,
    function: FunctionMetrics,
    log: Mutex<Vec<LogSource>>,
    logged: Notify,
    /// `/slow` or `/never` has begun.
    begun: Notify,
    /// Lets `/slow` answer.
    go: Notify,
}

struct Fake(Arc<Seen>);

struct FakeFunction(Arc<Seen>, AppName, HeaderValue);

type FakeBody = UnsyncBoxBody<Bytes, InvokeError>;

impl Function for FakeFunction {
    fn app(&self) -> &AppName {
        &self.1
    }

    fn version(&self) -> VersionId {
        VersionId::new(3)
    }

    fn version_header(&self) -> &HeaderValue {
        &self.2
    }

    fn body_limit(&self) -> u64 {
        1000
    }

    fn guard(&self) -> Option<&Arc<Guard>> {
        None
    }

    fn metrics(&self) -> &FunctionMetrics {
        &self.0.function
    }

    fn answered(&self, _: u16) {}

    fn log(&self, _: RequestId, _: jiff::Timestamp, event: Event<'_>) {
        self.0.log.lock().unwrap().push(event.source());
        self.0.logged.notify_one();
    }
}

impl Backend for Fake {
    type Function = FakeFunction;
    type Body = FakeBody;

    fn find(&self, asked: Asked<'_>) -> Result<Found<FakeFunction>, Missed> {
        let naming = Naming::new("localhost", true);
        let find = |key: Key<'_>| (key == Key::Name("app")).then_some(());
        let route = router::route(find, &naming, asked.host, asked.path)?;
        let function =
            FakeFunction(self.0.clone(), "app".parse().unwrap(), HeaderValue::from_static("v3"));
        Ok(Found { function, prefix: route.prefix, strip: 0, stay: None })
    }

    async fn invoke(
        &self,
        _: &FakeFunction,
        _: Call,
        request: Request<RequestBody>,
    ) -> Result<Response<FakeBody>, InvokeError> {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/see" => Ok(full(see(&request))),
            "/echo" => {
                let echo = |body: http_body_util::Collected<Bytes>| full(body.to_bytes());
                request.into_body().collect().await.map(echo).or_else(|_| Ok(full("read failed")))
            }
            "/trap-when-cut-off" => match request.into_body().collect().await {
                Ok(_) => Ok(full("all")),
                Err(error) => Err(InvokeError::Trap(format!("secret: {error}"))),
            },
            "/trap" => Err(InvokeError::Trap("secret".into())),
            "/busy" => Err(InvokeError::Overloaded { pool_size: 1, held: 1, queued: 2 }),
            "/panic" => panic!("secret"),
            "/never" => {
                self.0.begun.notify_one();
                std::future::pending().await
            }
            "/slow" => {
                self.0.begun.notify_one();
                self.0.go.notified().await;
                Ok(full("slow"))
            }
            "/stream" => Ok(streamed(vec![data("a"), data("b")], &[])),
            "/breaks" => Ok(streamed(vec![data("a"), Err(InvokeError::Exit(3))], &[])),
            "/short" => Ok(streamed(vec![data("ab")], &[("content-length", "3")])),
            "/long" => Ok(streamed(vec![data("ab"), data("cd")], &[("content-length", "3")])),
            "/exact" => Ok(streamed(vec![data("ab"), data("c")], &[("content-length", "3")])),
            "/lies" => Ok(with(full("ab"), &[("content-length", "3")])),
            "/speaks" => {
                Ok(with(full("x"), &[("x-faas-error", "internal"), ("connection", "close")]))
            }
            path => {
                let status: u16 = path[1..].parse().unwrap_or(200);
                let mut response = full(path.to_owned());
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(response)
            }
        }
    }
}

fn see(request: &Request<RequestBody>) -> String {
    let fields: BTreeMap<_, _> =
        request.headers().iter().map(|(k, v)| (k.as_str(), v.to_str().unwrap())).collect();
    format!("{} {} {fields:?}", request.method(), request.uri())
}

fn full(text: impl Into<Bytes>) -> Response<FakeBody> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync())
}

fn data(text: &'static str) -> Result<Frame<Bytes>, InvokeError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn streamed(
    pieces: Vec<Result<Frame<Bytes>, InvokeError>>,
    fields: &[(&'static str, &'static str)],
) -> Response<FakeBody> {
    with(Response::new(StreamBody::new(futures::stream::iter(pieces)).boxed_unsync()), fields)
}

fn with(
    mut response: Response<FakeBody>,
    fields: &[(&'static str, &'static str)],
) -> Response<FakeBody> {
    for (name, value) in fields {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response
}

async fn guards() -> Guards {
    let registry = Arc::new(MemoryRegistry::default());
    let (keys, _) = Keys::load(registry, &HashSet::new()).await.unwrap();
    Guards::new(&AuthConfig::default(), Arc::new(keys), Handle::current())
}

struct Node {
    address: SocketAddr,
    seen: Arc<Seen>,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start() -> Self {
        Self::with_patience(NEVER).await
    }

    async fn with_patience(body_idle: Duration) -> Self {
        let config = IngressConfig { access_log: AccessLog::Off, ..IngressConfig::default() };
        let metrics = Arc::new(Metrics::new().unwrap());
        let (app, function) = ("app".parse().unwrap(), "main".parse().unwrap());
        let seen = Arc::new(Seen {
            function: metrics.function(&app, &function, VersionId::new(3)),
            metrics: metrics.clone(),
            log: Mutex::default(),
            logged: Notify::new(),
            begun: Notify::new(),
            go: Notify::new(),
        });
        let common = Arc::new(common(&config, None).unwrap());
        let shared = Arc::new(Shared {
            backend: Fake(seen.clone()),
            books: Arc::new(Books {
                metrics,
                log: Log::new(config.access_log, true, std::io::sink()),
                cut: common.signals.cut.clone(),
            }),
            limits: RequestLimits { uri: 1000, headers: 20 },
            body_idle,
            default_host: HeaderValue::from_static("localhost"),
            scheme: "http",
            proxies: Proxies::new(&[]),
            guards: guards().await,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let switch = shutdown.clone();
        let limits = CrowdLimits { of_one_address: 0, connections: 10, burden: 1 << 20 };
        let crowd = Crowd::new(limits, Proxies::new(&[]), seen.metrics.connections.clone());
        let room = Room { slots: Arc::new(Semaphore::new(10)), crowd };
        let running = tokio::spawn(async move {
            let visitor = |peer| Visit::new(shared.clone(), peer);
            let accepting = accept::accept(listener, room, common.clone(), visitor);
            let afterwards = TaskTracker::new();
            let drain = Drain { delay: Duration::ZERO, patience: NEVER, afterwards };
            run(accepting, &common, drain, &switch).await;
        });
        Self { address, seen, shutdown, running }
    }

    /// Sends a request and reads everything until the server closes.
    async fn whole(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.client(request).await;
        let mut answer = Vec::new();
        let _ = soon(client.read_to_end(&mut answer)).await;
        String::from_utf8(answer).unwrap()
    }

    async fn client(&self, request: impl AsRef<[u8]>) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(request.as_ref()).await.unwrap();
        client
    }

    /// The answer to a request that is the last of its connection.
    async fn get(&self, path: &str, lines: &str) -> String {
        let host = if lines.contains("host:") { "" } else { "host: x\r\n" };
        self.whole(format!("GET {path} HTTP/1.1\r\n{host}connection: close\r\n{lines}\r\n")).await
    }

    /// Every counter that is not zero, without the process's own.
    fn counted(&self, name: &str) -> Vec<String> {
        let text = self.seen.metrics.render().unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.ends_with(" 0"));
        lines.map(|line| line[name.len()..].to_owned()).collect()
    }

    /// Waits for the account of a request that has no answer to wait for.
    async fn logged(&self) -> LogSource {
        loop {
            if let Some(source) = self.seen.log.lock().unwrap().pop() {
                return source;
            }
            soon(self.seen.logged.notified()).await;
        }
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("this takes too long")
}

fn post(path: &str, body: &str, lines: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{lines}\r\n{body}")
}

/// An error's code, by both of its places.
fn code(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name} in {answer}")).to_owned()
    };
    let body: ErrorBody = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    assert_eq!(body.code.as_str(), field("x-faas-error"));
    assert_eq!(body.request_id.unwrap(), field("x-request-id"));
    assert_eq!(field("content-type"), "application/problem+json");
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", body.status)), "{answer}");
    assert!(!answer.contains("secret"), "{answer}");
    body.code.as_str().to_owned()
}

#[tokio::test]
async fn a_function_sees_its_own_paths_and_what_the_node_says_of_the_client() {
    let node = Node::start().await;
    let answer = node
        .get("/app/see?q=1", "x-forwarded-for: 6.6.6.6\r\nx-faas-x: 1\r\nx-request-id: mine\r\n")
        .await;
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(body.starts_with("GET /see?q=1 "), "{answer}");
    for field in [
        r#""host": "x""#,
        r#""x-forwarded-for": "127.0.0.1""#,
        r#""x-forwarded-host": "x""#,
        r#""x-forwarded-prefix": "/app""#,
        r#""x-forwarded-proto": "http""#,
    ] {
        assert!(body.contains(field), "{field} {body}");
    }
    let id = answer.split_once("x-request-id: ").unwrap().1.split_once("\r\n").unwrap().0;
    assert!(body.contains(&format!(r#""x-request-id": "{id}""#)), "{answer}");
    assert!(!body.contains("mine") && !body.contains("x-faas-x") && !body.contains("connection"));
    assert!(answer.contains("x-faas-version: v3\r\n"), "{answer}");
    let by_host = node.get("/see", "host: APP.localhost:1\r\n").await;
    assert!(by_host.contains("GET /see ") && !by_host.contains("prefix"), "{by_host}");
    let old = node.whole("GET /app/see HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(r#""host": "localhost""#), "{old}");
}

#[tokio::test]
async fn what_names_no_function_has_its_code() {
    let node = Node::start().await;
    for (path, lines, expected) in [
        ("/", "", "not_found"),
        ("/nothing/x", "", "not_found"),
        ("/%61pp/x", "", "not_found"),
        ("/app/x", "host: a, b\r\n", "bad_request"),
        ("/app/x", "host: x\r\nhost: x\r\n", "bad_request"),
        ("http://y/app/x", "host: x\r\n", "bad_request"),
        ("*", "", "bad_request"),
        (&format!("/app/{}", "x".repeat(1000)), "", "uri_too_long"),
        ("/app/x", &"a: b\r\n".repeat(20), "headers_too_large"),
        ("/app/x", "a: b\nc: d\r\n", "bad_request"),
    ] {
        assert_eq!(code(&node.get(path, lines).await), expected, "{path} {lines}");
    }
    let trace = node.whole("TRACE /app/x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(code(&trace), "method_not_allowed");
    assert!(trace.contains("allow: GET, ") && trace.contains("connection: close\r\n"), "{trace}");
    assert_eq!(
        node.counted("faas_requests_total"),
        [r#"{app="-",code="4xx",function="-",version="-"} 11"#]
    );
    assert_eq!(node.counted("faas_rejected_total{app=\"-\"").len(), 5);
}

#[tokio::test]
async fn an_app_without_a_slash_is_sent_to_one() {
    let node = Node::start().await;
    let answer = node.get("/app?a=b", "").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(answer.contains("location: /app/?a=b\r\n"), "{answer}");
    assert!(answer.contains("content-length: 0\r\n"), "{answer}");
}

#[tokio::test]
async fn a_failure_has_its_code_and_keeps_its_text_to_itself() {
    let node = Node::start().await;
    for (path, expected) in [
        ("/app/trap", "guest_trap"),
        ("/app/busy", "overloaded"),
        ("/app/panic", "internal"),
        ("/app/100", "bad_response"),
        ("/app/101", "bad_response"),
        ("/app/lies", "bad_response"),
    ] {
        let answer = node.get(path, "").await;
        assert_eq!(code(&answer), expected, "{path}");
        assert!(answer.contains("x-faas-version: v3\r\n"), "{answer}");
        assert_eq!(answer.contains("retry-after: 1\r\n"), expected == "overloaded");
    }
    let failures = node.counted("faas_guest_failures_total");
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert_eq!(node.counted("faas_rejected_total").len(), 2);
    let log = node.seen.log.lock().unwrap();
    let told = |text: &str| {
        let is = |source: &&LogSource| matches!(source, LogSource::Failure { message } if message.contains(text));
        log.iter().filter(is).count()
    };
    assert_eq!((told("secret"), told("content-length: 3"), told("status 101")), (2, 1, 1));
    assert_eq!(log.len(), 12);
}

#[tokio::test]
async fn one_connection_serves_on_after_failures_and_small_bodies() {
    let node = Node::start().await;
    let requests = [
        post("/app/panic", "x", ""),
        post("/nothing/x", "x", ""),
        post("/app/ignored", "x", ""),
        post("/app/echo", "hello", ""),
        "HEAD /app/see HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "HEAD /nothing HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /app/204 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /app/304 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /app/stream HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /app/exact HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /app/last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
    ];
    let answers = node.whole(requests.concat()).await;
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|a| &a[..3]).collect();
    assert_eq!(
        statuses,
        ["500", "404", "200", "200", "200", "404", "204", "304", "200", "200", "200"],
        "{answers}"
    );
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
    assert!(answers.ends_with("/last"), "{answers}");
    let of = |index: usize| answers.split("HTTP/1.1 ").nth(index + 1).unwrap();
    assert!(of(4).ends_with("\r\n\r\n") && !of(4).contains("content-length: 0"), "{}", of(4));
    assert!(of(6).ends_with("\r\n\r\n") && !of(6).contains("content-length"), "{}", of(6));
    assert!(of(7).ends_with("\r\n\r\n"), "{}", of(7));
    assert!(of(8).ends_with("1\r\na\r\n1\r\nb\r\n0\r\n\r\n"), "{}", of(8));
    assert!(of(9).contains("content-length: 3") && of(9).ends_with("abc"), "{}", of(9));
}

#[tokio::test]
async fn a_body_that_does_not_keep_its_word_ends_the_connection() {
    let node = Node::start().await;
    for (path, sent) in [("/app/short", "ab"), ("/app/long", "ab"), ("/app/breaks", "1\r\na\r\n")] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = node.whole(request.repeat(2)).await;
        // What was not sent yet when the guest failed may be lost with it.
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(sent.starts_with(body), "{path} {body:?}");
    }
    assert_eq!(
        node.counted("faas_guest_failures_total"),
        [
            r#"{app="app",function="main",reason="bad_response"} 2"#,
            r#"{app="app",function="main",reason="guest_exit"} 1"#,
        ]
    );
    assert_eq!(
        node.counted("faas_requests_total"),
        [r#"{app="app",code="2xx",function="main",version="v3"} 3"#]
    );
}

#[tokio::test]
async fn a_guest_cannot_speak_for_the_node() {
    let node = Node::start().await;
    let get = "GET /app/speaks HTTP/1.1\r\nhost: x\r\n\r\n";
    let answers = node
        .whole(get.to_owned() + &get.replace("x\r\n\r\n", "x\r\nconnection: close\r\n\r\n"))
        .await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert!(!answers.contains("x-faas-error"), "{answers}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_or_when_it_gets_there() {
    let node = Node::start().await;
    let large = "x".repeat(1001);
    let declared = node.whole(post("/app/echo", &large, "connection: close\r\n")).await;
    assert_eq!(code(&declared), "body_too_large");
    for path in ["/app/echo", "/app/trap-when-cut-off"] {
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{large}"
        );
        assert_eq!(code(&node.whole(chunked).await), "body_too_large", "{path}");
    }
    let fits = node.whole(post("/app/echo", &"y".repeat(1000), "connection: close\r\n")).await;
    assert!(fits.ends_with("yyy"));
    assert_eq!(node.counted("faas_guest_failures_total"), Vec::<String>::new());
    assert_eq!(node.counted("faas_rejected_total"), [r#"{app="app",reason="body_too_large"} 1"#]);
    assert_eq!(node.counted("faas_request_bytes_total "), ["3002"]);
}

#[tokio::test]
async fn a_body_whose_framing_is_broken_is_a_bad_request_whatever_the_function_makes_of_it() {
    let node = Node::start().await;
    for path in ["/app/echo", "/app/trap-when-cut-off"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        let answer = node.whole(head + "0x5\r\nhello\r\n0\r\n\r\n").await;
        assert_eq!(code(&answer), "bad_request", "{path}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    assert_eq!(node.counted("faas_guest_failures_total"), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_pauses_is_given_up() {
    let node = Node::with_patience(SOON).await;
    let head = "POST /app/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab";
    let answer = node.whole(head).await;
    assert_eq!(code(&answer), "request_timeout");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_whose_body_nobody_reads_is_told_to_close() {
    let node = Node::start().await;
    let head = "POST /app/ignored HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n";
    let answer = node.whole(head).await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("/ignored"), "{answer}");
}

#[tokio::test]
async fn every_request_is_counted_once_however_it_ends() {
    let node = Node::start().await;
    let client = node.client("GET /app/never HTTP/1.1\r\nhost: x\r\n\r\n").await;
    soon(node.seen.begun.notified()).await;
    client.set_zero_linger().unwrap();
    drop(client);
    match node.logged().await {
        LogSource::Request { status: 499, code, path, .. } => {
            assert_eq!((code.as_deref(), path.as_str()), (Some("client_closed"), "/never"));
        }
        other => panic!("{other:?}"),
    }
    node.get("/app/200", "").await;
    node.get("/app/503", "").await;
    node.get("/nothing", "").await;
    assert_eq!(
        node.counted("faas_requests_total"),
        [
            r#"{app="-",code="4xx",function="-",version="-"} 1"#,
            r#"{app="app",code="2xx",function="main",version="v3"} 1"#,
            r#"{app="app",code="4xx",function="main",version="v3"} 1"#,
            r#"{app="app",code="5xx",function="main",version="v3"} 1"#,
        ]
    );
    assert_eq!(
        node.counted("faas_request_duration_seconds_count"),
        [r#"{app="app",function="main"} 3"#]
    );
}

#[tokio::test]
async fn a_drain_loses_nothing_and_a_stop_cuts_off() {
    let node = Node::start().await;
    let mut slow = node.client("GET /app/slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    soon(node.seen.begun.notified()).await;
    let never = node.client("GET /app/never HTTP/1.1\r\nhost: x\r\n\r\n").await;
    soon(node.seen.begun.notified()).await;
    node.shutdown.drain();
    // The connection learns of it before the answer is there.
    tokio::time::sleep(SOON).await;
    node.seen.go.notify_one();
    let mut answer = String::new();
    soon(slow.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("slow") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(!node.running.is_finished());
    node.shutdown.stop();
    soon(node.running).await.unwrap();
    drop(never);
    let log = node.seen.log.lock().unwrap();
    let cut = |source: &LogSource| matches!(source, LogSource::Request { status: 503, code: Some(code), .. } if code == "shutting_down");
    assert!(log.iter().any(cut), "{log:?}");
}

#[test]
fn the_defaults_are_valid_and_nonsense_is_not() {
    assert!(IngressConfig::default().validate().is_ok());
    let changes: [fn(&mut IngressConfig); 6] = [
        |c| c.head_timeout_s = 0,
        |c| c.max_headers = 0,
        |c| c.max_uri_bytes = 70_000,
        |c| c.max_header_bytes = 10,
        |c| c.base_domain = "a/b".to_owned(),
        |c| c.base_domain = ".".to_owned(),
    ];
    for change in changes {
        let mut config = IngressConfig::default();
        change(&mut config);
        assert!(config.validate().is_err(), "{config:?}");
    }
}
