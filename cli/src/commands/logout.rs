//! `faas logout [CONTEXT]`

use crate::{
    args,
    context::Context,
    documents::LoggedOut,
    error::{CliError, Result},
    logins::Logins,
    ui::Outcome,
};

pub(crate) fn run(context: &Context, args: args::Logout) -> Result<Outcome> {
    let mut stored = Logins::load()?;
    let login = match args.name.or_else(|| context.context_name()) {
        Some(name) => Some(stored.named(&name)?),
        None => stored.current()?,
    };
    let name = login.and_then(|login| login.name).ok_or_else(|| {
        CliError::usage("no context is in use").hint("faas logout CONTEXT; `faas context list`")
    })?;
    stored.remove(&name)?;
    context.ui.notice(&format!("forgot {name}; its token is still good until it is revoked"));
    Outcome::new(&LoggedOut { context: name }, "")
}
