//! The only maker of error responses, and the last look at a guest's.

use super::{forward, guard::cors::Told};
use crate::clock;
use bytes::Bytes;
use faas_api::{ErrorBody, ErrorCode};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, response};
use http_body::SizeHint;
use jiff::fmt::rfc2822::DateTimePrinter;

/// The methods an app may be asked with (RFC 9110 §15.5.6 wants them named in a 405).
const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What every response says about itself.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub(super) id: HeaderValue,
    /// The version that was asked, where one was found.
    pub(super) version: Option<HeaderValue>,
    /// What makes the client come back to this version.
    pub(super) cookie: Option<HeaderValue>,
    /// What the browser of a page of another origin is told.
    pub(super) told: Option<Box<Told>>,
}

impl Labels {
    fn put(self, headers: &mut HeaderMap) {
        headers.insert(forward::REQUEST_ID, self.id);
        if let Some(version) = self.version {
            headers.insert(forward::VERSION, version);
        }
        if let Some(cookie) = self.cookie {
            // Beside the guest's own.
            headers.append(header::SET_COOKIE, cookie);
        }
        if let Some(told) = self.told {
            told.put(headers);
        }
    }
}

/// The answer to a request that failed.
pub(super) fn error(code: ErrorCode, detail: Option<&str>, labels: Labels) -> Response<Bytes> {
    let mut body = ErrorBody::new(code);
    body.detail = detail.map(str::to_owned);
    body.request_id = labels.id.to_str().ok().map(str::to_owned);
    let text = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
    let mut response = Response::new(text);
    *response.status_mut() =
        StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM);
    headers.insert(forward::ERROR, HeaderValue::from_static(code.as_str()));
    match code.status() {
        429 | 503 => headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
        405 => headers.insert(header::ALLOW, ALLOWED),
        _ => None,
    };
    labels.put(headers);
    response
}

/// The answer to a request whose path names an app and does not enter it.
pub(super) fn redirect(location: HeaderValue, labels: Labels) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    labels.put(response.headers_mut());
    response
}

/// The answer to a browser that asks what a page may do (Fetch §3.2.2).
pub(super) fn preflight(fields: HeaderMap, labels: Labels) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = fields;
    labels.put(response.headers_mut());
    response
}

/// Ends an HTTP/1 connection after this response (RFC 9112 §9.6).
pub(super) fn close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, CLOSE);
}

/// A whole HTTP/1 response, for a head that hyper makes no request of.
pub(super) fn raw(response: &Response<Bytes>) -> Bytes {
    let mut out = Vec::with_capacity(512 + response.body().len());
    let status = response.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
    };
    for (name, value) in response.headers() {
        field(name.as_str(), value.as_bytes());
    }
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&clock::now()) {
        field("date", date.as_bytes());
    }
    field("connection", b"close");
    field("content-length", response.body().len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(response.body());
    out.into()
}

/// What a guest's response may send as its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// None: the answer to a HEAD, or a status that has none (RFC 9110 §6.4.1).
    None,
    /// Exactly so many bytes; the head says so.
    Exactly(u64),
    /// Whatever comes.
    Any,
}

/// Header fields of a response. Their bytes are limited where a guest makes them.
const MAX_FIELDS: usize = 100;

/// Makes a guest's response head fit to send, or says what HTTP does not allow about it.
pub(super) fn clean(
    parts: &mut response::Parts,
    method: &Method,
    size: &SizeHint,
) -> Result<Content, String> {
    if parts.status.is_informational() {
        return Err(format!("status {}", parts.status.as_u16()));
    }
    forward::from_guest(&mut parts.headers);
    parts.extensions.clear();
    if parts.headers.len() > MAX_FIELDS {
        return Err(format!("{} header fields, more than {MAX_FIELDS}", parts.headers.len()));
    }
    let declared = declared_length(&parts.headers)?;
    if let (Some(declared), Some(actual)) = (declared, size.exact())
        // A guest that knows HEAD sends the length of what it leaves out.
        && declared != actual
        && !(actual == 0 && (method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED))
    {
        return Err(format!("`content-length: {declared}` with a body of {actual} bytes"));
    }
    match parts.status {
        StatusCode::NO_CONTENT => {
            parts.headers.remove(header::CONTENT_LENGTH);
            Ok(Content::None)
        }
        // RFC 9110 §15.3.6: it has no content, and says so.
        StatusCode::RESET_CONTENT => {
            parts.headers.insert(header::CONTENT_LENGTH, 0.into());
            Ok(Content::None)
        }
        StatusCode::NOT_MODIFIED => Ok(Content::None),
        _ if method == Method::HEAD => {
            if let (None, Some(length @ 1..)) = (declared, size.exact()) {
                parts.headers.insert(header::CONTENT_LENGTH, length.into());
            }
            Ok(Content::None)
        }
        _ => Ok(declared.map_or(Content::Any, Content::Exactly)),
    }
}

