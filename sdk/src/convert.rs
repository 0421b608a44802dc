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

/// The method of a request that is sent.
pub(crate) fn to_method(method: &Method) -> types::Method {
    match *method {
        Method::GET => types::Method::Get,
        Method::HEAD => types::Method::Head,
        Method::POST => types::Method::Post,
        Method::PUT => types::Method::Put,
        Method::DELETE => types::Method::Delete,
        Method::OPTIONS => types::Method::Options,
        Method::PATCH => types::Method::Patch,
        _ => types::Method::Other(method.as_str().to_owned()),
    }
}

/// The scheme of a request that is sent; without one the host chooses TLS.
pub(crate) fn to_scheme(scheme: Option<&Scheme>) -> Option<types::Scheme> {
    Some(match scheme?.as_str() {
        "http" => types::Scheme::Http,
        "https" => types::Scheme::Https,
        other => types::Scheme::Other(other.to_owned()),
    })
}

/// A request that got no answer.
pub(crate) fn no_answer(code: &ErrorCode) -> Error {
    let why = match code {
        ErrorCode::HttpRequestDenied => "the server is not granted: see `grants.outbound`",
        ErrorCode::DestinationIpProhibited => "the server's address is out of bounds",
        ErrorCode::DestinationNotFound | ErrorCode::DnsError(_) => "the server does not exist",
        ErrorCode::ConnectionRefused | ErrorCode::DestinationUnavailable => {
            "the server cannot be reached"
        }
        ErrorCode::ConnectionTimeout => "the server could not be reached in time",
        ErrorCode::HttpResponseTimeout => "the server did not answer in time",
        ErrorCode::ConnectionLimitReached => "the function sends too many requests",
        ErrorCode::LoopDetected => "functions call each other without end",
        ErrorCode::TlsCertificateError => "the server's certificate is not valid",
        ErrorCode::HttpRequestUriInvalid => "the request's address is not valid",
        _ => "the exchange failed; the function's log has more",
    };
    unanswered(why)
}

pub(crate) fn unanswered(why: &'static str) -> Error {
    Error::status(502, "an upstream server gave no answer").with_cause(why)
}

/// An answer's body that ended before its end.
pub(crate) fn broken_answer(why: String) -> Error {
    Error::status(502, "an upstream server's answer broke off").with_cause(why)
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
