//! `faas token create | list | revoke`

use crate::{
    args,
    context::Context,
    documents::TokenRevoked,
    error::Result,
    format::{self, Table},
    ui::Outcome,
};
use faas_api::{NewToken, Scope, Token};
use jiff::Timestamp;

pub(crate) async fn run(context: &Context, args: args::Token) -> Result<Outcome> {
    match args {
        args::Token::Create(args) => create(context, args).await,
        args::Token::List(args) => list(context, &args).await,
        args::Token::Revoke(args) => revoke(context, &args).await,
    }
}

async fn create(context: &Context, args: args::TokenCreate) -> Result<Outcome> {
    let args::TokenCreate { name, apps, can, expires } = args;
    let scope = Scope { apps: (!apps.is_empty()).then_some(apps), can };
    let new = NewToken { name, scope, expires_in_s: expires };
    let created = context.client()?.create_token(&new).await?;
    let Token { id, name, scope, expires_at, .. } = &created.token;
    let until = match expires_at {
        Some(end) => format!("until {}", format::minute(*end)),
        None => "until it is revoked".to_owned(),
    };
    let name = format::printable(name);
    context.ui.notice(&format!("token {id} ({name}): {scope}, {until}; it is shown this once"));
    let text = format!("{}\n", created.secret);
    Outcome::new(&created, text)
}

async fn list(context: &Context, args: &args::TokenList) -> Result<Outcome> {
    let mut list = context.client()?.tokens().await?;
    if !args.all {
        list.tokens.retain(|token| token.revoked_at.is_none());
    }
    if list.tokens.is_empty() {
        context.ui.notice("no tokens; `faas token create` makes one");
        return Outcome::new(&list, "");
    }
    let now = Timestamp::now();
    let mut table =
        Table::new(["ID", "NAME", "CAN", "APPS", "CREATED", "BY", "EXPIRES", "LAST USED"]);
    for token in &list.tokens {
        let apps = match &token.scope.apps {
            Some(apps) => joined(apps),
            None => "every app".to_owned(),
        };
        table.row([
            token.id.to_string(),
            format::printable(&token.name).into_owned(),
            joined(&token.scope.can),
            apps,
            format::ago(token.created_at, now),
            format::printable(&token.created_by).into_owned(),
            end(token, now),
            token.last_used_at.map_or("never".to_owned(), |used| format::ago(used, now)),
        ]);
    }
    Outcome::new(&list, table.to_text())
}

fn end(token: &Token, now: Timestamp) -> String {
    match (token.revoked_at, token.expires_at) {
        (Some(revoked), _) => format!("revoked {}", format::ago(revoked, now)),
        (None, Some(end)) if end <= now => format!("expired {}", format::ago(end, now)),
        (None, Some(end)) => format::minute(end),
        (None, None) => "never".to_owned(),
    }
}

async fn revoke(context: &Context, args: &args::TokenRevoke) -> Result<Outcome> {
    let id = &args.id;
    context.client()?.revoke_token(id).await?;
    context.ui.notice(&format!("revoked {id}"));
    Outcome::new(&TokenRevoked { id }, "")
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
