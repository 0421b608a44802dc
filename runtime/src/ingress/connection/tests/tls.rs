//! TLS: what is promised without it holds with it.

use super::*;
use crate::tls::tests::{ClientStream, Trust, for_localhost};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// A server with TLS, and who trusts it.
async fn start(patience: Patience) -> (Server, Trust) {
    with_slots(patience, 100).await
}

async fn with_slots(patience: Patience, slots: usize) -> (Server, Trust) {
    let (acceptor, trust) = for_localhost();
    (Server::with_tls(patience, slots, Some(acceptor)).await, trust)
}

struct Secure(ClientStream);

impl Secure {
    async fn connect(server: &Server, trust: &Trust) -> Self {
        Self(soon(trust.connect(server.address, "localhost", &["http/1.1"])).await.unwrap())
    }

    async fn send(server: &Server, trust: &Trust, text: impl AsRef<[u8]>) -> Self {
        let mut client = Self::connect(server, trust).await;
        client.say(text).await;
        client
    }

    async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Everything until the server closes, and whether it said goodbye.
    async fn rest(&mut self) -> (String, bool) {
        let mut bytes = Vec::new();
        let read = soon(self.0.read_to_end(&mut bytes)).await;
        (String::from_utf8_lossy(&bytes).into_owned(), read.is_ok())
    }

    async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.ends_with(text) {
            let mut byte = [0];
            match soon(self.0.read(&mut byte)).await {
                Ok(1) => seen.push(char::from(byte[0])),
                end => panic!("{end:?} after {seen:?}, waiting for {text:?}"),
            }
        }
        seen
    }

    fn reset(self) {
        let (socket, _) = self.0.into_inner();
        socket.set_zero_linger().unwrap();
    }
}

#[tokio::test]
async fn requests_are_answered_one_after_another_and_goodbye_is_said() {
    let (server, trust) = start(patience()).await;
    let mut client = Secure::send(&server, &trust, get("/a", "")).await;
    client.until("/a").await;
    client.say(post("/echo", "hello")).await;
    client.until("hello").await;
    client.say(get("/last", "connection: close\r\n")).await;
    let (answer, goodbye) = client.rest().await;
    assert!(answer.ends_with("/last") && goodbye, "{answer}");
    server.empty().await;
}

#[tokio::test]
async fn large_bodies_travel_both_ways() {
    let (server, trust) = start(patience()).await;
    let body = "0123456789abcdef".repeat(200_000);
    let client = Secure::connect(&server, &trust).await;
    let (mut read, mut write) = tokio::io::split(client.0);
    let request = post("/stream-echo", &body).replace("HTTP/1.1\r\n", "HTTP/1.0\r\n");
    let sending = async { write.write_all(request.as_bytes()).await.unwrap() };
    let mut answer = Vec::new();
    let reading = async { read.read_to_end(&mut answer).await.unwrap() };
    soon(async { tokio::join!(sending, reading) }).await;
    assert!(answer.ends_with(body.as_bytes()), "{} bytes", answer.len());
}

#[tokio::test]
async fn http2_is_spoken_where_it_was_agreed_on() {
    let (server, trust) = start(patience()).await;
    let stream = trust.connect(server.address, "localhost", &["h2", "http/1.1"]).await.unwrap();
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        let body = Empty::<Bytes>::new();
        Request::get(format!("https://localhost{path}")).body(body).unwrap()
    };
    let waits = sender.send_request(request("/wait"));
    server.begun().await;
    let response = soon(sender.send_request(request("/a"))).await.unwrap();
    assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "/a");
    // A drain lets streams finish, as without TLS.
    server.common.signals.drain.cancel();
    server.go.notify_one();
    let response = soon(waits).await.unwrap();
    assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "waited");
    soon(connection).await.unwrap().unwrap();
    server.empty().await;
}

#[tokio::test]
async fn silence_and_half_a_handshake_end_a_connection() {
    let (server, trust) = start(Patience { first_byte: SOON, ..patience() }).await;
    for first in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
        assert_eq!(server.send(first).await.rest().await, "", "{first:?}");
    }
    // One that shakes hands and says nothing more.
    let (answer, goodbye) = Secure::connect(&server, &trust).await.rest().await;
    assert!(answer.is_empty() && goodbye, "{answer}");
    server.empty().await;
}

