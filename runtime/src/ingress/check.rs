//! Refuses what hyper accepts and HTTP forbids, or what a server of many tenants must not guess
//! about: which host a request is for, and where it ends.
//!
//! What only the bytes of an HTTP/1 head show was refused before, in `connection::wire`.

use faas_api::ErrorCode;
use http::{
    HeaderMap, Method, Request, Uri, Version,
    header::{self, HeaderName},
};

/// The longest method.
pub(super) const MAX_METHOD_BYTES: usize = 64;

/// Fields that HTTP/2 has no use for (RFC 9113 §8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// The code the client gets.
    pub(super) code: ErrorCode,
    /// What is wrong, for the client. Never text of its own.
    pub(super) detail: &'static str,
}

/// Limits that are looked at once a request is parsed.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimits {
    /// Bytes of the target.
    pub(super) uri: usize,
    /// Header fields.
    pub(super) headers: usize,
}

/// Checks a request and returns the host it names, as the client wrote it; empty for an HTTP/1.0
/// request that names none.
pub(super) fn check<'a, B>(
    request: &'a Request<B>,
    limits: &RequestLimits,
) -> Result<&'a str, Refused> {
    if request.method().as_str().len() > MAX_METHOD_BYTES {
        return Err(bad("the method is too long"));
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Refused {
            code: ErrorCode::MethodNotAllowed,
            detail: "CONNECT and TRACE are not served",
        });
    }
    check_target(request.uri(), limits)?;
    if request.headers().len() > limits.headers {
        return Err(Refused {
            code: ErrorCode::HeadersTooLarge,
            detail: "the request has too many header fields",
        });
    }
    match request.version() {
        Version::HTTP_2 => check_http2(request.headers())?,
        _ => check_transfer_encoding(request.headers())?,
    }
    host(request)
}

/// The target is a path, possibly behind the scheme and host (RFC 9112 §3.2.1 and §3.2.2).
fn check_target(uri: &Uri, limits: &RequestLimits) -> Result<(), Refused> {
    let Some(path) = uri.path_and_query() else {
        return Err(bad("the target is not a path"));
    };
    if path.as_str().len() > limits.uri {
        return Err(Refused { code: ErrorCode::UriTooLong, detail: "the target is too long" });
    }
    // `OPTIONS *` asks about the server and not about any app.
    if !path.as_str().starts_with('/') {
        return Err(bad("the target is not a path"));
    }
    match uri.scheme_str() {
        None | Some("http" | "https") => Ok(()),
        Some(_) => Err(bad("the target's scheme is not http")),
    }
}

/// RFC 9113 §8.2.2. The `h2` crate refuses most of it; the rest shall not depend on that.
fn check_http2(headers: &HeaderMap) -> Result<(), Refused> {
    if CONNECTION_FIELDS.iter().any(|name| headers.contains_key(name)) {
        return Err(bad("a connection-specific field in HTTP/2"));
    }
    if headers
        .get_all(header::TE)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"))
    {
        return Err(bad("`te` in HTTP/2 can only be `trailers`"));
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(bad("more than one `content-length`"));
    }
    Ok(())
}

/// `chunked`, once, and no other coding: whoever stands in front must see the same end of the
/// message (RFC 9112 §6.1 and §6.3).
fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(_), _) => Err(bad("`transfer-encoding` can only be `chunked`")),
    }
}

/// The one host a request is for (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn host<B>(request: &Request<B>) -> Result<&str, Refused> {
    let mut lines = request.headers().get_all(header::HOST).iter();
    let field = match (lines.next(), lines.next()) {
        (None, _) => None,
        (Some(line), None) => match line.to_str() {
            Ok(text) => Some(text),
            Err(_) => return Err(bad("`host` is not a host")),
        },
        (Some(_), Some(_)) => return Err(bad("more than one `host`")),
    };
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    let host = match (target, field) {
        (Some(target), Some(field)) if !same_host(target, field) => {
            return Err(bad("the target and `host` name different hosts"));
        }
        // Only HTTP/2 can go without the field when the target has the host.
        (Some(target), None) if request.version() == Version::HTTP_2 => target,
        (_, Some(field)) => field,
        (_, None) if request.version() == Version::HTTP_10 => return Ok(""),
        (_, None) => return Err(bad("no `host`")),
    };
    match is_host(host) {
        true => Ok(host),
        false => Err(bad("`host` is not a host")),
    }
}

