//! From what WASI says of a request to an answer, the same for each version of WASI.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::{Body, Error, Handler, OrStatus, Request, Response, Result};

/// A name and a value, as WASI passes them.
pub(crate) type Field = (String, Vec<u8>);

/// What WASI says of a request, apart from its body.
pub(crate) struct Head {
    pub(crate) method: Result<Method>,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) authority: Option<String>,
    pub(crate) path_with_query: Option<String>,
    pub(crate) headers: HeaderMap,
}

impl Head {
    /// Joins it with its body.
    pub(crate) fn into_request(self, body: Body) -> Result<Request> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method?;
        *request.uri_mut() = uri(self.scheme, self.authority, self.path_with_query)
            .ok()
            .or_status(400, "the request's address is not valid")?;
        *request.headers_mut() = self.headers;
        Ok(request)
    }
}

/// Answers a request. Whatever fails becomes an answer too.
pub(crate) async fn answer<Kind>(
    handler: impl Handler<Kind>,
    request: Result<Request>,
) -> Response {
    let answer = match request {
        Ok(request) => handler.call(request).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(Error::into_text)
}

/// A method that has no name of its own in WASI.
pub(crate) fn other_method(name: &str) -> Result<Method> {
    Method::from_bytes(name.as_bytes()).ok().or_status(400, "the request's method is not valid")
}

/// Headers as WASI gives them. What it gives was HTTP once, so nothing is lost here; and a field
/// that is none could not be put into a header map anyway.
pub(crate) fn headers(fields: Vec<Field>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Headers as WASI takes them.
pub(crate) fn fields(headers: &HeaderMap) -> Vec<Field> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_owned())
    };
    headers.iter().map(field).collect()
}

/// The length of a body, as its headers tell.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn uri(
    scheme: Option<Scheme>,
    authority: Option<String>,
    path_with_query: Option<String>,
) -> Result<Uri, http::Error> {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(match path_with_query {
        Some(path) if !path.is_empty() => PathAndQuery::try_from(path)?,
        _ => PathAndQuery::from_static("/"),
    });
    // An address is either whole or a path; WASI lets each part be absent by itself.
    if let Some(authority) = authority.filter(|authority| !authority.is_empty()) {
        parts.authority = Some(Authority::try_from(authority)?);
        parts.scheme = Some(scheme.unwrap_or(Scheme::HTTP));
    }
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block_on;

    fn address(authority: Option<&str>, path: Option<&str>) -> Result<String, u16> {
        let head = Head {
            method: other_method("BREW"),
            scheme: Some(Scheme::HTTPS),
            authority: authority.map(str::to_owned),
            path_with_query: path.map(str::to_owned),
            headers: HeaderMap::new(),
        };
        let request = head.into_request(Body::empty());
        request
            .map(|request| request.uri().to_string())
            .map_err(|error| error.status_code().as_u16())
    }

    #[test]
    fn addresses_are_whole_or_a_path() {
        assert_eq!(
            address(Some("a.example:8080"), Some("/b?c")).unwrap(),
            "https://a.example:8080/b?c"
        );
        assert_eq!(address(None, Some("/b?c")).unwrap(), "/b?c");
        assert_eq!(address(Some(""), Some("")).unwrap(), "/");
        assert_eq!(address(None, None).unwrap(), "/");
        assert_eq!(address(Some("a b"), Some("/")).unwrap_err(), 400);
        assert_eq!(address(None, Some("/a b")).unwrap_err(), 400);
    }

    #[test]
    fn methods_must_be_tokens() {
        assert_eq!(other_method("BREW").unwrap(), "BREW");
        assert_eq!(other_method("BREW IT").unwrap_err().status_code(), 400);
    }

    #[test]
    fn headers_go_both_ways_and_keep_repetitions() {
        let given = vec![
            ("content-length".to_owned(), b"12".to_vec()),
            ("x-a".to_owned(), b"1".to_vec()),
            ("x-a".to_owned(), b"\xff".to_vec()),
        ];
        let map = headers(given.clone());
        assert_eq!(content_length(&map), Some(12));
        assert_eq!(fields(&map), given);
    }

    #[test]
    fn a_request_that_is_none_never_reaches_the_handler() {
        let never = |_: Request| -> &'static str { panic!("called") };
        let response = block_on(answer(never, Err(Error::status(400, "no"))));
        assert_eq!(response.status(), 400);
        let response = block_on(answer(|_: Request| "yes", Ok(Request::default())));
        assert_eq!(response.status(), 200);
    }
}
