//! Routes: which requests of an app a function answers.
//!
//! A route is written `[METHOD ][host]/path`. In the path, `:name` stands for one segment that is
//! not empty, and a last segment `*` for the rest, which may be nothing: `/api/*` takes `/api`,
//! `/api/` and `/api/orders/7`.

use crate::names::{Domain, NameError};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

/// The longest route, in bytes.
pub const MAX_ROUTE_LEN: usize = 1024;

/// Methods that a route may name (RFC 9110 §9 and RFC 5789).
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// Why a string is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// More than [`MAX_ROUTE_LEN`] bytes.
    #[error("a route has at most {MAX_ROUTE_LEN} bytes, this one has {0}")]
    TooLong(usize),
    /// There is no `/`.
    #[error("a route is written `[METHOD ][host]/path`, for example `/api/*` or `GET /orders/:id`")]
    NoPath,
    /// The word in front is no method that a route can name.
    #[error("`{0}` is no method; a route can name {methods}", methods = METHODS.join(", "))]
    BadMethod(String),
    /// What stands before the path is no host.
    #[error("`{host}` is no host: {error}")]
    BadHost {
        /// What stands there.
        host: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// A segment that no request can have, or that would be read in two ways.
    #[error(
        "`{0}` cannot be a segment of a route: letters, digits and -._~!$&'()+,;=@ can, \
             `:name` stands for one segment, a last `*` for the rest"
    )]
    BadSegment(String),
}

/// A route that was checked.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Route(Arc<str>);

/// One part of a route's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Exactly this text.
    Literal(&'a str),
    /// One segment that is not empty.
    Param,
    /// Whatever is left, or nothing.
    Rest,
}

impl Route {
    /// Everything: `/*`.
    pub fn everything() -> Self {
        Self(Arc::from("/*"))
    }

    /// The route as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only method it takes; absent: all. `GET` takes `HEAD` as well (RFC 9110 §9.3.2).
    pub fn method(&self) -> Option<&str> {
        self.0.split_once(' ').map(|(method, _)| method)
    }

    /// The only host it takes; absent: every one of the app.
    pub fn host(&self) -> Option<&str> {
        let rest = self.0.split_once(' ').map_or(&*self.0, |(_, rest)| rest);
        rest.split_once('/').map(|(host, _)| host).filter(|host| !host.is_empty())
    }

    /// The path, from its first `/`.
    pub fn path(&self) -> &str {
        self.0.find('/').and_then(|start| self.0.get(start..)).unwrap_or("/")
    }

    /// The parts of the path.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.path().split('/').skip(1).map(|text| match text.as_bytes() {
            b"*" => Segment::Rest,
            [b':', ..] => Segment::Param,
            _ => Segment::Literal(text),
        })
    }

    /// The part of the path before the first `:name` or `*`, without a slash at its end.
    pub fn fixed(&self) -> &str {
        let path = self.path();
        let end = [path.find("/:"), path.find("/*")].into_iter().flatten().min();
        path.get(..end.unwrap_or(path.len())).unwrap_or(path).trim_end_matches('/')
    }

    /// Whether a path is one of those this route takes. Text is compared as it stands.
    pub fn takes_path(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else {
            return false;
        };
        let mut given = path.split('/').peekable();
        for segment in self.segments() {
            match segment {
                Segment::Rest => return true,
                Segment::Param if given.next().is_some_and(|text| !text.is_empty()) => {}
                Segment::Literal(wanted) if given.next() == Some(wanted) => {}
                Segment::Param | Segment::Literal(_) => return false,
            }
        }
        given.peek().is_none()
    }

    /// Whether two routes take the same requests, so that nobody could say which one answers.
    pub fn same_as(&self, other: &Self) -> bool {
        self.method() == other.method()
            && self.host() == other.host()
            && self.segments().eq(other.segments())
    }

    /// Which of two routes is asked first: one that names a host before one that does not, then the
    /// one whose path is more exact, from left to right, then one that names a method.
    pub fn by_precedence(&self, other: &Self) -> Ordering {
        let host = other.host().is_some().cmp(&self.host().is_some());
        let path = || {
            let rank = |segment: Option<Segment<'_>>| match segment {
                Some(Segment::Literal(_)) => 0,
                Some(Segment::Param) => 1,
                None => 2,
                Some(Segment::Rest) => 3,
            };
            let (mut mine, mut others) = (self.segments(), other.segments());
            loop {
                let (mine, other) = (mine.next(), others.next());
                let order = rank(mine).cmp(&rank(other));
                if order.is_ne() || (mine.is_none() && other.is_none()) {
                    return order;
                }
            }
        };
        let method = || {
            // `GET` takes `HEAD` as well, so a route for that alone goes before.
            let rank = |route: &Self| match route.method() {
                Some("HEAD") => 0,
                Some(_) => 1,
                None => 2,
            };
            rank(self).cmp(&rank(other))
        };
        host.then_with(path).then_with(method)
    }
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        if text.len() > MAX_ROUTE_LEN {
            return Err(RouteError::TooLong(text.len()));
        }
        let (method, rest) = match text.split_once(' ') {
            Some((method, rest)) => (Some(method), rest),
            None => (None, text),
        };
        if let Some(method) = method
            && !METHODS.contains(&method)
        {
            return Err(RouteError::BadMethod(method.to_owned()));
        }
        let (host, path) = rest.split_once('/').ok_or(RouteError::NoPath)?;
        if !host.is_empty() {
            let checked = host.parse::<Domain>();
            checked.map_err(|error| RouteError::BadHost { host: host.to_owned(), error })?;
        }
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            if !is_segment(segment, last) {
                return Err(RouteError::BadSegment(segment.to_owned()));
            }
        }
        Ok(Self(text.into()))
    }
}

