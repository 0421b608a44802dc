//! `faas rollback APP [VERSION]`

use super::promote::changed_meanwhile;
use crate::{
    args,
    context::{Context, app_or_here},
    error::{CliError, Exit, Result},
    format,
    ui::Outcome,
};
use faas_api::{App, Traffic, VersionId, VersionList, apps::TrafficChanged};
use std::time::Instant;

pub(crate) async fn run(context: &Context, args: &args::Rollback) -> Result<Outcome> {
    let name = app_or_here(args.app.as_ref(), "name an app: faas rollback APP")?;
    let client = context.client()?;
    // The tag comes first: whatever changes after it is noticed.
    let (app, etag) = client.app(&name).await?;
    let kept = client.versions(&name).await?;
    let version = choose(&app, &kept, args.version)?;
    let url = app.urls.into_iter().next().unwrap_or_default();
    let traffic = Traffic::all_to(version);
    if app.traffic == traffic {
        let unchanged =
            TrafficChanged { app: name.clone(), previous: traffic.clone(), traffic, url };
        return Outcome::new(&unchanged, format!("{version} live already\n"));
    }
    let started = Instant::now();
    let changed = client.set_traffic(&name, &traffic, etag.as_deref()).await;
    let changed = changed.map_err(|error| changed_meanwhile(error, &name))?;
    let took = format::duration(started.elapsed());
    let was = &changed.previous;
    let text = format!("{version} live (was {was}), {took}, nothing recompiled\n");
    Outcome::new(&changed, text)
}

/// The version that was asked for, else the one that had all of the traffic before.
fn choose(app: &App, kept: &VersionList, wanted: Option<VersionId>) -> Result<VersionId> {
    let not_found = |message: String| {
        CliError::new(Exit::NotFound, "not_found", message)
            .hint(format!("`faas versions {}` lists what is kept", app.name))
    };
    if let Some(wanted) = wanted {
        let found = kept.versions.iter().any(|version| version.version == wanted);
        return found
            .then_some(wanted)
            .ok_or_else(|| not_found(format!("`{}` has no {wanted}", app.name)));
    }
    app.before.ok_or_else(|| {
        not_found(format!("no version of `{}` was live before {}", app.name, app.traffic))
    })
}