#[tokio::test]
async fn a_client_without_tls_is_told() {
    let (server, _) = start(patience()).await;
    let answer = server.send(get("/a", "")).await.rest().await;
    assert!(answer.contains("x-code: tls_required") && answer.ends_with("ours"), "{answer}");
    server.send([0, 1, 2, 3, 4, 5, 6, 7, 8]).await.rest().await;
    server.empty().await;
    assert!(server.begun.lock().unwrap().try_recv().is_err(), "nothing was asked");
}

#[tokio::test]
async fn deadlines_hold() {
    let (server, trust) = start(Patience { head: SOON, ..patience() }).await;
    let (answer, goodbye) =
        Secure::send(&server, &trust, "GET / HTTP/1.1\r\nhost: a").await.rest().await;
    assert!(answer.contains("x-code: request_timeout") && goodbye, "{answer}");
    server.empty().await;

    let (server, trust) = start(Patience { keep_alive: SOON, ..patience() }).await;
    let mut idle = Secure::send(&server, &trust, get("/a", "")).await;
    idle.until("/a").await;
    assert_eq!(idle.rest().await, (String::new(), true));
    server.empty().await;

    let (server, trust) = start(Patience { write_idle: SOON, ..patience() }).await;
    let unread = Secure::send(&server, &trust, get("/endless", "")).await;
    assert_eq!(server.ended().await, "/endless");
    server.empty().await;
    drop(unread);
}

#[tokio::test]
async fn a_client_that_reads_slowly_keeps_its_answer() {
    let write_idle = Duration::from_millis(500);
    let (server, trust) = start(Patience { write_idle, ..patience() }).await;
    let mut client = Secure::send(&server, &trust, get("/endless", "")).await;
    let mut buffer = vec![0; 1 << 20];
    let since = std::time::Instant::now();
    while since.elapsed() < write_idle * 2 {
        assert!(soon(client.0.read(&mut buffer)).await.unwrap() > 0);
        tokio::time::sleep(write_idle / 50).await;
    }
}

#[tokio::test]
async fn a_reset_drops_the_answer() {
    let (server, trust) = start(patience()).await;
    let client = Secure::send(&server, &trust, get("/never", "")).await;
    server.begun().await;
    client.reset();
    assert_eq!(server.ended().await, "/never");
    server.empty().await;
}

#[tokio::test]
async fn the_end_of_what_a_client_sends_is_not_the_end_of_its_interest() {
    let (server, trust) = start(patience()).await;
    let mut client = Secure::send(&server, &trust, get("/wait", "")).await;
    client.0.shutdown().await.unwrap();
    server.begun().await;
    tokio::time::sleep(SOON).await;
    server.go.notify_one();
    let (answer, goodbye) = client.rest().await;
    assert!(answer.ends_with("waited") && goodbye, "{answer}");
    server.empty().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (server, trust) = start(patience()).await;
    for request in [get("/breaks", ""), "GET /breaks HTTP/1.0\r\n\r\n".to_owned()] {
        let mut client = Secure::send(&server, &trust, request).await;
        client.until("abc").await;
        server.go.notify_one();
        let (_, goodbye) = client.rest().await;
        assert!(!goodbye);
    }
    server.empty().await;
}

#[tokio::test]
async fn a_drain_closes_what_is_idle_and_lets_the_rest_finish() {
    let (server, trust) = start(patience()).await;
    let mut shaking = server.send(b"\x16\x03\x01").await;
    let mut silent = Secure::connect(&server, &trust).await;
    let mut idle = Secure::send(&server, &trust, get("/a", "")).await;
    idle.until("/a").await;
    let mut busy = Secure::send(&server, &trust, get("/wait", "")).await;
    for _ in 0..2 {
        server.begun().await;
    }
    server.common.signals.drain.cancel();
    assert_eq!(shaking.rest().await, "");
    assert_eq!(silent.rest().await, (String::new(), true));
    assert_eq!(idle.rest().await, (String::new(), true));
    server.go.notify_one();
    let (answer, goodbye) = busy.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("waited"), "{answer}");
    assert!(goodbye);
    server.empty().await;
}

#[tokio::test]
async fn a_connection_that_has_not_shaken_hands_makes_room() {
    let (server, trust) = with_slots(patience(), 1).await;
    let mut silent = server.connect().await;
    let mut client = Secure::send(&server, &trust, get("/a", "")).await;
    client.until("/a").await;
    assert_eq!(silent.rest().await, "");
}
