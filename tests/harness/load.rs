//! An open-loop client: requests start when their time has come, whether earlier ones were answered
//! or not; over connections of their own, or over ones that are kept as a careful client keeps them.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What came of one request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// When it was started.
    pub started: Instant,
    /// When its answer was there.
    pub ended: Instant,
    /// Its status; or why there is none.
    pub status: Result<u16, String>,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The answer's body.
    pub body: String,
    /// Whether the connection had served a request before.
    pub kept: bool,
}

impl Outcome {
    /// The version that answered.
    pub fn version(&self) -> &str {
        let version = self.headers.get("x-faas-version");
        version.and_then(|version| version.to_str().ok()).unwrap_or_default()
    }
}

/// Requests that are being sent.
pub struct Load {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts so many requests per second, each over a connection of its own, for these targets in
    /// turn.
    ///
    /// # Panics
    /// When there is no thread for it.
    pub fn start(peer: SocketAddr, per_second: u32, targets: &[&str]) -> Self {
        Self::run(Client { peer, per_second, kept: None }, targets)
    }

    /// The same over kept connections, in turn: one that waits is used again, unless its server has said
    /// that it ends, or has ended it.
    ///
    /// # Panics
    /// When there is no thread for it.
    pub fn kept(peer: SocketAddr, per_second: u32, targets: &[&str]) -> Self {
        Self::run(Client { peer, per_second, kept: Some(Kept::default()) }, targets)
    }

    fn run(client: Client, targets: &[&str]) -> Self {
        let (stop, outcomes): (Arc<AtomicBool>, Arc<Mutex<Vec<Outcome>>>) = Default::default();
        let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
        let thread = std::thread::spawn({
            let (stop, outcomes) = (stop.clone(), outcomes.clone());
            move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(send(&client, &targets, &stop, &outcomes));
            }
        });
        Self { stop, outcomes, thread: Some(thread) }
    }

    /// What has come so far.
    ///
    /// # Panics
    /// When the sender has panicked.
    pub fn so_far(&self) -> usize {
        self.outcomes.lock().unwrap().len()
    }

    /// Ends it, and tells what came of each request.
    ///
    /// # Panics
    /// When the sender has panicked.
    pub fn stop(mut self) -> Vec<Outcome> {
        self.stop.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.outcomes.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// Connections that wait for a request; the one that has waited longest is first.
type Kept = Arc<Mutex<VecDeque<SendRequest<Empty<Bytes>>>>>;

#[derive(Clone)]
struct Client {
    peer: SocketAddr,
    per_second: u32,
    kept: Option<Kept>,
}

/// How many connections are kept at least before one is used again.
const CONNECTIONS: usize = 8;

async fn send(
    client: &Client,
    targets: &[String],
    stop: &AtomicBool,
    outcomes: &Arc<Mutex<Vec<Outcome>>>,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / client.per_second);
    let mut tasks = tokio::task::JoinSet::new();
    for target in targets.iter().cycle() {
        ticks.tick().await;
        if stop.load(SeqCst) {
            break;
        }
        let (client, target, outcomes) = (client.clone(), target.clone(), outcomes.clone());
        tasks.spawn(async move {
            let outcome = client.one(&target).await;
            outcomes.lock().unwrap().push(outcome);
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

struct Received {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Client {
    async fn one(&self, target: &str) -> Outcome {
        let started = Instant::now();
        let mut kept = false;
        let answer = tokio::time::timeout(Duration::from_secs(60), self.ask(target, &mut kept));
        let answer = answer.await.unwrap_or_else(|_| Err("no answer within 60 s".to_owned()));
        let ended = Instant::now();
        let (status, headers, body) = match answer {
            Ok(Received { status, headers, body }) => (Ok(status), headers, body),
            Err(why) => (Err(why), HeaderMap::new(), String::new()),
        };
        Outcome { started, ended, status, headers, body, kept }
    }

    async fn ask(&self, target: &str, kept: &mut bool) -> Result<Received, String> {
        let request = || Request::get(target).header("host", "localhost").body(Empty::new());
        let (mut sender, response) = loop {
            let waiting = self.waiting();
            *kept = waiting.is_some();
            let mut sender = match waiting {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            match sender.try_send_request(request().unwrap()).await {
                Ok(response) => break (sender, response),
                // The connection had ended, and nothing of the request was sent.
                Err(error) if *kept && error.message().is_some() => {}
                Err(error) => return Err(format!("{:?}", error.into_error())),
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        if let Some(kept) = &self.kept
            && sender.ready().await.is_ok()
        {
            kept.lock().unwrap().push_back(sender);
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Received { status: head.status.as_u16(), headers: head.headers, body })
    }

    fn waiting(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let mut kept = self.kept.as_ref()?.lock().unwrap();
        kept.retain(SendRequest::is_ready);
        if kept.len() < CONNECTIONS { None } else { kept.pop_front() }
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let connect = tokio::net::TcpStream::connect(self.peer);
        let stream = connect.await.map_err(|error| format!("cannot connect: {error}"))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
