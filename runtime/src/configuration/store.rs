//! The configurations of all apps: read at start, changed by calls of the API here or on another
//! node, handed to functions.

use super::{
    Key, KeyError, Sealer, SecretRecord, SecretsConfig,
    record::{ConfigRecord, check_secret, check_variable},
    seal::SealError,
};
use crate::{
    clock,
    functions::{
        Functions, FunctionsError,
        environments::{Environments, Given},
    },
    storage::{
        Change, DocKey, Expect, Registry, Rev, StorageError,
        data_dir::DataDir,
        record::{Rest, check_reader},
    },
};
use bytes::Bytes;
use faas_api::{AppName, Settings, VarName, VersionId};
use secrecy::{ExposeSecret as _, SecretString};
use std::{collections::BTreeSet, sync::Arc};

/// The prefix of the documents.
const CONFIG: &str = "config/";
/// The revision of a configuration that is not there.
const NONE: Rev = 0;

/// Why a configuration cannot be read or changed. Never has a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigsError {
    /// The app has nothing of that name.
    #[error("`{app}` has no {what} `{name}`")]
    NoSuch {
        /// `variable` or `secret`.
        what: &'static str,
        /// The app.
        app: AppName,
        /// The name.
        name: VarName,
    },
    /// A value is too long.
    #[error("the {what} `{name}` has {has} bytes, at most {most} are possible")]
    TooLong {
        /// `variable` or `secret`.
        what: &'static str,
        /// Its name.
        name: VarName,
        /// How many it has,
        has: usize,
        /// and how many it may have.
        most: usize,
    },
    /// All together are too much.
    #[error("that would be {has} {what}, at most {most} are possible")]
    TooMuch {
        /// What is counted.
        what: &'static str,
        /// How many there would be,
        has: usize,
        /// and how many there may be.
        most: usize,
    },
    /// An environment is a list of C strings.
    #[error("the {what} `{name}` has a NUL character, which no environment can hold")]
    Nul {
        /// `variable` or `secret`.
        what: &'static str,
        /// Its name.
        name: VarName,
    },
    /// Live versions need the secret.
    #[error("`{name}` is needed by {}", list(.versions))]
    InUse {
        /// The secret.
        name: VarName,
        /// Which versions.
        versions: Vec<VersionId>,
    },
    /// A value cannot be encrypted.
    #[error("a secret: {0}")]
    Seal(#[from] SealError),
    /// Somebody else changed it in between.
    #[error("the configuration changed in between")]
    Conflict,
    /// The app cannot be read.
    #[error(transparent)]
    Functions(#[from] FunctionsError),
    /// The storage failed.
    #[error(transparent)]
    Storage(StorageError),
}

impl From<StorageError> for ConfigsError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Conflict => Self::Conflict,
            other => Self::Storage(other),
        }
    }
}

