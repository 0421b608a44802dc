//! The command line as needed: which server, which token, whether a person can be asked.

use crate::{
    args::{Form, Global, OfApp},
    client::{self, Client, Token},
    error::{CliError, Exit, Result},
    format,
    logins::{Login, Logins},
    project::Project,
    trust::Trust,
    ui::{Loudness, Ui},
};
use faas_api::AppName;
use reqwest::Url;
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// The server when nothing else is said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8081";

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
        let (server, token) = self.target()?;
        Client::trusting(server, token, &self.trust()?)
    }

    /// An HTTP client for an address that a server has told.
    pub(crate) fn http_client(&self, url: &Url) -> Result<reqwest::Client> {
        client::http_client(url, &self.trust()?)
    }

    fn trust(&self) -> Result<Trust> {
        Trust::load(self.global.cacert.as_deref())
    }

    /// The server in force, and what it is called where it is stored.
    pub(crate) fn login(&self) -> Result<(Url, Option<String>)> {
        let (_, login) = self.chosen()?;
        Ok((client::parse_server(&login.server)?, login.name))
    }

    /// The token of the command line, and of nothing else.
    pub(crate) fn token_flag(&self) -> Option<&str> {
        self.global.token.as_deref().map(str::trim).filter(|token| !token.is_empty())
    }

    /// The name of the stored server that was asked for, if one was.
    pub(crate) fn context_name(&self) -> Option<String> {
        self.global.context.clone().or_else(|| variable("FAAS_CONTEXT"))
    }

    fn target(&self) -> Result<(Url, Token)> {
        let (brings_token, login) = self.chosen()?;
        let server = client::parse_server(&login.server)?;
        let token = self.token(&login, brings_token, &server)?;
        Ok((server, token))
    }

    /// The server in force, and whether it was chosen together with its token. A flag wins over a
    /// variable, that over what is stored, that over the default.
    fn chosen(&self) -> Result<(bool, Login)> {
        match (&self.global.server, &self.global.context) {
            (Some(_), Some(_)) => Err(CliError::usage("--server and --context both name a server")
                .hint("give one of them")),
            (Some(server), None) => Ok((false, Login::of_server(server))),
            (None, Some(name)) => Ok((true, Logins::load()?.named(name)?)),
            (None, None) => Ok((false, Self::login_of_environment()?)),
        }
    }

    fn login_of_environment() -> Result<Login> {
        match (variable("FAAS_SERVER"), variable("FAAS_CONTEXT")) {
            (Some(server), _) => Ok(Login::of_server(&server)),
            (None, Some(name)) => Logins::load()?.named(&name),
            (None, None) => {
                let current = Logins::load()?.current()?;
                Ok(current.unwrap_or_else(|| Login::of_server(DEFAULT_SERVER)))
            }
        }
    }

    /// The token that was given, else the one that is stored for the server, else the one that a
    /// server on this machine has left for its user.
    fn token(&self, login: &Login, brings_token: bool, server: &Url) -> Result<Token> {
        let variable = variable("FAAS_TOKEN").filter(|_| !brings_token);
        let given = self.token_flag().map(str::to_owned).or(variable);
        if let Some(value) = given {
            let hint = match client::token_flaw(&value) {
                Some(flaw) => format!("the token {flaw}; check FAAS_TOKEN or --token TOKEN"),
                None => "check FAAS_TOKEN or --token TOKEN".to_owned(),
            };
            return Ok(Token { value: Some(value), hint });
        }
        let login = match login.name {
            Some(_) => login.clone(),
            None => Logins::load()?.of_server(server).unwrap_or_else(|| login.clone()),
        };
        let shown = server.as_str().trim_end_matches('/');
        if let (Some(name), Some(token)) = (&login.name, login.token()?) {
            let hint =
                format!("the token is from context `{name}`: faas login {shown} --name {name}");
            return Ok(Token { value: Some(token), hint });
        }
        Ok(match client::is_loopback(server) {
            true => file_token(&data_dir().join("admin.token")),
            false => Token {
                value: None,
                hint: format!("log in: faas login {shown}; or set FAAS_TOKEN"),
            },
        })
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

/// What an environment variable says, if it says anything.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

impl OfApp {
    /// The app that was named, else the one of the project here.
    pub(crate) fn app(self) -> Result<AppName> {
        app_or_here(self.app.as_ref(), "name an app: --app APP")
    }
}

/// The app that was named, else the one of the project here. The hint is for who is in none.
pub(crate) fn app_or_here(named: Option<&AppName>, hint: &str) -> Result<AppName> {
    match named {
        Some(app) => Ok(app.clone()),
        None => app_here()?.ok_or_else(|| {
            let message = "no app is named, and there is no faas.toml here or above";
            CliError::new(Exit::Usage, "no_project", message).hint(hint)
        }),
    }
}

/// The app of the project here, if there is a project.
pub(crate) fn app_here() -> Result<Option<AppName>> {
    match Project::find(Path::new("."), None) {
        Ok(project) => Ok(Some(project.app)),
        Err(error) if error.code == "no_project" => Ok(None),
        Err(error) => Err(error),
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
