//! Apps, their versions and which of them is live.

use crate::{AppName, Digest, FunctionName, Kind, VersionId, manifest::Settings, names::Domain};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Failures of a canary, in percent of its answers, above which it loses its share.
pub const ABORT_ABOVE_PERCENT: u8 = 2;

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
    /// Its first route inside the app, `/*` for a single-file deploy; empty when it is private.
    #[schema(example = "/*")]
    pub route: String,
    /// How far its requests share instances; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    /// Everything else its deploy said of it.
    #[serde(default)]
    pub settings: Settings,
}

/// A function's own choice that its requests share instances, one after the other or several at
/// once. It gives up the isolation between requests of that function, and of nothing else: what a
/// request leaves behind in memory is there for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reuse {
    /// How many requests an instance serves before it is dropped.
    #[schema(minimum = 2, maximum = 1_000_000)]
    pub requests: u32,
    /// How many of them at once. Only WASI 0.3 can more than 1.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 1000)]
    pub concurrency: u32,
    /// How long an instance waits for its next request, in milliseconds.
    #[serde(default = "ten_seconds")]
    #[schema(minimum = 1, maximum = 3_600_000)]
    pub idle_ms: u64,
}

fn one() -> u32 {
    1
}

fn ten_seconds() -> u64 {
    10_000
}

impl Reuse {
    /// So many requests, one after the other.
    pub fn of(requests: u32) -> Self {
        Self { requests, concurrency: one(), idle_ms: ten_seconds() }
    }

