//! HTTP/2 that is made by hand to do harm: each kind ends with the right error, no instance goes on,
//! no memory stays, and the neighbours notice nothing.

use faas_tests::{
    Node,
    artifacts::Guest,
    eventually,
    frames::{Ended, Http2, asks, block, field, flag, frame, get, headers, indexed, kind},
    full, process,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What a flood may leave in memory, in bytes.
const GROWTH: u64 = 24 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn node() -> Node {
    let node = Node::with_guests("[ingress]\naccess_log = \"off\"\n[limits]\ncpu_ms = 60000\n");
    // What instances take and keep, they have after this: as many as one connection may have at once.
    for guest in [Guest::Http02, Guest::Http03] {
        let mut connection = Http2::open(node.ingress());
        connection.sync();
        for number in 0..128 {
            let target = format!("/{}/sleep?ms=300", guest.app());
            connection.send(&get(2 * number + 1, &target)).unwrap();
        }
        connection.ended(255);
    }
    for guest in Guest::ALL {
        node.get(&format!("/{}/hello", guest.app())).expect(200);
    }
    node.idle();
    node
}

/// While something is done to a node its neighbours are served, and afterwards nothing is left of it.
fn harmless<T: Send>(node: &Node, what: &str, harm: impl FnOnce() -> T + Send) -> T {
    let before = process::resident_bytes(node.pid());
    let result = thread::scope(|scope| {
        let harm = scope.spawn(harm);
        loop {
            let asked = Instant::now();
            assert_eq!(node.get("/http03/hello").expect(200).text(), "hello\n", "{what}");
            assert!(asked.elapsed() < Duration::from_secs(10), "{what}: {:?}", asked.elapsed());
            if harm.is_finished() {
                return harm.join().unwrap();
            }
        }
    });
    node.idle();
    let grown = process::resident_bytes(node.pid()).saturating_sub(before);
    assert!(grown < GROWTH, "{what}: {} MiB stay", grown >> 20);
    result
}

/// Sends the same bytes again and again, and reads nothing.
fn flood(connection: &mut Http2, bytes: &[u8], times: usize) {
    let many = bytes.repeat(64);
    for _ in 0..times.div_ceil(64) {
        if connection.send(&many).is_err() {
            break;
        }
    }
}

#[test]
fn header_blocks_without_end() {
    let node = node();
    let times = full(20_000, 1_000_000);
    for (payload, codes) in [
        (Vec::new(), [ENHANCE_YOUR_CALM, ENHANCE_YOUR_CALM]),
        (field("x", "y"), [ENHANCE_YOUR_CALM, ENHANCE_YOUR_CALM]),
        (field("x", "y".repeat(16_000)), [ENHANCE_YOUR_CALM, COMPRESSION_ERROR]),
    ] {
        let ended = harmless(&node, "a header block without end", || {
            let mut connection = Http2::open(node.ingress());
            let start = frame(kind::HEADERS, 0, 1, &asks("GET", "/http02/hello", &[]));
            connection.send(&start).unwrap();
            flood(&mut connection, &frame(kind::CONTINUATION, 0, 1, &payload), times);
            connection.goodbye()
        });
        // Whoever is still sending may hear nothing but a reset.
        let expected = [Ended::GoAway(codes[0]), Ended::GoAway(codes[1]), Ended::Closed];
        assert!(expected.contains(&ended), "{ended:?} after {} bytes", payload.len());
    }
}

#[test]
fn empty_pieces_of_a_body() {
    let node = node();
    for guest in Guest::ALL {
        let target = format!("/{}/sleep?ms=60000", guest.app());
        let ended = harmless(&node, "empty DATA", || {
            let mut connection = Http2::open(node.ingress());
            connection.send(&headers(1, 0, &asks("POST", &target, &[]))).unwrap();
            flood(&mut connection, &frame(kind::DATA, 0, 1, &[]), full(20_000, 1_000_000));
            connection.goodbye()
        });
        let expected = [Ended::GoAway(ENHANCE_YOUR_CALM), Ended::Closed];
        assert!(expected.contains(&ended), "{guest:?}: {ended:?}");
    }
}

/// Streams that are opened and given up at once, over as many connections as that takes.
#[test]
fn streams_that_are_reset_at_once() {
    let node = node();
    let total = full(10_000, 1_000_000);
    let (sent, connections) = harmless(&node, "rapid reset", || {
        let (mut sent, mut connections) = (0, 0);
        while sent < total {
            connections += 1;
            sent += reset_streams(&node, total - sent);
        }
        (sent, connections)
    });
    assert!(sent >= total && connections >= 1, "{sent} streams, {connections} connections");
}

/// As many as one connection takes; how many those were.
fn reset_streams(node: &Node, most: usize) -> usize {
    let mut connection = Http2::open(node.ingress());
    let mut reader = connection.second_handle();
    let drain = thread::spawn(move || {
        let mut scrap = [0; 16 << 10];
        while reader.read(&mut scrap).is_ok_and(|read| read > 0) {}
    });
    let mut sent = 0;
    while sent < most {
        let mut bytes = Vec::new();
        for stream in sent..(sent + 50).min(most) {
            let stream = 2 * stream as u32 + 1;
            bytes.extend(get(stream, "/http02/sleep?ms=60000"));
            bytes.extend(frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        sent += 50;
        if connection.send(&bytes).is_err() {
            break;
        }
    }
    let _ = connection.second_handle().shutdown(std::net::Shutdown::Both);
    drain.join().unwrap();
    sent
}

/// Streams that the node has to reset, because the client does on them what it may not: their
/// instances are stopped, and after a hundred the connection ends.
#[test]
fn streams_that_the_node_is_made_to_reset() {
    let node = node();
    type Harm = fn(u32) -> Vec<u8>;
    let harms: [(&str, Harm); 4] = [
        ("a window update of nothing", |stream| {
            frame(kind::WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())
        }),
        ("a window over its limit", |stream| {
            frame(kind::WINDOW_UPDATE, 0, stream, &(u32::MAX >> 1).to_be_bytes())
        }),
        ("data behind the end", |stream| frame(kind::DATA, flag::END_STREAM, stream, b"x")),
        ("a stream that depends on itself", |stream| {
            let mut payload = stream.to_be_bytes().to_vec();
            payload.push(1);
            frame(kind::PRIORITY, 0, stream, &payload)
        }),
    ];
    for (what, harm) in harms {
        let (ended, streams) = harmless(&node, what, || {
            let mut connection = Http2::open(node.ingress());
            let mut streams = 0;
            for number in 0..full(1000, 100_000) as u32 {
                let stream = 2 * number + 1;
                let bytes = [get(stream, "/http02/sleep?ms=60000"), harm(stream)].concat();
                streams = number;
                if connection.send(&bytes).is_err() {
                    break;
                }
            }
            (connection.goodbye(), streams)
        });
        let ends = matches!(
            ended,
            Ended::GoAway(ENHANCE_YOUR_CALM | PROTOCOL_ERROR | STREAM_CLOSED | FLOW_CONTROL_ERROR)
                | Ended::Closed
        );
        assert!(ends, "{what}: {ended:?} after {streams} streams");
    }
}

/// What the node has to answer, sent by somebody who reads no answers.
#[test]
fn settings_and_pings_without_end() {
    let node = node();
    for (what, bytes) in [
        ("settings", frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("pings", frame(kind::PING, 0, 0, b"floodflo")),
    ] {
        harmless(&node, what, || {
            let connection = Http2::open(node.ingress());
            let mut writer = connection.second_handle();
            // Once its answers fill the socket the node reads no more.
            writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            send_until_stuck(&mut writer, &bytes, full(2_000_000, 50_000_000));
            drop((writer, connection));
        });
    }
}

/// Sends the same bytes until nobody takes them, or as often as that.
fn send_until_stuck(writer: &mut TcpStream, bytes: &[u8], times: usize) {
    let many = bytes.repeat(1000);
    for _ in 0..times / 1000 {
        if writer.write_all(&many).is_err() {
            return;
        }
    }
}

/// What the node may pass over: the connection goes on.
#[test]
fn frames_that_mean_nothing() {
    let node = node();
    let times = full(50_000, 1_000_000);
    for (what, bytes) in [
        ("priorities", frame(kind::PRIORITY, 0, 1001, &[0, 0, 0, 0, 7])),
        ("unknown frames", frame(0xee, 0xff, 3, b"whatever")),
        ("window updates", frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
    ] {
        harmless(&node, what, || {
            let mut connection = Http2::open(node.ingress());
            flood(&mut connection, &bytes, times);
            connection.send(&get(1, "/http02/hello")).unwrap();
            assert_eq!(connection.ended(1), Ended::Status(200), "{what}");
        });
    }
}

/// A few bytes that stand for megabytes of fields.
#[test]
fn header_lists_that_are_too_large() {
    let node = node();
    let large = field("x", "y".repeat(16_000)).repeat(6);
    let many = field("x", "y").repeat(101);
    let mut bomb = asks("GET", "/http02/hello", &[]);
    bomb.extend(indexed("x", &[b'y'; 4000]));
    let references = MAX_BOMB - bomb.len();
    bomb.extend(vec![0xbe; references]);
    for (what, block) in [("too large", large), ("too many", many)] {
        let block = [asks("GET", "/http02/hello", &[]), block].concat();
        let ended = harmless(&node, what, || {
            let mut connection = Http2::open(node.ingress());
            connection.send(&headers(1, flag::END_STREAM, &block)).unwrap();
            connection.ended(1)
        });
        assert_eq!(ended, Ended::Status(431), "{what}");
    }
    for _ in 0..full(5, 1000) {
        let ended = harmless(&node, "a bomb", || {
            let mut connection = Http2::open(node.ingress());
            connection.send(&headers(1, flag::END_STREAM, &bomb)).unwrap();
            connection.ended(1)
        });
        let expected = [Ended::GoAway(ENHANCE_YOUR_CALM), Ended::Status(431)];
        assert!(expected.contains(&ended), "{ended:?}");
    }
}

/// One frame.
const MAX_BOMB: usize = 16_000;

/// What a row of the tables below ends with.
type Row = (&'static str, Vec<u8>, Ended);

/// A `GET` whose block this is, and nothing more on its stream.
fn ask(block: &[u8]) -> Vec<u8> {
    headers(1, flag::END_STREAM, block)
}

/// A good request with these fields behind.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    ask(&asks("GET", "/http02/hello", fields))
}

/// A request to this target.
fn at(target: &str) -> Vec<u8> {
    ask(&asks("GET", target, &[]))
}

/// A request with exactly these fields.
fn raw(fields: &[(&str, &str)]) -> Vec<u8> {
    ask(&block(fields))
}

/// A `POST` of these fields and this body.
fn post(fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let block = asks("POST", "/http02/length", fields);
    [headers(1, 0, &block), frame(kind::DATA, flag::END_STREAM, 1, body.as_bytes())].concat()
}

#[track_caller]
fn all_end(rows: Vec<Row>) {
    let node = node();
    let mut wrong = Vec::new();
    for (what, bytes, expected) in rows {
        let mut connection = Http2::open(node.ingress());
        connection.send(&bytes).unwrap();
        let ended = connection.ended(1);
        // The connection ends for what it must end for; hyper tells PROTOCOL_ERROR, whatever it was.
        let both_go = matches!((&ended, &expected), (Ended::GoAway(_), Ended::GoAway(_)));
        if ended != expected && !both_go {
            wrong.push(format!("{what}: {ended:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    node.idle();
    assert_eq!(node.get("/http03/hello").expect(200).text(), "hello\n");
}

const BAD: Ended = Ended::Status(400);
const RESET: Ended = Ended::Reset(PROTOCOL_ERROR);
/// What h2 calls an error of the connection although RFC 9113 permits to end the stream alone.
const GO: Ended = Ended::GoAway(PROTOCOL_ERROR);

#[test]
fn fields_that_http2_does_not_have() {
    let method = (":method", "GET");
    let (scheme, path, authority) =
        ((":scheme", "http"), (":path", "/http02/hello"), (":authority", "localhost"));
    all_end(vec![
        ("good", with(&[]), Ended::Status(200)),
        ("te: trailers", with(&[("te", "trailers")]), Ended::Status(200)),
        ("an upper-case name", with(&[("X-A", "b")]), GO),
        ("connection", with(&[("connection", "x")]), RESET),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), RESET),
        ("keep-alive", with(&[("keep-alive", "5")]), RESET),
        ("proxy-connection", with(&[("proxy-connection", "x")]), RESET),
        ("upgrade", with(&[("upgrade", "h2c")]), RESET),
        ("te: gzip", with(&[("te", "gzip")]), RESET),
        ("no name", with(&[("", "x")]), GO),
        ("a name with a space", with(&[("a b", "x")]), GO),
        ("a name with a colon", with(&[("a:b", "x")]), GO),
        ("CR LF in a value", with(&[("x", "a\r\nb: c")]), GO),
        ("NUL in a value", with(&[("x", "a\0b")]), GO),
        ("no method", raw(&[scheme, path, authority]), RESET),
        ("no scheme", raw(&[method, path, authority]), RESET),
        ("no path", raw(&[method, scheme, authority]), RESET),
        ("no authority and no host", raw(&[method, scheme, path]), BAD),
        ("two methods", raw(&[method, method, scheme, path, authority]), RESET),
        ("two paths", raw(&[method, scheme, path, path, authority]), RESET),
        ("two authorities", raw(&[method, scheme, path, authority, authority]), RESET),
        ("an unknown pseudo-field", with(&[(":x", "y")]), GO),
        ("a status", with(&[(":status", "200")]), RESET),
        ("pseudo behind others", raw(&[method, scheme, ("x", "y"), path, authority]), RESET),
        ("another host", with(&[("host", "elsewhere")]), BAD),
        ("two hosts", with(&[("host", "localhost"), ("host", "localhost")]), BAD),
        ("ftp", raw(&[method, (":scheme", "ftp"), path, authority]), BAD),
        ("CONNECT", raw(&[(":method", "CONNECT"), authority]), Ended::Status(405)),
        (
            "extended CONNECT",
            raw(&[(":method", "CONNECT"), (":protocol", "websocket"), scheme, path, authority]),
            RESET,
        ),
        ("TRACE", raw(&[(":method", "TRACE"), scheme, path, authority]), Ended::Status(405)),
        (
            "a method of 65 bytes",
            raw(&[(":method", &"M".repeat(65)), scheme, path, authority]),
            BAD,
        ),
    ]);
}

#[test]
fn targets_hosts_and_lengths_that_are_none() {
    let authority = |authority: &'static str| {
        raw(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", authority)])
    };
    all_end(vec![
        ("an empty path", at(""), RESET),
        ("a path without a slash", at("http02/hello"), RESET),
        ("a star", at("*"), BAD),
        ("an absolute path", at("http://evil.test/http02/hello"), RESET),
        ("a space in the path", at("/http02/he llo"), RESET),
        ("NUL in the path", at("/http02/he\0llo"), RESET),
        ("a target of 16,385 bytes", at(&format!("/{}", "x".repeat(16 << 10))), Ended::Status(414)),
        ("an empty authority", authority(""), RESET),
        ("user information", authority("u@localhost"), BAD),
        ("a port that is none", authority("localhost:99999"), BAD),
        ("two names", authority("a,b"), BAD),
        (
            "lengths that differ",
            post(&[("content-length", "1"), ("content-length", "2")], "ab"),
            RESET,
        ),
        (
            "twice the same length",
            post(&[("content-length", "2"), ("content-length", "2")], "ab"),
            BAD,
        ),
        ("a length that is none", post(&[("content-length", "+2")], "ab"), RESET),
        ("less than its length", post(&[("content-length", "3")], "ab"), RESET),
        ("more than its length", post(&[("content-length", "1")], "ab"), RESET),
        ("a length and no body", with(&[("content-length", "2")]), RESET),
        ("as long as it says", post(&[("content-length", "2")], "ab"), Ended::Status(200)),
    ]);
}

#[test]
fn frames_that_are_none() {
    let ping = |length: usize| frame(kind::PING, 0, 0, &vec![0; length]);
    let settings = |payload: &[u8]| frame(kind::SETTINGS, 0, 0, payload);
    let window = |stream, by: u32| frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let twice = |stream, by: u32| [window(stream, by), window(stream, by)].concat();
    let whole = asks("GET", "/http02/hello", &[]);
    let waits = get(1, "/http02/sleep?ms=60000");
    let padded = [&[200][..], &whole].concat();
    let ends = flag::END_HEADERS | flag::END_STREAM;
    let go = Ended::GoAway;
    all_end(vec![
        ("a stream of the server's", get(2, "/http02/hello"), go(PROTOCOL_ERROR)),
        ("no stream", get(0, "/http02/hello"), go(PROTOCOL_ERROR)),
        ("data on no stream", frame(kind::DATA, 0, 0, b"x"), go(PROTOCOL_ERROR)),
        ("data on a stream that is idle", frame(kind::DATA, 0, 1, b"x"), go(PROTOCOL_ERROR)),
        (
            "a reset of a stream that is idle",
            frame(kind::RST_STREAM, 0, 1, &[0; 4]),
            go(PROTOCOL_ERROR),
        ),
        ("a push", frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82]), go(PROTOCOL_ERROR)),
        ("a continuation of nothing", frame(kind::CONTINUATION, 4, 1, &whole), go(PROTOCOL_ERROR)),
        (
            "a frame within a header block",
            [frame(kind::HEADERS, 1, 1, &whole), ping(8)].concat(),
            go(PROTOCOL_ERROR),
        ),
        (
            "more padding than frame",
            frame(kind::HEADERS, ends | flag::PADDED, 1, &padded),
            go(PROTOCOL_ERROR),
        ),
        (
            "a field of no table",
            frame(kind::HEADERS, ends, 1, &[0xff, 0xff, 0x7f]),
            go(COMPRESSION_ERROR),
        ),
        (
            "a table that is too large",
            frame(kind::HEADERS, ends, 1, &[0x3f, 0xe1, 0xff, 0x03]),
            go(COMPRESSION_ERROR),
        ),
        ("half a field", frame(kind::HEADERS, ends, 1, &whole[..20]), go(COMPRESSION_ERROR)),
        ("a frame of 16,385 bytes", frame(kind::DATA, 0, 1, &[0; 16_385]), go(FRAME_SIZE_ERROR)),
        ("settings of five bytes", settings(&[0; 5]), go(FRAME_SIZE_ERROR)),
        ("a window that is no window", settings(&[0, 4, 0x80, 0, 0, 0]), go(FLOW_CONTROL_ERROR)),
        ("settings on a stream", frame(kind::SETTINGS, 0, 1, &[]), go(PROTOCOL_ERROR)),
        ("a ping of seven bytes", ping(7), go(FRAME_SIZE_ERROR)),
        ("a window update of nothing", window(0, 0), go(PROTOCOL_ERROR)),
        ("a connection window over its limit", twice(0, u32::MAX >> 1), go(FLOW_CONTROL_ERROR)),
        (
            "a stream's window over its limit",
            [waits.clone(), window(1, u32::MAX >> 1)].concat(),
            Ended::Reset(FLOW_CONTROL_ERROR),
        ),
        (
            "an old stream",
            [get(3, "/http02/hello"), get(1, "/http02/hello")].concat(),
            go(PROTOCOL_ERROR),
        ),
    ]);
}

/// Streams beyond the limit are refused, which a client may take for "try again"; the others go on.
#[test]
fn more_streams_than_there_may_be() {
    let node = node();
    let mut connection = Http2::open(node.ingress());
    // Before the client has seen the limit it may not know it; then it does.
    connection.sync();
    for number in 0..128 {
        connection.send(&get(2 * number + 1, "/http02/sleep?ms=60000")).unwrap();
    }
    connection.send(&get(257, "/http02/hello")).unwrap();
    assert_eq!(connection.ended(257), Ended::Reset(REFUSED_STREAM));
    let active = || node.metrics().sum("faas_instances_active", &[("app", "http02")]);
    eventually("all of them run", PATIENCE, || (active() >= 100.0).then_some(()));
    for number in 0..128_u32 {
        let reset = frame(kind::RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes());
        connection.send(&reset).unwrap();
    }
    node.idle();
    connection.send(&get(259, "/http02/hello")).unwrap();
    assert_eq!(connection.ended(259), Ended::Status(200));
}
