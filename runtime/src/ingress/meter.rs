//! The account of one request: opened when its head is here, settled once, when its answer has
//! ended or nobody wants it any more.

use super::{
    access_log::{Line, Log, MAX_PATH_BYTES},
    backend::Function,
    body::Flow,
    check::MAX_METHOD_BYTES,
    forward,
    guard::cors::Told,
    respond::{Content, Labels},
    sticky,
};
use crate::{
    clock,
    engine::{InvokeError, Meter},
    request_id::RequestId,
    telemetry::{
        guest_logs::{Event, RequestEnd},
        metrics::Metrics,
    },
};
use bytes::Bytes;
use faas_api::ErrorCode;
use http::{HeaderValue, Method, Uri};
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// The status in the books of a request whose client went away before it had an answer. It is
/// never sent.
const CLIENT_CLOSED: u16 = 499;

/// How often a body is polled until what was there before has been sent: once to begin with, and
/// once more because the connection may let others go first.
const POLLS_UNTIL_SENT: u8 = 2;

/// Where requests are written down.
pub(super) struct Books {
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Log,
    /// The node has stopped waiting for its requests.
    pub(super) cut: CancellationToken,
}

/// One request's account.
pub(super) struct Ticket<F: Function> {
    books: Arc<Books>,
    id: RequestId,
    id_header: HeaderValue,
    started: Instant,
    method: Method,
    uri: Uri,
    /// How many bytes of the path name the app,
    prefix: usize,
    /// and how many after those the function does not see.
    strip: usize,
    /// The lot that the client shall keep.
    stay: Option<u8>,
    /// What the browser of a page of another origin is told.
    told: Option<Box<Told>>,
    /// What the function's log has of a refusal, besides its code.
    note: Option<String>,
    function: Option<F>,
    meter: Option<Arc<Meter>>,
    flow: Option<Arc<Flow>>,
    /// 0 until there is an answer.
    status: u16,
    code: Option<&'static str>,
    sent: u64,
    failure: Option<InvokeError>,
    complete: bool,
}

