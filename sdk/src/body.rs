//! The body of a request or a response.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use serde_core::de::DeserializeOwned;

use crate::{Bytes, Error, Result, StatusCode};

/// The body of a request or a response: bytes that are all there, or that are still on their way,
/// and perhaps trailers after them.
///
/// Strings, vectors and [`Bytes`] convert into a body; see also [`Body::from_stream`] and
/// [`Body::from_writer`]. With WASI 0.3, a request's body that is given back as the response's is
/// passed on by the host without entering the function.
///
/// It is an [`http_body::Body`] too, for use with other crates.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// Sent, or met, once the content has ended. Boxed because almost no body has any.
    trailers: Option<Box<HeaderMap>>,
}

/// Where the bytes come from.
pub(crate) enum Content {
    Empty,
    Full(Bytes),
    #[cfg_attr(
        not(target_family = "wasm"),
        expect(dead_code, reason = "nothing arrives from outside on the host")
    )]
    Incoming(Box<dyn Incoming>),
    Source(Pin<Box<Source>>),
}

/// A body that is still on its way in.
///
/// It is a trait and not the one type that it always is, so that a function which never looks at
/// a request does not carry the code to read one.
pub(crate) trait Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>>;

    fn size_hint(&self) -> SizeHint;

    /// Both ends, if nothing was read yet: what the host can pass on by itself.
    #[cfg(all(target_family = "wasm", feature = "wasi03", not(feature = "wasi02")))]
    fn untouched(self: Box<Self>) -> Result<crate::platform::Open, Box<dyn Incoming>>;
}

/// A body made by the function's own code, piece by piece.
pub(crate) type Source = dyn http_body::Body<Data = Bytes, Error = Error>;

impl Body {
    /// A body without a byte.
    #[must_use]
    pub const fn empty() -> Self {
        Self::of(Content::Empty)
    }

    /// A body whose bytes come from a stream. If the stream fails, so does the connection, since
    /// the status has been sent by then; the error goes to the log.
    ///
    /// ```
    /// # mod tokio_stream { // stands for any crate that makes streams
    /// #     pub struct Iter<I>(I);
    /// #     pub fn iter<I: IntoIterator>(items: I) -> Iter<I::IntoIter> { Iter(items.into_iter()) }
    /// #     impl<I: Iterator + Unpin> futures_core::Stream for Iter<I> {
    /// #         type Item = I::Item;
    /// #         fn poll_next(
    /// #             mut self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>
    /// #         ) -> std::task::Poll<Option<I::Item>> {
    /// #             std::task::Poll::Ready(self.0.next())
    /// #         }
    /// #     }
    /// # }
    /// use faas_sdk::{Body, Error};
    ///
    /// let numbers = (1..=3).map(|n| Ok::<_, Error>(format!("{n}\n")));
    /// let mut body = Body::from_stream(tokio_stream::iter(numbers));
    /// let text = faas_sdk::testing::block_on(body.text(100)).unwrap();
    /// assert_eq!(text, "1\n2\n3\n");
    /// ```
    #[must_use]
    pub fn from_stream<S, T, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<T, E>> + 'static,
        T: Into<Bytes>,
        E: Into<Error>,
    {
        Self::of(Content::Source(Box::pin(Chunks { stream: Box::pin(stream) })))
    }

    /// Takes over a body of another crate, with its trailers.
    #[must_use]
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<Error>> + 'static,
    {
        Self::of(Content::Source(Box::pin(Wrapped(Box::pin(body)))))
    }

