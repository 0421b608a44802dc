//! A response body whose guest may still be running.
//!
//! Nothing is spawned for a request: whoever polls the body polls the guest that writes it. A
//! client that does not read stops the guest; a client that goes away drops body, guest and store.

use super::{InvokeError, guest::Guest};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use wasmtime_wasi_http::WasiBody;

/// What is gathered into one piece before it goes to the client, in bytes.
const GATHER_BYTES: usize = 64 << 10;

/// A response body. Polling it runs the guest that writes it; dropping it cancels that guest.
pub(crate) struct GuestBody(State);

enum State {
    /// Complete: one piece, and perhaps trailers.
    Complete { data: Bytes, trailers: Option<Box<HeaderMap>> },
    /// Still being written.
    Streaming(Box<Streaming>),
    /// Over.
    Ended,
}

struct Streaming {
    body: WasiBody,
    guest: Option<Guest>,
    /// How the guest ended, once it did.
    outcome: Option<Result<(), InvokeError>>,
    /// A frame that came after the data which is handed out now.
    next: Option<Frame<Bytes>>,
}

impl GuestBody {
    /// A body that is complete, perhaps with trailers.
    pub(super) fn complete(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self(State::Complete { data, trailers: trailers.map(Box::new) })
    }

    /// A body of which this much was read already. A guest still writes it; without one it passes
    /// another body on.
    pub(super) fn streaming(begun: Bytes, body: WasiBody, guest: Option<Guest>) -> Self {
        let next = (!begun.is_empty()).then(|| Frame::data(begun));
        let outcome = guest.is_none().then_some(Ok(()));
        Self(State::Streaming(Box::new(Streaming { body, guest, outcome, next })))
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = InvokeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        match &mut self.0 {
            State::Complete { data, .. } if !data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(data)))))
            }
            State::Complete { trailers, .. } => {
                let trailers = trailers.take();
                self.0 = State::Ended;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))))
            }
            State::Streaming(streaming) => {
                let frame = ready!(streaming.poll_frame(cx));
                if !matches!(frame, Some(Ok(_)))
                    && let State::Streaming(streaming) =
                        std::mem::replace(&mut self.0, State::Ended)
                {
                    streaming.end(matches!(frame, Some(Err(_))));
                }
                Poll::Ready(frame)
            }
            State::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Complete { data, trailers } => data.is_empty() && trailers.is_none(),
            State::Streaming(_) => false,
            State::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            // With a length HTTP/1.1 has no place for trailers (RFC 9112 §7.1.2).
            State::Complete { trailers: Some(_), .. } => SizeHint::default(),
            State::Complete { data, .. } => SizeHint::with_exact(data.len() as u64),
            State::Streaming(streaming) => {
                let buffered = streaming.next.is_some();
                // What was declared by the guest is exact, and its body is held to it.
                if buffered { SizeHint::default() } else { streaming.body.size_hint() }
            }
            State::Ended => SizeHint::with_exact(0),
        }
    }
}

impl Streaming {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        self.poll_guest(cx);
        if let Some(frame) = self.next.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let first = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(self.failure(&error)))),
            // A guest that failed may leave a body that looks complete.
            Poll::Ready(None) => return Poll::Ready(self.take_failure().map(Err)),
            Poll::Pending => {
                return match self.take_failure() {
                    Some(error) => Poll::Ready(Some(Err(error))),
                    None => Poll::Pending,
                };
            }
        };
        Poll::Ready(Some(Ok(self.gather(first, cx))))
    }

    /// Joins small writes of the guest, so that they do not become small writes to the client.
    fn gather(&mut self, first: Frame<Bytes>, cx: &mut Context<'_>) -> Frame<Bytes> {
        let first = match first.into_data() {
            Ok(data) => data,
            Err(trailers) => return trailers,
        };
        if first.len() >= GATHER_BYTES / 2 {
            return Frame::data(first);
        }
        let mut gathered: Option<BytesMut> = None;
        while gathered.as_ref().map_or(first.len(), BytesMut::len) < GATHER_BYTES {
            // Errors and the end show again when the body is polled next, except for a frame.
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.body).poll_frame(cx) else {
                break;
            };
            match frame.into_data() {
                Ok(data) => gathered
                    .get_or_insert_with(|| {
                        let mut buffer = BytesMut::with_capacity(GATHER_BYTES);
                        buffer.extend_from_slice(&first);
                        buffer
                    })
                    .extend_from_slice(&data),
                Err(trailers) => {
                    self.next = Some(trailers);
                    break;
                }
            }
        }
        Frame::data(gathered.map_or(first, BytesMut::freeze))
    }

    fn poll_guest(&mut self, cx: &mut Context<'_>) {
        if let Some(guest) = &mut self.guest
            && let Poll::Ready(outcome) = guest.poll(cx)
        {
            self.guest = None;
            self.outcome = Some(outcome);
        }
    }

    fn failure(&mut self, error: &wasmtime_wasi_http::Error) -> InvokeError {
        // Why the guest failed says more than that its body broke off.
        self.take_failure().unwrap_or_else(|| super::guest::body_error(error))
    }

    fn take_failure(&mut self) -> Option<InvokeError> {
        match self.outcome.take() {
            Some(Err(error)) => Some(error),
            other => {
                self.outcome = other;
                None
            }
        }
    }

    /// The response is over. A guest that has more to do goes on without it, within its limits.
    fn end(self, failed: bool) {
        if let Some(guest) = self.guest
            && !failed
        {
            guest.finish_in_background();
        }
    }
}