impl<F: Function> Ticket<F> {
    /// Boxed: it is handed on a few times, and is not small.
    pub(super) fn new(books: Arc<Books>, id: RequestId, method: Method, uri: Uri) -> Box<Self> {
        Box::new(Self {
            books,
            id,
            id_header: id.header(),
            started: Instant::now(),
            method,
            uri,
            prefix: 0,
            strip: 0,
            stay: None,
            told: None,
            note: None,
            function: None,
            meter: None,
            flow: None,
            status: 0,
            code: None,
            sent: 0,
            failure: None,
            complete: false,
        })
    }

    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    pub(super) fn id_header(&self) -> &HeaderValue {
        &self.id_header
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn labels(&self) -> Labels {
        let version = self.function.as_ref().map(|function| function.version_header().clone());
        let below = || self.uri.path().get(..self.prefix).unwrap_or_default();
        let cookie = self.stay.and_then(|lot| sticky::cookie(lot, below()));
        Labels { id: self.id_header.clone(), version, cookie, told: self.told.clone() }
    }

    /// The request has a body, and this is what is known of it.
    pub(super) fn watches(&mut self, flow: Option<Arc<Flow>>) {
        self.flow = flow;
    }

    pub(super) fn flow(&self) -> Option<&Arc<Flow>> {
        self.flow.as_ref()
    }

    /// A function was found for it.
    pub(super) fn is_for(&mut self, function: F, prefix: usize, strip: usize) {
        self.function = Some(function);
        (self.prefix, self.strip) = (prefix, strip);
    }

    /// The client shall get this lot, so that it stays with the version.
    pub(super) fn stays(&mut self, lot: Option<u8>) {
        self.stay = lot;
    }

    /// The browser of a page of another origin is told this.
    pub(super) fn tells(&mut self, told: Told) {
        self.told = Some(Box::new(told));
    }

    /// The function's log shall have this.
    pub(super) fn notes(&mut self, note: Option<String>) {
        self.note = note;
    }

    /// The function, once one was found.
    pub(super) fn function(&self) -> Option<&F> {
        self.function.as_ref()
    }

    /// The function is called; `Meter` has what that costs.
    pub(super) fn meters(&mut self) -> Arc<Meter> {
        self.meter.insert(Arc::new(Meter::since(self.started))).clone()
    }

    /// This is the status of the answer.
    pub(super) fn answers(&mut self, status: u16) {
        self.status = status;
    }

    /// There is no answer but this.
    pub(super) fn fails(&mut self, code: ErrorCode, failure: Option<InvokeError>) {
        self.code = Some(code.as_str());
        self.failure = failure;
    }

    /// There is an answer, but only half of it.
    fn breaks_off(&mut self, error: &InvokeError) {
        self.complete = true;
        match self.flow.as_ref().and_then(|flow| flow.fault()) {
            // Whatever the guest made of a body that failed: the client is at fault.
            Some(code) => self.fails(code, None),
            None => self.fails(error.code(), Some(error.clone())),
        }
    }

    fn settle(&mut self) {
        let (now, duration) = (clock::now(), self.started.elapsed());
        if self.status == 0 {
            (self.status, self.code) = match self.books.cut.is_cancelled() {
                true => (503, Some(ErrorCode::ShuttingDown.as_str())),
                false => (CLIENT_CLOSED, Some("client_closed")),
            };
        } else if !self.complete {
            self.code.get_or_insert("client_closed");
        }
        let metrics = &self.books.metrics;
        metrics.response_bytes.inc_by(self.sent);
        if let Some(flow) = &self.flow {
            metrics.request_bytes.inc_by(flow.bytes());
        }
        match &self.function {
            None => metrics.unrouted(self.status, self.code.unwrap_or("none")),
            Some(function) => self.charge(function, now, duration),
        }
        if self.books.log.wants(self.status) {
            self.books.log.write(&Line {
                time: now,
                id: self.id_header.to_str().unwrap_or_default(),
                method: self.method.as_str(),
                path: self.uri.path(),
                status: self.status,
                code: self.code,
                app: self.function.as_ref().map(Function::app),
                version: self.function.as_ref().map(Function::version),
                duration,
                bytes: self.sent,
            });
        }
    }

    /// Writes it into the function's own books.
    fn charge(&self, function: &F, now: Timestamp, duration: Duration) {
        let metrics = function.metrics();
        metrics.request(self.status, duration);
        function.answered(self.status);
        let (mut cpu, mut memory_bytes) = (Duration::ZERO, 0);
        match &self.meter {
            // The guest has counted that itself, when it ended.
            Some(meter) => {
                (cpu, memory_bytes) = (meter.cpu(), meter.memory_peak());
                if meter.has_begun() {
                    metrics.invoked(self.flow.as_ref().map_or(0, |flow| flow.bytes()), self.sent);
                }
            }
            // It was refused before the function ran.
            None => {
                if let Some(code) = self.code {
                    metrics.rejected(code);
                }
            }
        }
        if let Some(failure) = &self.failure {
            match failure.is_guests_fault() {
                true => metrics.failure(failure.code().as_str()),
                false => metrics.rejected(failure.code().as_str()),
            }
            function.log(self.id, now, Event::Failure(&failure.to_string()));
        }
        if self.code == Some(ErrorCode::BodyTooLarge.as_str()) {
            let bytes = self.flow.as_ref().map_or(0, |flow| flow.known_bytes());
            let limit = function.body_limit();
            let note = format!("limit `request_body_bytes` reached: {bytes} of {limit} bytes");
            function.log(self.id, now, Event::Failure(&note));
        }
        if let Some(note) = &self.note {
            function.log(self.id, now, Event::Failure(note));
        }
        let (status, code) = (self.status, self.code);
        let end = RequestEnd { status, code, duration, cpu, memory_bytes };
        let method = cut(self.method.as_str(), MAX_METHOD_BYTES);
        let inside = self.uri.path().get(self.prefix + self.strip..).unwrap_or_default();
        let path = cut(if inside.is_empty() { "/" } else { inside }, MAX_PATH_BYTES);
        function.log(self.id, now, Event::Request { method, path, end });
    }
}

impl<F: Function> Drop for Ticket<F> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// What a log line holds of a text; it is escaped when it is read.
fn cut(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default()
}

/// The body of an answer. When it ends, or is dropped, the account is settled.
pub(super) struct Answer<B, F: Function> {
    // Dropped first: a guest that is cancelled has used what it has used.
    source: Source<B>,
    ticket: Box<Ticket<F>>,
}

enum Source<B> {
    /// The guest writes it.
    Guest(Guest<B>),
    /// The node wrote it.
    Own(Bytes),
    /// It has failed, and says so after so many more polls.
    Failed(InvokeError, u8),
    /// Nothing, or nothing more.
    Done,
}

/// A body that a guest writes, held to what its head says.
struct Guest<B> {
    body: B,
    /// What it still owes, where its head says how much there is.
    owes: Option<u64>,
    /// What came behind the last of what it owed: hardly ever anything.
    next: Option<Box<Frame<Bytes>>>,
    ended: bool,
}

impl<B, F: Function> Answer<B, F> {
    /// A body that a guest writes.
    pub(super) fn of_guest(body: B, content: Content, mut ticket: Box<Ticket<F>>) -> Self
    where
        B: Body,
    {
        let owes = match content {
            Content::None => return Self::own(Bytes::new(), ticket),
            Content::Exactly(length) => Some(length),
            Content::Any => None,
        };
        ticket.complete = body.is_end_stream();
        let guest = Guest { body, owes, next: None, ended: false };
        Self { source: Source::Guest(guest), ticket }
    }

