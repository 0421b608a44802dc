//! What can stand for a response.

use http::{HeaderValue, StatusCode, header};
use serde_core::Serialize;

use crate::{Body, Bytes, Error, Response, Result};

/// What a handler may answer.
///
/// | answer | becomes |
/// |---|---|
/// | [`Response`], or one whose body is a string or bytes | itself |
/// | `&'static str`, `String` | 200, `text/plain; charset=utf-8` |
/// | `Vec<u8>`, [`Bytes`] | 200, `application/octet-stream` |
/// | [`Body`] | 200, without a `content-type` |
/// | [`Json`] | 200, `application/json` |
/// | [`StatusCode`] | that status, no body |
/// | `(StatusCode, answer)` | the answer with that status |
/// | `Result<answer, E>` | the answer, or the [`Error`] that `E` turns into |
#[diagnostic::on_unimplemented(
    message = "a function cannot answer `{Self}`",
    label = "not an answer",
    note = "answer `faas_sdk::Result<faas_sdk::Response>`, a string, bytes, a status code or `faas_sdk::Json`",
    note = "an error in a `Result` must be a `faas_sdk::Error` or something `?` turns into one"
)]
pub trait IntoResponse {
    /// Makes the response. It may fail, as writing JSON does, so that a handler can end in
    /// `Json(value).into_response()`.
    ///
    /// # Errors
    ///
    /// If the value cannot be sent.
    fn into_response(self) -> Result<Response>;
}

/// A value to be answered as JSON.
///
/// ```
/// use faas_sdk::{IntoResponse, Json, Request, Response, Result, StatusCode};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Note {
///     id: u32,
/// }
///
/// async fn create(_: Request) -> Result<Response> {
///     (StatusCode::CREATED, Json(Note { id: 7 })).into_response()
/// }
/// ```
///
/// To read JSON, see [`Body::json`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(
    /// The value to serialize.
    pub T,
);

impl<B: Into<Body>> IntoResponse for Response<B> {
    fn into_response(self) -> Result<Response> {
        Ok(self.map(Into::into))
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Result<Response> {
        Ok(Response::new(self))
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Result<Response> {
        Ok(with_type("text/plain; charset=utf-8", self.into()))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Result<Response> {
        Ok(with_type("text/plain; charset=utf-8", self.into()))
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Result<Response> {
        Ok(with_type("application/octet-stream", self.into()))
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Result<Response> {
        Ok(with_type("application/octet-stream", self.into()))
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Result<Response> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self;
        Ok(response)
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Result<Response> {
        let mut response = self.1.into_response()?;
        *response.status_mut() = self.0;
        Ok(response)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Result<Response> {
        Ok(with_type("application/json", serde_json::to_vec(&self.0)?.into()))
    }
}

impl<T: IntoResponse, E: Into<Error>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Result<Response> {
        self.map_err(Into::into)?.into_response()
    }
}

fn with_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Status, content type and text of an answer.
    fn seen(answer: impl IntoResponse) -> (u16, Option<String>, String) {
        let response = answer.into_response().unwrap_or_else(Error::into_text);
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
        let text = testing::block_on(response.into_body().text(1000)).unwrap();
        (status, kind, text)
    }

    #[test]
    fn text_bytes_and_statuses() {
        let plain = Some("text/plain; charset=utf-8".to_owned());
        let octets = Some("application/octet-stream".to_owned());
        assert_eq!(seen("hi"), (200, plain.clone(), "hi".into()));
        assert_eq!(seen(String::from("hi")), (200, plain.clone(), "hi".into()));
        assert_eq!(seen(vec![b'x']), (200, octets.clone(), "x".into()));
        assert_eq!(seen(Bytes::from_static(b"x")), (200, octets, "x".into()));
        assert_eq!(seen(Body::from("x")), (200, None, "x".into()));
        assert_eq!(seen(StatusCode::NO_CONTENT), (204, None, String::new()));
        assert_eq!(seen((StatusCode::CREATED, "made")), (201, plain, "made".into()));
        assert_eq!(seen(Response::new("raw")), (200, None, "raw".into()));
    }

    #[test]
    fn json_and_results() {
        let json = Some("application/json".to_owned());
        assert_eq!(seen(Json([1, 2])), (200, json, "[1,2]".into()));
        let failed: Result<&str, std::num::ParseIntError> = "x".parse::<u8>().map(|_| "");
        assert_eq!(seen(failed).0, 500);
        let refused: Result<&str> = Err(Error::status(403, "no"));
        assert_eq!(seen(refused).2, "no\n");
    }

    #[test]
    fn json_that_cannot_be_written_is_an_error() {
        // A map's keys must be strings.
        let odd = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(seen(Json(odd)).0, 500);
    }
}
