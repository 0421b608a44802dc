//! How an issuer's keys are fetched, and from where they never are.
//!
//! Whoever deploys chooses the address, so it must not lead into the operator's network: what a
//! name resolves to is looked at, and exactly that is connected to. There are no redirects and no
//! proxies. `reqwest` is what the command line uses already; a fetch is rare and far from the
//! path of requests, so its client is made for one fetch.

use super::{AuthConfig, jwt::IssuerKey};
use crate::host::outbound::is_public;
use http::{HeaderMap, header};
use jsonwebtoken::jwk::Jwk;
use reqwest::{Certificate, Client, Url, redirect::Policy};
use serde::Deserialize;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::sync::Semaphore;

/// The largest set of keys, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// The most keys of an issuer.
const MAX_KEYS: usize = 100;
/// The most fetches at once.
const AT_ONCE: usize = 16;

/// Why there are no keys. The text is for the operator and for whoever wrote the function: it does
/// not tell what a name resolves to.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("that is no address of keys")]
    Address,
    #[error("keys are fetched by https only")]
    Clear,
    #[error("the host is at a private address; the operator can set `auth.allow_private_issuers`")]
    Private,
    #[error("the host is not known")]
    Unknown,
    #[error("{0}")]
    Http(&'static str),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is no set of keys")]
    NoKeys,
    #[error("the answer has no key for signatures")]
    NoUsableKey,
    #[error("the node has no client: {0}")]
    Client(String),
}

/// What came back.
pub(super) struct Fetched {
    pub(super) keys: Vec<IssuerKey>,
    /// How long the issuer wants them kept.
    pub(super) max_age: Option<Duration>,
}

/// Fetches keys.
pub(super) struct Fetch {
    allow_private: bool,
    authorities: Vec<Certificate>,
    timeout: Duration,
    permits: Semaphore,
}

impl Fetch {
    /// The settings have been validated.
    pub(super) fn new(config: &AuthConfig) -> Self {
        let authorities = authorities(&config.jwks_ca).unwrap_or_else(|problem| {
            tracing::error!(%problem, "`auth.jwks_ca` can no longer be read");
            Vec::new()
        });
        Self {
            allow_private: config.allow_private_issuers,
            authorities,
            timeout: Duration::from_secs(config.jwks_timeout_s),
            permits: Semaphore::new(AT_ONCE),
        }
    }

    /// Fetches the keys at an address.
    pub(super) async fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        let fetching = async {
            // It is never closed.
            let _permit = self.permits.acquire().await;
            self.fetch_slowly(url).await
        };
        let fetched = tokio::time::timeout(self.timeout, fetching).await;
        fetched.unwrap_or(Err(FetchError::Http("no answer in time")))
    }

    async fn fetch_slowly(&self, url: &str) -> Result<Fetched, FetchError> {
        let url: Url = url.parse().map_err(|_| FetchError::Address)?;
        let addresses = self.addresses(&url).await?;
        let host = url.host_str().ok_or(FetchError::Address)?.to_owned();
        let authorities = self.authorities.clone();
        // Reads the system's authorities from the disk.
        let client = tokio::task::spawn_blocking(move || client(&host, &addresses, authorities));
        let client = client.await.map_err(|error| FetchError::Client(error.to_string()))?;
        let client = client.map_err(|error| FetchError::Client(error.to_string()))?;
        let asked = client.get(url).header(header::ACCEPT, "application/json");
        let mut response = asked.send().await.map_err(|error| explain(&error))?;
        if response.status() != http::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let max_age = max_age(response.headers());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| explain(&error))? {
            if body.len() + piece.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Fetched { keys: read(&body)?, max_age })
    }

    /// The addresses of a host that may be asked.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, FetchError> {
        let host = url.host_str().ok_or(FetchError::Address)?;
        let port = url.port_or_known_default().ok_or(FetchError::Address)?;
        let clear = match url.scheme() {
            "https" => false,
            "http" if self.allow_private => true,
            "http" => return Err(FetchError::Clear),
            _ => return Err(FetchError::Address),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => tokio::net::lookup_host((host, port))
                .await
                .map_err(|_| FetchError::Unknown)?
                .collect(),
        };
        if found.is_empty() {
            return Err(FetchError::Unknown);
        }
        // In clear text only where nobody is in between.
        let allowed = |address: &SocketAddr| match is_public(address.ip()) {
            true => !clear,
            false => self.allow_private,
        };
        let allowed: Vec<SocketAddr> = found.into_iter().filter(allowed).collect();
        match (allowed.is_empty(), clear) {
            (false, _) => Ok(allowed),
            (true, true) => Err(FetchError::Clear),
            (true, false) => Err(FetchError::Private),
        }
    }
}

