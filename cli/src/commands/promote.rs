//! `faas promote APP VERSION [--percent N]`

use crate::{
    args,
    context::Context,
    error::{CliError, Exit, Result},
    format,
    ui::Outcome,
};
use faas_api::{Canary, Traffic, apps};
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
    let changed = client.set_traffic(&args.app, &traffic, etag.as_deref()).await.map_err(
        |error| match error.exit {
            Exit::Conflict if error.hint.is_none() => error.hint(format!(
                "it changed in between; look at `faas versions {}`, then try again",
                args.app
            )),
            _ => error,
        },
    )?;
    let took = format::duration(started.elapsed());
    let aborts = changed.traffic.canary.map(|canary| {
        format!(" · aborts by itself above {} % failures", canary.abort_above_percent)
    });
    let (now, was) = (&changed.traffic, &changed.previous);
    let text = format!("{now} live (was {was}), {took}{}\n", aborts.unwrap_or_default());
    Outcome::new(&changed, text)
}
