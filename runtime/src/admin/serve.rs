//! From a listener to requests: accepts connections, shakes hands where there is TLS, is patient with none of them for ever, and
//! ends as the node's switch says.

use super::{
    Admin, Api, Readiness,
    audit::Peer,
    error::{self, ApiError},
    gate::Gate,
    openapi,
};
use crate::{
    Shutdown,
    request_id::RequestId,
    tls::{Acceptor, TlsStream},
};
use axum::body::Body;
use bytes::Bytes;
use faas_api::ErrorCode;
use http::{HeaderValue, header::CONNECTION};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, Sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections open at once. A client that keeps one open without need takes it from another.
const MAX_CONNECTIONS: usize = 512;
/// The largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What is read and written at once, in bytes; an upload comes in pieces of up to this.
const MAX_BUFFER_BYTES: usize = 128 * 1024;
/// The most header fields of a request.
const MAX_HEADERS: usize = 64;
/// Accepting fails when the process has no descriptor left; then it waits for some to be closed.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);

/// How long the API waits for its clients, and for itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of a request, from the first byte or from the end of the request before.
    pub(super) head: Duration,
    /// For the next piece of an upload, or for all of a JSON body.
    pub(super) body: Duration,
    /// For the answer to anything but a deploy.
    pub(super) request: Duration,
    /// For a client to take some of an answer. Long, for people stop to read what they follow.
    pub(super) write: Duration,
    /// Between two signs of life of a log that is followed.
    pub(super) heartbeat: Duration,
    /// For deploys that are under way when the node stops.
    pub(super) drain: Duration,
    /// For answers that are being sent once the deploys are done.
    pub(super) close: Duration,
    /// For a client to read why its body was not.
    pub(super) linger: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            request: Duration::from_secs(30),
            write: Duration::from_secs(300),
            heartbeat: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            close: Duration::from_secs(5),
            linger: Duration::from_secs(2),
        }
    }
}

/// Serves until the switch is thrown and everything is seen to its end.
pub(super) async fn run(admin: Admin, listener: TcpListener, shutdown: Shutdown) {
    // An address that cannot be had is taken for loopback, where most is refused.
    let address = listener.local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip());
    let api = Arc::new(api(admin, shutdown.clone()));
    let server = Arc::new(Server::new(&api, address));
    tokio::select! {
        () = server.clone().accept(listener) => {}
        () = drained(&api) => {}
        () = shutdown.stopped() => {}
    }
    // The listener is gone. Deploys that were not waited for end now, and their clients are told;
    // what is left are answers that are being sent.
    api.cut.cancel();
    server.closing.cancel();
    server.connections.close();
    api.changes.close();
    tokio::select! {
        () = async { tokio::join!(server.connections.wait(), api.changes.wait()); } => {}
        () = shutdown.stopped() => {}
        () = tokio::time::sleep(api.patience.close) => {}
    }
    server.cut.cancel();
    server.connections.wait().await;
}

/// What the endpoints of an API that is served work with.
pub(super) fn api(admin: Admin, shutdown: Shutdown) -> Api {
    Api {
        parts: admin.parts,
        patience: admin.patience,
        shutdown,
        deploys: TaskTracker::new(),
        changes: TaskTracker::new(),
        cut: CancellationToken::new(),
        openapi: openapi::describe(),
    }
}

/// Returns when the node drains and no deploy is under way any more.
async fn drained(api: &Api) {
    api.shutdown.draining().await;
    api.parts.readiness.draining();
    api.deploys.close();
    let patience = api.patience.drain;
    if tokio::time::timeout(patience, api.deploys.wait()).await.is_err() {
        let left = api.deploys.len();
        tracing::warn!(left, ?patience, "deploys are cut off: they took too long to finish");
    }
}

struct Server {
    gate: Gate,
    patience: Patience,
    readiness: Readiness,
    slots: Arc<Semaphore>,
    connections: TaskTracker,
    /// Asks connections to end after the request at hand.
    closing: CancellationToken,
    /// Tells them to end at once.
    cut: CancellationToken,
    tls: Option<Acceptor>,
}

impl Server {
    fn new(api: &Arc<Api>, address: IpAddr) -> Self {
        Self {
            gate: Gate::new(api.clone(), address),
            patience: api.patience,
            readiness: api.parts.readiness.clone(),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            connections: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            tls: api.parts.tls.clone(),
        }
    }

