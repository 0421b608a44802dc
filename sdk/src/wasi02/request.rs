//! A request, as WASI 0.2 brings it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Frame, SizeHint};
use wasip2::http::types::{FutureTrailers, IncomingBody, IncomingRequest, Trailers};
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
        _ => {
            let state = State::Whole(request);
            Body::of(Content::Incoming(Box::new(Arriving { wait: None, state, left: length })))
        }
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

/// The body of a request, still on its way in.
struct Arriving {
    /// Stands before what it waits for, and so is dropped before it, as the host demands.
    wait: Option<Wait>,
    state: State,
    /// How many bytes are still to come, if the request said how long it is.
    left: Option<u64>,
}

enum State {
    /// Nobody has asked for it yet.
    Whole(IncomingRequest),
    Open(InputStream, IncomingBody),
    Trailers(FutureTrailers),
    Done,
}

impl Incoming for Arriving {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(Pin::new(wait).poll(cx));
                self.wait = None;
            }
            match &self.state {
                State::Whole(request) => match open(request) {
                    Some((stream, body)) => self.state = State::Open(stream, body),
                    None => return self.broken(broken_off("the host does not give it".into())),
                },
                State::Open(stream, _) => match stream.read(self.wanted()) {
                    Ok(data) if data.is_empty() => {
                        self.wait = Some(reactor::ready(stream.subscribe()))
                    }
                    Ok(data) => return Poll::Ready(Some(Ok(self.chunk(data)))),
                    Err(StreamError::Closed) => self.finish(),
                    Err(StreamError::LastOperationFailed(error)) => {
                        return self.broken(broken_off(error.to_debug_string()));
                    }
                },
                State::Trailers(trailers) => match trailers.get() {
                    None => self.wait = Some(reactor::ready(trailers.subscribe())),
                    Some(Ok(Ok(trailers))) => {
                        self.state = State::Done;
                        return Poll::Ready(trailers.as_ref().map(Trailers::entries).map(trailing));
                    }
                    Some(Ok(Err(code))) => return self.broken(broken_body(&code)),
                    Some(Err(())) => {
                        return self.broken(broken_off("its trailers are gone".into()));
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

impl Arriving {
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

    fn broken(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>>>> {
        self.state = State::Done;
        Poll::Ready(Some(Err(error)))
    }
}

fn open(request: &IncomingRequest) -> Option<(InputStream, IncomingBody)> {
    let body = request.consume().ok()?;
    let stream = body.stream().ok()?;
    Some((stream, body))
}

fn trailing(fields: Vec<(String, Vec<u8>)>) -> Result<Frame<Bytes>> {
    Ok(Frame::trailers(headers(fields)))
}
