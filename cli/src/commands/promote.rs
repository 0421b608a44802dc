//! `faas promote APP VERSION [--percent N]`

use crate::{
    args,
    context::{Context, app_or_here},
    error::{CliError, Exit, Result},
    format,
    ui::Outcome,
};
use faas_api::{
    AppName, Canary, ErrorCode, Traffic,
    apps::{self, TrafficChanged},
};
use std::time::Instant;

pub(crate) async fn run(context: &Context, args: &args::Promote) -> Result<Outcome> {
    let hint = format!("name an app: faas promote APP {}", args.version);
    let name = app_or_here(args.app.as_ref(), &hint)?;
    let client = context.client()?;
    // The tag comes first: whatever changes after it is noticed.
    let (app, etag) = client.app(&name).await?;
    let kept = client.versions(&name).await?;
    if kept.versions.iter().all(|version| version.version != args.version) {
        let message = format!("`{name}` has no {}", args.version);
        return Err(CliError::new(Exit::NotFound, "not_found", message)
            .hint(format!("`faas versions {name}` lists what is kept")));
    }
    let traffic = match args.percent {
        None | Some(100) => Traffic::all_to(args.version),
        Some(percent) => {
            let abort_above_percent = args.abort_above.unwrap_or(match app.traffic.canary {
                Some(canary) if canary.version == args.version => canary.abort_above_percent,
                _ => apps::ABORT_ABOVE_PERCENT,
            });
            let canary = Canary { version: args.version, abort_above_percent };
            app.traffic.with_canary(canary, percent, args.sticky.clone())
        }
    };
    if app.traffic == traffic {
        let url = app.urls.into_iter().next().unwrap_or_default();
        let text = format!("{traffic} live already\n");
        let unchanged = TrafficChanged { app: name, previous: traffic.clone(), traffic, url };
        return Outcome::new(&unchanged, text);
    }
    let started = Instant::now();
    let changed = client.set_traffic(&name, &traffic, etag.as_deref()).await;
    let changed = changed.map_err(|error| changed_meanwhile(error, &name))?;
    let took = format::duration(started.elapsed());
    let aborts = changed.traffic.canary.map(|canary| {
        format!(" · aborts by itself above {} % failures", canary.abort_above_percent)
    });
    let (now, was) = (&changed.traffic, &changed.previous);
    let text = format!("{now} live (was {was}), {took}{}\n", aborts.unwrap_or_default());
    Outcome::new(&changed, text)
}

/// The server speaks of tags, which nobody here has seen.
pub(super) fn changed_meanwhile(mut error: CliError, app: &AppName) -> CliError {
    if error.code == ErrorCode::Conflict.as_str() {
        error.message = format!("`{app}` changed in between; its traffic is left as it is");
        return error.hint(format!("look at `faas versions {app}`, then try again"));
    }
    error
}
