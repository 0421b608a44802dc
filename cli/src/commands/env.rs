//! `faas env list|set|unset|import`

use crate::{
    args::{self, EnvVerb},
    context::Context,
    dotenv,
    error::Result,
    format,
    ui::Outcome,
};
use faas_api::{AppName, Env, EnvChange, VarName};

pub(crate) async fn run(context: &Context, args: args::Env) -> Result<Outcome> {
    match args.verb {
        EnvVerb::List { of } => list(context, &of.app()?).await,
        EnvVerb::Set { variables, of } => {
            let set = variables.into_iter().map(|(name, value)| (name, Some(value)));
            change(context, &of.app()?, set).await
        }
        EnvVerb::Unset { names, of } => {
            change(context, &of.app()?, names.into_iter().map(|name| (name, None))).await
        }
        EnvVerb::Import { file, of } => {
            let app = of.app()?;
            let set = dotenv::read(&file)?.into_iter().map(|(name, value)| (name, Some(value)));
            change(context, &app, set).await
        }
    }
}

/// The variables as a file that `faas env import` reads.
async fn list(context: &Context, app: &AppName) -> Result<Outcome> {
    let list = context.client()?.env(app).await?;
    if list.env.is_empty() {
        context.ui.notice(&format!("`{app}` has no variables; `faas env set NAME=VALUE` sets one"));
    }
    Outcome::new(&list, dotenv::written(&list.env))
}

async fn change(
    context: &Context,
    app: &AppName,
    change: impl Iterator<Item = (VarName, Option<String>)>,
) -> Result<Outcome> {
    let change = EnvChange(change.collect());
    let Env { app, revision, env } = context.client()?.change_env(app, &change).await?;
    let set = change.0.values().flatten().count();
    let done = match (set, change.0.len() - set) {
        (set, 0) => format!("set {}", format::counted(set, "variable")),
        (_, unset) => format!("unset {}", format::counted(unset, "variable")),
    };
    context.ui.notice(&format!("{done} of {app}; functions see it from the next request on"));
    Outcome::new(&Env { app, revision, env }, "")
}
