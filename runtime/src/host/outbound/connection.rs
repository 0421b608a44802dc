//! Connections to servers: made, kept for the same app, and given up.

use super::{
    OutboundConfig,
    body::Upload,
    failure::Failure,
    resolve::LOOKUPS_PER_APP,
    sockets::{Socket, Sockets},
    target::Target,
    tls::Tls,
};
use faas_api::OutboundScheme;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::Error;

/// Idle connections of an app, all servers together.
const MAX_IDLE: usize = 16;
/// How long a connection may wait for another request; shorter than most servers allow, so that
/// none is used just when its server gives it up.
const IDLE_FOR: Duration = Duration::from_secs(15);
/// How long a connection gets to be ready again after a response.
const SETTLE: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Upload>,
    /// What moves its bytes. It ends with this.
    _driver: AbortOnDropHandle<()>,
    /// Its place among the node's.
    _socket: Socket,
}

/// What all calls of one app share, and no other app.
pub(super) struct AppSide {
    /// Requests under way.
    pub(super) turns: Arc<Semaphore>,
    /// Names that are looked up.
    pub(super) lookups: Arc<Semaphore>,
    idle: Mutex<HashMap<Target, Vec<Idle>>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_usable(&self) -> bool {
        self.since.elapsed() < IDLE_FOR && self.connection.sender.is_ready()
    }
}

impl AppSide {
    pub(super) fn new(at_once: u32) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(at_once as usize)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_PER_APP)),
            idle: Mutex::default(),
        }
    }

    /// A connection that waits for a request to this server.
    pub(super) fn take(&self, target: &Target) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.get_mut(target)?;
        // The newest is the likeliest to be alive.
        while let Some(next) = waiting.pop() {
            if next.is_usable() {
                return Some(next.connection);
            }
        }
        idle.remove(target);
        None
    }

    fn keep(&self, target: Target, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.values().map(Vec::len).sum::<usize>() < MAX_IDLE {
            idle.entry(target).or_default().push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes the connection that has waited longest. Returns whether there was one.
    pub(super) fn give_up_one(&self) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Of one server the first has waited longest.
        let since = |waiting: &Vec<Idle>| waiting.first().map(|oldest| oldest.since);
        let oldest = idle.values_mut().filter(|waiting| !waiting.is_empty());
        match oldest.min_by_key(|waiting| since(waiting)) {
            Some(waiting) => {
                waiting.remove(0);
                true
            }
            None => false,
        }
    }

    /// Drops what has waited long enough. Returns whether anything is left.
    pub(super) fn expire(&self, at_once: u32) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, waiting| {
            waiting.retain(Idle::is_usable);
            !waiting.is_empty()
        });
        // A look-up may go on for longer than anybody waits for it.
        !idle.is_empty()
            || self.turns.available_permits() < at_once as usize
            || self.lookups.available_permits() < LOOKUPS_PER_APP
    }
}

/// A connection that is in use, and its places among the requests that are under way.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) target: Target,
    pub(super) app: Arc<AppSide>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) _turns: [OwnedSemaphorePermit; 2],
}

impl Lease {
    /// The response is over: the connection may serve another request of the app.
    pub(super) fn done(self) {
        let Self { mut connection, target, app, sockets, _turns } = self;
        // It is over at once most of the time. It is not while the request is still being sent.
        tokio::spawn(async move {
            let ready = poll_fn(|cx| connection.sender.poll_ready(cx));
            let is_ready = matches!(timeout(SETTLE, ready).await, Ok(Ok(())));
            if is_ready && !sockets.are_all_taken() {
                app.keep(target, connection);
            }
        });
    }
}

/// Makes a connection to one of these addresses: TCP, TLS, HTTP.
pub(super) async fn connect(
    target: &Target,
    addresses: &[SocketAddr],
    socket: Socket,
    config: &OutboundConfig,
    tls: &Tls,
) -> Result<Connection, Failure> {
    let stream = connect_tcp(addresses, config.connect_timeout()).await?;
    // Small requests shall not wait for an answer to what was sent before.
    let _ = stream.set_nodelay(true);
    match target.scheme {
        OutboundScheme::Http => greet(stream, socket, config).await,
        OutboundScheme::Https => {
            greet(tls.connect(&target.host, stream).await?, socket, config).await
        }
    }
}

/// Tries one address after the other, each for its part of the time.
async fn connect_tcp(addresses: &[SocketAddr], patience: Duration) -> Result<TcpStream, Failure> {
    let part = patience / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = Failure::timeout(Error::ConnectionTimeout, "while connecting");
    for address in addresses {
        match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = Failure::connect(&error),
            Err(_) => {}
        }
    }
    Err(failure)
}

async fn greet<T>(stream: T, socket: Socket, config: &OutboundConfig) -> Result<Connection, Failure>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Its buffer is also what is read of a response before the function wants it.
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(config.max_head_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::http(&error))?;
    let driver = tokio::spawn(async move {
        // What goes wrong shows where the response is read.
        let _ = connection.await;
    });
    Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver), _socket: socket })
}
