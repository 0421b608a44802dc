//! HTTP/1 that two parsers could read in two ways (research/reliability.md A2): refused, and
//! nothing behind it is ever answered.

use faas_api::ErrorCode;
use faas_tests::{Answer, Connection, Node, Request, artifacts::Guest};

/// A request that would be answered, if anybody took what stands behind for one.
const BEHIND: &str = "GET /http03/hello HTTP/1.1\r\nhost: a\r\n\r\n";

/// A `POST` with these lines in its head.
fn post(lines: &str, body: &str) -> String {
    format!("POST /http03/length HTTP/1.1\r\nhost: a\r\n{lines}\r\n{body}")
}

/// A `GET` with these lines in its head.
fn get(lines: &str) -> String {
    format!("GET /http03/hello HTTP/1.1\r\n{lines}\r\n")
}

/// Sends bytes with a good request behind them. There is one answer, and then the end.
#[track_caller]
fn only_answer(node: &Node, bytes: &[u8]) -> Answer {
    let mut connection = Connection::open(node.ingress());
    let whole = [bytes, BEHIND.as_bytes()].concat();
    // It may be closed before all is sent.
    let _ = connection.write(&whole);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let answer = connection.read_answer(false);
    let answer = answer.unwrap_or_else(|error| panic!("no answer to {shown:?}: {error}"));
    assert!(connection.is_closed(), "{shown:?}: something follows {answer:?}");
    answer
}

#[track_caller]
fn refused(node: &Node, bytes: &[u8], code: ErrorCode) {
    let answer = only_answer(node, bytes);
    answer.failure(code);
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
}

#[track_caller]
fn all_bad(node: &Node, table: &[String]) {
    for bytes in table {
        refused(node, bytes.as_bytes(), ErrorCode::BadRequest);
    }
    // Nobody got as far as a function, and the node goes on.
    let metrics = node.metrics();
    let counted = metrics.sum("faas_requests_total", &[]);
    assert_eq!(metrics.sum("faas_requests_total", &[("app", "-")]), counted);
    assert_eq!(node.get("/http03/hello").expect(200).text(), "hello\n");
}

#[test]
fn lengths_that_are_none_or_two() {
    let lengths =
        ["+2", "-1", "0x2", "18446744073709551616", "2, 2", "2,3", "2 2", "two", "", "2;"];
    let mut table: Vec<String> =
        lengths.iter().map(|length| post(&format!("content-length: {length}\r\n"), "ab")).collect();
    table.extend([
        post("content-length: 2\r\ncontent-length: 3\r\n", "ab"),
        post("content-length: 2\r\ncontent-length: 2\r\n", "ab"),
        post("content-length: 2\r\nContent-Length: 40\r\n", "ab"),
    ]);
    all_bad(&Node::with_guests(""), &table);
}

