//! The one writer: a thread that takes whatever waits, commits it together, and then answers.
//!
//! A durable commit takes as long as the disk needs, about the same for one document as for
//! hundreds. While one batch is being made durable the next one gathers.

use super::{
    database::{Fault, keep_log, move_log, waiting_pages},
    documents, usage,
};
use crate::storage::{
    Change, Doc, DocKey, Expect, Rev, StorageError, UsageKey, Used, feed::Feed, usage::Hour,
};
use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use std::{
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};
use tokio::sync::{mpsc, oneshot};

/// How many writes share a commit at most, and how many wait at most.
pub(super) const BATCH: usize = 512;
/// How many pages the log may hold that the database does not have yet.
const LOG_PAGES: u64 = 1000;

/// What to do with a document.
#[derive(Debug)]
pub(super) enum Action {
    /// Write it whole.
    Put(Bytes),
    /// Remove it.
    Delete,
}

/// One write, and who waits for its result.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: DocKey,
    pub(super) action: Action,
    pub(super) expect: Expect,
    pub(super) reply: oneshot::Sender<Result<Rev, StorageError>>,
}

/// What to do with rows of usage, all or nothing.
#[derive(Debug)]
pub(super) enum UsageWork {
    /// Add to them.
    Add(Vec<(UsageKey, Used)>),
    /// Remove those before this hour.
    Forget(Hour),
}

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Job {
    /// A document.
    Document(Write),
    /// Usage, and who waits for the number of rows.
    Usage(UsageWork, oneshot::Sender<Result<u64, StorageError>>),
}

/// The writer's thread. Dropping it waits until everything that was asked for is answered.
#[derive(Debug)]
pub(super) struct WriterThread {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    /// Starts the thread.
    pub(super) fn start(writer: Writer) -> Result<Self, StorageError> {
        let (sender, receiver) = mpsc::channel(BATCH);
        let thread = thread::Builder::new()
            .name("faas-registry".into())
            .spawn(move || drop(writer.run(receiver)))
            .map_err(|error| StorageError::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { queue: Some(sender), thread: Some(thread) })
    }

    /// Writes, and waits until that is durable. A caller that stops waiting may find the write
    /// done or not done.
    pub(super) async fn write(
        &self,
        key: &DocKey,
        action: Action,
        expect: Expect,
    ) -> Result<Rev, StorageError> {
        let (reply, answer) = oneshot::channel();
        let write = Write { key: key.clone(), action, expect, reply };
        self.ask(Job::Document(write), answer).await
    }

    /// The same for rows of usage; returns how many it met.
    pub(super) async fn usage(&self, work: UsageWork) -> Result<u64, StorageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Usage(work, reply), answer).await
    }

    async fn ask<T>(
        &self,
        job: Job,
        answer: oneshot::Receiver<Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let stopped = || StorageError::Failed("the registry's writer has stopped".into());
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        // The thread ends when its queue is empty and nobody can add to it.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// What writes, without the thread around it.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    connection: Connection,
    feed: Arc<Feed>,
    /// Why nothing can be written any more.
    broken: Option<String>,
    log_is_stuck: bool,
    written: u64,
    commits: u64,
}

/// What a committed batch leaves to be told.
#[derive(Default)]
struct Committed {
    /// In the order of the batch; `None` is a conflict.
    answers: Vec<Option<Rev>>,
    changes: Vec<Change>,
}

impl Writer {
    /// Writes through `connection`, the only writing one to the file `path`.
    pub(super) fn new(path: PathBuf, connection: Connection, feed: Arc<Feed>) -> Self {
        Self { path, connection, feed, broken: None, log_is_stuck: false, written: 0, commits: 0 }
    }

