//! What must hold of which function answers a request, whatever its path. It panics where it does
//! not: tests call it with small random inputs, `fuzz/` with many.

#![expect(clippy::expect_used, reason = "a property that does not hold fails its test")]
#![allow(unreachable_pub, reason = "`fuzz/` reaches it, by a feature")]

use super::routing::{Matched, Routes, Unmatched};
use faas_api::{Route, Settings};
use regex::Regex;

/// The routes, one a line, then an empty line, then host, method and path, one a line: the answer is
/// that of a second router, written for nothing but to be read.
pub fn functions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((routes, request)) = text.split_once("\n\n") else { return };
    let mut request = request.splitn(3, '\n');
    let mut word = || request.next().unwrap_or_default();
    let (host, method, path) = (word().to_ascii_lowercase(), word(), word());
    if !path.starts_with('/') {
        return;
    }
    let mut known: Vec<Route> = Vec::new();
    for line in routes.lines().take(16) {
        let Ok(route) = line.parse::<Route>() else { continue };
        assert_eq!(route.as_str(), line);
        if !known.iter().any(|other| other.same_as(&route)) {
            known.push(route);
        }
    }
    let settings: Vec<Settings> = known
        .iter()
        .map(|route| Settings {
            routes: vec![route.clone()],
            strip_prefix: true,
            ..Settings::default()
        })
        .collect();
    if settings.is_empty() {
        return;
    }
    let found = Routes::new(settings.iter()).find(&host, method, path);
    let expected = model(&known, &host, method, path);
    assert_eq!(found.map(|matched| matched.function), expected, "{known:?} {host} {method} {path}");
    if let Ok(Matched { strip, .. }) = found {
        let rest = path.get(strip..);
        assert!(
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            "{path} {strip}"
        );
    }
}

/// The exact spelling of what RFC 3986 calls unreserved.
fn plain(path: &str) -> String {
    let coded = Regex::new("%([0-9A-Fa-f]{2})").expect("a pattern");
    let decode = |found: &regex::Captures<'_>| {
        let byte = u8::from_str_radix(found.get(1).map_or("", |hex| hex.as_str()), 16).unwrap_or(0);
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => char::from(byte).to_string(),
            false => found.get(0).map_or("", |all| all.as_str()).to_owned(),
        }
    };
    coded.replace_all(path, decode).into_owned()
}

fn model(routes: &[Route], host: &str, method: &str, path: &str) -> Result<usize, Unmatched> {
    let path = plain(path);
    let takes = |route: &Route| {
        let pattern: String = route
            .path()
            .split('/')
            .skip(1)
            .map(|segment| match segment {
                "*" => "(?:/.*)?".to_owned(),
                param if param.starts_with(':') => "/[^/]+".to_owned(),
                literal => format!("/{}", regex::escape(literal)),
            })
            .collect();
        let pattern = Regex::new(&format!("(?s)^{pattern}$")).expect("a pattern");
        route.host().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host))
            && pattern.is_match(&path)
    };
    // Smaller is more exact: host, then the path from left to right, then the method.
    let rank = |route: &Route| {
        let mut path: Vec<u8> = route
            .path()
            .split('/')
            .skip(1)
            .map(|segment| if segment == "*" { 3 } else { u8::from(segment.starts_with(':')) })
            .collect();
        path.push(2);
        let method = match route.method() {
            Some(exact) if exact == method => 0,
            Some(_) => 1,
            None => 2,
        };
        (route.host().is_none(), path, method)
    };
    let fits = |route: &Route| match route.method() {
        None => true,
        Some(wanted) => wanted == method || (wanted, method) == ("GET", "HEAD"),
    };
    let there: Vec<(usize, &Route)> =
        routes.iter().enumerate().filter(|(_, route)| takes(route)).collect();
    let best = there.iter().filter(|(_, route)| fits(route)).min_by_key(|(_, route)| rank(route));
    match best {
        Some((function, _)) => Ok(*function),
        None if there.is_empty() => Err(Unmatched::Path),
        None => Err(Unmatched::Method),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn made_of(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
        let piece = prop::sample::select(pieces.to_vec());
        prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn two_routers_agree(
            routes in prop::collection::vec(
                ("(|GET |HEAD |POST )", "(|a\\.test|B\\.test)", made_of(&["/", "/a", "/b", "/:x", "/*", "/a.b", "/-"])),
                1..6,
            ),
            host in "(a\\.test|b\\.test|c)",
            method in "(GET|HEAD|POST|BREW)",
            path in made_of(&["/", "/a", "/b", "/%61", "/%2561", "%2f", "/%e4", "/a.b", "/..", "/x", "%6", "/-"]),
        ) {
            let mut text = String::new();
            for (method, host, path) in &routes {
                text += &format!("{method}{host}{path}\n");
            }
            super::functions(format!("{text}\n{host}\n{method}\n/{path}").as_bytes());
            super::functions(format!("{text}\n{host}\n{method}\n{path}").as_bytes());
        }
    }
}
