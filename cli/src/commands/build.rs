//! `faas build`: runs the project's build, and looks at what it made.

use super::deploy::built;
use crate::{
    args, build,
    context::Context,
    documents::{Built, BuiltFunction},
    error::Result,
    format,
    project::Project,
    release::Artifacts,
    ui::Outcome,
};
use std::path::Path;

pub(crate) async fn run(context: &Context, args: &args::Build) -> Result<Outcome> {
    let ui = &context.ui;
    let project = Project::find(Path::new("."), args.env.as_deref())?;
    build::prepare(ui, &project).await?;
    built(ui, &project, build::Purpose::Release).await?;
    let artifacts = Artifacts::read(&project)?;
    let mut text = String::new();
    let mut functions: Vec<BuiltFunction<'_>> = Vec::new();
    for function in &project.functions {
        let digest = artifacts.digest(function);
        let source = format::shorten(&function.source);
        text.push_str(&format!("{}  {}  {}\n", function.name, source.display(), digest.short()));
        functions.push(BuiltFunction { name: &function.name, source, digest });
    }
    Outcome::new(&Built { app: &project.app, functions }, text)
}
