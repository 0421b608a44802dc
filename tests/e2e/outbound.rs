//! Requests that functions send: what was granted and nothing else, never to where the operator did
//! not open the way, within limits, streamed, and gone when nobody waits for them.

use faas_api::UsageReport;
use faas_tests::{
    Answer, Connection, Deploy, Node, Request,
    artifacts::{Guest, fetchers},
    eventually, process,
    upstream::{self, Upstream, answer},
};
use serde_json::json;
use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The kinds that can send requests.
pub(crate) const SENDERS: [Guest; 3] = [Guest::Http03, Guest::Http02, Guest::Cgi02];

/// Loopback is open, as the tests' servers are there.
pub(crate) const OPEN: &str = "[outbound]\nallow_private = [\"127.0.0.0/8\"]\n";

/// Deploys each kind of guest as an app that may send requests to these hosts.
pub(crate) fn grant(node: &Node, hosts: &[String]) {
    for guest in SENDERS {
        let settings = json!({"grants": {"outbound": hosts}});
        node.deploy_functions(guest.app(), &[Deploy::new("main", guest.wasm(), settings)]);
    }
}

/// Has a guest send a request.
pub(crate) fn fetch(node: &Node, guest: Guest, parameters: &str, url: &str) -> Answer {
    node.get(&format!("/{}/fetch?{parameters}&url={url}", guest.app()))
}

/// What a guest says about a request that failed, and its log's words.
pub(crate) fn refused(node: &Node, guest: Guest, url: &str) -> (String, Vec<String>) {
    let answer = fetch(node, guest, "", url).expect(200);
    let id = answer.header("x-request-id").unwrap().to_owned();
    (answer.text(), node.messages(guest.app(), &id))
}

pub(crate) fn hello() -> Upstream {
    Upstream::start(|request, peer| answer(peer, 200, request.target().as_bytes()))
}

#[test]
fn nothing_is_granted_by_default() {
    let node = Node::with_guests(OPEN);
    let upstream = hello();
    for guest in SENDERS {
        let url = format!("http://127.0.0.1:{}/secret?q", upstream.port());
        let (said, logged) = refused(&node, guest, &url);
        assert!(said.contains("HttpRequestDenied"), "{guest:?}: {said}");
        let expected = format!(
            "outbound http://127.0.0.1:{} is not granted; add it to `grants.outbound`",
            upstream.port()
        );
        assert_eq!(logged, [expected], "{guest:?}");
        // However often it tries, it is told once.
        let answer = fetch(&node, guest, "times=3", &url).expect(200);
        assert_eq!(answer.text().matches("HttpRequestDenied").count(), 3);
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(node.messages(guest.app(), id).len(), 1, "{guest:?}");
        let labels = [("app", guest.app()), ("function", "main"), ("code", "denied")];
        assert_eq!(node.metrics().sum("faas_outbound_requests_total", &labels), 4.0);
    }
    assert_eq!(upstream.accepted(), 0);
}

#[test]
fn what_is_granted_works() {
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|request, peer| {
        let status = if request.line.starts_with("POST") { 201 } else { 200 };
        answer(peer, status, request.target().as_bytes())
    });
    grant(&node, &[format!("http://localhost:{}", upstream.port())]);
    for guest in SENDERS {
        let url = format!("http://LOCALHOST.:{}/a/b?c=%20d", upstream.port());
        let answer = fetch(&node, guest, "", &url).expect(200);
        assert_eq!(answer.text(), "/a/b?c=%20d", "{guest:?}");
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.line, "GET /a/b?c=%20d HTTP/1.1", "{guest:?}");
        let host = format!("localhost:{}", upstream.port());
        assert_eq!(received.field("host"), Some(host), "{guest:?}");
        assert_eq!(received.field("cdn-loop").as_deref(), Some("faas;depth=1"), "{guest:?}");
        assert_eq!(received.field("transfer-encoding"), None, "{guest:?}: {received:?}");
        // A body goes out as the guest writes it.
        let answer = fetch(&node, guest, "method=POST&body=300000", &url);
        assert_eq!(answer.status, 201, "{guest:?}");
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.body.len(), 300_000, "{guest:?}");
        let labels = [("app", guest.app()), ("code", "2xx")];
        assert_eq!(node.metrics().sum("faas_outbound_requests_total", &labels), 2.0);
        // Another port is another server.
        let other = upstream::closed_port();
        let (said, _) = refused(&node, guest, &format!("http://localhost:{other}/"));
        assert!(said.contains("HttpRequestDenied"), "{guest:?}: {said}");
        // What was sent is in the books; what was refused was not sent.
        eventually("it is counted", PATIENCE, || {
            let report = node.api(Request::get(&format!("/v1/apps/{}/usage", guest.app())));
            let usage: UsageReport = serde_json::from_slice(&report.expect(200).body).unwrap();
            (usage.total.outbound_requests == 2).then_some(())
        });
    }
}

