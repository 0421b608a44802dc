//! SIGTERM drains, a second signal does not wait.

use faas_api::ErrorCode;
use faas_tests::{
    Answer, Connection, Node, Request,
    artifacts::{Guest, says},
    block_on, eventually,
    hyper_client::{Client, Protocol, collect, empty},
};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::Signal,
};
use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the node says of itself; a probe needs no token.
fn probe(node: &Node, path: &str) -> Option<Answer> {
    let mut connection = Connection::try_open(node.admin()).ok()?;
    connection.start(&Request::get(path));
    connection.read_answer(false).ok()
}

fn wait_until_draining(node: &Node) {
    eventually("/readyz is 503", PATIENCE, || {
        probe(node, "/readyz").filter(|answer| answer.status == 503)
    });
}

/// Reads what is left of a body.
fn rest(connection: &mut Connection) -> std::io::Result<Vec<u8>> {
    let (mut body, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match connection.read_body(&mut piece)? {
            0 => return Ok(body),
            length => body.extend_from_slice(&piece[..length]),
        }
    }
}

/// Answers that have begun, one of each kind.
fn begun(node: &Node, target: &str) -> Vec<Connection> {
    let open = |guest: Guest| {
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&format!("/{}{target}", guest.app())));
        assert_eq!(connection.read_head(false).unwrap().status, 200, "{guest:?}");
        connection
    };
    Guest::ALL.map(open).into_iter().collect()
}

#[test]
fn what_is_in_flight_finishes() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Node::with_guests("");
        assert_eq!(probe(&node, "/readyz").unwrap().status, 200);
        let mut streams = begun(&node, "/slow?pieces=30&ms=100&bytes=10");
        // And one that has no head yet.
        let mut slept = Connection::open(node.ingress());
        slept.start(&Request::get("/http03/sleep?ms=2500"));
        let active = || node.metrics().sum("faas_instances_active", &[]);
        eventually("all are at work", PATIENCE, || (active() == 5.0).then_some(()));
        node.signal(signal);
        wait_until_draining(&node);
        // It lives, it can be looked at, and it takes nothing new.
        assert_eq!(probe(&node, "/livez").unwrap().status, 200);
        assert!(active() > 0.0, "the drain came too late for this test");
        eventually("nobody listens", PATIENCE, || {
            Connection::try_open(node.ingress()).is_err().then_some(())
        });
        node.try_deploy("late", &says("late")).failure(ErrorCode::ShuttingDown);
        for stream in &mut streams {
            let body = rest(stream).unwrap();
            assert_eq!(body.len(), 300);
            assert_eq!(body[290..], *b"efghijklmn");
            assert!(stream.is_closed());
        }
        let answer = slept.read_answer(false).unwrap();
        assert_eq!(answer.text(), "slept\n");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(slept.is_closed());
        assert_eq!(node.wait().code(), Some(0));
    }
}

