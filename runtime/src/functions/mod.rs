//! What is deployed: apps, their immutable versions, and which of them is live.
//!
//! The registry has the truth; [`Snapshot`] is the same as requests see it. Every change is one
//! write of one document, then one swap of the snapshot, and only then an acknowledgement.

pub(crate) mod address;
pub(crate) mod canary;
mod domains;
pub(crate) mod environments;
pub(crate) mod guard;
pub(crate) mod keys;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub(crate) mod record;
pub(crate) mod routing;
pub(crate) mod snapshot;

use crate::{
    clock,
    storage::{Blobs, Change, DocKey, Expect, MAX_DOC_BYTES, Registry, Rev, StorageError},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use environments::Given;
use faas_api::{Aborted, AppName, Digest, Domain, Kind, Traffic, VersionId};
use record::{AppRecord, KeyReused, NamedRecord, NewVersion, TrafficError, VersionRecord};
use serde::{Deserialize, Serialize};
use snapshot::{LiveVersion, Snapshot, SnapshotBuilder};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// The prefix of apps' documents.
const APPS: &str = "apps/";

/// What a deploy may be and how many versions are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeployConfig {
    /// The largest artifact, in bytes.
    pub max_artifact_bytes: u64,
    /// How many versions of an app are kept; a live one is never removed.
    pub keep_versions: usize,
    /// CPU seconds that compiling one artifact may take.
    pub compile_cpu_s: u64,
    /// Seconds that compiling one artifact may take in all.
    pub compile_timeout_s: u64,
    /// The most memory the compile process may map, in bytes.
    pub compile_memory_bytes: u64,
    /// The most compile processes at once.
    pub compile_concurrency: usize,
}

impl Default for DeployConfig {
    fn default() -> Self {
        Self {
            max_artifact_bytes: 64 << 20,
            keep_versions: 20,
            compile_cpu_s: 60,
            compile_timeout_s: 120,
            compile_memory_bytes: 2 << 30,
            compile_concurrency: 1,
        }
    }
}

/// Why a question about apps has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FunctionsError {
    /// There is no such app.
    #[error("there is no app `{0}`")]
    NoSuchApp(AppName),
    /// The traffic cannot be what was asked for.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// There is no such version.
    #[error("there is no version {0}")]
    NoSuchVersion(VersionId),
    /// Another app has a domain.
    #[error(transparent)]
    Taken(#[from] domains::Taken),
    /// An `idempotency-key` was used for two different deploys.
    #[error(transparent)]
    KeyReused(#[from] KeyReused),
    /// What is kept of the app is more than fits.
    #[error(
        "the record of `{0}` has no room for that: its domains and pinned versions are too many"
    )]
    TooLarge(AppName),
    /// Somebody else changed the app in between.
    #[error("the app changed in between")]
    Conflict,
    /// The storage failed.
    #[error(transparent)]
    Storage(StorageError),
}

impl From<StorageError> for FunctionsError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Conflict => Self::Conflict,
            other => Self::Storage(other),
        }
    }
}

/// What a registry's apps need.
pub(crate) struct Needed {
    /// Every artifact that some kept version refers to.
    pub(crate) digests: HashSet<Digest>,
    /// How many apps there are.
    pub(crate) apps: usize,
}

/// What the apps in a registry need, without a node around it.
///
/// # Errors
/// When the registry cannot be read, or holds something that is not an app.
pub(crate) async fn artifacts_in(
    registry: &dyn Registry,
    blobs: &dyn Blobs,
) -> Result<Needed, FunctionsError> {
    let (docs, _) = registry.list(APPS).await?;
    let mut digests = HashSet::new();
    for (key, doc) in &docs {
        let mut record = decode(key, &doc.body)?;
        fill(blobs, &mut record).await?;
        digests.extend(record.digests());
    }
    Ok(Needed { digests, apps: docs.len() })
}

/// The apps of a node.
pub(crate) struct Functions {
    registry: Arc<dyn Registry>,
    blobs: Arc<dyn Blobs>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// Told of every other snapshot.
    changes: watch::Sender<()>,
    builder: Mutex<SnapshotBuilder>,
    keep_versions: usize,
}

impl Functions {
    /// Reads every app and builds the first snapshot.
    ///
    /// # Errors
    /// When the registry cannot be read, or holds something that is not an app.
    pub(crate) async fn load(
        registry: Arc<dyn Registry>,
        blobs: Arc<dyn Blobs>,
        builder: SnapshotBuilder,
        keep_versions: usize,
    ) -> Result<(Self, Rev), FunctionsError> {
        let functions = Self {
            registry,
            blobs,
            snapshot: Arc::default(),
            changes: watch::Sender::default(),
            builder: Mutex::new(builder),
            keep_versions,
        };
        let rev = functions.resync().await?;
        Ok((functions, rev))
    }

