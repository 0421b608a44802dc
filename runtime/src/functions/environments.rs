//! The environments of functions: what their manifests say, and what their apps were given.

use crate::{
    host::{
        Environment,
        environment::{Variables, Wishes},
    },
    storage::Rev,
};
use faas_api::{AppName, Digest, Settings, VarName};
use secrecy::SecretString;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// What an app was given, as its functions get it.
#[derive(Clone, Default)]
pub(crate) struct Given {
    /// Variables, for every function.
    pub(crate) env: Arc<Variables>,
    /// Secrets, each for the functions that name it.
    pub(crate) secrets: BTreeMap<VarName, Arc<SecretString>>,
}

/// What every app was given. Nothing here costs a function anything that has no environment.
#[derive(Default)]
pub(crate) struct Environments {
    apps: HashMap<AppName, (Rev, Option<Given>)>,
    /// What manifests say, by a digest of it: versions of an app mostly say the same.
    wishes: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    known: HashMap<Digest, Weak<Wishes>>,
    /// When there are so many, those that are gone are looked for.
    full_at: usize,
}

impl Environments {
    /// Notes what an app was given, unless something newer is known.
    pub(crate) fn set(&mut self, app: &AppName, rev: Rev, given: Option<Given>) -> bool {
        if self.apps.get(app).is_some_and(|(known, _)| *known >= rev) {
            return false;
        }
        self.apps.insert(app.clone(), (rev, given));
        true
    }

    /// The apps that have something.
    pub(crate) fn configured(&self) -> impl Iterator<Item = &AppName> {
        self.apps.iter().filter(|(_, (_, given))| given.is_some()).map(|(app, _)| app)
    }

    /// The environment of a function.
    pub(crate) fn of(&self, app: &AppName, settings: &Settings) -> Option<Arc<Environment>> {
        self.made(app, self.wishes_of(settings))
    }

    /// The environment that is in place of this one now; `None` when it is still the same.
    pub(crate) fn renewed(
        &self,
        app: &AppName,
        current: Option<&Arc<Environment>>,
    ) -> Option<Option<Arc<Environment>>> {
        let next = self.made(app, current.and_then(|current| current.wishes().cloned()));
        let same = match (current, &next) {
            (Some(current), Some(next)) => current.pairs().eq(next.pairs()),
            (current, next) => current.is_none() && next.is_none(),
        };
        (!same).then_some(next)
    }

    fn made(&self, app: &AppName, wishes: Option<Arc<Wishes>>) -> Option<Arc<Environment>> {
        let given = self.apps.get(app).and_then(|(_, given)| given.as_ref());
        Environment::new(wishes, given.map(|given| given.env.clone()), |name| {
            given.and_then(|given| given.secrets.get(name).cloned())
        })
    }

    fn wishes_of(&self, settings: &Settings) -> Option<Arc<Wishes>> {
        let Settings { env, secrets, .. } = settings;
        if env.is_empty() && secrets.is_empty() {
            return None;
        }
        let wishes = || Arc::new(Wishes { env: env.clone(), secrets: secrets.clone() });
        // Names and text can always be said in JSON.
        let Ok(text) = serde_json::to_vec(&(env, secrets)) else {
            return Some(wishes());
        };
        let mut shelf = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = Digest::of(&text);
        if let Some(known) = shelf.known.get(&digest).and_then(Weak::upgrade) {
            return Some(known);
        }
        if shelf.known.len() >= shelf.full_at {
            shelf.known.retain(|_, wishes| wishes.strong_count() > 0);
            shelf.full_at = shelf.known.len() * 2 + 64;
        }
        let wishes = wishes();
        shelf.known.insert(digest, Arc::downgrade(&wishes));
        Some(wishes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    fn given(variables: &[(&str, &str)], secrets: &[(&str, &str)]) -> Given {
        let name = |name: &str| name.parse::<VarName>().unwrap();
        let env = variables.iter().map(|(key, value)| (name(key), (*value).to_owned()));
        let secrets = secrets.iter().map(|(key, value)| (name(key), Arc::new((*value).into())));
        Given { env: Arc::new(env.collect()), secrets: secrets.collect() }
    }

    fn seen(environment: Option<&Arc<Environment>>) -> Vec<(String, String)> {
        let pairs = environment.iter().flat_map(|environment| environment.pairs());
        let mut pairs: Vec<_> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        pairs.sort();
        pairs
    }

    fn settings(text: &str) -> Settings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn each_app_and_each_function_has_its_own() {
        let mut environments = Environments::default();
        let plain = settings("{}");
        assert!(environments.of(&app("one"), &plain).is_none());
        assert!(environments.set(&app("one"), 7, Some(given(&[("A", "1")], &[("S", "s")]))));
        let wants = settings(r#"{"env":{"B":"2"},"secrets":["S"]}"#);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(seen(environments.of(&app("one"), &plain).as_ref()), [pair("A", "1")]);
        assert_eq!(
            seen(environments.of(&app("one"), &wants).as_ref()),
            [pair("A", "1"), pair("B", "2"), pair("S", "s")]
        );
        assert!(environments.of(&app("two"), &plain).is_none());
        assert_eq!(seen(environments.of(&app("two"), &wants).as_ref()), [pair("B", "2")]);
        assert_eq!(environments.configured().collect::<Vec<_>>(), [&app("one")]);
    }

    #[test]
    fn only_what_changed_is_renewed() {
        let (mut environments, app) = (Environments::default(), app("one"));
        let wants = environments.of(&app, &settings(r#"{"secrets":["S"]}"#));
        let plain = environments.of(&app, &settings("{}"));
        assert!(environments.set(&app, 5, Some(given(&[], &[("S", "1"), ("T", "1")]))));
        assert!(environments.renewed(&app, plain.as_ref()).is_none());
        let wants = environments.renewed(&app, wants.as_ref()).unwrap();
        assert_eq!(seen(wants.as_ref()).len(), 1);
        assert!(environments.set(&app, 6, Some(given(&[], &[("S", "1"), ("T", "2")]))));
        assert!(environments.renewed(&app, wants.as_ref()).is_none(), "T is not its own");
        assert!(environments.set(&app, 7, Some(given(&[("A", "1")], &[("S", "1")]))));
        assert_eq!(seen(environments.renewed(&app, plain.as_ref()).unwrap().as_ref()).len(), 1);
        assert!(environments.set(&app, 9, None));
        let wants = environments.renewed(&app, wants.as_ref()).unwrap();
        assert!(seen(wants.as_ref()).is_empty(), "it is gone");
        assert!(!environments.set(&app, 8, Some(given(&[("A", "late")], &[]))));
        assert!(environments.renewed(&app, plain.as_ref()).is_none());
    }

    #[test]
    fn manifests_that_say_the_same_share_it() {
        let environments = Environments::default();
        let one = settings(r#"{"env":{"A":"1"}}"#);
        let first = environments.of(&app("one"), &one).unwrap();
        let second = environments.of(&app("two"), &one).unwrap();
        assert!(Arc::ptr_eq(first.wishes().unwrap(), second.wishes().unwrap()));
        for number in 0..200 {
            let text = format!(r#"{{"env":{{"A":"{number}"}}}}"#);
            environments.of(&app("one"), &settings(&text));
        }
        assert!(environments.wishes.lock().unwrap().known.len() < 130);
    }
}
