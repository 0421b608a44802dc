//! The one writer: a thread that takes whatever waits, commits it together, and then answers.
//!
//! A durable commit takes as long as the disk needs, about the same for one document as for
//! hundreds. While one batch is being made durable the next one gathers.

use super::{
    database::{Fault, frames, move_log, waiting_pages},
    documents, journal,
    readers::Readers,
    recovery::{self, Lost, cut_back, reopen},
    usage,
};
use crate::storage::{
    Change, Doc, DocKey, Expect, JournalRecord, Rev, StorageError, UsageKey, Used, feed::Feed,
    usage::Hour,
};
use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use std::{
    mem,
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

/// What to do with the journal.
#[derive(Debug)]
pub(super) enum JournalAction {
    /// Add a record; its place is the answer.
    Append(JournalRecord),
    /// Drop what is older; how many that were is the answer.
    Trim(Timestamp),
}

/// What to do with rows of usage.
#[derive(Debug)]
pub(super) enum UsageWork {
    /// Add to them.
    Add(Vec<(UsageKey, Used)>),
    /// Remove those before this hour.
    Forget(Hour),
}

/// What to write.
#[derive(Debug)]
pub(super) enum Work {
    /// A document; its revision is the answer.
    Doc { key: DocKey, action: Action, expect: Expect },
    /// The journal.
    Journal(JournalAction),
    /// Usage; the number of its rows is the answer.
    Usage(UsageWork),
    /// Nothing: that it can be done says that all before it is decided.
    Nothing,
}

/// One write, and who waits for its result.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<u64, StorageError>>,
}

/// The writer's thread. Dropping it waits until everything that was asked for is answered.
#[derive(Debug)]
pub(super) struct WriterThread {
    queue: Option<mpsc::Sender<Write>>,
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
    pub(super) async fn write(&self, work: Work) -> Result<u64, StorageError> {
        let stopped = || StorageError::Failed("the registry's writer has stopped".into());
        let (reply, answer) = oneshot::channel();
        let write = Write { work, reply };
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(write).await.map_err(|_| stopped())?;
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
    /// Before the connection, which has to be the last one that is closed.
    readers: Arc<Readers>,
    state: State,
    feed: Arc<Feed>,
    log_is_stuck: bool,
    written: u64,
    commits: u64,
}

/// Whether there is something to write to.
#[derive(Debug)]
enum State {
    Open(Connection),
    /// The disk failed, and what it holds has to be read again before anything is written.
    Lost(Lost),
}

/// What a committed batch leaves to be told.
#[derive(Default)]
struct Committed {
    /// In the order of the batch; `None` is a conflict.
    answers: Vec<Option<u64>>,
    changes: Vec<Change>,
    written: u64,
}

impl Writer {
    /// Writes through `connection`, the only writing one to the file `path`, beside `readers` of it.
    pub(super) fn new(
        path: PathBuf,
        connection: Connection,
        readers: Arc<Readers>,
        feed: Arc<Feed>,
    ) -> Self {
        let state = State::Open(connection);
        Self { path, readers, state, feed, log_is_stuck: false, written: 0, commits: 0 }
    }

    /// Serves the queue until nobody can add to it.
    fn run(mut self, mut queue: mpsc::Receiver<Write>) -> Self {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.commit(&mut batch);
        }
        tracing::debug!(written = self.written, commits = self.commits, "registry closed");
        self
    }

    /// Makes a batch durable, then tells the watchers, then answers the callers.
    fn commit(&mut self, batch: &mut Vec<Write>) {
        match self.transact(batch) {
            Ok(committed) => {
                self.written += committed.written;
                self.commits += u64::from(committed.written > 0);
                self.feed.publish(committed.changes);
                for (write, answer) in batch.drain(..).zip(committed.answers) {
                    // A caller that went away misses nothing but its answer.
                    write.reply.send(answer.ok_or(StorageError::Conflict)).ok();
                }
                self.move_log();
            }
            // Nothing of the batch counts, so even its conflicts say nothing.
            Err(fault) => {
                // Before anybody is told: whoever learns that a write failed may rely on that.
                self.settle(&fault);
                let error = fault.explain(&self.path);
                for write in batch.drain(..) {
                    write.reply.send(Err(error.clone())).ok();
                }
            }
        }
    }

