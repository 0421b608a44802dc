//! The command line as typed. What it means stands in `context.rs` and in each command.

mod access;
mod deploy;

pub(crate) use access::{
    Audit, ContextVerb, Key, KeyCreate, KeyRevoke, KeyVerb, Login, Logout, Token, TokenCreate,
    TokenList, TokenRevoke,
};
pub(crate) use deploy::{Build, Check, Deploy, Diff, Pin, Promote};

use clap::{Args, Parser, Subcommand, ValueEnum};
use faas_api::{AppName, FunctionName, LogLevel, VarName, VersionId};
use std::{net::SocketAddr, path::PathBuf};

/// Functions and sites on WebAssembly, on your own machine
#[derive(Debug, Parser)]
#[command(name = "faas", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    // What a flag says wins over what a variable says, also where they are two ways to the same
    // thing. So `context.rs` reads the variables of these three.
    /// The server's admin address [env: FAAS_SERVER] [default: the context in use, else
    /// http://127.0.0.1:8081]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The server and token that `faas login` stored under this name [env: FAAS_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The token [env: FAAS_TOKEN] [default: the context's, else read from the data directory when
    /// the server is on this machine]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Certificates to trust besides this machine's own, PEM: for an authority of your own
    #[arg(long, global = true, env = "FAAS_CACERT", value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// The form of results
    #[arg(short, long, global = true, env = "FAAS_OUTPUT", value_name = "FORM")]
    #[arg(default_value = "text")]
    pub(crate) output: Form,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more: every step, the output of builds, request ids
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Ask nothing; implied when standard input is no terminal or CI is set
    #[arg(long, global = true)]
    pub(crate) non_interactive: bool,
    /// Run as if started in DIR
    #[arg(short = 'C', global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One document per command; JSON lines where a command streams
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the host: serve functions, and the API that all other verbs talk to
    Serve(Serve),
    /// Start a project from a template
    New(New),
    /// Build, run and watch a project on this machine
    Dev(Dev),
    /// Build a project
    Build(Build),
    /// Check faas.toml, without a server
    Check(Check),
    /// Show what a deploy would change
    Diff(Diff),
    /// Deploy a project, or a single .wasm or .wat file
    Deploy(Deploy),
    /// Send a request to an app
    Invoke(Invoke),
    /// List apps
    #[command(visible_alias = "ls")]
    List,
    /// Show an app: its addresses, what is live, its functions
    Describe(App),
    /// List the versions of an app
    Versions(App),
    /// Make an earlier version live again
    Rollback(Rollback),
    /// Give a version all of the traffic, or a part
    Promote(Promote),
    /// Keep a version however many newer ones there are
    Pin(Pin),
    /// Keep a version as any other again
    Unpin(Pin),
    /// Delete an app and all its versions
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Show and change an app's variables
    Env(Env),
    /// Set, list and remove an app's secrets; nobody can read them back
    Secret(Secret),
    /// Make, list and revoke an app's API keys
    Key(Key),
    /// Show what functions wrote and which requests they got
    Logs(Logs),
    /// Show what functions used: requests, CPU time, memory, bytes
    Usage(Usage),
    /// Save a whole node, while it serves, into one file
    Backup(Backup),
    /// Make a data directory of a backup
    Restore(Restore),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(Token),
    /// Show who the token in use belongs to, and what it may do
    Whoami,
    /// Show who changed what, newest first
    Audit(Audit),
    /// Store a server and a token for it, and use them from now on
    Login(Login),
    /// Forget a stored server and its token
    Logout(Logout),
    /// List stored servers, and choose one
    #[command(subcommand)]
    Context(ContextVerb),
    /// Show what a .wasm or .wat file is, imports and exports
    Inspect(Inspect),
    /// Print a completion script for a shell
    Completions(Completions),
}

