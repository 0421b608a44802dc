//! The command line as needed: which server, which token, whether a person can be asked.

use crate::{
    args::{Form, Global},
    client::{self, Client},
    error::Result,
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
        let token_file = client::is_loopback(&server).then(|| data_dir().join("admin.token"));
        let given = self.global.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        let token = match given {
            Some(token) => Some(token.to_owned()),
            None => token_file.as_deref().and_then(read_token),
        };
        Client::new(server, token, token_file)
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
pub(crate) fn read_token(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
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