/// Why a node cannot start with the secrets it has. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key was lost.
    #[error(
        "there are secrets, and the key they were stored with is not there: restore `{}`, or give \
         the key that was used (`secrets.key_file`, FAAS_SECRETS_KEY)", .0.display()
    )]
    Lost(std::path::PathBuf),
    /// It is another key.
    #[error(
        "the secrets of `{app}` were stored with another key than that of {from}: start with the \
         key that was used (`secrets.key_file`, FAAS_SECRETS_KEY, or `secrets.key` in the data \
         directory)"
    )]
    OtherKey {
        /// An app.
        app: AppName,
        /// Where the key is from, in words.
        from: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What was read at start.
pub(crate) struct Loaded {
    /// What encrypts.
    pub(crate) sealer: Sealer,
    /// What every app was given.
    pub(crate) environments: Environments,
    /// The revision at which that was so.
    pub(crate) rev: Rev,
}

/// Finds the key, or makes it, reads every configuration and proves that the key opens them.
///
/// # Errors
/// When there is no key for the secrets there are, or the registry cannot be read.
pub(crate) async fn load(
    registry: &dyn Registry,
    config: &SecretsConfig,
    data_dir: &DataDir,
) -> Result<Loaded, LoadError> {
    let (docs, rev) = registry.list(CONFIG).await?;
    let mut records = Vec::with_capacity(docs.len());
    for (key, doc) in docs {
        records.push((app_name(&key)?, decode(&key, &doc.body)?, doc.rev));
    }
    let secrets = records.iter().any(|(_, record, _)| !record.secrets.is_empty());
    let key = match Key::find(config, data_dir)? {
        Some(key) => key,
        None if secrets => return Err(LoadError::Lost(data_dir.secrets_key_file())),
        None => Key::make(data_dir)?,
    };
    let sealer = Sealer::new(&key);
    if let Some(app) = foreign(&sealer, &records) {
        return Err(LoadError::OtherKey { app, from: key.source().to_owned() });
    }
    let mut environments = Environments::default();
    for (app, record, rev) in records {
        environments.set(&app, rev, Some(given(&sealer, &app, record)));
    }
    Ok(Loaded { sealer, environments, rev })
}

/// An app whose secrets are not this key's, if that is so of all.
fn foreign(sealer: &Sealer, records: &[(AppName, ConfigRecord, Rev)]) -> Option<AppName> {
    let mut found = None;
    for (app, record, _) in records {
        for (name, secret) in &record.secrets {
            match sealer.open(app, name, &secret.sealed) {
                Err(SealError::OtherKey) => found = Some(app.clone()),
                _ => return None,
            }
        }
    }
    found
}

/// A configuration as functions get it. What cannot be opened is left out, and the log says so.
fn given(sealer: &Sealer, app: &AppName, record: ConfigRecord) -> Given {
    let opened = record.secrets.iter().filter_map(|(name, secret)| {
        match sealer.open(app, name, &secret.sealed) {
            Ok(value) => Some((name.clone(), Arc::new(value))),
            Err(error) => {
                tracing::error!(%app, secret = %name, %error, "a secret cannot be read");
                None
            }
        }
    });
    Given { secrets: opened.collect(), env: Arc::new(record.env) }
}

/// The configurations of all apps.
pub(crate) struct Configs {
    registry: Arc<dyn Registry>,
    functions: Arc<Functions>,
    sealer: Sealer,
}

impl Configs {
    /// Those in this registry; the functions have been given what was there.
    pub(crate) fn new(
        registry: Arc<dyn Registry>,
        functions: Arc<Functions>,
        sealer: Sealer,
    ) -> Self {
        Self { registry, functions, sealer }
    }

    /// An app's configuration with its revision.
    ///
    /// # Errors
    /// When there is neither such an app nor a configuration for it.
    pub(crate) async fn read(&self, app: &AppName) -> Result<(ConfigRecord, Rev), ConfigsError> {
        let (record, rev) = self.find(app).await?;
        if rev == NONE {
            // A name that nobody has used is a typing error rather than an empty list.
            self.functions.get(app).await?;
        }
        Ok((record, rev))
    }

    /// The revision of an app's configuration; 0 when it has none.
    pub(crate) async fn revision(&self, app: &AppName) -> Result<Rev, ConfigsError> {
        Ok(self.find(app).await?.1)
    }

    /// Sets variables, and removes those without a value. With `expect`, only at that revision.
    pub(crate) async fn set_env(
        &self,
        app: &AppName,
        change: &[(VarName, Option<String>)],
        expect: Option<Rev>,
    ) -> Result<(ConfigRecord, Rev), ConfigsError> {
        for (name, value) in change {
            value.as_ref().map_or(Ok(()), |value| check_variable(name, value))?;
        }
        let changed = self.change(app, expect, |record| {
            for (name, value) in change {
                match value {
                    Some(value) => record.env.insert(name.clone(), value.clone()),
                    None => record.env.remove(name),
                };
            }
            Ok(record.clone())
        });
        changed.await
    }

    /// Removes a variable, which must be there.
    pub(crate) async fn unset(
        &self,
        app: &AppName,
        name: &VarName,
        expect: Option<Rev>,
    ) -> Result<Rev, ConfigsError> {
        let changed = self.change(app, expect, |record| {
            let removed = record.env.remove(name);
            removed.map(drop).ok_or_else(|| no_such("variable", app, name))
        });
        changed.await.map(|((), rev)| rev)
    }

    /// Removes every variable.
    pub(crate) async fn clear_env(
        &self,
        app: &AppName,
        expect: Option<Rev>,
    ) -> Result<Rev, ConfigsError> {
        let changed = self.change(app, expect, |record| {
            record.env.clear();
            Ok(())
        });
        changed.await.map(|((), rev)| rev)
    }

    /// Sets a secret. The same value again changes nothing. The flag says whether it is new.
    pub(crate) async fn put_secret(
        &self,
        app: &AppName,
        (name, value): (&VarName, &SecretString),
        by: &str,
        expect: Option<Rev>,
    ) -> Result<(SecretRecord, bool, Rev), ConfigsError> {
        let value = value.expose_secret();
        check_secret(name, value)?;
        let changed = self.change(app, expect, |record| {
            let known = record.secrets.get(name);
            if let Some(known) = known
                && let Ok(opened) = self.sealer.open(app, name, &known.sealed)
                && opened.expose_secret() == value
            {
                return Ok((known.clone(), false));
            }
            let new = known.is_none();
            let secret = SecretRecord {
                sealed: self.sealer.seal(app, name, value)?,
                updated_at: clock::now(),
                updated_by: by.to_owned(),
                rest: Rest::new(),
            };
            record.secrets.insert(name.clone(), secret.clone());
            Ok((secret, new))
        });
        changed.await.map(|((secret, new), rev)| (secret, new, rev))
    }

    /// Removes a secret that no live version needs.
    pub(crate) async fn remove_secret(
        &self,
        app: &AppName,
        name: &VarName,
        expect: Option<Rev>,
    ) -> Result<Rev, ConfigsError> {
        let versions = self.live_with(app, name).await?;
        let changed = self.change(app, expect, |record| {
            record.secrets.remove(name).ok_or_else(|| no_such("secret", app, name))?;
            match versions.is_empty() {
                true => Ok(()),
                false => {
                    let (name, versions) = (name.clone(), versions.clone());
                    Err(ConfigsError::InUse { name, versions })
                }
            }
        });
        changed.await.map(|((), rev)| rev)
    }

    /// Removes all that an app was given. Returns whether there was anything.
    pub(crate) async fn forget(&self, app: &AppName) -> Result<bool, ConfigsError> {
        let (_, rev) = self.find(app).await?;
        if rev == NONE {
            return Ok(false);
        }
        let rev = self.registry.delete(&key(app), Expect::Any).await?;
        self.functions.give(app, None, rev);
        Ok(true)
    }

    /// The secrets that functions name and the app does not have.
    pub(crate) async fn missing<'a>(
        &self,
        app: &AppName,
        functions: impl IntoIterator<Item = &'a Settings>,
    ) -> Result<BTreeSet<VarName>, StorageError> {
        let functions = functions.into_iter();
        let mut wanted: BTreeSet<VarName> =
            functions.flat_map(|settings| &settings.secrets).cloned().collect();
        if !wanted.is_empty() {
            let (record, _) = self.find(app).await?;
            wanted.retain(|name| !record.secrets.contains_key(name));
        }
        Ok(wanted)
    }

    /// Follows changes that others make, from this revision on, until the registry ends.
    pub(crate) async fn follow(&self, after: Rev) -> Result<(), StorageError> {
        let mut changes = self.registry.watch(CONFIG, after).await?;
        while let Some(change) = changes.recv().await {
            let outcome = match change {
                Change::Put(key, doc) => self.follow_one(&key, &doc.body, doc.rev),
                Change::Deleted(key, rev) => {
                    app_name(&key).map(|app| self.functions.give(&app, None, rev))
                }
                Change::Resync => self.resync().await,
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "a change of a configuration could not be followed");
            }
        }
        Ok(())
    }

    fn follow_one(&self, key: &DocKey, body: &[u8], rev: Rev) -> Result<(), StorageError> {
        let (app, record) = (app_name(key)?, decode(key, body)?);
        self.give(&app, record, rev);
        Ok(())
    }

    async fn resync(&self) -> Result<(), StorageError> {
        let (docs, rev) = self.registry.list(CONFIG).await?;
        let mut gone: BTreeSet<AppName> = self.functions.given().into_iter().collect();
        for (key, doc) in docs {
            gone.remove(&app_name(&key)?);
            self.follow_one(&key, &doc.body, doc.rev)?;
        }
        gone.iter().for_each(|app| self.functions.give(app, None, rev));
        Ok(())
    }

    /// The live versions of an app that need a secret.
    async fn live_with(
        &self,
        app: &AppName,
        name: &VarName,
    ) -> Result<Vec<VersionId>, ConfigsError> {
        let record = match self.functions.get(app).await {
            Ok((record, _)) => record,
            Err(FunctionsError::NoSuchApp(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let versions = record.versions.iter().filter(|version| {
            record.traffic.percent_of(version.id) > 0
                && version.functions.iter().any(|f| f.settings.secrets.contains(name))
        });
        Ok(versions.map(|version| version.id).collect())
    }

    async fn find(&self, app: &AppName) -> Result<(ConfigRecord, Rev), StorageError> {
        let key = key(app);
        match self.registry.get(&key).await? {
            Some(doc) => Ok((decode(&key, &doc.body)?, doc.rev)),
            None => Ok((ConfigRecord::default(), NONE)),
        }
    }

    /// Changes a configuration in one write, and returns what the change says and the revision.
    async fn change<T>(
        &self,
        app: &AppName,
        expect: Option<Rev>,
        change: impl Fn(&mut ConfigRecord) -> Result<T, ConfigsError>,
    ) -> Result<(T, Rev), ConfigsError> {
        loop {
            let (before, rev) = self.find(app).await?;
            if expect.is_some_and(|expect| expect != rev) {
                return Err(ConfigsError::Conflict);
            }
            let mut record = before.clone();
            let said = change(&mut record)?;
            if record == before {
                return Ok((said, rev));
            }
            match self.write(app, record, rev).await {
                Ok(rev) => return Ok((said, rev)),
                // Without a precondition of the caller's the race is ours to run again.
                Err(ConfigsError::Conflict) if expect.is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn write(
        &self,
        app: &AppName,
        record: ConfigRecord,
        before: Rev,
    ) -> Result<Rev, ConfigsError> {
        record.check()?;
        let expect = if before == NONE { Expect::Absent } else { Expect::Rev(before) };
        if record.is_empty() {
            let rev = self.registry.delete(&key(app), expect).await?;
            self.functions.give(app, None, rev);
            return Ok(NONE);
        }
        let body = Bytes::from(record.encode()?);
        let rev = self.registry.put(&key(app), body, expect).await?;
        self.give(app, record, rev);
        Ok(rev)
    }

    fn give(&self, app: &AppName, record: ConfigRecord, rev: Rev) {
        self.functions.give(app, Some(given(&self.sealer, app, record)), rev);
    }
}

fn key(app: &AppName) -> DocKey {
    DocKey::new(&["config", app.as_str()])
}

fn app_name(key: &DocKey) -> Result<AppName, StorageError> {
    let name = key.as_str().strip_prefix(CONFIG).unwrap_or_default();
    name.parse().map_err(|error| StorageError::Damaged(format!("document `{key}`: {error}")))
}

fn decode(key: &DocKey, body: &[u8]) -> Result<ConfigRecord, StorageError> {
    check_reader(key, body)?;
    // Where it is wrong, not what stands there.
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        StorageError::Damaged(format!("document `{key}`, line {line}, column {column}"))
    })
}

fn no_such(what: &'static str, app: &AppName, name: &VarName) -> ConfigsError {
    ConfigsError::NoSuch { what, app: app.clone(), name: name.clone() }
}

fn list(versions: &[VersionId]) -> String {
    let names: Vec<String> = versions.iter().map(ToString::to_string).collect();
    names.join(", ")
}
