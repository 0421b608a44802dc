//! Log lines of functions, as `GET /v1/apps/{app}/logs` streams them.

use crate::{AppName, FunctionName, VersionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;

/// How much a line matters. What a guest writes to its standard output is `info`, to its standard
/// error `error`; through `wasi:logging` it chooses. A request that ended with a status of 5xx is
/// `error`, with 4xx `warn`, else `info`; why a call failed is `error`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Steps of a computation.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens normally.
    #[default]
    Info,
    /// What may need a look.
    Warn,
    /// Something failed.
    Error,
    /// Nothing works any more.
    Critical,
}

impl LogLevel {
    /// Every level, the least first.
    pub const ALL: [Self; 6] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];

    /// The level as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// The level of a request that ended with this status.
    pub fn of_status(status: u16) -> Self {
        match status {
            500.. => Self::Error,
            400..=499 => Self::Warn,
            _ => Self::Info,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|level| level.as_str() == text);
        level.ok_or_else(|| format!("`{text}` is no level"))
    }
}

/// Statuses of requests, as a query names them: `500`, `5xx`, `404,5xx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    /// Whether a status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = |item: &str| {
            let (class, all) = match item.strip_suffix("xx").or_else(|| item.strip_suffix("XX")) {
                Some(class) => (class.parse::<u16>().ok()?.checked_mul(100)?, true),
                None => (item.parse::<u16>().ok()?, false),
            };
            // `+5` is a number, too, and no status.
            let digits = item.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
            let last = if all { class + 99 } else { class };
            (digits && (100..=599).contains(&class)).then_some((class, last))
        };
        let items = text.split(',').map(str::trim);
        let ranges = items.map(|item| range(item).ok_or_else(|| format!("`{item}` is no status")));
        ranges.collect::<Result<_, _>>().map(Self)
    }
}

/// Where a line comes from, and what only that source has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum LogSource {
    /// A request ended.
    Request {
        /// The method, escaped and cut to 64 bytes.
        method: String,
        /// The path as the guest saw it, escaped and cut to 1 KiB; without the query.
        path: String,
        /// The status the client got.
        status: u16,
        /// The platform's error code, where the platform answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// From the head of the request to the end of the answer, in milliseconds.
        duration_ms: f64,
        /// CPU time of the guest and its host calls, in milliseconds.
        cpu_ms: f64,
        /// The largest linear memory it had, in bytes.
        memory_bytes: u64,
    },
    /// The guest wrote to its standard output.
    Stdout {
        /// One line, escaped and cut to 16 KiB.
        message: String,
    },
    /// The guest wrote to its standard error.
    Stderr {
        /// One line, escaped and cut to 16 KiB.
        message: String,
    },
    /// The guest wrote through `wasi:logging`.
    Log {
        /// What the guest says it is about; escaped and cut to 256 bytes.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        context: String,
        /// One or more lines, escaped and cut to 16 KiB.
        message: String,
    },
    /// The platform says why a call failed: a trap with its frames, or a limit with both numbers.
    Failure {
        /// One or more lines.
        message: String,
    },
}

/// One line of an app's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Grows by one per line of the app, also over restarts of the node.
    pub seq: u64,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The app.
    #[schema(value_type = String)]
    pub app: AppName,
    /// The function.
    #[schema(value_type = String)]
    pub function: FunctionName,
    /// The version.
    #[schema(value_type = String)]
    pub version: VersionId,
    /// The request it belongs to.
    pub request_id: String,
    /// How much it matters.
    #[serde(default)]
    pub level: LogLevel,
    /// How many lines of the app right before this one are lost to this reader: they were displaced
    /// before they could be sent. Left out when there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
    /// What it is.
    #[serde(flatten)]
    pub source: LogSource,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        let written = r#"{"source":"request","method":"GET","path":"/","status":200,"duration_ms":7.0004480000000004,"cpu_ms":0.1,"memory_bytes":1}"#;
        let read: LogSource = serde_json::from_str(written).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }

    #[test]
    fn statuses() {
        let set: StatusSet = "404, 5xx".parse().unwrap();
        for (status, wanted) in [(404, true), (403, false), (500, true), (599, true), (600, false)]
        {
            assert_eq!(set.contains(status), wanted, "{status}");
        }
        for bad in ["", "x", "5x", "5xxx", "6xx", "0xx", "99", "600", "500,", "+5xx", "-500", "5.0"]
        {
            assert!(bad.parse::<StatusSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn levels_are_in_order_and_read_as_they_are_written() {
        assert!(LogLevel::ALL.is_sorted());
        for level in LogLevel::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        assert!("ERROR".parse::<LogLevel>().is_err());
    }

    #[test]
    fn a_line_of_an_older_server_is_read() {
        let text = r#"{"seq":1,"time":"2026-11-20T12:00:00Z","app":"hello","function":"main",
            "version":"v1","request_id":"x","source":"stdout","message":"hi"}"#;
        let line: LogLine = serde_json::from_str(text).unwrap();
        assert_eq!((line.level, line.dropped), (LogLevel::Info, 0));
        assert!(!serde_json::to_string(&line).unwrap().contains("dropped"));
    }
}
