//! What functions used: every request that ran counts once, under its version, whatever happens to
//! the node or the app afterwards.

use faas_api::{Usage, UsageReport, UsageRow, usage::CSV_HEADER};
use faas_tests::{
    Answer, Connection, Metrics, Node, Request,
    artifacts::{Guest, says},
    eventually,
};
use rustix::process::Signal;
use std::{
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);
const LIMITS: &str = "[limits]\ncpu_ms = 200\nrequest_body_bytes = 1000\n";

fn report(node: &Node, query: &str) -> UsageReport {
    let answer = node.api(Request::get(query)).expect(200);
    serde_json::from_slice(&answer.body).unwrap()
}

/// An app's usage once so many requests are counted: an answer may be here before its books are
/// closed.
#[track_caller]
fn settled(node: &Node, app: &str, requests: u64) -> Usage {
    let path = format!("/v1/apps/{app}/usage");
    eventually("the requests are counted", PATIENCE, || {
        node.idle();
        let total = report(node, &path).total;
        assert!(total.requests <= requests, "{total:?}");
        (total.requests == requests).then_some(total)
    })
}

/// What a client has sent and received.
#[derive(Default)]
struct Tally {
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Tally {
    #[track_caller]
    fn sends(&mut self, node: &Node, request: &Request, status: u16) -> Answer {
        let answer = node.send(request).expect(status);
        self.requests += 1;
        self.bytes_out += answer.body.len() as u64;
        answer
    }

    fn sends_body(&mut self, node: &Node, path: &str, body: &str, status: u16) {
        self.sends(node, &Request::post(path, body), status);
        self.bytes_in += body.len() as u64;
    }
}

#[test]
fn every_request_that_ran_counts_once() {
    let node = Node::with_guests(LIMITS);
    for guest in Guest::ALL {
        let app = guest.app();
        let path = |path: &str| format!("/{app}/{path}");
        let mut tally = Tally::default();
        for _ in 0..7 {
            tally.sends(&node, &Request::get(&path("hello")), 200);
        }
        for _ in 0..3 {
            tally.sends_body(&node, &path("echo"), "some bytes", 200);
        }
        tally.sends(&node, &Request::get(&path("empty")), 204);
        tally.sends(&node, &Request::new("HEAD", &path("hello")), 200);
        // What a function says of itself is no failure of it.
        tally.sends(&node, &Request::get(&path("status?code=503")), 503);
        for failing in ["trap", "panic"] {
            tally.sends(&node, &Request::get(&path(failing)), 500);
        }
        tally.sends(&node, &Request::get(&path("spin")), 504);
        // None of these reaches the function.
        node.send(&Request::post(&path("length"), vec![b'x'; 2000])).expect(413);
        node.get(&format!("/{app}")).expect(308);
        node.get(&format!("/{app}@v9/hello")).expect(404);
        let used = settled(&node, app, tally.requests);
        assert_eq!(used.failures, 3, "{guest:?}");
        assert_eq!((used.bytes_in, used.bytes_out), (tally.bytes_in, tally.bytes_out), "{guest:?}");
        assert_eq!(used.outbound_requests, 0);
        // One of them has used up what it may.
        assert!(used.cpu_ms >= 200.0, "{guest:?} {used:?}");
        assert!(used.gb_s > 0.0, "{guest:?} {used:?}");
    }
}

#[test]
fn what_breaks_off_and_who_goes_away_counts_too() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let app = guest.app();
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&format!("/{app}/half")));
        connection.read_answer(false).expect_err("it breaks off");
        assert_eq!(settled(&node, app, 1).failures, 1, "{guest:?}");
        // A client that goes away is no failure of the function.
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&format!("/{app}/slow?pieces=100000&ms=10&bytes=1000")));
        connection.read_head(false).unwrap();
        connection.reset();
        let used = settled(&node, app, 2);
        assert_eq!(used.failures, 1, "{guest:?}");
        assert!(used.bytes_out > 0, "{guest:?}");
    }
}

#[test]
fn many_at_once_all_count() {
    const CLIENTS: usize = 8;
    const EACH: usize = 60;
    let node = Node::with_guests("");
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let ingress = node.ingress();
            scope.spawn(move || {
                let mut connection = Connection::open(ingress);
                for _ in 0..EACH {
                    let app = Guest::ALL[client % Guest::ALL.len()].app();
                    connection.ask(&Request::post(&format!("/{app}/echo"), "12345")).expect(200);
                }
            });
        }
    });
    for guest in Guest::ALL {
        let requests = (CLIENTS / Guest::ALL.len() * EACH) as u64;
        let used = settled(&node, guest.app(), requests);
        assert_eq!((used.bytes_in, used.bytes_out), (5 * requests, 5 * requests), "{guest:?}");
    }
    let total = report(&node, "/v1/usage").total;
    assert_eq!((total.requests, total.failures), ((CLIENTS * EACH) as u64, 0));
}

