//! One connection, from its first byte to its last: tells HTTP/1.1 from HTTP/2, drives hyper, and
//! keeps the deadlines, the drain and the reset that hyper does not.
//!
//! Generic over what answers requests, so that tests can put a few lines in its place.

mod batch;
mod http1;
mod http2;
mod io;
pub(super) mod pulse;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub(super) use {pulse::Patience, watch::Signals, wire::HeadLimits};

use self::{
    io::Refuse,
    pulse::{Overdue, Phase, Pulse},
};
use super::lanes::Lanes;
use bytes::{Bytes, BytesMut};
use faas_api::ErrorCode;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout_at},
};
use tokio_util::task::TaskTracker;

/// What HTTP/2 with prior knowledge begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the first bytes of a connection, which decide its protocol.
const FIRST_READ: usize = 2048;

/// A connection that is younger has not been silent, however few bytes it has sent.
const FRESH: Duration = Duration::from_secs(1);

/// How long the first bytes of a connection may take when the node drains already.
const LATE: Duration = Duration::from_millis(100);

/// How much of what a client still sends is read and thrown away before its connection closes.
const LINGER_BYTES: usize = 1 << 20;
/// And for how long.
const LINGER_TIME: Duration = Duration::from_secs(1);

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
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// hyper is done with it.
    Done,
    /// An answer broke off.
    Broken,
    /// A deadline has passed.
    Overdue(Overdue),
    /// It was idle, and there was need.
    Squeezed,
    /// The client reset it, or the node stops: there is nothing to be polite about.
    Abrupt,
}

/// Serves a connection until it ends.
pub(super) async fn serve<S: Serve>(mut stream: TcpStream, service: S, common: &Common) {
    // Answers are written whole; waiting for more to send would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some((protocol, first)) = sniff(&stream, common).await else {
        return;
    };
    let connection = Connection {
        pulse: Pulse::new(match protocol {
            Protocol::Http1 => Phase::Head,
            Protocol::Http2 => Phase::Idle,
        })
        .into(),
        service: service.into(),
        common,
    };
    let end = {
        let (read, write) = stream.split();
        match protocol {
            Protocol::Http1 => http1::run(&connection, read, &write, first).await,
            Protocol::Http2 => http2::run(&connection, read, &write, first).await,
        }
    };
    tracing::trace!(?protocol, ?end, "connection ended");
    close(stream, &connection, end).await;
}

/// A connection whose protocol is known.
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

/// Reads until the protocol is clear. Silence, half a preface and a node that drains all end the
/// connection here: nothing was asked yet. What was on its way when the drain began may arrive.
async fn sniff(stream: &TcpStream, common: &Common) -> Option<(Protocol, BytesMut)> {
    let first = async {
        let mut first = BytesMut::new();
        loop {
            stream.readable().await.ok()?;
            first.reserve(FIRST_READ);
            match stream.try_read_buf(&mut first) {
                Ok(0) => return None,
                Ok(_) if first.starts_with(PREFACE) => return Some((Protocol::Http2, first)),
                Ok(_) if PREFACE.starts_with(&first) => {}
                Ok(_) => return Some((Protocol::Http1, first)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    };
    tokio::select! {
        biased;
        first = first => first,
        () = silent_for_too_long(common) => None,
        () = drained_for_a_while(common) => None,
    }
}

/// A silent connection ends when its time is up, or sooner when there is need of its place.
async fn silent_for_too_long(common: &Common) {
    let limit = common.patience.first_byte;
    sleep(limit.min(FRESH)).await;
    tokio::select! {
        () = sleep(limit.saturating_sub(FRESH)) => {}
        () = common.signals.squeeze.notified() => {}
    }
}

async fn drained_for_a_while(common: &Common) {
    common.signals.drain.cancelled().await;
    sleep(common.patience.closing.min(LATE)).await;
}

/// Ends a connection so that the client gets what was written. A socket that is closed while it
/// has unread data resets the connection, and a reset makes the client's system throw away an
/// answer it has not read yet (RFC 9112 §9.6).
async fn close<S: Serve>(mut stream: TcpStream, connection: &Connection<'_, S>, end: End) {
    let pulse = &connection.pulse;
    match end {
        End::Done | End::Overdue(Overdue::Idle) | End::Squeezed => {}
        End::Overdue(Overdue::Head) => {
            // hyper has nothing to say to half a head. What fits into the socket is enough.
            if !pulse.is_blocked() {
                let _ = stream.try_write(&connection.service.refuse(ErrorCode::RequestTimeout));
            }
            pulse.leaves_unread();
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
    if pulse.has_unread() && !pulse.is_eof() {
        tokio::select! {
            () = linger(&stream) => {}
            () = connection.common.signals.cut.cancelled() => {}
        }
    }
}

/// Reads and throws away what a client still sends, within bounds.
async fn linger(stream: &TcpStream) {
    let deadline = tokio::time::Instant::now() + LINGER_TIME;
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
