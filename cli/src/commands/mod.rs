//! One file per verb. This one reads the command line, picks the verb, and reports its end.

mod audit;
mod backup;
mod build;
mod check;
mod completions;
mod context;
mod delete;
pub(crate) mod deploy;
mod describe;
#[cfg(feature = "serve")]
mod dev;
mod diff;
mod env;
mod inspect;
mod invoke;
mod key;
mod list;
mod login;
mod logout;
mod logs;
mod new;
mod pin;
mod promote;
#[cfg(feature = "serve")]
mod restore;
mod rollback;
mod secret;
#[cfg(feature = "serve")]
mod serve;
mod token;
mod usage;
mod versions;
mod whoami;

use crate::{
    args::{Cli, Verb},
    artifact::io_text,
    context::Context,
    error::{CliError, Result},
    ui::{Loudness, Outcome, Ui},
};
use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue},
};
use std::{ffi::OsString, future::Future, io, process::ExitCode};
use tokio::runtime::Builder;

/// Runs one command line, from its first word to its exit code.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let Cli { mut global, verb } = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return misread(args, &discreet(args, error)),
    };
    let dir = global.dir.take();
    let context = Context::new(verb.word(), global);
    if let Some(dir) = dir
        && let Err(error) = std::env::set_current_dir(&dir)
    {
        let message = format!("cannot change to `{}`: {}", dir.display(), io_text(&error));
        return context.ui.report(Err(CliError::usage(message)));
    }
    context.ui.report(dispatch(&context, verb))
}

fn dispatch(context: &Context, verb: Verb) -> Result<Outcome> {
    match verb {
        #[cfg(feature = "serve")]
        Verb::Serve(args) => serve::run(context, args),
        #[cfg(feature = "serve")]
        Verb::Dev(args) => dev::run(context, &args),
        #[cfg(feature = "serve")]
        Verb::Restore(args) => block_on(restore::run(context, args)),
        #[cfg(not(feature = "serve"))]
        Verb::Serve(_) | Verb::Dev(_) | Verb::Restore(_) => {
            Err(CliError::usage("this `faas` is only a client")
                .hint("install it with its default features to serve functions"))
        }
        Verb::Backup(args) => block_on(backup::run(context, &args)),
        Verb::New(args) => new::run(context, &args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Build(args) => block_on(build::run(context, &args)),
        Verb::Diff(args) => block_on(diff::run(context, &args)),
        Verb::Deploy(args) => block_on(deploy::run(context, args)),
        Verb::Invoke(args) => block_on(invoke::run(context, args)),
        Verb::List => block_on(list::run(context)),
        Verb::Describe(args) => block_on(describe::run(context, &args)),
        Verb::Versions(args) => block_on(versions::run(context, &args)),
        Verb::Rollback(args) => block_on(rollback::run(context, &args)),
        Verb::Promote(args) => block_on(promote::run(context, &args)),
        Verb::Pin(args) => block_on(pin::run(context, &args, true)),
        Verb::Unpin(args) => block_on(pin::run(context, &args, false)),
        Verb::Delete(args) => block_on(delete::run(context, &args)),
        Verb::Env(args) => block_on(env::run(context, args)),
        Verb::Secret(args) => block_on(secret::run(context, args)),
        Verb::Key(args) => block_on(key::run(context, args.verb)),
        Verb::Logs(args) => block_on(logs::run(context, args)),
        Verb::Usage(args) => block_on(usage::run(context, args)),
        Verb::Token(args) => block_on(token::run(context, args)),
        Verb::Whoami => block_on(whoami::run(context)),
        Verb::Audit(args) => block_on(audit::run(context, args)),
        Verb::Login(args) => block_on(login::run(context, args)),
        Verb::Logout(args) => logout::run(context, args),
        Verb::Context(args) => context::run(context, args),
    }
}

/// The same error without what may be a secret in the wrong place: what is typed where secrets and
/// tokens are typed, and whatever looks like a token.
fn discreet(args: &[OsString], mut error: clap::Error) -> clap::Error {
    const HIDDEN: &str = "…";
    let is_about_secrets = args.iter().skip(1).any(|arg| arg == "secret" || arg == "token");
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
    {
        let Some(ContextValue::String(text)) = error.get(kind) else {
            continue;
        };
        let is_typed = args.iter().any(|arg| arg.to_str().is_some_and(|arg| arg.contains(&**text)));
        if is_typed && (is_about_secrets || text.contains("faas_")) && !text.starts_with("--") {
            error.insert(kind, ContextValue::String(HIDDEN.to_owned()));
            // Tips repeat it.
            error.remove(ContextKind::Suggested);
        }
    }
    error
}

/// Runs a client's work until it ends or the user interrupts it.
fn block_on(work: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            result = work => result,
            _ = tokio::signal::ctrl_c() => Err(CliError::interrupted()),
        }
    });
    // Whatever still waits for the network or a file has nobody left to tell.
    runtime.shutdown_background();
    result
}

fn no_runtime(error: io::Error) -> CliError {
    CliError::failed(format!("cannot start: {}", io_text(&error)))
}

/// The command line was not understood, or asked for help.
fn misread(args: &[OsString], error: &clap::Error) -> ExitCode {
    let wants_help = !error.use_stderr();
    if wants_help || !wants_json(args) {
        // A closed terminal has nobody to tell.
        let _ = error.print();
        return ExitCode::from(if wants_help { 0 } else { 2 });
    }
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("the command line was not understood");
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let tip = lines.find_map(|line| line.strip_prefix("tip: "));
    let usage = CliError::usage(message).hint(tip.unwrap_or("see `faas --help`"));
    Ui::new(&verb_of(args), true, Loudness::Normal).report(Err(usage))
}

/// Whether JSON was asked for, on a command line that does not parse as a whole.
fn wants_json(args: &[OsString]) -> bool {
    let words: Vec<&str> = args.iter().filter_map(|word| word.to_str()).collect();
    let alone = words.windows(2).rev().find_map(|pair| match pair {
        ["-o" | "--output", form] => Some(*form),
        _ => None,
    });
    let joined = || {
        let form = |word: &&str| {
            word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")).map(str::to_owned)
        };
        words.iter().rev().find_map(form).filter(|form| !form.is_empty())
    };
    let form = alone.map(str::to_owned).or_else(joined);
    form.or_else(|| std::env::var("FAAS_OUTPUT").ok()).as_deref() == Some("json")
}

/// The verb on a command line that does not parse as a whole, as far as there is one.
fn verb_of(args: &[OsString]) -> String {
    let cli = Cli::command();
    let mut command = &cli;
    let mut words = Vec::new();
    for word in args.iter().skip(1).filter_map(|word| word.to_str()) {
        // Finds a verb by its alias too.
        if let Some(verb) = command.find_subcommand(word) {
            words.push(verb.get_name());
            command = verb;
        }
    }
    if words.is_empty() { "faas".to_owned() } else { words.join(" ") }
}
