//! HTTP as clients see it: the table of failures (DESIGN §3), and what every answer has.

use bytes::Bytes;
use faas_api::ErrorCode;
use faas_tests::{
    Answer, Connection, Node, Request,
    artifacts::{Guest, says},
    block_on, eventually,
    hyper_client::{Body, Client, Protocol, collect, empty, full},
};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::{collections::BTreeSet, convert::Infallible, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

fn path(guest: Guest, rest: &str) -> String {
    format!("/{}{rest}", guest.app())
}

/// Checks what every answer of a version has.
#[track_caller]
fn is_labelled(answer: &Answer) {
    let id = answer.header("x-request-id").expect("an id");
    assert!(!id.is_empty() && id != "forged", "{answer:?}");
    assert_eq!(answer.header("x-faas-version"), Some("v1"), "{answer:?}");
}

#[test]
fn failures_of_a_function() {
    let node = Node::with_guests("[limits]\ncpu_ms = 200\nwall_ms = 1000\nfirst_byte_ms = 1000\n");
    for guest in Guest::ALL {
        let fails = |target: &str, code: ErrorCode| {
            let answer = node.get(&path(guest, target));
            answer.failure(code);
            is_labelled(&answer);
            assert!(!answer.text().contains("xyzzy"), "text of a guest: {answer:?}");
            assert!(!answer.text().contains("wasm"), "internals: {answer:?}");
        };
        fails("/trap", ErrorCode::GuestTrap);
        fails("/spin", ErrorCode::CpuTime);
        fails("/sleep?ms=60000", ErrorCode::WallTime);
        fails("/exit?code=3", ErrorCode::GuestExit);
        match guest {
            // Its bindings panic when it waits for nothing.
            Guest::Http03 => fails("/no-response", ErrorCode::GuestTrap),
            _ => fails("/no-response", ErrorCode::GuestNoResponse),
        }
        // A Rust program that panics ends in a trap, or exits where it has a `main`.
        let answer = node.get(&path(guest, "/panic")).expect(500);
        assert!(!answer.text().contains("xyzzy"), "{answer:?}");
        // The one who may read the log finds the words there.
        let log = node.cli(["logs", guest.app()]).run().expect(0).stdout;
        assert!(log.contains("xyzzy"), "{guest:?}: {log}");
        assert_eq!(node.get(&path(guest, "/hello")).expect(200).text(), "hello\n");
    }
}

/// An exit that is no failure is the end of a CGI program, and no answer of a component.
#[test]
fn an_exit_without_failure() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let answer = node.get(&path(guest, "/exit?code=0")).expect(500);
        let code = answer.header("x-faas-error").unwrap();
        assert!(matches!(code, "guest_no_response" | "guest_exit"), "{guest:?}: {answer:?}");
    }
}

