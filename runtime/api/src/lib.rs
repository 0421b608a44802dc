//! What both ends of a faas deployment share: names, wire types, error codes and the inspection
//! of an artifact. No asynchronous runtime, no HTTP library, no engine.
//!
//! Conventions of the wire: JSON, `snake_case`, RFC 3339 times, sizes in bytes, durations in
//! milliseconds unless the field's name says otherwise. Fields are only ever added.

pub mod apps;
pub mod artifact;
pub mod audit;
pub mod configuration;
pub mod deploy;
pub mod digest;
pub mod error;
pub mod keys;
pub mod logs;
pub mod manifest;
pub mod names;
mod object;
pub mod outbound;
pub mod routes;
pub mod tokens;
pub mod usage;

pub use apps::{
    Aborted, App, AppList, AppSummary, Canary, Function, Reuse, Sticky, Traffic, TrafficShare,
    Version, VersionList,
};
pub use artifact::{Artifact, ArtifactError, Kind};
pub use audit::{AuditEntry, AuditList};
pub use configuration::{Env, EnvChange, EnvVar, Secret, SecretList};
pub use deploy::{DeployEvent, Deployed, Planned, Stored};
pub use digest::Digest;
pub use error::{ErrorBody, ErrorCode, ImportProblem};
pub use keys::{ApiKey, CreatedKey, KeyList, NewKey};
pub use logs::{LogLevel, LogLine, LogSource, StatusSet};
pub use manifest::{FunctionSpec, Manifest, Settings};
pub use names::{AppName, Domain, FunctionName, KeyName, NameError, TokenId, VarName, VersionId};
pub use outbound::{OutboundHost, OutboundHostError, OutboundScheme};
pub use routes::{Route, RouteError, Segment};
pub use tokens::{CreatedToken, NewToken, Scope, Token, TokenList, Verb, WhoAmI};
pub use usage::{Usage, UsageBy, UsageGroup, UsageReport, UsageRow};
