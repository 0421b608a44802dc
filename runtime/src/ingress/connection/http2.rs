//! HTTP/2 with prior knowledge.
//!
//! hyper runs each stream in a task of its own and drops the guest when the client resets the
//! stream. What it does not do is to give up on a client that opens no window for an answer.

use super::{
    Connection, End, Serve, WHOLE,
    io::Io,
    pulse::{Overdue, Phase, Pulse},
    transport::Transport,
    watch::{Alarm, Seldom, next_alarm},
};
use bytes::{Buf, Bytes, BytesMut};
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use std::{
    convert::Infallible,
    future::poll_fn,
    io::IoSlice,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::task::TaskTracker;

/// What a client may send on one stream before somebody reads it.
const STREAM_WINDOW: u32 = 256 << 10;
/// What it may send on all streams together.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What is kept of an answer that the client has no window for.
const SEND_BUFFER: usize = 64 << 10;
/// How often the largest header list a header block may take while it is not complete: fields that
/// the list counts as 33 bytes take up to 200, because the map they go into doubles when it is full.
const OPEN_BLOCK: usize = 6;
/// What a stream takes besides its request's head, its call and its answer's body, in bytes, until the
/// last of the answer is on its way: hyper's part of it, h2's, and the answer's head.
const STREAM: usize = 3 << 10;
/// Of a stream that has no answer yet, in place of what it holds.
const UNANSWERED: usize = usize::MAX;
/// The size of the pieces in which hyper gets an answer: it takes one for as little as a byte of the
/// client's window. A frame holds no more anyway.
const PIECE: usize = 16 << 10;
/// The size of the last piece of a larger answer. hyper is done with a stream when it has taken that,
/// and it stays in memory until the client has room for it.
const LAST_PIECE: usize = 256;
/// Errors of the client on single streams before the connection ends (CVE-2025-8671).
const LOCAL_RESETS: usize = 100;
/// A client that is silent this long is asked whether it is there,
const PING_AFTER: Duration = Duration::from_secs(20);
/// and has this long to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Drives the connection until hyper is done, or something else ends it.
pub(super) async fn run<T: Transport, S: Serve>(
    connection: &Connection<'_, S>,
    transport: &mut T,
    socket: &TcpStream,
    first: BytesMut,
) -> End {
    let Connection { pulse, service, common } = connection;
    let block = header_list(connection) as usize * OPEN_BLOCK;
    let io = Io::<T, Connection<'_, S>>::new(transport, pulse, first).framed(block);
    let streams = Streams {
        pulse: pulse.clone(),
        tasks: common.tasks.clone(),
        threads: common.lanes.shared().clone(),
        patience: common.patience.write_idle,
        begun: Arc::default(),
    };
    let begun = streams.begun.clone();
    let service = service_fn(|request| {
        pulse.asks();
        let pace = Arc::new(Pace::new(pulse.clone(), STREAM + head_size(&request)));
        *begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(pace.clone());
        let (service, request) = (service.clone(), Box::new(request));
        async move {
            // Apart from the stream, and only while it lasts: a call is large, while a stream that has
            // its turn still to come, or whose answer waits for the client, is small.
            let call = Box::pin(service.serve(*request));
            let Ok(response) = call.await;
            Ok::<_, Infallible>(response.map(|body| Paced::new(body, pace)))
        }
    });
    let mut hyper = pin!(builder(connection, streams).serve_connection(TokioIo::new(io), service));
    let watch = |drained| {
        Seldom::new(next_alarm(socket, pulse, &common.patience, &common.signals, drained))
    };
    let mut alarm = watch(false);
    let mut drained = false;
    loop {
        let step = |cx: &mut Context<'_>| match hyper.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => alarm.poll(cx).map(Some),
        };
        match poll_fn(step).await {
            None => return End::Done,
            Some(Alarm::Overdue(overdue @ (Overdue::Write | Overdue::Closing))) => {
                return End::Overdue(overdue);
            }
            Some(Alarm::Reset | Alarm::Cut) => return End::Abrupt,
            Some(Alarm::Evicted) => return End::Evicted,
            Some(news) => {
                // GOAWAY, which lets requests that are under way arrive (RFC 9113 §6.8).
                hyper.as_mut().graceful_shutdown();
                pulse.enter(Phase::Closing);
                drained |= news == Alarm::Drain;
                alarm = watch(drained);
            }
        }
    }
}

fn builder<S>(connection: &Connection<'_, S>, streams: Streams) -> http2::Builder<Streams> {
    let common = connection.common;
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_concurrent_streams(common.max_h2_streams)
        .max_header_list_size(header_list(connection));
    builder
}

/// The largest header list, as RFC 9113 §10.5.1 counts it.
fn header_list<S>(connection: &Connection<'_, S>) -> u32 {
    let heads = &connection.common.heads;
    u32::try_from(heads.uri + heads.headers).unwrap_or(u32::MAX)
}

/// What the text of a request's head takes, in bytes.
fn head_size<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    target + fields.sum::<usize>()
}

