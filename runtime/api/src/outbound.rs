//! Hosts that a function may send requests to, as `grants.outbound` names them.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The longest name of a host, in bytes (RFC 1035 §2.3.4).
const MAX_HOST_LEN: usize = 253;

/// What is asked for or granted: how a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutboundScheme {
    /// In clear text.
    Http,
    /// Over TLS.
    Https,
}

impl OutboundScheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where a URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A server that a function may send requests to: scheme, host and port.
///
/// `https://api.stripe.com`, `http://minio:9000`, `http://10.0.0.5`, `https://[2001:db8::1]`, or
/// `https://*.example.com`: every host below `example.com`, and not `example.com` itself. Without a
/// port it is the scheme's own, and no other. It never has a path: who may talk to a server may ask
/// it for everything.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutboundHost {
    /// In its shortest form: lower case, without the scheme's own port.
    text: Box<str>,
}

/// Why a text is not a host that can be granted. The text says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundHostError {
    /// It does not begin with `http://` or `https://`.
    #[error("`{0}` has no scheme; write `https://{0}`, or `http://` where there is no TLS")]
    Scheme(String),
    /// A wildcard for everything, or one that is not the whole first label.
    #[error(
        "`{0}`: a `*` stands for the labels below a domain only, as in `https://*.example.com`; name each host"
    )]
    Wildcard(String),
    /// Path, query, fragment or user.
    #[error("`{0}` is more than a scheme, a host and a port; a grant is for a whole server")]
    TooMuch(String),
    /// Not a host name or an address as it is usually written.
    #[error("`{0}` has no host name or address that can be used")]
    Host(String),
    /// Not a port.
    #[error("`{0}` has a port that is none")]
    Port(String),
    /// The address of another function of the same app.
    #[error("`{0}` is a function of the same app, which needs no grant")]
    Sibling(String),
}

impl OutboundHost {
    /// As it is stored and shown: lower case, the port only where it is not the scheme's own.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it covers a server. `host` is as [`normal_host`] makes it.
    pub fn covers(&self, scheme: OutboundScheme, host: &str, port: u16) -> bool {
        let (own_scheme, own_host, own_port) = self.parts();
        if (own_scheme, own_port) != (scheme, port) {
            return false;
        }
        match own_host.strip_prefix('*') {
            // The rest begins with a dot, so that `evilexample.com` is not below `example.com`.
            Some(domain) => host
                .strip_suffix(domain)
                .is_some_and(|below| !below.is_empty() && !host.starts_with('[')),
            None => own_host == host,
        }
    }

    /// Scheme, host or `*.domain`, and port.
    fn parts(&self) -> (OutboundScheme, &str, u16) {
        let (scheme, rest) = match self.text.strip_prefix("https://") {
            Some(rest) => (OutboundScheme::Https, rest),
            None => (OutboundScheme::Http, self.text.strip_prefix("http://").unwrap_or_default()),
        };
        let (host, port) = split_port(rest);
        let port = port.and_then(|port| port.parse().ok());
        (scheme, host, port.unwrap_or(scheme.default_port()))
    }
}

/// Host and port of an authority; an IPv6 address stays in its brackets.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// A host in the one form that is compared: lower case, no dot at the end, addresses as they are
/// usually written (RFC 5952), IPv6 in brackets. `None` for what is no host, which includes numbers
/// that some resolvers take for addresses, such as `2130706433`, `0x7f.1` or `127.1`.
pub fn normal_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(address.to_string());
    }
    // `_` is not for host names, but found in those that containers have.
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    (host.len() <= MAX_HOST_LEN && host.split('.').all(is_label) && !is_number).then_some(host)
}

/// What no function can be called: `self.internal` is the app as its clients see it.
pub const OWN_ROUTES: &str = "self";

/// Whom a host in `.internal` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sibling<'a> {
    /// The app's function of this name: `orders.internal`.
    Function(&'a str),
    /// Whichever of the app's functions has a route for the request: `self.internal`.
    Route,
}

