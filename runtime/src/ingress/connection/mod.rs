//! One connection, from its first byte to its last: shakes hands where there is TLS, tells HTTP/1.1
//! from HTTP/2, drives hyper, and keeps the deadlines, the drain and the reset that hyper does not.
//!
//! Generic over what answers requests, so that tests can put a few lines in its place, and over what
//! carries the bytes, so that a connection without TLS knows nothing of it.

mod batch;
mod frames;
mod http1;
mod http2;
mod io;
mod leave;
mod load;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod properties;
pub(super) mod pulse;
#[cfg(test)]
mod tests;
mod transport;
mod watch;
mod wire;

pub(super) use {
    leave::{Leave, Worth},
    load::Burden,
    pulse::{Patience, Pulse},
    watch::Signals,
    wire::HeadLimits,
};

use self::{
    io::Refuse,
    pulse::{FRESH, Overdue, Phase},
    transport::{Socket, Transport, speaks_plainly},
};
use super::lanes::Lanes;
use crate::tls::{Acceptor, Spoken};
use bytes::{Bytes, BytesMut};
use faas_api::ErrorCode;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

/// What HTTP/2 with prior knowledge begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the first bytes of a connection, which decide its protocol.
const FIRST_READ: usize = 2048;

/// How long the first bytes of a connection may take when the node drains already, and what a client
/// sends while its idle connection is closed.
const LATE: Duration = Duration::from_millis(100);

/// How long the last words of a connection may take to fit into its socket.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How much of what a client still sends is read and thrown away before its connection closes.
const LINGER_BYTES: usize = 1 << 20;
/// And for how long.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Answers that are not larger are not counted among what a connection holds, in bytes.
const TRIFLE: u64 = 4 << 10;
/// The largest answer that the node has before the client takes it, in bytes; larger ones are made as it
/// takes them.
const WHOLE: u64 = (1 << 20) + (64 << 10);

/// What answers the requests of one connection.
pub(super) trait Serve: Send + Sync + 'static {
    /// A response's body.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers a request.
    fn serve(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;

    /// The client has asked for this name when it shook hands.
    fn is_named(&self, _name: &str) {}

    /// A whole HTTP/1 response to a head that cannot become a request.
    fn refuse(&self, code: ErrorCode) -> Bytes;
}

/// What all connections of a listener have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) patience: Patience,
    pub(super) heads: HeadLimits,
    /// The most header fields of a request.
    pub(super) max_headers: usize,
    /// The most streams of an HTTP/2 connection.
    pub(super) max_h2_streams: u32,
    pub(super) signals: Signals,
    /// Every connection and every HTTP/2 stream.
    pub(super) tasks: TaskTracker,
    /// The threads they run on.
    pub(super) lanes: Arc<Lanes>,
    /// Shakes hands, where the listener speaks TLS.
    pub(super) tls: Option<Acceptor>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing was asked.
    Silent,
    /// hyper is done with it.
    Done,
    /// An answer broke off.
    Broken,
    /// A deadline has passed.
    Overdue(Overdue),
    /// It was idle, and there was need.
    Squeezed,
    /// It was not, and there was need.
    Evicted,
    /// The client reset it, or the node stops: there is nothing to be polite about.
    Abrupt,
}

/// Serves a connection until it ends. What happens is noted in `pulse`.
pub(super) async fn serve<S: Serve>(
    mut stream: TcpStream,
    service: S,
    pulse: Arc<Pulse>,
    common: &Common,
) {
    // Answers are written whole; waiting for more to send would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let connection = Connection { pulse, service: service.into(), common };
    let end = {
        let (read, write) = stream.split();
        let raw = write.as_ref();
        let socket = Socket::new(read, raw, &connection.pulse);
        match &common.tls {
            None => connection.converse(socket, raw, None).await,
            // Apart from the others, because every connection has room for the largest of them.
            Some(tls) => Box::pin(connection.shake_hands(socket, raw, tls)).await,
        }
    };
    tracing::trace!(?end, "connection ended");
    close(stream, &connection, end).await;
}

/// A connection and whoever answers it.
struct Connection<'a, S> {
    pulse: Arc<Pulse>,
    service: Arc<S>,
    common: &'a Common,
}

