//! Connections that are kept and say nothing: they cost little, and the oldest make room for others.
//!
//! The suite keeps a few hundred; `FAAS_TEST_FULL=1` keeps 10,000, and 2,000 with TLS.

use crate::crowds::enough_files;
use faas_tests::{
    Connection, Node, Request,
    artifacts::says,
    block_on, eventually, figure, full,
    hyper_client::{Client, Protocol},
    process,
    tls::Authority,
};
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// What one of them may cost, in bytes.
const MOST: u64 = 64 << 10;
/// What the node's first ones cost besides, in bytes.
const KEPT: u64 = 8 << 20;
/// Places beside those of the crowd.
const SPARE: usize = 20;

fn settings(places: usize) -> String {
    format!(
        "[ingress]\naccess_log = \"off\"\nmax_connections = {places}\nkeep_alive_timeout_s = 3600\n"
    )
}

/// What each costs. Fewer in the suite, where what is fixed weighs more.
#[track_caller]
fn cost(what: &str, number: usize, before: u64, after: u64) {
    let each = after.saturating_sub(before) as f64 / number as f64 / 1024.0;
    figure(&format!("{number} × {what}: {each:.1} KiB each"));
    let most = KEPT + number as u64 * MOST;
    assert!(after.saturating_sub(before) < most, "{what}: {each:.1} KiB each");
}

/// Somebody else is served all the while.
fn beside<T>(node: &Node, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = scope.spawn(|| {
            let (mut asked, mut slowest) = (0, Duration::ZERO);
            while !done.load(SeqCst) {
                let start = Instant::now();
                node.get("/good/").expect(200);
                slowest = slowest.max(start.elapsed());
                asked += 1;
            }
            (asked, slowest)
        });
        // The others must not go on when this fails.
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, SeqCst);
        let (asked, slowest) = others.join().expect("the others are served");
        figure(&format!("{asked} others, the slowest in {slowest:?}"));
        assert!(slowest < PATIENCE);
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// One that was served, and is kept.
fn kept(node: &Node) -> Connection {
    let mut connection = Connection::open(node.ingress());
    connection.ask(&Request::get("/good/")).expect(200);
    connection
}

#[test]
fn the_oldest_make_room() {
    enough_files();
    let number = full(500, 10_000);
    let node = Node::with(&settings(number + SPARE));
    node.deploy("good", &says("good"));
    drop((0..SPARE).map(|_| kept(&node)).collect::<Vec<_>>());
    let before = process::resident_bytes(node.pid());
    let mut crowd: Vec<Connection> = beside(&node, || (0..number).map(|_| kept(&node)).collect());
    cost("kept and idle", number, before, process::resident_bytes(node.pid()));
    let room = || node.metrics().sum("faas_connections_rejected_total", &[("reason", "room")]);
    assert_eq!(room(), 0.0, "there was room for all");
    // More than there is room for: each is served, and stays.
    let more = full(100, 1000);
    let mut newcomers: Vec<Connection> = (0..more).map(|_| kept(&node)).collect();
    let mut is_gone = |connection: &mut Connection| {
        connection.set_patience(Duration::from_millis(1));
        connection.is_closed()
    };
    let open = || node.metrics().sum("faas_connections_open", &[]);
    eventually("they have left", PATIENCE, || (open() <= (number + SPARE) as f64).then_some(()));
    let gone: Vec<bool> = crowd.iter_mut().map(&mut is_gone).collect();
    let left = gone.iter().filter(|gone| **gone).count();
    let last = gone.iter().rposition(|gone| *gone).unwrap();
    figure(&format!("{left} made room for {more}; the youngest of them was number {last}"));
    assert!(left >= more - SPARE && room() >= (more - SPARE) as f64, "{left} left");
    // Some are asked at once, and those that were served in the same moment are of the same age.
    assert!(last < left + number / 10, "{last} left, and an older one did not");
    assert!(left < more + number / 4, "{left} left for {more}");
    for connection in crowd.iter_mut().rev().step_by(full(10, 50)).take(number / full(20, 100)) {
        connection.set_patience(PATIENCE);
        connection.ask(&Request::get("/good/")).expect(200);
    }
    for connection in &mut newcomers {
        connection.ask(&Request::get("/good/")).expect(200);
    }
    drop((crowd, newcomers));
    eventually("all have left", PATIENCE, || (open() == 0.0).then_some(()));
    node.get("/good/").expect(200);
}

#[test]
fn with_tls() {
    enough_files();
    let number = full(100, 2000);
    let authority = Authority::new();
    let mut node = Node::unstarted("");
    authority.issue(&["localhost"]).write(node.home());
    let folder = node.home().display();
    let tls = format!("[ingress.tls]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n");
    fs::write(node.home().join("config.toml"), settings(number) + &tls).unwrap();
    node.launch();
    node.deploy("good", &says("good"));
    let trust = authority.trust();
    let kept = async |protocol| {
        let mut client = Client::open_tls(node.ingress(), protocol, &trust).await.unwrap();
        assert_eq!(client.get("localhost", "/good/").await.unwrap().status(), 200);
        client
    };
    block_on(async {
        for protocol in Protocol::BOTH {
            drop(kept(protocol).await);
        }
        let mut crowd = Vec::new();
        for protocol in Protocol::BOTH {
            let before = process::resident_bytes(node.pid());
            for _ in 0..number / 2 {
                crowd.push(kept(protocol).await);
            }
            let after = process::resident_bytes(node.pid());
            cost(&format!("idle with TLS, {protocol:?}"), number / 2, before, after);
        }
        // A tenth more than there is room for.
        let mut newcomers = Vec::new();
        for _ in 0..number / 10 {
            newcomers.push(kept(Protocol::Http1).await);
        }
        let left = crowd.iter().take(number / 2).filter(|client| client.is_closed()).count();
        figure(&format!("{left} made room for {}", number / 10));
        assert!(left > 0);
        for client in crowd.iter_mut().skip(number / 2).chain(&mut newcomers) {
            assert!(!client.is_closed());
            assert_eq!(client.get("localhost", "/good/").await.unwrap().status(), 200);
        }
    });
}