/// Whom a host of the same app names: [`Sibling::Function`] for `orders.internal`. Takes what
/// [`normal_host`] gives.
pub fn sibling(host: &str) -> Option<Sibling<'_>> {
    match host.strip_suffix(".internal").filter(|name| !name.contains('.'))? {
        OWN_ROUTES => Some(Sibling::Route),
        name => Some(Sibling::Function(name)),
    }
}

impl FromStr for OutboundHost {
    type Err = OutboundHostError;

    fn from_str(text: &str) -> Result<Self, OutboundHostError> {
        let told = || text.escape_debug().to_string();
        if text == "*" {
            return Err(OutboundHostError::Wildcard(told()));
        }
        let lower = |length: usize| text.get(..length).map(str::to_ascii_lowercase);
        let (scheme, rest) = match (lower(8).as_deref(), lower(7).as_deref()) {
            (Some("https://"), _) => (OutboundScheme::Https, text.get(8..)),
            (_, Some("http://")) => (OutboundScheme::Http, text.get(7..)),
            _ => return Err(OutboundHostError::Scheme(told())),
        };
        let rest = rest.unwrap_or_default();
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(OutboundHostError::TooMuch(told()));
        }
        let (host, port) = split_port(rest);
        let (wildcard, name) = match host.strip_prefix("*.") {
            Some(domain) => ("*.", domain),
            None => ("", host),
        };
        if name.contains('*') {
            return Err(OutboundHostError::Wildcard(told()));
        }
        let name = normal_host(name).ok_or_else(|| OutboundHostError::Host(told()))?;
        let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
        if !wildcard.is_empty() && is_address {
            return Err(OutboundHostError::Wildcard(told()));
        }
        if name == "internal" || sibling(&name).is_some() && wildcard.is_empty() {
            return Err(OutboundHostError::Sibling(told()));
        }
        let port = match port {
            None => scheme.default_port(),
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
                _ => return Err(OutboundHostError::Port(told())),
            },
        };
        let port = match port == scheme.default_port() {
            true => String::new(),
            false => format!(":{port}"),
        };
        Ok(Self { text: format!("{}://{wildcard}{name}{port}", scheme.as_str()).into() })
    }
}

impl TryFrom<String> for OutboundHost {
    type Error = OutboundHostError;

    fn try_from(text: String) -> Result<Self, OutboundHostError> {
        text.parse()
    }
}

impl From<OutboundHost> for String {
    fn from(host: OutboundHost) -> Self {
        host.text.into()
    }
}

