//! `faas diff`: what a deploy would change.

use super::deploy::{built, live_version};
use crate::{
    args, build, context::Context, diff, documents::Differences, error::Result, project::Project,
    release::Artifacts, ui::Outcome,
};
use std::path::Path;

pub(crate) async fn run(context: &Context, args: &args::Diff) -> Result<Outcome> {
    let ui = &context.ui;
    let client = context.client()?;
    let project = Project::find(Path::new("."), args.env.as_deref())?;
    if !args.skip_build {
        build::prepare(ui, &project).await?;
        built(ui, &project, build::Purpose::Release).await?;
    }
    let artifacts = Artifacts::read(&project)?;
    let wanted = super::deploy::wire(&project, &artifacts)?;
    let app = args.name.as_ref().unwrap_or(&project.app);
    let live = live_version(&client, app).await?;
    let changes = diff::changes(live.as_ref(), &wanted);
    let against = live.as_ref().map(|live| live.version);
    let text = match (&against, changes.is_empty()) {
        (Some(version), true) => format!("nothing changes: {version} is the same\n"),
        (Some(version), false) => format!("{app} {version} → new\n{}", diff::to_text(&changes)),
        (None, _) => format!("{app} is not deployed yet\n{}", diff::to_text(&changes)),
    };
    Outcome::new(&Differences { app, against, changes }, text)
}