    fn transact(&mut self, batch: &[Write]) -> Result<Committed, Fault> {
        if matches!(&self.state, State::Lost(lost) if lost.is_due()) {
            self.recover();
        }
        let connection = match &mut self.state {
            State::Open(connection) => connection,
            State::Lost(lost) => return Err(lost.refusal()),
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut head = documents::head(&transaction)?;
        let mut committed = Committed::default();
        for write in batch {
            let answer = match &write.work {
                Work::Doc { key, action, expect } => {
                    match outcome(action, *expect, documents::rev(&transaction, key)?) {
                        Outcome::Conflict => None,
                        Outcome::Nothing => Some(head),
                        Outcome::Change => {
                            head += 1;
                            committed.changes.push(apply(&transaction, key, action, head)?);
                            Some(head)
                        }
                    }
                }
                Work::Journal(JournalAction::Append(record)) => {
                    committed.written += 1;
                    Some(journal::append(&transaction, record)?)
                }
                Work::Journal(JournalAction::Trim(before)) => {
                    let dropped = journal::trim(&transaction, *before)?;
                    committed.written += dropped;
                    Some(dropped)
                }
                Work::Usage(work) => {
                    let rows = usage::work(&transaction, work)?;
                    committed.written += rows;
                    Some(rows)
                }
                Work::Nothing => Some(head),
            };
            committed.answers.push(answer);
        }
        committed.written += committed.changes.len() as u64;
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
                if fault.is_lost_sync() {
                    self.settle(&fault);
                }
            }
        }
    }

    fn try_move_log(&self) -> Result<(), Fault> {
        let State::Open(connection) = &self.state else {
            return Ok(());
        };
        match waiting_pages(connection)? {
            Some(LOG_PAGES..) => move_log(connection),
            _ => Ok(()),
        }
    }

    /// After a failure: takes from the log what was not acknowledged. A transaction may have failed
    /// after its last byte was written, and would be there again after a restart, although its
    /// caller was told that it failed. Where that cannot be done for certain, or the failure leaves
    /// open what is on the disk, the database is opened anew.
    fn settle(&mut self, fault: &Fault) {
        let State::Open(connection) = &self.state else {
            return;
        };
        let acknowledged = frames(connection).ok().flatten();
        let cut = cut_back(&self.path, acknowledged);
        let why = match cut {
            Ok(()) if !fault.is_lost_sync() => return,
            Ok(()) => fault.to_string(),
            Err(error) => format!("{fault}; its log cannot be cut back: {error}"),
        };
        tracing::error!(path = %self.path.display(), error = why,
            "the disk failed to make the registry durable: it is opened anew");
        let lost = State::Lost(Lost::new(why, acknowledged));
        if let State::Open(connection) = mem::replace(&mut self.state, lost) {
            self.readers.alone(|| recovery::close(connection));
        }
        self.recover();
    }

    /// Opens the database anew, and goes on from what the disk holds.
    fn recover(&mut self) {
        let State::Lost(lost) = &mut self.state else {
            return;
        };
        lost.is_tried();
        let known = self.feed.head();
        let opened = self.readers.alone(|| reopen(&self.path, lost.acknowledged(), known));
        match opened {
            Ok((connection, head)) => {
                self.state = State::Open(connection);
                self.feed.restart(head);
                tracing::warn!(path = %self.path.display(), rev = head,
                    "the registry was opened anew: all that was acknowledged is there");
            }
            Err(error) => lost.still(&error),
        }
    }
}

/// What a write comes to.
enum Outcome {
    Conflict,
    Nothing,
    Change,
}

fn outcome(action: &Action, expect: Expect, found: Option<Rev>) -> Outcome {
    match (action, found) {
        (Action::Delete, None) if expect == Expect::Any => Outcome::Nothing,
        (Action::Delete, None) => Outcome::Conflict,
        _ if expect.holds(found) => Outcome::Change,
        _ => Outcome::Conflict,
    }
}

