//! What is deployed: apps, their immutable versions, and which of them is live.
//!
//! The registry has the truth; [`Snapshot`] is the same as requests see it. Every change is one
//! write of one document, then one swap of the snapshot, and only then an acknowledgement.

pub(crate) mod address;
pub(crate) mod record;
pub(crate) mod snapshot;

use crate::{
    clock,
    storage::{Change, DocKey, Expect, Registry, Rev, StorageError},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use faas_api::{AppName, Digest, Kind, Traffic, VersionId};
use record::{AppRecord, NamedRecord, NewVersion, TrafficError};
use serde::{Deserialize, Serialize};
use snapshot::{Snapshot, SnapshotBuilder};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

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

/// The apps of a node.
pub(crate) struct Functions {
    registry: Arc<dyn Registry>,
    snapshot: Arc<ArcSwap<Snapshot>>,
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
        builder: SnapshotBuilder,
        keep_versions: usize,
    ) -> Result<(Self, Rev), FunctionsError> {
        let functions = Self {
            registry,
            snapshot: Arc::default(),
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

    /// Every app, by name.
    pub(crate) async fn list(&self) -> Result<Vec<NamedRecord>, FunctionsError> {
        let (docs, _) = self.registry.list(APPS).await?;
        docs.into_iter().map(|(key, doc)| Ok((app_name(&key)?, decode(&key, &doc.body)?))).collect()
    }

    /// An app and its revision.
    pub(crate) async fn get(&self, app: &AppName) -> Result<(AppRecord, Rev), FunctionsError> {
        self.find(app).await?.ok_or_else(|| FunctionsError::NoSuchApp(app.clone()))
    }

    /// Stores a new version, and makes it live if asked: one write. Returns its number and what
    /// was live before.
    pub(crate) async fn add_version(
        &self,
        app: &AppName,
        new: NewVersion,
    ) -> Result<(VersionId, Traffic), FunctionsError> {
        // Two deploys of one app at once: both are kept, the later one wins the traffic.
        loop {
            let now = clock::now();
            let (mut record, expect) = match self.find(app).await? {
                Some((record, rev)) => (record, Expect::Rev(rev)),
                None => (AppRecord::new(now), Expect::Absent),
            };
            let previous = record.traffic.clone();
            let id = record.add(new.clone(), self.keep_versions, now);
            match self.write(app, record, expect).await {
                Ok(_) => return Ok((id, previous)),
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
        loop {
            let (mut record, rev) = self.get(app).await?;
            if expect.is_some_and(|expect| expect != rev) {
                return Err(FunctionsError::Conflict);
            }
            record.check_traffic(&traffic)?;
            record.updated_at = clock::now();
            let previous = std::mem::replace(&mut record.traffic, traffic.clone());
            match self.write(app, record, Expect::Rev(rev)).await {
                Ok(rev) => return Ok((previous, rev)),
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
            let (_, rev) = self.get(app).await?;
            if expect.is_some_and(|expect| expect != rev) {
                return Err(FunctionsError::Conflict);
            }
            match self.registry.delete(&key(app), Expect::Rev(rev)).await {
                Ok(rev) => {
                    self.apply(app, None, rev);
                    return Ok(());
                }
                Err(StorageError::Conflict) if expect.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Every artifact that some kept version refers to.
    pub(crate) async fn digests(&self) -> Result<HashSet<Digest>, FunctionsError> {
        let (docs, _) = self.registry.list(APPS).await?;
        let mut digests = HashSet::new();
        for (key, doc) in docs {
            digests.extend(decode(&key, &doc.body)?.digests());
        }
        Ok(digests)
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
                Change::Put(key, doc) => app_name(&key).and_then(|app| {
                    let record = decode(&key, &doc.body)?;
                    self.apply(&app, Some(&record), doc.rev);
                    Ok(())
                }),
                Change::Deleted(key, rev) => app_name(&key).map(|app| self.apply(&app, None, rev)),
                Change::Resync => self.resync().await.map(drop),
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "a change of an app could not be followed");
            }
        }
        Ok(())
    }

    async fn find(&self, app: &AppName) -> Result<Option<(AppRecord, Rev)>, FunctionsError> {
        let key = key(app);
        match self.registry.get(&key).await? {
            Some(doc) => Ok(Some((decode(&key, &doc.body)?, doc.rev))),
            None => Ok(None),
        }
    }

    async fn write(
        &self,
        app: &AppName,
        record: AppRecord,
        expect: Expect,
    ) -> Result<Rev, FunctionsError> {
        let body = serde_json::to_vec(&record)
            .map_err(|error| StorageError::Failed(format!("app `{app}`: {error}")))?;
        let rev = self.registry.put(&key(app), Bytes::from(body), expect).await?;
        self.apply(app, Some(&record), rev);
        Ok(rev)
    }

    /// Brings the snapshot up to a change, unless it has it already.
    fn apply(&self, app: &AppName, record: Option<&AppRecord>, rev: Rev) {
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot.load_full();
        if let Some(next) = builder.apply(&current, app, record, rev) {
            self.snapshot.store(Arc::new(next));
        }
    }

    async fn resync(&self) -> Result<Rev, FunctionsError> {
        let (docs, rev) = self.registry.list(APPS).await?;
        // One at a time: all records at once would be most of what a large node ever allocates.
        let records = docs.into_iter().map(|(key, doc)| {
            let record: AppRecord = decode(&key, &doc.body)?;
            Ok::<_, FunctionsError>((app_name(&key)?, record, doc.rev))
        });
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot.load_full();
        self.snapshot.store(Arc::new(builder.rebuild(&current, records)?));
        Ok(rev)
    }
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
