//! `faas logs [APP]`

use crate::{
    args,
    client::{LogQuery, LogStream},
    context::{Context, app_here},
    error::{CliError, Exit, Result},
    log_view::{LogView, Style},
    ui::{Outcome, Ui},
};
use faas_api::{AppName, ErrorCode, StatusSet};
use jiff::{Timestamp, civil::Date};

pub(crate) async fn run(context: &Context, args: args::Logs) -> Result<Outcome> {
    let query = query(&args)?;
    let app = app(args.app, args.all)?;
    let client = context.client()?;
    let stream = client.logs(app.as_ref(), &query).await.map_err(mistake)?;
    match context.ui.is_json() {
        true => pass_on(&context.ui, stream).await,
        false => show(&context.ui, stream).await,
    }
}

/// Whom it is about: the app that is named, else the project's; outside of one, all of them.
pub(super) fn app(named: Option<AppName>, all: bool) -> Result<Option<AppName>> {
    match named.is_some() || all {
        true => Ok(named),
        false => app_here(),
    }
}

/// What is asked for, checked as far as it can be here.
fn query(args: &args::Logs) -> Result<LogQuery> {
    for (flag, time) in [("--since", &args.since), ("--until", &args.until)] {
        if let Some(time) = time {
            check_time(flag, time)?;
        }
    }
    if let Some(status) = &args.status {
        status.parse::<StatusSet>().map_err(|why| {
            CliError::usage(format!("--status: {why}")).hint("write 500, 5xx, or several: 404,5xx")
        })?;
    }
    let mut filters = Vec::new();
    let mut filter = |name, value: Option<String>| filters.extend(value.map(|value| (name, value)));
    filter("since", args.since.clone());
    filter("until", args.until.clone());
    filter("limit", args.limit.map(|limit| limit.to_string()));
    filter("status", args.status.clone());
    filter("version", args.version.map(|version| version.to_string()));
    filter("function", args.function.as_ref().map(ToString::to_string));
    filter("request_id", args.request_id.clone());
    filter("level", args.level.map(|level| level.to_string()));
    filter("grep", args.grep.clone());
    Ok(LogQuery { follow: args.follow, filters })
}

/// A time (RFC 3339), a date, or a number and a unit.
pub(super) fn check_time(flag: &str, time: &str) -> Result<()> {
    let number = time.strip_suffix(['s', 'm', 'h', 'd']);
    let is_number =
        |number: &str| number.bytes().all(|b| b.is_ascii_digit()) && number.parse::<u32>().is_ok();
    let relative = number.is_some_and(is_number);
    if relative || time.parse::<Timestamp>().is_ok() || time.parse::<Date>().is_ok() {
        return Ok(());
    }
    Err(CliError::usage(format!("{flag}: `{time}` is no time"))
        .hint("write 10m, 24h, 7d, 2026-11-20, or a time as 2026-11-20T12:00:00Z"))
}

/// What a server does not understand of a query came from the command line.
fn mistake(mut error: CliError) -> CliError {
    if error.code == ErrorCode::BadRequest.as_str() {
        error.exit = Exit::Usage;
    }
    error
}

async fn pass_on(ui: &Ui, mut stream: LogStream<'_>) -> Result<Outcome> {
    while let Some(line) = stream.next().await? {
        ui.json_line(&line)?;
    }
    Ok(Outcome::streamed())
}

async fn show(ui: &Ui, mut stream: LogStream<'_>) -> Result<Outcome> {
    let mut view = LogView::new(Style::Full);
    let mut any = false;
    loop {
        let line = tokio::select! {
            line = stream.next() => line,
            () = overdue(&view) => {
                ui.text(&view.overdue())?;
                continue;
            }
        };
        match line {
            // A line that only a newer `faas` can read is not shown.
            Ok(Some(line)) => {
                any = true;
                let text = serde_json::from_value(line).map(|line| view.push(line));
                ui.text(&text.unwrap_or_default())?;
            }
            Ok(None) => {
                if !any {
                    ui.notice("the log has no such lines");
                }
                ui.text(&view.finish())?;
                return Ok(Outcome::streamed());
            }
            Err(error) => {
                ui.text(&view.finish())?;
                return Err(error);
            }
        }
    }
}

/// Returns once a line has waited long enough for its request.
pub(crate) async fn overdue(view: &LogView) {
    match view.next_overdue() {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