/// A guest sets what it likes, but for what is the connection's or the node's.
#[test]
fn heads_are_cleaned() {
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|_, peer| {
        peer.write_all(
            b"HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nx-faas-error: forged\r\n\
              keep-alive: 5\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nok",
        )
    });
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    let url = format!("http://127.0.0.1:{}/", upstream.port());
    for guest in SENDERS {
        for (field, passes) in [
            ("traceparent:00-1-2-01", true),
            ("x-request-id:mine", true),
            ("x-custom:1", true),
            ("x-faas-caller:forged", false),
            ("expect:100-continue", false),
            ("te:trailers", false),
        ] {
            let answer = fetch(&node, guest, &format!("header={field}"), &url).expect(200);
            let (name, value) = field.split_once(':').unwrap();
            let received = upstream.received().pop().unwrap().field(name);
            assert_eq!(received.as_deref(), passes.then_some(value), "{guest:?} {field}");
            assert_eq!(answer.header("x-hop"), None, "{guest:?}");
            assert_eq!(answer.header("x-faas-error"), None, "{guest:?}");
            if !guest.is_cgi() {
                assert_eq!(answer.header("x-kept"), Some("1"), "{guest:?}");
            }
        }
        let (said, _) =
            refused(&node, guest, &format!("http://u:p@127.0.0.1:{}/", upstream.port()));
        assert!(said.contains("error"), "{guest:?}: {said}");
    }
}

/// A grant is a name. Where it leads is another matter.
#[test]
fn addresses_that_are_not_public_are_prohibited() {
    let node = Node::with_guests("");
    let canary = hello();
    let port = canary.port();
    let hosts = [
        "localhost",
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ];
    let urls: Vec<String> = hosts.iter().map(|host| format!("http://{host}:{port}")).collect();
    grant(&node, &urls);
    for guest in SENDERS {
        for url in &urls {
            let (said, logged) = refused(&node, guest, url);
            assert!(said.contains("DestinationIpProhibited"), "{guest:?} {url}: {said}");
            assert!(logged[0].contains("outbound.allow_private"), "{guest:?} {url}: {logged:?}");
        }
    }
    assert_eq!(canary.accepted(), 0);
}

/// Numbers that resolvers take for addresses are no hosts, whatever was granted.
#[test]
fn addresses_in_other_spellings_are_no_hosts() {
    let node = Node::with_guests(OPEN);
    let canary = hello();
    let port = canary.port();
    grant(&node, &[format!("http://127.0.0.1:{port}"), format!("http://*.example.com:{port}")]);
    for guest in SENDERS {
        for host in ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "0", "127.0.0.01"]
        {
            let (said, _) = refused(&node, guest, &format!("http://{host}:{port}/"));
            let denied = said.contains("HttpRequestUriInvalid") || said.contains("Denied");
            assert!(denied, "{guest:?} {host}: {said}");
        }
    }
    assert_eq!(canary.accepted(), 0);
}

