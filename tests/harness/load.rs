//! An open-loop client: requests start when their time has come, whether earlier ones were answered
//! or not.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{
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
        let (stop, outcomes): (Arc<AtomicBool>, Arc<Mutex<Vec<Outcome>>>) = Default::default();
        let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
        let thread = std::thread::spawn({
            let (stop, outcomes) = (stop.clone(), outcomes.clone());
            move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(send(peer, per_second, &targets, &stop, &outcomes));
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

async fn send(
    peer: SocketAddr,
    per_second: u32,
    targets: &[String],
    stop: &AtomicBool,
    outcomes: &Arc<Mutex<Vec<Outcome>>>,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut tasks = tokio::task::JoinSet::new();
    for target in targets.iter().cycle() {
        ticks.tick().await;
        if stop.load(SeqCst) {
            break;
        }
        let (target, outcomes) = (target.clone(), outcomes.clone());
        tasks.spawn(async move {
            let outcome = one(peer, &target).await;
            outcomes.lock().unwrap().push(outcome);
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn one(peer: SocketAddr, target: &str) -> Outcome {
    let started = Instant::now();
    let answer = async {
        let stream = tokio::net::TcpStream::connect(peer).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let request = Request::get(target).header("host", "localhost").body(Empty::<Bytes>::new());
        let response =
            sender.send_request(request.unwrap()).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned()))
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
    let ended = Instant::now();
    match answer.unwrap_or_else(|_| Err("no answer within 30 s".to_owned())) {
        Ok((status, headers, body)) => {
            Outcome { started, ended, status: Ok(status), headers, body }
        }
        Err(why) => Outcome {
            started,
            ended,
            status: Err(why),
            headers: HeaderMap::new(),
            body: String::new(),
        },
    }
}