    /// A body of the node's own.
    pub(super) fn own(bytes: Bytes, mut ticket: Box<Ticket<F>>) -> Self {
        ticket.complete = bytes.is_empty();
        Self { source: Source::Own(bytes), ticket }
    }
}

impl<B, F> Answer<B, F>
where
    B: Body<Data = Bytes, Error = InvokeError> + Unpin,
    F: Function,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        let Source::Guest(guest) = &mut self.source else {
            return match self.source {
                Source::Failed(_, 1..) => self.put_failure_off(cx),
                _ => Poll::Ready(self.take_rest()),
            };
        };
        let polled = match guest.poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(polled) => polled,
        };
        match &polled {
            Some(Ok(frame)) => {
                self.ticket.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.ticket.complete = guest.is_end() || guest.owes == Some(0);
            }
            Some(Err(error)) => {
                self.ticket.breaks_off(error);
                self.source = Source::Failed(error.clone(), POLLS_UNTIL_SENT);
                return self.put_failure_off(cx);
            }
            None => {
                self.ticket.complete = true;
                self.source = Source::Done;
            }
        }
        Poll::Ready(polled)
    }

    /// A body that fails makes hyper drop what it has not sent yet, even the head. It sends when
    /// the body has nothing: so for a while there is nothing.
    fn put_failure_off<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if let Source::Failed(_, left) = &mut self.source {
            *left = left.saturating_sub(1);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What the guest has no part in.
    fn take_rest(&mut self) -> Option<Result<Frame<Bytes>, InvokeError>> {
        match std::mem::replace(&mut self.source, Source::Done) {
            Source::Own(bytes) if !bytes.is_empty() => {
                self.ticket.sent = bytes.len() as u64;
                self.ticket.complete = true;
                Some(Ok(Frame::data(bytes)))
            }
            Source::Failed(error, _) => Some(Err(error)),
            _ => None,
        }
    }
}

impl<B> Guest<B>
where
    B: Body<Data = Bytes, Error = InvokeError> + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(Ok(*next)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match self.poll_body(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(self.end().err().map(Err)),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        Poll::Ready(Some(self.pay(&frame).and_then(|()| self.see_end(cx)).map(|()| frame)))
    }

    /// A defect of the host in one request is that request's failure and no other's.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        let body = Pin::new(&mut self.body);
        match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
            Ok(polled) => polled.map(|frame| Some(frame?.map(forward::clean_trailers))),
            Err(panic) => Poll::Ready(Some(Err(panicked(&*panic)))),
        }
    }

    /// Counts a piece against what the head promised. hyper would cut off what is too much, and
    /// let the client believe that all is well.
    fn pay(&mut self, frame: &Frame<Bytes>) -> Result<(), InvokeError> {
        if let (Some(owes), Some(data)) = (&mut self.owes, frame.data_ref()) {
            *owes = owes.checked_sub(data.len() as u64).ok_or_else(|| {
                InvokeError::BadResponse("the body is longer than its `content-length`".to_owned())
            })?;
        }
        match self.body.is_end_stream() {
            true => self.end(),
            false => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), InvokeError> {
        self.ended = true;
        match self.owes {
            None | Some(0) => Ok(()),
            Some(missing) => Err(InvokeError::BadResponse(format!(
                "the body ended {missing} bytes before its `content-length`"
            ))),
        }
    }

    /// hyper drops a body that has delivered what its head promised, which the engine would take
    /// for a client that went away. So the end is looked for as soon as nothing is owed.
    fn see_end(&mut self, cx: &mut Context<'_>) -> Result<(), InvokeError> {
        if self.owes != Some(0) || self.ended {
            return Ok(());
        }
        match self.poll_body(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(Some(Ok(frame))) => {
                self.pay(&frame)?;
                self.next = Some(Box::new(frame));
                Ok(())
            }
        }
    }

    fn is_end(&self) -> bool {
        self.next.is_none() && (self.ended || self.body.is_end_stream())
    }
}

/// A panic of the host, as a failure of one request.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> InvokeError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    InvokeError::Internal(format!("the host panicked: {text}"))
}

impl<B, F> Body for Answer<B, F>
where
    B: Body<Data = Bytes, Error = InvokeError> + Unpin,
    F: Function,
{
    type Data = Bytes;
    type Error = InvokeError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        self.get_mut().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Guest(guest) => guest.is_end(),
            Source::Own(bytes) => bytes.is_empty(),
            Source::Failed(..) => false,
            Source::Done => true,
        }
    }

    /// Exact where the body is complete, so that hyper writes it together with its head.
    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Guest(guest) => guest.body.size_hint(),
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Failed(..) => SizeHint::default(),
            Source::Done => SizeHint::with_exact(0),
        }
    }
}
