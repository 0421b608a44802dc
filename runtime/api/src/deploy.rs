//! A deploy, as the server tells it while it happens.

use crate::{AppName, Digest, ErrorBody, FunctionName, Kind, Reuse, Traffic, VersionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The outcome of a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployed {
    /// The app that was deployed.
    #[schema(value_type = String, example = "hello")]
    pub app: AppName,
    /// The function the artifact became.
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
    /// What was live before; empty for a first deploy.
    pub previous: Traffic,
    /// The address of the app.
    pub url: String,
    /// An address that always reaches this version.
    pub preview_url: String,
    /// From the first byte of the upload to the answer, in milliseconds.
    pub duration_ms: u64,
}

/// A step of a deploy, one JSON document per line when the client accepts
/// `application/x-ndjson`. The last one is `done` or `failed`.
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
    /// The version is stored and, unless asked otherwise, live.
    Done(Deployed),
    /// The deploy failed; nothing of it is left behind.
    Failed(ErrorBody),
}
