//! Verbs that change what is live, and what they are told.

use clap::Args;
use faas_api::{AppName, FunctionName, Reuse, Sticky, VersionId};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// A .wasm or .wat file (default: build and deploy the project this folder is in)
    pub(crate) file: Option<PathBuf>,
    /// The app (default: the name in faas.toml, or the file's name)
    #[arg(long, value_name = "APP")]
    pub(crate) name: Option<AppName>,
    /// The function inside the app (default: the one in faas.toml, or `main`)
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<FunctionName>,
    /// What to say of this version
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// Let an instance serve so many requests, with xN so many at once: `1000`, `1000x16`
    /// (default: every request has an instance of its own)
    #[arg(long, value_name = "REQUESTS[xN]", value_parser = reuse)]
    pub(crate) reuse: Option<Reuse>,
    /// Store the version without making it live
    #[arg(long, conflicts_with = "canary")]
    pub(crate) no_activate: bool,
    /// Deploy what was built before
    #[arg(long, conflicts_with = "file")]
    pub(crate) skip_build: bool,
    /// Deploy with what [env.NAME] of faas.toml says
    #[arg(short = 'e', long, env = "FAAS_ENV", value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Check everything, show what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Give the version a part of the traffic: `5%`
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    pub(crate) canary: Option<u8>,
    /// How clients stay with a version meanwhile: `cookie`, or `header:NAME`
    #[arg(long, requires = "canary", value_name = "BY", value_parser = sticky)]
    pub(crate) sticky: Option<Sticky>,
    /// It loses its part above so many failures: `2%`
    #[arg(long, requires = "canary", value_name = "PERCENT", value_parser = percentage)]
    pub(crate) abort_above: Option<u8>,
    /// What names this deploy, so that sending it again makes no second version
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// How long a connection that breaks is tried again, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

impl Deploy {
    /// Whether a single file needs more than one call.
    pub(crate) fn wants_more_than_one_shot(&self) -> bool {
        self.dry_run || self.canary.is_some()
    }
}

/// `5%`, `5`
fn percentage(text: &str) -> Result<u8, String> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err(format!("`{text}` is not from 1% to 100%")),
    }
}

/// `5%`, `5`
fn share(text: &str) -> Result<u8, String> {
    match percentage(text) {
        Ok(percent @ 1..=99) => Ok(percent),
        _ => Err(format!("`{text}` is not from 1% to 99%")),
    }
}

/// `cookie`, `header:x-user-id`
fn sticky(text: &str) -> Result<Sticky, String> {
    match text.split_once(':') {
        None if text == "cookie" => Ok(Sticky::Cookie),
        Some(("header", name)) => {
            let sticky = Sticky::Header { name: name.to_ascii_lowercase() };
            sticky.check().map(|()| sticky)
        }
        _ => Err(format!("`{text}` is neither `cookie` nor `header:NAME`")),
    }
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct Promote {
    /// The app (default: the one of the project this folder is in)
    pub(crate) app: Option<AppName>,
    /// The version
    pub(crate) version: VersionId,
    /// Its share of the traffic; the others share the rest (default: all)
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    pub(crate) percent: Option<u8>,
    /// How clients stay with a version meanwhile: `cookie`, or `header:NAME`
    #[arg(long, requires = "percent", value_name = "BY", value_parser = sticky)]
    pub(crate) sticky: Option<Sticky>,
    /// It loses its part above so many failures: `2%`
    #[arg(long, requires = "percent", value_name = "PERCENT", value_parser = percentage)]
    pub(crate) abort_above: Option<u8>,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct Pin {
    /// The app (default: the one of the project this folder is in)
    pub(crate) app: Option<AppName>,
    /// The version
    pub(crate) version: VersionId,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The manifest, or its folder (default: faas.toml here or above)
    pub(crate) file: Option<PathBuf>,
    /// Print the JSON schema of faas.toml instead
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The app (default: the name in faas.toml)
    #[arg(long, value_name = "APP")]
    pub(crate) name: Option<AppName>,
    /// Compare what [env.NAME] of faas.toml says
    #[arg(short = 'e', long, env = "FAAS_ENV", value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Compare what was built before
    #[arg(long)]
    pub(crate) skip_build: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Build with what [env.NAME] of faas.toml says
    #[arg(short = 'e', long, env = "FAAS_ENV", value_name = "NAME")]
    pub(crate) env: Option<String>,
}

/// `1000`, `1000x16`
fn reuse(text: &str) -> Result<Reuse, String> {
    let (requests, concurrency) = text.split_once('x').unwrap_or((text, "1"));
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
    let mut reuse = Reuse::of(number(requests)?);
    reuse.concurrency = number(concurrency)?;
    reuse.check(None).map(|()| reuse)
}