/// Whether text can stand between two slashes of a route. What a client may also write with `%`
/// stands in a route only in its plain form.
fn is_segment(text: &str, last: bool) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()+,;=@".contains(&b);
    match text.as_bytes() {
        b"*" | b"" => last,
        b"." | b".." => false,
        [b':', name @ ..] => {
            !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        }
        literal => literal.iter().copied().all(plain),
    }
}

impl TryFrom<String> for Route {
    type Error = RouteError;
    fn try_from(text: String) -> Result<Self, RouteError> {
        text.parse()
    }
}

impl From<Route> for String {
    fn from(route: Route) -> Self {
        route.0.as_ref().to_owned()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(text: &str) -> Route {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parts() {
        let all = route("GET shop.example.com/v2/:id/*");
        assert_eq!(
            (all.method(), all.host(), all.path()),
            (Some("GET"), Some("shop.example.com"), "/v2/:id/*")
        );
        assert_eq!(all.fixed(), "/v2");
        let bare = route("/");
        assert_eq!((bare.method(), bare.host(), bare.path(), bare.fixed()), (None, None, "/", ""));
        assert_eq!(route("/api/*").fixed(), "/api");
        assert_eq!(route("/*").fixed(), "");
        assert_eq!(route("/api/").fixed(), "/api");
    }

    #[test]
    fn what_is_no_route() {
        for text in ["", "api", "api/*x", "/a/*/b", "/*a", "/a//b", "/:", "/:a-b", "/a?b", "/a#b"] {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
        for text in ["/./a", "/a/..", "/%61", "get /a", "GET  /a", "/ä", "EVIL_HOST/a", "GET"] {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
        assert!(format!("/{}", "a".repeat(MAX_ROUTE_LEN)).parse::<Route>().is_err());
        assert_eq!("get /a".parse::<Route>(), Err(RouteError::BadMethod("get".into())));
    }

    #[test]
    fn paths() {
        for (pattern, yes, no) in [
            ("/*", &["/", "/a", "/a/b", "//"][..], &["", "a"][..]),
            ("/", &["/"], &["/a", "//"]),
            ("/api/*", &["/api", "/api/", "/api/a/b"], &["/", "/apia", "/API/a"]),
            ("/a/:id", &["/a/1", "/a/*"], &["/a", "/a/", "/a/1/", "/a/1/2"]),
            ("/a/:id/b", &["/a/1/b"], &["/a/1/c", "/a//b"]),
            ("/a/", &["/a/"], &["/a", "/a/b"]),
        ] {
            let route = route(pattern);
            for path in yes {
                assert!(route.takes_path(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!route.takes_path(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn the_more_exact_comes_first() {
        let mut routes: Vec<Route> = [
            "/*",
            "/a/*",
            "/a/:id",
            "GET /a/:id",
            "/a/b",
            "/a",
            "shop.example.com/*",
            "/:x/b",
            "/",
        ]
        .map(route)
        .to_vec();
        routes.sort_by(Route::by_precedence);
        let order: Vec<&str> = routes.iter().map(Route::as_str).collect();
        assert_eq!(
            order,
            [
                "shop.example.com/*",
                "/a/b",
                "GET /a/:id",
                "/a/:id",
                "/a",
                "/",
                "/a/*",
                "/:x/b",
                "/*"
            ]
        );
    }

    #[test]
    fn the_same_in_other_words() {
        assert!(route("/a/:id").same_as(&route("/a/:name")));
        assert!(!route("/a/:id").same_as(&route("/a/*")));
        assert!(!route("GET /a").same_as(&route("/a")));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_text_survives(text in "\\PC{0,40}", path in "\\PC{0,40}") {
            if let Ok(route) = text.parse::<Route>() {
                prop_assert_eq!(route.as_str(), &text);
                let _ = (route.takes_path(&path), route.fixed(), route.host());
            }
        }

        #[test]
        fn precedence_is_an_order(
            a in "(GET )?(/[ab]|/:x){1,3}(/\\*)?",
            b in "(GET )?(/[ab]|/:x){1,3}(/\\*)?",
            c in "(/[ab]|/:x){1,3}(/\\*)?",
        ) {
            let (a, b, c) = (route(&a), route(&b), route(&c));
            prop_assert_eq!(a.by_precedence(&b), b.by_precedence(&a).reverse());
            if a.by_precedence(&b).is_le() && b.by_precedence(&c).is_le() {
                prop_assert!(a.by_precedence(&c).is_le());
            }
        }
    }
}
