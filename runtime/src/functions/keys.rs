//! The API keys of apps.
//!
//! Each key is a document of its own, `keys/<app>/<name>`, so that two keys cannot get one name
//! however their makers overlap. It holds the SHA-256 of the key's text and never the text: 256
//! random bits need no slower hash. Requests look the hash up in memory.

use crate::{
    clock,
    storage::{
        Change, DocKey, Expect, Registry, Rev, StorageError,
        record::{Rest, read as decode},
    },
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use faas_api::{
    ApiKey, AppName, CreatedKey, Digest, FunctionName, KeyName, NewKey, keys::KEY_PREFIX,
};
use http::HeaderValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};
use ulid::Ulid;

/// The prefix of keys' documents.
const KEYS: &str = "keys/";
/// The most keys of an app: all of them are in memory.
const MAX_KEYS: usize = 10_000;

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyRecord {
    key: ApiKey,
    /// Of the key's text.
    sha256: Digest,
    /// What a newer server added.
    #[serde(flatten)]
    rest: Rest,
}

/// Why keys are not as they were wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// The app has a key of this name.
    #[error("there is a key `{0}` already")]
    NameTaken(KeyName),
    /// The app has as many keys as it may have.
    #[error("an app has at most {MAX_KEYS} keys")]
    TooMany,
    /// The app has no such key.
    #[error("there is no such key")]
    NoSuchKey,
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    NoRandom(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A key, as a request sees it.
#[derive(Debug)]
pub(crate) struct LiveKey {
    /// Its id.
    pub(crate) id: String,
    /// What its holder is called: `key:NAME`.
    pub(crate) caller: HeaderValue,
    name: KeyName,
    functions: Box<[FunctionName]>,
    expires_at: Option<Timestamp>,
    rev: Rev,
}

impl LiveKey {
    fn new(record: &KeyRecord, rev: Rev) -> Self {
        let caller = HeaderValue::from_str(&format!("key:{}", record.key.name));
        Self {
            id: record.key.id.clone(),
            caller: caller.unwrap_or_else(|_| HeaderValue::from_static("key:")),
            name: record.key.name.clone(),
            functions: record.key.functions.clone().into(),
            expires_at: record.key.expires_at,
            rev,
        }
    }

    /// Whether its time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.expires_at.is_some_and(|end| end <= clock::now())
    }

    /// Whether it opens this function.
    pub(crate) fn opens(&self, function: &FunctionName) -> bool {
        self.functions.is_empty() || self.functions.contains(function)
    }
}

/// The keys of an app by the hashes of their texts.
type AppKeys = HashMap<Digest, Arc<LiveKey>>;
/// The keys of every app that has some.
type AllKeys = HashMap<AppName, Arc<AppKeys>>;

/// The keys of a node's apps.
pub(crate) struct Keys {
    registry: Arc<dyn Registry>,
    live: ArcSwap<AllKeys>,
    /// Held while the keys in memory change. It has the newest revision of each key that is gone,
    /// so that a late word does not bring it back.
    changing: Mutex<HashMap<DocKey, Rev>>,
}

impl Keys {
    /// Reads every key, and the revision at which that was so. Keys of apps that are gone are
    /// removed: a node that was killed may have left them.
    ///
    /// # Errors
    /// When the registry cannot be read, or holds something that is no key.
    pub(crate) async fn load(
        registry: Arc<dyn Registry>,
        apps: &HashSet<AppName>,
    ) -> Result<(Self, Rev), StorageError> {
        let keys = Self { registry, live: ArcSwap::default(), changing: Mutex::default() };
        let rev = keys.resync().await?;
        let orphans = keys.live.load_full();
        for app in orphans.keys().filter(|app| !apps.contains(*app)) {
            keys.remove_all(app).await?;
        }
        Ok((keys, rev))
    }

    /// The key of an app whose text has this hash.
    pub(crate) fn find(&self, app: &AppName, sha256: &Digest) -> Option<Arc<LiveKey>> {
        self.live.load().get(app)?.get(sha256).cloned()
    }

