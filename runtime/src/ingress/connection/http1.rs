//! HTTP/1.0 and HTTP/1.1.

use super::{
    Connection, End, Serve, has_arrived,
    io::Io,
    pulse::Overdue,
    transport::Transport,
    watch::{Alarm, Seldom, next_alarm},
};
use bytes::BytesMut;
use http::{HeaderValue, Request, Version, header::CONNECTION};
use http_body::Body as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
};
use tokio::{net::TcpStream, task::yield_now};

/// What hyper needs beyond a head: it reads bodies into the same buffer.
const BUFFER_SLACK: usize = 8 << 10;

/// hyper's own limit on header fields, which costs no allocation.
const FREE_HEADERS: usize = 100;

/// Drives the connection until hyper is done, or something else ends it.
///
/// A client may send its next request at the very moment the node closes the connection under it, and
/// cannot know whether that was carried out. So a drain closes none that is in use: answers say that
/// they are the last (RFC 9112 §9.6), hyper closes behind them, and only a connection on which nothing
/// comes for a while is closed without a word.
pub(super) async fn run<T: Transport, S: Serve>(
    connection: &Connection<'_, S>,
    transport: &mut T,
    socket: &TcpStream,
    first: BytesMut,
) -> End {
    let Connection { pulse, service, common } = connection;
    let io = Io::plain(transport, pulse, first).guarded(common.heads, connection);
    let service = service_fn(|request: Request<Incoming>| {
        pulse.called(request.body().size_hint().exact());
        if request.version() == Version::HTTP_10 {
            pulse.speaks_http_1_0();
        }
        let answer = service.serve(request);
        async move {
            let Ok(mut response) = answer.await;
            if common.signals.leaving.load(Relaxed) || pulse.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut hyper = pin!(builder(connection).serve_connection(TokioIo::new(io), service));
    let watch = |drained| {
        Seldom::new(next_alarm(socket, pulse, &common.patience, &common.signals, drained))
    };
    let mut alarm = watch(false);
    loop {
        let step = |cx: &mut Context<'_>| match hyper.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Err(result)),
            Poll::Pending => alarm.poll(cx).map(Ok),
        };
        match poll_fn(step).await {
            // A body that failed, or ended before it should.
            Err(Err(error)) if error.is_user() || error.is_body_write_aborted() => {
                return End::Broken;
            }
            Err(_) => return End::Done,
            Ok(Alarm::Drain) => {
                pulse.drain();
                alarm = watch(true);
            }
            // A request came in time, and this thread has not noticed yet.
            Ok(Alarm::Overdue(Overdue::Idle) | Alarm::Squeezed) if has_arrived(socket) => {
                yield_now().await;
                alarm = watch(pulse.is_draining());
            }
            Ok(Alarm::Overdue(overdue)) => return End::Overdue(overdue),
            Ok(Alarm::Squeezed) => return End::Squeezed,
            Ok(Alarm::Reset | Alarm::Cut) => return End::Abrupt,
        }
    }
}

fn builder<S>(connection: &Connection<'_, S>) -> http1::Builder {
    let common = connection.common;
    let mut builder = http1::Builder::new();
    builder
        // A client may shut down its sending side and still wait for the answer.
        .half_close(true)
        // The head has its own deadline, see `pulse`.
        .header_read_timeout(None)
        .max_buf_size(common.heads.uri + common.heads.headers + BUFFER_SLACK);
    if common.max_headers > FREE_HEADERS {
        builder.max_headers(common.max_headers);
    }
    builder
}