/// Whatever was opened: the node's API is not a server for functions.
#[test]
fn the_nodes_own_api_is_never_reached() {
    let node = Node::with_guests("[outbound]\nallow_private = [\"0.0.0.0/0\", \"::/0\"]\n");
    // The kernel takes no address for this machine's.
    let hosts =
        ["127.0.0.1", "localhost", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"];
    let port = node.admin().port();
    let urls: Vec<String> = hosts.iter().map(|host| format!("http://{host}:{port}")).collect();
    grant(&node, &urls);
    for guest in SENDERS {
        for url in &urls {
            let (said, _) = refused(&node, guest, &format!("{url}/livez"));
            assert!(said.contains("DestinationIpProhibited"), "{guest:?} {url}: {said}");
        }
    }
}

/// What a server answers is the function's to judge: nothing is followed, unpacked or asked again.
#[test]
fn redirects_and_proxies_are_not_followed() {
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|_, peer| {
        peer.write_all(
            b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        )
    });
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    for guest in SENDERS {
        let url = format!("http://127.0.0.1:{}/", upstream.port());
        assert_eq!(fetch(&node, guest, "", &url).status, 302, "{guest:?}");
    }
    assert_eq!(upstream.received().len(), SENDERS.len());
}

/// What goes wrong out there has a name, and a line in the log.
#[test]
fn failures_have_names() {
    let node = Node::with_guests(&format!(
        "{OPEN}connect_timeout_ms = 2000\nfirst_byte_timeout_ms = 300\nidle_timeout_ms = 300\n"
    ));
    let upstream = Upstream::start(|request, peer| match request.target() {
        "/silent" => {
            upstream::wait_for_end(peer);
            Ok(())
        }
        "/garbage" => peer.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        "/endless-head" => {
            peer.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                peer.write_all(b"x-filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")?;
            }
        }
        "/informational" => loop {
            peer.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")?;
        },
        "/upgrade" => peer.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        "/gone" => Err(std::io::Error::other("gone")),
        // It begins and does not go on.
        "/stalls" => {
            peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")?;
            upstream::wait_for_end(peer);
            Ok(())
        }
        "/half" => {
            peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")?;
            Err(std::io::Error::other("gone"))
        }
        _ => answer(peer, 200, b""),
    });
    let closed = upstream::closed_port();
    let port = upstream.port();
    grant(
        &node,
        &[
            format!("http://127.0.0.1:{port}"),
            format!("https://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{closed}"),
            "http://no-such-host.invalid".to_owned(),
        ],
    );
    for guest in SENDERS {
        for (url, code) in [
            (format!("http://127.0.0.1:{port}/silent"), "HttpResponseTimeout"),
            (format!("http://127.0.0.1:{port}/garbage"), "HttpProtocolError"),
            (format!("http://127.0.0.1:{port}/endless-head"), "HttpResponseHeaderSectionSize"),
            (format!("http://127.0.0.1:{port}/upgrade"), "HttpUpgradeFailed"),
            (format!("http://127.0.0.1:{port}/informational"), "HttpResponseTimeout"),
            (format!("http://127.0.0.1:{port}/gone"), "HttpResponseIncomplete"),
            (format!("https://127.0.0.1:{port}/"), "TlsProtocolError"),
            (format!("http://127.0.0.1:{closed}/"), "ConnectionRefused"),
            ("http://no-such-host.invalid/".to_owned(), "DnsError"),
        ] {
            let (said, logged) = refused(&node, guest, &url);
            assert!(said.contains(code), "{guest:?} {url}: {said}");
            assert!(logged[0].starts_with("outbound http"), "{guest:?} {url}: {logged:?}");
        }
        // Two of them, so that the guest reads the bodies itself.
        for (path, code) in
            [("stalls", "ConnectionReadTimeout"), ("half", "HttpResponseIncomplete")]
        {
            let answer = fetch(&node, guest, "times=2", &format!("http://127.0.0.1:{port}/{path}"));
            // The engine's release has no code of a body for WASI 0.2, only that it broke off.
            let code = if guest == Guest::Http03 { code } else { "error: None" };
            assert_eq!(answer.text().matches(code).count(), 2, "{guest:?} {path}: {answer:?}");
        }
    }
}