    /// Adds trailers: headers that follow the body, a checksum for instance.
    ///
    /// They add to those that the body's source sends by itself. HTTP/1.1 clients only get them if
    /// the host and everything in between plays along.
    #[must_use]
    pub fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.add_trailers(trailers);
        self
    }

    /// The next piece, or `None` at the end. Pieces are as large as they arrive, up to 64 KiB.
    ///
    /// ```no_run
    /// # async fn sum(mut body: faas_sdk::Body) -> faas_sdk::Result<u64> {
    /// let mut length = 0;
    /// while let Some(chunk) = body.chunk().await? {
    ///     length += chunk.len() as u64;
    /// }
    /// # Ok(length) }
    /// ```
    ///
    /// # Errors
    ///
    /// If the body breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(frame) = poll_fn(|cx| self.poll_next(cx)).await.transpose()? else {
                return Ok(None);
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    // Kept for `trailers`; nothing follows them.
                    self.content = Content::Empty;
                    if let Ok(trailers) = frame.into_trailers() {
                        self.add_trailers(trailers);
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// The whole body. Each function has a limit to its memory, so each body needs one too: what
    /// is longer than `limit` bytes is refused with 413.
    ///
    /// # Errors
    ///
    /// If the body is longer than `limit`, or breaks off.
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes> {
        let announced = self.remaining();
        if announced.lower() > limit as u64 {
            return Err(too_long(limit));
        }
        let first = self.chunk().await?.unwrap_or_default();
        if first.len() > limit {
            return Err(too_long(limit));
        }
        // The usual case: it was one piece, and nothing has to be copied.
        if self.has_ended() {
            return Ok(first);
        }
        let Some(second) = self.chunk().await? else {
            return Ok(first);
        };
        let mut whole = Vec::with_capacity(usize::try_from(announced.lower()).unwrap_or(0));
        whole.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if chunk.len() > limit - whole.len() {
                return Err(too_long(limit));
            }
            whole.extend_from_slice(&chunk);
            next = if self.has_ended() { None } else { self.chunk().await? };
        }
        Ok(whole.into())
    }

    /// The whole body as text; 413 beyond `limit` bytes, 400 if it is not UTF-8.
    ///
    /// # Errors
    ///
    /// If the body is longer than `limit`, is not UTF-8, or breaks off.
    pub async fn text(&mut self, limit: usize) -> Result<String> {
        let bytes = self.bytes(limit).await?;
        String::from_utf8(bytes.into())
            .map_err(|_| Error::status(StatusCode::BAD_REQUEST, "the body is not UTF-8"))
    }

    /// The whole body, read as JSON: 413 beyond `limit` bytes, 400 if it is not JSON, 422 if it is
    /// JSON of another shape. The message says where.
    ///
    /// ```
    /// use faas_sdk::{Error, Request, Result};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Order {
    ///     amount: u32,
    /// }
    ///
    /// async fn order(mut request: Request) -> Result<String> {
    ///     let order: Order = request.body_mut().json(16 * 1024).await?;
    ///     Ok(format!("{} are on their way\n", order.amount))
    /// }
    /// # let answer = faas_sdk::testing::call(
    /// #     order, Request::post("/").body(r#"{"amount": -1}"#).unwrap());
    /// # assert_eq!(answer.status, 422);
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is longer than `limit`, is not such JSON, or breaks off.
    pub async fn json<T: DeserializeOwned>(&mut self, limit: usize) -> Result<T> {
        let bytes = self.bytes(limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let status = match error.classify() {
                serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::BAD_REQUEST,
            };
            Error::status(status, format!("the body is not the expected JSON: {error}"))
        })
    }

    /// What follows the body, once it has been read to its end; reads, and forgets, what is left
    /// of it.
    ///
    /// # Errors
    ///
    /// If the body breaks off.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        while self.chunk().await?.is_some() {}
        Ok(self.trailers.take().map(|trailers| *trailers))
    }

    pub(crate) const fn of(content: Content) -> Self {
        Self { content, trailers: None }
    }

    /// What the platform needs to send the body by the shortest way.
    #[cfg(all(target_family = "wasm", feature = "wasi03", not(feature = "wasi02")))]
    pub(crate) fn into_parts(self) -> (Content, Option<HeaderMap>) {
        (self.content, self.trailers.map(|trailers| *trailers))
    }

    /// The next frame. Once there is none, the content is [`Content::Empty`].
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let next = match &mut self.content {
            Content::Empty => None,
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Content::Incoming(incoming) => ready!(incoming.poll_frame(cx)),
            Content::Source(source) => ready!(source.as_mut().poll_frame(cx)),
        };
        if !matches!(next, Some(Ok(_))) {
            self.content = Content::Empty;
        }
        Poll::Ready(next)
    }

    /// How many bytes are still to come, as far as known.
    fn remaining(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Incoming(incoming) => incoming.size_hint(),
            Content::Source(source) => source.size_hint(),
        }
    }

    /// Whether no more bytes can come. Knowing this saves asking the host for them.
    fn has_ended(&self) -> bool {
        self.remaining().upper() == Some(0)
    }

    fn add_trailers(&mut self, more: HeaderMap) {
        match &mut self.trailers {
            Some(trailers) => trailers.extend(more),
            None => self.trailers = Some(Box::new(more)),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        match ready!(self.poll_next(cx)) {
            Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
            // The source's own trailers join those that were added to the body.
            Some(Ok(frame)) => {
                self.content = Content::Empty;
                if let Ok(trailers) = frame.into_trailers() {
                    self.add_trailers(trailers);
                }
            }
            Some(Err(error)) => {
                self.trailers = None;
                return Poll::Ready(Some(Err(error)));
            }
            None => {}
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty) && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining()
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        Self::of(Content::Full(bytes))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(bytes: &'static [u8; N]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Incoming(_) => f.write_str("Incoming"),
            Self::Source(_) => f.write_str("Source"),
        }
    }
}

