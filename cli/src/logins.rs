//! The servers and tokens that are stored for this user: contexts in `config.toml`, their tokens in
//! a file of their own that nobody else can read.

use crate::{
    artifact::io_text,
    client,
    error::{CliError, Exit, Result},
    format,
};
use reqwest::Url;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The longest name of a context, in bytes.
const MAX_NAME_BYTES: usize = 64;
const CONFIG_FILE: &str = "config.toml";
const TOKENS_FILE: &str = "tokens.toml";

/// One server, as it is stored or as it was named.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// What it is called; nothing where only its address was given.
    pub(crate) name: Option<String>,
    pub(crate) server: String,
    /// Where its token may be.
    dir: PathBuf,
}

impl Login {
    /// A server that is not stored.
    pub(crate) fn of_server(server: &str) -> Self {
        Self { name: None, server: server.to_owned(), dir: PathBuf::new() }
    }

    /// The token that is stored for it, if there is one.
    pub(crate) fn token(&self) -> Result<Option<String>> {
        match &self.name {
            Some(name) => Ok(read_tokens(&self.dir.join(TOKENS_FILE))?.tokens.remove(name)),
            None => Ok(None),
        }
    }
}

/// `config.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    server: String,
}

/// `tokens.toml`. It has no `Debug`: it would show them.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    #[serde(default)]
    tokens: BTreeMap<String, String>,
}

/// Everything that is stored.
#[derive(Debug)]
pub(crate) struct Logins {
    dir: PathBuf,
    config: Config,
}

impl Logins {
    /// Reads what is stored; nothing is no error.
    pub(crate) fn load() -> Result<Self> {
        let dir = config_dir();
        let path = dir.join(CONFIG_FILE);
        let config = match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Config::default(),
            Err(error) => return Err(unusable(&path, &io_text(&error))),
        };
        Ok(Self { dir, config })
    }

    /// What is stored under a name.
    pub(crate) fn named(&self, name: &str) -> Result<Login> {
        self.find(name).ok_or_else(|| {
            let known: Vec<&str> = self.config.contexts.keys().map(String::as_str).collect();
            let hint = match known.as_slice() {
                [] => "store one: faas login URL --name NAME".to_owned(),
                known => format!("there are: {}", known.join(", ")),
            };
            CliError::usage(format!("there is no context `{name}`")).hint(hint)
        })
    }

    /// What is in use.
    pub(crate) fn current(&self) -> Result<Option<Login>> {
        self.config.context.as_deref().map(|name| self.named(name)).transpose()
    }

    /// What is stored for a server: the context in use, else the first by name.
    pub(crate) fn of_server(&self, server: &Url) -> Option<Login> {
        let is_it = |login: &Login| {
            client::parse_server(&login.server).is_ok_and(|stored| stored == *server)
        };
        let current = self.config.context.as_deref().and_then(|name| self.find(name));
        let all = self.config.contexts.keys().filter_map(|name| self.find(name));
        current.into_iter().chain(all).find(is_it)
    }

    /// Every stored server, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = Login> {
        self.config.contexts.keys().filter_map(|name| self.find(name))
    }

    /// Whether this one is in use.
    pub(crate) fn is_current(&self, name: &str) -> bool {
        self.config.context.as_deref() == Some(name)
    }

    /// Stores a server and its token, and uses them from now on.
    pub(crate) fn add(&mut self, name: &str, server: &Url, token: &str) -> Result<()> {
        let server = server.as_str().trim_end_matches('/').to_owned();
        self.change_tokens(|tokens| tokens.insert(name.to_owned(), token.to_owned()))?;
        self.config.contexts.insert(name.to_owned(), Entry { server });
        self.config.context = Some(name.to_owned());
        self.write_config()
    }

    /// Forgets a server and its token.
    pub(crate) fn remove(&mut self, name: &str) -> Result<()> {
        self.change_tokens(|tokens| tokens.remove(name))?;
        self.config.contexts.remove(name);
        if self.is_current(name) {
            self.config.context = None;
        }
        self.write_config()
    }

    /// Uses a stored server from now on.
    pub(crate) fn choose(&mut self, name: &str) -> Result<Login> {
        let login = self.named(name)?;
        self.config.context = Some(name.to_owned());
        self.write_config()?;
        Ok(login)
    }

    /// Where the names are.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join(CONFIG_FILE)
    }

    fn find(&self, name: &str) -> Option<Login> {
        let server = self.config.contexts.get(name)?.server.clone();
        Some(Login { name: Some(name.to_owned()), server, dir: self.dir.clone() })
    }

    fn change_tokens<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, String>) -> T,
    ) -> Result<()> {
        let path = self.dir.join(TOKENS_FILE);
        let mut tokens = read_tokens(&path)?;
        change(&mut tokens.tokens);
        write(&path, "# Kept by `faas login`. Whoever reads this can use these tokens.\n", &tokens)
    }

    fn write_config(&self) -> Result<()> {
        write(&self.config_file(), "# Kept by `faas login` and `faas context`.\n", &self.config)
    }
}

