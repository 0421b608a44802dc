//! Log lines of functions, as `GET /v1/apps/{app}/logs` streams them.

use crate::{AppName, FunctionName, VersionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// The platform says why a call failed: a trap with its frames, or a limit with both numbers.
    Failure {
        /// One or more lines.
        message: String,
    },
}

/// One line of an app's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Grows by one per line of the app; a gap means lines were dropped.
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
    /// What it is.
    #[serde(flatten)]
    pub source: LogSource,
}
