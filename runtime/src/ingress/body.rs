//! A request's body on its way to the guest: its limit, its idle deadline, and whether the client
//! may keep the connection.

use super::forward;
use bytes::Bytes;
use faas_api::ErrorCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// Why a body ended early. The guest sees a failed read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client closed the connection, or its framing is broken.
    #[error("the request body ended early: {0}")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is larger than the function takes.
    #[error("limit `request_body_bytes` reached: {limit}")]
    TooLarge {
        /// What it takes.
        limit: u64,
    },
    /// The client sends nothing.
    #[error("limit `body_idle_timeout_s` reached: nothing came for {0:?}")]
    Idle(Duration),
}

/// What is known about a body while somebody else reads it.
#[derive(Debug, Default)]
pub(super) struct Flow {
    bytes: AtomicU64,
    /// What its head says it has at least.
    announced: AtomicU64,
    /// Over the limit, idle for too long, or no HTTP; an index into [`FAULTS`], plus one.
    fault: AtomicU8,
    /// Given up before its end.
    left_unread: AtomicBool,
}

/// What a client is told when its body is at fault.
const FAULTS: [ErrorCode; 3] =
    [ErrorCode::BodyTooLarge, ErrorCode::RequestTimeout, ErrorCode::BadRequest];

impl Flow {
    /// Bytes that were read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes it is known to have: those that were read, or what its head says.
    pub(super) fn known_bytes(&self) -> u64 {
        self.bytes().max(self.announced.load(Relaxed))
    }

    /// The client's fault, if the body ended early by one.
    pub(super) fn fault(&self) -> Option<ErrorCode> {
        let index = usize::from(self.fault.load(Acquire).checked_sub(1)?);
        FAULTS.get(index).copied()
    }

    /// Whether it was given up before its end.
    pub(super) fn is_left_unread(&self) -> bool {
        self.left_unread.load(Acquire)
    }
}

/// How a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyRules {
    /// The most bytes.
    pub(super) limit: u64,
    /// How long it may pause.
    pub(super) idle: Duration,
}

/// A request's body. One that is empty costs nothing.
pub(super) struct RequestBody<B = Incoming>(Option<Reader<B>>)
where
    B: Body<Data = Bytes> + Unpin;

