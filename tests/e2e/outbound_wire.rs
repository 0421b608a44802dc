//! Whatever a function puts into a request, its server gets one message, with one host and one
//! length; and whatever a server answers, its function gets one.

use crate::outbound::{OPEN, SENDERS, fetch, grant, refused};
use faas_tests::{
    Node,
    artifacts::Guest,
    upstream::{Upstream, answer},
};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A server that keeps every byte of each connection. It answers as soon as a head is there, asks for
/// the end of the connection, and reads on until that.
struct Recorder {
    port: u16,
    wires: Arc<Mutex<Vec<Vec<u8>>>>,
    done: Arc<Mutex<usize>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let recorder = Self { port, wires: Arc::default(), done: Arc::default() };
        let (wires, done) = (recorder.wires.clone(), recorder.done.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let wire = record(stream);
                wires.lock().unwrap().push(wire);
                *done.lock().unwrap() += 1;
            }
        });
        recorder
    }

    /// What was sent since the last time, once all of it is there.
    fn taken(&self) -> Vec<Vec<u8>> {
        // Connections are read one after the other: with this one, all before it are complete.
        let before = *self.done.lock().unwrap();
        let mut own = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        own.write_all(b"END\r\n\r\n").unwrap();
        own.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = own.read_to_end(&mut Vec::new());
        faas_tests::eventually("all is recorded", crate::outbound::PATIENCE, || {
            let wires = self.wires.lock().unwrap();
            (*self.done.lock().unwrap() > before && wires.last()?.starts_with(b"END")).then_some(())
        });
        let mut wires = std::mem::take(&mut *self.wires.lock().unwrap());
        wires.pop();
        wires
    }
}

fn record(mut stream: TcpStream) -> Vec<u8> {
    let (mut wire, mut piece, mut answered) = (Vec::new(), [0; 4096], false);
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        wire.extend(&piece[..read]);
        if !answered && is_whole(&wire) {
            answered = true;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx");
        }
    }
    wire
}

/// Head and body are there, as far as the head tells.
fn is_whole(wire: &[u8]) -> bool {
    let Some((head, body)) = split(wire) else { return false };
    match (values(&head, "content-length").first(), values(&head, "transfer-encoding").first()) {
        (Some(length), _) => body.len() >= length.parse().unwrap_or(0),
        (None, Some(_)) => body.ends_with(b"0\r\n\r\n"),
        (None, None) => true,
    }
}

fn split(wire: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let end = wire.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&wire[..end]).into_owned();
    Some((head.split("\r\n").map(str::to_owned).collect(), &wire[end + 4..]))
}

fn values(head: &[String], name: &str) -> Vec<String> {
    let fields = head.iter().skip(1).filter_map(|line| line.split_once(':'));
    let named = fields.filter(|(other, _)| other.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim().to_owned()).collect()
}

