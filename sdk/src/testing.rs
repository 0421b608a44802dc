//! Calling handlers in plain unit tests, without a server.
//!
//! ```
//! use faas_sdk::{Request, Result, testing};
//!
//! async fn shout(mut request: Request) -> Result<String> {
//!     Ok(request.body_mut().text(1024).await?.to_uppercase())
//! }
//!
//! // In a crate, this stands in a `#[test]`.
//! let answer = testing::call(shout, Request::post("/").body("hello").unwrap());
//! assert_eq!(answer.status, 200);
//! assert_eq!(answer.text(), "HELLO");
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use serde_core::de::DeserializeOwned;

use crate::{Body, Bytes, Error, Handler, HeaderMap, Request, Response, Result, StatusCode};

/// What a client would have got.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status of the response.
    pub status: StatusCode,
    /// The headers as the handler set them; a server adds its own.
    pub headers: HeaderMap,
    /// The whole body, or what came of it before it broke off.
    pub body: Bytes,
    /// The trailers; empty if there are none.
    pub trailers: HeaderMap,
    /// Why the body broke off.
    pub broken: Option<Error>,
}

impl Answer {
    /// The body as text; what is not UTF-8 shows as `\u{fffd}`.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// If the body is not such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// The first header of this name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Has `handler` answer `request`, and reads the answer to its end, as a server would. An error
/// becomes the answer that the client would see.
///
/// A handler that needs something from its host, such as an outgoing request, cannot have it here.
pub fn call<Kind, B: Into<Body>>(handler: impl Handler<Kind>, request: Request<B>) -> Answer {
    block_on(async {
        let answer = handler.call(request.map(Into::into)).await;
        read(answer.unwrap_or_else(Error::into_text)).await
    })
}

/// Runs a future to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

async fn read(response: Response) -> Answer {
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    let broken = drain(&mut body, &mut bytes).await.err();
    let trailers = match broken {
        Some(_) => None,
        None => body.trailers().await.ok().flatten(),
    };
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: bytes.into(),
        trailers: trailers.unwrap_or_default(),
        broken,
    }
}

async fn drain(body: &mut Body, bytes: &mut Vec<u8>) -> Result<()> {
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(())
}

/// Wakes a sleeping thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Streams for the tests of this crate.
#[cfg(test)]
pub(crate) mod streams {
    use std::pin::Pin;

    use futures_core::Stream;

    use super::{Bytes, Context, Poll, Result};

    /// A stream of the given pieces, each of them ready at once.
    pub(crate) fn chunks<const N: usize>(
        pieces: [&'static str; N],
    ) -> impl Stream<Item = Result<Bytes>> {
        Pieces(pieces.into_iter())
    }

    struct Pieces<I>(I);

    impl<I: Iterator<Item = &'static str> + Unpin> Stream for Pieces<I> {
        type Item = Result<Bytes>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.next().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_until_woken_from_elsewhere() {
        let mut asked = false;
        let woken = block_on(std::future::poll_fn(|cx| {
            if asked {
                return Poll::Ready(true);
            }
            asked = true;
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            Poll::Pending
        }));
        assert!(woken);
    }

    #[test]
    fn plain_functions_are_handlers_too() {
        fn method(request: Request) -> String {
            request.method().to_string()
        }
        let answer = call(method, Request::put("/").body(()).unwrap());
        assert_eq!(answer.text(), "PUT");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }

    #[test]
    fn a_broken_body_shows_what_came_before() {
        let broken = |_: Request| {
            Body::from_writer(async |mut writer| {
                writer.write("half").await;
                writer.flush().await;
                Err(Error::internal("cable cut"))
            })
        };
        let answer = call(broken, Request::get("/").body(()).unwrap());
        assert_eq!(answer.text(), "half");
        assert_eq!(answer.broken.unwrap().to_string(), "cable cut");
    }
}
