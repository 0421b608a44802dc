//! A deploy of an app, as the command line does it: say what it is made of, send what the server
//! lacks, say it again.
//!
//! The whole is safe to repeat: artifacts are addressed by their content, and the deploy has a key
//! by which the server knows it. So a connection that breaks is no reason to give up.

use crate::{
    artifact::LocalArtifact,
    client::Client,
    commands::deploy::explain,
    error::{CliError, Exit, Result},
    format,
    project::{MANIFEST, Project, ProjectFunction},
    ui::{Step, Ui},
};
use faas_api::{
    AppName, Canary, DeployEvent, Deployed, Digest, Planned, Traffic, manifest::NewVersion,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Artifacts that are sent at once.
const AT_ONCE: usize = 4;
/// The pause after the first broken connection; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The artifacts of a deploy, by digest.
pub(crate) struct Artifacts {
    by_function: BTreeMap<String, Digest>,
    files: BTreeMap<Digest, (PathBuf, LocalArtifact)>,
}

impl Artifacts {
    /// Reads what a project's functions are made of.
    pub(crate) fn read(project: &Project) -> Result<Self> {
        let mut artifacts = Self { by_function: BTreeMap::new(), files: BTreeMap::new() };
        for function in &project.functions {
            artifacts.add(function)?;
        }
        Ok(artifacts)
    }

    fn add(&mut self, function: &ProjectFunction) -> Result<()> {
        let file = format::shorten(&function.source);
        let local = LocalArtifact::read(&file)?;
        if let Some(error) = local.unknown_kind(&file) {
            return Err(error);
        }
        if let Some(reuse) = &function.reuse {
            reuse.check(local.artifact.kind).map_err(|why| {
                let message = format!("function `{}`: {why}", function.name);
                CliError::new(Exit::Usage, "manifest", message)
                    .hint("without `reuse` every request has an instance of its own")
            })?;
        }
        let digest = local.artifact.digest;
        self.by_function.insert(function.name.to_string(), digest);
        self.files.insert(digest, (file, local));
        Ok(())
    }

    /// The artifact of a function.
    pub(crate) fn digest(&self, function: &ProjectFunction) -> Digest {
        let known = self.by_function.get(function.name.as_str()).copied();
        known.unwrap_or_else(|| Digest::of(b""))
    }

    /// The file that a server's word about an artifact is about: there is no better one than the
    /// first when there are several.
    fn file(&self) -> PathBuf {
        match self.files.values().next() {
            Some((file, _)) if self.files.len() == 1 => file.clone(),
            _ => PathBuf::from(MANIFEST),
        }
    }
}

/// What a deploy came to.
pub(crate) enum Released {
    Deployed(Box<Deployed>),
    /// It was a dry run.
    Planned(Planned),
}

/// Deploys an app, telling each step. `patience` is how long a broken connection is tried again.
pub(crate) async fn release(
    ui: &Ui,
    client: &Client,
    app: &AppName,
    new: &NewVersion,
    wish: &Wish<'_>,
) -> Result<Released> {
    let started = Instant::now();
    let mut contact = false;
    loop {
        // The first word is not repeated: a server that is not there is better told at once.
        let answer = match contact {
            true => patiently(ui, wish.patience, || ask(ui, client, app, new, wish)).await?,
            false => ask(ui, client, app, new, wish).await?,
        };
        contact = true;
        match answer {
            Released::Planned(planned) if !planned.missing.is_empty() && !planned.dry_run => {
                send(ui, client, wish, &planned.missing).await?;
                if started.elapsed() > wish.patience.max(Duration::from_secs(600)) {
                    let message = "the server goes on to lack what was sent to it";
                    return Err(CliError::failed(message).hint("its log may say more"));
                }
            }
            done => return Ok(done),
        }
    }
}

/// How a deploy is to be made.
pub(crate) struct Wish<'a> {
    pub(crate) artifacts: &'a Artifacts,
    /// The key by which the server knows this deploy.
    pub(crate) key: &'a str,
    /// How long broken connections are tried again.
    pub(crate) patience: Duration,
}

