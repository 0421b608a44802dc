//! Connections over real sockets, with a few lines in place of everything behind them.
//!
//! No test measures time: deadlines are short, and what is asserted is that something happened.

mod http1;
mod http2;
mod refused;
mod tls;

use super::*;
use crate::{
    ingress::{
        accept::{self, Room},
        crowd::{Crowd, CrowdLimits},
        proxies::Proxies,
    },
    telemetry::metrics::Metrics,
};
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    sync::{Notify, Semaphore, mpsc},
    time::timeout,
};

/// Long enough that a test fails rather than hangs.
const PATIENCE_OF_TESTS: Duration = Duration::from_secs(20);
/// A deadline that a test waits for.
const SOON: Duration = Duration::from_millis(60);
/// One it must not reach.
const NEVER: Duration = Duration::from_secs(3600);

/// A server of test answers.
struct Server {
    address: SocketAddr,
    common: Common,
    /// Lets `/wait` answer.
    go: Arc<Notify>,
    /// Tells the path of every answer that was begun and then dropped or finished.
    ended: Mutex<mpsc::UnboundedReceiver<String>>,
    begun: Mutex<mpsc::UnboundedReceiver<String>>,
}

fn patience() -> Patience {
    Patience {
        first_byte: NEVER,
        head: NEVER,
        body_idle: NEVER,
        write_idle: NEVER,
        keep_alive: NEVER,
        closing: NEVER,
    }
}

impl Server {
    async fn start(patience: Patience) -> Self {
        Self::with_slots(patience, 100).await
    }

    async fn with_slots(patience: Patience, slots: usize) -> Self {
        Self::with_tls(patience, slots, None).await
    }

    async fn with_tls(patience: Patience, slots: usize, tls: Option<Acceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let common = Common {
            patience,
            heads: HeadLimits { uri: 1000, headers: 4000 },
            max_headers: 100,
            max_h2_streams: 10,
            signals: Signals::default(),
            tasks: TaskTracker::new(),
            lanes: Lanes::start(2).unwrap().into(),
            tls,
        };
        let go = Arc::new(Notify::new());
        let (tell_ended, ended) = mpsc::unbounded_channel();
        let (tell_begun, begun) = mpsc::unbounded_channel();
        let service = Service { go: go.clone(), ended: tell_ended, begun: tell_begun };
        let metrics = Metrics::new().unwrap();
        let limits = CrowdLimits { of_one_address: 0, connections: slots, burden: 1 << 20 };
        let crowd = Crowd::new(limits, Proxies::new(&[]), metrics.connections.clone());
        let room = Room { slots: Arc::new(Semaphore::new(slots)), crowd: crowd.clone() };
        let accepting =
            accept::accept(listener, room, Arc::new(common.clone()), move |_| service.clone());
        tokio::spawn(async move { crowd.watch_burden().await });
        tokio::spawn(accepting);
        Self { address, common, go, ended: ended.into(), begun: begun.into() }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// A connection that has sent this.
    async fn send(&self, text: impl AsRef<[u8]>) -> Client {
        let mut client = self.connect().await;
        client.send(text).await;
        client
    }

    /// Waits until an answer is begun.
    #[expect(clippy::await_holding_lock, reason = "each test has a server of its own")]
    async fn begun(&self) -> String {
        soon(self.begun.lock().unwrap().recv()).await.unwrap()
    }

    /// Waits until an answer is finished or dropped.
    #[expect(clippy::await_holding_lock, reason = "each test has a server of its own")]
    async fn ended(&self) -> String {
        soon(self.ended.lock().unwrap().recv()).await.unwrap()
    }

    /// Waits until every connection and stream is gone.
    async fn empty(&self) {
        self.common.tasks.close();
        soon(self.common.tasks.wait()).await;
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE_OF_TESTS, future).await.expect("this takes too long")
}

/// A client that speaks bytes.
struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).await.unwrap();
    }

    /// Everything until the server closes; a reset counts as the end.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = soon(self.0.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything until this text has come.
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
        self.0.set_zero_linger().unwrap();
        drop(self.0);
    }
}

#[derive(Clone)]
struct Service {
    go: Arc<Notify>,
    begun: mpsc::UnboundedSender<String>,
    ended: mpsc::UnboundedSender<String>,
}

struct Ended(String, mpsc::UnboundedSender<String>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.1.send(std::mem::take(&mut self.0));
    }
}

type TestError = Box<dyn Error + Send + Sync>;
type TestBody = UnsyncBoxBody<Bytes, TestError>;

fn text(text: impl Into<Bytes>) -> Response<TestBody> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync())
}

impl Serve for Service {
    type Body = TestBody;

    fn serve(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<TestBody>, Infallible>> + Send + 'static {
        let path = request.uri().path().to_owned();
        let _ = self.begun.send(path.clone());
        let ended = Ended(path.clone(), self.ended.clone());
        let go = self.go.clone();
        async move {
            let response = match path.as_str() {
                "/echo" => match request.into_body().collect().await {
                    Ok(body) => text(body.to_bytes()),
                    Err(error) => text(format!("body: {error}")),
                },
                "/stream-echo" => {
                    Response::new(request.into_body().map_err(TestError::from).boxed_unsync())
                }
                "/never" => std::future::pending().await,
                "/wait" => {
                    go.notified().await;
                    text("waited")
                }
                "/endless" => {
                    let piece = Bytes::from(vec![b'x'; 64 << 10]);
                    let pieces = futures::stream::repeat_with(move || {
                        let _ = &ended;
                        Ok(Frame::data(piece.clone()))
                    });
                    return Ok(Response::new(StreamBody::new(pieces).boxed_unsync()));
                }
                "/breaks" => {
                    let breaks = async move {
                        go.notified().await;
                        Err::<Frame<Bytes>, TestError>("it broke".into())
                    };
                    let first = futures::stream::iter([Ok(Frame::data(Bytes::from("abc")))]);
                    let pieces = first.chain(futures::stream::once(breaks));
                    Response::new(StreamBody::new(pieces).boxed_unsync())
                }
                path => text(path.to_owned()),
            };
            drop(ended);
            Ok(response)
        }
    }

    fn refuse(&self, code: ErrorCode) -> Bytes {
        let status = code.status();
        format!("HTTP/1.1 {status} X\r\nx-code: {code}\r\nconnection: close\r\n\r\nours").into()
    }
}

/// A request for this path, with these further lines.
fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n{lines}\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}")
}
