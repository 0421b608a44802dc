//! The two bodies of an exchange with a server.

use super::{
    account::Witness,
    connection::Lease,
    failure::{self, Failure},
    head::clean_trailers,
    target::Target,
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};
use wasmtime_wasi_http::{Error, WasiBody};

/// When a request's body last moved, so that a long upload is not taken for a silent server.
#[derive(Clone)]
pub(super) struct Progress(Arc<Moved>);

struct Moved {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::new(Moved { begun: Instant::now(), last_ms: AtomicU64::new(0) }))
    }

    /// Something moved just now.
    pub(super) fn moved(&self) {
        let now = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.store(now, Relaxed);
    }

    fn last(&self) -> Instant {
        self.0.begun + Duration::from_millis(self.0.last_ms.load(Relaxed))
    }

    /// Ends when nothing has moved for so long.
    pub(super) async fn stalled(&self, patience: Duration) {
        loop {
            let last = self.last();
            sleep_until(last + patience).await;
            if self.last() == last {
                return;
            }
        }
    }
}

/// A request's body on its way to a server.
pub(super) struct Upload {
    body: WasiBody,
    progress: Progress,
}

impl Upload {
    pub(super) fn new(body: WasiBody, progress: Progress) -> Self {
        Self { body, progress }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.progress.moved();
        }
        polled.map_ok(clean_trailers)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What holds for the body of an answer.
pub(super) struct Bounds {
    /// Time between two pieces.
    pub(super) idle: Duration,
    /// When the whole exchange must be over, and the setting that says so.
    pub(super) over: (Instant, Duration),
    /// Bytes.
    pub(super) bytes: u64,
}

/// A server's answer on its way to a function, with what it holds until its end.
pub(super) struct Download {
    body: Incoming,
    bounds: Bounds,
    received: u64,
    /// What it waits for is to come by then.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Who is told when it is cut off.
    witness: Witness,
    target: Target,
    /// The connection and its places among those that are under way. Dropping it closes the
    /// connection.
    lease: Option<Lease>,
}

impl Download {
    pub(super) fn new(body: Incoming, bounds: Bounds, witness: Witness, lease: Lease) -> Self {
        let target = lease.target.clone();
        let (received, deadline) = (0, None);
        let mut download =
            Self { body, bounds, received, deadline, witness, target, lease: Some(lease) };
        download.look_for_end();
        download
    }

    /// The connection is free for another request as soon as this one is over.
    fn look_for_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.done();
        }
    }

    /// Whether there is any time left, and the answer is not too large.
    fn check(&self) -> Result<(), Failure> {
        let (over, limit) = self.bounds.over;
        if Instant::now() >= over {
            return Err(Failure::total(limit));
        }
        match self.received > self.bounds.bytes {
            true => Err(Failure::too_large(self.received, self.bounds.bytes)),
            false => Ok(()),
        }
    }

    /// Ends it, and says why.
    fn cut_off(&mut self, failure: Failure) -> Error {
        self.lease = None;
        self.witness.cut_off(&self.target, &failure);
        failure.error
    }

    /// Waits with what waits for the next piece.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let (over, limit) = self.bounds.over;
        let idle = self.bounds.idle;
        let until = || Box::pin(sleep_until(over.min(Instant::now() + idle)));
        let deadline = self.deadline.get_or_insert_with(until);
        deadline.as_mut().poll(cx).map(|()| match Instant::now() >= over {
            true => self.cut_off(Failure::total(limit)),
            false => {
                self.lease = None;
                Error::ConnectionReadTimeout
            }
        })
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.deadline = None;
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.received = this.received.saturating_add(bytes as u64);
                if let Err(failure) = this.check() {
                    return Poll::Ready(Some(Err(this.cut_off(failure))));
                }
                this.look_for_end();
                Poll::Ready(Some(Ok(clean_trailers(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(failure::of_body(&error))))
            }
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.done();
                }
                Poll::Ready(None)
            }
            Poll::Pending => this.poll_deadline(cx).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that holds its place among those that are under way until its end.
pub(super) struct Held {
    pub(super) body: WasiBody,
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if !matches!(polled, Poll::Pending | Poll::Ready(Some(Ok(_)))) {
            self.turn = None;
        }
        polled.map_ok(clean_trailers)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
