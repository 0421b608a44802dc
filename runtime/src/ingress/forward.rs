//! What passes between client and guest, and what does not: fields that belong to a connection,
//! fields that only the node may set, and the path.

use super::check::Refused;
use crate::host::outbound::NOT_IN_TRAILERS;
use bytes::Bytes;
use faas_api::ErrorCode;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version,
    header::{self, Entry},
    request,
    uri::PathAndQuery,
};
use http_body::Frame;

/// Set by the node; a client's or a guest's own copy is dropped.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Set by the node on every response of a deployed version.
pub(super) const VERSION: HeaderName = HeaderName::from_static("x-faas-version");
/// Set by the node on every failure of its own.
pub(super) const ERROR: HeaderName = HeaderName::from_static("x-faas-error");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether a field is about one connection and not about the message (RFC 9110 §7.6.1 and §11.7).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Whether only the node may set a field.
fn is_reserved(name: &str) -> bool {
    matches!(name, "forwarded" | "x-request-id")
        || name.starts_with("x-f")
            && (name.starts_with("x-forwarded-") || name.starts_with("x-faas-"))
}

/// How many fields a guest's request has that its client did not send.
const ADDED_FIELDS: usize = 6;

/// What the node says about a request.
pub(super) struct Said<'a> {
    /// The request's id.
    pub(super) id: HeaderValue,
    /// The client's address.
    pub(super) client: HeaderValue,
    /// The host that it asked for, where a proxy before the node has said so.
    pub(super) host: Option<HeaderValue>,
    /// The host a request is for that names none.
    pub(super) default_host: &'a HeaderValue,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// How many bytes of the path name the app.
    pub(super) prefix: usize,
}

/// Turns a client's request head into the guest's.
pub(super) fn for_guest(parts: &mut request::Parts, said: Said<'_>) -> Result<(), Refused> {
    // hyper answers `expect` when the guest first reads.
    drop_fields(&mut parts.headers, |name| name == "expect");
    parts.headers.reserve(ADDED_FIELDS);
    let host = set_host(&mut parts.headers, &parts.uri, said.default_host)?;
    parts.headers.insert(FORWARDED_HOST, said.host.unwrap_or(host));
    parts.headers.insert(FORWARDED_FOR, said.client);
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(said.scheme));
    parts.headers.insert(REQUEST_ID, said.id);
    let (uri, prefix) = inside(&parts.uri, said.prefix)?;
    if let Some(prefix) = prefix {
        parts.headers.insert(FORWARDED_PREFIX, prefix);
    }
    parts.uri = uri;
    // What hyper left for itself, such as a handle for `upgrade`.
    parts.extensions.clear();
    parts.version = Version::HTTP_11;
    Ok(())
}

/// Takes out what concerns the guest's connection to nobody, and what only the node may say.
pub(super) fn from_guest(headers: &mut HeaderMap) {
    drop_fields(headers, |_| false);
}

/// Where `/<app>` is sent, so that relative links of its page stay inside the app.
pub(super) fn with_slash(uri: &Uri) -> Option<HeaderValue> {
    let mut target = Vec::with_capacity(uri.path().len() + 1 + uri.query().map_or(0, str::len));
    target.extend_from_slice(uri.path().as_bytes());
    target.push(b'/');
    if let Some(query) = uri.query() {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(target)).ok()
}

/// Takes out of trailers what could change how their message is read (RFC 9110 §6.5.1).
pub(super) fn clean_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            drop_fields(&mut trailers, |name| {
                NOT_IN_TRAILERS.iter().any(|unwanted| unwanted.as_str() == name)
            });
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Drops the fields of the connection, with those that `connection` names, the fields that only
/// the node may set, and whatever else is unwanted. Most messages have none of them, so names are
/// looked at once instead of searched for one by one.
fn drop_fields(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    // Collecting nothing allocates nothing.
    let mut unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            is_hop_by_hop(name) || is_reserved(name) || is_unwanted(name)
        })
        .cloned()
        .collect();
    if unwanted.contains(&header::CONNECTION) {
        let named = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // It cannot name the two that say where a message goes and where it ends.
            .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH);
        unwanted.extend(named);
    }
    for name in unwanted {
        headers.remove(name);
    }
}

/// Makes sure of a `host` field: HTTP/2 may have the host in the target only, and HTTP/1.0 none.
fn set_host(
    headers: &mut HeaderMap,
    uri: &Uri,
    default: &HeaderValue,
) -> Result<HeaderValue, Refused> {
    match headers.entry(header::HOST) {
        Entry::Occupied(host) => Ok(host.get().clone()),
        Entry::Vacant(vacant) => {
            let host = match uri.authority() {
                Some(authority) => {
                    HeaderValue::from_str(authority.as_str()).map_err(|_| UNUSABLE)?
                }
                None => default.clone(),
            };
            Ok(vacant.insert(host).clone())
        }
    }
}

