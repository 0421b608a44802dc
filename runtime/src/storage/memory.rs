//! The traits in memory: what they mean, in the fewest words. Every other implementation is
//! compared with this one.

use super::{
    BlobWriter, Blobs, Change, Doc, DocKey, Expect, Journal, JournalQuery, JournalRecord, Registry,
    Rev, Seq, StorageError, UsageKey, UsageQuery, UsageStore, Used,
    feed::Feed,
    files::{blocking, failed, lock, write_private_file},
    journal,
    registry::check_size,
    usage::{Hour, SumKey, Sums},
};
use async_trait::async_trait;
use bytes::Bytes;
use faas_api::Digest;
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Documents in a map; gone with the process.
#[derive(Debug)]
pub(crate) struct MemoryRegistry {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Debug, Default)]
struct State {
    docs: BTreeMap<DocKey, Doc>,
    head: Rev,
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self { state: Mutex::default(), feed: Feed::new(0) }
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn get(&self, key: &DocKey) -> Result<Option<Doc>, StorageError> {
        Ok(lock(&self.state).docs.get(key).cloned())
    }

    async fn put(&self, key: &DocKey, body: Bytes, expect: Expect) -> Result<Rev, StorageError> {
        check_size(key, &body)?;
        let mut state = lock(&self.state);
        if !expect.holds(state.docs.get(key).map(|doc| doc.rev)) {
            return Err(StorageError::Conflict);
        }
        state.head += 1;
        let doc = Doc { body, rev: state.head };
        state.docs.insert(key.clone(), doc.clone());
        // Under the lock, so that changes are published in the order of their revisions.
        self.feed.publish([Change::Put(key.clone(), doc)]);
        Ok(state.head)
    }

    async fn delete(&self, key: &DocKey, expect: Expect) -> Result<Rev, StorageError> {
        let mut state = lock(&self.state);
        match state.docs.get(key).map(|doc| doc.rev) {
            None if expect == Expect::Any => return Ok(state.head),
            Some(rev) if expect.holds(Some(rev)) => {}
            _ => return Err(StorageError::Conflict),
        }
        state.head += 1;
        state.docs.remove(key);
        self.feed.publish([Change::Deleted(key.clone(), state.head)]);
        Ok(state.head)
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(DocKey, Doc)>, Rev), StorageError> {
        let state = lock(&self.state);
        let docs = state.docs.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok((docs.map(|(key, doc)| (key.clone(), doc.clone())).collect(), state.head))
    }

    async fn settled(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn watch(
        &self,
        prefix: &str,
        after: Rev,
    ) -> Result<mpsc::Receiver<Change>, StorageError> {
        let head = lock(&self.state).head;
        Ok(self.feed.watch(prefix, (after <= head).then_some(after)))
    }
}

/// Usage in a map; gone with the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryUsage {
    rows: Mutex<BTreeMap<UsageKey, Used>>,
}

#[async_trait]
impl UsageStore for MemoryUsage {
    async fn add(&self, rows: Vec<(UsageKey, Used)>) -> Result<(), StorageError> {
        let mut stored = lock(&self.rows);
        for (key, used) in rows {
            stored.entry(key).or_default().add(&used);
        }
        Ok(())
    }

    async fn sum(&self, query: UsageQuery) -> Result<Option<Vec<(SumKey, Used)>>, StorageError> {
        let stored = lock(&self.rows);
        let mut sums = Sums::new(&query);
        let is_asked = |key: &UsageKey| {
            query.hours.contains(&key.hour) && query.app.as_ref().is_none_or(|app| *app == key.app)
        };
        let mut asked = stored.iter().filter(|(key, _)| is_asked(key));
        let fits = asked.all(|(key, used)| sums.take(key.clone(), used));
        Ok(fits.then(|| sums.done()))
    }

    async fn forget(&self, before: Hour) -> Result<u64, StorageError> {
        let mut stored = lock(&self.rows);
        let count = stored.len();
        stored.retain(|key, _| key.hour >= before);
        Ok((count - stored.len()) as u64)
    }
}

/// Records in a list; gone with the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryJournal {
    state: Mutex<(Seq, BTreeMap<Seq, JournalRecord>)>,
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, mut record: JournalRecord) -> Result<Seq, StorageError> {
        journal::check_size(&record)?;
        record.time = Timestamp::from_millisecond(record.time.as_millisecond())
            .map_err(|error| StorageError::Failed(error.to_string()))?;
        let mut state = lock(&self.state);
        state.0 += 1;
        let seq = state.0;
        state.1.insert(seq, record);
        Ok(seq)
    }

    async fn read(&self, query: JournalQuery) -> Result<Vec<(Seq, JournalRecord)>, StorageError> {
        let state = lock(&self.state);
        let newest_first = state.1.iter().rev().filter(|(seq, record)| query.wants(**seq, record));
        let wanted = newest_first.take(query.limit);
        Ok(wanted.map(|(seq, record)| (*seq, record.clone())).collect())
    }

    async fn trim(&self, before: Timestamp) -> Result<u64, StorageError> {
        let mut state = lock(&self.state);
        let kept = state.1.len();
        state.1.retain(|_, record| record.time >= before);
        Ok((kept - state.1.len()) as u64)
    }
}

/// Blobs in a map; gone with the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryBlobs {
    blobs: Arc<Mutex<BTreeMap<Digest, Bytes>>>,
    /// For blobs that somebody reads by name.
    files: Arc<Mutex<Option<TempDir>>>,
}

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, StorageError> {
        Ok(Box::new(MemoryWriter { bytes: Vec::new(), blobs: Arc::clone(&self.blobs) }))
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        Ok(lock(&self.blobs).get(digest).cloned())
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StorageError> {
        lock(&self.blobs).remove(digest);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Digest>, StorageError> {
        Ok(lock(&self.blobs).keys().copied().collect())
    }

    async fn file(&self, digest: &Digest) -> Result<Option<PathBuf>, StorageError> {
        let Some(bytes) = lock(&self.blobs).get(digest).cloned() else {
            return Ok(None);
        };
        let (files, name) = (Arc::clone(&self.files), digest.to_string());
        blocking(move || {
            let mut files = lock(&files);
            let dir = match &*files {
                Some(dir) => dir,
                None => files.insert(
                    tempfile::tempdir()
                        .map_err(|error| failed("create", &env::temp_dir(), &error))?,
                ),
            };
            let path = dir.path().join(name);
            // Written anew each time, because others may sweep a temporary folder.
            write_private_file(&path, &bytes).map_err(|error| failed("write", &path, &error))?;
            Ok(Some(path))
        })
        .await
    }
}

/// A blob that is not finished yet.
struct MemoryWriter {
    bytes: Vec<u8>,
    blobs: Arc<Mutex<BTreeMap<Digest, Bytes>>>,
}

#[async_trait]
impl BlobWriter for MemoryWriter {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, bool), StorageError> {
        let digest = Digest::of(&self.bytes);
        let replaced = lock(&self.blobs).insert(digest, self.bytes.into());
        Ok((digest, replaced.is_none()))
    }
}