impl Verb {
    /// The verb's canonical word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Serve(_) => "serve",
            Self::New(_) => "new",
            Self::Dev(_) => "dev",
            Self::Build(_) => "build",
            Self::Check(_) => "check",
            Self::Diff(_) => "diff",
            Self::Deploy(_) => "deploy",
            Self::Invoke(_) => "invoke",
            Self::List => "list",
            Self::Describe(_) => "describe",
            Self::Versions(_) => "versions",
            Self::Rollback(_) => "rollback",
            Self::Promote(_) => "promote",
            Self::Pin(_) => "pin",
            Self::Unpin(_) => "unpin",
            Self::Delete(_) => "delete",
            Self::Env(env) => env.verb.word(),
            Self::Secret(secret) => secret.verb.word(),
            Self::Key(Key { verb: KeyVerb::Create(_) }) => "key create",
            Self::Key(Key { verb: KeyVerb::List(_) }) => "key list",
            Self::Key(Key { verb: KeyVerb::Revoke(_) }) => "key revoke",
            Self::Logs(_) => "logs",
            Self::Usage(_) => "usage",
            Self::Backup(_) => "backup",
            Self::Restore(_) => "restore",
            Self::Token(Token::Create(_)) => "token create",
            Self::Token(Token::List(_)) => "token list",
            Self::Token(Token::Revoke(_)) => "token revoke",
            Self::Whoami => "whoami",
            Self::Audit(_) => "audit",
            Self::Login(_) => "login",
            Self::Logout(_) => "logout",
            Self::Context(ContextVerb::List) => "context list",
            Self::Context(ContextVerb::Use(_)) => "context use",
            Self::Inspect(_) => "inspect",
            Self::Completions(_) => "completions",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A configuration file; without one, every setting has its default
    #[arg(long, env = "FAAS_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the server keeps its state (default: $XDG_DATA_HOME/faas or ~/.local/share/faas)
    #[arg(long, env = "FAAS_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where requests come in (default: 127.0.0.1:8080)
    #[arg(long, env = "FAAS_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the API answers (default: 127.0.0.1:8081)
    #[arg(long, env = "FAAS_ADMIN_LISTEN", value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// The folder to make; its last part becomes the app's name
    pub(crate) name: PathBuf,
    /// The language of the function
    #[arg(long, value_enum, default_value = "rust")]
    pub(crate) lang: Lang,
}

/// Languages with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    Rust,
    Js,
    Python,
    C,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The project (default: the one this folder is in)
    pub(crate) project: Option<PathBuf>,
    /// Where requests come in (default: 127.0.0.1:8080, or a free port when that is taken)
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Use what [env.NAME] of faas.toml says
    #[arg(short = 'e', long, env = "FAAS_ENV", value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Build, start and deploy, then stop: a check that the project works
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Invoke {
    /// The app, with or without a path: `hello`, `hello/greet?name=ada`
    #[arg(value_name = "APP[/PATH]")]
    pub(crate) target: String,
    /// The method (default: GET, or POST with a body)
    #[arg(short = 'X', long = "method", value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// A header, `name: value`; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// The body: text, `@FILE`, or `@-` for standard input
    #[arg(short = 'd', long = "data", value_name = "BODY")]
    pub(crate) data: Option<String>,
    /// Show the answer's headers too
    #[arg(short = 'i', long = "include")]
    pub(crate) include: bool,
}

#[derive(Debug, Args)]
pub(crate) struct App {
    /// The app (default: the one of the project this folder is in)
    pub(crate) app: Option<AppName>,
}

// What cannot be undone wants a name.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The app
    pub(crate) app: AppName,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The app (default: the one of the project this folder is in)
    pub(crate) app: Option<AppName>,
    /// The version to make live (default: the one that had all of the traffic before)
    pub(crate) version: Option<VersionId>,
}

/// Which app a verb is about.
#[derive(Debug, Args)]
pub(crate) struct OfApp {
    /// The app (default: the one of the project this folder is in)
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
}

