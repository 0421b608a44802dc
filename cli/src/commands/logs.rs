//! `faas logs APP`

use crate::{
    args,
    client::{LogQuery, LogStream},
    context::Context,
    error::{CliError, Result},
    log_view::{LogView, Style},
    ui::{Outcome, Ui},
};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) async fn run(context: &Context, args: args::Logs) -> Result<Outcome> {
    if let Some(since) = &args.since {
        check_since(since)?;
    }
    let args::Logs { app, follow, since, limit, request_id } = args;
    let client = context.client()?;
    let query = LogQuery { follow, since, limit, request_id };
    let stream = client.logs(&app, &query).await?;
    match (context.ui.is_json(), follow) {
        (true, true) => pass_on(&context.ui, stream).await,
        (true, false) => collect(stream).await,
        (false, _) => show(&context.ui, stream).await,
    }
}

/// A time (RFC 3339), or a number and a unit.
pub(super) fn check_since(since: &str) -> Result<()> {
    let number = since.strip_suffix(['s', 'm', 'h', 'd']);
    let relative = number.is_some_and(|number| number.parse::<u32>().is_ok());
    if relative || since.parse::<Timestamp>().is_ok() {
        return Ok(());
    }
    Err(CliError::usage(format!("`{since}` is no time"))
        .hint("write 30s, 10m, 2h, 1d, or a time as 2026-11-20T12:00:00Z"))
}

async fn pass_on(ui: &Ui, mut stream: LogStream<'_>) -> Result<Outcome> {
    while let Some(line) = stream.next().await? {
        ui.json_line(&line)?;
    }
    Ok(Outcome::streamed())
}

async fn collect(mut stream: LogStream<'_>) -> Result<Outcome> {
    let mut lines: Vec<Value> = Vec::new();
    while let Some(line) = stream.next().await? {
        lines.push(line);
    }
    Outcome::new(&json!({ "lines": lines }), "")
}

async fn show(ui: &Ui, mut stream: LogStream<'_>) -> Result<Outcome> {
    let mut view = LogView::new(Style::Full);
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
                let text = serde_json::from_value(line).map(|line| view.push(line));
                ui.text(&text.unwrap_or_default())?;
            }
            Ok(None) => {
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
