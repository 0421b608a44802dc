//! Properties of what both ends of a deployment share, with inputs that are nearly right.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold fails its test"
)]

mod checks;

use proptest::prelude::*;

fn made_of(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    let piece = prop::sample::select(pieces.to_vec());
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

const NAMES: [&str; 32] = [
    "a",
    "A",
    "b-",
    "-",
    "--",
    "0",
    "9",
    "_",
    ".",
    "..",
    "/",
    "\\",
    "%",
    "%2f",
    "\0",
    "\n",
    " ",
    "v",
    "v1",
    "v01",
    "HTTP_",
    "PATH",
    "\u{e4}",
    "\u{202e}",
    "\u{1b}[31m",
    "admin",
    "api",
    "0123456789",
    "abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "shop.example.com",
    "xn--a",
];

const ROUTES: [&str; 26] = [
    "/",
    "//",
    "/a",
    "/b.c",
    "/:x",
    "/:",
    "/*",
    "*",
    "/..",
    "/.",
    "/%61",
    "GET ",
    "HEAD ",
    "BREW ",
    " ",
    "shop.example.com",
    "a",
    "A",
    "\u{e4}",
    "\0",
    "\n",
    "?",
    "#",
    "/~!$&'()+,;=@",
    "[::1]",
    ":80",
];

const GRANTS: [&str; 30] = [
    "http://",
    "https://",
    "HTTP://",
    "ftp://",
    "*.",
    "*",
    "a",
    "A.B",
    "example.com",
    ".",
    ":80",
    ":443",
    ":0",
    ":65536",
    ":",
    "/",
    "?",
    "#",
    "@",
    "user@",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "\u{e4}",
    "xn--4ca",
    "%2e",
    "\\",
    "_",
];

const MANIFEST: [&str; 40] = [
    r#""domains":["#,
    r#""shop.example.com""#,
    "]",
    ",",
    r#""functions":["#,
    r#"{"name":"main","#,
    r#""digest":"0000000000000000000000000000000000000000000000000000000000000000""#,
    "}",
    "{",
    r#","settings":{"#,
    r#""routes":["/*"]"#,
    r#""routes":["/a","GET /a/:x"]"#,
    r#""private":true"#,
    r#""env":{"A":"1"}"#,
    r#""env":{"A":"\u001b[31m"}"#,
    r#""secrets":["A"]"#,
    r#""secrets":["A","A"]"#,
    r#""limits":{"cpu_ms":0}"#,
    r#""limits":{"memory_bytes":65536}"#,
    r#""limits":[1]"#,
    r#""auth":{"kind":"key"}"#,
    r#""auth":{"kind":"jwt","issuer":"\u001b"}"#,
    r#""auth":{}"#,
    r#""rate_limit":{"requests":1,"per_ms":1}"#,
    r#""rate_limit":null"#,
    r#""cors":{"origins":["*"]}"#,
    r#""cors":{"origins":["\u0007"],"credentials":true}"#,
    r#""grants":{"outbound":["https://a.test"]}"#,
    r#""grants":{"outbound":["\u0000"]}"#,
    r#""health":"/healthz""#,
    r#""health":"\u001b""#,
    r#""health":"/x""#,
    r#""reuse":{"requests":2}"#,
    r#""reuse":null"#,
    "null",
    "[",
    "\u{e4}",
    "\"",
    "1e999",
    r#""more":1"#,
];

proptest! {
    #[test]
    fn what_is_a_name(text in made_of(&NAMES, 5), any in any::<String>()) {
        checks::names(text.as_bytes());
        checks::names(any.as_bytes());
    }

    #[test]
    fn what_is_a_route(text in made_of(&ROUTES, 6), any in any::<String>()) {
        checks::routes(text.as_bytes());
        checks::routes(any.as_bytes());
    }

    #[test]
    fn what_is_a_grant(text in made_of(&GRANTS, 6), any in any::<String>()) {
        checks::grants(text.as_bytes());
        checks::grants(any.as_bytes());
        checks::grants(format!("https://{text}").as_bytes());
    }

    #[test]
    fn what_is_an_artifact(any in any::<Vec<u8>>(), harms in prop::collection::vec(any::<(u16, u8)>(), 0..6)) {
        checks::artifact(&any);
        checks::artifact(&[b"\0asm\x01\0\0\0", any.as_slice()].concat());
        checks::artifact(&[b"\0asm\x0d\0\x01\0", any.as_slice()].concat());
        let mut wasm = wat::parse_str(
            r#"(component (import "a:b/c@1.0.0" (instance)) (core module (memory 1) (func (export "_start")))
                (component $c) (instance $i (instantiate $c)) (export "wasi:cli/run@0.2.0" (instance $i)))"#,
        ).unwrap();
        checks::artifact(&wasm);
        for (at, byte) in harms {
            let at = usize::from(at) % wasm.len();
            wasm[at] = byte;
        }
        checks::artifact(&wasm);
    }

    #[test]
    fn what_a_scope_allows(bytes in any::<[u8; 4]>()) {
        checks::scopes(&bytes);
    }

    #[test]
    fn what_is_a_manifest(
        pieces in made_of(&MANIFEST, 12),
        settings in prop::collection::vec(prop::sample::select(MANIFEST[9..34].to_vec()), 0..4),
        head in prop::collection::vec(prop::sample::select(MANIFEST[29..32].to_vec()), 0..2),
        any in any::<Vec<u8>>(),
    ) {
        checks::manifest(&any);
        checks::manifest(format!("{{{pieces}}}").as_bytes());
        // Whole ones, with settings that may stand beside each other or may not.
        let digest = MANIFEST[6];
        let settings: Vec<&str> = settings.into_iter().filter(|text| text.ends_with(['}', ']', '"', 'e', 'l'])).collect();
        let head: String = head.iter().map(|text| format!("{text},")).collect();
        let function = format!(r#"{{"name":"main",{digest},"settings":{{{}}}}}"#, settings.join(","));
        let whole = format!(r#"{{{head}"functions":[{function}]}}"#);
        checks::manifest(whole.as_bytes());
        checks::manifest(format!(r#"{{"manifest":{whole}}}"#).as_bytes());
    }
}

/// The properties hold of something, not only of refusals.
#[test]
fn what_is_good_is_taken() {
    for text in ["shop", "a-b", "v3", "A_B", "shop.example.com", "0123456789"] {
        checks::names(text.as_bytes());
    }
    assert!("GET shop.example.com/a/:x/*".parse::<faas_api::Route>().is_ok());
    checks::routes(b"GET shop.example.com/a/:x/*");
    assert!("https://*.example.com".parse::<faas_api::OutboundHost>().is_ok());
    checks::grants(b"https://*.example.com");
    let digest = MANIFEST[6];
    let whole = format!(r#"{{"functions":[{{"name":"main",{digest}}}]}}"#);
    assert!(serde_json::from_str::<faas_api::Manifest>(&whole).unwrap().check().is_ok());
    checks::manifest(whole.as_bytes());
}
