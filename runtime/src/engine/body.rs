//! A response body whose guest may still be running.
//!
//! Nothing is spawned for a request: whoever polls the body polls the guest that writes it. A
//! client that does not read stops the guest; a client that goes away drops body, guest and store.

use super::{InvokeError, guest::Guest};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};
use wasmtime_wasi_http::WasiBody;

/// What is gathered into one piece before it goes to the client, in bytes.
const GATHER_BYTES: usize = 64 << 10;

/// Pieces of a body that are there. Most bodies are one piece, which is why the first lies apart: it
/// costs no queue.
#[derive(Default)]
pub(super) struct Pieces {
    /// Empty when there are none.
    first: Bytes,
    more: VecDeque<Bytes>,
    length: usize,
}

/// Up to so many bytes, pieces are joined: copying them costs less than sending them apart.
const WORTH_JOINING: usize = 8 << 10;

impl Pieces {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.more.push_back(piece);
        }
    }

    /// Takes the first piece; none is empty.
    fn pop(&mut self) -> Option<Bytes> {
        let next = self.more.pop_front().unwrap_or_default();
        let piece = std::mem::replace(&mut self.first, next);
        self.length -= piece.len();
        (!piece.is_empty()).then_some(piece)
    }

    /// One piece, where that is cheap.
    pub(super) fn joined(mut self) -> Self {
        if self.more.is_empty() || self.length > WORTH_JOINING {
            return self;
        }
        let mut whole = BytesMut::with_capacity(self.length);
        while let Some(piece) = self.pop() {
            whole.extend_from_slice(&piece);
        }
        self.push(whole.freeze());
        self
    }
}

/// A response body. Polling it runs the guest that writes it; dropping it cancels that guest.
pub(crate) struct GuestBody(State);

enum State {
    /// Complete, perhaps with trailers.
    Complete { data: Pieces, trailers: Option<Box<HeaderMap>> },
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
    /// What was read before, and comes first.
    begun: Pieces,
    /// A frame that came after the data which is handed out now.
    next: Option<Frame<Bytes>>,
    /// Whether the body has ended; it is not asked again.
    over: bool,
}

impl GuestBody {
    /// A body that is complete, perhaps with trailers.
    pub(super) fn complete(data: Pieces, trailers: Option<HeaderMap>) -> Self {
        Self(State::Complete { data, trailers: trailers.map(Box::new) })
    }

    /// A body of which this much was read already. A guest still writes it; without one it passes
    /// another body on.
    pub(super) fn streaming(begun: Pieces, body: WasiBody, guest: Option<Guest>) -> Self {
        let outcome = guest.is_none().then_some(Ok(()));
        let streaming = Streaming { body, guest, outcome, begun, next: None, over: false };
        Self(State::Streaming(Box::new(streaming)))
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
            State::Complete { data, trailers } => match data.pop() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => {
                    let trailers = trailers.take();
                    self.0 = State::Ended;
                    Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))))
                }
            },
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
            State::Complete { data, trailers } => data.len() == 0 && trailers.is_none(),
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
                let buffered = streaming.next.is_some() || streaming.begun.len() > 0;
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
        if let Some(piece) = self.begun.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(frame) = self.next.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let polled = match self.over {
            true => Poll::Ready(None),
            false => Pin::new(&mut self.body).poll_frame(cx),
        };
        let first = match polled {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(self.failure(&error)))),
            // A guest that failed may leave a body that looks complete. One that ends on another
            // thread wakes us when it has.
            Poll::Ready(None) if self.guest.as_ref().is_some_and(Guest::is_ending) => {
                self.over = true;
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                // One that others share, and that fails on another thread, has said so before its
                // bodies ended.
                self.poll_guest(cx);
                return Poll::Ready(self.take_failure().map(Err));
            }
            Poll::Pending => {
                if let Some(guest) = &mut self.guest
                    && let Err(error) = guest.is_awaited(cx)
                {
                    self.guest = None;
                    return Poll::Ready(Some(Err(error)));
                }
                return match self.take_failure() {
                    Some(error) => Poll::Ready(Some(Err(error))),
                    None => Poll::Pending,
                };
            }
        };
        if let Some(guest) = &mut self.guest {
            guest.spoke();
        }
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
