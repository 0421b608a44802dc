//! Finds the app a request is for, from its host and path alone. Pure: it asks `find` for names
//! and does nothing else.
//!
//! | address | app | version | path inside the app |
//! |---|---|---|---|
//! | `shop.<base_domain>/cart` | `shop` | live | `/cart` |
//! | `v3--shop.<base_domain>/cart` | `shop` | v3 | `/cart` |
//! | `<a domain of shop>/cart` | `shop` | live | `/cart` |
//! | `<anything else>/shop/cart` | `shop` | live | `/cart` |
//! | `<anything else>/shop@v3/cart` | `shop` | v3 | `/cart` |
//!
//! A host wins over a path. The name in a path must stand there literally: `/%73hop/` is not
//! `/shop/`, so that whoever filters by path in front of the node sees the same name.

use faas_api::{VersionId, names::MAX_NAME_LEN};

/// The longest label that can name an app: `v4294967295--` and a name.
const MAX_LABEL_LEN: usize = MAX_NAME_LEN + 13;
/// The longest host name (RFC 1035 §2.3.4).
const MAX_HOST_LEN: usize = 253;

/// What an app is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// Its name.
    Name(&'a str),
    /// A domain that it claims, in lower case.
    Domain(&'a str),
}

/// How addresses name apps.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    /// In lower case, without a dot at either end.
    base_domain: String,
    path_routing: bool,
}

