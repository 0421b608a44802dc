//! The account of one request: opened when its head is here, settled once, when its answer has
//! ended or nobody wants it any more.

use super::{
    access_log::{Line, Log, push_escaped},
    backend::Function,
    body::Flow,
    forward,
    respond::{Content, Labels},
};
use crate::{
    engine::{InvokeError, Meter},
    request_id::RequestId,
    telemetry::metrics::Metrics,
};
use bytes::Bytes;
use faas_api::{ErrorCode, LogSource};
use http::{HeaderValue, Method, Uri};
use http_body::{Body, Frame, SizeHint};
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

/// Where requests are written down.
pub(super) struct Books {
    pub(super) metrics: Metrics,
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
    /// How many bytes of the path name the app.
    prefix: usize,
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
    pub(super) fn new(books: Arc<Books>, method: Method, uri: Uri) -> Self {
        let id = RequestId::new();
        Self {
            books,
            id,
            id_header: id.header(),
            started: Instant::now(),
            method,
            uri,
            prefix: 0,
            function: None,
            meter: None,
            flow: None,
            status: 0,
            code: None,
            sent: 0,
            failure: None,
            complete: false,
        }
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
        let version = self
            .function
            .as_ref()
            .map(|function| function.version_header().clone());
        Labels {
            id: self.id_header.clone(),
            version,
        }
    }

    /// The request has a body, and this is what is known of it.
    pub(super) fn watches(&mut self, flow: Option<Arc<Flow>>) {
        self.flow = flow;
    }

    pub(super) fn flow(&self) -> Option<&Arc<Flow>> {
        self.flow.as_ref()
    }

    /// A function was found for it.
    pub(super) fn is_for(&mut self, function: F, prefix: usize) {
        self.function = Some(function);
        self.prefix = prefix;
    }

    /// The function, once one was found.
    pub(super) fn function(&self) -> Option<&F> {
        self.function.as_ref()
    }

