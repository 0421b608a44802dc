//! What commands print with `-o json` where it is not what the server has answered. Fields are
//! only ever added. `docs/output.schema.json` describes all of it.

use crate::diff::Change;
use faas_api::{AppName, Digest, FunctionName, TokenId, VarName, VersionId, WhoAmI};
#[cfg(feature = "serve")]
use jiff::Timestamp;
use serde::Serialize;
use std::path::{Path, PathBuf};
use utoipa::ToSchema;

/// Where a node answers, now that it does.
#[cfg(feature = "serve")]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Serving {
    /// Where requests come in.
    pub(crate) ingress: String,
    /// Where the API answers.
    pub(crate) admin: String,
    /// Where requests without TLS are sent on to the ingress; left out where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redirect: Option<String>,
}

/// A project that was started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Started<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    /// Its folder.
    #[schema(value_type = String)]
    pub(crate) path: &'a Path,
    /// What was written, below the folder.
    pub(crate) files: Vec<String>,
}

/// What a build made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Built<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    pub(crate) functions: Vec<BuiltFunction<'a>>,
}

/// A function that was built.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuiltFunction<'a> {
    #[schema(value_type = String)]
    pub(crate) name: &'a FunctionName,
    /// The artifact's file.
    #[schema(value_type = String)]
    pub(crate) source: PathBuf,
    #[schema(value_type = String)]
    pub(crate) digest: Digest,
}

/// A manifest in which nothing is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Checked<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    /// The names of its functions.
    #[schema(value_type = Vec<String>)]
    pub(crate) functions: Vec<&'a FunctionName>,
    /// The names of its `[env.NAME]`.
    #[schema(value_type = Vec<String>)]
    pub(crate) environments: Vec<&'a str>,
    /// Artifacts that are not there yet.
    #[schema(value_type = Vec<String>)]
    pub(crate) not_built: Vec<PathBuf>,
}

/// What a deploy would change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Differences<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    /// The version that most requests get; `null` where none is live.
    #[schema(value_type = Option<String>)]
    pub(crate) against: Option<VersionId>,
    pub(crate) changes: Vec<Change>,
}

/// What a deploy would do: the server has checked everything, and nothing was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DryRun<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    /// Always true.
    pub(crate) dry_run: bool,
    pub(crate) changes: Vec<Change>,
    /// Digests of the artifacts that the server does not have.
    #[schema(value_type = Vec<String>)]
    pub(crate) missing: Vec<Digest>,
}

/// What a function answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invoked {
    /// Where the request went.
    pub(crate) url: String,
    #[schema(minimum = 100, maximum = 999)]
    pub(crate) status: u16,
    /// Names and values, in the order they came.
    pub(crate) headers: Vec<[String; 2]>,
    /// The body, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// The body in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body_base64: Option<String>,
}

/// A version that is kept longer than others, or no longer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pinned<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    #[schema(value_type = String)]
    pub(crate) version: VersionId,
    pub(crate) pinned: bool,
}

/// An app that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deleted<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
}

/// Secrets that were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretsRemoved<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    /// Their names.
    #[schema(value_type = Vec<String>)]
    pub(crate) removed: &'a [VarName],
}

/// Secrets that were set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretsSet<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    /// Their names.
    #[schema(value_type = Vec<String>)]
    pub(crate) set: Vec<VarName>,
}

/// A key that was ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyRevoked<'a> {
    #[schema(value_type = String)]
    pub(crate) app: &'a AppName,
    /// Its id or its name, as it was given.
    pub(crate) key: &'a str,
}

/// A token that was ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenRevoked<'a> {
    #[schema(value_type = String)]
    pub(crate) id: &'a TokenId,
}

/// A server that was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    /// What it is called here.
    pub(crate) context: String,
    /// Its admin address.
    pub(crate) server: String,
    /// Whose token it was.
    pub(crate) whoami: WhoAmI,
}

/// A server that was forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoggedOut {
    /// What it was called here.
    pub(crate) context: String,
}

/// The servers that are stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContextList {
    pub(crate) contexts: Vec<StoredContext>,
}

/// A server that is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoredContext {
    /// What it is called here.
    pub(crate) name: String,
    /// Its admin address.
    pub(crate) server: String,
    /// Whether it is the one in use.
    pub(crate) current: bool,
    /// Whether there is a token for it.
    pub(crate) has_token: bool,
}

/// The server in use from now on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContextChosen<'a> {
    /// What it is called here.
    pub(crate) context: &'a str,
    /// Its admin address.
    pub(crate) server: String,
}

/// A backup that was written.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupSaved<'a> {
    #[schema(value_type = String)]
    pub(crate) file: &'a Path,
    /// Its size.
    pub(crate) bytes: u64,
}

/// A data directory that was made of a backup.
#[cfg(feature = "serve")]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupRestored {
    #[schema(value_type = String)]
    pub(crate) data_dir: PathBuf,
    /// When the backup was made.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    /// The release that made it.
    pub(crate) faas: String,
    /// How many files were written,
    pub(crate) files: usize,
    /// and their size.
    pub(crate) bytes: u64,
    /// How many apps are in it.
    pub(crate) apps: usize,
}

/// A completion script.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completions {
    pub(crate) shell: String,
    /// Its text.
    pub(crate) script: String,
}