/// A stream as a source.
struct Chunks<S> {
    stream: Pin<Box<S>>,
}

impl<S, T, E> http_body::Body for Chunks<S>
where
    S: Stream<Item = Result<T, E>>,
    T: Into<Bytes>,
    E: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let next = ready!(self.stream.as_mut().poll_next(cx));
        Poll::Ready(next.map(|item| match item {
            Ok(chunk) => Ok(Frame::data(chunk.into())),
            Err(error) => Err(error.into()),
        }))
    }
}

/// A body of another crate as a source: the same with this crate's error.
struct Wrapped<B>(Pin<Box<B>>);

impl<B> http_body::Body for Wrapped<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<Error>>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let next = ready!(self.0.as_mut().poll_frame(cx));
        Poll::Ready(next.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

fn too_long(limit: usize) -> Error {
    let message = format!("the body is longer than {limit} bytes");
    Error::status(StatusCode::PAYLOAD_TOO_LARGE, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, streams::chunks};

    fn trailers(name: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), http::HeaderValue::from_static("1"))])
    }

    #[test]
    fn a_known_body_is_one_piece() {
        let mut body = Body::from("hello");
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
        assert_eq!(block_on(body.chunk()).unwrap().unwrap(), "hello");
        assert!(block_on(body.chunk()).unwrap().is_none());
        assert!(http_body::Body::is_end_stream(&body));
    }

    #[test]
    fn nothing_is_an_empty_body() {
        for mut body in [Body::from(""), Body::from(()), Body::default(), Vec::new().into()] {
            assert!(http_body::Body::is_end_stream(&body));
            assert!(block_on(body.bytes(0)).unwrap().is_empty());
        }
    }

    #[test]
    fn pieces_are_joined_up_to_the_limit() {
        let body = || Body::from_stream(chunks(["ab", "", "cd", "e"]));
        assert_eq!(block_on(body().bytes(5)).unwrap(), "abcde");
        assert_eq!(block_on(body().bytes(4)).unwrap_err().status_code(), 413);
        assert_eq!(block_on(body().bytes(1)).unwrap_err().status_code(), 413);
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_unread() {
        let mut body = Body::from("too long");
        assert_eq!(block_on(body.bytes(7)).unwrap_err().status_code(), 413);
        assert_eq!(block_on(body.bytes(8)).unwrap(), "too long");
    }

    #[test]
    fn text_must_be_utf8() {
        assert_eq!(block_on(Body::from("é").text(9)).unwrap(), "é");
        assert_eq!(block_on(Body::from(b"\xff").text(9)).unwrap_err().status_code(), 400);
    }

    #[test]
    fn json_tells_bad_syntax_from_bad_shape() {
        let read = |text: &'static str| block_on(Body::from(text).json::<Vec<u8>>(100));
        assert_eq!(read("[1,2]").unwrap(), [1, 2]);
        assert_eq!(read("[1,").unwrap_err().status_code(), 400);
        assert_eq!(read("[1] 2").unwrap_err().status_code(), 400);
        assert_eq!(read("[300]").unwrap_err().status_code(), 422);
    }

    #[test]
    fn trailers_come_last_and_add_up() {
        let mut body = Body::wrap(Body::from("data").with_trailers(trailers("inner")))
            .with_trailers(trailers("outer"));
        let found = block_on(body.trailers()).unwrap().unwrap();
        assert_eq!(found.len(), 2);
        assert!(block_on(body.trailers()).unwrap().is_none());
    }

    #[test]
    fn trailers_survive_reading_the_body_whole() {
        let mut body = Body::from("data").with_trailers(trailers("sum"));
        assert_eq!(block_on(body.bytes(10)).unwrap(), "data");
        assert_eq!(block_on(body.trailers()).unwrap().unwrap()["sum"], "1");
    }

    #[test]
    fn an_error_ends_the_body() {
        let mut body = Body::from_writer(async |mut writer| {
            writer.write("a").await;
            Err("lost".into())
        })
        .with_trailers(trailers("sum"));
        assert_eq!(block_on(body.chunk()).unwrap().unwrap(), "a");
        assert_eq!(block_on(body.chunk()).unwrap_err().to_string(), "lost");
        assert!(block_on(body.chunk()).unwrap().is_none());
    }
}
