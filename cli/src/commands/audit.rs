//! `faas audit`

use super::logs::check_time;
use crate::{
    args,
    context::Context,
    error::Result,
    format::{self, Table},
    ui::Outcome,
};
use faas_api::AuditEntry;

pub(crate) async fn run(context: &Context, args: args::Audit) -> Result<Outcome> {
    let args::Audit { app, since, limit } = args;
    if let Some(since) = &since {
        check_time("--since", since)?;
    }
    let mut query = vec![("limit", limit.to_string())];
    query.extend(app.map(|app| ("app", app.to_string())));
    query.extend(since.map(|since| ("since", since)));
    let list = context.client()?.audit(&query).await?;
    if list.entries.is_empty() {
        context.ui.notice("no changes");
        return Outcome::new(&list, "");
    }
    let mut table = Table::new(["TIME", "WHO", "WHAT", "APP", "OBJECT", "RESULT", "FROM"]);
    for entry in &list.entries {
        let AuditEntry { time, by, token, action, app, object, outcome, from, .. } = entry;
        let who = match token {
            Some(id) => format!("{by} ({id})"),
            None => by.clone(),
        };
        let cell = |text: &str| format::printable(text).into_owned();
        table.row([
            format::second(*time),
            cell(&who),
            cell(action),
            app.as_ref().map(ToString::to_string).unwrap_or_default(),
            cell(object.as_deref().unwrap_or_default()),
            cell(outcome),
            cell(from.as_deref().unwrap_or_default()),
        ]);
    }
    Outcome::new(&list, table.to_text())
}