impl fmt::Display for OutboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for OutboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> Result<OutboundHost, OutboundHostError> {
        text.parse()
    }

    fn covers(grant: &str, url: &str) -> bool {
        let (scheme, rest) = url.split_once("://").unwrap();
        let scheme = if scheme == "https" { OutboundScheme::Https } else { OutboundScheme::Http };
        let (name, port) = split_port(rest);
        let port = port.map_or(scheme.default_port(), |port| port.parse().unwrap());
        normal_host(name).is_some_and(|name| host(grant).unwrap().covers(scheme, &name, port))
    }

    #[test]
    fn good_hosts_have_one_form() {
        for (text, form) in [
            ("https://api.stripe.com", "https://api.stripe.com"),
            ("HTTPS://API.Stripe.com.:443", "https://api.stripe.com"),
            ("http://host:9000", "http://host:9000"),
            ("http://my_service:80", "http://my_service"),
            ("https://*.Example.com:8443", "https://*.example.com:8443"),
            ("http://10.0.0.5:9000", "http://10.0.0.5:9000"),
            ("https://[2001:DB8:0::1]", "https://[2001:db8::1]"),
        ] {
            assert_eq!(host(text).unwrap().as_str(), form, "{text}");
        }
    }

    #[test]
    fn bad_hosts_say_why() {
        use OutboundHostError as E;
        let told = |text: &str| text.to_owned();
        for (text, error) in [
            ("*", E::Wildcard as fn(String) -> E),
            ("https://*", E::Wildcard),
            ("https://*.", E::Host),
            ("https://a.*.com", E::Wildcard),
            ("https://*.*.com", E::Wildcard),
            ("https://*a.com", E::Wildcard),
            ("https://*.10.0.0.1", E::Wildcard),
            ("https://*.[::1]", E::Wildcard),
            ("api.stripe.com", E::Scheme),
            ("ftp://a.com", E::Scheme),
            ("", E::Scheme),
            ("https://a.com/", E::TooMuch),
            ("https://a.com?q", E::TooMuch),
            ("https://me@a.com", E::TooMuch),
            ("https://a.com#", E::TooMuch),
            ("https://a.com\\@b.com", E::TooMuch),
            ("https://", E::Host),
            ("https://-a.com", E::Host),
            ("https://a..com", E::Host),
            ("https://a com", E::Host),
            ("https://bücher.example", E::Host),
            ("https://[fe80::1%25eth0]", E::Host),
            ("http://2130706433", E::Host),
            ("http://0x7f.1", E::Host),
            ("http://0x7f000001", E::Host),
            ("http://127.1", E::Host),
            ("http://0177.0.0.1", E::Host),
            ("https://a.com:", E::Port),
            ("https://a.com:0", E::Port),
            ("https://a.com:+1", E::Port),
            ("https://a.com:65536", E::Port),
            ("http://orders.internal", E::Sibling),
            ("http://*.internal", E::Sibling),
        ] {
            let expected = match text {
                // As somebody who makes the mistake would write it.
                "" => E::Scheme(String::new()),
                _ => error(told(&text.escape_debug().to_string())),
            };
            assert_eq!(host(text), Err(expected), "{text}");
        }
        assert!(host("http://metadata.google.internal").is_ok(), "it is no function");
    }

    #[test]
    fn a_grant_is_for_one_server() {
        assert!(covers("https://api.test", "https://API.test."));
        assert!(covers("https://api.test", "https://api.test:443"));
        for url in [
            "http://api.test",
            "https://api.test:8443",
            "https://api.test.evil",
            "https://evil-api.test",
            "https://sub.api.test",
            "https://apiXtest",
        ] {
            assert!(!covers("https://api.test", url), "{url}");
        }
    }

    #[test]
    fn a_wildcard_is_for_what_is_below() {
        assert!(covers("https://*.example.com", "https://a.example.com"));
        assert!(covers("https://*.example.com", "https://b.a.example.com"));
        for url in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "https://a.example.com.evil",
            "https://a.example.com:444",
            "http://a.example.com",
        ] {
            assert!(!covers("https://*.example.com", url), "{url}");
        }
    }

    #[test]
    fn functions_are_named_by_one_label() {
        assert_eq!(sibling("orders.internal"), Some(Sibling::Function("orders")));
        assert_eq!(sibling("self.internal"), Some(Sibling::Route));
        for other in ["self.internal.evil.test", "a.self.internal", "self"] {
            assert_eq!(sibling(other), None, "{other}");
        }
        assert_eq!(sibling("metadata.google.internal"), None);
        assert_eq!(sibling("internal"), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "https?://(\\*\\.)?[a-z0-9.:-]{1,20}") {
            if let Ok(host) = host(&text) {
                prop_assert_eq!(host.as_str().parse::<OutboundHost>().unwrap(), host.clone());
                let json = serde_json::to_string(&host).unwrap();
                prop_assert_eq!(serde_json::from_str::<OutboundHost>(&json).unwrap(), host);
            }
        }

        #[test]
        fn no_text_breaks_it(text in "\\PC*", name in "\\PC*") {
            if let (Ok(host), Some(name)) = (host(&text), normal_host(&name)) {
                let _ = host.covers(OutboundScheme::Https, &name, 443);
            }
        }

        #[test]
        fn a_wildcard_covers_only_names_below(
            domain in "[a-z]{1,5}\\.[a-z]{2,3}", name in "[a-z.-]{0,20}"
        ) {
            let grant: OutboundHost = format!("https://*.{domain}").parse().unwrap();
            if let Some(name) = normal_host(&name) {
                let below = name.len() > domain.len() && name.ends_with(&format!(".{domain}"));
                prop_assert_eq!(grant.covers(OutboundScheme::Https, &name, 443), below);
            }
        }
    }
}