    /// Accepts connections for ever.
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        // A slot first: what is not accepted waits in the kernel and costs nothing here.
        while let Ok(slot) = self.slots.clone().acquire_owned().await {
            let (connection, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !is_clients_fault(&error) {
                        tracing::error!(%error, "the admin listener cannot accept");
                        tokio::time::sleep(ACCEPT_BACK_OFF).await;
                    }
                    continue;
                }
            };
            let server = self.clone();
            self.connections.spawn(async move {
                let cut = server.cut.clone();
                // Whatever goes wrong with a connection is between its client and the network.
                let _ = cut.run_until_cancelled(server.connection(connection, peer)).await;
                drop(slot);
            });
        }
    }

    /// Sees a connection through to its end.
    async fn connection(
        self: Arc<Self>,
        connection: TcpStream,
        peer: SocketAddr,
    ) -> Result<(), hyper::Error> {
        // Answers are whole when they are written; waiting for more would only delay them.
        let _ = connection.set_nodelay(true);
        let Some(tls) = self.tls.clone() else {
            return self.converse(connection, peer).await;
        };
        // A handshake is as long as a head may be.
        match tokio::time::timeout(self.patience.head, shake_hands(&tls, connection)).await {
            Ok(Ok(Some(connection))) => Box::pin(self.converse(connection, peer)).await,
            Ok(Ok(None)) | Err(_) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake with the API failed");
                Ok(())
            }
        }
    }

    /// HTTP, to the end.
    async fn converse<T>(
        self: Arc<Self>,
        connection: T,
        peer: SocketAddr,
    ) -> Result<(), hyper::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let unread = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (server, unread) = (self.clone(), unread.clone());
            move |request: http::Request<Incoming>| {
                let server = server.clone();
                let mut request = request.map(|body| Body::new(Watched::new(body, unread.clone())));
                request.extensions_mut().insert(Peer(peer));
                Box::pin(async move {
                    let mut answer = server.gate.answer(request).await;
                    // Said in time, so that nobody sends a request while its connection closes.
                    if server.readiness.is_draining() {
                        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                })
            }
        });
        let io = TokioIo::new(Steady::new(connection, self.patience.write));
        let mut serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.head)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(io, service);
        let mut asked = false;
        loop {
            tokio::select! {
                served = poll_fn(|cx| serving.poll_without_shutdown(cx)) => {
                    served?;
                    break;
                }
                () = self.closing.cancelled(), if !asked => {
                    asked = true;
                    Pin::new(&mut serving).graceful_shutdown();
                }
            }
        }
        let connection = serving.into_parts().io.into_inner();
        if unread.load(Ordering::Relaxed) {
            let _ = tokio::time::timeout(self.patience.linger, linger(connection)).await;
        }
        Ok(())
    }
}

/// TLS first. To a client that begins with HTTP it is said what is missing.
async fn shake_hands(
    tls: &Acceptor,
    mut connection: TcpStream,
) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    connection.peek(&mut first).await?;
    if !first.iter().all(u8::is_ascii_alphabetic) {
        return tls.accept(connection).await.map(Some);
    }
    let error = ApiError::new(ErrorCode::TlsRequired).hint("begin the address with https://");
    connection.write_all(&error::raw(error, RequestId::new())).await?;
    linger(connection).await.map(|()| None)
}

/// A body that tells its connection whether all of it was read.
struct Watched {
    inner: Incoming,
    unread: Arc<AtomicBool>,
}

impl Watched {
    fn new(inner: Incoming, unread: Arc<AtomicBool>) -> Self {
        unread.store(!inner.is_end_stream(), Ordering::Relaxed);
        Self { inner, unread }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if frame.is_none() || self.inner.is_end_stream() {
            self.unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Ends our side and takes what still comes. Closing with unread bytes would reset the connection,
/// and the client might never see the answer that says why its body was not read.
async fn linger(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    connection.shutdown().await?;
    let mut scrap = vec![0; 16 * 1024];
    while connection.read(&mut scrap).await? > 0 {}
    Ok(())
}

/// Whether accepting failed because of this one client.
fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// A connection whose client has to take what is written, or lose it.
struct Steady<T> {
    inner: T,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    stuck: bool,
}

impl<T> Steady<T> {
    fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit, timer: Box::pin(tokio::time::sleep(limit)), stuck: false }
    }

    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if wrote.is_ready() {
            self.stuck = false;
            return wrote;
        }
        if !self.stuck {
            self.stuck = true;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        self.timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Steady<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Steady<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.watch(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
