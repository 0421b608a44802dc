//! Which function of a version answers a request: from host, method and path alone.

use faas_api::{Route, Settings};
use std::borrow::Cow;

/// The routes of a version, most exact first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    /// Empty when the first function answers everything, as in a single-file deploy: thousands of
    /// those cost nothing here.
    table: Box<[Entry]>,
}

#[derive(Debug, Clone)]
struct Entry {
    route: Route,
    function: u16,
    /// Bytes of the path that the function does not see.
    strip: u16,
}

/// A function that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matched {
    /// Its place among the functions of its version.
    pub(crate) function: usize,
    /// Bytes of the path inside the app that it does not see.
    pub(crate) strip: usize,
}

/// No function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmatched {
    /// There is nothing at this path.
    Path,
    /// There is something, with other methods.
    Method,
}

impl Routes {
    /// The table for these functions, in their order.
    pub(crate) fn new<'a>(functions: impl Iterator<Item = &'a Settings>) -> Self {
        let mut table = Vec::new();
        let mut count = 0_usize;
        for (function, settings) in functions.enumerate() {
            count += 1;
            // Records of single-file deploys of earlier releases name no route.
            let everything = [Route::everything()];
            let routes = match settings.routes.as_slice() {
                [] if settings.private => &[],
                [] => everything.as_slice(),
                routes => routes,
            };
            for route in routes {
                let fixed = if settings.strip_prefix { route.fixed().len() } else { 0 };
                table.push(Entry {
                    route: route.clone(),
                    function: u16::try_from(function).unwrap_or(u16::MAX),
                    strip: u16::try_from(fixed).unwrap_or(0),
                });
            }
        }
        if let (1, [only]) = (count, table.as_slice())
            && only.route == Route::everything()
        {
            table.clear();
            return Self { table: Box::default() };
        }
        table.sort_by(|a, b| a.route.by_precedence(&b.route));
        Self { table: table.into() }
    }

    /// The function for a path inside the app. `host` is one in lower case without its port.
    pub(crate) fn find(&self, host: &str, method: &str, path: &str) -> Result<Matched, Unmatched> {
        if self.table.is_empty() {
            return Ok(Matched { function: 0, strip: 0 });
        }
        let plain = plain(path);
        let mut unmatched = Unmatched::Path;
        for entry in &self.table {
            let route = &entry.route;
            let takes_host = route.host().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host));
            if !takes_host || !route.takes_path(&plain) {
                continue;
            }
            match route.method() {
                Some(wanted) if wanted != method && (wanted, method) != ("GET", "HEAD") => {
                    unmatched = Unmatched::Method;
                }
                _ => {
                    let strip = spelled(path, usize::from(entry.strip));
                    return Ok(Matched { function: usize::from(entry.function), strip });
                }
            }
        }
        Err(unmatched)
    }
}

/// A path whose unreserved characters stand for themselves (RFC 3986 §6.2.2.2): `/%61dmin` is
/// `/admin`, so that no route is passed by in another spelling.
fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code.filter(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b)) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// How many bytes of a path make this many of the same one in plain spelling.
fn spelled(path: &str, plain_bytes: usize) -> usize {
    if !path.contains('%') {
        return plain_bytes;
    }
    let mut bytes = 0;
    while bytes < path.len() && plain(path.get(..bytes).unwrap_or_default()).len() < plain_bytes {
        let coded = path.get(bytes..).is_some_and(|rest| rest.starts_with('%'));
        bytes += if coded { 3 } else { 1 };
    }
    bytes.min(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(routes: &[&str]) -> Settings {
        Settings {
            routes: routes.iter().map(|route| route.parse().unwrap()).collect(),
            ..Settings::default()
        }
    }

    fn find(routes: &Routes, method: &str, path: &str) -> Result<usize, Unmatched> {
        routes.find("shop.example.com", method, path).map(|matched| matched.function)
    }

    #[test]
    fn one_function_answers_everything_without_a_table() {
        let routes = Routes::new([settings(&["/*"])].iter());
        assert!(routes.table.is_empty());
        assert_eq!(find(&routes, "BREW", "/x"), Ok(0));
        let private = Settings { private: true, ..Settings::default() };
        let routes = Routes::new([Settings::default(), private].iter());
        assert_eq!(find(&routes, "GET", "/x"), Ok(0));
    }

    #[test]
    fn the_most_exact_route_answers() {
        let functions = [
            settings(&["/*"]),
            settings(&["/api/*", "GET shop.example.com/v2/:id"]),
            settings(&["POST /api/orders"]),
        ];
        let routes = Routes::new(functions.iter());
        for (method, path, function) in [
            ("GET", "/", 0),
            ("GET", "/apix", 0),
            ("GET", "/api", 1),
            ("GET", "/api/orders", 1),
            ("POST", "/api/orders", 2),
            ("POST", "/api/%6Frders", 2),
            ("POST", "/api/orders/1", 1),
            ("GET", "/v2/7", 1),
            ("HEAD", "/v2/7", 1),
            ("POST", "/v2/7", 0),
        ] {
            assert_eq!(find(&routes, method, path), Ok(function), "{method} {path}");
        }
        let matched = routes.find("other.example.com", "GET", "/v2/7").unwrap();
        assert_eq!(matched.function, 0);
    }

    #[test]
    fn nothing_there_and_nothing_for_this_method_are_two_things() {
        let routes = Routes::new([settings(&["GET /a", "/b/*"])].iter());
        assert_eq!(find(&routes, "GET", "/c"), Err(Unmatched::Path));
        assert_eq!(find(&routes, "PUT", "/a"), Err(Unmatched::Method));
        assert_eq!(find(&routes, "HEAD", "/a"), Ok(0));
    }

    #[test]
    fn a_stripped_prefix_is_the_fixed_part() {
        let strip = Settings { strip_prefix: true, ..settings(&["/api/v1/*"]) };
        let routes = Routes::new([strip, settings(&["/*"])].iter());
        let matched = |path| routes.find("", "GET", path).unwrap();
        assert_eq!(matched("/api/v1/x"), Matched { function: 0, strip: 7 });
        assert_eq!(matched("/api/v1"), Matched { function: 0, strip: 7 });
        assert_eq!(matched("/x"), Matched { function: 1, strip: 0 });
        // However it is spelled.
        assert_eq!(matched("/%61pi/v1/x"), Matched { function: 0, strip: 9 });
        assert_eq!(matched("/api/v%31/%20"), Matched { function: 0, strip: 9 });
        assert_eq!(matched("/api/v%31"), Matched { function: 0, strip: 9 });
        assert_eq!(matched("/api/v1/%C3%A4"), Matched { function: 0, strip: 7 });
    }

    #[test]
    fn spellings() {
        assert_eq!(plain("/%61%2Db%2fc%zz%4"), "/a-b%2fc%zz%4");
        assert_eq!(plain("/%e4"), "/%e4");
    }
}