#[test]
fn answers_that_http_does_not_allow() {
    let node = Node::with_guests("[limits]\nfirst_byte_ms = 2000\n");
    let mut problems = Vec::new();
    for guest in Guest::ALL {
        let shown = ["short", "long", "twice", "status", "informational", "control"];
        let of_programs = ["colon", "endless", "nothing"].into_iter().filter(|_| guest.is_cgi());
        for what in shown.into_iter().chain(of_programs) {
            if let Err(problem) = bad_answer(&node, guest, what) {
                problems.push(format!("{guest:?} {what}: {problem}"));
            }
        }
        // Fields that concern a connection, or that only the node may set, are not passed on.
        for what in ["chunked", "connection", "platform"] {
            let answer = node.get(&path(guest, &format!("/bad?what={what}")));
            if answer.status == 200 {
                is_labelled(&answer);
                for name in ["upgrade", "x-faas-error"] {
                    assert_eq!(answer.header(name), None, "{guest:?} {what}: {answer:?}");
                }
            } else if let Err(problem) = refused(guest, &answer) {
                problems.push(format!("{guest:?} {what}: {problem}"));
            }
        }
        if !guest.is_cgi() {
            let answer = node.get(&path(guest, "/bad?what=error")).expect(500);
            assert!(!answer.text().contains("xyzzy"), "{answer:?}");
        }
        assert_eq!(node.get(&path(guest, "/hello")).expect(200).text(), "hello\n");
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Such an answer is replaced, or breaks off, or loses what is not allowed; a client never gets
/// anything that it could take for two answers or for a whole one that it is not.
fn bad_answer(node: &Node, guest: Guest, what: &str) -> Result<(), String> {
    let mut connection = Connection::open(node.ingress());
    connection.start(&Request::get(&path(guest, &format!("/bad?what={what}"))));
    let head = connection.read_head(false).map_err(|error| format!("no answer: {error}"))?;
    let (mut body, mut piece) = (Vec::new(), [0; 4096]);
    let end = loop {
        match connection.read_body(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(length) => body.extend_from_slice(&piece[..length]),
            Err(error) => break Err(error),
        }
    };
    let answer = Answer { body, ..head };
    match (what, answer.status, end) {
        // What was promised did not come, and the client can see that.
        ("short", 200, Err(_)) if answer.header("content-length") == Some("10") => Ok(()),
        ("long", 200, _) if answer.body == b"abc" => Ok(()),
        (_, 500 | 502 | 504, Ok(())) => refused(guest, &answer),
        (_, _, end) => Err(format!("{answer:?} {end:?}")),
    }
}

fn refused(guest: Guest, answer: &Answer) -> Result<(), String> {
    is_labelled(answer);
    let code = answer.header("x-faas-error").unwrap_or_default();
    // Some a component cannot even make: it traps on its own.
    let own = ["guest_trap", "guest_no_response", "guest_exit"];
    match code == "bad_response" || !guest.is_cgi() && own.contains(&code) {
        true => Ok(()),
        false => Err(format!("{answer:?}")),
    }
}

/// Whether it is replaced or breaks off: a client, or a proxy that would send the request again,
/// must not find that nothing was answered at all.
#[test]
fn an_answer_of_a_wrong_length_is_still_an_answer() {
    let node = Node::with_guests("");
    let mut silent = Vec::new();
    for guest in Guest::ALL {
        for what in ["short", "long"] {
            let target = path(guest, &format!("/bad?what={what}"));
            let empty = (0..150).filter(|_| {
                let mut connection = Connection::open(node.ingress());
                connection.start(&Request::get(&target));
                connection.read_head(false).is_err()
            });
            let empty = empty.count();
            if empty > 0 {
                silent.push(format!("{guest:?} {what}: {empty} of 150"));
            }
        }
    }
    assert!(silent.is_empty(), "closed without an answer: {silent:?}");
}

/// An answer that has begun cannot be replaced; it must not look whole.
#[test]
fn an_answer_that_breaks_off() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&path(guest, "/half?pieces=3&bytes=50000")));
        assert_eq!(connection.read_head(false).unwrap().status, 200);
        let mut piece = vec![0; 4096];
        let end = loop {
            match connection.read_body(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        assert!(end.is_err(), "{guest:?}: it looks whole");
        let over_http2 = block_on(async {
            let mut client = Client::open(node.ingress(), Protocol::Http2).await?;
            client.get("127.0.0.1", &path(guest, "/half?pieces=3&bytes=50000")).await
        });
        assert!(over_http2.is_err(), "{guest:?}: it looks whole");
    }
}

#[test]
fn limits_of_requests() {
    let node = Node::with_guests("[limits]\nrequest_body_bytes = 100000\n");
    let answer = node.get(&format!("/http03/{}", "x".repeat(20_000)));
    answer.failure(ErrorCode::UriTooLong);
    assert_eq!(answer.header("connection"), Some("close"));
    let wide = Request::get("/http03/hello").header("x", &"x".repeat(70_000));
    node.send(&wide).failure(ErrorCode::HeadersTooLarge);
    let many = (0..101).fold(Request::get("/http03/hello"), |request, number| {
        request.header(&format!("x-{number}"), "x")
    });
    node.send(&many).failure(ErrorCode::HeadersTooLarge);
    // What is just below each limit is not over it.
    let target = format!("/http03/hello?{}", "x".repeat(16_384 - "/http03/hello?".len()));
    node.get(&target).expect(200);
    node.send(&Request::get("/http03/hello").header("x", &"x".repeat(65_000))).expect(200);
    for guest in Guest::ALL {
        limits_of_bodies(&node, guest);
    }
}