#[derive(Debug, Args)]
pub(crate) struct Env {
    #[command(subcommand)]
    pub(crate) verb: EnvVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnvVerb {
    /// List variables, as lines that `import` reads
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        of: OfApp,
    },
    /// Set variables; the next request sees them
    Set {
        /// A name and its value; several are set at once
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = variable)]
        variables: Vec<(VarName, String)>,
        #[command(flatten)]
        of: OfApp,
    },
    /// Remove variables
    Unset {
        /// Names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<VarName>,
        #[command(flatten)]
        of: OfApp,
    },
    /// Set the variables of a .env file, all at once
    Import {
        /// A file of NAME=VALUE lines; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        of: OfApp,
    },
}

impl EnvVerb {
    fn word(&self) -> &'static str {
        match self {
            Self::List { .. } => "env list",
            Self::Set { .. } => "env set",
            Self::Unset { .. } => "env unset",
            Self::Import { .. } => "env import",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Secret {
    #[command(subcommand)]
    pub(crate) verb: SecretVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretVerb {
    /// Set a secret; its value is read from standard input, or asked for
    Put {
        /// Its name, as functions name it
        name: VarName,
        #[command(flatten)]
        of: OfApp,
    },
    /// List the names of secrets
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        of: OfApp,
    },
    /// Remove secrets that no live version names
    #[command(name = "rm", visible_alias = "remove")]
    Remove {
        /// Names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<VarName>,
        #[command(flatten)]
        of: OfApp,
    },
    /// Set the secrets of a .env file, one after the other
    Import {
        /// A file of NAME=VALUE lines; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        of: OfApp,
    },
}

impl SecretVerb {
    fn word(&self) -> &'static str {
        match self {
            Self::Put { .. } => "secret put",
            Self::List { .. } => "secret list",
            Self::Remove { .. } => "secret rm",
            Self::Import { .. } => "secret import",
        }
    }
}

/// `NAME=VALUE`
fn variable(text: &str) -> Result<(VarName, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let name = name.parse().map_err(|error: faas_api::NameError| error.to_string())?;
    Ok((name, value.to_owned()))
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The app (default: the project this folder is in; outside of one, all apps)
    pub(crate) app: Option<AppName>,
    /// All apps
    #[arg(short, long, conflicts_with = "app")]
    pub(crate) all: bool,
    /// Go on with new lines as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines since then: how long ago (`10m`, `24h`, `7d`), a date (UTC), or a time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only lines until then, written as --since
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub(crate) until: Option<String>,
    /// At most so many lines, the newest
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Only lines of requests that ended so: `500`, `5xx`, `404,5xx`
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Only lines of one version
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<VersionId>,
    /// Only lines of one function
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<FunctionName>,
    /// Only lines of one request
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Only lines that matter at least so much: trace, debug, info, warn, error or critical
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<LogLevel>,
    /// Only lines in which this regular expression is found
    #[arg(long, value_name = "PATTERN")]
    pub(crate) grep: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// The app (default: the project this folder is in; outside of one, all apps)
    pub(crate) app: Option<AppName>,
    /// All apps, also those that were deleted
    #[arg(short, long, conflicts_with = "app")]
    pub(crate) all: bool,
    /// Since then: how long ago (`24h`, `7d`), a date (UTC), or a time (RFC 3339) (default: 24h)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Until then, in the same forms (default: now)
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Whether a row is an hour (UTC), a day (UTC), or all of the time
    #[arg(long, value_parser = ["hour", "day", "total"], default_value = "total")]
    pub(crate) by: String,
    /// What a row is about (default: apps; functions where an app is named)
    #[arg(long, value_parser = ["app", "function", "version"])]
    pub(crate) group: Option<String>,
    /// Rows as comma-separated values, for spreadsheets and bills
    #[arg(long)]
    pub(crate) csv: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to make, or `-` for standard output; it holds the node's secrets
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A file that `faas backup` made, or `-` for standard input
    pub(crate) file: PathBuf,
    /// The data directory to make; it must not exist or be empty
    /// (default: $XDG_DATA_HOME/faas or ~/.local/share/faas)
    #[arg(long, env = "FAAS_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A .wasm or .wat file
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
