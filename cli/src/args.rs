//! The command line as typed. What it means stands in `context.rs` and in each command.

use clap::{Args, Parser, Subcommand, ValueEnum};
use faas_api::{AppName, FunctionName, Reuse, VersionId};
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
    /// The server's admin address
    #[arg(long, global = true, env = "FAAS_SERVER", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8081")]
    pub(crate) server: String,
    /// The token (default: read from the data directory when the server is on this machine)
    #[arg(long, global = true, env = "FAAS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
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
    /// Delete an app and all its versions
    #[command(visible_alias = "rm")]
    Delete(App),
    /// Show what an app's functions wrote and which requests they got
    Logs(Logs),
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
            Self::Deploy(_) => "deploy",
            Self::Invoke(_) => "invoke",
            Self::List => "list",
            Self::Describe(_) => "describe",
            Self::Versions(_) => "versions",
            Self::Rollback(_) => "rollback",
            Self::Delete(_) => "delete",
            Self::Logs(_) => "logs",
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
    /// Build, start and deploy, then stop: a check that the project works
    #[arg(long)]
    pub(crate) once: bool,
}

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
    #[arg(long)]
    pub(crate) no_activate: bool,
    /// Deploy what was built before
    #[arg(long, conflicts_with = "file")]
    pub(crate) skip_build: bool,
}

/// `1000`, `1000x16`
fn reuse(text: &str) -> Result<Reuse, String> {
    let (requests, concurrency) = text.split_once('x').unwrap_or((text, "1"));
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
    let mut reuse = Reuse::of(number(requests)?);
    reuse.concurrency = number(concurrency)?;
    reuse.check(None).map(|()| reuse)
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
    /// The app
    pub(crate) app: AppName,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The app
    pub(crate) app: AppName,
    /// The version to make live (default: the newest one older than what is live)
    pub(crate) version: Option<VersionId>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The app
    pub(crate) app: AppName,
    /// Go on with new lines as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines since then: a time (RFC 3339), or how long ago (`30s`, `10m`, `2h`, `1d`)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// At most so many lines, the newest
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Only lines of one request
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
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