    /// The keys of an app, by name.
    pub(crate) async fn list(&self, app: &AppName) -> Result<Vec<ApiKey>, StorageError> {
        let records = self.records(app).await?;
        Ok(records.into_iter().map(|(_, record, _)| record.key).collect())
    }

    /// Makes a key. From now on its text opens what it is for.
    pub(crate) async fn create(
        &self,
        app: &AppName,
        new: NewKey,
        created_by: &str,
    ) -> Result<CreatedKey, KeysError> {
        if self.live.load().get(app).is_some_and(|keys| keys.len() >= MAX_KEYS) {
            return Err(KeysError::TooMany);
        }
        let secret = secret()?;
        let NewKey { name, functions, expires_at } = new;
        let key = ApiKey {
            id: Ulid::generate().to_string().to_ascii_lowercase(),
            name,
            functions,
            created_at: clock::now(),
            created_by: created_by.to_owned(),
            expires_at,
        };
        let record = KeyRecord { key, sha256: Digest::of(secret.as_bytes()), rest: Rest::new() };
        let doc = doc_key(app, &record.key.name);
        let body = serde_json::to_vec(&record)
            .map_err(|error| StorageError::Failed(format!("`{doc}`: {error}")))?;
        match self.registry.put(&doc, Bytes::from(body), Expect::Absent).await {
            Ok(rev) => self.put(app, &doc, &record, rev),
            Err(StorageError::Conflict) => return Err(KeysError::NameTaken(record.key.name)),
            Err(error) => return Err(error.into()),
        }
        Ok(CreatedKey { secret, key: record.key })
    }

    /// Ends the key with this id or name, and returns what it was.
    pub(crate) async fn revoke(&self, app: &AppName, wanted: &str) -> Result<ApiKey, KeysError> {
        let records = self.records(app).await?;
        let is_wanted = |key: &ApiKey| key.id == wanted || key.name.as_str() == wanted;
        let found = records.into_iter().find(|(_, record, _)| is_wanted(&record.key));
        let (doc, record, rev) = found.ok_or(KeysError::NoSuchKey)?;
        match self.registry.delete(&doc, Expect::Rev(rev)).await {
            Ok(rev) => self.take(app, &doc, rev),
            // Somebody else has revoked it just now.
            Err(StorageError::Conflict) => return Err(KeysError::NoSuchKey),
            Err(error) => return Err(error.into()),
        }
        Ok(record.key)
    }

    /// Ends every key of an app that is gone.
    pub(crate) async fn remove_all(&self, app: &AppName) -> Result<(), StorageError> {
        for (doc, _, _) in self.records(app).await? {
            let rev = self.registry.delete(&doc, Expect::Any).await?;
            self.take(app, &doc, rev);
        }
        Ok(())
    }

