//! What the node says of itself: metrics, usage, its own log, and the logs of functions.

pub(crate) mod guest_logs;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod usage;

use serde::{Deserialize, Serialize};

/// The node's own log, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `auto` is `text` on a terminal and `json` elsewhere.
    pub format: LogFormat,
    /// A filter as `tracing-subscriber` reads it; `FAAS_LOG` overrides it.
    pub filter: String,
    /// Lines of functions' logs that are kept in memory per app.
    pub function_lines: usize,
    /// What the functions of one app may write to its log, in bytes per second, with four seconds' worth
    /// at once; lines beyond are dropped and counted. 0: no limit.
    pub function_bytes_per_s: u64,
    /// What lines of functions' logs may take on disk, of all apps together, in bytes; 0 keeps
    /// them in memory only.
    pub disk_bytes: u64,
    /// The size of one file of them, in bytes; the oldest file is removed when there is no room.
    pub segment_bytes: u64,
}

/// How the node's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// `text` on a terminal, `json` elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            filter: "info".to_owned(),
            function_lines: 10_000,
            function_bytes_per_s: 1 << 20,
            disk_bytes: 256 << 20,
            segment_bytes: 8 << 20,
        }
    }
}
