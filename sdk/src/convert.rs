//! Between the types of the `http` crate and those of WASI, which are alike in its versions.

use http::uri::Scheme;
use http::{HeaderMap, Method};

use crate::answer::{fields, other_method};
use crate::platform::types::{self, ErrorCode, Fields, HeaderError};
use crate::{Error, Result};

pub(crate) fn method(method: types::Method) -> Result<Method> {
    Ok(match method {
        types::Method::Get => Method::GET,
        types::Method::Head => Method::HEAD,
        types::Method::Post => Method::POST,
        types::Method::Put => Method::PUT,
        types::Method::Delete => Method::DELETE,
        types::Method::Connect => Method::CONNECT,
        types::Method::Options => Method::OPTIONS,
        types::Method::Trace => Method::TRACE,
        types::Method::Patch => Method::PATCH,
        types::Method::Other(name) => return other_method(&name),
    })
}

pub(crate) fn scheme(scheme: types::Scheme) -> Option<Scheme> {
    match scheme {
        types::Scheme::Http => Some(Scheme::HTTP),
        types::Scheme::Https => Some(Scheme::HTTPS),
        types::Scheme::Other(name) => name.as_str().try_into().ok(),
    }
}

/// Headers or trailers for the host.
pub(crate) fn to_fields(headers: &HeaderMap) -> Result<Fields> {
    if headers.is_empty() {
        return Ok(Fields::new());
    }
    Fields::from_list(&fields(headers)).map_err(|error| refused_header(headers, &error))
}

/// A request's body that ended before its end.
pub(crate) fn broken_body(code: &ErrorCode) -> Error {
    // The codes' own text is not used: it would bring the whole long list into every function.
    let why = match code {
        ErrorCode::ConnectionTerminated => "the connection was closed",
        ErrorCode::ConnectionTimeout | ErrorCode::ConnectionReadTimeout => {
            "the client was too slow"
        }
        ErrorCode::HttpRequestBodySize(_) => "it had another length than announced",
        ErrorCode::HttpProtocolError => "it was not valid HTTP",
        _ => "the host gave up reading it",
    };
    broken_off(why.into())
}

pub(crate) fn broken_off(why: String) -> Error {
    Error::status(400, "the request's body broke off").with_cause(why)
}

/// Names the header that the host refused, since the host does not.
fn refused_header(headers: &HeaderMap, error: &HeaderError) -> Error {
    let probe = Fields::new();
    let name = headers.iter().find_map(|(name, value)| {
        probe.append(name.as_str(), value.as_bytes()).err().map(|_| name.as_str())
    });
    let why = match error {
        HeaderError::Forbidden => "only the host may set",
        _ => "the host refused",
    };
    Error::internal(format_args!("{why} the header `{}`", name.unwrap_or("?")))
}
