//! `faas list`

use crate::{
    context::Context,
    error::Result,
    format::{self, Table},
    ui::Outcome,
};
use jiff::Timestamp;

pub(crate) async fn run(context: &Context) -> Result<Outcome> {
    let list = context.client()?.apps().await?;
    if list.apps.is_empty() {
        context.ui.notice("no apps yet; `faas new hello` starts one");
        return Outcome::new(&list, "");
    }
    let now = Timestamp::now();
    let mut table = Table::new(["NAME", "LIVE", "VERSIONS", "UPDATED", "URL"]);
    for app in &list.apps {
        table.row([
            app.name.to_string(),
            app.traffic.to_string(),
            format::count(app.versions as u64),
            format::ago(app.updated_at, now),
            app.url.clone(),
        ]);
    }
    Outcome::new(&list, table.to_text())
}
