//! `faas context list | use`

use crate::{
    args::ContextVerb,
    context::Context,
    documents::{ContextChosen, ContextList, StoredContext},
    error::Result,
    format::Table,
    logins::Logins,
    ui::Outcome,
};

pub(crate) fn run(context: &Context, args: ContextVerb) -> Result<Outcome> {
    match args {
        ContextVerb::List => list(context),
        ContextVerb::Use(args) => {
            let login = Logins::load()?.choose(&args.name)?;
            context.ui.notice(&format!("{} ({}) is in use from now on", args.name, login.server));
            Outcome::new(&ContextChosen { context: &args.name, server: login.server }, "")
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
        table.row([
            name.clone(),
            word(current, "yes"),
            login.server.clone(),
            word(has_token, "stored"),
        ]);
        contexts.push(StoredContext { name, server: login.server, current, has_token });
    }
    if contexts.is_empty() {
        context.ui.notice("no contexts; `faas login URL` stores one");
        return Outcome::new(&ContextList { contexts }, "");
    }
    Outcome::new(&ContextList { contexts }, table.to_text())
}
