//! Clients that dawdle (research/reliability.md A1): each is let go after its deadline, and nobody
//! else notices.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Node, Request,
    artifacts::{Guest, says},
    eventually, holds, process,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Every deadline of a connection is one second.
const CONFIG: &str = "[ingress]
first_byte_timeout_s = 1
head_timeout_s = 1
body_idle_timeout_s = 1
write_idle_timeout_s = 1
keep_alive_timeout_s = 1
";
/// One second, and some for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(15);
/// No deadline is kept so badly that it comes before this.
const EARLY: Duration = Duration::from_millis(900);

fn node() -> Node {
    Node::with_guests(CONFIG)
}

/// Waits for the other end to close: not before its deadline, and not for ever.
#[track_caller]
fn is_let_go(connection: &mut Connection, since: Instant, what: &str) {
    connection.set_patience(PATIENCE);
    assert!(connection.is_closed(), "{what}: it is still open after {:?}", since.elapsed());
    assert!(since.elapsed() >= EARLY, "{what}: closed after {:?}", since.elapsed());
}

/// Somebody who is quick is served all the while.
fn others_are_served<T: Send>(node: &Node, slow: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let slow = scope.spawn(slow);
        while !slow.is_finished() {
            let asked = Instant::now();
            assert_eq!(node.get("/http03/hello").expect(200).text(), "hello\n");
            assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        }
        slow.join().unwrap()
    })
}

#[test]
fn silence_and_half_a_preface() {
    let node = node();
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    others_are_served(&node, || {
        let since = Instant::now();
        let open = |bytes: &str| {
            let mut connection = Connection::open(node.ingress());
            connection.write(bytes.as_bytes()).unwrap();
            connection
        };
        let starts = ["", "P", "PRI * HTT", &preface[..preface.len() - 1]];
        for (start, connection) in &mut starts.map(|start| (start, open(start))) {
            is_let_go(connection, since, &format!("{start:?}"));
        }
    });
}

#[test]
fn a_head_that_does_not_end() {
    let node = node();
    for start in
        ["G", "GET /http03/hello HTTP/1.1\r\n", "GET /http03/hello HTTP/1.1\r\nhost: a\r\n"]
    {
        let since = Instant::now();
        let mut connection = Connection::open(node.ingress());
        connection.write(start.as_bytes()).unwrap();
        let answer = connection.read_answer(false).unwrap();
        answer.failure(ErrorCode::RequestTimeout);
        is_let_go(&mut connection, since, start);
    }
}

/// The deadline is for the whole head, not for each of its lines.
#[test]
fn a_head_that_drips() {
    let node = node();
    let since = Instant::now();
    let mut connection = Connection::open(node.ingress());
    let mut writer = connection.second_handle();
    writer.write(b"GET /http03/hello HTTP/1.1\r\n").unwrap();
    let ended = thread::scope(|scope| {
        let reader = scope.spawn(move || connection.read_answer(false).map(|answer| answer.status));
        // A line every little while, which is not what is waited for.
        while !reader.is_finished() && since.elapsed() < PATIENCE {
            let _ = writer.write(b"x: y\r\n");
            thread::sleep(Duration::from_millis(100));
        }
        (reader.is_finished(), reader.join().unwrap())
    });
    assert!(ended.0, "it drips for ever");
    assert!(since.elapsed() >= EARLY, "{:?}", since.elapsed());
    assert!(!ended.1.is_ok_and(|status| status != 408));
}

#[test]
fn a_body_that_does_not_come() {
    let node = node();
    for guest in Guest::ALL {
        for (framing, piece) in [
            ("content-length: 100", ""),
            ("content-length: 100", "some"),
            ("transfer-encoding: chunked", ""),
            ("transfer-encoding: chunked", "5\r\nhel"),
        ] {
            let since = Instant::now();
            let mut connection = Connection::open(node.ingress());
            let app = guest.app();
            let head =
                format!("POST /{app}/length HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n{piece}");
            connection.write(head.as_bytes()).unwrap();
            let answer = connection.read_answer(false).unwrap();
            assert_eq!(answer.status, 408, "{guest:?} {framing} {piece:?}: {answer:?}");
            answer.failure(ErrorCode::RequestTimeout);
            is_let_go(&mut connection, since, framing);
        }
    }
    node.idle();
}

