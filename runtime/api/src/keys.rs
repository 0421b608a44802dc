//! API keys: how programs prove that they may call an app's functions.

use crate::names::{AppName, FunctionName, KeyName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the text of every key begins with, so that scanners find keys that were published.
pub const KEY_PREFIX: &str = "faas_key_";
/// The most functions that a key names.
pub const MAX_KEY_FUNCTIONS: usize = 256;

/// A key of an app, without its text: that is shown once, when the key is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// What it is revoked by. Never used again.
    #[schema(example = "01kb3w5s4m6b2n9q1rz8t7xvcd")]
    pub id: String,
    /// What functions see of it: `x-faas-caller: key:NAME`. Unique among the app's keys.
    #[schema(value_type = String, example = "ci", pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        max_length = 40)]
    pub name: KeyName,
    /// The functions it opens; none: every one that takes keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub functions: Vec<FunctionName>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The name of the token that made it.
    pub created_by: String,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// The body of `POST /v1/apps/{app}/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What functions see of it: `x-faas-caller: key:NAME`. Unique among the app's keys.
    #[schema(value_type = String, example = "ci", pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        max_length = 40)]
    pub name: KeyName,
    /// The functions it opens; none: every one that takes keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 256)]
    pub functions: Vec<FunctionName>,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// A key that was made just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    /// Its text. The server keeps only a hash of it.
    #[schema(pattern = "^faas_key_[0-9a-f]{64}$")]
    pub secret: String,
    /// What it is.
    pub key: ApiKey,
}

/// The keys of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The app.
    #[schema(value_type = String)]
    pub app: AppName,
    /// By name.
    pub keys: Vec<ApiKey>,
}