#[test]
fn transfer_codings_but_chunked() {
    let codings = [
        "identity",
        "chunked, identity",
        "xchunked",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "\"chunked\"",
        "chunked;q=1",
        "",
        ",chunked",
        "chunked,",
        "cow",
    ];
    let body = "2\r\nab\r\n0\r\n\r\n";
    let mut table: Vec<String> = codings
        .iter()
        .map(|coding| post(&format!("transfer-encoding: {coding}\r\n"), body))
        .collect();
    table.extend([
        post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", body),
        post("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", body),
        post("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", body),
        // Both framings at once: the oldest trick.
        post("content-length: 2\r\ntransfer-encoding: chunked\r\n", body),
        post("transfer-encoding: chunked\r\ncontent-length: 2\r\n", body),
        post("content-length: 12\r\ntransfer-encoding: identity\r\n", body),
        post("content-length: 12\r\ntransfer_encoding: chunked\r\ntransfer-encoding: x\r\n", body),
        // HTTP/1.0 has no transfer codings.
        format!(
            "POST /http03/length HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        ),
    ]);
    all_bad(&Node::with_guests(""), &table);
}

#[test]
fn lines_that_are_none() {
    let table = [
        get("host: a\r\nx : y\r\n"),
        get("host : a\r\n"),
        get("host: a\r\n x: y\r\n"),
        get("host: a\r\nx: y\r\n folded\r\n"),
        get("host: a\r\nx: y\r\n\tfolded\r\n"),
        get("host: a\r\nnothing\r\n"),
        get("host: a\r\n: y\r\n"),
        get("host: a\r\nx y: z\r\n"),
        get("host: a\r\nx\u{0}: z\r\n"),
        get("host: a\r\nx: y\u{0}z\r\n"),
        get("host: a\r\nx: y\rz\r\n"),
        get("host: a\r\nx: y\r\r\n"),
        get("host: a\r\nx(y): z\r\n"),
        get("host: a\r\ncontent-length : 5\r\n"),
        get("host: a\r\n\tcontent-length: 5\r\n"),
        get("host: a\r\ntransfer-encoding\t: chunked\r\n"),
        // Lines that end in LF alone.
        "GET /http03/hello HTTP/1.1\nhost: a\r\n\r\n".to_owned(),
        "GET /http03/hello HTTP/1.1\r\nhost: a\n\r\n".to_owned(),
        "GET /http03/hello HTTP/1.1\r\nhost: a\r\n\n".to_owned(),
        "GET /http03/hello HTTP/1.1\nhost: a\n\n".to_owned(),
        "\nGET /http03/hello HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET /http03/hello HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
    ];
    all_bad(&Node::with_guests(""), &table);
}

#[test]
fn request_lines_that_are_none() {
    let line = |line: &str| format!("{line}\r\nhost: a\r\n\r\n");
    let table = [
        line("GET /http03/hello"),
        line("GET /http03/hello HTTP/0.9"),
        line("GET /http03/hello HTTP/1.2"),
        line("GET /http03/hello HTTP/2.0"),
        line("GET /http03/hello HTTP/11"),
        line("GET /http03/hello HTTP/1.1 x"),
        line("GET /http03/hello http/1.1"),
        line("GET  /http03/hello HTTP/1.1"),
        line("GET /http03/hello  HTTP/1.1"),
        line(" GET /http03/hello HTTP/1.1"),
        line("GET\t/http03/hello\tHTTP/1.1"),
        line("GET /http03/he llo HTTP/1.1"),
        line("GET /http03/hello#frag HTTP/1.1"),
        line("GET http03/hello HTTP/1.1"),
        line("GET * HTTP/1.1"),
        line("OPTIONS * HTTP/1.1"),
        line("GET ftp://a/http03/hello HTTP/1.1"),
        line("GET a:80 HTTP/1.1"),
        line("G[E]T /http03/hello HTTP/1.1"),
        line("GET /http03/h\u{0}llo HTTP/1.1"),
        line("GET /http03/h\u{7f}llo HTTP/1.1"),
        line(&format!("{} /http03/hello HTTP/1.1", "X".repeat(65))),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
    ];
    all_bad(&Node::with_guests(""), &table);
}

#[test]
fn hosts_that_are_none_or_two() {
    let hosts = [
        "", "a/b@c", "a@b", "a, b", "a b", "a:b", "a:99999", "a:80:80", "[::1", "[x]", "a?b",
        "a#b", "a\\b", "a%2eb", "é",
    ];
    let mut table: Vec<String> =
        hosts.iter().map(|host| get(&format!("host: {host}\r\n"))).collect();
    table.extend([
        get(""),
        get("host: a\r\nhost: a\r\n"),
        get("host: a\r\nHost: b\r\n"),
        "GET http://a/http03/hello HTTP/1.1\r\nhost: b\r\n\r\n".to_owned(),
        "GET http://a/http03/hello HTTP/1.1\r\n\r\n".to_owned(),
        "GET http://x@a/http03/hello HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
    ]);
    all_bad(&Node::with_guests(""), &table);
}

#[test]
fn what_looks_odd_and_is_allowed() {
    let node = Node::with_guests("");
    for bytes in [
        "\r\n\r\nGET /http03/hello HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/http03/hello HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /http03/hello HTTP/1.1\r\nHOST:a\r\n\r\n",
        "GET /http03/hello HTTP/1.1\r\nhost:  \ta \t\r\nx:\r\n\r\n",
        "GET /http03/hello HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        "GET /http03/hello HTTP/1.1\r\nhost: a\r\nx: \u{e9}\u{fc}\r\n\r\n",
        "POST /http03/hello HTTP/1.1\r\nhost: a\r\ntransfer-encoding: ChunKed\r\n\r\n0\r\n\r\n",
    ] {
        let mut connection = Connection::open(node.ingress());
        connection.write(bytes.as_bytes()).unwrap();
        let answer = connection.read_answer(false).unwrap();
        assert_eq!(answer.status, 200, "{bytes:?} {answer:?}");
        assert_eq!(answer.text(), "hello\n");
        if answer.header("connection") != Some("close") {
            connection.write(BEHIND.as_bytes()).unwrap();
            assert_eq!(connection.read_answer(false).unwrap().status, 200, "{bytes:?}");
        }
    }
}

/// Chunks that are none: the guest must not take the body for a whole one, the client must not get
/// an answer to what stands behind.
#[test]
fn chunks_that_are_none() {
    let node = Node::with_guests("");
    let mut whole = Vec::new();
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\rX",
        "5\r\nhello\r\n0\r\nnothing\r\n\r\n",
    ] {
        for guest in Guest::ALL {
            let request = format!(
                "POST /{}/length HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}",
                guest.app()
            );
            let answer = only_answer(&node, request.as_bytes());
            if answer.status < 400 {
                whole.push(format!("{guest:?} {body:?}: {}", answer.text().trim()));
            }
        }
    }
    assert!(whole.is_empty(), "taken for whole bodies:\n{}", whole.join("\n"));
    assert_eq!(node.get("/http03/hello").expect(200).text(), "hello\n");
}