/// As long as something comes, a body may take its time.
#[test]
fn a_slow_body_is_not_a_stalled_one() {
    let node = Node::with_guests("[ingress]\nbody_idle_timeout_s = 2\n");
    let mut connection = Connection::open(node.ingress());
    let since = Instant::now();
    connection
        .write(b"POST /http03/length HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\n")
        .unwrap();
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(100));
        connection.write(b"x").unwrap();
    }
    assert!(since.elapsed() > Duration::from_secs(2));
    assert_eq!(connection.read_answer(false).unwrap().expect(200).text(), "30\n");
}

#[test]
fn a_connection_that_is_kept_alive() {
    let node = node();
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        let path = format!("/{}/hello", guest.app());
        for _ in 0..3 {
            connection.ask(&Request::get(&path)).expect(200);
        }
        let since = Instant::now();
        is_let_go(&mut connection, since, "idle");
    }
}

/// Deadlines of a connection are not those of a function.
#[test]
fn a_slow_function_is_waited_for() {
    let node = node();
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        let slept = connection.ask(&Request::get(&format!("/{}/sleep?ms=2500", guest.app())));
        assert_eq!(slept.expect(200).text(), "slept\n");
        let path = format!("/{}/slow?pieces=2&ms=2500&bytes=10", guest.app());
        assert_eq!(connection.ask(&Request::get(&path)).expect(200).body.len(), 20);
    }
}

/// Whoever does not read an answer does not keep its instance.
#[test]
fn an_answer_that_nobody_reads() {
    let node = node();
    let active = || node.metrics().sum("faas_instances_active", &[]);
    let mut connections = Vec::new();
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        // More than fits into both ends' buffers.
        let path = format!("/{}/stream?kib=65536", guest.app());
        connection.start(&Request::get(&path));
        assert_eq!(connection.read_head(false).unwrap().status, 200);
        connections.push(connection);
    }
    eventually("every instance is gone", PATIENCE, || (active() == 0.0).then_some(()));
    for connection in &mut connections {
        let mut piece = vec![0; 1 << 20];
        let end = loop {
            match connection.read_body(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        assert!(end.is_err(), "half an answer must not look whole");
    }
}

#[test]
fn http2_that_says_nothing() {
    let node = node();
    // A preface and settings, and then silence; settings and a ping, and then silence.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    for more in [&[][..], &ping] {
        let mut connection = Connection::open(node.ingress());
        connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        connection.write(&settings).unwrap();
        connection.write(more).unwrap();
        let since = Instant::now();
        connection.set_patience(PATIENCE);
        eventually("it is let go", PATIENCE, || connection.is_closed().then_some(()));
        assert!(since.elapsed() >= EARLY, "{:?}", since.elapsed());
    }
    // Half a frame's head.
    let mut connection = Connection::open(node.ingress());
    connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0").unwrap();
    connection.set_patience(PATIENCE);
    eventually("it is let go", PATIENCE, || connection.is_closed().then_some(()));
}

/// A crowd of them costs nothing that stays.
#[test]
fn a_crowd_is_let_go() {
    let node = Node::with(CONFIG);
    node.deploy("hello", &says("hello"));
    node.get("/hello/").expect(200);
    let open = || process::open_files(node.pid());
    let before = open();
    let starts = [
        "",
        "P",
        "GET /hello/ HT",
        "POST /hello/ HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx",
    ];
    let crowd: Vec<Connection> = (0..400)
        .map(|number| {
            let mut connection = Connection::open(node.ingress());
            connection.write(starts[number % 4].as_bytes()).unwrap();
            connection
        })
        .collect();
    eventually("everybody is in", PATIENCE, || (open() >= before + 100).then_some(()));
    assert_eq!(node.get("/hello/").expect(200).text().trim(), "hello");
    eventually("everybody is out", PATIENCE, || (open() <= before + 4).then_some(()));
    drop(crowd);
    node.idle();
}

/// The API has deadlines too, and nobody with a token waits for those who have none.
#[test]
fn the_api_is_not_kept_busy() {
    let node = Node::start();
    let silent: Vec<Connection> = (0..200).map(|_| Connection::open(node.admin())).collect();
    holds("the API answers", Duration::from_millis(500), || {
        node.api(Request::get("/v1/apps")).status == 200
    });
    drop(silent);
}
