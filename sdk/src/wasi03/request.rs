//! A request, as WASI 0.3 brings it, and bodies that are on their way in.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use wasip3::http::types;
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_future;

use crate::answer::{Head, content_length, headers};
use crate::body::{Content, Incoming};
use crate::convert::{broken_body, method, scheme};
use crate::{Body, Bytes, Error, Request, Result};

/// The most that is read at once. Each read is a call to the host, so it should be worth it.
const READ_SIZE: usize = 64 * 1024;

/// Takes over a request from the host. Its body stays there until it is asked for.
///
/// # Errors
///
/// If it is no valid request.
pub fn receive(request: types::Request) -> Result<Request> {
    let head = Head {
        method: method(request.get_method()),
        scheme: request.get_scheme().and_then(scheme),
        authority: request.get_authority(),
        path_with_query: request.get_path_with_query(),
        headers: headers(request.get_headers().copy_all()),
    };
    let length = content_length(&head.headers);
    let body = match length {
        Some(0) => Body::empty(),
        _ => Body::of(Content::Incoming(Box::new(Arriving::new(request, length)))),
    };
    head.into_request(body)
}

/// Takes no notice of a request, for a handler that does not either.
///
/// # Errors
///
/// Never; it only looks like [`receive`].
pub fn ignore(request: types::Request) -> Result<Request> {
    drop(request);
    Ok(Request::default())
}

/// What has a body: a request, or the answer to one.
pub(super) trait Message: 'static {
    /// Both ends of its body.
    fn open(self) -> Open;

    /// The error for a body that ended before its end.
    fn broken(code: &types::ErrorCode) -> Error;
}

impl Message for types::Request {
    fn open(self) -> Open {
        // What became of the body is of no interest to the host; dropping the writer says "all
        // well".
        let (_, result) = wit_future::new(|| Ok(()));
        let (stream, trailers) = Self::consume_body(self, result);
        Open { stream, trailers }
    }

    fn broken(code: &types::ErrorCode) -> Error {
        broken_body(code)
    }
}

/// The body of a message, still on its way in.
pub(super) struct Arriving<M> {
    state: State<M>,
    /// How many bytes are still to come, if the message said how long it is.
    left: Option<u64>,
}

pub(crate) type Trailers = FutureReader<Result<Option<types::Trailers>, types::ErrorCode>>;

/// The two ends of a body that the host holds.
pub(crate) struct Open {
    pub(crate) stream: StreamReader<u8>,
    pub(crate) trailers: Trailers,
}

enum State<M> {
    /// Nobody has asked for it yet.
    Whole(M),
    /// Between two reads, with the buffer of the last one if it was hardly used.
    Open(Open, Vec<u8>),
    Reading(Pin<Box<dyn Future<Output = Read>>>),
    Done,
}

enum Read {
    Data(Open, Vec<u8>),
    End(Result<Option<types::Trailers>, types::ErrorCode>),
}

impl<M: Message> Incoming for Arriving<M> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        loop {
            // Left behind only if reading panics, and then nothing is left to go on with.
            match std::mem::replace(&mut self.state, State::Done) {
                State::Whole(message) => self.state = State::Open(message.open(), Vec::new()),
                State::Open(open, buffer) => {
                    self.state = State::Reading(Box::pin(read(open, self.sized(buffer))));
                }
                State::Reading(mut reading) => match reading.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(Read::Data(open, buffer)) => {
                        return Poll::Ready(Some(Ok(Frame::data(self.keep(open, buffer)))));
                    }
                    Poll::Ready(Read::End(end)) => {
                        return Poll::Ready(ended::<M>(end).transpose());
                    }
                },
                State::Done => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.state, self.left) {
            (State::Done, _) => SizeHint::with_exact(0),
            (_, Some(left)) => SizeHint::with_exact(left),
            (_, None) => SizeHint::new(),
        }
    }

    fn untouched(self: Box<Self>) -> Result<Open, Box<dyn Incoming>> {
        match self.state {
            State::Whole(message) => Ok(message.open()),
            _ => Err(self),
        }
    }
}

impl<M: Message> Arriving<M> {
    /// The body of a message that says so of its length.
    pub(super) fn new(message: M, length: Option<u64>) -> Self {
        Self { state: State::Whole(message), left: length }
    }

    /// A buffer as large as the next read can use.
    fn sized(&self, mut buffer: Vec<u8>) -> Vec<u8> {
        // One byte more than announced: a read without room could not tell that the end is there.
        let wanted = self.left.map_or(READ_SIZE, |left| {
            usize::try_from(left).map_or(READ_SIZE, |left| READ_SIZE.min(left.saturating_add(1)))
        });
        buffer.reserve_exact(wanted.saturating_sub(buffer.capacity()));
        buffer
    }

    /// Makes a chunk of what was read. Of a buffer that is mostly empty only its content is kept,
    /// and the buffer itself for the next read.
    fn keep(&mut self, open: Open, mut buffer: Vec<u8>) -> Bytes {
        self.left = self.left.map(|left| left.saturating_sub(buffer.len() as u64));
        if buffer.len() > buffer.capacity() / 2 {
            self.state = State::Open(open, Vec::new());
            return buffer.into();
        }
        let chunk = Bytes::copy_from_slice(&buffer);
        buffer.clear();
        self.state = State::Open(open, buffer);
        chunk
    }
}

async fn read(mut open: Open, buffer: Vec<u8>) -> Read {
    match open.stream.read(buffer).await {
        (StreamResult::Complete(_), buffer) => Read::Data(open, buffer),
        (StreamResult::Dropped | StreamResult::Cancelled, _) => Read::End(open.trailers.await),
    }
}

fn ended<M: Message>(
    end: Result<Option<types::Trailers>, types::ErrorCode>,
) -> Result<Option<Frame<Bytes>>> {
    let trailers = end.map_err(|code| M::broken(&code))?;
    Ok(trailers.map(|fields| Frame::trailers(headers(fields.copy_all()))))
}