const UNUSABLE: Refused =
    Refused { code: ErrorCode::BadRequest, detail: "the target cannot be used" };

/// The target inside the app, and the part of the path before it.
fn inside(uri: &Uri, prefix: usize) -> Result<(Uri, Option<HeaderValue>), Refused> {
    let Some(target) = uri.path_and_query() else {
        return Err(UNUSABLE);
    };
    if prefix == 0 {
        return Ok((Uri::from(target.clone()), None));
    }
    // One allocation for both.
    let whole = Bytes::copy_from_slice(target.as_str().as_bytes());
    let rest = whole.slice(prefix.min(whole.len())..);
    let before = whole.slice(..prefix.min(whole.len()));
    let target = match rest.first() {
        Some(b'/') => PathAndQuery::from_maybe_shared(rest),
        // All of the path was taken off; what is left of it is the root.
        _ => PathAndQuery::from_maybe_shared([b"/", &*rest].concat()),
    };
    let target = target.map_err(|_| UNUSABLE)?;
    let before = HeaderValue::from_maybe_shared(before).map_err(|_| UNUSABLE)?;
    Ok((Uri::from(target), Some(before)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn forward(uri: &str, prefix: usize, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let said = Said {
            id: HeaderValue::from_static("ID"),
            client: HeaderValue::from_static("192.0.2.1"),
            host: None,
            default_host: &HeaderValue::from_static("localhost"),
            scheme: "http",
            prefix,
        };
        for_guest(&mut parts, said).unwrap();
        parts
    }

    fn fields(headers: &HeaderMap) -> Vec<String> {
        let mut fields: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        fields
    }

    #[test]
    fn a_guest_sees_the_request_inside_its_app() {
        let parts = forward("/shop/cart?a=/b", 5, &[("host", "A:8080"), ("accept", "x")]);
        assert_eq!(parts.uri, "/cart?a=/b");
        assert_eq!(
            fields(&parts.headers),
            [
                "accept: x",
                "host: A:8080",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: A:8080",
                "x-forwarded-prefix: /shop",
                "x-forwarded-proto: http",
                "x-request-id: ID",
            ]
        );
        assert_eq!(forward("/shop/", 5, &[]).uri, "/");
        assert_eq!(forward("/shop//x?", 5, &[]).uri, "//x?");
        // All of a route's fixed part was taken off.
        assert_eq!(forward("/shop/api?a", 9, &[]).uri, "/?a");
        assert_eq!(forward("/shop/api", 9, &[]).uri, "/");
        let by_host = forward("http://a.test/x?y", 0, &[]);
        assert_eq!(
            (by_host.uri.to_string().as_str(), &by_host.headers["host"]),
            ("/x?y", &HeaderValue::from_static("a.test"))
        );
        assert!(!by_host.headers.contains_key("x-forwarded-prefix"));
        assert_eq!(forward("/x", 0, &[]).headers["host"], "localhost");
    }

    #[test]
    fn what_belongs_to_the_connection_or_to_the_node_is_dropped() {
        let parts = forward(
            "/x",
            0,
            &[
                ("host", "a"),
                ("connection", "close, X-Hop ,host"),
                ("connection", "content-length,x-forwarded-for,@"),
                ("x-hop", "1"),
                ("x-hop", "2"),
                ("content-length", "3"),
                ("keep-alive", "5"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("proxy-connection", "x"),
                ("proxy-authorization", "x"),
                ("http2-settings", "x"),
                ("expect", "100-continue"),
                ("forwarded", "for=1.1.1.1"),
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "1.1.1.2"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-port", "1"),
                ("x-request-id", "mine"),
                ("x-faas-version", "v9"),
                ("x-faas-tenant", "other"),
                ("x-fine", "kept"),
            ],
        );
        assert_eq!(
            fields(&parts.headers),
            [
                "content-length: 3",
                "host: a",
                "x-fine: kept",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: a",
                "x-forwarded-proto: http",
                "x-request-id: ID",
            ]
        );
    }

    #[test]
    fn a_redirect_keeps_the_query() {
        for (from, to) in [
            ("/shop", "/shop/"),
            ("/shop@v3?a=b&c", "/shop@v3/?a=b&c"),
            ("http://evil.test/shop", "/shop/"),
        ] {
            assert_eq!(with_slash(&from.parse().unwrap()).unwrap(), to);
        }
    }
}
