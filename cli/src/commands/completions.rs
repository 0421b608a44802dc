//! `faas completions SHELL`

use crate::{
    args::{self, Cli},
    documents::Completions,
    error::{CliError, Result},
    ui::Outcome,
};
use clap::CommandFactory;

pub(crate) fn run(args: &args::Completions) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "faas", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| CliError::failed(format!("cannot write the script: {error}")))?;
    Outcome::new(&Completions { shell: args.shell.to_string(), script: script.clone() }, script)
}
