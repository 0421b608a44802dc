//! `faas whoami`

use crate::{context::Context, error::Result, format, ui::Outcome};
use faas_api::WhoAmI;

pub(crate) async fn run(context: &Context) -> Result<Outcome> {
    let (server, _name) = context.login()?;
    let who = context.client()?.whoami().await?;
    let mut text = format!("{} on {}\n", in_short(&who), server.as_str().trim_end_matches('/'));
    text.push_str(&format!("can      {}\n", who.scope));
    if let Some(end) = who.expires_at {
        text.push_str(&format!("expires  {}\n", format::minute(end)));
    }
    Outcome::new(&who, text)
}

/// Name and id.
pub(super) fn in_short(who: &WhoAmI) -> String {
    let name = format::printable(&who.name);
    match &who.id {
        Some(id) => format!("{name} ({id})"),
        None => name.into_owned(),
    }
}
