//! `Registry` over `state.db`.

use super::{
    database::{Fault, open_writer},
    documents,
    readers::Readers,
    writer::{Action, JournalAction, UsageWork, Work, Writer, WriterThread},
};
use crate::storage::{
    Change, Doc, DocKey, Expect, Registry, Rev, StorageError, feed::Feed, registry::check_size,
};
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use std::{path::Path, sync::Arc};
use tokio::sync::mpsc;

/// The database's file name in the data directory.
const FILE: &str = "state.db";

/// The platform's records in an SQLite file. Dropping it waits for writes that were asked for.
#[derive(Debug)]
pub(crate) struct EmbeddedRegistry {
    /// Before the writer, so that the writer is the last to close the file: only then SQLite
    /// empties and removes the log.
    readers: Arc<Readers>,
    writer: WriterThread,
    feed: Arc<Feed>,
}

impl EmbeddedRegistry {
    /// Opens or begins the database in `dir`. Blocks. `may_begin` is whether an empty database
    /// can be right.
    pub(super) fn open(dir: &Path, may_begin: bool) -> Result<Self, StorageError> {
        let path = dir.join(FILE);
        let connection = open_writer(&path, may_begin)?;
        let head = documents::verify(&connection).map_err(|fault| fault.explain(&path))?;
        let feed = Arc::new(Feed::new(head));
        let readers = Readers::new(path.clone());
        let writer = Writer::new(path, connection, Arc::clone(&readers), Arc::clone(&feed));
        Ok(Self { readers, writer: WriterThread::start(writer)?, feed })
    }

    async fn write_doc(
        &self,
        key: &DocKey,
        action: Action,
        expect: Expect,
    ) -> Result<Rev, StorageError> {
        self.writer.write(Work::Doc { key: key.clone(), action, expect }).await
    }

    /// Writes to the journal, in the same commits as documents.
    pub(super) async fn write_journal(&self, action: JournalAction) -> Result<u64, StorageError> {
        self.writer.write(Work::Journal(action)).await
    }

    /// Writes rows of usage, in the same commits.
    pub(super) async fn write_usage(&self, work: UsageWork) -> Result<u64, StorageError> {
        self.writer.write(Work::Usage(work)).await
    }

    /// Reads with a connection of its own.
    pub(super) async fn read_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.readers.read(|connection| work(connection)).await
    }
}

#[async_trait]
impl Registry for EmbeddedRegistry {
    async fn get(&self, key: &DocKey) -> Result<Option<Doc>, StorageError> {
        let key = key.clone();
        self.readers.read(move |connection| documents::get(connection, &key)).await
    }

    async fn put(&self, key: &DocKey, body: Bytes, expect: Expect) -> Result<Rev, StorageError> {
        check_size(key, &body)?;
        self.write_doc(key, Action::Put(body), expect).await
    }

    async fn delete(&self, key: &DocKey, expect: Expect) -> Result<Rev, StorageError> {
        self.write_doc(key, Action::Delete, expect).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(DocKey, Doc)>, Rev), StorageError> {
        let prefix = prefix.to_owned();
        let list = move |connection: &mut rusqlite::Connection| {
            // Both statements have to see the same state.
            let transaction = connection.transaction()?;
            let docs = documents::list(&transaction, &prefix)?;
            Ok((docs, documents::head(&transaction)?))
        };
        self.readers.read(list).await
    }

    async fn settled(&self) -> Result<(), StorageError> {
        self.writer.write(Work::Nothing).await.map(drop)
    }

    async fn watch(
        &self,
        prefix: &str,
        after: Rev,
    ) -> Result<mpsc::Receiver<Change>, StorageError> {
        // A reader may see a commit a moment before the feed does, so the database decides
        // whether there has been such a revision.
        let known =
            after <= self.feed.head() || after <= self.readers.read(|c| documents::head(c)).await?;
        Ok(self.feed.watch(prefix, known.then_some(after)))
    }
}