/// The bytes of a connection are exactly one request for this host.
fn is_one_message(wire: &[u8], host: &str) -> Result<(), String> {
    let (head, body) = split(wire).ok_or("no head")?;
    let fail = |what: &str| Err(format!("{what}: {head:#?}"));
    let line: Vec<&str> = head[0].split(' ').collect();
    let [_, target, "HTTP/1.1"] = line.as_slice() else { return fail("request line") };
    if !(target.starts_with('/') || *target == "*") {
        return fail("target");
    }
    if head.iter().any(|line| line.contains(['\r', '\n', '\0'])) {
        return fail("a bare end of line");
    }
    if head.iter().skip(1).any(|line| line.starts_with([' ', '\t']) || !line.contains(':')) {
        return fail("no field");
    }
    if values(&head, "host") != [host] {
        return fail("host");
    }
    for name in ["connection", "te", "upgrade", "expect", "keep-alive", "proxy-connection"] {
        if !values(&head, name).is_empty() {
            return fail(name);
        }
    }
    let (lengths, codings) = (values(&head, "content-length"), values(&head, "transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) if body.is_empty() => Ok(()),
        ([length], []) if length.parse() == Ok(body.len()) => Ok(()),
        ([], [coding]) if coding == "chunked" => {
            one_chunked(body).map_err(|e| format!("{e}: {head:#?}"))
        }
        _ => fail("framing"),
    }
}

fn one_chunked(mut body: &[u8]) -> Result<(), &'static str> {
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").ok_or("chunk")?;
        let size = std::str::from_utf8(&body[..end]).map_err(|_| "chunk size")?;
        let size = usize::from_str_radix(size, 16).map_err(|_| "chunk size")?;
        body = body.get(end + 2 + size + 2..).ok_or("chunk data")?;
        if size == 0 {
            return if body.is_empty() { Ok(()) } else { Err("more than one message") };
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one exchange after the other")]
fn one_request_is_one_message() {
    let node = Node::with_guests(&format!("{OPEN}first_byte_timeout_ms = 3000\n"));
    let recorder = Recorder::start();
    let host = format!("127.0.0.1:{}", recorder.port);
    grant(&node, &[format!("http://{host}")]);
    let smuggled = "GET%20/evil%20HTTP/1.1%0d%0ahost:%20evil%0d%0a%0d%0a";
    let headers = [
        "x:1".to_owned(),
        "host:evil.test".to_owned(),
        "Host:evil.test&header=host:evil.test".to_owned(),
        format!("x:1%0d%0a%0d%0a{smuggled}"),
        "x:1%0ahost:%20evil.test".to_owned(),
        "x:1%0dx".to_owned(),
        "x:%00".to_owned(),
        "x%0d%0aevil:1".to_owned(),
        "x%20:1".to_owned(),
        ":1".to_owned(),
        "content-length:0".to_owned(),
        "content-length:3".to_owned(),
        "content-length:5".to_owned(),
        "content-length:%2B3".to_owned(),
        "content-length:3,3".to_owned(),
        "content-length:3&header=content-length:3".to_owned(),
        "content-length:3&header=content-length:9".to_owned(),
        "Content-Length:3&header=content-length:0".to_owned(),
        "transfer-encoding:chunked".to_owned(),
        "transfer-encoding:chunked&header=content-length:3".to_owned(),
        "transfer-encoding:identity".to_owned(),
        "Transfer-Encoding:%0bchunked".to_owned(),
        "connection:close".to_owned(),
        "connection:content-length".to_owned(),
        "connection:host,x-gone&header=x-gone:1".to_owned(),
        "connection:upgrade&header=upgrade:h2c&header=http2-settings:AAMAAABkAAQ".to_owned(),
        "upgrade:websocket".to_owned(),
        "expect:100-continue".to_owned(),
        "te:trailers&header=trailer:content-length".to_owned(),
        "keep-alive:5&header=proxy-connection:keep-alive".to_owned(),
    ];
    let methods =
        ["GET", "POST", "HEAD", "DELETE", "PATCH", "G%20T", "GET%0d%0a", "CONNECT", "TRACE"];
    let paths = [
        "/",
        "/a%20b",
        "/%0d%0a%0d%0ax",
        "http://169.254.169.254/",
        "x",
        "//evil.test/",
        "*",
        "?q",
        "#f",
    ];
    let check = |guest: Guest, parameters: &str, url: &str| {
        let said = fetch(&node, guest, &format!("coded=1&{parameters}"), url);
        let wires = recorder.taken();
        assert!(wires.len() <= 1, "{guest:?} {parameters} {url}: {} messages", wires.len());
        for wire in &wires {
            let told = String::from_utf8_lossy(wire);
            // A request that its function did not finish is cut off, not finished by others.
            let unfinished = said.text().contains("error");
            let one = is_one_message(wire, &host);
            assert!(
                one.is_ok() || unfinished && !is_whole(wire),
                "{guest:?} {parameters} {url}: {one:?}\n{told}"
            );
            assert!(!told.contains("evil HTTP"), "{guest:?} {parameters} {url}: {told}");
        }
        !wires.is_empty()
    };
    for guest in SENDERS {
        assert!(check(guest, "", &format!("http://{host}/")), "{guest:?}: it works");
        for header in &headers {
            for rest in ["", "&method=POST", "&method=POST&body=3"] {
                check(guest, &format!("header={header}{rest}"), &format!("http://{host}/x"));
            }
        }
        for method in methods {
            check(guest, &format!("method={method}"), &format!("http://{host}/x"));
            check(guest, &format!("method={method}&body=3"), &format!("http://{host}/x"));
        }
        for path in paths {
            check(guest, "", &format!("http://{host}/{path}"));
        }
    }
}

/// What a server answers that could be read in two ways is refused, and what is the connection's is
/// taken out of trailers, too.
#[test]
fn one_answer_is_one_message() {
    let node = Node::with_guests(OPEN);
    let upstream = Upstream::start(|request, peer| {
        match request.target() {
        "/twice" => peer.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        ),
        "/two" => peer.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        ),
        "/list" => peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok"),
        "/signed" => peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok"),
        "/both" => peer.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n\
              2\r\nok\r\n0\r\n\r\n",
        ),
        "/trailers" => peer.write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\n\
              x-sum: 7\r\nx-faas-error: forged\r\ncontent-length: 99\r\nhost: evil\r\n\
              connection: x-hop\r\nx-hop: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        _ => answer(peer, 200, b"ok"),
    }
    });
    let url = format!("http://127.0.0.1:{}", upstream.port());
    grant(&node, std::slice::from_ref(&url));
    for guest in SENDERS {
        for path in ["twice", "two", "list", "signed"] {
            let (said, _) = refused(&node, guest, &format!("{url}/{path}"));
            assert!(said.contains("HttpProtocolError"), "{guest:?} {path}: {said}");
        }
        let both = fetch(&node, guest, "", &format!("{url}/both")).expect(200);
        assert_eq!(both.text(), "ok", "{guest:?}: {both:?}");
        let answer = fetch(&node, guest, "", &format!("{url}/trailers")).expect(200);
        assert_eq!(answer.text(), "ok", "{guest:?}: {answer:?}");
        let trailers = answer.trailers.iter().map(|(name, _)| name.as_str());
        let trailers: Vec<&str> = trailers.collect();
        assert!(trailers.iter().all(|name| *name == "x-sum"), "{guest:?}: {trailers:?}");
    }
}
