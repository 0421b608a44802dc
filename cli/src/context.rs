//! The command line as needed: which server, which token, whether a person can be asked.

use crate::{
    args::{Form, Global},
    client::{self, Client, Token},
    error::Result,
    format,
    ui::{Loudness, Ui},
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// What a command works with.
pub(crate) struct Context {
    pub(crate) ui: Ui,
    global: Global,
}

impl Context {
    pub(crate) fn new(command: &str, global: Global) -> Self {
        let loudness = match (global.quiet, global.verbose) {
            (true, _) => Loudness::Quiet,
            (false, true) => Loudness::Verbose,
            (false, false) => Loudness::Normal,
        };
        Self { ui: Ui::new(command, global.output == Form::Json, loudness), global }
    }

    /// A client of the server in force.
    pub(crate) fn client(&self) -> Result<Client> {
        let server = client::parse_server(&self.global.server)?;
        let token = self.token(client::is_loopback(&server));
        Client::new(server, token)
    }

    /// The token that was given, else the one that a server on this machine has left for its user.
    fn token(&self, same_machine: bool) -> Token {
        let given = self.global.token.as_deref().map(str::trim);
        match given.filter(|token| !token.is_empty()) {
            Some(token) => Token {
                value: Some(token.to_owned()),
                hint: "check FAAS_TOKEN or --token TOKEN".to_owned(),
            },
            None if same_machine => file_token(&data_dir().join("admin.token")),
            None => Token { value: None, hint: "set FAAS_TOKEN, or give --token TOKEN".to_owned() },
        }
    }

    /// Whether every question is answered with yes.
    pub(crate) fn yes(&self) -> bool {
        self.global.yes
    }

    /// Whether there is a person to ask.
    pub(crate) fn is_interactive(&self) -> bool {
        let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        !self.global.non_interactive && !ci && std::io::stdin().is_terminal()
    }
}

/// The token in a file, if this user can read it.
pub(crate) fn file_token(file: &Path) -> Token {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let value = Some(text.trim().to_owned()).filter(|token| !token.is_empty());
    let found = match value {
        Some(_) => "the token is from",
        None => "no token in",
    };
    let hint = format!(
        "{found} {}: set FAAS_DATA_DIR or FAAS_TOKEN, or give --token TOKEN",
        format::tilde(file)
    );
    Token { value, hint }
}

/// Where a server on this machine keeps its state, by the same rule as the server's own.
fn data_dir() -> PathBuf {
    let folder =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("FAAS_DATA_DIR")
        .or_else(|| folder("XDG_DATA_HOME").map(|data| data.join("faas")))
        .or_else(|| folder("HOME").map(|home| home.join(".local/share/faas")))
        .unwrap_or_else(|| PathBuf::from("faas-data"))
}
