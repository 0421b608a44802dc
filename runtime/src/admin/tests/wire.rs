//! What only shows on a socket: time, half requests, and how serving ends.

use super::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Longer than anything here takes; a test that waits for it has failed.
const LONG: Duration = Duration::from_secs(30);

struct Client(TcpStream);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, text: &str) -> &mut Self {
        self.0.write_all(text.as_bytes()).await.unwrap();
        self
    }

    /// Everything until the server closes.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(LONG, self.0.read_to_end(&mut bytes)).await;
        read.expect("the server does not close").unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// What comes until this text has come.
    async fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.contains(end) {
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(LONG, self.0.read(&mut bytes)).await;
            let n = read.unwrap_or_else(|_| panic!("no more than {text:?}")).unwrap();
            assert!(n > 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
        text
    }
}

fn head(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n")
}

fn with_token(method: &str, target: &str, more: &str) -> String {
    head(method, target, &format!("authorization: Bearer {TOKEN}\r\n{more}"))
}

async fn ended(end: oneshot::Receiver<()>) {
    tokio::time::timeout(LONG, end).await.expect("serving does not end").unwrap();
}

#[tokio::test]
async fn requests_are_answered_one_after_another() {
    let node = Node::new().await;
    let (address, _end) = node.listen().await;
    let mut client = Client::connect(address).await;
    let first = client.send(&with_token("GET", "/v1/apps", "")).await.until("]}").await;
    assert!(
        first.starts_with("HTTP/1.1 200 OK\r\n") && first.contains("x-request-id: "),
        "{first}"
    );
    let close = with_token("GET", "/v1/apps/nobody", "connection: close\r\n");
    let second = client.send(&close).await.rest().await;
    assert!(second.starts_with("HTTP/1.1 404 Not Found\r\n"), "{second}");
}

