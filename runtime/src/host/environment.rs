//! What a function gets besides its requests: variables and secrets, as its environment
//! (`wasi:cli/environment`, the environment of WASI 0.1) and through `wasi:config/store`.
//!
//! Nothing of the node's own environment is in it. It is copied when a guest asks for it, and a
//! function without any costs nothing.

use super::HostState;
use faas_api::VarName;
use secrecy::{ExposeSecret as _, SecretString};
use std::{collections::BTreeMap, fmt, sync::Arc};
use wasmtime::{
    Result, StoreContextMut,
    component::{ComponentType, HasSelf, Lift, Linker, Lower},
};
use wasmtime_wasi::{cli::WasiCliView as _, p2::bindings as p2, p3::bindings as p3};

/// Variables, by name.
pub(crate) type Variables = BTreeMap<VarName, String>;

/// The names under which `wasi:config/store` is known. A pre-release is only itself, so each is
/// there by its name.
pub(super) const CONFIG_STORE: &str = "wasi:config/store";
/// The versions of [`CONFIG_STORE`].
pub(super) const CONFIG_VERSIONS: [&str; 2] = ["0.2.0-rc.1", "0.2.0-draft-2024-09-27"];

/// What a function's manifest says of its environment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Variables it sets.
    pub(crate) env: Variables,
    /// Secrets it gets.
    pub(crate) secrets: Vec<VarName>,
}

/// The environment of a function: the app's variables over those of its manifest, and over both
/// the secrets that the manifest names. It has no other secrets, so no mistake can show them.
pub(crate) struct Environment {
    wishes: Option<Arc<Wishes>>,
    app: Option<Arc<Variables>>,
    secrets: Vec<(VarName, Arc<SecretString>)>,
}

impl Environment {
    /// What a function sees, or nothing if that is nothing now and will be nothing until the app
    /// has variables.
    pub(crate) fn new(
        wishes: Option<Arc<Wishes>>,
        app: Option<Arc<Variables>>,
        secret: impl Fn(&VarName) -> Option<Arc<SecretString>>,
    ) -> Option<Arc<Self>> {
        let wanted = wishes.iter().flat_map(|wishes| &wishes.secrets);
        let secrets = wanted.filter_map(|name| Some((name.clone(), secret(name)?))).collect();
        let app = app.filter(|app| !app.is_empty());
        (wishes.is_some() || app.is_some()).then(|| Arc::new(Self { wishes, app, secrets }))
    }

    /// What the function's manifest says of it.
    pub(crate) fn wishes(&self) -> Option<&Arc<Wishes>> {
        self.wishes.as_ref()
    }

    /// The value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.secret(name)
            .or_else(|| Some(self.app.as_ref()?.get(name)?.as_str()))
            .or_else(|| Some(self.wishes.as_ref()?.env.get(name)?.as_str()))
    }

    /// Every name with its value, each name once.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let secrets = self.secrets.iter();
        let secrets = secrets.map(|(name, value)| (name.as_str(), value.expose_secret()));
        let app = self.app.iter().flat_map(|app| app.iter());
        let app = app.filter(|(name, _)| self.secret(name.as_str()).is_none());
        let own = self.wishes.iter().flat_map(|wishes| &wishes.env).filter(|(name, _)| {
            let in_app = self.app.as_ref().is_some_and(|app| app.contains_key(*name));
            !in_app && self.secret(name.as_str()).is_none()
        });
        secrets.chain(app.chain(own).map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn secret(&self, name: &str) -> Option<&str> {
        let found = self.secrets.iter().find(|(known, _)| known.as_str() == name);
        found.map(|(_, value)| value.expose_secret())
    }

    fn owned(&self) -> Vec<(String, String)> {
        self.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl fmt::Debug for Environment {
    /// Names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs().map(|(name, _)| name)).finish()
    }
}

/// The interfaces through which components see their environment, in place of those that would
/// make a whole context to hold a copy of it.
pub(super) fn link_02(linker: &mut Linker<HostState>) -> Result<()> {
    linker.allow_shadowing(true);
    p2::cli::environment::add_to_linker::<_, HasSelf<HostState>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    for version in CONFIG_VERSIONS {
        link_store(linker, version)?;
    }
    Ok(())
}

/// The same for WASI 0.3.
pub(super) fn link_03(linker: &mut Linker<HostState>) -> Result<()> {
    linker.allow_shadowing(true);
    p3::cli::environment::add_to_linker::<_, HasSelf<HostState>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// `wasi:config/store`: the same names and values, asked for one by one.
fn link_store(linker: &mut Linker<HostState>, version: &str) -> Result<()> {
    type State<'a> = StoreContextMut<'a, HostState>;
    type Answer<T> = std::result::Result<T, StoreError>;
    let mut store = linker.instance(&format!("{CONFIG_STORE}@{version}"))?;
    store.func_wrap("get", |state: State<'_>, (key,): (String,)| {
        let environment = state.data().environment.as_deref();
        let value = environment.and_then(|environment| environment.get(&key));
        Ok((Answer::Ok(value.map(str::to_owned)),))
    })?;
    store.func_wrap("get-all", |state: State<'_>, (): ()| {
        Ok((Answer::Ok(pairs(state.data().environment.as_deref())),))
    })
}