    /// Follows changes that others make, from this revision on, until the registry ends.
    pub(crate) async fn follow(&self, after: Rev) -> Result<(), StorageError> {
        let mut changes = self.registry.watch(KEYS, after).await?;
        while let Some(change) = changes.recv().await {
            let outcome = match change {
                Change::Put(key, doc) => app_of(&key).and_then(|app| {
                    self.put(&app, &key, &decode(&key, &doc.body)?, doc.rev);
                    Ok(())
                }),
                Change::Deleted(key, rev) => app_of(&key).map(|app| self.take(&app, &key, rev)),
                Change::Resync => self.resync().await.map(drop),
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "a change of a key could not be followed");
            }
        }
        Ok(())
    }

    async fn records(&self, app: &AppName) -> Result<Vec<(DocKey, KeyRecord, Rev)>, StorageError> {
        let (docs, _) = self.registry.list(&format!("{KEYS}{app}/")).await?;
        docs.into_iter()
            .map(|(key, doc)| {
                let record = decode(&key, &doc.body)?;
                Ok((key, record, doc.rev))
            })
            .collect()
    }

    async fn resync(&self) -> Result<Rev, StorageError> {
        let (docs, rev) = self.registry.list(KEYS).await?;
        let mut all: HashMap<AppName, AppKeys> = HashMap::new();
        for (key, doc) in docs {
            let record: KeyRecord = decode(&key, &doc.body)?;
            let live = Arc::new(LiveKey::new(&record, doc.rev));
            all.entry(app_of(&key)?).or_default().insert(record.sha256, live);
        }
        // What has changed since the list was made counts more than the list.
        let gone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for (app, keys) in self.live.load().iter() {
            let newer = keys.iter().filter(|(_, key)| key.rev > rev);
            let newer: Vec<_> = newer.map(|(hash, key)| (*hash, key.clone())).collect();
            if !newer.is_empty() {
                all.entry(app.clone()).or_default().extend(newer);
            }
        }
        for (app, keys) in &mut all {
            let is_gone = |key: &LiveKey| {
                gone.get(&doc_key(app, &key.name)).is_some_and(|gone| *gone > key.rev)
            };
            keys.retain(|_, key| !is_gone(key));
        }
        let all = all.into_iter().map(|(app, keys)| (app, Arc::new(keys)));
        self.live.store(Arc::new(all.collect()));
        Ok(rev)
    }

    /// Adds a key, or what has become of it.
    fn put(&self, app: &AppName, doc: &DocKey, record: &KeyRecord, rev: Rev) {
        let mut gone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.get(doc).is_some_and(|gone| *gone >= rev) {
            return;
        }
        gone.remove(doc);
        self.change(app, |keys| {
            keys.retain(|_, key| key.name != record.key.name || key.rev > rev);
            keys.insert(record.sha256, Arc::new(LiveKey::new(record, rev)));
        });
    }

    /// Takes a key away.
    fn take(&self, app: &AppName, doc: &DocKey, rev: Rev) {
        let mut gone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        gone.insert(doc.clone(), rev);
        self.change(app, |keys| {
            keys.retain(|_, key| doc_key(app, &key.name) != *doc || key.rev > rev);
        });
    }

    fn change(&self, app: &AppName, change: impl FnOnce(&mut AppKeys)) {
        let mut all = AllKeys::clone(&self.live.load());
        let mut keys = all.get(app).map(|keys| AppKeys::clone(keys)).unwrap_or_default();
        change(&mut keys);
        match keys.is_empty() {
            true => all.remove(app),
            false => all.insert(app.clone(), Arc::new(keys)),
        };
        self.live.store(Arc::new(all));
    }
}

/// The text of a new key: 256 random bits behind a prefix that scanners know.
fn secret() -> Result<String, KeysError> {
    let mut bits = [0_u8; 32];
    getrandom::fill(&mut bits).map_err(|error| KeysError::NoRandom(error.to_string()))?;
    let mut text = String::with_capacity(KEY_PREFIX.len() + 64);
    text.push_str(KEY_PREFIX);
    for byte in bits {
        // A string takes everything.
        write!(text, "{byte:02x}").ok();
    }
    Ok(text)
}

fn doc_key(app: &AppName, name: &KeyName) -> DocKey {
    DocKey::new(&["keys", app.as_str(), name.as_str()])
}

