//! HTTP/2 with prior knowledge.

use super::*;
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

type Sender = SendRequest<UnsyncBoxBody<Bytes, Infallible>>;

struct Connected {
    sender: Sender,
    connection: JoinHandle<hyper::Result<()>>,
    /// Carries bytes between the client and its socket.
    cable: JoinHandle<()>,
}

async fn connect(server: &Server) -> Connected {
    connect_with(server, |_| {}).await
}

async fn connect_with(
    server: &Server,
    configure: impl FnOnce(&mut http2::Builder<TokioExecutor>),
) -> Connected {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let cable = tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut far, &mut stream).await;
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    configure(&mut builder);
    let (sender, connection) = builder.handshake(TokioIo::new(near)).await.unwrap();
    Connected { sender, connection: tokio::spawn(connection), cable }
}

fn request(path: &str, body: &str) -> Request<UnsyncBoxBody<Bytes, Infallible>> {
    let body = match body {
        "" => Empty::new().boxed_unsync(),
        text => Full::from(text.to_owned()).boxed_unsync(),
    };
    Request::post(format!("http://a{path}")).body(body).unwrap()
}

async fn answer(sender: &mut Sender, path: &str, body: &str) -> String {
    let response = soon(sender.send_request(request(path, body))).await.unwrap();
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn streams_are_answered_side_by_side() {
    let server = Server::start(patience()).await;
    let mut client = connect(&server).await;
    let waits = client.sender.send_request(request("/wait", ""));
    server.begun().await;
    assert_eq!(answer(&mut client.sender, "/a", "").await, "/a");
    assert_eq!(answer(&mut client.sender, "/echo", "hello").await, "hello");
    let long = "x".repeat(3 << 20);
    assert_eq!(answer(&mut client.sender, "/stream-echo", &long).await, long);
    assert_eq!(answer(&mut client.sender, "/ignored", &long).await, "/ignored");
    server.go.notify_one();
    assert_eq!(soon(waits).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_that_is_reset_drops_its_answer_and_no_other() {
    let server = Server::start(patience()).await;
    let mut client = connect(&server).await;
    let waits = client.sender.send_request(request("/wait", ""));
    let reset = tokio::spawn(client.sender.send_request(request("/never", "")));
    server.begun().await;
    server.begun().await;
    reset.abort();
    assert_eq!(server.ended().await, "/never");
    let endless = soon(client.sender.send_request(request("/endless", ""))).await.unwrap();
    drop(endless);
    assert_eq!(server.ended().await, "/endless");
    server.go.notify_one();
    assert_eq!(soon(waits).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_connection_that_ends_drops_its_answers() {
    let server = Server::start(patience()).await;
    let mut client = connect(&server).await;
    let never = tokio::spawn(client.sender.send_request(request("/never", "")));
    server.begun().await;
    client.cable.abort();
    assert_eq!(server.ended().await, "/never");
    assert!(soon(never).await.unwrap().is_err());
    server.empty().await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_loses_that_stream_only() {
    let server = Server::start(Patience { write_idle: SOON, ..patience() }).await;
    let mut client = connect_with(&server, |builder| {
        builder.initial_stream_window_size(1000);
    })
    .await;
    let waits = client.sender.send_request(request("/wait", ""));
    server.begun().await;
    let unread = soon(client.sender.send_request(request("/endless", ""))).await.unwrap();
    assert_eq!(server.ended().await, "/endless");
    server.go.notify_one();
    assert_eq!(soon(waits).await.unwrap().status(), 200);
    assert!(soon(unread.into_body().collect()).await.is_err());
}

#[tokio::test]
async fn a_connection_without_streams_ends_and_one_with_streams_does_not() {
    let patience = Patience { keep_alive: SOON, closing: SOON, ..patience() };
    let server = Server::start(patience).await;
    let mut client = connect(&server).await;
    let waits = client.sender.send_request(request("/wait", ""));
    server.begun().await;
    tokio::time::sleep(SOON * 3).await;
    server.go.notify_one();
    assert_eq!(soon(waits).await.unwrap().status(), 200);
    let _ = soon(client.connection).await.unwrap();
    server.empty().await;
}

#[tokio::test]
async fn a_preface_and_nothing_more_is_idle() {
    let patience = Patience { keep_alive: SOON, closing: SOON, ..patience() };
    let server = Server::start(patience).await;
    server.send(PREFACE).await.rest().await;
    let mut whole = server.send([PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()).await;
    whole.rest().await;
    server.empty().await;
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    let server = Server::start(patience()).await;
    let mut client = connect(&server).await;
    let mut idle = connect(&server).await;
    assert_eq!(answer(&mut idle.sender, "/a", "").await, "/a");
    let waits = client.sender.send_request(request("/wait", ""));
    server.begun().await;
    server.begun().await;
    server.common.signals.drain.cancel();
    soon(idle.connection).await.unwrap().unwrap();
    server.go.notify_one();
    let response = soon(waits).await.unwrap();
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "waited");
    soon(client.connection).await.unwrap().unwrap();
    server.empty().await;
}

#[tokio::test]
async fn a_cut_drops_streams() {
    let server = Server::start(patience()).await;
    let mut client = connect(&server).await;
    let never = tokio::spawn(client.sender.send_request(request("/never", "")));
    server.begun().await;
    server.common.signals.cut.cancel();
    server.empty().await;
    assert!(soon(never).await.unwrap().is_err());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let server = Server::start(patience()).await;
    let mut client = connect(&server).await;
    let response = soon(client.sender.send_request(request("/breaks", ""))).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "abc");
    server.go.notify_one();
    assert!(soon(body.frame()).await.unwrap().is_err());
    assert_eq!(answer(&mut client.sender, "/a", "").await, "/a");
}
