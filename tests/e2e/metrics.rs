//! `/metrics`: Prometheus takes it, it counts every request once, and no client can write into it.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Metrics, Node, Request,
    artifacts::{Guest, says},
    block_on, eventually, holds,
    hyper_client::{Client, Protocol},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The labels of every metric (DESIGN §11).
const LABELS: &[(&str, &[&str])] = &[
    ("faas_requests_total", &["app", "code", "function", "version"]),
    ("faas_request_duration_seconds", &["app", "function"]),
    ("faas_instance_start_seconds", &[]),
    ("faas_cold_starts_total", &["app", "function"]),
    ("faas_instances_active", &["app", "function"]),
    ("faas_cpu_seconds_total", &["app", "function"]),
    ("faas_memory_peak_bytes", &["app", "function"]),
    ("faas_guest_failures_total", &["app", "function", "reason"]),
    ("faas_rejected_total", &["app", "reason"]),
    ("faas_response_bytes_total", &[]),
    ("faas_request_bytes_total", &[]),
    ("faas_compile_seconds", &[]),
    ("faas_deploys_total", &["result"]),
    ("faas_log_lines_dropped_total", &["app"]),
    ("faas_functions_loaded", &[]),
    ("faas_outbound_connections", &[]),
    ("faas_build_info", &["version"]),
];

fn text(node: &Node) -> String {
    node.api(Request::get("/metrics")).expect(200).text()
}

/// Requests that end in every way there is; how many they were.
struct Load<'a> {
    node: &'a Node,
    sent: BTreeMap<&'static str, u32>,
}

impl<'a> Load<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, sent: BTreeMap::new() }
    }

    /// A request that is answered with this class of status.
    #[track_caller]
    fn sends(&mut self, request: &Request, class: &'static str) {
        let answer = self.node.send(request);
        assert_eq!(format!("{}xx", answer.status / 100), class, "{request:?} {answer:?}");
        self.counts(class, 1);
    }

    fn counts(&mut self, class: &'static str, requests: u32) {
        *self.sent.entry(class).or_default() += requests;
    }

    fn of_every_kind(&mut self) {
        for guest in Guest::ALL {
            let app = guest.app();
            let path = |path: &str| format!("/{app}/{path}");
            self.sends(&Request::get(&path("hello")), "2xx");
            self.sends(&Request::new("HEAD", &path("hello")), "2xx");
            self.sends(&Request::get(&path("empty")), "2xx");
            self.sends(&Request::post(&path("echo"), "some bytes"), "2xx");
            self.sends(&Request::get(&path("status?code=304")), "3xx");
            self.sends(&Request::get(&path("status?code=418")), "4xx");
            self.sends(&Request::get(&path("status?code=503")), "5xx");
            self.sends(&Request::get(&path("trap")), "5xx");
            self.sends(&Request::get(&path("spin")), "5xx");
            self.sends(&Request::post(&path("length"), vec![b'x'; 2000]), "4xx");
            self.sends(&Request::get(&format!("/{app}")), "3xx");
            self.sends(&Request::get(&format!("/{app}@v9/hello")), "4xx");
        }
        self.sends(&Request::get("/nobody/secret-word"), "4xx");
        self.sends(&Request::get("/hello").header("host", "secret-word.localhost"), "4xx");
        self.sends(&Request::get("/").header("host", "no host"), "4xx");
        self.sends(&Request::new("TRACE", "/http03/hello"), "4xx");
        self.sends(&Request::get(&format!("/{}", "x".repeat(20_000))), "4xx");
        self.sends(&Request::get("/http03/hello").header("x", &"x".repeat(70_000)), "4xx");
        self.raw(b"nonsense\r\n\r\n");
        self.raw(b"GET /http03/hello HTTP/1.1\nhost: a\r\n\r\n");
        self.on_one_connection();
        self.over_http2();
    }

    /// Bytes that become no request, which are one all the same.
    fn raw(&mut self, bytes: &[u8]) {
        let mut connection = Connection::open(self.node.ingress());
        connection.write(bytes).unwrap();
        assert_eq!(connection.read_answer(false).unwrap().status, 400);
        self.counts("4xx", 1);
    }

    fn on_one_connection(&mut self) {
        let mut connection = Connection::open(self.node.ingress());
        for _ in 0..50 {
            connection.ask(&Request::get("/http02/hello")).expect(200);
        }
        for _ in 0..20 {
            connection.start(&Request::get("/http03/hello"));
        }
        for _ in 0..20 {
            assert_eq!(connection.read_answer(false).unwrap().status, 200);
        }
        self.counts("2xx", 70);
    }

    fn over_http2(&mut self) {
        block_on(async {
            let mut client = Client::open(self.node.ingress(), Protocol::Http2).await.unwrap();
            for (target, status) in [("/http03/hello", 200), ("/cgi01/trap", 500), ("/x/", 404)] {
                let answer = client.get("127.0.0.1", target).await.unwrap();
                assert_eq!(answer.status(), status, "{target}");
            }
        });
        for class in ["2xx", "4xx", "5xx"] {
            self.counts(class, 1);
        }
    }
}