    /// Serves the queue until nobody can add to it.
    fn run(mut self, mut queue: mpsc::Receiver<Job>) -> Self {
        let mut jobs = Vec::with_capacity(BATCH);
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut jobs, BATCH) > 0 {
            let mut usage = Vec::new();
            for job in jobs.drain(..) {
                match job {
                    Job::Document(write) => batch.push(write),
                    Job::Usage(work, reply) => usage.push((work, reply)),
                }
            }
            if !batch.is_empty() {
                self.commit(&mut batch);
            }
            // After the documents: somebody waits for those.
            for (work, reply) in usage {
                let done = self.keep(&work).map_err(|fault| {
                    self.note(&fault);
                    fault.explain(&self.path)
                });
                // A caller that went away misses nothing but its answer.
                reply.send(done).ok();
            }
        }
        tracing::debug!(written = self.written, commits = self.commits, "registry closed");
        self
    }

    /// Makes a batch durable, then tells the watchers, then answers the callers.
    fn commit(&mut self, batch: &mut Vec<Write>) {
        match self.transact(batch) {
            Ok(committed) => {
                self.written += committed.changes.len() as u64;
                self.commits += u64::from(!committed.changes.is_empty());
                self.feed.publish(committed.changes);
                for (write, answer) in batch.drain(..).zip(committed.answers) {
                    // A caller that went away misses nothing but its answer.
                    write.reply.send(answer.ok_or(StorageError::Conflict)).ok();
                }
                self.move_log();
            }
            // Nothing of the batch counts, so even its conflicts say nothing.
            Err(fault) => {
                self.note(&fault);
                let error = fault.explain(&self.path);
                for write in batch.drain(..) {
                    write.reply.send(Err(error.clone())).ok();
                }
            }
        }
    }

    /// Makes usage durable.
    fn keep(&mut self, work: &UsageWork) -> Result<u64, Fault> {
        if let Some(why) = &self.broken {
            return Err(Fault::Refused(why.clone()));
        }
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let rows = usage::work(&transaction, work)?;
        transaction.commit()?;
        self.move_log();
        Ok(rows)
    }

    fn transact(&mut self, batch: &[Write]) -> Result<Committed, Fault> {
        if let Some(why) = &self.broken {
            return Err(Fault::Refused(why.clone()));
        }
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut head = documents::head(&transaction)?;
        let mut committed = Committed::default();
        for write in batch {
            let answer = match outcome(write, documents::rev(&transaction, &write.key)?) {
                Outcome::Conflict => None,
                Outcome::Nothing => Some(head),
                Outcome::Change => {
                    head += 1;
                    committed.changes.push(apply(&transaction, write, head)?);
                    Some(head)
                }
            };
            committed.answers.push(answer);
        }
        if !committed.changes.is_empty() {
            documents::set_head(&transaction, head)?;
        }
        transaction.commit()?;
        Ok(committed)
    }

    /// Moves the log's pages into the database once there are many. SQLite can do that by itself,
    /// but then nobody learns when the disk did not take them.
    fn move_log(&mut self) {
        match self.try_move_log() {
            Ok(()) => self.log_is_stuck = false,
            Err(fault) => {
                if !self.log_is_stuck {
                    tracing::warn!(path = %self.path.display(), error = %fault,
                        "the registry's log cannot be moved into its database, trying again");
                }
                self.log_is_stuck = true;
                self.note(&fault);
            }
        }
    }

    fn try_move_log(&self) -> Result<(), Fault> {
        match waiting_pages(&self.connection)? {
            Some(LOG_PAGES..) => move_log(&self.connection),
            _ => Ok(()),
        }
    }

    /// Refuses all further writes after a failure that leaves open what is on the disk.
    fn note(&mut self, fault: &Fault) {
        if self.broken.is_some() || !fault.is_lost_sync() {
            return;
        }
        tracing::error!(path = %self.path.display(), error = %fault,
            "the disk failed to make the registry durable: it takes no writes until a restart");
        self.broken = Some(format!(
            "no writes until the server is started again, because the disk failed: {fault}"
        ));
        // What the log holds may be all there is: it stays, for the next start to read again.
        if let Err(fault) = keep_log(&self.connection) {
            tracing::error!(error = %fault, "the registry's log cannot be kept");
        }
    }
}

/// What a write comes to.
enum Outcome {
    Conflict,
    Nothing,
    Change,
}

fn outcome(write: &Write, found: Option<Rev>) -> Outcome {
    match (&write.action, found) {
        (Action::Delete, None) if write.expect == Expect::Any => Outcome::Nothing,
        (Action::Delete, None) => Outcome::Conflict,
        _ if write.expect.holds(found) => Outcome::Change,
        _ => Outcome::Conflict,
    }
}

