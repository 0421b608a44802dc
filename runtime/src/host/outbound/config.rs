//! The settings of requests that functions send.

use crate::config::ConfigError;
use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// What functions may send to the hosts that they were granted, and how long they may wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundConfig {
    /// Networks that are not public and may be reached all the same, by functions that are granted
    /// the host: `10.1.0.0/16`, `127.0.0.1/32`.
    pub allow_private: Vec<IpNet>,
    /// A file of certificates (PEM) that are trusted beside the system's. Empty: none.
    pub ca: PathBuf,
    /// Requests that one call may send, those of the functions it calls included.
    pub requests_per_call: u32,
    /// How many of them may be under way at once; more wait.
    pub at_once_per_call: u32,
    /// The same for all calls of an app.
    pub at_once_per_app: u32,
    /// Time to find, reach and greet a server, in milliseconds; also to wait for a turn.
    pub connect_timeout_ms: u64,
    /// Time from the last byte of a request to the first of its answer, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// Time between two pieces of an answer, in milliseconds.
    pub idle_timeout_ms: u64,
    /// The largest head of an answer, in bytes.
    pub max_head_bytes: usize,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            allow_private: Vec::new(),
            ca: PathBuf::new(),
            requests_per_call: 50,
            at_once_per_call: 6,
            at_once_per_app: 256,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 30_000,
            idle_timeout_ms: 30_000,
            max_head_bytes: 64 << 10,
        }
    }
}

impl OutboundConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first setting that cannot be used, and why.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let at_least_one = [
            ("outbound.requests_per_call", u64::from(self.requests_per_call)),
            ("outbound.at_once_per_call", u64::from(self.at_once_per_call)),
            ("outbound.at_once_per_app", u64::from(self.at_once_per_app)),
            ("outbound.connect_timeout_ms", self.connect_timeout_ms),
            ("outbound.first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("outbound.idle_timeout_ms", self.idle_timeout_ms),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(ConfigError::Value { key, problem: "cannot be 0".to_owned() });
            }
        }
        if !(8 << 10..=1 << 20).contains(&self.max_head_bytes) {
            let problem = "is from 8192 to 1048576".to_owned();
            return Err(ConfigError::Value { key: "outbound.max_head_bytes", problem });
        }
        Ok(())
    }

    /// The certificates of `ca`.
    ///
    /// # Errors
    /// When the file cannot be read, or has none.
    pub(super) fn extra_roots(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        if self.ca.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        let problem = |why: String| ConfigError::Value { key: "outbound.ca", problem: why };
        let roots = read_certificates(&self.ca)
            .map_err(|why| problem(format!("{}: {why}", self.ca.display())))?;
        match roots.is_empty() {
            true => Err(problem(format!("{} has no certificate", self.ca.display()))),
            false => Ok(roots),
        }
    }

    /// Whether an address may be reached that is not public.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        self.allow_private.iter().any(|network| network.contains(&address))
    }

    /// Time to find, reach and greet a server.
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// Time to the first byte of an answer.
    pub(super) fn first_byte_timeout(&self) -> Duration {
        Duration::from_millis(self.first_byte_timeout_ms)
    }

    /// Time between two pieces of an answer.
    pub(super) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    certificates.collect::<Result<_, _>>().map_err(|error| error.to_string())
}
