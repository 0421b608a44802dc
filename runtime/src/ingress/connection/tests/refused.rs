//! Heads that become no request: each is answered in the node's words, and ends its connection.

use super::*;

/// Sends it with a good request behind; returns the code of the answer.
async fn refusal(server: &Server, head: &str) -> String {
    for step in [usize::MAX, 7] {
        let mut client = server.connect().await;
        for piece in head.as_bytes().chunks(step) {
            let _ = client.0.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let _ = client.0.write_all(get("/behind", "").as_bytes()).await;
        let answer = client.rest().await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{head:?} {answer:?}");
        assert!(answer.ends_with("ours"), "{head:?} {answer:?}");
        if step == 7 {
            return answer
                .split_once("x-code: ")
                .unwrap()
                .1
                .split_once("\r\n")
                .unwrap()
                .0
                .to_owned();
        }
    }
    unreachable!()
}

#[tokio::test]
async fn what_hyper_would_let_through_and_what_it_refuses_itself() {
    let server = Server::start(patience()).await;
    let long = |n: usize| "x".repeat(n);
    for (head, code) in [
        // Ours.
        ("GET / HTTP/1.1\nhost: a\r\n\r\n".to_owned(), "bad_request"),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n".to_owned(), "bad_request"),
        ("GET / HTTP/1.1\r\nhost: a\r\n\n".to_owned(), "bad_request"),
        ("GET /#f HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "bad_request"),
        (get("/", "content-length: 0\r\ncontent-length: 0\r\n"), "bad_request"),
        (get("/", "content-length: 0\r\ntransfer-encoding: chunked\r\n"), "bad_request"),
        (get("/", "transfer-encoding: chunked\r\ncontent-length: 0\r\n"), "bad_request"),
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", long(2000)), "uri_too_long"),
        (get("/", &format!("x: {}\r\n", long(5000))), "headers_too_large"),
        (get("/", &"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(110)), "headers_too_large"),
        // hyper's.
        (get("/", &"x: y\r\n".repeat(101)), "headers_too_large"),
        ("GET / HTTP/0.9\r\nhost: a\r\n\r\n".to_owned(), "bad_request"),
        ("GET / HTTP/1.2\r\nhost: a\r\n\r\n".to_owned(), "bad_request"),
        ("GET / HTTP/2.0\r\nhost: a\r\n\r\n".to_owned(), "bad_request"),
        ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "bad_request"),
        ("GET /a b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "bad_request"),
        ("\u{1}\u{2}\r\n\r\n".to_owned(), "bad_request"),
        (get("/", "x : y\r\n"), "bad_request"),
        (get("/", "x: a\r\n b\r\n"), "bad_request"),
        (get("/", "x: a\0b\r\n"), "bad_request"),
        (get("/", "x: a\rb\r\n"), "bad_request"),
        (get("/", "nothing\r\n"), "bad_request"),
        (get("/", "content-length: +2\r\n"), "bad_request"),
        (get("/", "content-length: 18446744073709551616\r\n"), "bad_request"),
        (get("/", "transfer-encoding: identity\r\n"), "bad_request"),
        (get("/", "transfer-encoding: xchunked\r\n"), "bad_request"),
        (get("/", "transfer-encoding: chunked, identity\r\n"), "bad_request"),
    ] {
        assert_eq!(refusal(&server, &head).await, code, "{head:?}");
    }
    server.empty().await;
    assert!(server.begun.lock().unwrap().try_recv().is_err(), "nothing was served");
}

#[tokio::test]
async fn a_bad_head_behind_good_ones_is_refused_in_its_turn() {
    let server = Server::start(patience()).await;
    let bad = "GET /bad HTTP/1.1\nhost: a\r\n\r\n";
    for first in [
        get("/a", ""),
        post("/echo", "/a"),
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n/a\r\n0\r\n\r\n"
            .into(),
    ] {
        let answers = server.send(first.clone() + bad).await.rest().await;
        let (good, refused) = answers.split_once("/aHTTP/1.1 ").unwrap();
        assert!(good.starts_with("HTTP/1.1 200"), "{first:?} {answers}");
        assert!(refused.contains("x-code: bad_request"), "{first:?} {answers}");
    }
    server.empty().await;
}

#[tokio::test]
async fn a_broken_body_reaches_the_service_as_an_error_and_ends_the_connection() {
    let server = Server::start(patience()).await;
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloGET / HTTP/1.1\r\n",
        "10000000000000000\r\n",
    ] {
        let answer = server.send(head.to_owned() + body + &get("/behind", "")).await.rest().await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{body:?} {answer}");
        assert!(answer.contains("body: "), "{body:?} {answer}");
    }
    let mut client =
        server.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabc").await;
    client.0.shutdown().await.unwrap();
    assert!(client.rest().await.contains("body: "));
    server.empty().await;
}

#[tokio::test]
async fn a_refused_client_gets_its_answer_though_it_is_still_sending() {
    let server = Server::start(patience()).await;
    let mut client = server.connect().await;
    let (mut read, mut write) = client.0.split();
    let request = format!("GET / HTTP/1.1\nhost: a\r\n\r\n{}", "x".repeat(500_000));
    let (_, answer) = soon(async {
        tokio::join!(write.write_all(request.as_bytes()), async {
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.map(|_| String::from_utf8(answer).unwrap())
        })
    })
    .await;
    assert!(answer.unwrap().ends_with("ours"));
}
