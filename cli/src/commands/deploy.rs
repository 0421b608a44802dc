//! `faas deploy [FILE]`

use crate::{
    args,
    artifact::LocalArtifact,
    build::{self, Purpose},
    client::{Client, DeployOptions},
    context::Context,
    diff,
    documents::DryRun,
    error::{CliError, Exit, Result},
    format::{self, Table},
    project::{Project, ProjectFunction},
    release::{Artifacts, Released, Wish, release},
    ui::{Outcome, Ui},
};
use faas_api::{
    AppName, DeployEvent, Deployed, Digest, ErrorCode, Manifest, Settings, Version,
    manifest::{CanaryWish, NewVersion},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

pub(crate) async fn run(context: &Context, args: args::Deploy) -> Result<Outcome> {
    let client = context.client()?;
    match &args.file {
        Some(file) if !args.wants_more_than_one_shot() => {
            let app = args.name.clone().map_or_else(|| app_of(file), Ok)?;
            one_shot(&context.ui, &client, &app, file, &args).await
        }
        Some(file) => {
            let project = project_of(file, &args)?;
            app(context, &client, &project, &args).await
        }
        None => {
            let mut project = Project::find(Path::new("."), args.env.as_deref())?;
            if let (Some(name), [only]) = (&args.function, project.functions.as_mut_slice()) {
                only.name = name.clone();
            }
            if let (Some(reuse), [only]) = (args.reuse, project.functions.as_mut_slice()) {
                only.reuse = Some(reuse);
            }
            if !args.skip_build {
                build::prepare(&context.ui, &project).await?;
                built(&context.ui, &project, Purpose::Release).await?;
            }
            app(context, &client, &project, &args).await
        }
    }
}

/// Deploys one file in one call.
async fn one_shot(
    ui: &Ui,
    client: &Client,
    app: &AppName,
    file: &Path,
    args: &args::Deploy,
) -> Result<Outcome> {
    let shown = format::shorten(file);
    let local = LocalArtifact::read(&shown)?;
    if let Some(error) = local.unknown_kind(&shown) {
        return Err(error);
    }
    let options = DeployOptions {
        function: args.function.clone(),
        message: args.message.clone(),
        reuse: args.reuse,
        no_activate: args.no_activate,
        key: args.idempotency_key.clone(),
    };
    let deployed =
        upload(ui, client, app, &options, local).await.map_err(|error| explain(error, &shown))?;
    told(&deployed)
}

/// Deploys an app: whatever of it the server does not have.
async fn app(
    context: &Context,
    client: &Client,
    project: &Project,
    args: &args::Deploy,
) -> Result<Outcome> {
    let artifacts = Artifacts::read(project)?;
    let manifest = wire(project, &artifacts)?;
    let app = args.name.as_ref().unwrap_or(&project.app);
    let canary = args.canary.map(|percent| CanaryWish {
        percent,
        sticky: args.sticky.clone(),
        abort_above_percent: args.abort_above,
    });
    if args.dry_run || (context.is_interactive() && !context.yes()) {
        let live = live_version(client, app).await?;
        let changes = diff::changes(live.as_ref(), &manifest);
        if args.dry_run {
            let new = new_version(manifest, args, canary);
            return dry_run(context, client, app, (new, &artifacts, changes)).await;
        }
        if live.is_some() && changes.iter().any(|change| change.widens) {
            // Nobody is asked about what would be refused.
            let new = new_version(manifest.clone(), args, canary.clone());
            let plan = NewVersion { dry_run: true, ..new };
            let wish = Wish { artifacts: &artifacts, key: "plan", patience: Duration::ZERO };
            release(&context.ui, client, app, &plan, &wish).await?;
            confirm(&context.ui, &changes).await?;
        }
    }
    let new = new_version(manifest, args, canary);
    let key = args.idempotency_key.clone().map_or_else(random_key, Ok)?;
    let patience = Duration::from_secs(args.timeout);
    let wish = Wish { artifacts: &artifacts, key: &key, patience };
    match release(&context.ui, client, app, &new, &wish).await? {
        Released::Deployed(deployed) => told(&deployed),
        Released::Planned(_) => Err(CliError::failed("the server took it for a dry run")),
    }
}

fn new_version(manifest: Manifest, args: &args::Deploy, canary: Option<CanaryWish>) -> NewVersion {
    NewVersion {
        manifest,
        message: args.message.clone(),
        activate: !args.no_activate,
        canary,
        dry_run: args.dry_run,
    }
}

/// Has the server check everything, and shows what would change.
async fn dry_run(
    context: &Context,
    client: &Client,
    app: &AppName,
    (new, artifacts, changes): (NewVersion, &Artifacts, Vec<diff::Change>),
) -> Result<Outcome> {
    let wish = Wish { artifacts, key: "dry-run", patience: Duration::ZERO };
    let missing = match release(&context.ui, client, app, &new, &wish).await? {
        Released::Planned(planned) => planned.missing,
        Released::Deployed(_) => return Err(CliError::failed("the server made a version of it")),
    };
    let mut text = match changes.is_empty() {
        true => "nothing changes\n".to_owned(),
        false => diff::to_text(&changes),
    };
    text.push_str(&format!("{} to send; nothing was changed\n", artifacts_of(missing.len())));
    let data = DryRun { app, dry_run: true, changes, missing };
    Outcome::new(&data, text)
}

fn artifacts_of(number: usize) -> String {
    format::counted(number, "artifact")
}

/// Shows what a function may reach that it could not before, and asks.
async fn confirm(ui: &Ui, changes: &[diff::Change]) -> Result<()> {
    let wider: Vec<diff::Change> = changes.iter().filter(|change| change.widens).cloned().collect();
    ui.notice("this deploy lets functions reach more than what is live:");
    diff::to_text(&wider).lines().for_each(|line| ui.notice(line));
    match ui.confirm("Deploy it?").await? {
        true => Ok(()),
        false => Err(CliError::new(Exit::Failed, "declined", "not deployed")),
    }
}

/// The version that most requests get, if the app is deployed.
pub(super) async fn live_version(client: &Client, app: &AppName) -> Result<Option<Version>> {
    match client.versions(app).await {
        Ok(list) => Ok(list
            .versions
            .into_iter()
            .filter(|v| v.live_percent > 0)
            .max_by_key(|v| v.live_percent)),
        Err(error) if error.exit == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The manifest as a deploy sends it.
pub(super) fn wire(project: &Project, artifacts: &Artifacts) -> Result<Manifest> {
    project
        .wire(|function| artifacts.digest(function))
        .map_err(|problem| CliError::new(Exit::Usage, "manifest", problem.to_string()))
}

/// A file as a project of one function.
fn project_of(file: &Path, args: &args::Deploy) -> Result<Project> {
    let name = match &args.function {
        Some(name) => name.clone(),
        None => "main".parse().map_err(|_| CliError::failed("`main` is no name"))?,
    };
    let function = ProjectFunction {
        name,
        source: file.to_owned(),
        reuse: args.reuse,
        settings: Settings::default(),
    };
    Ok(Project {
        dir: file.parent().map(Path::to_owned).unwrap_or_default(),
        app: args.name.clone().map_or_else(|| app_of(file), Ok)?,
        environment: None,
        build_command: None,
        watch: Vec::new(),
        domains: Vec::new(),
        health: None,
        functions: vec![function],
    })
}

/// A key that no other deploy has.
pub(super) fn random_key() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::failed(format!("no random numbers: {error}")))?;
    Ok(Digest::of(&bytes).to_string())
}

fn told(deployed: &Deployed) -> Result<Outcome> {
    let url = if deployed.active { &deployed.url } else { &deployed.preview_url };
    Outcome::new(deployed, format!("{url}\n"))
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
pub(super) async fn built(ui: &Ui, project: &Project, purpose: Purpose) -> Result<()> {
    build::run(ui, project, purpose).await.map_err(|failure| {
        ui.tool_output(&failure.output);
        failure.error
    })
}

/// Deploys an artifact, telling each step.
async fn upload(
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
pub(crate) fn explain(mut error: CliError, file: &Path) -> CliError {
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