#[test]
fn metrics_say_the_same() {
    let node = Node::with_guests(LIMITS);
    for guest in Guest::ALL {
        let path = |path: &str| format!("/{}/{path}", guest.app());
        for _ in 0..5 {
            node.get(&path("grow?mib=3")).expect(200);
            node.send(&Request::post(&path("echo"), "some bytes")).expect(200);
        }
        node.get(&path("trap")).expect(500);
        settled(&node, guest.app(), 11);
    }
    let total = report(&node, "/v1/usage").total;
    let metrics: Metrics = node.metrics();
    let sum = |name: &str| metrics.sum(name, &[]);
    assert_eq!(total.requests as f64, sum("faas_requests_total"));
    assert_eq!(total.failures as f64, sum("faas_guest_failures_total"));
    assert_eq!(total.bytes_in as f64, sum("faas_request_bytes_total"));
    assert_eq!(total.bytes_out as f64, sum("faas_response_bytes_total"));
    let cpu_ms = sum("faas_cpu_seconds_total") * 1000.0;
    assert!((total.cpu_ms - cpu_ms).abs() < 0.01, "{} {cpu_ms}", total.cpu_ms);
}

/// GB that a function held at most.
fn peak_gb(node: &Node, app: &str) -> f64 {
    node.metrics().sum("faas_memory_peak_bytes", &[("app", app)]) / f64::from(1 << 30)
}

#[test]
fn memory_is_counted_for_as_long_as_it_is_held() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let app = guest.app();
        let since = Instant::now();
        node.get(&format!("/{app}/sleep?ms=200")).expect(200);
        let used = settled(&node, app, 1);
        let (least, most) = (0.2, since.elapsed().as_secs_f64());
        let seconds = used.gb_s / peak_gb(&node, app);
        assert!(seconds > 0.99 * least && seconds < 1.01 * most, "{guest:?}: {seconds} of {most}");
    }
}

#[test]
fn requests_that_share_an_instance_share_its_memory() {
    const AT_ONCE: usize = 4;
    let node = Node::start();
    let deploy = "/v1/apps/shared/deploy?reuse_requests=1000&reuse_concurrency=100";
    let deploy = Request::new("POST", deploy).header("content-type", "application/wasm");
    node.api(deploy.body(Guest::Http03.wasm())).expect(201);
    // The instance is there before they come.
    node.get("/shared/hello").expect(200);
    let before = settled(&node, "shared", 1);
    let since = Instant::now();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| node.get("/shared/sleep?ms=300").expect(200));
        }
    });
    let used = settled(&node, "shared", 1 + AT_ONCE as u64);
    let most = since.elapsed().as_secs_f64();
    assert_eq!(node.metrics().sum("faas_instance_start_seconds_count", &[]), 1.0);
    let seconds = (used.gb_s - before.gb_s) / peak_gb(&node, "shared");
    assert!(seconds > 0.29 && seconds < 1.01 * most, "{seconds} of {most}");
}

#[test]
fn versions_are_told_apart_and_a_deleted_app_is_not_forgotten() {
    let node = Node::start();
    node.deploy("shop", &says("one"));
    node.get("/shop/").expect(200);
    node.deploy("shop", &says("two"));
    for path in ["/shop/", "/shop/", "/shop@v1/"] {
        node.get(path).expect(200);
    }
    settled(&node, "shop", 4);
    let by_version = |node: &Node| {
        let rows = report(node, "/v1/apps/shop/usage?group=version").rows;
        let row = |row: &UsageRow| (row.version.unwrap().number(), row.usage.requests);
        rows.iter().map(row).collect::<Vec<_>>()
    };
    assert_eq!(by_version(&node), [(1, 2), (2, 2)]);
    node.api(Request::new("DELETE", "/v1/apps/shop")).expect(204);
    assert_eq!(by_version(&node), [(1, 2), (2, 2)]);
    let apps = report(&node, "/v1/usage").rows;
    assert_eq!((apps.len(), apps[0].app.as_str(), apps[0].usage.requests), (1, "shop", 4));
    // Its name is taken again: the numbers of versions begin anew, those of usage do not.
    node.deploy("shop", &says("three"));
    node.get("/shop/").expect(200);
    settled(&node, "shop", 5);
    assert_eq!(by_version(&node), [(1, 3), (2, 2)]);
    node.api(Request::get("/v1/apps/nobody/usage")).expect(404);
    // An app that was never called has used nothing.
    node.deploy("fresh", &says("fresh"));
    assert_eq!(report(&node, "/v1/apps/fresh/usage").rows, []);
}

