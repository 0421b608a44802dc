//! What only this implementation promises: it keeps everything, and refuses what is damaged.

use super::{EmbeddedBlobs, EmbeddedRegistry, database, open};
use crate::storage::{
    Blobs, Change, Doc, DocKey, Expect, Journal, JournalQuery, JournalRecord, Registry, Rev,
    StorageError, conformance::next,
};
use bytes::Bytes;
use faas_api::Digest;
use jiff::Timestamp;
use rusqlite::Connection;
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
};
use tempfile::TempDir;

type State = (Vec<(DocKey, Doc)>, Rev);

/// A data directory with documents, one of them large, some removed again, and one blob.
async fn filled() -> (TempDir, State, Digest) {
    let dir = tempfile::tempdir().unwrap();
    let (registry, blobs) = open(dir.path()).await.unwrap();
    for n in 0..40_usize {
        let key = DocKey::new(&["apps", &n.to_string()]);
        let body = Bytes::from(vec![n as u8; if n == 20 { 30_000 } else { 10 * n }]);
        registry.put(&key, body, Expect::Absent).await.unwrap();
        if n % 7 == 3 {
            registry.delete(&key, Expect::Any).await.unwrap();
        }
    }
    let state = registry.list("").await.unwrap();
    let digest = put(&blobs, b"artifact").await.unwrap().0;
    (dir, state, digest)
}

async fn put(blobs: &EmbeddedBlobs, bytes: &[u8]) -> Result<(Digest, bool), StorageError> {
    let mut writer = blobs.create().await?;
    writer.write(bytes).await?;
    writer.finish().await
}

/// The text of the refusal, which has to be `Damaged`.
async fn damage(dir: &Path) -> String {
    match open(dir).await.err() {
        Some(StorageError::Damaged(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (dir, state, digest) = filled().await;
    assert!(!dir.path().join("state.db-wal").exists(), "a clean end leaves no log");
    for _ in 0..2 {
        let (registry, blobs) = open(dir.path()).await.unwrap();
        assert_eq!(registry.list("").await.unwrap(), state);
        assert_eq!(blobs.get(&digest).await, Ok(Some("artifact".into())));
    }
    let (registry, _) = open(dir.path()).await.unwrap();
    let rev = registry.put(&DocKey::new(&["k"]), "".into(), Expect::Any).await.unwrap();
    assert_eq!(rev, state.1 + 1, "no revision is used again");
}

#[tokio::test]
async fn a_watch_from_before_a_restart_begins_with_a_list() {
    let (dir, (_, head), _) = filled().await;
    let (registry, _) = open(dir.path()).await.unwrap();
    let mut stale = registry.watch("", head - 1).await.unwrap();
    let mut current = registry.watch("", head).await.unwrap();
    assert_eq!(next(&mut stale).await, Change::Resync);
    let key = DocKey::new(&["k"]);
    let rev = registry.put(&key, "1".into(), Expect::Any).await.unwrap();
    let change = Change::Put(key, Doc { body: "1".into(), rev });
    assert_eq!(next(&mut stale).await, change);
    assert_eq!(next(&mut current).await, change);
}

#[tokio::test]
async fn a_state_that_was_not_closed_is_read_from_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _) = open(dir.path()).await.unwrap();
    let key = DocKey::new(&["k"]);
    let rev = registry.put(&key, "1".into(), Expect::Any).await.unwrap();
    // What a crash would leave: the files as they are while the registry is open.
    let copy = tempfile::tempdir().unwrap();
    for file in ["state.db", "state.db-wal"] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let (registry, _) = open(copy.path()).await.unwrap();
    assert_eq!(registry.get(&key).await, Ok(Some(Doc { body: "1".into(), rev })));
}

#[tokio::test]
async fn a_changed_bit_is_never_taken_for_the_truth() {
    let (dir, (docs, head), _) = filled().await;
    let whole = fs::read(dir.path().join("state.db")).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for offset in (0..100).chain((100..whole.len()).step_by(397)) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1 << (offset % 8);
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("state.db"), &bytes).unwrap();
        match open(copy.path()).await {
            Ok((registry, _)) => {
                let (found, at) = registry.list("").await.unwrap();
                assert_eq!(found, docs, "byte {offset}");
                assert!(at >= head, "byte {offset}");
                harmless += 1;
            }
            Err(StorageError::Damaged(text)) => {
                assert!(text.contains("state.db"), "{text}");
                refused += 1;
            }
            // The schema's number and the format's are a single byte each.
            Err(StorageError::Failed(text)) => assert!(offset < 100, "byte {offset}: {text}"),
            Err(error) => panic!("byte {offset}: {error}"),
        }
    }
    assert!(refused > 100 && harmless > 0, "{refused} refused, {harmless} harmless");
}