fn app_of(key: &DocKey) -> Result<AppName, StorageError> {
    let rest = key.as_str().strip_prefix(KEYS).unwrap_or_default();
    let (app, _) = rest.split_once('/').unwrap_or_default();
    app.parse().map_err(|error| StorageError::Damaged(format!("document `{key}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryRegistry;
    use jiff::SignedDuration;

    fn app() -> AppName {
        "shop".parse().unwrap()
    }

    fn new(name: &str) -> NewKey {
        NewKey { name: name.parse().unwrap(), functions: vec![], expires_at: None }
    }

    async fn keys(registry: &Arc<MemoryRegistry>) -> Keys {
        let apps = HashSet::from([app()]);
        Keys::load(registry.clone(), &apps).await.unwrap().0
    }

    fn found(keys: &Keys, secret: &str) -> Option<Arc<LiveKey>> {
        keys.find(&app(), &Digest::of(secret.as_bytes()))
    }

    #[tokio::test]
    async fn a_key_opens_until_it_is_revoked() {
        let registry = Arc::new(MemoryRegistry::default());
        let keys = keys(&registry).await;
        let made = keys.create(&app(), new("ci"), "admin").await.unwrap();
        assert!(made.secret.starts_with(KEY_PREFIX) && made.secret.len() == 73);
        let live = found(&keys, &made.secret).unwrap();
        assert_eq!((live.caller.to_str().unwrap(), &live.id), ("key:ci", &made.key.id));
        assert!(!live.is_over() && live.opens(&"any".parse().unwrap()));
        assert!(found(&keys, "faas_key_other").is_none());
        assert!(
            keys.find(&"other".parse().unwrap(), &Digest::of(made.secret.as_bytes())).is_none()
        );
        assert_eq!(keys.list(&app()).await.unwrap(), std::slice::from_ref(&made.key));
        // Another node, or this one after its restart, knows it too.
        assert!(found(&self::keys(&registry).await, &made.secret).is_some());
        assert_eq!(keys.revoke(&app(), &made.key.id).await.unwrap(), made.key);
        assert!(found(&keys, &made.secret).is_none());
        assert!(matches!(keys.revoke(&app(), "ci").await, Err(KeysError::NoSuchKey)));
    }

    #[tokio::test]
    async fn no_text_of_a_key_is_stored() {
        let registry = Arc::new(MemoryRegistry::default());
        let keys = keys(&registry).await;
        let made = keys.create(&app(), new("ci"), "admin").await.unwrap();
        let (docs, _) = registry.list("").await.unwrap();
        let bits = made.secret.strip_prefix(KEY_PREFIX).unwrap();
        for (_, doc) in docs {
            assert!(!String::from_utf8_lossy(&doc.body).contains(bits));
        }
    }

    #[tokio::test]
    async fn a_name_is_given_once() {
        let registry = Arc::new(MemoryRegistry::default());
        let keys = keys(&registry).await;
        let first = keys.create(&app(), new("ci"), "admin").await.unwrap();
        let again = keys.create(&app(), new("ci"), "admin").await;
        assert!(matches!(again, Err(KeysError::NameTaken(_))));
        keys.revoke(&app(), "ci").await.unwrap();
        let second = keys.create(&app(), new("ci"), "admin").await.unwrap();
        assert_ne!(first.secret, second.secret);
        assert!(found(&keys, &first.secret).is_none() && found(&keys, &second.secret).is_some());
    }

    #[tokio::test]
    async fn what_a_key_is_for() {
        let registry = Arc::new(MemoryRegistry::default());
        let keys = keys(&registry).await;
        let past = clock::now() - SignedDuration::from_secs(1);
        let wanted = NewKey {
            functions: vec!["api".parse().unwrap()],
            expires_at: Some(past),
            ..new("old")
        };
        let made = keys.create(&app(), wanted, "admin").await.unwrap();
        let live = found(&keys, &made.secret).unwrap();
        assert!(live.is_over());
        assert!(live.opens(&"api".parse().unwrap()) && !live.opens(&"admin".parse().unwrap()));
    }

    #[tokio::test]
    async fn keys_of_an_app_that_is_gone_open_nothing() {
        let registry = Arc::new(MemoryRegistry::default());
        let made = keys(&registry).await.create(&app(), new("ci"), "admin").await.unwrap();
        let (keys, _) = Keys::load(registry.clone(), &HashSet::new()).await.unwrap();
        assert!(found(&keys, &made.secret).is_none());
        assert_eq!(registry.list(KEYS).await.unwrap().0.len(), 0);
    }

    #[tokio::test]
    async fn changes_of_others_are_followed_and_late_words_change_nothing() {
        let registry = Arc::new(MemoryRegistry::default());
        let (one, two) = (keys(&registry).await, keys(&registry).await);
        let made = one.create(&app(), new("ci"), "admin").await.unwrap();
        let (docs, rev) = registry.list(KEYS).await.unwrap();
        let (doc_key, doc) = docs.first().unwrap();
        let record = decode(doc_key, &doc.body).unwrap();
        two.put(&app(), doc_key, &record, rev);
        assert!(found(&two, &made.secret).is_some());
        two.take(&app(), doc_key, rev + 1);
        assert!(found(&two, &made.secret).is_none());
        two.put(&app(), doc_key, &record, rev);
        assert!(found(&two, &made.secret).is_none(), "a late word");
    }
}
