//! What a handler fails with: a message for the client, a cause for the log.

use std::error::Error as StdError;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{Body, Response, Result};

type Cause = Box<dyn StdError + Send + Sync>;

/// Why a request could not be answered as asked.
///
/// It has two sides. The client sees a status and, if one was given, a message. The cause, which
/// may say anything, only ever goes to stderr: that is the function's log.
///
/// Any error turns into this one with `?`, and so do strings; the client then sees a plain 500.
///
/// ```
/// use faas_sdk::{Error, Result};
///
/// fn port(text: &str) -> Result<u16> {
///     Ok(text.parse()?)
/// }
///
/// let error = port("eighty").unwrap_err();
/// assert_eq!(error.status_code(), 500);
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// assert_eq!(Error::status(404, "no such note").to_string(), "no such note");
/// ```
///
/// It deliberately is no [`std::error::Error`] itself: that is what lets `?` take every other one.
pub struct Error(Box<Inner>);

struct Inner {
    status: StatusCode,
    /// What the client may read. Without it, the status's own name.
    message: Option<String>,
    headers: HeaderMap,
    /// What only the log may read.
    cause: Option<Cause>,
}

impl Error {
    /// An answer with this status and this message, which the client will read.
    ///
    /// ```
    /// # use faas_sdk::Error;
    /// let error = Error::status(409, "this name is taken");
    /// ```
    #[must_use]
    pub fn status<S>(status: S, message: impl Into<String>) -> Self
    where
        S: TryInto<StatusCode>,
        S::Error: Into<http::Error>,
    {
        match status.try_into() {
            Ok(status) => Self::new(status, Some(message.into()), None),
            Err(error) => Self::from(error.into()),
        }
    }

    /// A plain 500 for the client; `detail` goes to the log.
    ///
    /// `?` does the same for errors and strings; this is for a value that can only be displayed.
    #[must_use]
    pub fn internal(detail: impl fmt::Display) -> Self {
        Self::from(detail.to_string())
    }

    /// Adds what really happened, for the log only.
    ///
    /// ```
    /// # use faas_sdk::Error;
    /// # let result: Result<(), std::io::Error> = Err(std::io::Error::other("disk on fire"));
    /// result.map_err(|cause| Error::status(503, "try again later").with_cause(cause))
    /// # .unwrap_err();
    /// ```
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds a header to the answer, `retry-after` say.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// The status the client sees.
    #[must_use]
    pub fn status_code(&self) -> StatusCode {
        self.0.status
    }

    /// The text the client sees.
    #[must_use]
    pub fn message(&self) -> &str {
        match &self.0.message {
            Some(message) => message,
            None => self.0.status.canonical_reason().unwrap_or("error"),
        }
    }

    /// What really happened, if that differs from [`Error::message`]. The client never sees it.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.cause.as_deref()
    }

    /// The answer as one line of plain text. This is what the client gets if a handler returns
    /// the error. Any cause is written to the log.
    #[must_use]
    pub fn into_text(self) -> Response {
        let body = format!("{}\n", self.message());
        self.answer(HeaderValue::from_static("text/plain; charset=utf-8"), body)
    }

    /// The answer as `application/problem+json` (RFC 9457), for an API whose clients read JSON.
    /// Any cause is written to the log.
    ///
    /// ```
    /// use faas_sdk::{Error, Request, Response, Router};
    ///
    /// #[faas_sdk::function]
    /// async fn handle(request: Request) -> Response {
    ///     Router::new().handle(request).await.unwrap_or_else(Error::into_problem)
    /// }
    /// ```
    #[must_use]
    pub fn into_problem(self) -> Response {
        let mut problem = serde_json::Map::new();
        let title = self.0.status.canonical_reason().unwrap_or("Error");
        problem.insert("title".into(), title.into());
        problem.insert("status".into(), self.0.status.as_u16().into());
        if let Some(message) = &self.0.message {
            problem.insert("detail".into(), message.as_str().into());
        }
        let body = serde_json::Value::Object(problem).to_string();
        self.answer(HeaderValue::from_static("application/problem+json"), body)
    }

    fn new(status: StatusCode, message: Option<String>, cause: Option<Cause>) -> Self {
        Self(Box::new(Inner { status, message, headers: HeaderMap::new(), cause }))
    }

    fn answer(mut self, content_type: HeaderValue, body: String) -> Response {
        self.log(self.0.status.as_str());
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        *response.headers_mut() = std::mem::take(&mut self.0.headers);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }

    /// Writes the cause to stderr, as one line, with what the client got. Without a cause there is
    /// nothing to say: the client was told everything.
    pub(crate) fn log(&self, answer: &str) {
        if self.0.cause.is_some() {
            use std::io::Write as _;
            // One write, so that one failure is one line of the log. If even stderr fails, there
            // is nobody left to tell.
            let line = format!("error: {self:#} ({answer})\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// The cause if there is one, else the message. The alternate form (`{:#}`) adds the causes of
/// the cause.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(cause) = &self.0.cause else {
            return f.write_str(self.message());
        };
        write!(f, "{cause}")?;
        let mut next = cause.source().filter(|_| f.alternate());
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("status", &self.0.status)
            .field("message", &self.message())
            .field("cause", &self.0.cause)
            .finish()
    }
}

