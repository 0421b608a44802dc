//! Blobs that no version names yet, and the sweep that removes what none will.
//!
//! A blob is safe while a deploy holds it, and for an hour after it was sent by itself: a deploy of
//! many artifacts sends those that are new first, and goes on after a server was restarted.

use crate::{
    clock,
    engine::Engine,
    functions::Functions,
    storage::{BlobWriter, Blobs, DocKey, Expect, Registry, StorageError},
};
use bytes::Bytes;
use faas_api::Digest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// The prefix of notes about blobs that were sent by themselves.
const UPLOADS: &str = "uploads/";
/// How long a deploy may take from its first blob to its version.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// The blobs, and who needs them.
pub(super) struct Uploads {
    blobs: Arc<dyn Blobs>,
    registry: Arc<dyn Registry>,
    held: Mutex<HashMap<Digest, usize>>,
    /// Taken while an artifact gets its name, and while names are swept.
    naming: tokio::sync::Mutex<()>,
    /// Read by sweeps, written by whoever needs that there are none.
    sweeping: Arc<tokio::sync::RwLock<()>>,
}

/// Nothing is swept while this lives.
pub(crate) struct SweepPause {
    _guard: tokio::sync::OwnedRwLockWriteGuard<()>,
}

impl Uploads {
    pub(super) fn new(blobs: Arc<dyn Blobs>, registry: Arc<dyn Registry>) -> Self {
        Self {
            blobs,
            registry,
            held: Mutex::default(),
            naming: tokio::sync::Mutex::default(),
            sweeping: Arc::default(),
        }
    }

    pub(super) fn blobs(&self) -> &dyn Blobs {
        &*self.blobs
    }

    /// Makes a written blob durable, and holds it. Tells whether it is new here.
    pub(super) async fn finish(
        &self,
        writer: Box<dyn BlobWriter>,
    ) -> Result<(Hold<'_>, bool), StorageError> {
        let _naming = self.naming.lock().await;
        let (digest, new) = writer.finish().await?;
        Ok((self.hold(digest), new))
    }

