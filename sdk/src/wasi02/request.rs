//! A request, as WASI 0.2 brings it, and bodies that are on their way in.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Frame, SizeHint};
use wasip2::http::types::{ErrorCode, FutureTrailers, IncomingBody, IncomingRequest, Trailers};
use wasip2::io::streams::{InputStream, StreamError};

use super::reactor::{self, Wait};
use crate::answer::{Head, content_length, headers};
use crate::body::{Content, Incoming};
use crate::convert::{broken_body, broken_off, method, scheme};
use crate::{Body, Bytes, Error, Request, Result};

/// The most that is read at once. Each read is a call to the host, so it should be worth it.
const READ_SIZE: u64 = 64 * 1024;

/// Takes over a request from the host. Its body stays there until it is asked for.
///
/// # Errors
///
/// If it is no valid request.
pub fn receive(request: IncomingRequest) -> Result<Request> {
    let head = Head {
        method: method(request.method()),
        scheme: request.scheme().and_then(scheme),
        authority: request.authority(),
        path_with_query: request.path_with_query(),
        headers: headers(request.headers().entries()),
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
pub fn ignore(request: IncomingRequest) -> Result<Request> {
    drop(request);
    Ok(Request::default())
}

/// What has a body: a request, or the answer to one.
pub(super) trait Message {
    fn consume(&self) -> Result<IncomingBody, ()>;

    /// The error for a body that ended before its end.
    fn broken(why: Broken<'_>) -> Error;
}

/// Why a body ended.
pub(super) enum Broken<'a> {
    Code(&'a ErrorCode),
    Other(String),
}

impl Message for IncomingRequest {
    fn consume(&self) -> Result<IncomingBody, ()> {
        Self::consume(self)
    }

    fn broken(why: Broken<'_>) -> Error {
        match why {
            Broken::Code(code) => broken_body(code),
            Broken::Other(why) => broken_off(why),
        }
    }
}

/// The body of a message, still on its way in.
pub(super) struct Arriving<M> {
    /// Stands before what it waits for, and so is dropped before it, as the host demands.
    wait: Option<Wait>,
    state: State<M>,
    /// How many bytes are still to come, if the message said how long it is.
    left: Option<u64>,
}

enum State<M> {
    /// Nobody has asked for it yet.
    Whole(M),
    Open(InputStream, IncomingBody),
    Trailers(FutureTrailers),
    Done,
}

impl<M: Message> Incoming for Arriving<M> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(Pin::new(wait).poll(cx));
                self.wait = None;
            }
            match &self.state {
                State::Whole(message) => match open(message) {
                    Some((stream, body)) => self.state = State::Open(stream, body),
                    None => return self.broken(Broken::Other("the host does not give it".into())),
                },
                State::Open(stream, _) => match stream.read(self.wanted()) {
                    Ok(data) if data.is_empty() => {
                        self.wait = Some(reactor::ready(stream.subscribe()))
                    }
                    Ok(data) => return Poll::Ready(Some(Ok(self.chunk(data)))),
                    Err(StreamError::Closed) => self.finish(),
                    Err(StreamError::LastOperationFailed(error)) => {
                        return self.broken(Broken::Other(error.to_debug_string()));
                    }
                },
                State::Trailers(trailers) => match trailers.get() {
                    None => self.wait = Some(reactor::ready(trailers.subscribe())),
                    Some(Ok(Ok(trailers))) => {
                        self.state = State::Done;
                        return Poll::Ready(trailers.as_ref().map(Trailers::entries).map(trailing));
                    }
                    Some(Ok(Err(code))) => return self.broken(Broken::Code(&code)),
                    Some(Err(())) => {
                        return self.broken(Broken::Other("its trailers are gone".into()));
                    }
                },
                State::Done => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.state, self.left) {
            (State::Trailers(_) | State::Done, _) => SizeHint::with_exact(0),
            (_, Some(left)) => SizeHint::with_exact(left),
            (_, None) => SizeHint::new(),
        }
    }
}

impl<M: Message> Arriving<M> {
    /// The body of a message that says so of its length.
    pub(super) fn new(message: M, length: Option<u64>) -> Self {
        Self { wait: None, state: State::Whole(message), left: length }
    }

    /// How much to read. At least a byte even if none is due: that is how the end shows.
    fn wanted(&self) -> u64 {
        self.left.map_or(READ_SIZE, |left| left.clamp(1, READ_SIZE))
    }

    fn chunk(&mut self, data: Vec<u8>) -> Frame<Bytes> {
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        Frame::data(data.into())
    }

    /// Closes the stream and asks for the trailers.
    fn finish(&mut self) {
        if let State::Open(stream, body) = std::mem::replace(&mut self.state, State::Done) {
            // The stream belongs to the body and must be gone before it.
            drop(stream);
            self.state = State::Trailers(IncomingBody::finish(body));
        }
    }

    fn broken(&mut self, why: Broken<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        self.state = State::Done;
        Poll::Ready(Some(Err(M::broken(why))))
    }
}

fn open(message: &impl Message) -> Option<(InputStream, IncomingBody)> {
    let body = message.consume().ok()?;
    let stream = body.stream().ok()?;
    Some((stream, body))
}

fn trailing(fields: Vec<(String, Vec<u8>)>) -> Result<Frame<Bytes>> {
    Ok(Frame::trailers(headers(fields)))
}