    /// The function is called; `Meter` has what that costs.
    pub(super) fn meters(&mut self) -> Arc<Meter> {
        self.meter.insert(Arc::default()).clone()
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

    fn settle(&mut self) {
        let duration = self.started.elapsed();
        if let Some(failure) = &self.failure {
            self.code.get_or_insert(failure.code().as_str());
        }
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
            Some(function) => self.charge(function, duration),
        }
        if self.books.log.wants(self.status) {
            self.books.log.write(&Line {
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
    fn charge(&self, function: &F, duration: Duration) {
        let metrics = function.metrics();
        metrics.request(self.status, duration);
        let (mut cpu_ms, mut memory_bytes) = (0.0, 0);
        match &self.meter {
            Some(meter) => {
                metrics.usage(meter.cpu(), meter.memory_peak());
                cpu_ms = millis(meter.cpu());
                memory_bytes = meter.memory_peak();
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
            function.log(
                self.id,
                LogSource::Failure {
                    message: failure.to_string(),
                },
            );
        }
        function.log(
            self.id,
            LogSource::Request {
                method: escaped(self.method.as_str(), 64),
                path: escaped(self.uri.path().get(self.prefix..).unwrap_or_default(), 1024),
                status: self.status,
                code: self.code.map(str::to_owned),
                duration_ms: millis(duration),
                cpu_ms,
                memory_bytes,
            },
        );
    }
}

impl<F: Function> Drop for Ticket<F> {
    fn drop(&mut self) {
        self.settle();
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn escaped(text: &str, max_bytes: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_bytes));
    push_escaped(&mut out, text, max_bytes);
    out
}

/// The body of an answer. When it ends, or is dropped, the account is settled.
pub(super) struct Answer<B, F: Function> {
    // Dropped first: a guest that is cancelled has used what it has used.
    source: Source<B>,
    ticket: Ticket<F>,
}

enum Source<B> {
    /// The guest writes it.
    Guest {
        body: B,
        /// What it still owes, where its head says how much there is.
        owes: Option<u64>,
    },
    /// The node wrote it.
    Own(Bytes),
    /// Nothing, or nothing more.
    Done,
}

impl<B, F: Function> Answer<B, F> {
    /// A body that a guest writes.
    pub(super) fn of_guest(body: B, content: Content, mut ticket: Ticket<F>) -> Self
    where
        B: Body,
    {
        let owes = match content {
            Content::None => return Self::own(Bytes::new(), ticket),
            Content::Exactly(length) => Some(length),
            Content::Any => None,
        };
        ticket.complete = body.is_end_stream();
        Self {
            source: Source::Guest { body, owes },
            ticket,
        }
    }

    /// A body of the node's own.
    pub(super) fn own(bytes: Bytes, mut ticket: Ticket<F>) -> Self {
        ticket.complete = bytes.is_empty();
        Self {
            source: Source::Own(bytes),
            ticket,
        }
    }
}

impl<B, F> Answer<B, F>
where
    B: Body<Data = Bytes, Error = InvokeError> + Unpin,
    F: Function,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        let Source::Guest { body, owes } = &mut self.source else {
            return Poll::Ready(self.take_own().map(Ok));
        };
        // A defect of the host in one request is that request's failure and no other's.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *body).poll_frame(cx)))
            .unwrap_or_else(|panic| Poll::Ready(Some(Err(panicked(&*panic)))));
        let frame = match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => match owes {
                None | Some(0) => {
                    self.source = Source::Done;
                    self.ticket.complete = true;
                    return Poll::Ready(None);
                }
                Some(missing) => Err(InvokeError::BadResponse(format!(
                    "the body ended {missing} bytes before its `content-length`"
                ))),
            },
            Poll::Ready(Some(Ok(frame))) => owed(frame, owes, body.is_end_stream()),
            Poll::Ready(Some(Err(error))) => Err(error),
        };
        match frame {
            Ok(frame) => {
                self.ticket.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.ticket.complete = body.is_end_stream() || *owes == Some(0);
                if *owes == Some(0) {
                    self.see_end(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Err(error) => {
                self.ticket.complete = true;
                self.ticket.fails(error.code(), Some(error.clone()));
                self.source = Source::Done;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// hyper drops a body that has delivered what its head promised. To the engine that would
    /// mean that nobody wants the answer; here the guest learns that it was taken, if it has
    /// come to its end.
    fn see_end(&mut self, cx: &mut Context<'_>) {
        let Source::Guest { body, .. } = &mut self.source else {
            return;
        };
        if body.is_end_stream() {
            return;
        }
        let end = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
        match end {
            Ok(Poll::Ready(None)) => self.source = Source::Done,
            Ok(Poll::Ready(Some(Err(error)))) => {
                self.ticket.fails(error.code(), Some(error));
                self.source = Source::Done;
            }
            Ok(Poll::Ready(Some(Ok(_))) | Poll::Pending) | Err(_) => {}
        }
    }

    fn take_own(&mut self) -> Option<Frame<Bytes>> {
        match std::mem::replace(&mut self.source, Source::Done) {
            Source::Own(bytes) if !bytes.is_empty() => {
                self.ticket.sent = bytes.len() as u64;
                self.ticket.complete = true;
                Some(Frame::data(bytes))
            }
            _ => None,
        }
    }
}

/// Checks a piece of a body against what its head promised. hyper would cut off what is too much
/// and let the client believe that all is well.
fn owed(
    frame: Frame<Bytes>,
    owes: &mut Option<u64>,
    is_last: bool,
) -> Result<Frame<Bytes>, InvokeError> {
    let frame = forward::clean_trailers(frame);
    let Some(left) = owes else { return Ok(frame) };
    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
    match left.checked_sub(length) {
        Some(missing @ 1..) if is_last => Err(InvokeError::BadResponse(format!(
            "the body ended {missing} bytes before its `content-length`"
        ))),
        Some(rest) => {
            *left = rest;
            Ok(frame)
        }
        None => Err(InvokeError::BadResponse(
            "the body is longer than its `content-length`".to_owned(),
        )),
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
            Source::Guest { body, .. } => body.is_end_stream(),
            Source::Own(bytes) => bytes.is_empty(),
            Source::Done => true,
        }
    }

    /// Exact where the body is complete, so that hyper writes it together with its head.
    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Guest { body, .. } => body.size_hint(),
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Done => SizeHint::with_exact(0),
        }
    }
}
