//! `faas login [URL]`

use super::whoami;
use crate::{
    args,
    artifact::io_text,
    client::{self, Client, Token},
    context::Context,
    documents::LoggedIn,
    error::{CliError, Result},
    format,
    logins::{self, Logins},
    ui::Outcome,
};
use std::io::{self, Read as _};

/// No token is longer.
const MAX_TOKEN_BYTES: u64 = 4096;

pub(crate) async fn run(context: &Context, args: args::Login) -> Result<Outcome> {
    let (server, known) = match &args.url {
        Some(url) => (client::parse_server(url)?, None),
        None => context.login()?,
    };
    let name = args.name.or(known).unwrap_or_else(|| logins::default_name(&server));
    logins::check_name(&name)?;
    // Before anybody is asked for anything.
    let mut stored = Logins::load()?;
    let shown = server.as_str().trim_end_matches('/').to_owned();
    if server.scheme() == "http" && !client::is_loopback(&server) {
        context.ui.notice(&format!("{shown} is not encrypted: others may read the token"));
    }
    let token = token(context, args.token_stdin, &shown).await?;
    let hint = match client::token_flaw(&token) {
        Some(flaw) => format!("the token {flaw}"),
        None => "is it a token of this server? whoever runs it makes one: faas token create".into(),
    };
    let client = Client::new(server.clone(), Token { value: Some(token.clone()), hint })?;
    let who = client.whoami().await?;
    stored.add(&name, &server, &token)?;
    let file = format::tilde(&stored.config_file());
    let in_short = whoami::in_short(&who);
    context.ui.notice(&format!("logged in to {shown} as {in_short}: {}", who.scope));
    context.ui.notice(&format!("context {name} in {file}, in use from now on"));
    if std::env::var_os("FAAS_TOKEN").is_some_and(|token| !token.is_empty()) {
        context.ui.notice("FAAS_TOKEN is set and wins over what is stored");
    }
    Outcome::new(&LoggedIn { context: name, server: shown, whoami: who }, "")
}

/// The token of the command line, of standard input, or of whoever can be asked.
async fn token(context: &Context, from_stdin: bool, server: &str) -> Result<String> {
    let token = if from_stdin {
        let mut text = String::new();
        let read = io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text);
        read.map_err(|error| {
            CliError::failed(format!("cannot read the token: {}", io_text(&error)))
        })?;
        text
    } else if let Some(token) = context.token_flag() {
        token.to_owned()
    } else if context.is_interactive() {
        context.ui.ask_hidden(&format!("token for {server}: ")).await?
    } else {
        return Err(CliError::usage("there is no token, and nobody to ask for one")
            .hint(format!("faas login {server} --token-stdin < FILE")));
    };
    match token.trim() {
        "" => Err(CliError::usage("the token is empty")
            .hint("whoever runs the server makes one: faas token create")),
        token => Ok(token.to_owned()),
    }
}
