//! Verbs about who may do what: keys of callers, tokens, and servers to log in to.

use super::OfApp;
use clap::{Args, Subcommand};
use faas_api::{AppName, FunctionName, KeyName, TokenId, Verb as TokenVerb};

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Make a key; its text is shown once
    Create(KeyCreate),
    /// List the keys of an app
    #[command(visible_alias = "ls")]
    List(KeyList),
    /// End a key
    #[command(visible_alias = "rm")]
    Revoke(KeyRevoke),
}

#[derive(Debug, Args)]
pub(crate) struct KeyCreate {
    /// What functions see of it: `x-faas-caller: key:NAME`
    pub(crate) name: KeyName,
    #[command(flatten)]
    pub(crate) of: OfApp,
    /// A function it opens; may be given more than once (default: every one that takes keys)
    #[arg(long = "function", value_name = "FUNCTION")]
    pub(crate) functions: Vec<FunctionName>,
    /// When it ends: in how long (`30m`, `12h`, `90d`), or a time (RFC 3339) (default: never)
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyList {
    #[command(flatten)]
    pub(crate) of: OfApp,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRevoke {
    /// The key's id, or its name
    #[arg(value_name = "ID")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) of: OfApp,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, this once
    Create(TokenCreate),
    /// List tokens
    #[command(visible_alias = "ls")]
    List(TokenList),
    /// Refuse a token from now on
    #[command(visible_alias = "rm")]
    Revoke(TokenRevoke),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// What versions and the audit log call it (default: its id)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// An app it is for; may be given more than once (default: every app)
    #[arg(long = "app", value_name = "APP", value_delimiter = ',')]
    pub(crate) apps: Vec<AppName>,
    /// What it may do: read, deploy, invoke, secrets, admin
    #[arg(long, value_name = "VERBS", value_delimiter = ',', default_value = "read")]
    pub(crate) can: Vec<TokenVerb>,
    /// How long it is good: `12h`, `90d` (default: until it is revoked)
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) expires: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenList {
    /// Show revoked ones too
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevoke {
    /// The token's id, as `faas token list` shows it
    pub(crate) id: TokenId,
}

/// `30s`, `10m`, `12h`, `90d`, as seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time: write 30s, 10m, 12h or 90d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only changes of this app
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    /// Only changes since then: how long ago (`10m`, `24h`, `7d`), a date (UTC), or a time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// The newest so many, at most 1000
    #[arg(long, value_name = "N", default_value = "100",
        value_parser = clap::value_parser!(u16).range(..=1000))]
    pub(crate) limit: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The server's admin address (default: the one in use)
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
    /// What the server is called here (default: its host)
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) name: Option<String>,
    /// Read the token from standard input
    #[arg(long, conflicts_with = "token")]
    pub(crate) token_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The stored server (default: the one in use)
    #[arg(value_name = "CONTEXT")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// List stored servers
    #[command(visible_alias = "ls")]
    List,
    /// Use a stored server from now on
    Use(ContextUse),
}

#[derive(Debug, Args)]
pub(crate) struct ContextUse {
    /// The stored server
    #[arg(value_name = "CONTEXT")]
    pub(crate) name: String,
}
