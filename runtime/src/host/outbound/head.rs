//! What of a message's head passes between a function and whom it speaks to: fields that belong to a
//! connection do not, nor do those that only the node may set.

use super::ancestry::cdn_loop;
use super::failure::Failure;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::Frame;
use wasmtime_wasi_http::Error;

/// Which function of the app asks; only the node sets it.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-faas-caller");

/// Fields of a message's frame or routing, which a trailer cannot change (RFC 9110 §6.5.1).
pub(crate) const NOT_IN_TRAILERS: [HeaderName; 7] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::TRAILER,
    header::EXPECT,
];

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

/// Takes out of a frame of trailers what could change how their message is read.
pub(crate) fn clean_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean(&mut trailers);
            for name in NOT_IN_TRAILERS {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Makes a function's head one that may leave the node, and tells the length it names for its body.
///
/// # Errors
/// When the length could be read in two ways.
pub(super) fn for_server(
    headers: &mut HeaderMap,
    host: HeaderValue,
    depth: u8,
) -> Result<Option<u64>, Failure> {
    clean(headers);
    headers.insert(header::HOST, host);
    cdn_loop(headers, depth);
    length(headers).map_err(|Ambiguous| {
        let why = "is refused: its `content-length` is not one number";
        Failure::denied(Error::HttpProtocolError, why)
    })
}

/// Makes a server's head one that a function may see.
///
/// # Errors
/// When the length of its body could be read in two ways.
pub(super) fn from_server(headers: &mut HeaderMap) -> Result<(), Failure> {
    // With both, the length is none (RFC 9112 §6.3), and whoever gets the answer next shall not
    // think otherwise.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    clean(headers);
    match length(headers) {
        Ok(_) => Ok(()),
        Err(Ambiguous) => {
            let why = "the `content-length` of its answer is not one number";
            Err(Failure::failed(Error::HttpProtocolError, why))
        }
    }
}

/// A length that is none, or more than one.
struct Ambiguous;

/// The length that a head names.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Ambiguous> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match (digits.and_then(|digits| digits.parse().ok()), lengths.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(Ambiguous),
    }
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
        let length = for_server(&mut headers, HeaderValue::from_static("api.test"), 2).unwrap();
        assert_eq!(length, Some(3));
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

    #[test]
    fn a_length_is_one_number() {
        let head = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers
        };
        for lines in [
            [("content-length", "5"), ("content-length", "5")].as_slice(),
            &[("content-length", "5"), ("content-length", "6")],
            &[("content-length", "5, 5")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "99999999999999999999")],
        ] {
            assert!(from_server(&mut head(lines)).is_err(), "{lines:?}");
            let host = HeaderValue::from_static("api.test");
            assert!(for_server(&mut head(lines), host, 1).is_err(), "{lines:?}");
        }
        let mut both = head(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        from_server(&mut both).unwrap();
        assert!(both.is_empty(), "{both:?}");
    }

    #[test]
    fn trailers_change_nothing_about_their_message() {
        let mut trailers = HeaderMap::new();
        for name in ["host", "content-length", "connection", "x-hop", "te", "x-faas-error", "x-sum"]
        {
            let value = if name == "connection" { "x-hop" } else { "1" };
            trailers.append(name, HeaderValue::from_static(value));
        }
        let cleaned = clean_trailers(Frame::trailers(trailers)).into_trailers().unwrap();
        assert_eq!(cleaned.keys().collect::<Vec<_>>(), ["x-sum"]);
    }
}