#[tokio::test]
async fn a_contradiction_is_refused() {
    for (contradiction, part) in [
        ("UPDATE head SET rev = 7", "newer than the latest revision"),
        ("DELETE FROM head", "no rows"),
        // What SQLite itself finds wrong, though every document is as it was.
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = \
             replace(sql, 'rev  INTEGER NOT NULL', 'rev INTEGER NOT NULL CHECK (rev < 7)')",
            "CHECK constraint failed",
        ),
    ] {
        let (dir, ..) = filled().await;
        let other = Connection::open(dir.path().join("state.db")).unwrap();
        other.execute_batch(contradiction).unwrap();
        drop(other);
        let text = damage(dir.path()).await;
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_was_cut_is_refused() {
    let (dir, ..) = filled().await;
    let path = dir.path().join("state.db");
    let len = fs::metadata(&path).unwrap().len();
    for keep in [len - 1, len - 4096, 4096, 100, 1, 0] {
        File::options().write(true).open(&path).unwrap().set_len(keep).unwrap();
        let text = damage(dir.path()).await;
        assert!(text.contains(path.to_str().unwrap()) && text.contains("backup"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().len(), keep, "it is left as it was");
    }
}

#[tokio::test]
async fn records_are_not_begun_anew_beside_artifacts() {
    let (dir, _, digest) = filled().await;
    let path = dir.path().join("state.db");
    fs::remove_file(&path).unwrap();
    let text = damage(dir.path()).await;
    assert!(text.contains("missing or empty") && text.contains("blobs"), "{text}");
    assert!(!path.exists());
    // A database without a table is as empty as a file without a byte.
    Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "WAL").unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 0);
    assert!(damage(dir.path()).await.contains("blobs"));
    fs::remove_file(dir.path().join("blobs/sha256").join(shelved(&digest))).unwrap();
    open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn an_empty_file_alone_is_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.db"), "").unwrap();
    open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_log_without_its_database_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("state.db-wal");
    fs::write(&log, "records").unwrap();
    let text = damage(dir.path()).await;
    assert!(text.contains("state.db-wal"), "{text}");
    assert_eq!(fs::read(&log).unwrap(), b"records");
}

#[tokio::test]
async fn a_file_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    fs::write(&path, "not a database, but long enough to have a header of its own".repeat(9))
        .unwrap();
    assert!(damage(dir.path()).await.contains("not a database"));
    fs::remove_file(&path).unwrap();
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE doc (x); PRAGMA user_version = 1").unwrap();
    drop(foreign);
    assert!(damage(dir.path()).await.contains("not a database of this server"));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_kept() {
    let (dir, state, _) = filled().await;
    let path = dir.path().join("state.db");
    let set = |version: i64| {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
    };
    let current: i64 = Connection::open(&path)
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    set(9);
    let Some(StorageError::Failed(text)) = open(dir.path()).await.err() else { panic!() };
    assert!(text.contains("schema 9") && text.contains("newer server"), "{text}");
    set(current);
    let (registry, _) = open(dir.path()).await.unwrap();
    assert_eq!(registry.list("").await.unwrap(), state);
}

#[tokio::test]
async fn a_damaged_document_is_never_returned() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _) = open(dir.path()).await.unwrap();
    let (bad, good) = (DocKey::new(&["b", "bad"]), DocKey::new(&["c", "good"]));
    for key in [&good, &bad] {
        registry.put(key, "body".into(), Expect::Any).await.unwrap();
    }
    let other = Connection::open(dir.path().join("state.db")).unwrap();
    other.execute("UPDATE doc SET body = x'00' WHERE key = 'b/bad'", []).unwrap();
    for result in [
        registry.get(&bad).await.map(|_| ()),
        registry.list("").await.map(|_| ()),
        registry.list("b").await.map(|_| ()),
        // It could be the key that changed: then this document was below `a`.
        registry.list("a").await.map(|_| ()),
    ] {
        let Err(StorageError::Damaged(text)) = result else { panic!("{result:?}") };
        assert!(text.contains("b/bad"), "{text}");
    }
    assert!(registry.get(&good).await.unwrap().is_some());
    assert_eq!(registry.list("c").await.unwrap().0.len(), 1);
    registry.put(&bad, "healed".into(), Expect::Any).await.unwrap();
    assert_eq!(registry.get(&bad).await.unwrap().unwrap().body, "healed");
}

#[tokio::test]
async fn a_dropped_future_does_not_stop_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let registry = EmbeddedRegistry::open(dir.path(), true).unwrap();
    let key = DocKey::new(&["k"]);
    for _ in 0..8 {
        let put = registry.put(&key, "1".into(), Expect::Any);
        tokio::time::timeout(std::time::Duration::ZERO, put).await.ok();
    }
    registry.put(&key, "2".into(), Expect::Any).await.unwrap();
    assert_eq!(registry.get(&key).await.unwrap().unwrap().body, "2");
}

#[tokio::test]
async fn files_are_private() {
    let (dir, _, digest) = filled().await;
    let (registry, blobs) = open(dir.path()).await.unwrap();
    registry.put(&DocKey::new(&["k"]), "".into(), Expect::Any).await.unwrap();
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
    }
    let blob = blobs.file(&digest).await.unwrap().unwrap();
    assert_eq!(mode(&blob), 0o600);
    for folder in blob.ancestors().skip(1).take(3).chain([&*dir.path().join("blobs/tmp")]) {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
}