#[test]
fn http2_streams_finish_too() {
    let mut node = Node::with_guests("");
    block_on(async {
        let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
        let target = "/http03/slow?pieces=20&ms=100&bytes=10";
        let request = client.request("GET", "127.0.0.1", target, empty());
        let response = client.send(request).await.unwrap();
        node.signal(Signal::TERM);
        wait_until_draining(&node);
        assert_eq!(collect(response).await.unwrap().body().len(), 200);
        // Asked while hyper finds out that the connection ends, it may never answer.
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(client.get("127.0.0.1", "/http03/hello").await.is_err(), "it said goodbye");
    });
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn nothing_in_flight_means_no_wait() {
    let mut node = Node::with_guests("");
    let mut idle: Vec<Connection> = (0..5).map(|_| Connection::open(node.ingress())).collect();
    for connection in &mut idle[1..] {
        connection.ask(&Request::get("/http02/hello")).expect(200);
    }
    let mut admin = Connection::open(node.admin());
    admin.ask(&Request::get("/livez")).expect(200);
    let asked = Instant::now();
    node.signal(Signal::TERM);
    for connection in &mut idle {
        assert!(connection.is_closed());
    }
    assert!(admin.is_closed());
    assert_eq!(node.wait().code(), Some(0));
    // The grace period is 30 seconds.
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[test]
fn a_request_that_has_begun_to_arrive_is_answered() {
    let mut node = Node::with_guests("");
    let mut head = Connection::open(node.ingress());
    head.write(b"GET /http03/hello HTTP/1.1\r\nhost: a\r\n").unwrap();
    let mut body = Connection::open(node.ingress());
    body.write(b"POST /http03/length HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab").unwrap();
    let active = || node.metrics().sum("faas_instances_active", &[]);
    eventually("the second one is at work", PATIENCE, || (active() == 1.0).then_some(()));
    node.signal(Signal::TERM);
    wait_until_draining(&node);
    head.write(b"\r\n").unwrap();
    body.write(b"cd").unwrap();
    assert_eq!(head.read_answer(false).unwrap().expect(200).text(), "hello\n");
    assert_eq!(body.read_answer(false).unwrap().expect(200).text(), "4\n");
    assert!(head.is_closed() && body.is_closed());
    assert_eq!(node.wait().code(), Some(0));
}

/// Whoever has not looked at the probe yet is still served.
#[test]
fn new_connections_are_taken_for_a_while() {
    let mut node = Node::with_guests("[ingress]\ndrain_delay_s = 600\n");
    let mut kept = Connection::open(node.ingress());
    node.signal(Signal::TERM);
    wait_until_draining(&node);
    for _ in 0..3 {
        node.get("/http03/hello").expect(200);
        kept.start(&Request::get("/http02/hello"));
        kept.read_answer(false).unwrap().expect(200);
    }
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(130));
}

#[test]
fn the_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut node = Node::with_guests("");
        let mut streams = begun(&node, "/slow?pieces=1000&ms=100");
        node.signal(Signal::TERM);
        wait_until_draining(&node);
        let asked = Instant::now();
        node.signal(second);
        let status = node.wait();
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        assert_eq!(status.code(), Some(130));
        for stream in &mut streams {
            assert!(rest(stream).is_err(), "half an answer must not look whole");
        }
    }
}

#[test]
fn the_grace_period_ends() {
    let mut node = Node::with_guests("[ingress]\ndrain_timeout_s = 1\n");
    let mut streams = begun(&node, "/slow?pieces=1000&ms=100");
    node.signal(Signal::TERM);
    let status = node.wait();
    for stream in &mut streams {
        assert!(rest(stream).is_err(), "half an answer must not look whole");
    }
    assert!(status.code().is_some(), "{status}");
    assert!(node.log().contains("drain_timeout_s"), "the log names the limit");
}

#[test]
fn a_deploy_under_way_is_kept() {
    let mut node = Node::start();
    let wasm = says("kept");
    let request = Node::deploy_request("kept", &wasm)
        .header("authorization", &format!("Bearer {}", node.token()));
    let bytes = request.to_bytes(node.admin());
    let mut upload = Connection::open(node.admin());
    let (first, last) = bytes.split_at(bytes.len() - 10);
    upload.write(first).unwrap();
    let begun = || (!node.files("blobs/tmp").is_empty()).then_some(());
    eventually("the node stores it", PATIENCE, begun);
    node.signal(Signal::TERM);
    wait_until_draining(&node);
    upload.write(last).unwrap();
    upload.read_answer(false).unwrap().expect(201);
    assert_eq!(node.wait().code(), Some(0));
    node.launch();
    assert_eq!(node.get("/kept/").expect(200).text().trim(), "kept");
}

/// What reads the node's log may stop doing so: lines are lost, and nothing else.
#[test]
fn nobody_reads_the_log() {
    let mut node = Node::unstarted("");
    let log = node.log_file();
    mkfifoat(CWD, &log, Mode::from_raw_mode(0o600)).unwrap();
    // Its other end, so that it is full at some time, and never closed.
    let _unread = File::options().read(true).write(true).open(&log).unwrap();
    node.launch();
    fs::remove_file(&log).unwrap();
    // Both logs of the node get there: that of requests, and its own.
    for number in 0..100 {
        node.deploy("hello", &says(&number.to_string()));
        for _ in 0..20 {
            assert_eq!(node.get("/hello/").expect(200).text().trim_end(), number.to_string());
        }
    }
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(0));
}