fn apply(
    connection: &Connection,
    key: &DocKey,
    action: &Action,
    rev: Rev,
) -> Result<Change, Fault> {
    match action {
        Action::Put(body) => {
            let doc = Doc { body: body.clone(), rev };
            documents::put(connection, key, &doc)?;
            Ok(Change::Put(key.clone(), doc))
        }
        Action::Delete => {
            documents::delete(connection, key)?;
            Ok(Change::Deleted(key.clone(), rev))
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
        let readers = Readers::new(path.clone());
        (dir, Writer::new(path, connection, readers, Arc::new(Feed::new(0))))
    }

    fn connection(writer: &Writer) -> &Connection {
        match &writer.state {
            State::Open(connection) => connection,
            State::Lost(lost) => panic!("{lost:?}"),
        }
    }

    fn put(key: &str, body: Bytes, expect: Expect) -> (Write, Answer) {
        let (reply, answer) = oneshot::channel();
        let work = Work::Doc { key: DocKey::new(&[key]), action: Action::Put(body), expect };
        (Write { work, reply }, answer)
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
            sender.try_send(write).unwrap();
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
            connection(&writer).pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let set = |writer: &Writer, pages: i64| {
            connection(writer).pragma_update(None, "max_page_count", pages).unwrap();
        };
        set(&writer, pages + 10);
        for answer in commit(&mut writer, &[("b", 10), ("c", 200_000), ("a", 20)]) {
            assert!(matches!(&answer, Err(StorageError::Full(t)) if t.contains("state.db")));
        }
        assert_eq!(writer.feed.head(), 1, "nobody is told of what did not happen");
        assert_eq!(documents::rev(connection(&writer), &DocKey::new(&["a"])).unwrap(), Some(1));
        assert_eq!(documents::list(connection(&writer), "").unwrap().len(), 1);
        assert_eq!(commit(&mut writer, &[("d", 10)]), [Ok(2)], "a small one still fits");
        set(&writer, 10_000);
        assert_eq!(commit(&mut writer, &[("c", 200_000)]), [Ok(3)]);
    }

    #[test]
    fn after_a_lost_sync_the_database_is_opened_anew() {
        let (dir, mut writer) = writer();
        assert_eq!(commit(&mut writer, &[("a", 10)]), [Ok(1)]);
        let log = dir.path().join("state.db-wal");
        let acknowledged = log.metadata().unwrap().len();
        writer.settle(&fsync_failure());
        assert_eq!(log.metadata().unwrap().len(), acknowledged, "the log may be all there is");
        assert_eq!(commit(&mut writer, &[("a", 20), ("b", 10)]), [Ok(2), Ok(3)]);
        assert_eq!(writer.feed.head(), 3);
        drop(writer);
        let connection = open_writer(&dir.path().join("state.db"), false).unwrap();
        assert_eq!(documents::verify(&connection).unwrap(), 3);
    }

    #[test]
    fn as_long_as_it_cannot_be_opened_nothing_is_written() {
        let (dir, mut writer) = writer();
        assert_eq!(commit(&mut writer, &[("a", 10)]), [Ok(1)]);
        let (path, away) = (dir.path().join("state.db"), dir.path().join("away.db"));
        std::fs::rename(&path, &away).unwrap();
        writer.settle(&fsync_failure());
        for answer in commit(&mut writer, &[("a", 20), ("b", 10)]) {
            assert!(matches!(&answer, Err(StorageError::Failed(t)) if t.contains("no writes")));
        }
        assert_eq!(writer.feed.head(), 1);
        std::fs::rename(&away, &path).unwrap();
        let State::Lost(lost) = &mut writer.state else { panic!("{:?}", writer.state) };
        lost.expire();
        assert_eq!(commit(&mut writer, &[("a", 20), ("b", 10)]), [Ok(2), Ok(3)]);
    }

    /// A disk that says yes and forgets is told from one that only fails.
    #[test]
    fn what_was_acknowledged_and_is_gone_is_noticed() {
        let (dir, mut writer) = writer();
        assert_eq!(commit(&mut writer, &[("a", 10)]), [Ok(1)]);
        move_log(connection(&writer)).unwrap();
        assert_eq!(commit(&mut writer, &[("b", 10)]), [Ok(2)]);
        let log = dir.path().join("state.db-wal");
        let before = std::fs::read(&log).unwrap();
        // As if nothing after the last move had ever been written.
        std::fs::write(&log, vec![0; before.len()]).unwrap();
        writer.settle(&fsync_failure());
        let answers = commit(&mut writer, &[("c", 10)]);
        assert!(matches!(&answers[0], Err(StorageError::Failed(_))), "{answers:?}");
    }

    /// SQLite may fail after the last byte of a transaction was written.
    #[test]
    fn a_failed_write_does_not_come_back() {
        let (dir, mut writer) = writer();
        assert_eq!(commit(&mut writer, &[("a", 10)]), [Ok(1)]);
        let log = dir.path().join("state.db-wal");
        let acknowledged = std::fs::read(&log).unwrap();
        assert_eq!(commit(&mut writer, &[("a", 20), ("b", 10)]), [Ok(2), Ok(3)]);
        let whole = std::fs::read(&log).unwrap();
        drop(writer);
        // The first transaction alone is acknowledged; the second is whole all the same.
        let path = dir.path().join("new.db");
        let connection = open_writer(&path, true).unwrap();
        drop(connection);
        let frame = (whole.len() - acknowledged.len()) as u64;
        assert!(frame > 0);
        let copy = dir.path().join("new.db-wal");
        std::fs::write(&copy, &whole).unwrap();
        let frames = (acknowledged.len() as u64 - 32) / (24 + 4096);
        cut_back(&path, Some(frames)).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), acknowledged);
        cut_back(&path, Some(0)).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 0);
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