/// A large answer passes through a function without being held anywhere.
#[test]
fn sixty_four_mebibytes_stream_through() {
    const MIB: usize = 64;
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|_, peer| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MIB << 20);
        peer.write_all(head.as_bytes())?;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..MIB {
            peer.write_all(&piece)?;
        }
        Ok(())
    });
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    for guest in [Guest::Http03, Guest::Http02] {
        let target = format!("/{}/fetch?url=http://127.0.0.1:{}/", guest.app(), upstream.port());
        // Once to load everything.
        node.get(&target).expect(200);
        let before = process::resident_bytes(node.pid());
        process::reset_peak(node.pid());
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&target));
        assert_eq!(connection.read_head(false).unwrap().status, 200);
        let (mut piece, mut length) = (vec![0; 1 << 16], 0);
        loop {
            match connection.read_body(&mut piece).unwrap() {
                0 => break,
                read => length += read,
            }
        }
        assert_eq!(length, MIB << 20, "{guest:?}");
        let grown = process::peak_bytes(node.pid()).saturating_sub(before);
        assert!(grown < 16 << 20, "{guest:?}: {} MiB", grown >> 20);
    }
}

/// A large body of a request does, too, and a server that does not read stops the function.
#[test]
fn uploads_stream() {
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|request, peer| {
        answer(peer, 200, request.body.len().to_string().as_bytes())
    });
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    for guest in SENDERS {
        let url = format!("http://127.0.0.1:{}/", upstream.port());
        let answer = fetch(&node, guest, "method=PUT&body=20000000", &url).expect(200);
        assert_eq!(answer.text(), "20000000", "{guest:?}");
    }
}

#[test]
fn a_call_sends_so_many_requests_and_no_more() {
    let node = Node::with_guests(OPEN);
    let upstream = hello();
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    for guest in SENDERS {
        let before = upstream.received().len();
        let url = format!("http://127.0.0.1:{}/", upstream.port());
        let said = fetch(&node, guest, "times=52", &url);
        let (text, id) = (said.text(), said.header("x-request-id").unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[..50].iter().all(|line| *line == "200 1"), "{guest:?}: {lines:?}");
        assert!(lines[50..].iter().all(|l| l.contains("ConnectionLimitReached")), "{lines:?}");
        let told = node.messages(guest.app(), id);
        assert!(told[0].contains("limit `subrequests` reached: asked for 51 of 50"), "{told:?}");
        assert_eq!(upstream.received().len() - before, 50);
        // The next call has as many again, and finds a connection that is left.
        fetch(&node, guest, "", &url).expect(200);
    }
    assert!(upstream.accepted() < 60, "connections are used again: {}", upstream.accepted());
}

/// Six at once; the seventh waits for one of them to end, but not for ever.
#[test]
fn a_seventh_request_waits() {
    let node = Node::with_guests(&format!("{OPEN}connect_timeout_ms = 1000\n"));
    let upstream = hello();
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    let url = format!("http://127.0.0.1:{}/", upstream.port());
    for guest in SENDERS {
        let answer = fetch(&node, guest, "times=7&together=1", &url).expect(200);
        assert_eq!(answer.text().matches("200 1").count(), 7, "{guest:?}: {answer:?}");
        // Who reads no answer before it has all of them gets one less.
        let answer = fetch(&node, guest, "times=7&together=1&hold=1", &url).expect(200);
        assert_eq!(answer.text().matches("200 1").count(), 6, "{guest:?}: {answer:?}");
        assert!(answer.text().contains("ConnectionLimitReached"), "{guest:?}: {answer:?}");
        let told = node.messages(guest.app(), answer.header("x-request-id").unwrap());
        assert!(told[0].contains("`outbound.at_once_per_call` reached: 6"), "{told:?}");
    }
}

