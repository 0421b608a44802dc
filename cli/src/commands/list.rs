//! `faas list`

use crate::{
    context::Context,
    error::Result,
    format::{self, Table},
    ui::Outcome,
};
use faas_api::Traffic;
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
            live(&app.traffic),
            format::count(app.versions as u64),
            format::ago(app.updated_at, now),
            app.url.clone(),
        ]);
    }
    Outcome::new(&list, table.to_text())
}

/// What is live, in a few words: `v3`, `v9 95 % v10 5 %`, `nothing`.
pub(crate) fn live(traffic: &Traffic) -> String {
    match traffic.shares.as_slice() {
        [] => "nothing".to_owned(),
        [share] => share.version.to_string(),
        shares => {
            let share =
                |share: &faas_api::TrafficShare| format!("{} {} %", share.version, share.percent);
            shares.iter().map(share).collect::<Vec<_>>().join(" ")
        }
    }
}