/// `a` and `a:80` are the same host for http, `a` and `a:443` for https; `a:80` and `a:443` never are.
fn same_host(a: &str, b: &str) -> bool {
    [":80", ":443"].into_iter().any(|port| {
        let (a, b) = (a.strip_suffix(port).unwrap_or(a), b.strip_suffix(port).unwrap_or(b));
        a.eq_ignore_ascii_case(b)
    })
}

/// Whether a host, possibly with a port, is the one that was asked for in a TLS handshake
/// (RFC 6066 §3). What is meant for another one came over a connection that is not for it, be it by
/// mistake (RFC 9110 §15.5.20). A request of HTTP/1.0 may name none.
pub(super) fn is_name_of(host: &str, name: &str) -> bool {
    let bare = host.split(':').next().unwrap_or_default();
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    host.is_empty() || bare.eq_ignore_ascii_case(name)
}

/// A name or an address, and perhaps a port. Narrower than RFC 3986 §3.2.2, which permits bytes
/// that no name on the internet has: `a,b` or `a%2eb` could only confuse whoever reads it next.
fn is_host(text: &str) -> bool {
    let name_end = match text.starts_with('[') {
        true => text.find(']').map_or(0, |at| at + 1),
        false => text.find(':').unwrap_or(text.len()),
    };
    let Some((name, port)) = text.split_at_checked(name_end) else {
        return false;
    };
    let is_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            !matches!(name, "" | ".") && name.bytes().all(allowed)
        }
    };
    is_name && is_port(port)
}

/// Nothing, a colon, or a colon and a number.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or(text);
    text.is_empty()
        || digits.is_empty()
        || text.starts_with(':')
            && digits.bytes().all(|b| b.is_ascii_digit())
            && digits.parse::<u16>().is_ok()
}

