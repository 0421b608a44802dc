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
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
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
/// the list counts as 32 bytes and their text take three times as much.
const OPEN_BLOCK: usize = 3;
/// What a stream takes whose answer waits, besides the answer, in bytes.
const STREAM: usize = 6 << 10;
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
        let pace = Arc::new(Pace::new());
        *begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(pace.clone());
        pulse.asks();
        let (answer, pulse) = (service.serve(request), pulse.clone());
        // Apart from the stream, which goes on when this is over: an answer that waits for its client
        // is small, a call is not.
        Box::pin(async move {
            let Ok(response) = answer.await;
            Ok::<_, Infallible>(response.map(|body| Paced::new(body, pace, pulse)))
        })
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
                match news {
                    Alarm::Drain => pulse.drain(),
                    _ => pulse.enter(Phase::Closing),
                }
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
        let at_work = AtWork::new(self.pulse.clone());
        let patience = self.patience;
        let stream = async move {
            let _at_work = at_work;
            match pace {
                Some(pace) => unless_stuck(stream, &pace, patience).await,
                None => stream.await,
            }
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

/// Runs a stream until it ends, or until the client has left an answer unread for too long;
/// then it is dropped, which resets it. The timer exists only while the client leaves one unread.
async fn unless_stuck(stream: impl Future<Output = ()>, pace: &Pace, patience: Duration) {
    let mut stream = pin!(stream);
    let mut stuck: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = pace.waiting() else {
            stuck = None;
            return Poll::Pending;
        };
        if stuck.as_ref().is_none_or(|(known, _)| *known != since) {
            stuck = Some((since, Box::pin(sleep_until(pace.deadline(since, patience)))));
        }
        match &mut stuck {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}

/// Since when a piece of an answer waits for the client to open its window.
struct Pace {
    start: Instant,
    /// Microseconds after `start`, plus one; 0 when none waits.
    waiting: AtomicU64,
}

impl Pace {
    fn new() -> Self {
        Self { start: Instant::now(), waiting: AtomicU64::new(0) }
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

/// A body that notes its pace, and what of it waits for the client.
struct Paced<B> {
    body: B,
    /// What of the body's last piece hyper has not been given.
    rest: Bytes,
    pace: Arc<Pace>,
    pulse: Arc<Pulse>,
    /// What waits.
    owed: usize,
}

impl<B: Body<Data = Bytes>> Paced<B> {
    fn new(body: B, pace: Arc<Pace>, pulse: Arc<Pulse>) -> Self {
        let length = body.size_hint().exact().filter(|length| *length <= WHOLE);
        let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        let owed = if body.is_end_stream() { 0 } else { STREAM + length };
        if owed > 0 {
            pulse.owes(owed);
        }
        Self { body, rest: Bytes::new(), pace, pulse, owed }
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
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        this.pace.asked();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => this.rest = piece,
                    Err(frame) => {
                        this.pace.gave();
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                end => return Poll::Ready(end),
            }
        }
        this.pace.gave();
        let portion = this.portion(this.body.is_end_stream());
        Poll::Ready(Some(Ok(Frame::data(portion))))
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

impl<B> Drop for Paced<B> {
    fn drop(&mut self) {
        if self.owed > 0 {
            self.pulse.paid(self.owed);
        }
    }
}
