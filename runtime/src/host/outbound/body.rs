//! The two bodies of an exchange with a server.

use super::{connection::Lease, failure};
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
    time::{Instant, Sleep, sleep, sleep_until},
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
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A server's answer on its way to a function, with what it holds until its end.
pub(super) struct Download {
    body: Incoming,
    idle: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The connection and its places among those that are under way. Dropping it closes the
    /// connection.
    lease: Option<Lease>,
}

impl Download {
    pub(super) fn new(body: Incoming, idle: Duration, lease: Lease) -> Self {
        let mut download = Self { body, idle, deadline: None, lease: Some(lease) };
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
                this.look_for_end();
                Poll::Ready(Some(Ok(frame)))
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
            Poll::Pending => {
                let idle = this.idle;
                let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(idle)));
                match deadline.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        this.lease = None;
                        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
                    }
                }
            }
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
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