    /// Whether a function of this kind can be reused like this; the text says why not.
    ///
    /// # Errors
    /// When a number is out of its range, or the kind of program cannot do it.
    pub fn check(&self, kind: Option<Kind>) -> Result<(), String> {
        if !(2..=1_000_000).contains(&self.requests) {
            return Err("reuse: `requests` is from 2 to 1000000".to_owned());
        }
        if !(1..=1000).contains(&self.concurrency) {
            return Err("reuse: `concurrency` is from 1 to 1000".to_owned());
        }
        if !(1..=3_600_000).contains(&self.idle_ms) {
            return Err("reuse: `idle_ms` is from 1 to 3600000".to_owned());
        }
        match kind {
            Some(Kind::Cgi01 | Kind::Cgi02) => {
                Err("reuse: a CGI program runs once for each request".to_owned())
            }
            Some(Kind::Http02) if self.concurrency > 1 => {
                Err("reuse: a WASI 0.2 instance serves one request at a time; `concurrency` is 1"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }
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
    /// The domains its deploy named.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub domains: Vec<Domain>,
    /// Whether it is kept however many newer ones there are.
    #[serde(default)]
    pub pinned: bool,
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
    /// How a client stays with a version; absent: each request is drawn anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// A version that is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// How a client stays with the version it got first, while traffic is split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Sticky {
    /// By a cookie, `faas_lot`, that the node sets.
    Cookie,
    /// By a header that the client sends: equal values get equal versions.
    Header {
        /// The header's name.
        #[schema(example = "x-user-id", pattern = "^[a-z0-9!#$%&'*+.^_`|~-]+$", max_length = 128)]
        name: String,
    },
}

impl Sticky {
    /// Whether such a header can be sent: a token (RFC 9110 §5.6.2), in small letters, of up to 128
    /// characters.
    ///
    /// # Errors
    /// Says what is wrong with its name.
    pub fn check(&self) -> Result<(), String> {
        let Self::Header { name } = self else {
            return Ok(());
        };
        let possible = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+.^_`|~-".contains(&byte)
        };
        match (1..=128).contains(&name.len()) && name.bytes().all(possible) {
            true => Ok(()),
            false => Err(format!("`{}` is no name of a header", name.escape_debug())),
        }
    }
}

/// A version that loses its share by itself when it fails too often. The rest of the traffic gets
/// it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The version on trial; it has a share, and is not the only one.
    #[schema(value_type = String, example = "v10")]
    pub version: VersionId,
    /// It is aborted when more than so many percent of its answers are failures (5xx).
    #[serde(default = "abort_above")]
    #[schema(minimum = 1, maximum = 100, default = 2)]
    pub abort_above_percent: u8,
}

fn abort_above() -> u8 {
    ABORT_ABOVE_PERCENT
}

/// A canary that was aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Aborted {
    /// The version that lost its share.
    #[schema(value_type = String, example = "v10")]
    pub version: VersionId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Its answers while it was on trial,
    pub requests: u64,
    /// and those that were failures.
    pub failures: u64,
}

impl Traffic {
    /// All traffic to one version.
    pub fn all_to(version: VersionId) -> Self {
        Self::of(vec![TrafficShare { version, percent: 100 }])
    }

    /// Traffic in these shares, each request drawn anew.
    pub fn of(shares: Vec<TrafficShare>) -> Self {
        Self { shares, sticky: None, canary: None }
    }

    /// This traffic with a version on trial, which takes its share from all others, and the place
    /// of the one that was on trial before. Where nothing is live, it gets everything.
    pub fn with_canary(&self, canary: Canary, percent: u8, sticky: Option<Sticky>) -> Self {
        let stable = self.without_canary().without(canary.version);
        if stable.shares.is_empty() {
            return Self::all_to(canary.version);
        }
        let mut shares = stable.scaled_to(100_u8.saturating_sub(percent));
        shares.push(TrafficShare { version: canary.version, percent });
        let sticky = sticky.or_else(|| self.sticky.clone());
        Self { shares, sticky, canary: Some(canary) }
    }

    /// This traffic without the version on trial: the others share what it had.
    pub fn without_canary(&self) -> Self {
        match &self.canary {
            Some(canary) => self.without(canary.version),
            None => self.clone(),
        }
    }

    fn without(&self, version: VersionId) -> Self {
        let others = self.shares.iter().filter(|share| share.version != version).copied();
        let rest = Self { shares: others.collect(), sticky: self.sticky.clone(), canary: None };
        match rest.shares.as_slice() {
            [] => rest,
            [only] => Self::all_to(only.version),
            _ => Self { shares: rest.scaled_to(100), ..rest },
        }
    }

    /// The same proportions, with this sum. Each keeps at least 1; what rounding leaves goes to the
    /// largest.
    fn scaled_to(&self, sum: u8) -> Vec<TrafficShare> {
        let before: u32 = self.shares.iter().map(|share| u32::from(share.percent)).sum();
        let scale = |percent: u8| u32::from(percent) * u32::from(sum) / before.max(1);
        let scaled = self.shares.iter().map(|share| TrafficShare {
            percent: u8::try_from(scale(share.percent)).unwrap_or(sum).max(1),
            ..*share
        });
        let mut scaled: Vec<TrafficShare> = scaled.collect();
        let others: u32 = scaled.iter().map(|share| u32::from(share.percent)).sum();
        if let Some(largest) = scaled.iter_mut().max_by_key(|share| share.percent) {
            let rest = i64::from(sum) - i64::from(others) + i64::from(largest.percent);
            largest.percent = u8::try_from(rest).unwrap_or(1).max(1);
        }
        scaled
    }

    /// The version that has all of it, if one has.
    pub fn only(&self) -> Option<VersionId> {
        match self.shares.as_slice() {
            [only] => Some(only.version),
            _ => None,
        }
    }

    /// The share of this version, in percent; 0 when it is not live.
    pub fn percent_of(&self, version: VersionId) -> u8 {
        self.shares.iter().find(|share| share.version == version).map_or(0, |share| share.percent)
    }
}

impl fmt::Display for Traffic {
    /// In a few words: `v3`, `v9 95 %, v10 5 %`, `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.shares {
            [] => f.write_str("nothing"),
            [only] => only.version.fmt(f),
            [first, others @ ..] => {
                write!(f, "{} {} %", first.version, first.percent)?;
                others
                    .iter()
                    .try_for_each(|share| write!(f, ", {} {} %", share.version, share.percent))
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
    /// What a rollback goes back to: the version that had all of the traffic before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "v8")]
    pub before: Option<VersionId>,
    /// The functions of the live version (the largest share, where traffic is split).
    pub functions: Vec<Function>,
    /// The last canary that was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<Aborted>,
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