/// One app's requests are no other's burden, and an app has only so many.
#[test]
fn an_app_has_so_many_at_once() {
    let node =
        Node::with_guests(&format!("{OPEN}connect_timeout_ms = 1000\nat_once_per_app = 2\n"));
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |request, peer| {
            if request.target() == "/held" {
                let open = gate.0.lock().unwrap();
                drop(gate.1.wait_while(open, |open| !*open).unwrap());
            }
            answer(peer, 200, b"x")
        }
    });
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    let held = format!("/http02/fetch?url=http://127.0.0.1:{}/held", upstream.port());
    let mut waiting: Vec<Connection> = (0..2)
        .map(|_| {
            let mut connection = Connection::open(node.ingress());
            connection.start(&Request::get(&held));
            connection
        })
        .collect();
    eventually("two requests are held", PATIENCE, || {
        (upstream.received().len() == 2).then_some(())
    });
    let url = format!("http://127.0.0.1:{}/", upstream.port());
    let (said, logged) = refused(&node, Guest::Http02, &url);
    assert!(said.contains("ConnectionLimitReached"), "{said}");
    assert!(logged[0].contains("`outbound.at_once_per_app` reached: 2"), "{logged:?}");
    fetch(&node, Guest::Http03, "", &url).expect(200);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for connection in &mut waiting {
        assert_eq!(connection.read_answer(false).unwrap().status, 200);
    }
    fetch(&node, Guest::Http02, "", &url).expect(200);
}

/// When the client goes, so does what was asked in its name.
#[test]
fn a_client_that_goes_away_takes_its_requests_along() {
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|request, peer| {
        if request.target() == "/stream" {
            peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\nabc")?;
        }
        upstream::wait_for_end(peer);
        Ok(())
    });
    grant(&node, &[format!("http://127.0.0.1:{}", upstream.port())]);
    for guest in SENDERS {
        for path in ["silent", "stream"] {
            let url = format!("http://127.0.0.1:{}/{path}", upstream.port());
            let mut connection = Connection::open(node.ingress());
            connection.start(&Request::get(&format!("/{}/fetch?url={url}", guest.app())));
            eventually("the server is asked", PATIENCE, || (upstream.open() == 1).then_some(()));
            connection.reset();
            eventually("the server is left", PATIENCE, || (upstream.open() == 0).then_some(()));
        }
    }
    node.idle();
}

#[test]
fn tls_with_a_private_authority() {
    let folder = tempfile::tempdir().unwrap();
    let reply = |request: &upstream::Received, peer: &mut dyn upstream::Peer| {
        answer(peer, 200, request.target().as_bytes())
    };
    let (upstream, ca) = Upstream::with_tls(folder.path(), reply);
    let hosts = [
        format!("https://localhost:{}", upstream.port()),
        format!("https://127.0.0.1:{}", upstream.port()),
    ];
    let node = Node::with_guests(&format!("{OPEN}ca = {:?}\n", ca.display().to_string()));
    grant(&node, &hosts);
    let stranger = Node::with_guests(OPEN);
    grant(&stranger, &hosts);
    for guest in SENDERS {
        let answer = fetch(&node, guest, "", &format!("{}/x", hosts[0])).expect(200);
        assert_eq!(answer.text(), "/x", "{guest:?}");
        // The certificate is for a name, and this is another one.
        let (said, _) = refused(&node, guest, &hosts[1]);
        assert!(said.contains("TlsCertificateError"), "{guest:?}: {said}");
        let (said, logged) = refused(&stranger, guest, &hosts[0]);
        assert!(said.contains("TlsCertificateError"), "{guest:?}: {said}");
        assert!(logged[0].contains("UnknownIssuer"), "{guest:?}: {logged:?}");
    }
}

