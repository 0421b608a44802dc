//! Whom a request is for.

use faas_api::{
    OutboundHost, OutboundScheme,
    outbound::{Sibling, normal_host, sibling, split_port},
};
use http::{Uri, uri::Scheme};
use std::fmt;

/// A server: scheme, host in its one form, port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) scheme: OutboundScheme,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    /// The server of a URI; `None` when it names none that could be reached.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => OutboundScheme::Https,
            scheme if *scheme == Scheme::HTTP => OutboundScheme::Http,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        // Nobody means a user by it today, and many a filter was fooled.
        if authority.contains('@') {
            return None;
        }
        let (host, port) = split_port(authority);
        let port = match port {
            None | Some("") => scheme.default_port(),
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok()?,
            Some(_) => return None,
        };
        (port > 0).then_some(())?;
        Some(Self { scheme, host: normal_host(host)?, port })
    }

    /// Whether it was granted.
    pub(super) fn is_granted(&self, grants: &[OutboundHost]) -> bool {
        grants.iter().any(|grant| grant.covers(self.scheme, &self.host, self.port))
    }

    /// Whom of the same app it names.
    pub(super) fn sibling(&self) -> Option<Sibling<'_>> {
        sibling(&self.host)
    }

    /// What stands in `host`.
    pub(super) fn authority(&self) -> String {
        match self.port == self.scheme.default_port() {
            true => self.host.clone(),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Option<String> {
        Target::of(&uri.parse().ok()?).map(|target| target.to_string())
    }

    #[test]
    fn servers() {
        for (uri, target) in [
            ("https://API.test/x?y", "https://api.test"),
            ("https://api.test.:443/", "https://api.test"),
            ("http://api.test:8080/", "http://api.test:8080"),
            ("http://[::FFFF:7f00:1]/", "http://[::ffff:127.0.0.1]"),
        ] {
            assert_eq!(of(uri).as_deref(), Some(target), "{uri}");
        }
        for uri in [
            "/x",
            "ftp://a.test/",
            "http://me@a.test/",
            "http://a.test@127.0.0.1/",
            "http://a.test:0/",
            "http://a.test:99999/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://[fe80::1%25lo]/",
        ] {
            assert_eq!(of(uri), None, "{uri}");
        }
    }
}
