//! `faas context list | use`

use crate::{
    args::ContextVerb, context::Context, error::Result, format::Table, logins::Logins, ui::Outcome,
};
use serde_json::json;

pub(crate) fn run(context: &Context, args: ContextVerb) -> Result<Outcome> {
    match args {
        ContextVerb::List => list(context),
        ContextVerb::Use(args) => {
            let login = Logins::load()?.choose(&args.name)?;
            context.ui.notice(&format!("{} ({}) is in use from now on", args.name, login.server));
            Outcome::new(&json!({ "context": args.name, "server": login.server }), "")
        }
    }
}

fn list(context: &Context) -> Result<Outcome> {
    let stored = Logins::load()?;
    let mut table = Table::new(["NAME", "IN USE", "SERVER", "TOKEN"]);
    let mut contexts = Vec::new();
    for login in stored.all() {
        let name = login.name.clone().unwrap_or_default();
        let current = stored.is_current(&name);
        let has_token = login.token()?.is_some();
        let word = |yes: bool, word: &str| if yes { word.to_owned() } else { String::new() };
        contexts.push(json!({
            "name": name, "server": login.server, "current": current, "has_token": has_token,
        }));
        table.row([name, word(current, "yes"), login.server, word(has_token, "stored")]);
    }
    if contexts.is_empty() {
        context.ui.notice("no contexts; `faas login URL` stores one");
        return Outcome::new(&json!({ "contexts": contexts }), "");
    }
    Outcome::new(&json!({ "contexts": contexts }), table.to_text())
}
