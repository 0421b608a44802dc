//! HTTP/1: deadlines, half-close, reset, pipelining, drain.

use super::*;

#[tokio::test]
async fn silence_ends_a_connection_before_anything_was_asked() {
    let server = Server::start(Patience { first_byte: SOON, ..patience() }).await;
    for first in ["", "P", "PRI * HTT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        assert_eq!(server.send(first).await.rest().await, "", "{first:?}");
    }
    server.empty().await;
}

#[tokio::test]
async fn a_head_must_come_to_an_end() {
    let server = Server::start(Patience { head: SOON, ..patience() }).await;
    let answer = server.send("GET / HTTP/1.1\r\nhost: a").await.rest().await;
    assert!(answer.contains("x-code: request_timeout") && answer.ends_with("ours"), "{answer}");
    // The next head of a connection, too.
    let mut client = server.send(get("/a", "")).await;
    client.until("/a").await;
    client.send("GET /").await;
    assert!(client.rest().await.contains("x-code: request_timeout"));
    // And one that comes a little at a time.
    let (mut read, mut write) = server.connect().await.0.into_split();
    write.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    let drip = tokio::spawn(async move {
        while write.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = soon(read.read_to_end(&mut answer)).await;
    assert!(String::from_utf8_lossy(&answer).contains("x-code: request_timeout"));
    soon(drip).await.unwrap();
    server.empty().await;
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_busy_one_does_not() {
    let server = Server::start(Patience { keep_alive: SOON, head: SOON, ..patience() }).await;
    let mut client = server.send(get("/wait", "")).await;
    server.begun().await;
    tokio::time::sleep(SOON * 3).await;
    server.go.notify_one();
    client.until("waited").await;
    assert_eq!(client.rest().await, "");
    server.empty().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_answer() {
    let server = Server::start(Patience { write_idle: SOON, ..patience() }).await;
    let client = server.send(get("/endless", "")).await;
    assert_eq!(server.ended().await, "/endless");
    server.empty().await;
    drop(client);
}

#[tokio::test]
async fn a_client_that_reads_slowly_keeps_its_answer() {
    let write_idle = Duration::from_millis(500);
    let server = Server::start(Patience { write_idle, ..patience() }).await;
    let mut client = server.send(get("/endless", "")).await;
    let mut buffer = vec![0; 1 << 20];
    let since = std::time::Instant::now();
    while since.elapsed() < write_idle * 2 {
        assert!(soon(client.0.read(&mut buffer)).await.unwrap() > 0);
        tokio::time::sleep(write_idle / 50).await;
    }
}

#[tokio::test]
async fn the_end_of_what_a_client_sends_is_not_the_end_of_its_interest() {
    let server = Server::start(patience()).await;
    let mut client = server.send(get("/wait", "")).await;
    client.0.shutdown().await.unwrap();
    server.begun().await;
    tokio::time::sleep(SOON).await;
    server.go.notify_one();
    assert!(client.rest().await.ends_with("waited"));
    server.empty().await;
}

#[tokio::test]
async fn a_reset_drops_the_answer() {
    let server = Server::start(patience()).await;
    let plain = server.send(get("/never", "")).await;
    server.begun().await;
    plain.reset();
    assert_eq!(server.ended().await, "/never");

    let mut half_closed = server.send(get("/never", "")).await;
    server.begun().await;
    half_closed.0.shutdown().await.unwrap();
    tokio::time::sleep(SOON).await;
    half_closed.reset();
    assert_eq!(server.ended().await, "/never");

    let pipelined = server.send(get("/never", "") + &get("/b", "")).await;
    server.begun().await;
    pipelined.reset();
    assert_eq!(server.ended().await, "/never");

    let mut within_body =
        server.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nab").await;
    server.begun().await;
    within_body.send("c").await;
    within_body.reset();
    assert_eq!(server.ended().await, "/echo");
    server.empty().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_whatever_their_bodies_are() {
    let server = Server::start(patience()).await;
    let chunked = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
                   3;x\r\ntwo\r\n1\r\n!\r\n0\r\na: b\r\n\r\n";
    let all = [
        get("/one", ""),
        chunked.to_owned(),
        post("/echo", "GET /no HTTP/1.1\r\n\r\n"),
        "\r\n".to_owned(),
        post("/ignored", "body"),
        get("/last", "connection: close\r\n"),
    ]
    .concat();
    for step in [all.len(), 1, 17] {
        let mut client = server.connect().await;
        for piece in all.as_bytes().chunks(step) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let answers = client.rest().await;
        let bodies: Vec<&str> = answers
            .split("HTTP/1.1 200 OK\r\n")
            .skip(1)
            .map(|answer| answer.split_once("\r\n\r\n").unwrap().1)
            .collect();
        assert_eq!(
            bodies,
            ["/one", "two!", "GET /no HTTP/1.1\r\n\r\n", "/ignored", "/last"],
            "{step}"
        );
    }
    server.empty().await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_ends_the_connection_and_spoils_nothing() {
    let server = Server::start(patience()).await;
    let body = get("/smuggled", "").repeat(20_000);
    let mut client = server.connect().await;
    let (mut read, mut write) = client.0.split();
    let request = post("/ignored", &body) + &get("/after", "");
    let (_, answer) = soon(async {
        tokio::join!(async { write.write_all(request.as_bytes()).await }, async {
            let mut answer = Vec::new();
            let _ = read.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        })
    })
    .await;
    assert!(answer.ends_with("/ignored"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    server.empty().await;
    assert_eq!(server.begun().await, "/ignored");
    assert!(server.begun.lock().unwrap().try_recv().is_err());
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let server = Server::start(patience()).await;
    let answer = server.send("GET /x HTTP/1.0\r\n\r\n").await.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("/x"), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_leave_gets_it_when_the_body_is_read() {
    let server = Server::start(patience()).await;
    let head =
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    let mut client = server.send(head).await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("hello").await;
    client.until("hello").await;
    let mut refused = server.send(head.replace("/echo", "/ignored")).await;
    let answer = refused.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn a_drain_closes_what_is_idle_and_lets_the_rest_finish() {
    let server = Server::start(patience()).await;
    let mut silent = server.connect().await;
    let mut idle = server.send(get("/a", "")).await;
    idle.until("/a").await;
    let mut busy = server.send(get("/wait", "")).await;
    let mut reading =
        server.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na").await;
    let mut half_a_head = server.send("GET /late HTTP/1.1\r\nhost").await;
    for _ in 0..3 {
        server.begun().await;
    }
    tokio::time::sleep(SOON).await;
    server.common.signals.drain.cancel();
    assert_eq!(silent.rest().await, "");
    assert_eq!(idle.rest().await, "");
    server.go.notify_one();
    let answer = busy.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("waited"), "{answer}");
    reading.send("b").await;
    assert!(reading.rest().await.ends_with("ab"));
    half_a_head.send(": a\r\n\r\n").await;
    let answer = half_a_head.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("/late"), "{answer}");
    server.empty().await;
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_drain_tells_clients_before_their_connections_close() {
    let server = Server::start(Patience { farewell: NEVER, ..patience() }).await;
    let mut idle = server.send(get("/a", "")).await;
    idle.until("/a").await;
    // Its answer has begun when nobody knew that it would be the last.
    let head = "POST /stream-echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n";
    let mut begun = server.send(head.to_owned() + "x").await;
    let seen = begun.until("\r\n\r\nx").await;
    assert!(!seen.contains("connection: close"), "{seen}");
    server.common.signals.leaving.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut told = server.send(get("/b", "")).await;
    let answer = told.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("/b"), "{answer}");
    server.common.signals.drain.cancel();
    tokio::time::sleep(SOON).await;
    begun.send("y").await;
    begun.until("y").await;
    for mut client in [idle, begun] {
        client.send(get("/c", "")).await;
        let answer = client.rest().await;
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("/c"), "{answer}");
    }
    server.empty().await;
}

#[tokio::test]
async fn what_waits_at_a_shared_door_is_left_for_the_next_node() {
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    door.set_nonblocking(true).unwrap();
    let address = door.local_addr().unwrap();
    let server = Server::start(patience()).await;
    let common = Arc::new(server.common.clone());
    let accept = || {
        let listener = TcpListener::from_std(door.try_clone().unwrap()).unwrap();
        let (begun, ended) = (mpsc::unbounded_channel().0, mpsc::unbounded_channel().0);
        let service = Service { go: server.go.clone(), begun, ended };
        (Door { listener, shared: true }, room(10), service)
    };
    common.signals.drain.cancel();
    let mut client = Client(TcpStream::connect(address).await.unwrap());
    client.send(get("/a", "")).await;
    let (door, room, service) = accept();
    soon(accept::accept(door, room, common, move |_| service.clone())).await;
    // The next one has signals of its own.
    let (door, room, service) = accept();
    let next = Server::start(patience()).await;
    let common = Arc::new(next.common.clone());
    tokio::spawn(accept::accept(door, room, common, move |_| service.clone()));
    client.until("/a").await;
}

#[tokio::test]
async fn a_cut_ends_everything() {
    let server = Server::start(patience()).await;
    let mut clients = [
        server.send(get("/never", "")).await,
        server.send(get("/never", "") + &get("/b", "")).await,
    ];
    server.begun().await;
    server.begun().await;
    server.common.signals.drain.cancel();
    server.common.signals.cut.cancel();
    server.empty().await;
    for client in &mut clients {
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(server.ended().await, "/never");
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one_and_a_busy_one_does_not() {
    let server = Server::with_slots(patience(), 2).await;
    let mut busy = server.send(get("/wait", "")).await;
    server.begun().await;
    let mut idle = server.send(get("/a", "")).await;
    idle.until("/a").await;
    let mut new = server.send(get("/b", "")).await;
    new.until("/b").await;
    assert_eq!(idle.rest().await, "");
    server.go.notify_one();
    busy.until("waited").await;
}

#[tokio::test]
async fn silent_connections_make_room_too() {
    let server = Server::with_slots(patience(), 2).await;
    let (mut silent, mut slow) = (server.connect().await, server.send("P").await);
    server.send(get("/a", "")).await.until("/a").await;
    tokio::select! {
        end = silent.rest() => assert_eq!(end, ""),
        end = slow.rest() => assert_eq!(end, ""),
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let server = Server::start(patience()).await;
    let mut new = server.send(get("/breaks", "")).await;
    new.until("3\r\nabc\r\n").await;
    server.go.notify_one();
    assert_eq!(new.rest().await, "");
    // An answer to HTTP/1.0 has no end but that of the connection.
    let mut old = server.send("GET /breaks HTTP/1.0\r\n\r\n").await;
    old.until("abc").await;
    server.go.notify_one();
    let end = soon(old.0.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    server.empty().await;
}

#[tokio::test]
async fn a_client_may_go_away_at_any_byte() {
    let server = Server::start(patience()).await;
    let chunked = "POST /stream-echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let all = [
        get("/a", ""),
        chunked.to_owned() + "5\r\nhello\r\n0\r\n\r\n",
        post("/echo", "body"),
        get("/never", ""),
        get("/b", ""),
    ]
    .concat();
    for end in 0..=all.len() {
        let part = &all.as_bytes()[..end];
        let client = server.send(part).await;
        tokio::task::yield_now().await;
        client.reset();
        // One that only closes looks like one that waits, so that it must not ask for /never.
        let upto = all.find("GET /never").unwrap().min(end);
        let closes = server.send(&all.as_bytes()[..upto]).await;
        drop(closes);
    }
    server.empty().await;
}