impl<S: Serve> Refuse for Connection<'_, S> {
    fn refuse(&self, code: ErrorCode) -> Bytes {
        self.service.refuse(code)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl<S: Serve> Connection<'_, S> {
    /// TLS first, and then what was agreed on. The handshake gets the time that silence may take.
    async fn shake_hands(&self, mut socket: Socket<'_>, raw: &TcpStream, tls: &Acceptor) -> End {
        let handshake = async {
            match speaks_plainly(raw).await? {
                true => Ok(None),
                false => tls.accept(&mut socket).await.map(Some),
            }
        };
        match self.in_time(raw, handshake).await {
            Some(Ok(Some(stream))) => {
                if let Some(name) = Acceptor::name(&stream) {
                    self.service.is_named(name);
                }
                match Acceptor::spoken(&stream) {
                    Spoken::Http1 => self.converse(stream, raw, Some(Protocol::Http1)).await,
                    Spoken::Http2 => self.converse(stream, raw, Some(Protocol::Http2)).await,
                    Spoken::Whatever => self.converse(stream, raw, None).await,
                    // Seeing the certificate was all that was wanted.
                    Spoken::Challenge => End::Done,
                }
            }
            Some(Ok(None)) => {
                self.say(&mut socket, &self.refuse(ErrorCode::TlsRequired)).await;
                self.pulse.leaves_unread();
                End::Done
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                End::Silent
            }
            None => End::Silent,
        }
    }

    /// HTTP, to the last word. `agreed` is what TLS has settled already.
    async fn converse<T: Transport>(
        &self,
        mut transport: T,
        raw: &TcpStream,
        agreed: Option<Protocol>,
    ) -> End {
        let Some(Some((seen, first))) = self.in_time(raw, sniff(&mut transport)).await else {
            self.say(&mut transport, &[]).await;
            return End::Silent;
        };
        let end = match agreed.unwrap_or(seen) {
            Protocol::Http1 => {
                self.pulse.enter(Phase::Head);
                http1::run(self, &mut transport, raw, first).await
            }
            Protocol::Http2 => {
                self.pulse.enter(Phase::Idle);
                http2::run(self, &mut transport, raw, first).await
            }
        };
        match end {
            End::Overdue(Overdue::Head) => {
                // hyper has nothing to say to half a head.
                if !self.pulse.is_blocked() {
                    self.say(&mut transport, &self.refuse(ErrorCode::RequestTimeout)).await;
                }
                self.pulse.leaves_unread();
            }
            End::Done | End::Overdue(Overdue::Idle) | End::Squeezed => {
                self.say(&mut transport, &[]).await;
            }
            // Without a goodbye over TLS the client knows that its answer is not whole.
            End::Silent | End::Broken | End::Abrupt | End::Evicted | End::Overdue(_) => {}
        }
        end
    }

    /// Waits for something that a client has to do before it can ask for anything. Silence and a
    /// node that drains end the connection: nothing was asked yet. What was on its way when the
    /// drain began may arrive.
    async fn in_time<F: Future>(&self, raw: &TcpStream, first: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            first = first => Some(first),
            () = silent_for_too_long(&self.pulse, self.common) => None,
            () = drained_for_a_while(self.common, raw) => None,
        }
    }

    /// Says the last words, and goodbye. A client that does not listen has none.
    async fn say<T: Transport>(&self, transport: &mut T, words: &[u8]) {
        let saying = async {
            transport.write_all(words).await?;
            transport.shutdown().await
        };
        tokio::select! {
            biased;
            // Whoever cannot be told will notice.
            _ = timeout(LAST_WORDS, saying) => {}
            () = self.common.signals.cut.cancelled() => {}
        }
    }
}

/// Reads until the protocol is clear. `None` when the client has nothing to say.
async fn sniff<T: Transport>(transport: &mut T) -> Option<(Protocol, BytesMut)> {
    let mut first = BytesMut::new();
    loop {
        first.reserve(FIRST_READ);
        match transport.read_buf(&mut first).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if first.starts_with(PREFACE) => return Some((Protocol::Http2, first)),
            Ok(_) if PREFACE.starts_with(&first) => {}
            Ok(_) => return Some((Protocol::Http1, first)),
        }
    }
}

/// A silent connection ends when its time is up, or sooner when there is need of its place.
async fn silent_for_too_long(pulse: &Pulse, common: &Common) {
    let limit = common.patience.first_byte;
    tokio::select! {
        () = sleep(limit) => {}
        _ = pulse.shall_leave() => {}
    }
}

/// A connection that has just been opened has time for its first bytes, also when the node drains.
async fn drained_for_a_while(common: &Common, socket: &TcpStream) {
    let fresh_until = Instant::now() + common.patience.farewell.min(FRESH);
    common.signals.drain.cancelled().await;
    sleep_until(fresh_until.max(Instant::now() + LATE)).await;
    // Whoever reads them is about to.
    while has_arrived(socket) {
        sleep(LATE).await;
    }
}

/// Whether the system has something from the client that was not read yet.
fn has_arrived(socket: &TcpStream) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0)
}

/// Ends a connection so that the client gets what was written. A socket that is closed while it
/// has unread data resets the connection, and a reset makes the client's system throw away an
/// answer it has not read yet (RFC 9112 §9.6).
async fn close<S: Serve>(mut stream: TcpStream, connection: &Connection<'_, S>, end: End) {
    let pulse = &connection.pulse;
    match end {
        End::Done | End::Overdue(Overdue::Idle | Overdue::Head) | End::Squeezed => {}
        End::Silent => return,
        End::Evicted => {
            // What the system holds for the client goes, too.
            let _ = stream.set_zero_linger();
            return;
        }
        End::Broken | End::Abrupt | End::Overdue(Overdue::Write | Overdue::Closing) => {
            // To a client that waits for the end of the connection, only a reset says that its
            // answer is not whole. To one that does not read, it says that nothing more comes.
            if pulse.is_close_delimited() || end == End::Overdue(Overdue::Write) {
                let _ = stream.set_zero_linger();
            }
            return;
        }
    }
    if stream.shutdown().await.is_err() {
        return;
    }
    let time = match end {
        _ if pulse.is_eof() => return,
        _ if pulse.has_unread() => LINGER_TIME,
        // A request that was on its way finds an end rather than a reset.
        End::Overdue(Overdue::Idle) => LATE,
        _ => return,
    };
    tokio::select! {
        () = linger(&stream, time) => {}
        () = connection.common.signals.cut.cancelled() => {}
    }
}

/// Reads and throws away what a client still sends, within bounds.
async fn linger(stream: &TcpStream, time: Duration) {
    let deadline = Instant::now() + time;
    let mut scrap = BytesMut::with_capacity(16 << 10);
    let mut left = LINGER_BYTES;
    while timeout_at(deadline, stream.readable()).await.is_ok_and(|ready| ready.is_ok()) {
        scrap.clear();
        match stream.try_read_buf(&mut scrap) {
            Ok(0) => return,
            Ok(length) if length < left => left -= length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}