fn limits_of_bodies(node: &Node, guest: Guest) {
    let fits = Request::post(&path(guest, "/length"), vec![b'x'; 100_000]);
    assert_eq!(node.send(&fits).expect(200).text(), "100000\n");
    // A length that is announced is enough to say no; nothing of the body is sent here.
    let head = |rest: &str| {
        format!("POST {} HTTP/1.1\r\nhost: a\r\n{rest}\r\n\r\n", path(guest, "/length"))
    };
    let mut connection = Connection::open(node.ingress());
    connection.write(head("content-length: 100001").as_bytes()).unwrap();
    let answer = connection.read_answer(false).unwrap();
    answer.failure(ErrorCode::BodyTooLarge);
    is_labelled(&answer);
    assert!(connection.is_closed());
    // Without one it is counted.
    let mut connection = Connection::open(node.ingress());
    connection.write(head("transfer-encoding: chunked").as_bytes()).unwrap();
    let chunk = [b"186a1\r\n".to_vec(), vec![b'x'; 100_001], b"\r\n".to_vec()].concat();
    let sent = connection.write(&chunk);
    let answer = connection.read_answer(false).unwrap_or_else(|error| panic!("{error} {sent:?}"));
    answer.failure(ErrorCode::BodyTooLarge);
    is_labelled(&answer);
    assert!(connection.is_closed());
}

#[test]
fn nobody_there() {
    let node = Node::with_guests("");
    for request in [
        Request::get("/nobody/"),
        Request::get("/"),
        Request::get("/favicon.ico"),
        Request::get("/").header("host", "nobody.localhost"),
        Request::get("/http03@v2/hello"),
        Request::post("/nobody/", "a body"),
    ] {
        let answer = node.send(&request);
        answer.failure(ErrorCode::NotFound);
        assert_eq!(answer.header("x-faas-version"), None);
    }
    for method in ["CONNECT", "TRACE"] {
        let answer = node.send(&Request::new(method, "/http03/hello"));
        assert!(matches!(answer.status, 400 | 405), "{answer:?}");
        assert!(answer.header("x-request-id").is_some());
    }
}

#[test]
fn every_answer_has_an_id_of_its_own() {
    let node = Node::with_guests("");
    let mut ids = BTreeSet::new();
    let mut connection = Connection::open(node.ingress());
    for _ in 0..5 {
        for guest in Guest::ALL {
            for target in ["/hello", "/trap", "/empty", "/status?code=404", "/slow?pieces=2&ms=1"] {
                let request = Request::get(&path(guest, target)).header("x-request-id", "forged");
                let answer = connection.ask(&request);
                is_labelled(&answer);
                ids.insert(answer.header("x-request-id").unwrap().to_owned());
            }
        }
    }
    assert_eq!(ids.len(), 100);
}

#[test]
fn statuses_and_methods_pass() {
    let node = Node::with_guests("");
    let mut connection = Connection::open(node.ingress());
    for guest in Guest::ALL {
        for status in [200, 201, 202, 203, 301, 400, 404, 418, 451, 500, 503, 599] {
            let target = path(guest, &format!("/status?code={status}"));
            let answer = connection.ask(&Request::get(&target)).expect(status);
            assert_eq!(answer.text(), "status\n");
            assert_eq!(answer.header("x-faas-error"), None, "it is the function's own");
            is_labelled(&answer);
        }
        for status in [204, 304] {
            let target = path(guest, &format!("/status?code={status}"));
            let answer = connection.ask(&Request::get(&target)).expect(status);
            assert_eq!(answer.body, b"", "{guest:?} {status}");
        }
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get"] {
            let answer = connection.ask(&Request::new(method, &path(guest, "/headers")));
            let method = format!("method {method}\n");
            assert!(answer.text().starts_with(&method), "{guest:?} {answer:?}");
        }
    }
}

/// RFC 9110 §15.3.6: a 205 has no content, whatever the function gave it.
#[test]
fn a_reset_has_no_content() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let answer = node.get(&path(guest, "/status?code=205"));
        assert!(matches!(answer.status, 205 | 502), "{guest:?}: {answer:?}");
        assert!(answer.status != 205 || answer.body.is_empty(), "{guest:?}: {answer:?}");
    }
}

/// DESIGN §5: what is finished when the function first yields goes out in one piece.
#[test]
fn a_finished_answer_has_its_length() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        // A guest that takes long goes on elsewhere, and on a busy machine everything takes long.
        let length = eventually("it is finished at once", PATIENCE, || {
            let answer = node.get(&path(guest, "/hello")).expect(200);
            answer.header("content-length").map(str::to_owned)
        });
        assert_eq!(length, "6", "{guest:?}");
    }
}

