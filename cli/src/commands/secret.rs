//! `faas secret put|list|rm|import`

use crate::{
    args::{self, SecretVerb},
    artifact::io_text,
    context::Context,
    documents::{SecretsRemoved, SecretsSet},
    dotenv,
    error::{CliError, Exit, Result},
    format::{self, Table},
    ui::Outcome,
};
use faas_api::{AppName, ErrorCode, VarName, configuration::MAX_SECRET_LEN};
use jiff::Timestamp;
use std::io::{self, Read as _};

/// What is read at most, in bytes: enough to say how long a value that is too long is.
const READ_AT_MOST: u64 = 16 << 20;

pub(crate) async fn run(context: &Context, args: args::Secret) -> Result<Outcome> {
    match args.verb {
        SecretVerb::Put { name, of } => put(context, &of.app()?, &name).await,
        SecretVerb::List { of } => list(context, &of.app()?).await,
        SecretVerb::Remove { names, of } => remove(context, &of.app()?, &names).await,
        SecretVerb::Import { file, of } => {
            let app = of.app()?;
            import(context, &app, dotenv::read(&file)?).await
        }
    }
}

async fn put(context: &Context, app: &AppName, name: &VarName) -> Result<Outcome> {
    // Before anything is typed: a server that cannot be reached is not worth a secret.
    let client = context.client()?;
    let value = match context.is_interactive() {
        true => context.ui.ask_hidden(&format!("value of {name}:")).await?,
        false => from_stdin(name).await?,
    };
    if value.is_empty() {
        return Err(CliError::usage(format!("the value of `{name}` is empty"))
            .hint(format!("faas secret put {name} --app {app} < FILE")));
    }
    let secret = client.put_secret(app, name, value).await?;
    context.ui.notice(&format!("set {name} of {app}; functions see it from the next request on"));
    Outcome::new(&secret, "")
}

/// All of standard input, without the end of its last line: `echo` and editors add one.
async fn from_stdin(name: &VarName) -> Result<String> {
    let read = || {
        let mut bytes = Vec::new();
        io::stdin().take(READ_AT_MOST).read_to_end(&mut bytes).map(|_length| bytes)
    };
    // On a thread of its own, so that ctrl-c is heard meanwhile.
    let bytes = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten();
    let bytes = bytes.map_err(|error| {
        CliError::failed(format!("cannot read standard input: {}", io_text(&error)))
    })?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let value = line.strip_suffix(b"\r").unwrap_or(line);
    if value.len() > MAX_SECRET_LEN {
        let more = if bytes.len() as u64 == READ_AT_MOST { "at least " } else { "" };
        let message = format!(
            "the secret `{name}` has {more}{} bytes, at most {MAX_SECRET_LEN} are possible",
            value.len()
        );
        return Err(CliError::new(Exit::Rejected, ErrorCode::BodyTooLarge.as_str(), message));
    }
    String::from_utf8(value.to_vec()).map_err(|_| {
        CliError::usage(format!("the value of `{name}` is not UTF-8"))
            .hint("store binary values in base64, and let the function decode them")
    })
}

async fn list(context: &Context, app: &AppName) -> Result<Outcome> {
    let list = context.client()?.secrets(app).await?;
    if list.secrets.is_empty() {
        context.ui.notice(&format!("`{app}` has no secrets; `faas secret put NAME` sets one"));
        return Outcome::new(&list, "");
    }
    let now = Timestamp::now();
    let mut table = Table::new(["NAME", "UPDATED", "BY"]);
    for secret in &list.secrets {
        table.row([
            secret.name.to_string(),
            format::ago(secret.updated_at, now),
            format::printable(&secret.updated_by).into_owned(),
        ]);
    }
    Outcome::new(&list, table.to_text())
}

async fn remove(context: &Context, app: &AppName, names: &[VarName]) -> Result<Outcome> {
    let client = context.client()?;
    for name in names {
        client.remove_secret(app, name).await?;
        context.ui.notice(&format!("removed {name} of {app}"));
    }
    Outcome::new(&SecretsRemoved { app, removed: names }, "")
}

async fn import(context: &Context, app: &AppName, entries: dotenv::Entries) -> Result<Outcome> {
    let client = context.client()?;
    let mut names = Vec::new();
    for (name, value) in entries {
        client.put_secret(app, &name, value).await?;
        context.ui.notice(&format!("set {name} of {app}"));
        names.push(name);
    }
    Outcome::new(&SecretsSet { app, set: names }, "")
}
