//! The settings of TLS, and how their errors name them.

use super::files::{self, Part, Problem};
use crate::config::ConfigError;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// A certificate and its key in files. Both empty: no TLS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate and those between it and its authority, PEM, the server's own first.
    pub cert: PathBuf,
    /// Its private key, PEM. Only its owner may be able to read it.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        is_set(&self.cert) || is_set(&self.key)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// When one of the two is missing.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        ADMIN.both(&self.cert, &self.key)
    }
}

/// The certificates of the ingress: in files, from an authority, or both. All empty: no TLS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressTls {
    /// The certificate and those between it and its authority, PEM, the server's own first.
    pub cert: PathBuf,
    /// Its private key, PEM. Only its owner may be able to read it.
    pub key: PathBuf,
    /// An authority that gives out certificates by itself.
    pub acme: AcmeConfig,
}

impl IngressTls {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        self.has_files() || self.acme.is_on()
    }

    pub(super) fn has_files(&self) -> bool {
        is_set(&self.cert) || is_set(&self.key)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first setting that cannot be used, and why.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        INGRESS.both(&self.cert, &self.key)?;
        self.acme.validate()
    }
}

/// An authority that speaks ACME (RFC 8555). It sees that a domain is this node's by connecting to
/// its port 443 (`tls-alpn-01`, RFC 8737).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeConfig {
    /// The address of the authority's directory. Empty: nobody is asked. Setting it says that its
    /// terms are agreed to.
    pub directory: String,
    /// Mail addresses that the authority may write to.
    pub contact: Vec<String>,
    /// The domains to get certificates for, one each.
    pub domains: Vec<String>,
    /// Whether the domains that live apps name are asked for, too.
    pub app_domains: bool,
    /// The certificate to know the authority's own server by, PEM. Empty: the system's.
    pub directory_ca: PathBuf,
}

impl Default for AcmeConfig {
    fn default() -> Self {
        Self {
            directory: String::new(),
            contact: Vec::new(),
            domains: Vec::new(),
            app_domains: true,
            directory_ca: PathBuf::new(),
        }
    }
}

impl AcmeConfig {
    /// Whether an authority is asked.
    pub fn is_on(&self) -> bool {
        !self.directory.is_empty()
    }

    /// The domains as they are compared.
    pub(crate) fn domains(&self) -> BTreeSet<String> {
        self.domains.iter().map(|domain| domain.to_ascii_lowercase()).collect()
    }

    /// Looks into the file that the authority's own server is known by. Blocks.
    pub(super) fn check_ca(&self) -> Result<(), ConfigError> {
        if !is_set(&self.directory_ca) {
            return Ok(());
        }
        files::read_authority(&self.directory_ca)
            .map_err(|problem| ConfigError::Value { key: "ingress.tls.acme.directory_ca", problem })
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key, problem| Err(ConfigError::Value { key, problem });
        if !self.is_on() {
            let idle = !self.domains.is_empty() || !self.contact.is_empty();
            return match idle || is_set(&self.directory_ca) {
                true => refuse(
                    "ingress.tls.acme.directory",
                    "is missing; the other settings of `ingress.tls.acme` mean nothing without it"
                        .to_owned(),
                ),
                false => Ok(()),
            };
        }
        let address = self.directory.parse::<http::Uri>();
        let https = |uri: &http::Uri| uri.scheme_str() == Some("https") && uri.host().is_some();
        if !address.as_ref().is_ok_and(https) {
            let directory = self.directory.escape_debug();
            return refuse(
                "ingress.tls.acme.directory",
                format!("`{directory}` is not an address that begins with https://"),
            );
        }
        for domain in &self.domains {
            if domain.starts_with("*.") {
                let problem = format!(
                    "`{}`: no certificate for all names below a domain can be had by tls-alpn-01; \
                     name each, or use `cert` and `key`",
                    domain.escape_debug()
                );
                return refuse("ingress.tls.acme.domains", problem);
            }
            if !is_domain(domain) {
                let problem = format!("`{}` is not a domain", domain.escape_debug());
                return refuse("ingress.tls.acme.domains", problem);
            }
        }
        for contact in &self.contact {
            let address = contact.strip_prefix("mailto:").unwrap_or(contact);
            if !address.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()) {
                let problem = format!("`{}` is not a mail address", contact.escape_debug());
                return refuse("ingress.tls.acme.contact", problem);
            }
        }
        Ok(())
    }
}

/// Whether this is a name that a certificate can be for, with labels as RFC 1035 has them. It is
/// the name of a file, too.
pub(super) fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    name.len() <= 253 && !is_address && name.split('.').all(is_label)
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// What the settings of one listener's files are called.
pub(super) struct Names {
    cert: &'static str,
    key: &'static str,
}

pub(super) const ADMIN: Names = Names { cert: "admin.tls.cert", key: "admin.tls.key" };
pub(super) const INGRESS: Names = Names { cert: "ingress.tls.cert", key: "ingress.tls.key" };

impl Names {
    fn both(&self, cert: &Path, key: &Path) -> Result<(), ConfigError> {
        let missing = match (is_set(cert), is_set(key)) {
            (true, false) => self.key,
            (false, true) => self.cert,
            _ => return Ok(()),
        };
        let problem = "is missing; a certificate and its key belong together".to_owned();
        Err(ConfigError::Value { key: missing, problem })
    }

    pub(super) fn error(&self, problem: Problem) -> ConfigError {
        let key = match problem.part {
            Part::Certificate => self.cert,
            Part::Key => self.key,
        };
        ConfigError::Value { key, problem: problem.text }
    }

    pub(super) fn unusable(&self, error: &rustls::Error) -> ConfigError {
        ConfigError::Value { key: self.cert, problem: error.to_string() }
    }
}
