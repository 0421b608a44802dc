//! The settings of requests that functions send.

use crate::config::ConfigError;
use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
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
    /// The name servers that are asked directly, `10.0.0.2:53`. Empty: the system is asked.
    pub resolver: Vec<SocketAddr>,
    /// Requests of one call that may be under way at once; more wait.
    pub at_once_per_call: u32,
    /// The same for all calls of an app.
    pub at_once_per_app: u32,
    /// Connections of the whole node, idle ones included; 0 derives it from the limit on open files.
    pub max_connections: u32,
    /// Time to find, reach and greet a server, in milliseconds; also to wait for a turn.
    pub connect_timeout_ms: u64,
    /// Time from the last byte of a request to the first of its answer, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// Time between two pieces of an answer, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Time from the first attempt to reach a server to the last byte of its answer, in
    /// milliseconds.
    pub total_timeout_ms: u64,
    /// The largest head of an answer, in bytes.
    pub max_head_bytes: usize,
    /// The largest body of an answer, in bytes, as it is sent: nothing is unpacked. 0: as large as it
    /// is.
    pub max_body_bytes: u64,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            allow_private: Vec::new(),
            ca: PathBuf::new(),
            resolver: Vec::new(),
            at_once_per_call: 6,
            at_once_per_app: 256,
            max_connections: 0,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 30_000,
            idle_timeout_ms: 30_000,
            total_timeout_ms: 300_000,
            max_head_bytes: 64 << 10,
            max_body_bytes: 1 << 30,
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
            ("outbound.at_once_per_call", u64::from(self.at_once_per_call)),
            ("outbound.at_once_per_app", u64::from(self.at_once_per_app)),
            ("outbound.connect_timeout_ms", self.connect_timeout_ms),
            ("outbound.first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("outbound.idle_timeout_ms", self.idle_timeout_ms),
            ("outbound.total_timeout_ms", self.total_timeout_ms),
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
        if self.resolver.iter().any(|server| server.port() == 0) {
            let problem = "each is an address with a port, such as 10.0.0.2:53".to_owned();
            return Err(ConfigError::Value { key: "outbound.resolver", problem });
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

    /// Time of a whole exchange.
    pub(super) fn total_timeout(&self) -> Duration {
        Duration::from_millis(self.total_timeout_ms)
    }

    /// The largest body of an answer.
    pub(super) fn body_limit(&self) -> u64 {
        match self.max_body_bytes {
            0 => u64::MAX,
            limit => limit,
        }
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    certificates.collect::<Result<_, _>>().map_err(|error| error.to_string())
}