#[test]
fn head_is_get_without_its_body() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        for target in ["/hello", "/headers", "/trap", "/slow?pieces=2&ms=1", "/stream?kib=100"] {
            let target = path(guest, target);
            let get = connection.ask(&Request::get(&target));
            let head = connection.ask(&Request::new("HEAD", &target));
            assert_eq!(head.status, get.status, "{guest:?} {target}");
            assert_eq!(head.header("content-type"), get.header("content-type"), "{target}");
            assert_eq!(head.body, b"");
            is_labelled(&head);
        }
        // The connection is where it should be.
        assert_eq!(connection.ask(&Request::get(&path(guest, "/hello"))).text(), "hello\n");
    }
    let missing = node.send(&Request::new("HEAD", "/nobody/"));
    assert_eq!((missing.status, missing.body.len()), (404, 0));
}

#[test]
fn continue_is_said_when_the_guest_reads() {
    let node = Node::with_guests("[limits]\nrequest_body_bytes = 1000\n");
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        let head = |target: &str, length: u32| {
            format!(
                "POST {} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\
                 \r\n\r\n",
                path(guest, target)
            )
        };
        connection.write(head("/length", 5).as_bytes()).unwrap();
        assert_eq!(connection.read_head(false).unwrap().status, 100, "{guest:?}");
        connection.write(b"hello").unwrap();
        assert_eq!(connection.read_answer(false).unwrap().expect(200).text(), "5\n");
        // Whoever does not want the body says so at once.
        for (target, length, status) in
            [("/length", 1001, 413), ("/ignore", 1000, 200), ("/status?code=403", 9, 403)]
        {
            let mut connection = Connection::open(node.ingress());
            connection.write(head(target, length).as_bytes()).unwrap();
            let answer = connection.read_answer(false).unwrap();
            assert_eq!(answer.status, status, "{guest:?} {target} {answer:?}");
            // Nobody can tell whether the body comes after all.
            assert!(connection.is_closed(), "{guest:?} {target}");
        }
    }
}

#[test]
fn one_connection_many_requests() {
    let node = Node::with_guests("");
    let mut connection = Connection::open(node.ingress());
    for number in 0..100 {
        let guest = Guest::ALL[number % 4];
        let answer = match number % 3 {
            0 => connection.ask(&Request::get(&path(guest, "/count"))),
            1 => connection.ask(&Request::post(&path(guest, "/echo"), "1\n")),
            _ => connection.ask(&Request::get("/nobody/")),
        };
        let expected = if number % 3 == 2 { 404 } else { 200 };
        assert_eq!(answer.status, expected, "{number} {answer:?}");
        if expected == 200 {
            assert_eq!(answer.text(), "1\n", "{number}");
        }
        assert_eq!(answer.header("connection"), None, "{number} {answer:?}");
    }
    let close = Request::get("/http03/hello").header("connection", "close");
    let answer = connection.ask(&close).expect(200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(connection.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let node = Node::with_guests("");
    let mut connection = Connection::open(node.ingress());
    let mut bytes = Vec::new();
    for number in 0..40 {
        let guest = Guest::ALL[number % 4];
        // The earlier ones take longer.
        let target = match number {
            0..4 => path(guest, "/sleep?ms=200"),
            _ => path(guest, "/echo"),
        };
        bytes.extend(Request::post(&target, number.to_string()).to_bytes(node.ingress()));
    }
    connection.write(&bytes).unwrap();
    for number in 0..40 {
        let answer = connection.read_answer(false).unwrap();
        match number {
            // It does not read its body, which was there all the same.
            0..4 if answer.header("connection") == Some("close") => {
                assert!(connection.is_closed());
                return;
            }
            0..4 => assert_eq!(answer.text(), "slept\n"),
            _ => assert_eq!(answer.text(), number.to_string()),
        }
    }
}

#[test]
fn http_1_0() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        let head = format!("GET {} HTTP/1.0\r\n\r\n", path(guest, "/slow?pieces=3&ms=20"));
        connection.write(head.as_bytes()).unwrap();
        let answer = connection.read_answer(false);
        // hyper may answer with its own version; what counts is how the body ends.
        let answer = answer.unwrap_or_else(|error| panic!("{guest:?}: {error}"));
        assert_eq!(answer.header("transfer-encoding"), None, "{guest:?}: {answer:?}");
        assert_eq!(answer.body.len(), 30, "{guest:?}: {answer:?}");
    }
}