fn apply(connection: &Connection, write: &Write, rev: Rev) -> Result<Change, Fault> {
    let key = write.key.clone();
    match &write.action {
        Action::Put(body) => {
            let doc = Doc { body: body.clone(), rev };
            documents::put(connection, &key, &doc)?;
            Ok(Change::Put(key, doc))
        }
        Action::Delete => {
            documents::delete(connection, &key)?;
            Ok(Change::Deleted(key, rev))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::database::open_writer, *};
    use rusqlite::ffi;
    use tempfile::TempDir;

    type Answer = oneshot::Receiver<Result<Rev, StorageError>>;

    fn writer() -> (TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let connection = open_writer(&path, true).unwrap();
        (dir, Writer::new(path, connection, Arc::new(Feed::new(0))))
    }

    fn put(key: &str, body: Bytes, expect: Expect) -> (Write, Answer) {
        let (reply, answer) = oneshot::channel();
        (Write { key: DocKey::new(&[key]), action: Action::Put(body), expect, reply }, answer)
    }

    /// Commits puts of `bytes` bytes each together, and returns their answers.
    fn commit(writer: &mut Writer, puts: &[(&str, usize)]) -> Vec<Result<Rev, StorageError>> {
        let puts = puts.iter().map(|(key, bytes)| put(key, vec![1; *bytes].into(), Expect::Any));
        let (mut batch, answers): (Vec<_>, Vec<_>) = puts.unzip();
        writer.commit(&mut batch);
        answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect()
    }

    fn fsync_failure() -> Fault {
        let error = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
        Fault::Sqlite(rusqlite::Error::SqliteFailure(error, None))
    }

    #[test]
    fn what_waits_is_committed_together() {
        let (_dir, writer) = writer();
        let (sender, receiver) = mpsc::channel(3 * BATCH);
        let mut answers = Vec::new();
        for n in 0..2 * BATCH + 7 {
            let (write, answer) = put(&n.to_string(), "body".into(), Expect::Absent);
            sender.try_send(Job::Document(write)).unwrap();
            answers.push(answer);
        }
        drop(sender);
        let writer = writer.run(receiver);
        assert_eq!((writer.written, writer.commits), ((2 * BATCH + 7) as u64, 3));
        for (rev, answer) in (1..).zip(answers) {
            assert_eq!(answer.blocking_recv().unwrap(), Ok(rev));
        }
    }

    #[test]
    fn a_conflict_fails_alone_and_sees_the_writes_before_it() {
        let (_dir, mut writer) = writer();
        let (mut batch, answers): (Vec<_>, Vec<_>) = [
            put("a", "1".into(), Expect::Absent),
            put("a", "no".into(), Expect::Absent),
            put("a", "2".into(), Expect::Rev(1)),
            put("a", "no".into(), Expect::Rev(1)),
            put("b", "1".into(), Expect::Any),
        ]
        .into_iter()
        .unzip();
        writer.commit(&mut batch);
        let answers: Vec<_> = answers.into_iter().map(|a| a.blocking_recv().unwrap()).collect();
        let conflict = Err(StorageError::Conflict);
        assert_eq!(answers, [Ok(1), conflict.clone(), Ok(2), conflict, Ok(3)]);
        assert_eq!((writer.written, writer.commits, writer.feed.head()), (3, 1, 3));
    }

    #[test]
    fn a_full_disk_is_told_to_all_and_heals() {
        let (_dir, mut writer) = writer();
        assert_eq!(commit(&mut writer, &[("a", 10)]), [Ok(1)]);
        let pages: i64 =
            writer.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let set = |writer: &Writer, pages: i64| {
            writer.connection.pragma_update(None, "max_page_count", pages).unwrap();
        };
        set(&writer, pages + 10);
        for answer in commit(&mut writer, &[("b", 10), ("c", 200_000), ("a", 20)]) {
            assert!(matches!(&answer, Err(StorageError::Full(t)) if t.contains("state.db")));
        }
        assert_eq!(writer.feed.head(), 1, "nobody is told of what did not happen");
        assert_eq!(documents::rev(&writer.connection, &DocKey::new(&["a"])).unwrap(), Some(1));
        assert_eq!(documents::list(&writer.connection, "").unwrap().len(), 1);
        assert_eq!(commit(&mut writer, &[("d", 10)]), [Ok(2)], "a small one still fits");
        set(&writer, 10_000);
        assert_eq!(commit(&mut writer, &[("c", 200_000)]), [Ok(3)]);
    }

    #[test]
    fn after_a_lost_sync_nothing_is_written_and_the_log_stays() {
        let (dir, mut writer) = writer();
        assert_eq!(commit(&mut writer, &[("a", 10)]), [Ok(1)]);
        writer.note(&fsync_failure());
        for answer in commit(&mut writer, &[("a", 20), ("b", 10)]) {
            assert!(matches!(&answer, Err(StorageError::Failed(t)) if t.contains("no writes")));
        }
        assert_eq!(writer.feed.head(), 1);
        assert_eq!(documents::rev(&writer.connection, &DocKey::new(&["a"])).unwrap(), Some(1));
        drop(writer);
        assert!(dir.path().join("state.db-wal").metadata().unwrap().len() > 0);
        let connection = open_writer(&dir.path().join("state.db"), false).unwrap();
        assert_eq!(documents::verify(&connection).unwrap(), 1);
    }

    #[test]
    fn the_log_is_moved_before_it_grows_long() {
        let (dir, mut writer) = writer();
        for n in 0..60 {
            // SQLite leaves out pages that stay the same.
            commit(&mut writer, &[("a", 200_000 + n), ("b", 200_000 - n)]);
        }
        let log = dir.path().join("state.db-wal").metadata().unwrap().len();
        // 60 times 400 kB have gone through it; a batch may exceed the limit once.
        assert!(log < 8_000_000, "{log} bytes");
        assert!(!writer.log_is_stuck);
    }
}
