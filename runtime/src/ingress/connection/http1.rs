//! HTTP/1.0 and HTTP/1.1.

use super::{
    Connection, End, Serve, TRIFLE, WHOLE,
    io::Io,
    pulse::{Phase, Pulse},
    transport::Transport,
    watch::{Alarm, Seldom, next_alarm},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Version, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::net::TcpStream;

/// What hyper needs beyond a head: it reads bodies into the same buffer.
const BUFFER_SLACK: usize = 8 << 10;

/// hyper's own limit on header fields, which costs no allocation.
const FREE_HEADERS: usize = 100;

/// Drives the connection until hyper is done, or something else ends it.
pub(super) async fn run<T: Transport, S: Serve>(
    connection: &Connection<'_, S>,
    transport: &mut T,
    socket: &TcpStream,
    first: BytesMut,
) -> End {
    let Connection { pulse, service, common } = connection;
    let io = Io::new(transport, pulse, first).guarded(common.heads, connection);
    let service = service_fn(|request: Request<Incoming>| {
        pulse.called(request.body().size_hint().exact());
        if request.version() == Version::HTTP_10 {
            pulse.speaks_http_1_0();
        }
        let answer = service.serve(request);
        async move {
            let Ok(mut response) = answer.await;
            if pulse.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Weighed::new(body, pulse)))
        }
    });
    let mut hyper = pin!(builder(connection).serve_connection(TokioIo::new(io), service));
    let watch = |drained| {
        Seldom::new(next_alarm(socket, pulse, &common.patience, &common.signals, drained))
    };
    let mut alarm = watch(false);
    let mut drain = false;
    loop {
        let step = |cx: &mut Context<'_>| {
            if let Poll::Ready(result) = hyper.as_mut().poll(cx) {
                return Poll::Ready(Err(result));
            }
            // A head that has begun may become a request; it is not cut off half-way.
            if std::mem::take(&mut drain) {
                match pulse.phase() {
                    Phase::Head => drain = true,
                    Phase::Idle | Phase::Busy | Phase::Closing => {
                        hyper.as_mut().graceful_shutdown();
                        cx.waker().wake_by_ref();
                    }
                }
            }
            alarm.poll(cx).map(Ok)
        };
        match poll_fn(step).await {
            // A body that failed, or ended before it should.
            Err(Err(error)) if error.is_user() || error.is_body_write_aborted() => {
                return End::Broken;
            }
            Err(_) => return End::Done,
            Ok(Alarm::Drain) => {
                drain = true;
                pulse.drain();
                alarm = watch(true);
            }
            Ok(Alarm::Overdue(overdue)) => return End::Overdue(overdue),
            Ok(Alarm::Squeezed) => return End::Squeezed,
            Ok(Alarm::Evicted) => return End::Evicted,
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

/// A body that says what of it waits for the client: all of it, where the node has it already, or
/// what hyper was given and has not written.
struct Weighed<B> {
    body: B,
    weight: Weight,
}

/// What a body says of itself.
enum Weight {
    /// Nothing: it is a trifle.
    Trifle,
    /// So much, from its beginning until its end was written.
    Whole(usize, Arc<Pulse>),
    /// What hyper has of it.
    Pieces(Arc<Pulse>),
}

impl<B: Body<Data = Bytes>> Weighed<B> {
    fn new(body: B, pulse: &Arc<Pulse>) -> Self {
        let weight = match body.size_hint().exact() {
            Some(length) if length <= TRIFLE => Weight::Trifle,
            Some(length) if length <= WHOLE => {
                let bytes = usize::try_from(length).unwrap_or_default();
                pulse.owes(bytes);
                Weight::Whole(bytes, pulse.clone())
            }
            _ => Weight::Pieces(pulse.clone()),
        };
        Self { body, weight }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Weighed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Weight::Pieces(pulse) = &self.weight
            && let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(piece) = frame.data_ref()
        {
            pulse.writes(piece.len());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Weighed<B> {
    fn drop(&mut self) {
        // hyper may still have all of it.
        if let Weight::Whole(bytes, pulse) = &self.weight {
            pulse.writes_last(*bytes);
        }
    }
}