#[test]
fn http2_many_streams_on_one_connection() {
    let node = Node::with_guests("");
    block_on(async {
        let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
        let mut answers = Vec::new();
        for number in 0..60_usize {
            let target = path(Guest::ALL[number % 4], "/echo");
            let body = full(number.to_string());
            let request = client.request("POST", "127.0.0.1", &target, body);
            answers.push((number, client.send(request).await));
        }
        for (number, answer) in answers {
            let answer = collect(answer.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.body(), number.to_string().as_bytes());
            assert_eq!(answer.headers()["x-faas-version"], "v1");
            assert!(answer.headers().contains_key("x-request-id"));
            assert!(!answer.headers().contains_key("transfer-encoding"));
        }
    });
}

#[test]
fn http2_failures_are_the_same() {
    let node = Node::with_guests("[limits]\nrequest_body_bytes = 1000\n");
    block_on(async {
        let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
        for (target, size, code) in [
            ("/nobody/", 0, ErrorCode::NotFound),
            ("/http03/trap", 0, ErrorCode::GuestTrap),
            ("/cgi02/trap", 0, ErrorCode::GuestTrap),
            ("/http02/length", 2000, ErrorCode::BodyTooLarge),
        ] {
            let body = if size == 0 { empty() } else { full(vec![b'x'; size]) };
            let request = client.request("POST", "127.0.0.1", target, body);
            let answer = collect(client.send(request).await.unwrap()).await.unwrap();
            assert_eq!(answer.status(), code.status(), "{target}");
            assert_eq!(answer.headers()["x-faas-error"], code.as_str(), "{target}");
            let body: faas_api::ErrorBody = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(body.code, code);
        }
        let long = format!("/http03/{}", "x".repeat(17_000));
        let answer = client.get("127.0.0.1", &long).await.unwrap();
        assert_eq!(answer.status(), 414);
    });
}

/// A body in pieces, with trailers behind it.
fn with_trailers(pieces: &[&'static str], trailers: HeaderMap) -> Body {
    let frames = pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())));
    let frames: Vec<_> =
        frames.chain([Frame::trailers(trailers)]).map(Ok::<_, Infallible>).collect();
    BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)))
}

#[test]
fn trailers_go_through() {
    let node = Node::with_guests("");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    // What a trailer may not say.
    trailers.insert("content-type", HeaderValue::from_static("text/evil"));
    trailers.insert("x-forwarded-for", HeaderValue::from_static("1.2.3.4"));
    trailers.insert("x-faas-version", HeaderValue::from_static("v9"));
    for (guest, target) in
        [(Guest::Http03, "/echo"), (Guest::Http03, "/pass"), (Guest::Http02, "/echo")]
    {
        let (body, seen) = block_on(async {
            let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
            let body = with_trailers(&["one ", "two"], trailers.clone());
            let mut request = client.request("POST", "127.0.0.1", &path(guest, target), body);
            request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned();
            (body.to_bytes(), trailers)
        });
        assert_eq!(body, "one two", "{guest:?} {target}");
        let seen = seen.unwrap_or_else(|| panic!("{guest:?} {target}: no trailers"));
        let names: Vec<&str> = seen.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["x-checksum"], "{guest:?} {target}");
        assert_eq!(seen["x-checksum"], "abc");
    }
}

#[test]
fn trailers_of_a_chunked_request() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-checksum\r\n\
             transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n",
            path(guest, "/echo")
        );
        for _ in 0..2 {
            connection.write(request.as_bytes()).unwrap();
            let answer = connection.read_answer(false).unwrap().expect(200);
            assert_eq!(answer.text(), "hello", "{guest:?}");
        }
    }
}

#[test]
fn a_client_that_has_sent_all_still_gets_its_answer() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&path(guest, "/slow?pieces=3&ms=100&bytes=10")));
        connection.finish_sending();
        let answer = connection.read_answer(false).unwrap().expect(200);
        assert_eq!(answer.body.len(), 30, "{guest:?}");
        assert!(connection.is_closed());
    }
}

#[test]
fn the_access_log_has_one_line_for_each() {
    let node = Node::start();
    node.deploy("hello", &says("one"));
    let mut ids = Vec::new();
    for target in ["/hello/a?secret=1", "/nobody/b"] {
        ids.push(node.get(target).header("x-request-id").unwrap().to_owned());
    }
    for id in ids {
        let lines = || {
            let log = node.log();
            log.lines().filter(|line| line.contains(&id)).map(str::to_owned).collect::<Vec<_>>()
        };
        let found = eventually("it is in the log", PATIENCE, || {
            Some(lines()).filter(|lines| !lines.is_empty())
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].contains("secret"), "a query may hold secrets: {found:?}");
    }
}
