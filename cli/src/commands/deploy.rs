//! `faas deploy [FILE]`

use crate::{
    args,
    artifact::LocalArtifact,
    build,
    client::{Client, DeployOptions},
    context::Context,
    error::{CliError, Exit, Result},
    format::{self, Table},
    project::Project,
    ui::{Outcome, Ui},
};
use faas_api::{AppName, DeployEvent, Deployed, ErrorCode};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub(crate) async fn run(context: &Context, args: args::Deploy) -> Result<Outcome> {
    let ui = &context.ui;
    let client = context.client()?;
    let args::Deploy { file, name, function, message, reuse, no_activate, skip_build } = args;
    let (app, file, function, reuse) = match file {
        Some(file) => (name.map_or_else(|| app_of(&file), Ok)?, file, function, reuse),
        None => {
            let project = Project::find(Path::new("."))?;
            if !skip_build {
                build::prepare(ui, &project).await?;
                built(ui, &project).await?;
            }
            let function = function.unwrap_or(project.function);
            let reuse = reuse.or(project.reuse);
            (name.unwrap_or(project.app), project.source, Some(function), reuse)
        }
    };
    let shown = shorten(&file);
    let local = LocalArtifact::read(&shown)?;
    if let Some(error) = local.unknown_kind(&shown) {
        return Err(error);
    }
    let options = DeployOptions { function, message, reuse, no_activate };
    let deployed =
        upload(ui, &client, &app, &options, local).await.map_err(|error| explain(error, &shown))?;
    let url = if deployed.active { &deployed.url } else { &deployed.preview_url };
    Outcome::new(&deployed, format!("{url}\n"))
}

/// The app that a single file becomes: its stem, underscores as hyphens.
fn app_of(file: &Path) -> Result<AppName> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
    stem.parse().map_err(|error| {
        let message = format!("`{stem}` cannot name an app: {error}");
        CliError::new(Exit::Usage, "invalid_name", message).hint("name it: --name APP")
    })
}

/// Builds a project. When that fails, the tools' own words come before the error.
pub(super) async fn built(ui: &Ui, project: &Project) -> Result<()> {
    build::run(ui, project).await.map_err(|failure| {
        ui.tool_output(&failure.output);
        failure.error
    })
}

/// A path as seen from the current folder, where that is shorter.
pub(super) fn shorten(file: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    file.strip_prefix(here).unwrap_or(file).to_owned()
}

/// Deploys an artifact, telling each step.
pub(super) async fn upload(
    ui: &Ui,
    client: &Client,
    app: &AppName,
    options: &DeployOptions,
    local: LocalArtifact,
) -> Result<Deployed> {
    let mut step = Some(ui.step("upload", &format!("{app} {}", format::size(local.artifact.size))));
    let mut deploying = client.deploy(app, options, local.bytes).await?;
    let mut last = Instant::now();
    loop {
        match deploying.next().await? {
            DeployEvent::Received { size, new, duration_ms, .. } => {
                let known = if new { "new" } else { "already there" };
                let text = format!("{app} {} ({known})", format::size(size));
                if let Some(step) = step.take() {
                    step.says(text).done_in(Duration::from_millis(duration_ms));
                }
            }
            DeployEvent::Compiling { .. } => {
                step.get_or_insert_with(|| ui.step("compile", app.as_str()));
            }
            DeployEvent::Compiled { cached, duration_ms, .. } => {
                let known = if cached { " (already there)" } else { "" };
                let step = step.take().unwrap_or_else(|| ui.step("compile", app.as_str()));
                step.says(format!("{app}{known}")).done_in(Duration::from_millis(duration_ms));
            }
            DeployEvent::Healthy { path, status, duration_ms } => {
                let healthy = ui.step("check", &format!("GET {path} {status}"));
                healthy.done_in(Duration::from_millis(duration_ms));
            }
            DeployEvent::Done(deployed) => {
                let (verb, text) = match deployed.active {
                    true => ("live", deployed.version.to_string()),
                    false => ("stored", format!("{}, not live", deployed.version)),
                };
                ui.step(verb, &text).done_in(last.elapsed());
                return Ok(deployed);
            }
            DeployEvent::Failed(_) | DeployEvent::Planned(_) => {
                return Err(CliError::failed("the deploy failed, and the server did not say why"));
            }
        }
        last = Instant::now();
    }
}

/// Says which file cannot run, and shows its imports beside what the host offers.
pub(super) fn explain(mut error: CliError, file: &Path) -> CliError {
    let imports = match &error.answer {
        Some(answer) if error.code == ErrorCode::UnknownImport.as_str() => answer.imports.clone(),
        _ => return error,
    };
    let what = match imports.len() {
        1 => "one import has no implementation".to_owned(),
        number => format!("{number} imports have no implementation"),
    };
    error.message = format!("`{}` cannot run here: {what}", file.display());
    let mut table = Table::new(["import", "this host offers"]);
    for import in &imports {
        let offered = match import.offered.as_slice() {
            [] => "nothing like it".to_owned(),
            versions => versions.join(", "),
        };
        table.row([import.import.clone(), offered]);
    }
    error.details = table.lines();
    let mut hints: Vec<&str> = imports.iter().map(|import| import.hint.as_str()).collect();
    hints.dedup();
    let hint = error.hint.take().unwrap_or_else(|| hints.join("; "));
    error.hint(format!("{hint}; `faas inspect {}` lists all of them", file.display()))
}