/// The `error` of `wasi:config/store`. Looking into memory does not fail.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StoreError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

fn pairs(environment: Option<&Environment>) -> Vec<(String, String)> {
    environment.map(Environment::owned).unwrap_or_default()
}

impl HostState {
    /// The environment in full. That of a CGI program has its request's meta-variables, too.
    fn variables(&mut self) -> Result<Vec<(String, String)>> {
        match self.is_cgi() {
            true => p2::cli::environment::Host::get_environment(&mut self.cli()),
            false => Ok(pairs(self.environment.as_deref())),
        }
    }
}

impl p2::cli::environment::Host for HostState {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        self.variables()
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        p2::cli::environment::Host::get_arguments(&mut self.cli())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        p2::cli::environment::Host::initial_cwd(&mut self.cli())
    }
}

impl p3::cli::environment::Host for HostState {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        self.variables()
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        p3::cli::environment::Host::get_arguments(&mut self.cli())
    }

    fn get_initial_cwd(&mut self) -> Result<Option<String>> {
        p3::cli::environment::Host::get_initial_cwd(&mut self.cli())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VarName {
        text.parse().unwrap()
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(key, value)| (name(key), (*value).to_owned())).collect()
    }

    fn environment() -> Arc<Environment> {
        let wishes = Wishes {
            env: variables(&[("A", "own"), ("B", "own"), ("C", "own")]),
            secrets: vec![name("C"), name("S"), name("GONE")],
        };
        let app = variables(&[("B", "app"), ("D", "app"), ("S", "app")]);
        let secret = |name: &VarName| {
            let known = ["C", "S", "OTHER"].contains(&name.as_str());
            known.then(|| Arc::new(SecretString::from("secret")))
        };
        Environment::new(Some(Arc::new(wishes)), Some(Arc::new(app)), secret).unwrap()
    }

    #[test]
    fn secrets_win_over_the_app_and_the_app_over_the_manifest() {
        let environment = environment();
        let expected = [("A", "own"), ("B", "app"), ("C", "secret"), ("D", "app"), ("S", "secret")];
        let mut pairs: Vec<(&str, &str)> = environment.pairs().collect();
        pairs.sort_unstable();
        assert_eq!(pairs, expected);
        for (name, value) in expected {
            assert_eq!(environment.get(name), Some(value));
        }
        for name in ["GONE", "OTHER", "", "a"] {
            assert_eq!(environment.get(name), None, "{name}");
        }
    }

    #[test]
    fn no_value_shows_in_debug_output() {
        let text = format!("{:?}", environment());
        assert!(text.contains("\"S\"") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn nothing_is_nothing() {
        let none = |_: &VarName| None;
        assert!(Environment::new(None, None, none).is_none());
        assert!(Environment::new(None, Some(Arc::default()), none).is_none());
        // A secret that is not there yet may come.
        let wishes = Wishes { secrets: vec![name("S")], ..Wishes::default() };
        let waiting = Environment::new(Some(Arc::new(wishes)), None, none).unwrap();
        assert_eq!(waiting.pairs().count(), 0);
    }
}
