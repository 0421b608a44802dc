//! `faas describe APP`

use crate::{
    args,
    context::{Context, app_or_here},
    error::Result,
    format::{self, Table},
    ui::Outcome,
};
use faas_api::{Aborted, Reuse, Route};
use jiff::Timestamp;

pub(crate) async fn run(context: &Context, args: &args::App) -> Result<Outcome> {
    let app = app_or_here(args.app.as_ref(), "name an app: faas describe APP")?;
    let (app, _etag) = context.client()?.app(&app).await?;
    let now = Timestamp::now();
    let mut text = format!("{}\n", app.name);
    let mut title = "url";
    for url in &app.urls {
        text.push_str(&format!("  {title:<9} {url}\n"));
        title = "";
    }
    text.push_str(&format!("  live      {}\n", app.traffic));
    if let Some(canary) = &app.traffic.canary {
        let limit = canary.abort_above_percent;
        text.push_str(&format!(
            "  canary    {}, aborts above {limit} % failures\n",
            canary.version
        ));
    }
    if let Some(Aborted { version, at, requests, failures }) = &app.aborted {
        let (when, requests) = (format::ago(*at, now), format::count(*requests));
        let failures = format::count(*failures);
        text.push_str(&format!(
            "  aborted   {version} {when}: {failures} of {requests} requests failed\n"
        ));
    }
    text.push_str(&format!("  versions  {}\n", format::count(app.versions as u64)));
    text.push_str(&format!("  created   {}\n", format::ago(app.created_at, now)));
    text.push_str(&format!("  updated   {}\n", format::ago(app.updated_at, now)));
    if !app.functions.is_empty() {
        let mut table = Table::new(["FUNCTION", "ROUTE", "KIND", "INSTANCES", "SIZE", "DIGEST"]);
        for function in &app.functions {
            table.row([
                function.name.to_string(),
                routes(&function.settings.routes, &function.route),
                function.kind.to_string(),
                instances(function.reuse),
                format::size(function.size),
                function.digest.short(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.to_text());
    }
    Outcome::new(&app, text)
}

/// Which requests it answers.
fn routes(routes: &[Route], first: &str) -> String {
    let rest = routes.len().saturating_sub(1);
    match (first.is_empty(), rest) {
        (true, _) => "private".to_owned(),
        (false, 0) => first.to_owned(),
        (false, rest) => format!("{first} and {rest} more"),
    }
}

/// How requests get their instances.
fn instances(reuse: Option<Reuse>) -> String {
    match reuse {
        None => "one each".to_owned(),
        Some(Reuse { requests, concurrency: 1, .. }) => format!("shared by {requests}"),
        Some(Reuse { requests, concurrency, .. }) => {
            format!("shared by {requests}, {concurrency} at once")
        }
    }
}
