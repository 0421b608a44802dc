//! What of a message's head passes between a function and whom it speaks to: fields that belong to a
//! connection do not, nor do those that only the node may set.

use super::ancestry::cdn_loop;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Which function of the app asks; only the node sets it.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-faas-caller");

/// Whether a field is about one connection and not about the message (RFC 9110 §7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Takes out what concerns a connection, with what `connection` names, and `x-faas-` fields.
pub(crate) fn clean(headers: &mut HeaderMap) {
    let mut unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name) || name.as_str().starts_with("x-faas-"))
        .cloned()
        .collect();
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH);
    unwanted.extend(named);
    for name in unwanted {
        headers.remove(name);
    }
}

/// Makes a function's head one that may leave the node.
pub(super) fn for_server(headers: &mut HeaderMap, host: HeaderValue, depth: u8) {
    clean(headers);
    headers.insert(header::HOST, host);
    cdn_loop(headers, depth);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_node() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "forged"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("x-faas-caller", "forged"),
            ("x-faas-version", "v9"),
            ("cdn-loop", "other, faas;depth=1"),
            ("traceparent", "00-1-2-01"),
            ("x-request-id", "mine"),
            ("content-length", "3"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        for_server(&mut headers, HeaderValue::from_static("api.test"), 2);
        let mut left: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "cdn-loop: faas;depth=2",
                "cdn-loop: other",
                "content-length: 3",
                "host: api.test",
                "traceparent: 00-1-2-01",
                "x-request-id: mine",
            ]
        );
    }
}