/// What a server is called when nothing is said: its host, and its port where it has one.
pub(crate) fn default_name(server: &Url) -> String {
    let host = server.host_str().unwrap_or_default().replace(['[', ']'], "").replace(':', "-");
    match server.port() {
        Some(port) => format!("{host}-{port}"),
        None => host,
    }
}

/// Whether something can be the name of a context.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match edge && name.len() <= MAX_NAME_BYTES && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(CliError::usage(format!("`{name}` cannot be a context's name")).hint(
            "a name has letters, digits, `-`, `_` and `.`, and starts with one of the first two",
        )),
    }
}

/// `$XDG_CONFIG_HOME/faas`, else `~/.config/faas`.
fn config_dir() -> PathBuf {
    let folder =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("XDG_CONFIG_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".config")))
        .unwrap_or_default()
        .join("faas")
}

fn read_tokens(path: &Path) -> Result<Tokens> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Tokens::default()),
        Err(error) => return Err(unusable(path, &io_text(&error))),
    };
    let mode = file.metadata().map_err(|error| unusable(path, &io_text(&error)))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let shown = format::tilde(path);
        return Err(unusable(path, &format!("others can read it (mode {mode:03o})"))
            .hint(format!("if nobody has: chmod 600 {shown}; else revoke the tokens in it")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| unusable(path, &io_text(&error)))?;
    parse(path, &text)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    // The parser would quote the line, and with it perhaps a token.
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let what = error.message().lines().next().unwrap_or_default();
        unusable(path, &format!("line {line}: {what}"))
    })
}

fn unusable(path: &Path, why: &str) -> CliError {
    let message = format!("cannot use {}: {why}", format::tilde(path));
    CliError::new(Exit::Usage, "user_config", message)
}

/// Writes a file for this user alone: after a crash it is the old one or the new one.
fn write(path: &Path, head: &str, content: &impl Serialize) -> Result<()> {
    let cannot =
        |why: &str| CliError::failed(format!("cannot write {}: {why}", format::tilde(path)));
    let text = toml::to_string(content).map_err(|error| cannot(&error.to_string()))?;
    replace(path, &format!("{head}{text}")).map_err(|error| cannot(&io_text(&error)))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is half written is of no use to anybody.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers() {
        let name = |server: &str| default_name(&client::parse_server(server).unwrap());
        for (server, expected) in [
            ("https://faas.example.com", "faas.example.com"),
            ("https://faas.example.com/admin", "faas.example.com"),
            ("https://faas.example.com:8443", "faas.example.com-8443"),
            ("http://127.0.0.1:8081", "127.0.0.1-8081"),
        ] {
            assert_eq!(name(server), expected);
            check_name(expected).unwrap();
        }
        // An address of IPv6 may start with a colon; then a name has to be given.
        assert_eq!(name("http://[fd00::1]:8081"), "fd00--1-8081");
        for bad in ["", "-a", ".", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert_eq!(check_name(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