#[test]
fn prometheus_takes_it() {
    let node = Node::with_guests("[limits]\ncpu_ms = 200\nrequest_body_bytes = 1000\n");
    node.deploy("fresh", &says("fresh"));
    // As it is at first, and with a series of everything.
    let fresh = text(&node);
    Load::new(&node).of_every_kind();
    for text in [fresh, text(&node)] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is missing (Debian: apt install prometheus)");
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let checked = promtool.wait_with_output().unwrap();
        let said = [checked.stdout, checked.stderr].concat();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
        assert_eq!(String::from_utf8_lossy(&said), "", "it has a remark");
    }
}

#[test]
fn every_request_is_counted_once() {
    let node = Node::with_guests("[limits]\ncpu_ms = 200\nrequest_body_bytes = 1000\n");
    assert_eq!(node.metrics().sum("faas_requests_total", &[]), 0.0);
    let mut load = Load::new(&node);
    load.of_every_kind();
    let total: u32 = load.sent.values().sum();
    let counted = |metrics: &Metrics| metrics.sum("faas_requests_total", &[]);
    // An answer may be here before its books are closed.
    eventually("every request is counted", PATIENCE, || {
        (counted(&node.metrics()) >= f64::from(total)).then_some(())
    });
    node.idle();
    let metrics = node.metrics();
    assert_eq!(counted(&metrics), f64::from(total));
    for (class, sent) in load.sent {
        let code = [("code", class)];
        assert_eq!(metrics.sum("faas_requests_total", &code), f64::from(sent), "{class}");
    }
    // The histogram has those that reached a function.
    let nowhere = metrics.sum("faas_requests_total", &[("app", "-")]);
    let timed = metrics.sum("faas_request_duration_seconds_count", &[]);
    assert_eq!(timed + nowhere, f64::from(total));
    // Neither probes nor the API are requests.
    holds("the number of requests", Duration::from_millis(200), || {
        node.api(Request::get("/v1/apps")).expect(200);
        counted(&node.metrics()) == f64::from(total)
    });
}

#[test]
fn labels_are_those_of_the_contract_and_no_text_of_anybody() {
    let node = Node::with_guests("[limits]\ncpu_ms = 200\nrequest_body_bytes = 1000\n");
    Load::new(&node).of_every_kind();
    node.get("/http03/panic").expect(500);
    node.try_deploy("secret-word", b"nonsense").expect(422);
    node.idle();
    let text = text(&node);
    assert!(!text.contains("secret-word") && !text.contains("xyzzy"), "{text}");
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("faas_")) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let is_part = |name: &&str| LABELS.iter().any(|(known, _)| known == name);
        let bare = ["_bucket", "_sum", "_count"].into_iter();
        let bare = bare.filter_map(|end| name.strip_suffix(end)).find(is_part).unwrap_or(name);
        let names = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
        seen.entry(bare).or_default().extend(names.map(|(name, _)| name).filter(|n| *n != "le"));
    }
    for (name, labels) in LABELS {
        let labels: BTreeSet<&str> = labels.iter().copied().collect();
        match seen.get(name) {
            Some(seen) => assert_eq!(*seen, labels, "{name}"),
            // Nothing was dropped, and a vector without a series says nothing.
            None => assert_eq!(*name, "faas_log_lines_dropped_total"),
        }
    }
    let metrics = Metrics::parse(&text);
    let values = |label: &str| metrics.label_values(label).into_iter().collect::<BTreeSet<_>>();
    let apps: BTreeSet<&str> = Guest::ALL.map(Guest::app).into_iter().chain(["-"]).collect();
    assert_eq!(values("app"), apps);
    assert_eq!(values("function"), BTreeSet::from(["-", "main"]));
    assert_eq!(values("code"), BTreeSet::from(["1xx", "2xx", "3xx", "4xx", "5xx"]));
    let known: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let reasons = values("reason");
    assert!(reasons.is_subset(&known), "{reasons:?}");
    for reason in ["guest_trap", "cpu_time", "body_too_large", "not_found", "bad_request"] {
        assert!(reasons.contains(reason), "{reason} is not among {reasons:?}");
    }
    let versions = values("version");
    let release = env!("CARGO_PKG_VERSION");
    assert_eq!(versions, BTreeSet::from(["-", release, "v1"]));
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(metrics.has(name), "{name}");
    }
}

