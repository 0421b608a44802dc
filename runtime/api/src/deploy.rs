//! A deploy, as the server tells it while it happens.

use crate::{AppName, Digest, ErrorBody, Function, FunctionName, Kind, Reuse, Traffic, VersionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The outcome of a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployed {
    /// The app that was deployed.
    #[schema(value_type = String, example = "hello")]
    pub app: AppName,
    /// The function the artifact became; the first one, where the app has several. So are `kind`,
    /// `digest`, `size` and `reuse`.
    #[schema(value_type = String, example = "main")]
    pub function: FunctionName,
    /// The new version.
    #[schema(value_type = String, example = "v3")]
    pub version: VersionId,
    /// What kind of program was recognised.
    pub kind: Kind,
    /// SHA-256 of the artifact.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Size of the artifact, in bytes.
    pub size: u64,
    /// How far its requests share instances; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    /// Whether the version is live.
    pub active: bool,
    /// All functions of the version.
    #[serde(default)]
    pub functions: Vec<Function>,
    /// What was live before; empty for a first deploy.
    pub previous: Traffic,
    /// What is live now.
    pub traffic: Traffic,
    /// Whether an earlier deploy with the same `idempotency-key` made this version.
    #[serde(default)]
    pub replayed: bool,
    /// The address of the app.
    pub url: String,
    /// Every address of the app, the first being the one to show.
    #[serde(default)]
    pub urls: Vec<String>,
    /// An address that always reaches this version.
    pub preview_url: String,
    /// From the first byte of the upload to the answer, in milliseconds.
    pub duration_ms: u64,
}

/// A step of a deploy, one JSON document per line when the client accepts
/// `application/x-ndjson`. The last one is `done`, `planned` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DeployEvent {
    /// The artifact has arrived and its blob is on disk.
    Received {
        /// Size of the artifact, in bytes.
        size: u64,
        /// SHA-256 of the artifact.
        #[schema(value_type = String)]
        digest: Digest,
        /// Whether the server did not have it before.
        new: bool,
        /// How long the upload took, in milliseconds.
        duration_ms: u64,
    },
    /// The artifact is one the host can run; native code is being made.
    Compiling {
        /// The function it becomes.
        #[schema(value_type = String)]
        function: FunctionName,
        /// What kind of program was recognised.
        kind: Kind,
        /// How long the compile process has run, in milliseconds. Sent again while it runs.
        elapsed_ms: u64,
    },
    /// Native code is ready.
    Compiled {
        /// The function it is for.
        #[schema(value_type = String)]
        function: FunctionName,
        /// Whether it was there already, from an earlier deploy of the same artifact.
        cached: bool,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// The version answered at the path that its manifest names.
    Healthy {
        /// The path.
        path: String,
        /// The status it answered with.
        status: u16,
        /// How long that took, in milliseconds.
        duration_ms: u64,
    },
    /// Nothing was changed: artifacts are missing, or it was a dry run.
    Planned(Planned),
    /// The version is stored and, unless asked otherwise, live.
    Done(Deployed),
    /// The deploy failed; nothing of it is left behind.
    Failed(ErrorBody),
}

/// What a deploy of an app still lacks, or would do: the answer of `POST /v1/apps/{app}/versions`
/// when it changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Planned {
    /// Artifacts that the server does not have: send each with `PUT /v1/blobs/{sha256}`, then ask
    /// again. None after a dry run that found nothing wrong.
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<Digest>,
    /// Whether this was a dry run.
    pub dry_run: bool,
}

/// The answer of `PUT /v1/blobs/{sha256}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stored {
    /// SHA-256 of what is stored.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// Whether the server did not have it before.
    pub new: bool,
}
