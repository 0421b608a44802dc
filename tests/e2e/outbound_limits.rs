//! How long, how large and how many: limits of what functions send, with what tells that they were
//! reached, and everything given back afterwards.

use crate::outbound::{OPEN, PATIENCE, SENDERS, fetch, grant, hello, refused};
use faas_tests::{
    Connection, Deploy, Node, Request,
    artifacts::Guest,
    eventually, process,
    upstream::{self, Upstream, answer},
};
use serde_json::json;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

/// Requests of this app that a limit refused or cut off.
fn reached(node: &Node, guest: Guest, limit: &str) -> f64 {
    let labels = [("app", guest.app()), ("limit", limit)];
    node.metrics().sum("faas_outbound_limits_total", &labels)
}

/// Waits until the node has no connection to any server.
fn none_open(node: &Node) {
    eventually("all connections are closed", PATIENCE, || {
        (node.metrics().sum("faas_outbound_connections", &[]) == 0.0).then_some(())
    });
}

/// What a guest says of an answer whose body breaks off, where its WASI can say it.
fn cut(guest: Guest, code: &str) -> String {
    // The engine's release has no code of a body for WASI 0.2, only that it broke off.
    if guest == Guest::Http03 { code.to_owned() } else { "error: None".to_owned() }
}

#[test]
fn an_exchange_has_a_deadline() {
    let node = Node::with_guests(&format!("{OPEN}total_timeout_ms = 700\n"));
    let upstream = Upstream::start(|request, peer| {
        match request.target() {
            "/silent" => upstream::wait_for_end(peer),
            // Each piece comes in time, and there is no end of them.
            _ => {
                peer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                loop {
                    peer.write_all(b"1\r\nx\r\n")?;
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    });
    let port = upstream.port();
    grant(&node, &[format!("http://127.0.0.1:{port}")]);
    for guest in SENDERS {
        let (said, logged) = refused(&node, guest, &format!("http://127.0.0.1:{port}/silent"));
        assert!(said.contains("HttpResponseTimeout"), "{guest:?}: {said}");
        let limit = "limit `outbound.total_timeout_ms` reached: 700ms";
        assert!(logged[0].contains(limit), "{guest:?}: {logged:?}");
        let url = format!("http://127.0.0.1:{port}/trickle");
        let said = fetch(&node, guest, "times=2", &url).expect(200);
        let code = cut(guest, "HttpResponseTimeout");
        assert_eq!(said.text().matches(&code).count(), 2, "{guest:?}: {said:?}");
        let logged = node.messages(guest.app(), said.header("x-request-id").unwrap());
        assert!(logged[0].contains(limit), "{guest:?}: {logged:?}");
        assert_eq!(reached(&node, guest, "total_timeout_ms"), 3.0, "{guest:?}");
    }
    none_open(&node);
    eventually("the server is left", PATIENCE, || (upstream.open() == 0).then_some(()));
}

#[test]
fn an_answer_has_a_largest_size() {
    const LIMIT: usize = 8 << 20;
    let node = Node::with_guests(&format!("{OPEN}max_body_bytes = {LIMIT}\n"));
    let upstream = Upstream::start(|request, peer| {
        let piece = [b'x'; 1 << 16];
        match request.target() {
            "/fits" => answer(peer, 200, &vec![b'x'; LIMIT]),
            // It says how much it will be.
            "/told" => peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\nx"),
            // It does not, and never ends.
            _ => {
                peer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                loop {
                    peer.write_all(b"10000\r\n")?;
                    peer.write_all(&piece)?;
                    peer.write_all(b"\r\n")?;
                }
            }
        }
    });
    let url = format!("http://127.0.0.1:{}", upstream.port());
    grant(&node, std::slice::from_ref(&url));
    for guest in SENDERS {
        let fits = fetch(&node, guest, "times=2", &format!("{url}/fits")).expect(200);
        assert_eq!(fits.text().matches(&format!("200 {LIMIT}")).count(), 2, "{guest:?}: {fits:?}");
        let (said, logged) = refused(&node, guest, &format!("{url}/told"));
        assert!(said.contains("HttpResponseBodySize"), "{guest:?}: {said}");
        let limit =
            format!("limit `outbound.max_body_bytes` reached: 10737418240 of {LIMIT} bytes");
        assert!(logged[0].contains(&limit), "{guest:?}: {logged:?}");
        let before = process::resident_bytes(node.pid());
        process::reset_peak(node.pid());
        let said = fetch(&node, guest, "times=2", &format!("{url}/endless")).expect(200);
        let code = cut(guest, "HttpResponseBodySize");
        assert_eq!(said.text().matches(&code).count(), 2, "{guest:?}: {said:?}");
        let logged = node.messages(guest.app(), said.header("x-request-id").unwrap());
        assert!(logged[0].contains("`outbound.max_body_bytes` reached"), "{guest:?}: {logged:?}");
        // What was read is the function's, whose memory holds all of it; the host has kept nothing.
        let grown = process::peak_bytes(node.pid()).saturating_sub(before);
        assert!(grown < 64 << 20, "{guest:?}: {} MiB", grown >> 20);
        assert_eq!(reached(&node, guest, "max_body_bytes"), 3.0, "{guest:?}");
    }
    eventually("the server is left", PATIENCE, || (upstream.open() <= 3).then_some(()));
}

/// What ends a connection at a bad moment ends the request, and nothing is left of it.
#[test]
fn broken_connections_are_given_back() {
    let node = Node::with_guests(&format!("{OPEN}connect_timeout_ms = 500\n"));
    let resets = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = resets.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in resets.incoming().flatten() {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            // Silent to a client that speaks TLS, for as long as that likes.
            if !head[..read].starts_with(b"GET") {
                thread::spawn(move || while matches!(stream.read(&mut head), Ok(1..)) {});
                continue;
            }
            let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc";
            let _ = stream.write_all(begun);
            // Closed with something unread: the client gets a reset.
            let _ = stream.write_all(&[b'x'; 1000]);
            faas_tests::reset(stream);
        }
    });
    grant(&node, &[format!("http://127.0.0.1:{port}"), format!("https://127.0.0.1:{port}")]);
    for guest in SENDERS {
        let said = fetch(&node, guest, "times=7", &format!("http://127.0.0.1:{port}/")).expect(200);
        assert_eq!(said.text().matches("error").count(), 7, "{guest:?}: {said:?}");
        let (said, _) = refused(&node, guest, &format!("https://127.0.0.1:{port}/"));
        assert!(said.contains("ConnectionTimeout"), "{guest:?}: {said}");
    }
    none_open(&node);
}

/// A request that its function drops, before its answer or in the middle of it.
#[test]
fn what_a_function_drops_is_gone() {
    let node = Node::with_guests(OPEN);
    let (arrived, awaited) = std::sync::mpsc::sync_channel(9);
    let awaited = std::sync::Mutex::new(awaited);
    let upstream = Upstream::start(move |request, peer| match request.target() {
        "/ready" => {
            awaited.lock().unwrap().recv().unwrap();
            peer.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
        }
        target => {
            if target == "/stream" {
                peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc")?;
            }
            arrived.send(()).unwrap();
            upstream::wait_for_end(peer);
            Ok(())
        }
    });
    let url = format!("http://127.0.0.1:{}", upstream.port());
    grant(&node, std::slice::from_ref(&url));
    for guest in SENDERS {
        for path in ["silent", "stream"] {
            let said = fetch(&node, guest, "abandon=1", &format!("{url}/{path}")).expect(200);
            assert_eq!(said.text(), "200 2\n", "{guest:?} {path}");
            none_open(&node);
        }
    }
    node.idle();
}

/// The node has so many connections. Idle ones make room, those in use do not.
#[test]
fn the_node_has_so_many_connections() {
    let node = Node::with_guests(&format!("{OPEN}connect_timeout_ms = 500\nmax_connections = 2\n"));
    let silent = Upstream::start(|_, peer| {
        upstream::wait_for_end(peer);
        Ok(())
    });
    let (first, second, third) = (hello(), hello(), hello());
    let url = |upstream: &Upstream| format!("http://127.0.0.1:{}/x", upstream.port());
    let granted = [&silent, &first, &second, &third]
        .map(|upstream| format!("http://127.0.0.1:{}", upstream.port()));
    grant(&node, &granted);
    // Two that wait for another request, of one app, and a third one of another.
    fetch(&node, Guest::Http02, "", &url(&first)).expect(200);
    fetch(&node, Guest::Http02, "", &url(&second)).expect(200);
    assert_eq!(fetch(&node, Guest::Http03, "", &url(&third)).expect(200).text(), "/x");
    assert!(node.metrics().sum("faas_outbound_connections", &[]) <= 2.0);
    let mut held: Vec<Connection> = (0..2)
        .map(|_| {
            let mut connection = Connection::open(node.ingress());
            connection.start(&Request::get(&format!("/http02/fetch?url={}", url(&silent))));
            connection
        })
        .collect();
    eventually("both are held", PATIENCE, || (silent.open() == 2).then_some(()));
    let (said, logged) = refused(&node, Guest::Http03, &url(&third));
    assert!(said.contains("ConnectionLimitReached"), "{said}");
    assert!(logged[0].contains("`outbound.max_connections` reached: 2"), "{logged:?}");
    assert_eq!(reached(&node, Guest::Http03, "max_connections"), 1.0);
    held.drain(..).for_each(Connection::reset);
    none_open(&node);
    fetch(&node, Guest::Http03, "", &url(&third)).expect(200);
}

/// How many requests a call sends is its function's limit, within that of who called it.
#[test]
fn a_function_has_its_own_number_of_requests() {
    let node = Node::with_guests(&format!("[max_limits]\nsubrequests = 60\n{OPEN}"));
    let upstream = hello();
    let url = format!("http://127.0.0.1:{}", upstream.port());
    let settings = |limit: u32, private: bool| {
        let grants = json!({ "outbound": [url] });
        json!({ "limits": { "subrequests": limit }, "private": private, "grants": grants })
    };
    for guest in SENDERS {
        let function = |name: &str, settings| Deploy::new(name, guest.wasm(), settings);
        node.deploy_functions(
            guest.app(),
            &[
                function("main", settings(5, false)),
                function("few", settings(2, true)),
                function("many", settings(60, true)),
            ],
        );
        let sent = |parameters: &str, url: &str| {
            let answer = fetch(&node, guest, parameters, url).expect(200);
            let told = node.messages(guest.app(), answer.header("x-request-id").unwrap());
            (answer.text().matches("200 1").count(), told.join("\n"))
        };
        let (ok, told) = sent("times=7", &format!("{url}/"));
        assert_eq!(ok, 5, "{guest:?}: {told}");
        assert!(told.contains("limit `subrequests` reached: asked for 6 of 5"), "{told}");
        // A call inside of it has what its own function may, and no more than is left of the five.
        let inside = |name: &str| format!("http://{name}.internal/fetch?times=7&url={url}/");
        let (ok, told) = sent("", &inside("few"));
        assert_eq!(ok, 2, "{guest:?}: {told}");
        assert!(told.contains("limit `subrequests` reached: asked for 3 of 2"), "{told}");
        let (ok, told) = sent("", &inside("many"));
        assert_eq!(ok, 4, "{guest:?}: {told}");
        assert!(told.contains("limit `subrequests` reached: asked for 6 of 5"), "{told}");
        assert_eq!(reached(&node, guest, "subrequests"), 2.0 + 5.0 + 3.0, "{guest:?}");
    }
    let greedy = Deploy::new("main", Guest::Http02.wasm(), settings(61, false));
    let answer = node.try_deploy_functions("greedy", &[greedy]);
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(
        answer.text().contains("`subrequests` is 61, this node gives at most 60"),
        "{answer:?}"
    );
}

/// What is packed stays packed: unpacking is the function's, and so is what comes out.
#[test]
fn nothing_is_unpacked() {
    let node = Node::with_guests(OPEN);
    let packed: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03not really gzip, and nobody looks";
    let upstream = Upstream::start(|_, peer| {
        let length = packed.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n"
        );
        peer.write_all(&[head.as_bytes(), packed].concat())
    });
    let url = format!("http://127.0.0.1:{}", upstream.port());
    grant(&node, std::slice::from_ref(&url));
    for guest in [Guest::Http03, Guest::Http02] {
        let answer = fetch(&node, guest, "", &url).expect(200);
        assert_eq!(answer.body, packed, "{guest:?}");
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{guest:?}");
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.field("accept-encoding"), None, "{guest:?}: nothing is asked for");
    }
}