#[test]
fn what_calls_cost() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let (app, function) = (("app", guest.app()), ("function", "main"));
        let sum = |name: &str| node.metrics().sum(name, &[app, function]);
        assert_eq!(sum("faas_cold_starts_total"), 0.0, "{guest:?}");
        for _ in 0..3 {
            node.get(&format!("/{}/grow?mib=24", guest.app())).expect(200);
        }
        node.idle();
        assert_eq!(sum("faas_cold_starts_total"), 1.0, "{guest:?}");
        assert!(sum("faas_memory_peak_bytes") >= f64::from(24 << 20), "{guest:?}");
        assert!(sum("faas_memory_peak_bytes") <= f64::from(128 << 20), "{guest:?}");
        assert!(sum("faas_cpu_seconds_total") > 0.0, "{guest:?}");
        assert_eq!(sum("faas_guest_failures_total"), 0.0, "{guest:?}");
        node.get(&format!("/{}/trap", guest.app())).failure(ErrorCode::GuestTrap);
        let traps = [app, function, ("reason", "guest_trap")];
        let traps = || node.metrics().sum("faas_guest_failures_total", &traps);
        eventually("the trap is counted", PATIENCE, || (traps() == 1.0).then_some(()));
    }
    let metrics = node.metrics();
    // One for each request, and perhaps one that is ready for the next.
    assert!(metrics.sum("faas_instance_start_seconds_count", &[]) >= 16.0);
    assert_eq!(metrics.sum("faas_functions_loaded", &[]), 4.0);
    assert_eq!(metrics.sum("faas_compile_seconds_count", &[]), 0.0, "it was compiled before");
    assert_eq!(metrics.sum("faas_build_info", &[]), 1.0);
}

#[test]
fn what_is_at_work_now() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let active = || node.metrics().sum("faas_instances_active", &[("app", guest.app())]);
        let mut connection = Connection::open(node.ingress());
        let path = format!("/{}/slow?pieces=1000&ms=100", guest.app());
        connection.start(&Request::get(&path));
        connection.read_head(false).unwrap();
        assert_eq!(active(), 1.0, "{guest:?}");
        drop(connection);
        eventually("the instance is gone", PATIENCE, || (active() == 0.0).then_some(()));
    }
}

#[test]
fn bytes_of_bodies() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let counted = |name: &str| node.metrics().sum(name, &[]);
        let (received, sent) =
            (counted("faas_request_bytes_total"), counted("faas_response_bytes_total"));
        let path = format!("/{}/echo", guest.app());
        node.send(&Request::post(&path, vec![b'x'; 300_000])).expect(200);
        eventually("all bytes are counted", PATIENCE, || {
            (counted("faas_request_bytes_total") == received + 300_000.0
                && counted("faas_response_bytes_total") == sent + 300_000.0)
                .then_some(())
        });
    }
}

#[test]
fn deploys_and_dropped_lines() {
    // Without a disk, or lines that were written in time would not be lost.
    let node = Node::with("[log]\nfunction_lines = 100\ndisk_bytes = 0\n");
    node.deploy("one", &says("one"));
    node.try_deploy("two", b"nonsense").expect(422);
    let metrics = node.metrics();
    assert_eq!(metrics.sum("faas_deploys_total", &[("result", "ok")]), 1.0);
    assert_eq!(metrics.sum("faas_deploys_total", &[("result", "rejected")]), 1.0);
    assert_eq!(metrics.sum("faas_compile_seconds_count", &[]), 1.0);
    let mut connection = Connection::open(node.ingress());
    for _ in 0..150 {
        connection.ask(&Request::get("/one/")).expect(200);
    }
    let dropped = || node.metrics().sum("faas_log_lines_dropped_total", &[("app", "one")]);
    eventually("displaced lines are counted", PATIENCE, || (dropped() >= 50.0).then_some(()));
    // A deleted app takes its series with it.
    node.api(Request::new("DELETE", "/v1/apps/one")).expect(204);
    let gone = || !node.metrics().label_values("version").contains(&"v1");
    eventually("its requests are forgotten", PATIENCE, || gone().then_some(()));
}
