//! An app's configuration on the wire: variables, which everybody with a token can read, and
//! secrets, which nobody can.

use crate::{AppName, names::VarName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The longest secret, in bytes.
pub const MAX_SECRET_LEN: usize = 32 << 10;
/// The most secrets of an app.
pub const MAX_SECRETS: usize = 128;
/// The most bytes of all secrets of an app, names and values.
pub const MAX_SECRETS_TOTAL: usize = 96 << 10;

/// The body of `PUT /v1/apps/{app}/env`: variables to set, and with `null` those to remove. What is
/// not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, Option<String>>,
    example = json!({"LOG_LEVEL": "debug", "OLD": null}))]
#[serde(transparent)]
pub struct EnvChange(pub BTreeMap<VarName, Option<String>>);

/// The answer of `GET /v1/apps/{app}/env`, and of every change of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Env {
    /// The app.
    #[schema(value_type = String)]
    pub app: AppName,
    /// The revision of the app's configuration; 0 when it has none.
    pub revision: u64,
    /// Its variables. Functions see them over those of their manifest.
    #[schema(value_type = BTreeMap<String, String>)]
    pub env: BTreeMap<VarName, String>,
}

/// A variable of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvVar {
    /// Its name.
    #[schema(value_type = String, example = "LOG_LEVEL")]
    pub name: VarName,
    /// Its value.
    pub value: String,
}

/// The answer of `GET /v1/apps/{app}/secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// The app.
    #[schema(value_type = String)]
    pub app: AppName,
    /// The revision of the app's configuration; 0 when it has none.
    pub revision: u64,
    /// Its secrets, by name. Their values never leave the server but to functions.
    pub secrets: Vec<Secret>,
}

/// What can be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    /// Its name.
    #[schema(value_type = String, example = "STRIPE_KEY")]
    pub name: VarName,
    /// When its value last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// The name of the token that changed it.
    pub updated_by: String,
}
