//! The settings of a node. Each module owns its part; this file only puts them together.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::telemetry::guest_logs::MAX_LOG_MEMORY;
pub use crate::{
    admin::AdminConfig,
    configuration::SecretsConfig,
    engine::{EngineConfig, Isolation, Limits, Maxima},
    functions::DeployConfig,
    host::OutboundConfig,
    ingress::{AccessLog, AuthConfig, IngressConfig},
    telemetry::{LogConfig, usage::UsageConfig},
    tls::{AcmeConfig, IngressTls, TlsFiles},
};

/// Every setting of a node. `config.toml` at the repository's root shows each with its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the node keeps its state. Empty: `$XDG_DATA_HOME/faas`, else `~/.local/share/faas`.
    pub data_dir: PathBuf,
    /// Where requests come in.
    pub ingress: IngressConfig,
    /// How callers of functions are checked.
    pub auth: AuthConfig,
    /// Where the operator and the command line come in.
    pub admin: AdminConfig,
    /// The pool of instances and the compile process.
    pub engine: EngineConfig,
    /// What one call of a function may use when the function says nothing.
    pub limits: Limits,
    /// What a function may ask for at most.
    pub max_limits: Maxima,
    /// What functions may send to hosts that they were granted.
    pub outbound: OutboundConfig,
    /// What a deploy may be and how many versions are kept.
    pub deploy: DeployConfig,
    /// How apps' secrets are kept.
    pub secrets: SecretsConfig,
    /// The node's own log.
    pub log: LogConfig,
    /// What functions used, to be billed.
    pub usage: UsageConfig,
}

/// Why the settings cannot be used. The text names the file and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file that was named.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {message}")]
    Parse {
        /// The file that was named.
        path: PathBuf,
        /// Line, column and what is wrong there.
        message: String,
    },
    /// A value is out of its range.
    #[error("{key}: {problem}")]
    Value {
        /// The setting, `section.key`.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a connection may hold, in bytes.
const CONNECTION_BYTES: u64 = 64 << 10;
/// What the process needs that has nothing to do, in bytes.
const IDLE_BYTES: u64 = 64 << 20;

/// What is not instances' of the node's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beside {
    /// The most connections of the ingress.
    pub(crate) connections: usize,
    /// What functions' logs may take in memory, in bytes.
    pub(crate) logs: u64,
    /// All of it, with what uploads and the process itself take, in bytes.
    pub(crate) bytes: u64,
}

impl Config {
    /// What the node's memory is needed for beside instances and their code.
    pub(crate) fn beside_instances(&self) -> Beside {
        let memory = crate::engine::node_memory(&self.engine);
        let room = usize::try_from(memory / 16 / CONNECTION_BYTES).unwrap_or(usize::MAX);
        let connections = crate::ingress::max_connections(self.ingress.max_connections, room);
        let logs = (memory / 32).min(MAX_LOG_MEMORY);
        let held = (connections as u64).saturating_mul(CONNECTION_BYTES).saturating_add(logs);
        // An artifact is looked at as a whole.
        let uploads = self.deploy.max_artifact_bytes.min(memory / 8);
        let bytes = held.saturating_add(uploads).saturating_add(IDLE_BYTES.min(memory / 4));
        Beside { connections, logs, bytes }
    }

    /// Reads a configuration file. Settings it does not name have their defaults.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or names a setting that does not exist.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }

    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// The first setting whose value cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value =
            |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
        let clear = !self.admin.insecure && !self.admin.tls.is_on();
        if !self.admin.listen.ip().is_loopback() && clear {
            return value(
                "admin.listen",
                "beyond loopback the token would travel in clear text; set `admin.tls`, put a TLS \
                 proxy in front, or set `admin.insecure = true`",
            );
        }
        self.admin.tls.validate()?;
        if !(1 << 16..=512 << 20).contains(&self.limits.memory_bytes) {
            return value("limits.memory_bytes", "is from 65536 to 536870912 (512 MiB)");
        }
        if !(1 << 16..=512 << 20).contains(&self.max_limits.memory_bytes) {
            return value("max_limits.memory_bytes", "is from 65536 to 536870912 (512 MiB)");
        }
        let Limits { cpu_ms, first_byte_ms, wall_ms, .. } = self.limits;
        let Limits { response_idle_ms, start_ms, after_response_ms, .. } = self.limits;
        let times = [cpu_ms, first_byte_ms, wall_ms, response_idle_ms, start_ms, after_response_ms];
        if times.contains(&0) {
            return value(
                "limits",
                "`cpu_ms`, `first_byte_ms`, `wall_ms`, `response_idle_ms` and the other times are at least 1",
            );
        }
        if self.limits.subrequests == 0 || self.max_limits.subrequests == 0 {
            return value("limits.subrequests", "is at least 1, as `max_limits.subrequests` is");
        }
        if self.admin.audit_days == 0 {
            return value("admin.audit_days", "is at least 1");
        }
        if self.deploy.keep_versions == 0 {
            return value("deploy.keep_versions", "is at least 1");
        }
        if !(1..=2).contains(&self.deploy.compile_concurrency) {
            return value("deploy.compile_concurrency", "is 1 or 2");
        }
        if self.deploy.max_at_once == 0 {
            return value("deploy.max_at_once", "is at least 1");
        }
        if !(64 << 10..=64 << 20).contains(&self.log.segment_bytes) {
            return value("log.segment_bytes", "is from 65536 to 67108864 (64 MiB)");
        }
        if (1..2 * self.log.segment_bytes).contains(&self.log.disk_bytes) {
            return value("log.disk_bytes", "is at least twice `log.segment_bytes`, or 0");
        }
        self.auth.validate()?;
        self.outbound.validate()?;
        self.ingress.validate()
    }

    /// The data directory in force: the one that is set, else the platform's default.
    pub fn resolved_data_dir(&self) -> PathBuf {
        if self.data_dir.as_os_str().is_empty() {
            default_data_dir()
        } else {
            self.data_dir.clone()
        }
    }
}

/// `$XDG_DATA_HOME/faas`, else `~/.local/share/faas`, else `./faas-data`.
pub fn default_data_dir() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match (folder("XDG_DATA_HOME"), folder("HOME")) {
        (Some(data), _) => PathBuf::from(data).join("faas"),
        (None, Some(home)) => PathBuf::from(home).join(".local/share/faas"),
        (None, None) => PathBuf::from("faas-data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn the_api_beyond_loopback_needs_tls_or_somebodys_word() {
        let mut config = Config::default();
        config.admin.listen = SocketAddr::from(([0, 0, 0, 0], 8081));
        let said = config.check().unwrap_err().to_string();
        assert!(said.starts_with("admin.listen: ") && said.contains("`admin.tls`"), "{said}");
        let insecure = AdminConfig { insecure: true, ..config.admin.clone() };
        Config { admin: insecure, ..config.clone() }.check().unwrap();
        config.admin.tls = TlsFiles { cert: "cert.pem".into(), key: "key.pem".into() };
        config.check().unwrap();
    }

    #[test]
    fn no_address_is_written_as_nothing() {
        let read = |text: &str| toml::from_str::<Config>(text);
        assert_eq!(read("[ingress]\nhttp_redirect = \"\"").unwrap(), Config::default());
        let some = read("[ingress]\nhttp_redirect = \"[::]:80\"").unwrap();
        assert_eq!(some.ingress.http_redirect.unwrap().port(), 80);
        assert!(some.check().unwrap_err().to_string().starts_with("ingress.http_redirect: "));
        assert!(read("[ingress]\nhttp_redirect = \"80\"").is_err());
    }
}
