//! Where an app answers, as people are told.

use faas_api::{AppName, Domain, VersionId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the addresses of apps are made of.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    ingress: SocketAddr,
    base_domain: String,
    path_routing: bool,
    secure: bool,
}

impl Addresses {
    /// Addresses behind this listener.
    pub(crate) fn new(ingress: SocketAddr, base_domain: &str, path_routing: bool) -> Self {
        // An unspecified address is where one listens, not where one can go.
        let ip = match ingress.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let ingress = SocketAddr::new(ip, ingress.port());
        Self { ingress, base_domain: base_domain.to_owned(), path_routing, secure: false }
    }

    /// The same with TLS, or without. Certificates are for names, so with TLS apps are shown under
    /// the base domain only.
    pub(crate) fn over_tls(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Every address of an app, the one to show first.
    pub(crate) fn of(&self, app: &AppName) -> Vec<String> {
        let host = self.named(&format!("{app}."));
        match self.path_routing {
            true => vec![format!("{}{app}/", self.without_name()), host],
            false => vec![host],
        }
    }

    /// Every address of an app that has these domains, the one to show first.
    pub(crate) fn with_domains(&self, app: &AppName, domains: &[Domain]) -> Vec<String> {
        let claimed = domains.iter().map(|domain| self.root_of(domain.as_str()));
        self.of(app).into_iter().chain(claimed).collect()
    }

    /// Whether a domain is the node's own, or below it: those are apps' names.
    pub(crate) fn is_own(&self, domain: &str) -> bool {
        let base = self.base_domain.trim_matches('.').to_ascii_lowercase();
        domain == base || domain.strip_suffix(&base).is_some_and(|label| label.ends_with('.'))
    }

    /// The address to show for an app.
    pub(crate) fn main(&self, app: &AppName) -> String {
        self.of(app).swap_remove(0)
    }

    /// The address that always reaches one version.
    pub(crate) fn preview(&self, app: &AppName, version: VersionId) -> String {
        match self.path_routing {
            true => format!("{}{app}@{version}/", self.without_name()),
            false => self.named(&format!("{version}--{app}.")),
        }
    }

    /// The root of the ingress, for paths that name the app.
    fn without_name(&self) -> String {
        match self.secure {
            true => self.named(""),
            false => format!("http://{}/", self.ingress),
        }
    }

    /// The root of a name below the base domain.
    fn named(&self, label: &str) -> String {
        self.root_of(&format!("{label}{}", self.base_domain))
    }

    fn root_of(&self, host: &str) -> String {
        let (scheme, default) = if self.secure { ("https", 443) } else { ("http", 80) };
        match self.ingress.port() {
            port if port == default => format!("{scheme}://{host}/"),
            port => format!("{scheme}://{host}:{port}/"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let app = "hello".parse().unwrap();
        let listener = SocketAddr::from(([0, 0, 0, 0], 8080));
        let addresses = Addresses::new(listener, "localhost", true);
        assert_eq!(addresses.main(&app), "http://127.0.0.1:8080/hello/");
        assert_eq!(addresses.of(&app)[1], "http://hello.localhost:8080/");
        assert_eq!(addresses.preview(&app, VersionId::new(3)), "http://127.0.0.1:8080/hello@v3/");
        let addresses = Addresses::new(listener, "example.com", false);
        assert_eq!(addresses.main(&app), "http://hello.example.com:8080/");
        assert_eq!(
            addresses.preview(&app, VersionId::new(3)),
            "http://v3--hello.example.com:8080/"
        );
        let addresses = Addresses::new(listener, "example.com", true).over_tls(true);
        assert_eq!(
            addresses.of(&app),
            ["https://example.com:8080/hello/", "https://hello.example.com:8080/"]
        );
        let preview = addresses.preview(&app, VersionId::new(3));
        assert_eq!(preview, "https://example.com:8080/hello@v3/");
        let listener = SocketAddr::from(([0, 0, 0, 0], 443));
        let addresses = Addresses::new(listener, "example.com", false).over_tls(true);
        assert_eq!(addresses.main(&app), "https://hello.example.com/");
    }
}
