//! Web pages of other origins (Fetch §3.2): what their browsers ask before a request, and what they
//! are told with its answer. Where a function says what is allowed, the node alone answers.

use crate::functions::guard::CorsRules;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// The longest list of headers a preflight may ask for, in bytes.
const MAX_HEADERS: usize = 4096;
/// Begins the names of all fields that say what a page may do.
const FAMILY: &str = "access-control-";
/// What a preflight's answer depends on.
const PREFLIGHT_VARIES: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);
const ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const EVERY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The method that a browser asks about, if the request is such a question.
pub(in crate::ingress) fn asks_for(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(wanted.as_bytes()).ok()
}

/// What the browser of a page is told with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingress) struct Told {
    /// The origin that may read the answer; none when the page's may not, or there is no page.
    allowed: Option<HeaderValue>,
    credentials: bool,
    expose: Option<HeaderValue>,
    /// Whether another origin would be told something else.
    varies: bool,
}

/// What is told to the page that a request comes from.
pub(in crate::ingress) fn told(rules: &CorsRules, headers: &HeaderMap) -> Told {
    let allowed = allowed(rules, headers);
    Told {
        credentials: rules.credentials && allowed.is_some(),
        expose: rules.expose.clone().filter(|_| allowed.is_some()),
        varies: !rules.any,
        allowed,
    }
}

impl Told {
    /// Puts it into an answer, in place of what the function says there.
    pub(in crate::ingress) fn put(self, headers: &mut HeaderMap) {
        let own = |name: &&HeaderName| name.as_str().starts_with(FAMILY);
        let own: Vec<HeaderName> = headers.keys().filter(own).cloned().collect();
        for name in own {
            headers.remove(name);
        }
        if self.varies {
            // Beside whatever else the answer depends on.
            headers.append(header::VARY, ORIGIN);
        }
        let Some(allowed) = self.allowed else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = self.expose {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }
}

/// The answer to a browser's question; none when the page's origin may not ask.
pub(in crate::ingress) fn preflight(rules: &CorsRules, asked: &HeaderMap) -> Option<HeaderMap> {
    let mut answer = HeaderMap::with_capacity(6);
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed(rules, asked)?);
    if rules.credentials {
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, rules.methods.clone());
    if let Some(headers) = rules.headers.clone().or_else(|| asked_headers(asked)) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, rules.max_age.clone());
    answer.insert(header::VARY, PREFLIGHT_VARIES);
    Some(answer)
}

/// What `access-control-allow-origin` says, if the page's origin may ask.
fn allowed(rules: &CorsRules, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return None;
    };
    if rules.any {
        return Some(EVERY);
    }
    let known = |known: &str| known.as_bytes() == origin.as_bytes();
    rules.origins.iter().any(|origin| known(origin)).then(|| origin.clone())
}

/// The headers that a browser asks for, if they are names.
fn asked_headers(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let is_name = |name: &[u8]| HeaderName::from_bytes(name.trim_ascii()).is_ok();
    let good = line.len() <= MAX_HEADERS && line.as_bytes().split(|b| *b == b',').all(is_name);
    good.then(|| line.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::guard::Guard;
    use faas_api::{Settings, manifest::Cors};
    use std::sync::Arc;

    fn guard(cors: Cors) -> Arc<Guard> {
        let settings = Settings { cors: Some(cors), ..Settings::default() };
        Guard::of(&"shop".parse().unwrap(), &"api".parse().unwrap(), &settings).unwrap()
    }

    fn cors(origin: &str) -> Cors {
        Cors { origins: vec![origin.into()], ..Cors::default() }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut fields: Vec<String> =
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        fields.sort();
        fields
    }

    const PAGE: (&str, &str) = ("origin", "https://app.example");

    #[test]
    fn what_is_a_question() {
        let put = ("access-control-request-method", "PUT");
        let asks = |method: Method, fields: &[_]| asks_for(&method, &headers(fields));
        assert_eq!(asks(Method::OPTIONS, &[PAGE, put]), Some(Method::PUT));
        for (method, fields) in [
            (Method::PUT, vec![PAGE, put]),
            (Method::OPTIONS, vec![PAGE]),
            (Method::OPTIONS, vec![put]),
            (Method::OPTIONS, vec![PAGE, ("access-control-request-method", "P T")]),
        ] {
            assert_eq!(asks(method, &fields), None, "{fields:?}");
        }
    }

    #[test]
    fn the_answer_to_a_question() {
        let guard = guard(Cors { credentials: true, ..cors("https://app.example") });
        let rules = guard.cors.as_ref().unwrap();
        let asked = headers(&[PAGE, ("access-control-request-headers", "authorization, x-one")]);
        assert_eq!(
            text(&preflight(rules, &asked).unwrap()),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: authorization, x-one",
                "access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
                "access-control-allow-origin: https://app.example",
                "access-control-max-age: 600",
                "vary: origin, access-control-request-method, access-control-request-headers",
            ]
        );
        for origin in
            ["https://evil.example", "http://app.example", "null", "https://app.example.evil"]
        {
            assert!(preflight(rules, &headers(&[("origin", origin)])).is_none(), "{origin}");
        }
        let strange = headers(&[PAGE, ("access-control-request-headers", "a b")]);
        let answer = preflight(rules, &strange).unwrap();
        assert!(!answer.contains_key("access-control-allow-headers"));
    }

    #[test]
    fn a_function_that_names_headers_gets_no_others() {
        let guard = guard(Cors { headers: vec!["x-one".into()], ..cors("*") });
        let rules = guard.cors.as_ref().unwrap();
        let asked = headers(&[PAGE, ("access-control-request-headers", "x-two")]);
        let answer = preflight(rules, &asked).unwrap();
        assert_eq!(answer["access-control-allow-headers"], "x-one");
        assert_eq!(answer["access-control-allow-origin"], "*");
    }

    #[test]
    fn the_node_speaks_for_the_function() {
        let guard = guard(Cors { expose: vec!["x-total".into()], ..cors("https://app.example") });
        let rules = guard.cors.as_ref().unwrap();
        let guests = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("vary", "accept"),
        ];
        let answered = |origin: &'static str| {
            let mut answer = headers(&guests);
            told(rules, &headers(&[("origin", origin)])).put(&mut answer);
            text(&answer)
        };
        assert_eq!(
            answered("https://app.example"),
            [
                "access-control-allow-origin: https://app.example",
                "access-control-expose-headers: x-total",
                "vary: accept",
                "vary: origin",
            ]
        );
        assert_eq!(answered("https://evil.example"), ["vary: accept", "vary: origin"]);
    }

    #[test]
    fn where_everybody_may_nothing_varies() {
        let guard = guard(cors("*"));
        let mut answer = HeaderMap::new();
        told(guard.cors.as_ref().unwrap(), &headers(&[PAGE])).put(&mut answer);
        assert_eq!(text(&answer), ["access-control-allow-origin: *"]);
    }
}
