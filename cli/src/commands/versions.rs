//! `faas versions APP`

use crate::{
    args,
    context::{Context, app_or_here},
    error::Result,
    format::{self, Table},
    ui::Outcome,
};
use jiff::Timestamp;

pub(crate) async fn run(context: &Context, args: &args::App) -> Result<Outcome> {
    let app = app_or_here(args.app.as_ref(), "name an app: faas versions APP")?;
    let list = context.client()?.versions(&app).await?;
    let now = Timestamp::now();
    let mut table = Table::new(["VERSION", "LIVE", "CREATED", "BY", "MESSAGE", "SIZE"]);
    for version in &list.versions {
        let live = match (version.live_percent, version.pinned) {
            (0, false) => String::new(),
            (0, true) => "pinned".to_owned(),
            (percent, false) => format!("{percent} %"),
            (percent, true) => format!("{percent} %, pinned"),
        };
        let message = version.message.as_deref().unwrap_or_default();
        table.row([
            version.version.to_string(),
            live,
            format::ago(version.created_at, now),
            format::printable(&version.created_by).into_owned(),
            format::printable(message.lines().next().unwrap_or_default()).into_owned(),
            format::size(version.size),
        ]);
    }
    Outcome::new(&list, table.to_text())
}