struct Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    body: B,
    flow: Arc<Flow>,
    rules: BodyRules,
    left: u64,
    /// Armed while the client is waited for.
    idle: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    /// The client waits for `100 Continue`, which the first poll sends.
    expects: bool,
    is_done: bool,
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Wraps a body. The flow is there when there is one.
    pub(super) fn new(body: B, idle: Duration, expects: bool) -> (Self, Option<Arc<Flow>>) {
        if body.is_end_stream() {
            return (Self(None), None);
        }
        let flow = Arc::new(Flow::default());
        let reader = Reader {
            body,
            flow: flow.clone(),
            rules: BodyRules { limit: u64::MAX, idle },
            left: u64::MAX,
            idle: None,
            is_waiting: false,
            expects,
            is_done: false,
        };
        (Self(Some(reader)), Some(flow))
    }

    /// Sets the most bytes it may have. Fails when it is known to have more.
    pub(super) fn limit(&mut self, limit: u64) -> Result<(), ErrorCode> {
        let Some(reader) = &mut self.0 else {
            return Ok(());
        };
        let announced = reader.body.size_hint().lower();
        if announced > limit {
            reader.flow.announced.store(announced, Relaxed);
            return Err(ErrorCode::BodyTooLarge);
        }
        reader.rules.limit = limit;
        reader.left = limit;
        Ok(())
    }
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        self.expects = false;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.poll_idle(cx),
            Poll::Ready(None) => {
                self.is_done = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.is_waiting = false;
                Poll::Ready(Some(self.take(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // The framing is broken or the client is gone: if anybody can be told, then this.
                self.fail(3);
                Poll::Ready(Some(Err(BodyError::Client(error.into()))))
            }
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return Ok(forward::clean_trailers(frame)),
        };
        self.flow.bytes.fetch_add(data.len() as u64, Relaxed);
        match self.left.checked_sub(data.len() as u64) {
            Some(left) => {
                self.left = left;
                self.is_done = self.body.is_end_stream();
                Ok(Frame::data(data))
            }
            None => {
                self.fail(1);
                Err(BodyError::TooLarge { limit: self.rules.limit })
            }
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let limit = self.rules.idle;
        let timer = self.idle.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !std::mem::replace(&mut self.is_waiting, true) {
            timer.as_mut().reset(Instant::now() + limit);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.fail(2);
        Poll::Ready(Some(Err(BodyError::Idle(limit))))
    }

    fn fail(&mut self, fault: u8) {
        self.flow.fault.store(fault, Release);
        self.flow.left_unread.store(true, Release);
        self.is_done = true;
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Some(reader) => reader.poll(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|reader| reader.is_done || reader.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(reader) if !reader.is_done => reader.body.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }
}

impl<B> Drop for Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Many functions do not look at the small body they get. What came with the head is here
    /// already; when it is all of it, the connection can be kept.
    fn drop(&mut self) {
        if self.is_done || self.body.is_end_stream() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        while !self.expects && !self.body.is_end_stream() {
            match Pin::new(&mut self.body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return,
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        if !self.body.is_end_stream() {
            self.flow.left_unread.store(true, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream};
    use http::HeaderMap;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};
    use std::convert::Infallible;

    const IDLE: Duration = Duration::from_millis(20);

    type Pieces = Vec<Result<Frame<Bytes>, std::io::Error>>;

    fn pieces(pieces: &[&'static str]) -> Pieces {
        pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect()
    }

    /// A body of pieces; then the client says nothing more.
    fn body(
        pieces: Pieces,
        limit: u64,
    ) -> (RequestBody<impl Body<Data = Bytes, Error = std::io::Error> + Unpin>, Arc<Flow>) {
        let body = StreamBody::new(stream::iter(pieces).chain(stream::pending()));
        let (mut body, flow) = RequestBody::new(body, IDLE, false);
        body.limit(limit).unwrap();
        (body, flow.unwrap())
    }

    #[tokio::test]
    async fn no_body_has_no_flow() {
        let (body, flow) = RequestBody::new(Empty::<Bytes>::new(), IDLE, false);
        assert!(flow.is_none() && body.is_end_stream());
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_known_at_once() {
        let (mut body, _) = RequestBody::new(Full::from("hello"), IDLE, false);
        assert_eq!(body.limit(4), Err(ErrorCode::BodyTooLarge));
        assert_eq!(body.limit(5), Ok(()));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    }

    #[tokio::test]
    async fn a_stream_over_the_limit_fails_and_says_so() {
        let (mut body, flow) = body(pieces(&["abc", "de", "f"]), 5);
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(flow.fault(), None);
        assert!(matches!(body.frame().await, Some(Err(BodyError::TooLarge { limit: 5 }))));
        assert!(body.frame().await.is_none());
        assert_eq!(flow.fault(), Some(ErrorCode::BodyTooLarge));
        assert_eq!(flow.bytes(), 6);
        assert!(flow.is_left_unread());
    }

    #[tokio::test]
    async fn a_client_that_pauses_for_too_long_fails_the_body() {
        let (mut body, flow) = body(pieces(&["abc"]), 100);
        assert!(body.frame().await.unwrap().is_ok());
        assert!(matches!(body.frame().await, Some(Err(BodyError::Idle(IDLE)))));
        assert_eq!(flow.fault(), Some(ErrorCode::RequestTimeout));
    }

    #[tokio::test]
    async fn a_broken_body_is_a_bad_request() {
        let broken = vec![Err(std::io::Error::other("gone"))];
        let (mut body, flow) = body(broken, 100);
        assert!(matches!(body.frame().await, Some(Err(BodyError::Client(_)))));
        assert_eq!(flow.fault(), Some(ErrorCode::BadRequest));
        assert!(flow.is_left_unread());
    }

    #[tokio::test]
    async fn what_came_with_the_head_counts_as_read() {
        let (body, flow) = RequestBody::new(Full::from("hello"), IDLE, false);
        drop(body);
        assert!(!flow.unwrap().is_left_unread());
        // Asking would make hyper send `100 Continue`.
        let (body, flow) = RequestBody::new(Full::from("hello"), IDLE, true);
        drop(body);
        assert!(flow.unwrap().is_left_unread());
        let (body, flow) = self::body(pieces(&["abc"]), 100);
        drop(body);
        assert!(flow.is_left_unread());
    }

    #[tokio::test]
    async fn trailers_carry_nothing_that_a_head_could_not() {
        let mut trailers = HeaderMap::new();
        for name in ["host", "connection", "x-forwarded-for", "x-faas-version", "grpc-status"] {
            trailers.insert(name, "x".parse().unwrap());
        }
        let frames = [Ok::<_, Infallible>(Frame::trailers(trailers))];
        let (body, _) = RequestBody::new(StreamBody::new(stream::iter(frames)), IDLE, false);
        let collected = body.collect().await.unwrap();
        let left: Vec<_> = collected.trailers().unwrap().keys().map(|k| k.as_str()).collect();
        assert_eq!(left, ["grpc-status"]);
    }
}
