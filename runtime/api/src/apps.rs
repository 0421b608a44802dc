//! Apps, their versions and which of them is live.

use crate::{AppName, Digest, FunctionName, Kind, VersionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// A function of one version, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Function {
    /// Unique inside the app.
    #[schema(value_type = String, example = "main")]
    pub name: FunctionName,
    /// What kind of program it is.
    pub kind: Kind,
    /// SHA-256 of the uploaded artifact.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Size of the uploaded artifact, in bytes.
    pub size: u64,
    /// The route inside the app, `/*` for a single-file deploy.
    #[schema(example = "/*")]
    pub route: String,
}

/// An immutable deploy of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// `v1`, `v2`, …
    #[schema(value_type = String, example = "v3")]
    pub version: VersionId,
    /// When it was deployed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who deployed it: the name of the token.
    pub created_by: String,
    /// What the deployer said of it.
    pub message: Option<String>,
    /// Size of all its artifacts, in bytes.
    pub size: u64,
    /// The share of traffic it gets, in percent; 0 when it is not live.
    pub live_percent: u8,
    /// Its functions.
    pub functions: Vec<Function>,
    /// An address that always reaches this version.
    pub preview_url: String,
}

/// One version's share of an app's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficShare {
    /// The version that gets this share.
    #[schema(value_type = String, example = "v3")]
    pub version: VersionId,
    /// 1 to 100.
    #[schema(minimum = 1, maximum = 100)]
    pub percent: u8,
}

/// Which versions of an app are live. The shares sum to 100.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Normally one version at 100 %.
    pub shares: Vec<TrafficShare>,
}

impl Traffic {
    /// All traffic to one version.
    pub fn all_to(version: VersionId) -> Self {
        Self { shares: vec![TrafficShare { version, percent: 100 }] }
    }

    /// The share of this version, in percent; 0 when it is not live.
    pub fn percent_of(&self, version: VersionId) -> u8 {
        self.shares.iter().find(|share| share.version == version).map_or(0, |share| share.percent)
    }
}

impl fmt::Display for Traffic {
    /// In a few words: `v3`, `v9 95 % v10 5 %`, `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.shares {
            [] => f.write_str("nothing"),
            [only] => only.version.fmt(f),
            [first, others @ ..] => {
                write!(f, "{} {} %", first.version, first.percent)?;
                others
                    .iter()
                    .try_for_each(|share| write!(f, " {} {} %", share.version, share.percent))
            }
        }
    }
}

/// The answer of `PUT /v1/apps/{app}/traffic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrafficChanged {
    /// The app whose traffic moved.
    #[schema(value_type = String)]
    pub app: AppName,
    /// What is live now.
    pub traffic: Traffic,
    /// What was live before.
    pub previous: Traffic,
    /// The address of the app.
    pub url: String,
}

/// An app in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppSummary {
    /// The app's name.
    #[schema(value_type = String, example = "hello")]
    pub name: AppName,
    /// Its address.
    pub url: String,
    /// What is live; empty before the first activation.
    pub traffic: Traffic,
    /// How many versions are kept.
    pub versions: usize,
    /// When it was first deployed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// The answer of `GET /v1/apps`, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppList {
    /// The apps.
    pub apps: Vec<AppSummary>,
}

/// The answer of `GET /v1/apps/{app}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// The app's name.
    #[schema(value_type = String, example = "hello")]
    pub name: AppName,
    /// Every address it answers on, the first being the one to show.
    pub urls: Vec<String>,
    /// What is live.
    pub traffic: Traffic,
    /// The functions of the live version (the largest share, where traffic is split).
    pub functions: Vec<Function>,
    /// How many versions are kept.
    pub versions: usize,
    /// When it was first deployed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// The answer of `GET /v1/apps/{app}/versions`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    /// The app they belong to.
    #[schema(value_type = String)]
    pub app: AppName,
    /// The versions that are kept.
    pub versions: Vec<Version>,
}
