//! `faas promote APP VERSION [--percent N]`

use crate::{
    args,
    context::Context,
    error::{CliError, Exit, Result},
    format,
    ui::Outcome,
};
use faas_api::{AppName, Canary, ErrorCode, Traffic, apps};
use std::time::Instant;

pub(crate) async fn run(context: &Context, args: &args::Promote) -> Result<Outcome> {
    let client = context.client()?;
    // The tag comes first: whatever changes after it is noticed.
    let (app, etag) = client.app(&args.app).await?;
    let kept = client.versions(&args.app).await?;
    if kept.versions.iter().all(|version| version.version != args.version) {
        let message = format!("`{}` has no {}", args.app, args.version);
        return Err(CliError::new(Exit::NotFound, "not_found", message)
            .hint(format!("`faas versions {}` lists what is kept", args.app)));
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
    let started = Instant::now();
    let changed = client.set_traffic(&args.app, &traffic, etag.as_deref()).await;
    let changed = changed.map_err(|error| changed_meanwhile(error, &args.app))?;
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