#[tokio::test]
async fn a_silent_client_and_a_slow_head_are_not_waited_for() {
    let mut node = Node::new().await;
    node.patience.head = Duration::from_millis(50);
    let (address, _end) = node.listen().await;
    for text in ["", "GET /livez HT", "GET /livez HTTP/1.1\r\nhost: localhost\r\nx: "] {
        assert_eq!(Client::connect(address).await.send(text).await.rest().await, "", "{text:?}");
    }
    let mut client = Client::connect(address).await;
    let answer = client.send(&head("GET", "/livez", "")).await.rest().await;
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn a_body_is_not_read_before_its_head_is_found_good() {
    let node = Node::new().await;
    let (address, _end) = node.listen().await;
    let target = "/v1/apps/hello/deploy";
    for (request, status) in [
        (head("POST", target, "content-length: 9999999999\r\n"), "401"),
        (head("POST", target, "transfer-encoding: chunked\r\n"), "401"),
        (head("POST", target, "content-length: 500\r\nexpect: 100-continue\r\n"), "401"),
        (head("POST", target, "content-length: 5\r\norigin: http://evil.example\r\n"), "403"),
        (with_token("POST", target, "content-length: 1001\r\nexpect: 100-continue\r\n"), "413"),
        (with_token("POST", target, "content-length: 5\r\ncontent-type: text/css\r\n"), "415"),
        (
            with_token(
                "PUT",
                "/v1/apps/a/traffic",
                "content-length: 99999\r\ncontent-type: application/json\r\n",
            ),
            "413",
        ),
    ] {
        let answer = Client::connect(address).await.send(&request).await.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_only_writes_still_gets_to_read_why_it_was_refused() {
    let node = Node::new().await;
    let (address, _end) = node.listen().await;
    let mut client = Client::connect(address).await;
    client.send(&head("POST", "/v1/apps/hello/deploy", "content-length: 4000000\r\n")).await;
    client.send(&"x".repeat(4_000_000)).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn heads_have_limits() {
    let node = Node::new().await;
    let (address, _end) = node.listen().await;
    for (request, status) in [
        (head("GET", "/livez", &"x: y\r\n".repeat(70)), "431"),
        (head("GET", "/livez", &format!("x: {}\r\n", "y".repeat(20_000))), "431"),
        (head("GET", &format!("/{}", "y".repeat(70_000)), ""), "4"),
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".to_owned(), "400"),
        ("GET  /livez HTTP/1.1\r\n\r\n".to_owned(), "400"),
    ] {
        let mut client = Client::connect(address).await;
        let answer = client.send(&request).await.until("\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_upload_leaves_nothing() {
    let mut node = Node::new().await;
    let (address, _end) = node.listen().await;
    for framing in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        for accept in ["", "accept: application/x-ndjson\r\n"] {
            let mut client = Client::connect(address).await;
            let request =
                with_token("POST", "/v1/apps/hello/deploy", &format!("{framing}{accept}"));
            client.send(&request).await.send("5\r\nabcde\r\n").await;
            drop(client);
            node.uploads.recv().await.unwrap().unwrap_err();
        }
    }
    assert!(node.functions.get(&"hello".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_client_that_leaves_after_its_upload_leaves_a_version() {
    let mut node = Node::new().await;
    node.deployer.go.forget_permits(1000);
    let (address, _end) = node.listen().await;
    for accept in ["", "accept: application/x-ndjson\r\n"] {
        let mut client = Client::connect(address).await;
        let request =
            with_token("POST", "/v1/apps/hello/deploy", &format!("content-length: 5\r\n{accept}"));
        client.send(&request).await.send("abcde").await;
        assert_eq!(node.uploads.recv().await.unwrap(), Ok(5));
        drop(client);
        node.deployer.go.add_permits(1);
        node.done.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_drain_waits_for_deploys_and_answers_until_then() {
    let mut node = Node::new().await;
    node.add("hello", true).await;
    node.deployer.go.forget_permits(1000);
    let (address, end) = node.listen().await;
    let mut deploying = Client::connect(address).await;
    let request = with_token("POST", "/v1/apps/hello/deploy", "content-length: 5\r\n");
    deploying.send(&request).await.send("abcde").await;
    node.uploads.recv().await.unwrap().unwrap();
    let mut following = Client::connect(address).await;
    following.send(&with_token("GET", "/v1/apps/hello/logs?follow=true", "")).await;
    following.until("\r\n\r\n").await;
    let mut idle = Client::connect(address).await;
    idle.send(&head("GET", "/livez", "")).await.until("ok\n").await;

    node.shutdown.drain();
    assert!(following.until("0\r\n\r\n").await.ends_with("0\r\n\r\n"), "its log ends");
    let mut probe = Client::connect(address).await;
    let answer = probe.send(&head("GET", "/readyz", "")).await.until("stopping").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let mut late = Client::connect(address).await;
    let answer = late.send(&request).await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("shutting_down"), "{answer}");

    node.deployer.go.add_permits(1);
    let answer = deploying.rest().await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    ended(end).await;
    assert_eq!(idle.rest().await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_waits_no_longer_than_it_may() {
    let mut node = Node::new().await;
    node.patience.drain = Duration::from_millis(50);
    node.deployer.go.forget_permits(1000);
    let (address, end) = node.listen().await;
    let mut deploying = Client::connect(address).await;
    let request = with_token("POST", "/v1/apps/hello/deploy", "content-length: 5\r\n");
    deploying.send(&request).await.send("abcde").await;
    node.uploads.recv().await.unwrap().unwrap();
    node.shutdown.drain();
    let answer = deploying.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("shutting_down"), "{answer}");
    ended(end).await;
    node.deployer.go.add_permits(1);
    assert!(node.functions.get(&"hello".parse().unwrap()).await.is_err(), "it was cut off");
}

#[tokio::test]
async fn stopping_is_at_once() {
    let mut node = Node::new().await;
    node.deployer.go.forget_permits(1000);
    let (address, end) = node.listen().await;
    let mut deploying = Client::connect(address).await;
    let request = with_token("POST", "/v1/apps/hello/deploy", "content-length: 5\r\n");
    deploying.send(&request).await.send("abcde").await;
    node.uploads.recv().await.unwrap().unwrap();
    let _silent = Client::connect(address).await;
    node.shutdown.stop();
    ended(end).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let mut node = Node::new().await;
    node.patience.write = Duration::from_millis(50);
    let (address, _end) = node.listen().await;
    let mut client = Client::connect(address).await;
    // Asks for more than all buffers between the two hold, and reads none of it.
    let one = head("GET", "/v1/openapi.json", "");
    let mut asked = 0;
    while tokio::time::timeout(LONG, client.0.write_all(one.as_bytes())).await.unwrap().is_ok() {
        asked += 1;
        assert!(asked < 1_000_000, "the server holds on");
    }
}