/// Through the node's own door a request is one from outside, and such calls cannot go on for ever.
#[test]
fn loops_through_the_front_door_end() {
    let node = Node::with_guests(OPEN);
    let address = format!("http://127.0.0.1:{}", node.ingress().port());
    grant(&node, std::slice::from_ref(&address));
    for guest in SENDERS {
        let url = format!("{address}/{}", guest.app());
        let answer = node.get(&format!("/{}/again?url={url}", guest.app()));
        assert_eq!(answer.status, 508, "{guest:?}: {answer:?}");
        let labels = [("app", guest.app()), ("reason", "loop_detected")];
        eventually("it is counted", PATIENCE, || {
            (node.metrics().sum("faas_rejected_total", &labels) == 1.0).then_some(())
        });
        let labels = [("app", guest.app()), ("code", "5xx")];
        assert_eq!(node.metrics().sum("faas_outbound_requests_total", &labels), 9.0);
    }
    // Unless it was opened, the door is closed from inside.
    let node = Node::with_guests("");
    let address = format!("http://127.0.0.1:{}", node.ingress().port());
    grant(&node, std::slice::from_ref(&address));
    let (said, _) = refused(&node, Guest::Http02, &address);
    assert!(said.contains("DestinationIpProhibited"), "{said}");
}

/// A grant that cannot be meant is refused when it is deployed, with what to write instead.
#[test]
fn bad_grants_are_refused() {
    let node = Node::with_guests("");
    for (host, hint) in [
        ("*", "name each host"),
        ("api.stripe.com", "https://api.stripe.com"),
        ("https://api.stripe.com/v1", "a grant is for a whole server"),
        ("http://2130706433", "no host name"),
        ("http://orders.internal", "needs no grant"),
    ] {
        let settings = json!({"grants": {"outbound": [host]}});
        let function = Deploy::new("main", Guest::Http02.wasm(), settings);
        let answer = node.try_deploy_functions("app", &[function]);
        assert!((400..500).contains(&answer.status), "{host}: {answer:?}");
        assert!(answer.text().contains(hint), "{host}: {answer:?}");
    }
}

/// The SDK's way, for both of its WASIs: bodies stream both ways, and at the same time.
#[test]
fn functions_in_rust_fetch() {
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|request, peer| match request.target() {
        "/echo" => answer(peer, 207, &request.body),
        // It answers before it has read anything, as far as the function can tell.
        "/early" => peer.write_all(b"HTTP/1.1 413 Whatever\r\ncontent-length: 0\r\n\r\n"),
        _ => {
            let head = format!("HTTP/1.1 200 OK\r\nx-length: {}\r\n", request.body.len());
            peer.write_all(head.as_bytes())?;
            peer.write_all(b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        }
    });
    let url = format!("http://127.0.0.1:{}", upstream.port());
    for wasm in fetchers() {
        let settings = json!({"grants": {"outbound": [url]}});
        let main = Deploy::new("main", wasm, settings);
        let echo = Deploy::new("echo", Guest::Http02.wasm(), json!({"private": true}));
        node.deploy_functions("proxy", &[main, echo]);
        let ask = |request: Request| node.send(&request);
        let post = |target: &str, length: usize| {
            Request::post(&format!("/proxy/?{target}"), vec![b'x'; length])
        };
        let answer = ask(Request::get(&format!("/proxy/?{url}/a"))).expect(200);
        assert_eq!((answer.text().as_str(), answer.header("x-length")), ("abc", Some("0")));
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.field("transfer-encoding"), None, "{received:?}");
        for length in [3, 5_000_000] {
            let answer = ask(post(&format!("{url}/echo"), length));
            assert_eq!((answer.status, answer.body.len()), (207, length));
            // Between functions the echo is read while the request is still being sent.
            let answer = ask(post("http://echo.internal/echo", length));
            assert_eq!((answer.status, answer.body.len()), (200, length));
        }
        let head = ask(Request::new("HEAD", &format!("/proxy/?{url}/a")));
        assert_eq!(head.status, 200, "{head:?}");
        // What cannot be had is a 502, and the log says why.
        let answer = ask(Request::get("/proxy/?https://other.example/"));
        assert_eq!((answer.status, answer.header("x-faas-error")), (502, None), "{answer:?}");
        let said = node.messages("proxy", answer.header("x-request-id").unwrap()).join("\n");
        assert!(said.contains("https://other.example is not granted"), "{said}");
        assert!(said.contains("grants.outbound"), "{said}");
    }
}