/// The certificates in a PEM file; none without a file.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn authorities(file: &Path) -> Result<Vec<Certificate>, String> {
    if file.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let read = |error: io::Error| format!("cannot read {}: {error}", file.display());
    let text = std::fs::read(file).map_err(read)?;
    let certificates = match Certificate::from_pem_bundle(&text) {
        Ok(certificates) if !certificates.is_empty() => certificates,
        _ => return Err(format!("{} has no certificates in PEM form", file.display())),
    };
    // What is between the lines of PEM is looked at only when a client is made of it.
    match Client::builder().tls_certs_only(certificates.clone()).build() {
        Ok(_) => Ok(certificates),
        Err(_) => Err(format!("{} has something else than a certificate in it", file.display())),
    }
}

fn client(
    host: &str,
    addresses: &[SocketAddr],
    authorities: Vec<Certificate>,
) -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(concat!("faas/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .resolve_to_addrs(host, addresses)
        .tls_certs_merge(authorities)
        .build()
}

/// The keys of an answer that signatures can be checked with.
fn read(body: &[u8]) -> Result<Vec<IssuerKey>, FetchError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(body).map_err(|_| FetchError::NoKeys)?;
    // A key that is not understood is somebody else's (RFC 7517 §5).
    let keys = set.keys.into_iter().take(MAX_KEYS);
    let keys = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys: Vec<IssuerKey> = keys.filter_map(|key| IssuerKey::new(&key)).collect();
    match keys.is_empty() {
        true => Err(FetchError::NoUsableKey),
        false => Ok(keys),
    }
}

/// How long an answer may be kept (RFC 9111 §5.2.2).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    let words = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let mut age = None;
    for word in words.map(str::trim) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => age = value.trim_matches('"').parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    age
}

fn explain(error: &reqwest::Error) -> FetchError {
    FetchError::Http(if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection, or its certificate is not trusted"
    } else {
        "the answer broke off"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(allow_private_issuers: bool) -> Fetch {
        Fetch::new(&AuthConfig { allow_private_issuers, ..AuthConfig::default() })
    }

    #[tokio::test]
    async fn private_addresses_are_the_operators_choice() {
        let asked = async |allow, url: &str| fetch(allow).addresses(&url.parse().unwrap()).await;
        for url in [
            "https://127.0.0.1/k",
            "https://[::1]/k",
            "https://localhost/k",
            "https://2130706433/k",
            "https://0x7f.1/k",
            "https://169.254.169.254/k",
            "https://[::ffff:10.0.0.1]/k",
        ] {
            assert!(matches!(asked(false, url).await, Err(FetchError::Private)), "{url}");
            assert!(asked(true, url).await.is_ok(), "{url}");
        }
        for url in ["http://127.0.0.1/k", "http://1.1.1.1/k"] {
            assert!(matches!(asked(false, url).await, Err(FetchError::Clear)), "{url}");
        }
        assert!(asked(true, "http://127.0.0.1:81/k").await.is_ok());
        // Nobody may change keys on their way.
        assert!(matches!(asked(true, "http://1.1.1.1/k").await, Err(FetchError::Clear)));
        assert!(asked(false, "https://1.1.1.1/k").await.is_ok());
        assert!(matches!(asked(true, "ftp://1.1.1.1/k").await, Err(FetchError::Address)));
    }

    #[test]
    fn how_long_keys_are_kept() {
        let age = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, text.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=19800, must-revalidate"), Some(19800));
        assert_eq!(age("Max-Age=\"5\""), Some(5));
        assert_eq!(age("max-age=60, no-store"), Some(0));
        assert_eq!(age("public"), None);
        assert_eq!(age("max-age=-1"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }

    #[test]
    fn sets_of_keys() {
        for bad in ["", "[]", "{}", "{\"keys\":1}"] {
            assert!(matches!(read(bad.as_bytes()), Err(FetchError::NoKeys)), "{bad}");
        }
        // A shared secret, a key of an unknown kind, and one for encryption.
        let none = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"new"},7,
            {"kty":"OKP","crv":"Ed25519","use":"enc","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        assert!(matches!(read(none.as_bytes()), Err(FetchError::NoUsableKey)));
        let one = r#"{"keys":[{"kty":"new"},
            {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        assert_eq!(read(one.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn a_file_of_authorities_must_have_some() {
        assert!(authorities(Path::new("")).unwrap().is_empty());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(authorities(file.path()).is_err());
        assert!(authorities(Path::new("/nothing/here")).is_err());
    }
}
