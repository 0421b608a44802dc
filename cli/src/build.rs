//! Builds a project: runs its command, with the tools it needs checked first.

use crate::{
    artifact::io_text,
    error::{CliError, Exit, Result},
    project::{MANIFEST, Project},
    ui::Ui,
};
use std::{
    path::Path,
    process::{Output, Stdio},
};
use tokio::process::Command;

/// A build that failed: the error, and what the tools said.
#[derive(Debug)]
pub(crate) struct BuildFailure {
    pub(crate) error: CliError,
    pub(crate) output: Vec<u8>,
}

impl From<CliError> for BuildFailure {
    fn from(error: CliError) -> Self {
        Self { error, output: Vec::new() }
    }
}

/// What a build is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be deployed: what the project says, and nothing else.
    Release,
    /// To be worked on: traps shall tell lines.
    Development,
}

impl Purpose {
    /// Variables that the build sees. Cargo's own, so that a project needs no second profile; code
    /// is the same with them.
    fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Release => &[],
            Self::Development => &[
                ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
                ("CARGO_PROFILE_RELEASE_STRIP", "none"),
            ],
        }
    }
}

/// Runs the project's build command, if it has one.
pub(crate) async fn run(
    ui: &Ui,
    project: &Project,
    purpose: Purpose,
) -> std::result::Result<(), BuildFailure> {
    let Some(command) = &project.build_command else {
        return Ok(());
    };
    let step = ui.step("build", command);
    let output = output_of(ui, command, &project.dir, purpose)
        .await
        .map_err(|error| build_failed(format!("cannot run `{command}`: {}", io_text(&error))))?;
    if !output.status.success() {
        let how = match output.status.code() {
            Some(code) => format!("ended with {code}"),
            None => "was killed".to_owned(),
        };
        return Err(BuildFailure {
            error: build_failed(format!("`{command}` {how}")),
            output: output.stdout,
        });
    }
    step.done();
    let missing = project.functions.iter().find(|function| !function.source.is_file());
    if let Some(function) = missing {
        let source = function.source.strip_prefix(&project.dir).unwrap_or(&function.source);
        let message = format!("`{command}` made no `{}`", source.display());
        let hint = format!("does `source` in {MANIFEST} name what the build makes?");
        return Err(build_failed(message).hint(hint).into());
    }
    Ok(())
}

/// Runs a command to its end. What it says is kept for the case of failure, or shown at once when
/// asked for more; standard output stays free for results either way.
async fn output_of(
    ui: &Ui,
    command: &str,
    dir: &Path,
    purpose: Purpose,
) -> std::io::Result<Output> {
    let variables = purpose.variables().iter().copied();
    let variables = variables.filter(|(name, _)| std::env::var_os(name).is_none());
    if ui.is_verbose() {
        let script = format!("exec 1>&2\n{command}");
        return shell(&script, dir).envs(variables).stderr(Stdio::inherit()).output().await;
    }
    // One pipe for both streams keeps their order.
    shell(&format!("exec 2>&1\n{command}"), dir).envs(variables).output().await
}

/// Looks for the tools that the build names, and adds a missing Rust target.
pub(crate) async fn prepare(ui: &Ui, project: &Project) -> Result<()> {
    let Some(command) = &project.build_command else {
        return Ok(());
    };
    let script = with_scripts(&project.dir, command);
    let dir = &project.dir;
    for target in ["wasm32-wasip1", "wasm32-wasip2"] {
        if uses(&script, "cargo") && uses(&script, target) && !has_target(dir, target).await {
            add_target(ui, dir, target).await?;
        }
    }
    if uses(&script, "npm") && !works("npm --version", dir).await {
        let hint = "install Node.js 20 or newer, which brings it: https://nodejs.org";
        return Err(missing("npm", hint));
    }
    if uses(&script, "componentize-py") && !works("componentize-py --version", dir).await {
        return Err(missing("componentize-py", &pip(dir, "componentize-py")));
    }
    let zig = "zig version || python3 -m ziglang version";
    if uses(&script, "ziglang") && !works(zig, dir).await {
        return Err(missing("zig", &pip(dir, "ziglang==0.17.1")));
    }
    Ok(())
}

/// The build command, with the text of the project's own scripts that it runs.
fn with_scripts(dir: &Path, command: &str) -> String {
    let is_script = |word: &&str| word.ends_with(".sh") && !word.starts_with('/');
    let scripts = command.split_whitespace().filter(is_script);
    let texts = scripts.filter_map(|script| std::fs::read_to_string(dir.join(script)).ok());
    texts.fold(command.to_owned(), |all, text| all + "\n" + &text)
}

/// Whether a word stands in a script.
fn uses(script: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    script.split(|c| !in_word(c)).any(|found| found == word)
}

/// The commands that install a Python package for this project, by its own list if it has one.
fn pip(dir: &Path, package: &str) -> String {
    let listed = std::fs::read_to_string(dir.join("requirements.txt"))
        .is_ok_and(|list| list.contains(package));
    let what = if listed { "-r requirements.txt" } else { package };
    format!("python3 -m venv .venv && .venv/bin/pip install {what}")
}

fn missing(tool: &str, hint: &str) -> CliError {
    CliError::new(Exit::BuildFailed, "tool_missing", format!("the build needs `{tool}`")).hint(hint)
}

async fn has_target(dir: &Path, target: &str) -> bool {
    let script = format!("rustc --print target-libdir --target {target}");
    let output = shell(&script, dir).stderr(Stdio::null()).output().await;
    output.is_ok_and(|output| {
        let folder = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(folder.trim()).is_dir()
    })
}

async fn add_target(ui: &Ui, dir: &Path, target: &str) -> Result<()> {
    let add = format!("rustup target add {target}");
    if !works("cargo --version", dir).await {
        return Err(missing("cargo", "install Rust: https://rustup.rs"));
    }
    if !works("rustup --version", dir).await {
        let hint = format!("with rustup: {add}; otherwise install it as you installed Rust");
        return Err(missing(target, &hint));
    }
    let step = ui.step("target", &add);
    let output = shell(&format!("exec 2>&1\n{add}"), dir).output().await;
    match output {
        Ok(output) if output.status.success() => {
            step.done();
            Ok(())
        }
        Ok(output) => {
            drop(step);
            ui.tool_output(&output.stdout);
            Err(missing(target, &add))
        }
        Err(_) => Err(missing(target, &add)),
    }
}

async fn works(command: &str, dir: &Path) -> bool {
    let status = shell(command, dir).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    status.is_ok_and(|status| status.success())
}

fn shell(script: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    // The project's own Python comes first, whether it was activated or not.
    let venv = dir.join(".venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(venv.clone()).chain(std::env::split_paths(&path));
    if venv.is_dir()
        && let Ok(path) = std::env::join_paths(folders)
    {
        command.env("PATH", path);
    }
    command
}

fn build_failed(message: String) -> CliError {
    CliError::new(Exit::BuildFailed, "build_failed", message)
}
