//! What must hold of a request's head and of an answer's, whatever bytes somebody chose. Each function
//! panics where it does not: tests call them with small random inputs, `fuzz/` with many.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a property that does not hold fails its test"
)]
#![allow(unreachable_pub, reason = "`fuzz/` reaches it, by a feature")]

use super::{
    check::{self, RequestLimits},
    respond::{self, Content},
    router::{self, Key, Naming},
};
use faas_api::VersionId;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header::HOST, uri::Authority,
};
use http_body::SizeHint;
use regex::Regex;
use std::sync::LazyLock;

const LIMITS: RequestLimits = RequestLimits { uri: 16 << 10, headers: 100 };

/// A `host` is refused, or is one host, which every parser reads alike.
pub fn host(data: &[u8]) {
    static MODEL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]*)?$").expect("a pattern")
    });
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let request = Request::builder().uri("/").header(HOST, value).body(()).expect("a request");
    let Ok(host) = check::check(&request, &LIMITS) else { return };
    assert_eq!(host.as_bytes(), data, "it is what was sent, and all of that");
    let parts = MODEL.captures(host).unwrap_or_else(|| panic!("{host:?} is no host"));
    let (name, port) = (parts.get(1).unwrap().as_str(), parts.get(2));
    let port = port.and_then(|port| port.as_str()[1..].parse::<u16>().ok());
    let authority: Authority = host.parse().unwrap_or_else(|error| panic!("{host:?}: {error}"));
    assert_eq!((authority.host(), authority.port_u16()), (name, port));
    // The same in a target, for both versions of HTTP; and never another one beside it.
    let uri: Uri = format!("http://{host}/x").parse().expect("a target");
    let second = Request::builder().uri(uri.clone()).version(Version::HTTP_2).body(()).unwrap();
    assert_eq!(check::check(&second, &LIMITS), Ok(host));
    let other = Request::builder().uri(uri).header(HOST, "another.test").body(()).unwrap();
    assert!(check::check(&other, &LIMITS).is_err() || name.eq_ignore_ascii_case("another.test"));
    // What apps are looked up by has no port and none of a host's other marks.
    if !name.starts_with('[') {
        let key = router::without_port(host);
        assert!(!key.contains([':', '@', '/', '[']), "{key:?}");
        assert!(name.strip_suffix('.').unwrap_or(name) == key);
    }
}

/// The apps of [`route`]'s node.
pub const APPS: [&str; 5] = ["a", "a-b", "shop", "v3", "v3-a"];
const DOMAINS: [(&str, &str); 2] = [("shop.example.org", "shop"), ("a.example.test", "a-b")];

fn find(key: Key<'_>) -> Option<&'static str> {
    match key {
        Key::Name(name) => APPS.into_iter().find(|app| *app == name),
        Key::Domain(domain) => {
            DOMAINS.into_iter().find(|(name, _)| *name == domain).map(|(_, app)| app)
        }
    }
}

/// A host and a path, with a zero byte between them, lead where a second router, written for nothing
/// but to be read, leads them.
pub fn route(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (host, path) = text.split_once('\0').unwrap_or(("", text));
    for path_routing in [true, false] {
        let naming = Naming::new("Example.test.", path_routing);
        let found = router::route(find, &naming, host, path).ok().map(|route| {
            let inside = path.get(route.prefix..);
            let inside = inside.unwrap_or_else(|| panic!("{path:?} has no byte {}", route.prefix));
            (route.app, route.version, inside)
        });
        assert_eq!(found, model(host, path, path_routing), "{host:?} {path:?}");
        if let Some((_, _, inside)) = found.filter(|_| path.starts_with('/')) {
            assert!(inside.is_empty() || inside.starts_with('/'), "{path:?}: {inside:?}");
        }
    }
}

fn model<'a>(
    host: &str,
    path: &'a str,
    path_routing: bool,
) -> Option<(&'static str, Option<VersionId>, &'a str)> {
    static HOST: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"(?s)^(?:v(?<version>[1-9][0-9]*)--)?(?<app>[a-z0-9-]+)\.example\.test$";
        Regex::new(pattern).expect("a pattern")
    });
    static PATH: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"(?s)^/(?<app>[a-z0-9-]+)(?:@v(?<version>[1-9][0-9]*))?(?<rest>/.*)?$";
        Regex::new(pattern).expect("a pattern")
    });
    let app = |name: &str| APPS.into_iter().find(|app| *app == name);
    // A number that no version has is none; then nothing is meant.
    let version = |parts: &regex::Captures<'_>| match parts.name("version") {
        None => Some(None),
        Some(number) => number.as_str().parse().ok().map(|number| Some(VersionId::new(number))),
    };
    let name = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if let Some(parts) = HOST.captures(name)
        && let (Some(app), Some(version)) = (app(&parts["app"]), version(&parts))
    {
        return Some((app, version, path));
    }
    if let Some((_, app)) = DOMAINS.into_iter().find(|(domain, _)| *domain == name) {
        return Some((app, None, path));
    }
    let parts = PATH.captures(path).filter(|_| path_routing)?;
    let rest = parts.name("rest").map_or("", |rest| rest.as_str());
    Some((app(&parts["app"])?, version(&parts)?, rest))
}

/// The messages of a connection are the same in whatever pieces they come.
#[cfg(feature = "fuzzing")]
pub fn pieces(data: &[u8]) {
    super::connection::properties::pieces(data);
}