/// Runs the streams of one connection.
#[derive(Clone)]
struct Streams {
    pulse: Arc<Pulse>,
    tasks: TaskTracker,
    threads: Handle,
    /// How long a client may leave an answer unread.
    patience: Duration,
    /// The pace of the stream whose service was called last; hyper runs it right after.
    begun: Arc<Mutex<Option<Arc<Pace>>>>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let pace = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.pulse.leaves_now() {
            // The connection ends as soon as hyper has begun all streams that have come.
            return;
        }
        let stream = Stream {
            work: stream,
            at_work: AtWork::new(self.pulse.clone()),
            pace,
            patience: self.patience,
            stuck: None,
        };
        self.tasks.spawn_on(stream, &self.threads);
    }
}

/// Counts a stream for as long as it lives.
struct AtWork(Arc<Pulse>);

impl AtWork {
    fn new(pulse: Arc<Pulse>) -> Self {
        pulse.stream_begins();
        Self(pulse)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.stream_ends();
    }
}

pin_project! {
    /// Runs a stream until it ends, or until the client has left an answer unread for too long; then it
    /// is dropped, which resets it.
    ///
    /// Written by hand because h2 keeps the memory of its task for as long as it has the stream.
    struct Stream<F> {
        #[pin]
        work: F,
        at_work: AtWork,
        pace: Option<Arc<Pace>>,
        patience: Duration,
        // Exists only while the client leaves an answer unread, since then.
        stuck: Option<(u64, Pin<Box<Sleep>>)>,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.work.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some((pace, since)) = this.pace.as_ref().and_then(|pace| Some((pace, pace.waiting()?)))
        else {
            *this.stuck = None;
            return Poll::Pending;
        };
        if this.stuck.as_ref().is_none_or(|(known, _)| *known != since) {
            *this.stuck =
                Some((since, Box::pin(sleep_until(pace.deadline(since, *this.patience)))));
        }
        match this.stuck {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Since when a piece of a stream's answer waits for the client to open its window, and what the stream
/// holds until the last of the answer is on its way.
struct Pace {
    start: Instant,
    /// Microseconds after `start`, plus one; 0 when none waits.
    waiting: AtomicU64,
    pulse: Arc<Pulse>,
    /// What the stream holds besides its answer, in bytes.
    asking: usize,
    /// What it holds together with its answer, in bytes.
    held: AtomicUsize,
}

impl Pace {
    fn new(pulse: Arc<Pulse>, asking: usize) -> Self {
        pulse.begins(asking);
        let (waiting, held) = (AtomicU64::new(0), AtomicUsize::new(UNANSWERED));
        Self { start: Instant::now(), waiting, pulse, asking, held }
    }

    /// An answer is there, of which so many bytes wait for the client.
    fn answers(&self, bytes: usize) {
        // Whatever is kept of the request's head, for the log, keeps all of it in memory.
        let held = self.asking + bytes;
        self.held.store(held, Relaxed);
        self.pulse.answers(self.asking, held);
    }

    /// The answer is nothing but its head, which no window holds up.
    fn answers_in_full(&self) {
        self.held.store(0, Relaxed);
        self.pulse.answers(self.asking, self.asking);
        self.pulse.writes_last(self.asking);
    }

    /// hyper has a piece. It asks for the next one when this one is on its way.
    fn gave(&self) {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.waiting.store(micros + 1, Release);
    }

    /// hyper asks for a piece.
    fn asked(&self) {
        self.waiting.store(0, Release);
    }

    fn waiting(&self) -> Option<u64> {
        self.waiting.load(Acquire).checked_sub(1)
    }

    fn deadline(&self, since: u64, patience: Duration) -> Instant {
        self.start + Duration::from_micros(since) + patience
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        match *self.held.get_mut() {
            UNANSWERED => self.pulse.breaks_off(self.asking),
            held => self.pulse.paid(held),
        }
    }
}

/// A piece of an answer. The stream counts until h2 is done with the last one: hyper has forgotten the
/// stream by then.
struct Piece {
    bytes: Bytes,
    _pace: Arc<Pace>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// A body that notes its pace, and what of it waits for the client.
struct Paced<B> {
    body: B,
    /// What of the body's last piece hyper has not been given.
    rest: Bytes,
    pace: Arc<Pace>,
}

impl<B: Body<Data = Bytes>> Paced<B> {
    fn new(body: B, pace: Arc<Pace>) -> Self {
        let length = body.size_hint().exact().filter(|length| *length <= WHOLE);
        match body.is_end_stream() {
            true => pace.answers_in_full(),
            false => pace.answers(length.and_then(|length| length.try_into().ok()).unwrap_or(0)),
        }
        Self { body, rest: Bytes::new(), pace }
    }
}

impl<B> Paced<B> {
    /// As much of a piece as hyper shall take at once.
    fn portion(&mut self, is_last: bool) -> Bytes {
        let length = self.rest.len();
        let portion = match length {
            ..=LAST_PIECE => length,
            ..=PIECE if is_last => length - LAST_PIECE,
            _ => length.min(PIECE),
        };
        self.rest.split_to(portion)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let this = &mut *self;
        this.pace.asked();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => this.rest = piece,
                    Err(frame) => {
                        this.pace.gave();
                        return Poll::Ready(
                            frame.into_trailers().ok().map(Frame::trailers).map(Ok),
                        );
                    }
                },
            }
        }
        this.pace.gave();
        let bytes = this.portion(this.body.is_end_stream());
        Poll::Ready(Some(Ok(Frame::data(Piece { bytes, _pace: this.pace.clone() }))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
