//! The audit log: who changed what, when, from where, and how it ended.

use crate::{AppName, TokenId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One attempt to change something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place in the log; later entries have larger numbers.
    pub seq: u64,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The name of the token that asked.
    #[schema(example = "ci")]
    pub by: String,
    /// Its id; absent for the server's own token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "3fa91c07be")]
    pub token: Option<TokenId>,
    /// What was asked for: the `operationId` of this description.
    #[schema(example = "deploy")]
    pub action: String,
    /// The app it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "shop")]
    pub app: Option<AppName>,
    /// The version, token or other thing it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "v3")]
    pub object: Option<String>,
    /// `ok`, or the code of the error it was answered with.
    #[schema(example = "ok")]
    pub outcome: String,
    /// The address the request came from: the client's, or that of a proxy in front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "192.0.2.7")]
    pub from: Option<String>,
    /// The beginning of what the client called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "faas/0.1.0")]
    pub agent: Option<String>,
    /// The id under which the node's log knows the request.
    pub request_id: String,
}

/// The answer of `GET /v1/audit`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The entries.
    pub entries: Vec<AuditEntry>,
}