/// Fields that no answer of a function may have.
const NEVER: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
    "x-faas-error",
    "x-faas-version",
    "forwarded",
];

/// A function's head is refused, or can be sent: one message, with one length, that speaks for nobody
/// but the function. The first three bytes are the status and the size of the body, the rest lines.
pub fn response_head(data: &[u8]) {
    let Some((&[high, low, size], lines)) = data.split_first_chunk() else { return };
    let status = u16::from_be_bytes([high, low]) % 1000;
    let mut response = Response::builder().status(status);
    for line in lines.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            response = response.header(name, value);
        }
    }
    let Ok(response) = response.body(()) else { return };
    let (given, ()) = response.into_parts();
    let size = match size {
        255 => SizeHint::new(),
        size => SizeHint::with_exact(size.into()),
    };
    for method in [Method::GET, Method::HEAD] {
        let mut parts = given.clone();
        let Ok(content) = respond::clean(&mut parts, &method, &size) else { continue };
        let headers = &parts.headers;
        assert!(!parts.status.is_informational());
        for name in NEVER {
            assert!(!headers.contains_key(name), "{name}: {headers:?}");
        }
        assert!(headers.keys().all(|name| !name.as_str().starts_with("x-faas-")), "{headers:?}");
        let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
        assert!(lengths.len() <= 1, "{headers:?}");
        let length = lengths.first().map(|length| {
            let digits = length.to_str().expect("digits");
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits:?}");
            digits.parse::<u64>().expect("a number")
        });
        let bodiless = method == Method::HEAD || matches!(status, 204 | 205 | 304);
        match content {
            Content::None => assert!(bodiless, "{status}"),
            Content::Exactly(bytes) => assert_eq!(length, Some(bytes)),
            Content::Any => assert_eq!(length, None),
        }
        assert_eq!(content == Content::None, bodiless, "{status}");
        assert!(status != 204 || length.is_none());
        // As it goes over the wire: a line for each field, and no line that is none.
        let mut wire = Vec::new();
        for (name, value) in headers {
            wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        let ends = wire.iter().filter(|byte| matches!(byte, b'\r' | b'\n' | 0)).count();
        assert_eq!(ends, 2 * headers.len(), "{headers:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that hosts and paths are made of, with what hostile ones have between them.
    const PIECES: [&str; 34] = [
        "a",
        "A",
        "shop",
        "v3--",
        "v3",
        "V03--",
        "v0--",
        "--",
        "-",
        ".",
        "..",
        ".example.test",
        ".EXAMPLE.test",
        ".example.org",
        "example.test",
        "\0",
        "/",
        "//",
        "@v1",
        "@v99999999999",
        "@",
        ":80",
        ":",
        ":99999",
        "[::1]",
        "[",
        "]",
        "%",
        "%61",
        "\u{e4}",
        " ",
        "localhost",
        "v4294967295--",
        "\u{2044}",
    ];

    fn made_of(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(pieces.to_vec());
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
    }

    #[test]
    fn hosts_that_were_meant_to_confuse() {
        for text in [
            "a",
            "A.b:8080",
            "a.",
            "a..",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "a:",
            "a:0",
            "a:65535",
            "a:65536",
            "a:80:80",
            "a@b",
            "a@b:80",
            ":80",
            "",
            "[",
            "[]",
            "[::1",
            "[::1]x",
            "[v1.x]",
            "[fe80::1%25lo]",
            "a,b",
            "a b",
            "a\tb",
            "a%2eb",
            "a%00",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "\u{ff41}",
            "xn--a",
            "-",
            "_",
            ".",
            "a_b.c",
            "a:+80",
            "a:-1",
            "a: 80",
            "a:80 ",
            " a",
            "*",
            "a'b",
            "a\"b",
            "a<b",
            "a|b",
        ] {
            host(text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn whatever_names_a_host(data in made_of(&PIECES), bytes in any::<Vec<u8>>()) {
            host(&data);
            host(&bytes);
        }

        #[test]
        fn two_routers_agree(host in made_of(&PIECES), path in made_of(&PIECES)) {
            route(&[host.as_slice(), b"\0/", path.as_slice()].concat());
            route(&[host.as_slice(), b"\0", path.as_slice()].concat());
        }

        #[test]
        fn whatever_a_function_answers(
            head in any::<[u8; 3]>(),
            lines in prop::collection::vec((
                prop::sample::select(vec![
                    "content-length", "Content-Length", "transfer-encoding", "connection", "x-a",
                    "x-faas-error", "X-Request-Id", "set-cookie", "te", "upgrade", "location",
                    "trailer", "host", "content length", "x\r", "keep-alive", "forwarded",
                ]),
                prop::sample::select(vec![
                    "0", "5", "+5", "5, 5", "5\r", "", "chunked", "close", "x-a, content-length",
                    "a\u{1}b", "\u{7f}", "a\0", "18446744073709551616", "\u{e4}", "x-a,@",
                ]),
            ), 0..6),
        ) {
            let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
            // Statuses that have no body are rare among all.
            for status in [head, [0, 200, head[2]], [0, 204, head[2]], [1, 48, head[2]]] {
                response_head(&[status.as_slice(), lines.concat().as_bytes()].concat());
            }
        }
    }
}