/// The length a head declares. One line with one number, or none (RFC 9110 §8.6).
fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, String> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err("more than one `content-length`".to_owned());
    }
    let digits = line.to_str().unwrap_or_default();
    match digits.parse() {
        Ok(length) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(length)),
        _ => Err("`content-length` is not a number".to_owned()),
    }
}

/// Labels a guest's response.
pub(super) fn label(parts: &mut response::Parts, labels: Labels) {
    labels.put(&mut parts.headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels {
            id: HeaderValue::from_static("01J"),
            version: Some(HeaderValue::from_static("v3")),
            cookie: None,
            told: None,
        }
    }

    #[test]
    fn an_error_says_what_the_contract_says() {
        let response = error(ErrorCode::Overloaded, Some("why"), labels());
        assert_eq!(response.status(), 503);
        for (name, value) in [
            ("x-faas-error", "overloaded"),
            ("x-faas-version", "v3"),
            ("x-request-id", "01J"),
            ("retry-after", "1"),
            ("content-type", "application/problem+json"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        let body: ErrorBody = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body, {
            let mut body = ErrorBody::new(ErrorCode::Overloaded).detail("why");
            body.request_id = Some("01J".into());
            body
        });
        assert!(error(ErrorCode::MethodNotAllowed, None, labels()).headers().contains_key("allow"));
        for code in ErrorCode::ALL {
            assert_eq!(error(*code, None, labels()).status(), code.status());
        }
    }

    #[test]
    fn a_raw_response_is_a_whole_message() {
        let raw = raw(&error(ErrorCode::BadRequest, None, labels()));
        let text = std::str::from_utf8(&raw).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())));
        assert!(head.contains("\r\nconnection: close\r\n") && head.contains(" GMT\r\n"), "{head}");
    }

    fn cleaned(
        method: Method,
        status: u16,
        fields: &[(&str, &str)],
        size: Option<u64>,
    ) -> (Result<Content, String>, HeaderMap) {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (mut parts, ()) = response.body(()).unwrap().into_parts();
        let size = size.map_or_else(SizeHint::new, SizeHint::with_exact);
        let content = clean(&mut parts, &method, &size);
        (content, parts.headers)
    }

    #[test]
    fn a_guests_head_that_http_does_not_allow() {
        for (status, fields, size) in [
            (100, vec![], None),
            (101, vec![("upgrade", "x")], None),
            (103, vec![], Some(0)),
            (200, vec![("content-length", "5")], Some(4)),
            (200, vec![("content-length", "0")], Some(4)),
            (200, vec![("content-length", "4"), ("content-length", "4")], Some(4)),
            (200, vec![("content-length", "+4")], Some(4)),
            (200, vec![("content-length", "4, 4")], Some(4)),
            (200, vec![("content-length", "")], None),
            (200, vec![("content-length", "18446744073709551616")], None),
        ] {
            assert!(cleaned(Method::GET, status, &fields, size).0.is_err(), "{status} {fields:?}");
        }
    }

    #[test]
    fn what_a_response_may_send() {
        let length = ("content-length", "5");
        for (method, status, fields, size, content) in [
            (Method::GET, 200, vec![], None, Content::Any),
            (Method::GET, 200, vec![], Some(5), Content::Any),
            (Method::GET, 200, vec![length], Some(5), Content::Exactly(5)),
            (Method::GET, 200, vec![length], None, Content::Exactly(5)),
            (Method::GET, 999, vec![], None, Content::Any),
            (Method::GET, 204, vec![], Some(5), Content::None),
            (Method::GET, 205, vec![], Some(5), Content::None),
            (Method::GET, 304, vec![length], Some(0), Content::None),
            (Method::HEAD, 200, vec![length], Some(0), Content::None),
            (Method::HEAD, 200, vec![length], None, Content::None),
            (Method::HEAD, 200, vec![], Some(7), Content::None),
        ] {
            let (result, _) = cleaned(method, status, &fields, size);
            assert_eq!(result, Ok(content), "{status} {fields:?} {size:?}");
        }
        assert_eq!(cleaned(Method::HEAD, 200, &[], Some(7)).1["content-length"], "7");
        assert!(cleaned(Method::GET, 204, &[length], Some(5)).1.is_empty());
        assert_eq!(cleaned(Method::GET, 205, &[length], Some(5)).1["content-length"], "0");
    }

    #[test]
    fn a_guest_cannot_speak_for_the_node() {
        let (_, headers) = cleaned(
            Method::GET,
            200,
            &[
                ("x-faas-error", "internal"),
                ("x-faas-version", "v9"),
                ("x-request-id", "mine"),
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("transfer-encoding", "gzip"),
                ("keep-alive", "1"),
                ("upgrade", "x"),
                ("set-cookie", "a"),
            ],
            None,
        );
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("set-cookie"));
    }
}