    /// What requests see. Load it once per request.
    pub(crate) fn snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        self.snapshot.clone()
    }

    /// Changes whenever what requests see does.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn show(&self, next: Snapshot) {
        self.snapshot.store(Arc::new(next));
        self.changes.send_replace(());
    }

    /// Every app, by name.
    pub(crate) async fn list(&self) -> Result<Vec<NamedRecord>, FunctionsError> {
        let (docs, _) = self.registry.list(APPS).await?;
        docs.into_iter().map(|(key, doc)| Ok((app_name(&key)?, decode(&key, &doc.body)?))).collect()
    }

    /// A version that an earlier sending of this deploy made.
    pub(crate) async fn made_by(
        &self,
        app: &AppName,
        deploy: &record::DeployKey,
    ) -> Result<Option<VersionRecord>, FunctionsError> {
        let Some((record, _)) = self.find(app).await? else {
            return Ok(None);
        };
        Ok(record.made_by(deploy)?.cloned())
    }

    /// The number that the next version of an app will have, unless somebody is faster.
    pub(crate) async fn next_version(&self, app: &AppName) -> Result<VersionId, FunctionsError> {
        let found = self.find(app).await?;
        Ok(VersionId::new(found.map_or(1, |(record, _)| record.next_version)))
    }

    /// A version that is not stored and that nobody can reach.
    pub(crate) fn unpublished(&self, app: &AppName, version: &VersionRecord) -> LiveVersion {
        let builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        builder.live_version(app, version)
    }

    /// Forgets what [`Functions::unpublished`] left of an app that never came to be.
    pub(crate) fn discard(&self, app: &AppName) {
        let builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        if self.snapshot.load().app(app.as_str()).is_none() {
            builder.logs.remove(app);
        }
    }

    /// Whether an app could have these domains.
    pub(crate) async fn check_domains(
        &self,
        app: &AppName,
        domains: &[Domain],
    ) -> Result<(), FunctionsError> {
        domains::check(&*self.registry, app, domains).await
    }

    /// An app and its revision.
    pub(crate) async fn get(&self, app: &AppName) -> Result<(AppRecord, Rev), FunctionsError> {
        self.find(app).await?.ok_or_else(|| FunctionsError::NoSuchApp(app.clone()))
    }

    /// Stores a new version, and does with the traffic what it asks for: one write, after its
    /// domains were claimed.
    pub(crate) async fn add_version(
        &self,
        app: &AppName,
        new: NewVersion,
    ) -> Result<Added, FunctionsError> {
        let surplus = |added: &Added| added.version.number() as usize > self.keep_versions;
        if new.domains.is_empty() {
            let added = self.add(app, &new).await?;
            if surplus(&added) {
                domains::release(&*self.registry, app).await?;
            }
            return Ok(added);
        }
        let pending = domains::pending();
        let added = match domains::claim(&*self.registry, app, &new.domains, &pending).await {
            Ok(()) => self.add(app, &new).await,
            Err(error) => Err(error),
        };
        domains::settle(&*self.registry, app, &pending).await?;
        if added.as_ref().is_ok_and(surplus) {
            domains::release(&*self.registry, app).await?;
        }
        added
    }

    async fn add(&self, app: &AppName, new: &NewVersion) -> Result<Added, FunctionsError> {
        // Two deploys of one app at once: both are kept, the later one wins the traffic.
        loop {
            let now = clock::now();
            let (mut record, expect) = match self.find(app).await? {
                Some((record, rev)) => (record, Expect::Rev(rev)),
                None => (AppRecord::new(now), Expect::Absent),
            };
            let previous = record.traffic.clone();
            if let Some(deploy) = &new.deploy
                && let Some(version) = record.made_by(deploy)?
            {
                let (version, traffic) = (version.id, previous.clone());
                return Ok(Added { version, previous, traffic, replayed: true });
            }
            let version = record.add(new.clone(), self.keep_versions, now);
            // As many as were asked for, if they fit.
            while stored_bytes(app, &record)?.len() > MAX_DOC_BYTES && record.drop_oldest(true) {}
            let traffic = record.traffic.clone();
            match self.write(app, record, expect).await {
                Ok(_) => return Ok(Added { version, previous, traffic, replayed: false }),
                Err(FunctionsError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves traffic, and returns what was live before and the app's new revision. With `expect`,
    /// only if the app is still at that revision.
    pub(crate) async fn set_traffic(
        &self,
        app: &AppName,
        traffic: Traffic,
        expect: Option<Rev>,
    ) -> Result<(Traffic, Rev), FunctionsError> {
        let change = |record: &mut AppRecord| {
            record.check_traffic(&traffic)?;
            Ok(record.go_to(traffic.clone()))
        };
        self.change(app, expect, change).await
    }

    /// Keeps a version however many newer ones there are, or no longer. Returns the app's new
    /// revision.
    pub(crate) async fn pin(
        &self,
        app: &AppName,
        version: VersionId,
        pinned: bool,
        expect: Option<Rev>,
    ) -> Result<Rev, FunctionsError> {
        let change = |record: &mut AppRecord| {
            record.version(version).ok_or(FunctionsError::NoSuchVersion(version))?;
            match pinned {
                true => record.pinned.insert(version),
                false => record.pinned.remove(&version),
            };
            Ok(())
        };
        self.change(app, expect, change).await.map(|((), rev)| rev)
    }

    /// Takes its share from a version on trial. Nothing happens when it is on trial no more.
    pub(crate) async fn abort(
        &self,
        app: &AppName,
        aborted: Aborted,
    ) -> Result<bool, FunctionsError> {
        let change = |record: &mut AppRecord| {
            if record.traffic.canary.is_none_or(|canary| canary.version != aborted.version) {
                return Ok(false);
            }
            record.go_to(record.traffic.without_canary());
            record.aborted = Some(aborted.clone());
            Ok(true)
        };
        self.change(app, None, change).await.map(|(done, _)| done)
    }

    /// Changes an app in one write, and returns what the change says and the new revision. With
    /// `expect`, only if the app is still at that revision.
    async fn change<T>(
        &self,
        app: &AppName,
        expect: Option<Rev>,
        change: impl Fn(&mut AppRecord) -> Result<T, FunctionsError>,
    ) -> Result<(T, Rev), FunctionsError> {
        loop {
            let (mut record, rev) = self.get(app).await?;
            if expect.is_some_and(|expect| expect != rev) {
                return Err(FunctionsError::Conflict);
            }
            let said = change(&mut record)?;
            record.updated_at = clock::now();
            match self.write(app, record, Expect::Rev(rev)).await {
                Ok(rev) => return Ok((said, rev)),
                // Without a precondition of the caller's the race is ours to run again.
                Err(FunctionsError::Conflict) if expect.is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes an app with all its versions. With `expect`, only if the app is still at that
    /// revision.
    pub(crate) async fn delete(
        &self,
        app: &AppName,
        expect: Option<Rev>,
    ) -> Result<(), FunctionsError> {
        loop {
            let (record, rev) = self.get(app).await?;
            if expect.is_some_and(|expect| expect != rev) {
                return Err(FunctionsError::Conflict);
            }
            match self.registry.delete(&key(app), Expect::Rev(rev)).await {
                Ok(rev) => {
                    self.apply(app, None, rev);
                    if !record.domains().is_empty() {
                        domains::release(&*self.registry, app).await?;
                    }
                    return Ok(());
                }
                Err(StorageError::Conflict) if expect.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Every artifact that some kept version refers to.
    pub(crate) async fn digests(&self) -> Result<HashSet<Digest>, FunctionsError> {
        Ok(artifacts_in(&*self.registry, &*self.blobs).await?.digests)
    }

    /// Every artifact that some kept version refers to with its kind, once each, those that are
    /// live first.
    pub(crate) fn artifacts(&self) -> Vec<(Digest, Kind)> {
        let snapshot = self.snapshot.load();
        let mut seen = HashSet::new();
        snapshot.artifacts().filter(|(digest, _)| seen.insert(*digest)).collect()
    }

    /// Follows changes that others make, from this revision on, until the registry ends.
    pub(crate) async fn follow(&self, after: Rev) -> Result<(), FunctionsError> {
        let mut changes = self.registry.watch(APPS, after).await?;
        while let Some(change) = changes.recv().await {
            let outcome = match change {
                Change::Put(key, doc) => self.follow_one(&key, &doc.body, doc.rev).await,
                Change::Deleted(key, rev) => app_name(&key).map(|app| self.apply(&app, None, rev)),
                Change::Resync => self.resync().await.map(drop),
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "a change of an app could not be followed");
            }
        }
        Ok(())
    }

    async fn follow_one(&self, key: &DocKey, body: &[u8], rev: Rev) -> Result<(), FunctionsError> {
        let (app, mut record) = (app_name(key)?, decode(key, body)?);
        self.fill(&mut record).await?;
        self.apply(&app, Some(&record), rev);
        Ok(())
    }

    async fn find(&self, app: &AppName) -> Result<Option<(AppRecord, Rev)>, FunctionsError> {
        let Some((mut record, rev)) = find_app(&*self.registry, app).await? else {
            return Ok(None);
        };
        self.fill(&mut record).await?;
        Ok(Some((record, rev)))
    }

    async fn fill(&self, record: &mut AppRecord) -> Result<(), FunctionsError> {
        fill(&*self.blobs, record).await
    }

    async fn write(
        &self,
        app: &AppName,
        record: AppRecord,
        expect: Expect,
    ) -> Result<Rev, FunctionsError> {
        let body = stored_bytes(app, &record)?;
        if body.len() > MAX_DOC_BYTES {
            return Err(FunctionsError::TooLarge(app.clone()));
        }
        let rev = self.registry.put(&key(app), Bytes::from(body), expect).await?;
        self.apply(app, Some(&record), rev);
        Ok(rev)
    }

    /// Brings the snapshot up to a change, unless it has it already.
    fn apply(&self, app: &AppName, record: Option<&AppRecord>, rev: Rev) {
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot.load_full();
        if let Some(next) = builder.apply(&current, app, record, rev) {
            self.show(next);
        }
    }

    /// Gives an app other variables and secrets, unless something newer is known. From the next
    /// request on its functions see them.
    pub(crate) fn give(&self, app: &AppName, given: Option<Given>, rev: Rev) {
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot.load_full();
        if let Some(next) = builder.give(&current, app, given, rev) {
            self.show(next);
        }
    }

    /// The apps that were given something.
    pub(crate) fn given(&self) -> Vec<AppName> {
        let builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        builder.environments.configured().cloned().collect()
    }

    async fn resync(&self) -> Result<Rev, FunctionsError> {
        let (docs, rev) = self.registry.list(APPS).await?;
        let mut filled = HashMap::new();
        for (key, doc) in docs.iter().filter(|(_, doc)| has_blob(&doc.body)) {
            let mut record = decode(key, &doc.body)?;
            self.fill(&mut record).await?;
            filled.insert(key.clone(), record);
        }
        // One at a time: all records at once would be most of what a large node ever allocates.
        let records = docs.into_iter().map(|(key, doc)| {
            let record = match filled.remove(&key) {
                Some(record) => record,
                None => decode(&key, &doc.body)?,
            };
            Ok::<_, FunctionsError>((app_name(&key)?, record, doc.rev))
        });
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot.load_full();
        self.show(builder.rebuild(&current, records)?);
        Ok(rev)
    }
}

/// Reads the functions of versions that have too many of them for the app's document.
async fn fill(blobs: &dyn Blobs, record: &mut AppRecord) -> Result<(), FunctionsError> {
    for version in &mut record.versions {
        let (Some(digest), true) = (version.functions_at, version.functions.is_empty()) else {
            continue;
        };
        let damaged = |why: String| StorageError::Damaged(format!("blob {digest}: {why}"));
        let blob = blobs.get(&digest).await?;
        let blob = blob.ok_or_else(|| damaged("it is gone".to_owned()))?;
        version.functions =
            serde_json::from_slice(&blob).map_err(|error| damaged(error.to_string()))?;
    }
    Ok(())
}

/// What a deploy changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    /// The version's number.
    pub(crate) version: VersionId,
    /// What was live before,
    pub(crate) previous: Traffic,
    /// and what is now.
    pub(crate) traffic: Traffic,
    /// Whether the version was there already: the deploy was sent a second time.
    pub(crate) replayed: bool,
}

/// An app's document as it is; versions with many functions have theirs elsewhere.
async fn find_app(
    registry: &dyn Registry,
    app: &AppName,
) -> Result<Option<(AppRecord, Rev)>, FunctionsError> {
    let key = key(app);
    match registry.get(&key).await? {
        Some(doc) => Ok(Some((decode(&key, &doc.body)?, doc.rev))),
        None => Ok(None),
    }
}

/// A record as it is stored.
fn stored_bytes(app: &AppName, record: &AppRecord) -> Result<Vec<u8>, StorageError> {
    serde_json::to_vec(&stored(record))
        .map_err(|error| StorageError::Failed(format!("app `{app}`: {error}")))
}

/// A record as it is written: without the functions that have a blob of their own.
fn stored(record: &AppRecord) -> AppRecord {
    let mut record = record.clone();
    for version in record.versions.iter_mut().filter(|version| version.functions_at.is_some()) {
        version.functions.clear();
    }
    record
}

/// Whether a document refers to functions that are stored elsewhere, without reading all of it:
/// at start there are thousands.
fn has_blob(body: &[u8]) -> bool {
    const MARK: &[u8] = b"\"functions_at\"";
    body.windows(MARK.len()).any(|window| window == MARK)
}

fn key(app: &AppName) -> DocKey {
    DocKey::new(&["apps", app.as_str()])
}

fn app_name(key: &DocKey) -> Result<AppName, FunctionsError> {
    let name = key.as_str().strip_prefix(APPS).unwrap_or_default();
    let damaged = |error| StorageError::Damaged(format!("document `{key}`: {error}"));
    name.parse().map_err(damaged).map_err(FunctionsError::from)
}

fn decode(key: &DocKey, body: &[u8]) -> Result<AppRecord, FunctionsError> {
    serde_json::from_slice(body)
        .map_err(|error| StorageError::Damaged(format!("document `{key}`: {error}")).into())
}