/// A body that the guest does not read is not taken for requests.
#[test]
fn a_body_is_never_a_request() {
    let node = Node::with_guests("");
    let hidden = BEHIND.repeat(50);
    for guest in Guest::ALL {
        for target in ["/ignore", "/trap", "/length", "/status?code=204"] {
            let target = format!("/{}{target}", guest.app());
            let plain = Request::post(&target, hidden.clone()).to_bytes(node.ingress());
            let chunked = format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
                 {:x}\r\n{hidden}\r\n0\r\n\r\n",
                hidden.len()
            );
            for bytes in [plain, chunked.into_bytes()] {
                let mut connection = Connection::open(node.ingress());
                let _ = connection.write(&bytes);
                connection.finish_sending();
                let answer = connection.read_answer(false).unwrap();
                assert_ne!(answer.text(), "hello\n", "{target}");
                assert!(connection.is_closed(), "{target}: something follows {answer:?}");
            }
        }
    }
    // Nor is one that is refused for its length, or sent to nobody.
    let node = Node::with_guests("[limits]\nrequest_body_bytes = 10\n");
    for target in ["/http03/length", "/nobody/"] {
        let mut connection = Connection::open(node.ingress());
        let _ = connection.write(&Request::post(target, hidden.clone()).to_bytes(node.ingress()));
        connection.finish_sending();
        assert!(connection.read_answer(false).unwrap().status >= 400);
        assert!(connection.is_closed(), "{target}");
    }
}

#[test]
fn good_requests_before_a_bad_one_are_answered() {
    let node = Node::with_guests("");
    let mut connection = Connection::open(node.ingress());
    let bytes = [BEHIND, &post("content-length: 2\r\n", "ab"), "GET / HTTP/1.1\nhost: a\r\n\r\n"];
    connection.write(bytes.concat().as_bytes()).unwrap();
    connection.write(BEHIND.as_bytes()).unwrap();
    assert_eq!(connection.read_answer(false).unwrap().text(), "hello\n");
    assert_eq!(connection.read_answer(false).unwrap().text(), "2\n");
    connection.read_answer(false).unwrap().failure(ErrorCode::BadRequest);
    assert!(connection.is_closed());
}

/// Byte by byte, as slow networks deliver.
#[test]
fn pieces_make_no_difference() {
    let node = Node::with_guests("");
    for (bytes, status) in [
        (post("content-length: 5\r\n", "hello"), 200),
        (post("transfer-encoding: chunked\r\n", "5;x=y\r\nhello\r\n0\r\n\r\n"), 200),
        (post("content-length: 5\r\ntransfer-encoding: chunked\r\n", ""), 400),
        (get("host: a\r\nx : y\r\n"), 400),
    ] {
        let mut connection = Connection::open(node.ingress());
        for byte in bytes.as_bytes() {
            if connection.write(&[*byte]).is_err() {
                break;
            }
        }
        let answer = connection.read_answer(false).unwrap();
        assert_eq!(answer.status, status, "{bytes:?} {answer:?}");
    }
}