impl Naming {
    pub(super) fn new(base_domain: &str, path_routing: bool) -> Self {
        let base_domain = base_domain.trim_matches('.').to_ascii_lowercase();
        Self { base_domain, path_routing }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route<A> {
    /// The app.
    pub(super) app: A,
    /// The version, where the address names one.
    pub(super) version: Option<VersionId>,
    /// How many bytes of the path name the app; the path inside the app begins behind them.
    pub(super) prefix: usize,
}

/// Nothing answers there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotFound;

/// Finds the app for a host and a path; both as the client wrote them.
pub(super) fn route<A>(
    find: impl Fn(Key<'_>) -> Option<A>,
    naming: &Naming,
    host: &str,
    path: &str,
) -> Result<Route<A>, NotFound> {
    if let Some((app, version)) = by_host(&find, naming, host) {
        return Ok(Route { app, version, prefix: 0 });
    }
    if let Some(app) = by_domain(&find, host) {
        return Ok(Route { app, version: None, prefix: 0 });
    }
    match naming.path_routing {
        true => by_path(find, path).ok_or(NotFound),
        false => Err(NotFound),
    }
}

/// The app whose host this is.
fn by_host<A>(
    find: impl Fn(Key<'_>) -> Option<A>,
    naming: &Naming,
    host: &str,
) -> Option<(A, Option<VersionId>)> {
    let name = without_port(host);
    let label_len = name.len().checked_sub(naming.base_domain.len() + 1)?;
    let (label, domain) = name.split_at_checked(label_len)?;
    if !domain.strip_prefix('.')?.eq_ignore_ascii_case(&naming.base_domain) {
        return None;
    }
    // Names are in lower case. A label that fits into none needs no look-up.
    let mut lower = [0; MAX_LABEL_LEN];
    let lower = lower.get_mut(..label.len())?;
    lower.copy_from_slice(label.as_bytes());
    lower.make_ascii_lowercase();
    let label = std::str::from_utf8(lower).ok()?;
    match label.split_once("--") {
        // No name has two hyphens in a row, so that this can only be a preview.
        Some((version, app)) => Some((find(Key::Name(app))?, Some(version.parse().ok()?))),
        None => Some((find(Key::Name(label))?, None)),
    }
}

/// The app that claims this host as one of its domains.
fn by_domain<A>(find: impl Fn(Key<'_>) -> Option<A>, host: &str) -> Option<A> {
    let name = without_port(host);
    // Most hosts are in lower case already.
    if !name.bytes().any(|b| b.is_ascii_uppercase()) {
        return find(Key::Domain(name));
    }
    let mut lower = [0; MAX_HOST_LEN];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    find(Key::Domain(std::str::from_utf8(lower).ok()?))
}

/// A host without its port, and without the dot that a whole name may end with.
pub(super) fn without_port(host: &str) -> &str {
    let name = host.split_once(':').map_or(host, |(name, _port)| name);
    name.strip_suffix('.').unwrap_or(name)
}

/// The app that the first segment of this path names.
fn by_path<A>(find: impl Fn(Key<'_>) -> Option<A>, path: &str) -> Option<Route<A>> {
    let rest = path.strip_prefix('/')?;
    let segment = rest.split('/').next()?;
    let prefix = 1 + segment.len();
    match segment.split_once('@') {
        Some((app, version)) => {
            let version = version.parse().ok()?;
            Some(Route { app: find(Key::Name(app))?, version: Some(version), prefix })
        }
        None => Some(Route { app: find(Key::Name(segment))?, version: None, prefix }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const APPS: [&str; 4] = ["a", "shop", "my-app", "v3"];

    fn find(key: Key<'_>) -> Option<&'static str> {
        match key {
            Key::Name(name) => APPS.into_iter().find(|app| *app == name),
            Key::Domain(domain) => (domain == "shop.example.org").then_some("shop"),
        }
    }

    fn to(host: &str, path: &str) -> Option<(&'static str, u32, String)> {
        let naming = Naming::new("Example.test.", true);
        let route = route(find, &naming, host, path).ok()?;
        Some((
            route.app,
            route.version.map_or(0, VersionId::number),
            path[route.prefix..].to_owned(),
        ))
    }

    fn is(app: &'static str, version: u32, path: &str) -> Option<(&'static str, u32, String)> {
        Some((app, version, path.to_owned()))
    }

    #[test]
    fn hosts() {
        for host in [
            "shop.example.test",
            "SHOP.Example.TEST",
            "shop.example.test.",
            "shop.example.test:8080",
            "shop.example.test.:80",
        ] {
            assert_eq!(to(host, "/x"), is("shop", 0, "/x"), "{host}");
            // A host wins over a path.
            assert_eq!(to(host, "/a/x"), is("shop", 0, "/a/x"), "{host}");
        }
        for host in ["shop.example.org", "Shop.Example.ORG.", "shop.example.org:8080"] {
            assert_eq!(to(host, "/a/x"), is("shop", 0, "/a/x"), "{host}");
        }
        assert_eq!(to("a.shop.example.org", "/a/x"), is("a", 0, "/x"));
        assert_eq!(to("v3--shop.example.test", "/x"), is("shop", 3, "/x"));
        assert_eq!(to("V12--My-App.example.test", "/"), is("my-app", 12, "/"));
        assert_eq!(to("v3.example.test", "/"), is("v3", 0, "/"));
        for host in [
            "",
            ".example.test",
            "example.test",
            "x.shop.example.test",
            "shop.example.test.evil",
            "shopexample.test",
            "shop..example.test",
            "nothing.example.test",
            "v0--shop.example.test",
            "v3--.example.test",
            "--shop.example.test",
            "v3--v4--shop.example.test",
            "shop.example.test..",
            "[::1]:8080",
            &format!("{}.example.test", "x".repeat(200)),
        ] {
            assert_eq!(to(host, "/x"), None, "{host}");
            assert_eq!(to(host, "/a/x"), is("a", 0, "/x"), "{host}");
        }
    }

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/shop/x/y", is("shop", 0, "/x/y")),
            ("/shop/", is("shop", 0, "/")),
            ("/shop//x", is("shop", 0, "//x")),
            ("/shop", is("shop", 0, "")),
            ("/shop@v3/x", is("shop", 3, "/x")),
            ("/shop@v3", is("shop", 3, "")),
            ("/", None),
            ("//shop/x", None),
            ("/Shop/x", None),
            ("/%73hop/x", None),
            ("/shop%2fx", None),
            ("/shop@/x", None),
            ("/shop@3/x", None),
            ("/shop@v03/x", None),
            ("/shop@v3@v4/x", None),
            ("/@v3/x", None),
            ("/../shop/x", None),
            ("/nothing/x", None),
        ] {
            assert_eq!(to("localhost", path), expected, "{path}");
        }
        let naming = Naming::new("example.test", false);
        assert_eq!(route(find, &naming, "localhost", "/shop/x"), Err(NotFound));
        assert!(route(find, &naming, "shop.example.test", "/x").is_ok());
    }

    proptest! {
        #[test]
        fn a_route_is_what_its_address_was_made_of(
            app in prop::sample::select(APPS.to_vec()),
            version in prop::option::of(1u32..),
            port in prop::option::of(any::<u16>()),
            rest in "(/[a-z@%.-]{0,8}){0,4}",
            by_host in any::<bool>(),
        ) {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let number = version.unwrap_or(0);
            let (host, path) = match (by_host, version) {
                (true, Some(v)) => (format!("v{v}--{app}.example.test{port}"), rest.clone()),
                (true, None) => (format!("{app}.example.test{port}"), rest.clone()),
                (false, Some(v)) => (format!("localhost{port}"), format!("/{app}@v{v}{rest}")),
                (false, None) => (format!("localhost{port}"), format!("/{app}{rest}")),
            };
            prop_assert_eq!(to(&host, &path), is(app, number, &rest));
        }

        #[test]
        fn whatever_comes_names_an_app_literally_or_nothing(host in "\\PC{0,40}", path in "/\\PC{0,40}") {
            if let Some((app, _, rest)) = to(&host, &path) {
                let named_by_host = host.to_ascii_lowercase().contains(&format!("{app}.example.test"));
                let named_by_path = path.starts_with(&format!("/{app}"));
                let claimed = host.to_ascii_lowercase().contains("shop.example.org");
                prop_assert!(named_by_host || named_by_path || claimed);
                prop_assert!(rest.is_empty() || rest.starts_with('/'));
            }
        }
    }
}