impl<E> From<E> for Error
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    fn from(cause: E) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, None, Some(cause.into()))
    }
}

/// Says what the client shall read when an `Option` is empty or a `Result` failed.
///
/// ```
/// use faas_sdk::{OrStatus, Result};
///
/// fn age(text: Option<&str>) -> Result<u8> {
///     text.or_status(404, "nobody here")?.parse().or_status(400, "an age is a number")
/// }
///
/// assert_eq!(age(Some("42")).unwrap(), 42);
/// assert_eq!(age(None).unwrap_err().status_code(), 404);
/// assert_eq!(age(Some("old")).unwrap_err().message(), "an age is a number");
/// ```
pub trait OrStatus<T> {
    /// The value, or an [`Error`] with this status and message. What a `Result` failed with is
    /// kept as the cause, for the log.
    ///
    /// # Errors
    ///
    /// If there is no value.
    fn or_status(self, status: u16, message: impl Into<String>) -> Result<T>;
}

impl<T> OrStatus<T> for Option<T> {
    fn or_status(self, status: u16, message: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Error::status(status, message))
    }
}

impl<T, E> OrStatus<T> for std::result::Result<T, E>
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    fn or_status(self, status: u16, message: impl Into<String>) -> Result<T> {
        self.map_err(|cause| Error::status(status, message).with_cause(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[derive(Debug)]
    struct Refused(std::num::ParseIntError);

    impl fmt::Display for Refused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the database refused")
        }
    }

    impl StdError for Refused {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn refused() -> Result<()> {
        Err(Refused("x".parse::<u8>().unwrap_err()))?
    }

    #[test]
    fn the_client_sees_a_plain_500_and_the_log_the_whole_chain() {
        let error = refused().unwrap_err();
        assert_eq!(format!("{error:#}"), "the database refused: invalid digit found in string");
        assert_eq!(error.message(), "Internal Server Error");
        let response = error.into_text();
        assert_eq!(response.status(), 500);
        let text = testing::block_on(response.into_body().text(100)).unwrap();
        assert_eq!(text, "Internal Server Error\n");
    }

    #[test]
    fn a_status_has_a_message_for_the_client() {
        let error = Error::status(503, "come back later")
            .with_cause("queue full")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("3"));
        assert_eq!(error.cause().unwrap().to_string(), "queue full");
        let response = error.into_text();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        let text = testing::block_on(response.into_body().text(100)).unwrap();
        assert_eq!(text, "come back later\n");
    }

    #[test]
    fn a_status_that_does_not_exist_is_our_fault_not_the_clients() {
        assert_eq!(Error::status(7, "seven").status_code(), 500);
        assert_eq!(Error::status(StatusCode::GONE, "gone").status_code(), 410);
    }

    #[test]
    fn a_problem_tells_only_what_the_client_may_know() {
        let text = |error: Error| {
            testing::block_on(error.into_problem().into_body().text(200)).unwrap().to_string()
        };
        assert_eq!(
            text(Error::status(422, "`numbers` is missing")),
            r#"{"detail":"`numbers` is missing","status":422,"title":"Unprocessable Entity"}"#
        );
        assert_eq!(
            text(Error::internal("password is 1234")),
            r#"{"status":500,"title":"Internal Server Error"}"#
        );
    }

    /// What error crates such as `anyhow` do: no `std::error::Error`, but convertible to one.
    #[test]
    fn error_types_of_other_crates_convert_too() {
        struct Foreign;
        impl From<Foreign> for Cause {
            fn from(_: Foreign) -> Self {
                "foreign".into()
            }
        }
        fn fails() -> Result<()> {
            Err(Foreign)?
        }
        assert_eq!(fails().unwrap_err().to_string(), "foreign");
    }
}