/// A blob's place below `blobs/sha256`, as documented.
fn shelved(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("{}/{text}", &text[..2])
}

#[tokio::test]
async fn a_damaged_blob_is_refused_and_healed_by_the_same_bytes() {
    let (dir, _, digest) = filled().await;
    let path = dir.path().join("blobs/sha256").join(shelved(&digest));
    let (_, blobs) = open(dir.path()).await.unwrap();
    for damage in [&b"artifacs"[..], b"", b"artifact more"] {
        fs::write(&path, damage).unwrap();
        let result = blobs.get(&digest).await;
        let Err(StorageError::Damaged(text)) = result else { panic!("{result:?}") };
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(put(&blobs, b"artifact").await, Ok((digest, false)));
        assert_eq!(blobs.get(&digest).await, Ok(Some("artifact".into())));
    }
}

#[tokio::test]
async fn what_a_crash_or_a_stranger_left_is_not_a_blob() {
    let (dir, _, digest) = filled().await;
    let blobs = dir.path().join("blobs");
    let (left, name) = (blobs.join("tmp/0123"), Digest::of(b"elsewhere").to_string());
    fs::write(&left, "half").unwrap();
    fs::write(blobs.join("sha256/notes.txt"), "").unwrap();
    fs::create_dir(blobs.join("sha256/zz")).unwrap();
    fs::write(blobs.join("sha256/zz").join(name), "on the wrong shelf").unwrap();
    let (_, blobs) = open(dir.path()).await.unwrap();
    assert!(!left.exists());
    assert_eq!(blobs.list().await, Ok(vec![digest]));
}

#[tokio::test]
async fn a_blob_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, blobs) = open(dir.path()).await.unwrap();
    let mut writer = blobs.create().await.unwrap();
    writer.write(b"bytes").await.unwrap();
    // A file where the shelf should be.
    let digest = Digest::of(b"bytes");
    let shelf = dir.path().join("blobs/sha256").join(&digest.to_string()[..2]);
    fs::write(&shelf, "").unwrap();
    assert!(matches!(writer.finish().await, Err(StorageError::Failed(_))));
    assert_eq!(fs::read_dir(dir.path().join("blobs/tmp")).unwrap().count(), 0);
    fs::remove_file(&shelf).unwrap();
    assert_eq!(put(&blobs, b"bytes").await, Ok((digest, true)));
}

#[test]
fn connections_are_as_strict_as_promised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let writer = database::open_writer(&path, true).unwrap();
    let reader = database::open_reader(&path).unwrap();
    let number = |connection: &Connection, name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(number(&writer, "synchronous"), 2, "FULL");
    assert_eq!(number(&writer, "wal_autocheckpoint"), 0);
    for connection in [&writer, &reader] {
        assert_eq!(number(connection, "trusted_schema"), 0);
        assert_eq!(number(connection, "busy_timeout"), 5000);
    }
    assert!(reader.execute("DELETE FROM doc", []).is_err());
}

#[tokio::test]
async fn the_journal_stays_and_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let all = JournalQuery { subjects: None, since: None, before: None, limit: 10 };
    let time = Timestamp::from_second(7).unwrap();
    let record = JournalRecord { time, subject: Some("shop".into()), body: "body".into() };
    let (registry, _) = open(dir.path()).await.unwrap();
    let seq = registry.append(record.clone()).await.unwrap();
    drop(registry);
    let (registry, _) = open(dir.path()).await.unwrap();
    assert_eq!(Journal::read(&registry, all.clone()).await, Ok(vec![(seq, record.clone())]));
    // A document's revision has nothing to do with it.
    assert_eq!(registry.list("").await, Ok((vec![], 0)));
    registry.trim(Timestamp::MAX).await.unwrap();
    drop(registry);
    let (registry, _) = open(dir.path()).await.unwrap();
    assert!(registry.append(record).await.unwrap() > seq, "no place is used twice");
    let other = Connection::open(dir.path().join("state.db")).unwrap();
    other.execute("UPDATE journal SET subject = 'other'", []).unwrap();
    let Err(StorageError::Damaged(text)) = Journal::read(&registry, all).await else { panic!() };
    assert!(text.contains("checksum"), "{text}");
}

/// What the first schema left is brought up to date, and nothing of it is lost.
#[tokio::test]
async fn a_file_of_the_first_schema_gets_a_journal() {
    let (dir, state, _) = filled().await;
    let other = Connection::open(dir.path().join("state.db")).unwrap();
    let later = "DROP TABLE IF EXISTS usage; DROP TABLE journal; PRAGMA user_version = 1";
    other.execute_batch(later).unwrap();
    drop(other);
    let (registry, _) = open(dir.path()).await.unwrap();
    assert_eq!(registry.list("").await.unwrap(), state);
    let time = Timestamp::from_second(7).unwrap();
    let record = JournalRecord { time, subject: None, body: "body".into() };
    assert_eq!(registry.append(record).await, Ok(1));
}