#[test]
fn nothing_is_lost_by_a_restart_and_little_by_a_crash() {
    let mut node = Node::start();
    node.deploy("app", &says("hello"));
    let get = |node: &Node, times: usize| {
        for _ in 0..times {
            node.get("/app/").expect(200);
        }
    };
    get(&node, 5);
    // Before anything is flushed, most likely.
    node.idle();
    node.restart();
    get(&node, 3);
    let before = settled(&node, "app", 8);
    // What was told is stored.
    node.kill();
    node.launch();
    assert_eq!(settled(&node, "app", 8), before);
    get(&node, 1);
    // The flush comes by itself.
    let database = || std::fs::read(node.data_dir().join("state.db-wal")).unwrap_or_default();
    let stored = database();
    eventually("the usage is flushed", PATIENCE, || (database() != stored).then_some(()));
    node.kill();
    node.launch();
    settled(&node, "app", 9);
    node.signal(Signal::TERM);
    assert!(node.wait().success());
}

#[test]
fn reports_divide_time_and_can_be_csv() {
    let node = Node::start();
    node.deploy("app", &says("hello"));
    for _ in 0..3 {
        node.get("/app/").expect(200);
    }
    let total = settled(&node, "app", 3);
    for by in ["hour", "day"] {
        let divided = report(&node, &format!("/v1/usage?by={by}&since=2d&group=version"));
        // The hour may turn while this runs.
        assert!((1..=2).contains(&divided.rows.len()), "{divided:?}");
        let requests: u64 = divided.rows.iter().map(|row| row.usage.requests).sum();
        assert_eq!((requests, divided.total), (3, total), "{by}");
        for UsageRow { start, .. } in &divided.rows {
            let start = start.unwrap();
            assert!(start >= divided.since && start < divided.until, "{divided:?}");
        }
    }
    let earlier = report(&node, "/v1/usage?since=2020-01-01&until=2020-02-01");
    assert_eq!((earlier.since.to_string(), earlier.rows.len()), ("2020-01-01T00:00:00Z".into(), 0));
    let path = "/v1/apps/app/usage?group=version";
    let accepting = node.api(Request::get(path).header("accept", "text/csv")).expect(200);
    let asked = node.api(Request::get(&format!("{path}&format=csv"))).expect(200);
    assert_eq!(accepting.text(), asked.text());
    assert!(asked.header("content-type").unwrap().starts_with("text/csv"));
    let rows = parse_csv(&asked.text());
    assert_eq!(rows[0].join(","), CSV_HEADER);
    assert_eq!(rows[1][..6], ["", "app", "main", "v1", "3", "0"]);
    assert_eq!(rows[1][6].parse::<f64>().unwrap(), total.cpu_ms);
    assert_eq!(rows[1][7].parse::<f64>().unwrap(), total.gb_s);
    assert_eq!(rows[1][9].parse::<u64>().unwrap(), total.bytes_out);
    for (query, status) in [
        ("since=soon", 400),
        ("since=1h&until=2h", 422),
        ("by=week", 400),
        ("group=tenant", 400),
        ("format=xml", 400),
        ("limit=3", 400),
    ] {
        node.api(Request::get(&format!("/v1/usage?{query}"))).expect(status);
    }
}

/// Rows of cells, as RFC 4180 has them; none of ours needs quotes.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    assert!(text.ends_with("\r\n") && !text.contains('"'), "{text}");
    let rows: Vec<Vec<String>> = text
        .split_terminator("\r\n")
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    rows
}

#[test]
fn the_command_shows_it() {
    let node = Node::start();
    node.deploy("shop", &says("hello"));
    for _ in 0..2 {
        node.get("/shop/").expect(200);
    }
    settled(&node, "shop", 2);
    let shown = node.cli(["usage", "shop"]).run();
    assert_eq!(shown.code, 0, "{shown:?}");
    let lines: Vec<&str> = shown.stdout.lines().map(str::trim).collect();
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(header, ["FUNCTION", "REQUESTS", "FAILED", "CPU", "MEMORY", "IN", "OUT"]);
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(cells[..4], ["main", "2", "0", "%"]);
    let json = node.cli(["usage", "-o", "json"]).run().json();
    assert_eq!(json["data"]["rows"][0]["app"], "shop");
    let csv = node.cli(["usage", "--csv", "--by", "day"]).run();
    assert_eq!(parse_csv(&csv.stdout)[1][4], "2");
    assert_eq!(node.cli(["usage", "nobody"]).run().code, 4);
}
