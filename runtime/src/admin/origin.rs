//! From where a request comes: web pages of other sites may not use the API, not even through a
//! name of theirs that suddenly means this machine (DNS rebinding).

use super::error::ApiError;
use axum::http::{
    HeaderMap, HeaderName, Uri, Version,
    header::{HOST, ORIGIN},
    uri::Authority,
};
use faas_api::ErrorCode;
use std::net::IpAddr;

/// What a browser says about the page that a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets requests through whose `host` and `origin` belong to a listener on this address.
pub(super) fn check(
    listener: IpAddr,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let host = host(version, uri, headers)?;
    if let Some(host) = &host
        && listener.is_loopback()
        && !is_loopback(host.host())
    {
        return Err(ApiError::new(ErrorCode::Forbidden)
            .detail("the host is not an address of this machine")
            .hint("this server listens on loopback only: use 127.0.0.1 or localhost"));
    }
    // Browsers say so where there is no `origin`: a link, a picture (Fetch Metadata §2.3).
    let sites = headers.get_all(SEC_FETCH_SITE).iter();
    if { sites }.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return Err(ApiError::new(ErrorCode::Forbidden)
            .detail("the request comes from a web page of another site"));
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().ok().and_then(authority_of_origin);
        let own = origin.is_some() && origin.as_ref() == host.as_ref();
        if !own {
            return Err(ApiError::new(ErrorCode::Forbidden)
                .detail("the request comes from a web page of another origin"));
        }
    }
    Ok(())
}

/// The one host a request is for. A proxy's form of the target has to say the same.
fn host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, ApiError> {
    let bad = |detail| ApiError::new(ErrorCode::BadRequest).detail(detail);
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        // Probes of load balancers speak HTTP/1.0 and leave it out; browsers never do.
        (None, None) if version == Version::HTTP_10 => return Ok(uri.authority().cloned()),
        _ => return Err(bad("a request has one `host`")),
    };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    let host = host.ok_or_else(|| bad("the `host` is not a host"))?;
    // What stands behind the host is a port or nothing, and nothing hides in front of it.
    let whole = match host.port_u16() {
        Some(_) => !host.as_str().contains('@'),
        None => host.as_str() == host.host(),
    };
    if !whole {
        return Err(bad("the `host` is not a host"));
    }
    match uri.authority() {
        Some(authority) if *authority != host => Err(bad("target and `host` differ")),
        _ => Ok(Some(host)),
    }
}

/// The host and port of an origin; `null` has none.
fn authority_of_origin(origin: &str) -> Option<Authority> {
    // A TLS proxy in front changes the scheme and nothing else.
    let authority = origin.strip_prefix("http://").or(origin.strip_prefix("https://"))?;
    authority.parse().ok()
}

fn is_loopback(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = address.unwrap_or(&name).parse::<IpAddr>();
    address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn status(listener: &str, target: &str, fields: &[(HeaderName, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let listener = listener.parse().unwrap();
        let target = target.parse().unwrap();
        match check(listener, Version::HTTP_11, &target, &headers) {
            Ok(()) => 200,
            Err(error) => error.status().as_u16(),
        }
    }

    #[test]
    fn a_loopback_listener_answers_to_loopback_names_only() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "127.9.9.9:1",
            "localhost",
            "LocalHost:8081",
            "faas.localhost:8081",
            "[::1]:8081",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(status("127.0.0.1", "/", &[(HOST, good)]), 200, "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:8081",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "2130706433",
            "localhost.",
        ] {
            assert_eq!(status("127.0.0.1", "/", &[(HOST, bad)]), 403, "{bad}");
            assert_eq!(status("::1", "/", &[(HOST, bad)]), 403, "{bad}");
            assert_eq!(status("0.0.0.0", "/", &[(HOST, bad)]), 200, "{bad}");
        }
    }

    #[test]
    fn there_is_one_host_and_it_is_one() {
        for bad in [
            "",
            "a b",
            "a@localhost",
            "a@localhost:80",
            "localhost:99999",
            "localhost:x",
            "localhost:",
        ] {
            assert_eq!(status("0.0.0.0", "/", &[(HOST, bad)]), 400, "{bad}");
        }
        assert_eq!(status("0.0.0.0", "/", &[]), 400);
        assert_eq!(status("0.0.0.0", "/", &[(HOST, "a"), (HOST, "a")]), 400);
        assert_eq!(status("0.0.0.0", "http://a/", &[(HOST, "a")]), 200);
        assert_eq!(status("0.0.0.0", "http://b/", &[(HOST, "a")]), 400);
        let headers = HeaderMap::new();
        let (listener, target) = ("127.0.0.1".parse().unwrap(), "/livez".parse().unwrap());
        assert!(check(listener, Version::HTTP_10, &target, &headers).is_ok());
    }

    #[test]
    fn web_pages_of_other_origins_are_refused() {
        let from = |host, origin| status("0.0.0.0", "/", &[(HOST, host), (ORIGIN, origin)]);
        assert_eq!(from("127.0.0.1:8081", "http://127.0.0.1:8081"), 200);
        assert_eq!(from("Faas.example", "https://faas.example"), 200);
        for bad in [
            "null",
            "",
            "http://evil.example",
            "http://127.0.0.1:8080",
            "http://127.0.0.1",
            "https://127.0.0.1:8081.evil.example",
            "file://127.0.0.1:8081",
            "http://x@127.0.0.1:8081",
        ] {
            assert_eq!(from("127.0.0.1:8081", bad), 403, "{bad}");
        }
    }

    #[test]
    fn what_browsers_say_of_pages_counts_where_they_name_no_origin() {
        for (site, expected) in [
            ("none", 200),
            ("same-origin", 200),
            ("same-site", 403),
            ("cross-site", 403),
            ("", 403),
            ("something-new", 403),
        ] {
            let fields = [(HOST, "localhost"), (SEC_FETCH_SITE, site)];
            assert_eq!(status("127.0.0.1", "/livez", &fields), expected, "{site}");
        }
    }
}