/// Says what the app is made of, and follows what the server makes of it.
async fn ask(
    ui: &Ui,
    client: &Client,
    app: &AppName,
    new: &NewVersion,
    wish: &Wish<'_>,
) -> Result<Released> {
    let mut deploying = client.create_version(app, new, wish.key).await?;
    let mut compiling: Option<Step> = None;
    let mut last = Instant::now();
    loop {
        let event = deploying.next().await;
        match event.map_err(|error| explain(error, &wish.artifacts.file()))? {
            DeployEvent::Received { .. } => {}
            DeployEvent::Compiling { function, .. } => {
                compiling.get_or_insert_with(|| ui.step("compile", function.as_str()));
            }
            DeployEvent::Compiled { function, cached, duration_ms } => {
                let known = if cached { " (already there)" } else { "" };
                let step =
                    compiling.take().unwrap_or_else(|| ui.step("compile", function.as_str()));
                step.says(format!("{function}{known}")).done_in(Duration::from_millis(duration_ms));
            }
            DeployEvent::Healthy { path, status, duration_ms } => {
                let healthy = ui.step("check", &format!("GET {path} → {status}"));
                healthy.done_in(Duration::from_millis(duration_ms));
            }
            DeployEvent::Planned(planned) => return Ok(Released::Planned(planned)),
            DeployEvent::Done(deployed) => {
                let percent = deployed.traffic.percent_of(deployed.version);
                let (verb, text) = match (deployed.active, percent) {
                    (true, 100) => ("live", deployed.version.to_string()),
                    (true, _) => ("canary", shares(&deployed.traffic)),
                    (false, _) => ("stored", format!("{}, not live", deployed.version)),
                };
                ui.step(verb, &text).done_in(last.elapsed());
                return Ok(Released::Deployed(Box::new(deployed)));
            }
            DeployEvent::Failed(_) => {
                return Err(CliError::failed("the deploy failed, and the server did not say why"));
            }
        }
        last = Instant::now();
    }
}

/// Who gets how much, and when the newest loses its part.
fn shares(traffic: &Traffic) -> String {
    match traffic.canary {
        None => traffic.to_string(),
        Some(Canary { abort_above_percent: limit, .. }) => {
            format!("{traffic}, aborts above {limit} % failures")
        }
    }
}

/// Sends artifacts, a few at once; what has arrived is not sent again.
async fn send(ui: &Ui, client: &Client, wish: &Wish<'_>, missing: &[Digest]) -> Result<()> {
    let started = Instant::now();
    let all = &wish.artifacts.files;
    let wanted: BTreeSet<&Digest> = missing.iter().collect();
    let mut sending = Vec::new();
    let mut bytes = 0;
    for (digest, (file, local)) in all.iter().filter(|(digest, _)| wanted.contains(digest)) {
        bytes += local.artifact.size;
        sending.push(patiently(ui, wish.patience, move || async move {
            let sent = client.put_blob(digest, local.bytes.clone()).await;
            sent.map_err(|error| explain(error, file))
        }));
    }
    let step = ui.step("upload", &what(sending.len(), all.len(), bytes));
    let sent: Vec<_> = stream::iter(sending).buffer_unordered(AT_ONCE).try_collect().await?;
    step.says(what(sent.len(), all.len(), bytes)).done_in(started.elapsed());
    Ok(())
}

fn what(sent: usize, all: usize, bytes: u64) -> String {
    let size = format::size(bytes);
    match (sent, all) {
        (1, 1) => format!("{size} (new)"),
        (sent, all) => format!("{sent} of {all} artifacts, {size}"),
    }
}

/// Tries again while the connection breaks, until patience ends.
async fn patiently<T, F: Future<Output = Result<T>>>(
    ui: &Ui,
    patience: Duration,
    attempt: impl Fn() -> F,
) -> Result<T> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt().await {
            Err(error) if is_passing(&error) && started.elapsed() + pause < patience => {
                if pause == FIRST_PAUSE {
                    ui.notice(&format!("{error}; trying again"));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            ended => return ended,
        }
    }
}

/// Whether the same may go well in a moment: the connection broke, or the server restarts.
fn is_passing(error: &CliError) -> bool {
    error.exit == Exit::Unreachable || error.code == "shutting_down" || error.code == "overloaded"
}