fn bad(detail: &'static str) -> Refused {
    Refused { code: ErrorCode::BadRequest, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits = RequestLimits { uri: 50, headers: 5 };

    /// `GET /x HTTP/1.1 | host: a | te: b`
    fn request(text: &str) -> Request<()> {
        let mut parts = text.split('|').map(str::trim);
        let mut line = parts.next().unwrap().split(' ');
        let mut request = Request::builder()
            .method(line.next().unwrap())
            .uri(line.next().unwrap())
            .version(match line.next().unwrap() {
                "1.0" => Version::HTTP_10,
                "1.1" => Version::HTTP_11,
                _ => Version::HTTP_2,
            });
        for field in parts {
            let (name, value) = field.split_once(':').unwrap();
            request = request.header(name, value.trim());
        }
        request.body(()).unwrap()
    }

    #[test]
    fn good_requests() {
        for (text, host) in [
            ("GET / 1.1 | host: a", "a"),
            ("GET /x?y 1.1 | host: A.b:8080", "A.b:8080"),
            ("get / 1.1 | host: a_b.c.", "a_b.c."),
            ("GET / 1.1 | host: 127.0.0.1:80", "127.0.0.1:80"),
            ("GET / 1.1 | host: [::1]:80", "[::1]:80"),
            ("GET / 1.1 | host: [::1]", "[::1]"),
            ("GET / 1.1 | host: a:", "a:"),
            ("GET / 1.0", ""),
            ("GET / 1.0 | host: a", "a"),
            ("GET http://A/x 1.1 | host: a", "a"),
            ("GET http://a:80/x 1.1 | host: a", "a"),
            ("GET https://a/x 1.1 | host: a:443", "a:443"),
            ("POST / 1.1 | host: a | transfer-encoding: Chunked", "a"),
            ("OPTIONS / 1.1 | host: a", "a"),
            ("GET http://a/ 2", "a"),
            ("GET http://a/ 2 | host: a", "a"),
            ("GET http://a/ 2 | te: trailers", "a"),
            ("GET //evil.com/%2e%2e 1.1 | host: a", "a"),
        ] {
            assert_eq!(check(&request(text), &LIMITS), Ok(host), "{text}");
        }
    }

    #[test]
    fn bad_requests() {
        for text in [
            "GET / 1.1",
            "GET / 1.1 | host: a | host: a",
            "GET / 1.1 | host: a | host: b",
            "GET / 1.1 | host:",
            "GET / 1.1 | host: a/b@c",
            "GET / 1.1 | host: u@a",
            "GET / 1.1 | host: a, b",
            "GET / 1.1 | host: a,b",
            "GET / 1.1 | host: a b",
            "GET / 1.1 | host: a:99999",
            "GET / 1.1 | host: a:+80",
            "GET / 1.1 | host: a:8:0",
            "GET / 1.1 | host: :80",
            "GET / 1.1 | host: [::1",
            "GET / 1.1 | host: [::1]x",
            "GET / 1.1 | host: [a]",
            "GET / 1.1 | host: a%2eb",
            "GET / 1.1 | host: .",
            "GET http://b/x 1.1 | host: a",
            "GET http://a/x 1.1",
            "GET http://a:81/x 1.1 | host: a",
            "GET http://a:80/x 1.1 | host: a:443",
            "GET https://a:443/x 2 | host: a:80",
            "GET http://u@a/x 1.1 | host: a",
            "GET ftp://a/x 1.1 | host: a",
            "GET a:80 1.1 | host: a:80",
            "OPTIONS * 1.1 | host: a",
            "GET * 1.1 | host: a",
            "POST / 1.1 | host: a | transfer-encoding: gzip, chunked",
            "POST / 1.1 | host: a | transfer-encoding: chunked | transfer-encoding: chunked",
            "POST / 1.1 | host: a | transfer-encoding: chunked, chunked",
            "POST / 1.1 | host: a | transfer-encoding: identity",
            "GET http://a/ 2 | host: b",
            "GET http://a/ 2 | te: gzip",
            "GET http://a/ 2 | connection: x",
            "GET http://a/ 2 | transfer-encoding: chunked",
            "GET http://a/ 2 | keep-alive: 5",
            "GET http://a/ 2 | proxy-connection: x",
            "GET http://a/ 2 | upgrade: x",
            "GET http://a/ 2 | content-length: 1 | content-length: 1",
            "GET / 2",
        ] {
            assert_eq!(
                check(&request(text), &LIMITS).map_err(|refused| refused.code),
                Err(ErrorCode::BadRequest),
                "{text}"
            );
        }
        let long = format!("{} / 1.1 | host: a", "M".repeat(65));
        assert_eq!(check(&request(&long), &LIMITS).unwrap_err().code, ErrorCode::BadRequest);
    }

    #[test]
    fn names_of_hosts() {
        for (host, expected) in [
            ("a.test", true),
            ("A.Test:8443", true),
            ("a.test.", true),
            ("a.test.:443", true),
            ("", true),
            ("b.test", false),
            ("x.a.test", false),
            ("a.test.b", false),
            ("127.0.0.1", false),
            ("[::1]:443", false),
        ] {
            assert_eq!(is_name_of(host, "a.test"), expected, "{host}");
        }
    }

    #[test]
    fn limits_and_methods_have_their_own_codes() {
        let long = format!("GET /{} 1.1 | host: a", "x".repeat(50));
        let many = format!("GET / 1.1 | host: a{}", " | x: y".repeat(5));
        for (text, code) in [
            ("TRACE / 1.1 | host: a", ErrorCode::MethodNotAllowed),
            ("CONNECT a:80 1.1 | host: a:80", ErrorCode::MethodNotAllowed),
            (&long, ErrorCode::UriTooLong),
            (&many, ErrorCode::HeadersTooLarge),
        ] {
            assert_eq!(check(&request(text), &LIMITS).unwrap_err().code, code, "{text}");
        }
    }
}