    /// Stores bytes, and holds them.
    pub(super) async fn store(&self, bytes: &[u8]) -> Result<Hold<'_>, StorageError> {
        let mut writer = self.blobs.create().await?;
        writer.write(bytes).await?;
        self.finish(writer).await.map(|(hold, _)| hold)
    }

    /// Holds those of these blobs that there are, and tells which there are not.
    pub(super) async fn hold_all(
        &self,
        digests: &[Digest],
    ) -> Result<(Vec<Hold<'_>>, Vec<Digest>), StorageError> {
        let _naming = self.naming.lock().await;
        let (mut held, mut missing) = (Vec::new(), Vec::new());
        for digest in digests {
            match self.blobs.file(digest).await? {
                Some(_) => held.push(self.hold(*digest)),
                None => missing.push(*digest),
            }
        }
        Ok((held, missing))
    }

    fn hold(&self, digest: Digest) -> Hold<'_> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default() += 1;
        Hold { uploads: self, digest }
    }

    /// Notes that a blob of so many bytes, sent by a token of this name, waits for its deploy.
    pub(super) async fn expect_deploy(
        &self,
        digest: &Digest,
        by: &str,
        bytes: u64,
    ) -> Result<(), StorageError> {
        // Who sent it first has it on the bill.
        let before = self.registry.get(&note(digest)).await?;
        let before = before.and_then(|doc| Note::read(&doc.body)).filter(|note| note.bytes > bytes);
        let (by, bytes) = before.map_or((by.to_owned(), bytes), |note| (note.by, note.bytes));
        let note_text = serde_json::to_vec(&Note { since: clock::now(), by, bytes })
            .map_err(|error| StorageError::Failed(format!("upload {digest}: {error}")))?;
        self.registry.put(&note(digest), Bytes::from(note_text), Expect::Any).await.map(drop)
    }

    /// How many bytes of what a token has sent wait for their deploy, beside this blob: sending that
    /// again takes no more room.
    pub(super) async fn waiting(&self, by: &str, beside: &Digest) -> Result<u64, StorageError> {
        let (notes, _) = self.registry.list(UPLOADS).await?;
        let others = notes.iter().filter(|(key, _)| *key != note(beside));
        let notes = others.filter_map(|(_, doc)| Note::read(&doc.body));
        Ok(notes.filter(|note| note.by == by && note.is_awaited()).map(|note| note.bytes).sum())
    }

    /// Its deploy has come.
    pub(super) async fn deployed(&self, digests: &[Digest]) -> Result<(), StorageError> {
        for digest in digests {
            if self.registry.get(&note(digest)).await?.is_some() {
                self.registry.delete(&note(digest), Expect::Any).await?;
            }
        }
        Ok(())
    }

    /// Removes blobs and native code that no kept version, no deploy under way and none to come
    /// refers to. Returns how many.
    pub(super) async fn sweep(
        &self,
        functions: &Functions,
        engine: &Engine,
    ) -> Result<usize, super::DeployError> {
        // Whoever paused sweeps sweeps afterwards.
        let Ok(_sweeping) = self.sweeping.try_read() else {
            return Ok(0);
        };
        let _naming = self.naming.lock().await;
        let stored = self.blobs.list().await?;
        // The held ones first: a deploy lets go only after its version is written, so what is not
        // held now is either in the records read next, or in none.
        let held: HashSet<Digest> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.keys().copied().collect()
        };
        // After a failure of the disk a version may still come to be that is not in the records.
        self.registry.settled().await?;
        let awaited = self.awaited().await?;
        let named = functions.digests().await?;
        let mut removed = 0;
        for digest in stored {
            let needed = [&held, &awaited, &named].into_iter().any(|set| set.contains(&digest));
            if !needed {
                engine.forget(&digest);
                self.blobs.delete(&digest).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// From now on no blob is removed, until what this returns is dropped; then somebody has to
    /// sweep.
    pub(super) async fn pause(&self) -> SweepPause {
        SweepPause { _guard: self.sweeping.clone().write_owned().await }
    }

    /// The blobs that still wait for their deploy; notes of those that waited too long are removed.
    async fn awaited(&self) -> Result<HashSet<Digest>, StorageError> {
        let (notes, _) = self.registry.list(UPLOADS).await?;
        let mut awaited = HashSet::new();
        for (key, doc) in notes {
            let digest = key.as_str().strip_prefix(UPLOADS).and_then(|hex| hex.parse().ok());
            match (digest, Note::read(&doc.body)) {
                (Some(digest), Some(note)) if note.is_awaited() => {
                    awaited.insert(digest);
                }
                _ => match self.registry.delete(&key, Expect::Rev(doc.rev)).await {
                    Ok(_) | Err(StorageError::Conflict) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(awaited)
    }
}

/// What is noted about a blob that waits for its deploy.
#[derive(Serialize, Deserialize)]
struct Note {
    since: Timestamp,
    /// The name of the token that sent it.
    #[serde(default)]
    by: String,
    /// Its size, if it was new when it was sent.
    #[serde(default)]
    bytes: u64,
}

impl Note {
    fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().or_else(|| {
            // Earlier releases noted the time alone.
            let since = std::str::from_utf8(body).ok()?.parse().ok()?;
            Some(Self { since, by: String::new(), bytes: 0 })
        })
    }

    fn is_awaited(&self) -> bool {
        clock::now().duration_since(self.since) < PATIENCE
    }
}

fn note(digest: &Digest) -> DocKey {
    DocKey::new(&["uploads", &digest.to_string()])
}

/// A blob that the sweep leaves alone while this lives.
pub(super) struct Hold<'a> {
    uploads: &'a Uploads,
    digest: Digest,
}

impl Hold<'_> {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut held = self.uploads.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.digest);
            }
        }
    }
}
