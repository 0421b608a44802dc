//! An SQLite file: opening, checking, migrating, and what its errors mean.

use super::wal;
use crate::storage::{
    StorageError,
    files::{create_private_file, failed, size_of, sync_dir},
};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig, ffi, params,
};
use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::Duration,
};

/// What stands in the file's header, so that a database of something else is not taken for ours.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"faas");

/// The schema, as numbered steps: `PRAGMA user_version` says how many a file has seen. A step
/// that was released is never edited; a change is a new step, and steps only add.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE doc (
        key  TEXT PRIMARY KEY NOT NULL,
        rev  INTEGER NOT NULL,
        -- Over the three others: SQLite's own check does not see a changed byte inside a value.
        sum  INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE TABLE head (
        id  INTEGER PRIMARY KEY CHECK (id = 1),
        rev INTEGER NOT NULL
    ) STRICT;
    INSERT INTO head (id, rev) VALUES (1, 0);
",
    "
    CREATE TABLE usage (
        -- Since 1970.
        hour          INTEGER NOT NULL,
        app           TEXT NOT NULL,
        function      TEXT NOT NULL,
        version       INTEGER NOT NULL,
        requests      INTEGER NOT NULL,
        failures      INTEGER NOT NULL,
        cpu_ns        INTEGER NOT NULL,
        memory_mib_ns INTEGER NOT NULL,
        bytes_in      INTEGER NOT NULL,
        bytes_out     INTEGER NOT NULL,
        outbound      INTEGER NOT NULL,
        PRIMARY KEY (hour, app, function, version)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE journal (
        -- Never used twice, not even when everything was dropped.
        seq     INTEGER PRIMARY KEY AUTOINCREMENT,
        -- Milliseconds since 1970.
        time    INTEGER NOT NULL,
        subject TEXT,
        -- Over the three others.
        sum     INTEGER NOT NULL,
        body    BLOB NOT NULL
    ) STRICT;
    CREATE INDEX journal_time ON journal (time);
    CREATE INDEX journal_subject ON journal (subject, seq);
",
];

/// How long to wait for somebody who looks at the file with another program.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The log beside the database is cut back to this size when it starts again.
const LOG_BYTES: i64 = 64 * 1024 * 1024;

/// Why a statement on the database failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// SQLite is content, but what it returned cannot be what was stored.
    #[error("{0}")]
    Content(String),
    /// The file may be sound, but this server must not write it, or no longer.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    /// Whether the system could not say that data reached the disk. It may have dropped the data
    /// and may well claim success the next time, so nothing can be built on the file any more.
    pub(super) fn is_lost_sync(&self) -> bool {
        let Self::Sqlite(error) = self else {
            return false;
        };
        matches!(
            error.sqlite_extended_error_code(),
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        )
    }

    /// What this means to whoever asked for the statement on the file `path`.
    pub(super) fn explain(&self, path: &Path) -> StorageError {
        let text = format!("`{}`: {self}", path.display());
        match self {
            Self::Content(why) => damaged(path, why),
            Self::Refused(_) => StorageError::Failed(text),
            Self::Sqlite(error) if is_full(error) => StorageError::Full(text),
            Self::Sqlite(error) if is_damage(error) => damaged(path, &error.to_string()),
            Self::Sqlite(_) => StorageError::Failed(text),
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        // The index of the log is a file too, and grows before anything is written.
        || error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    match error {
        E::SqliteFailure(error, _) => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        // Our statements are fixed: one that does not fit its table means the table is not ours.
        E::SqlInputError { .. }
        | E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..)
        | E::QueryReturnedNoRows => true,
        _ => false,
    }
}

/// Damage, and the two ways out of it.
fn damaged(path: &Path, why: &str) -> StorageError {
    StorageError::Damaged(format!(
        "`{path}` ({why}): restore the data directory from a backup, or move it away to begin anew",
        path = path.display(),
    ))
}

/// Opens the file for its one writer: makes it when it is missing, checks every page of it, and
/// brings its schema up to date. `may_begin` is whether an empty database can be right.
pub(super) fn open_writer(path: &Path, may_begin: bool) -> Result<Connection, StorageError> {
    let log = log_of(path);
    let begins = size_of(path)?.unwrap_or(0) == 0;
    if begins && !may_begin {
        return Err(damaged(path, "missing or empty, while there are artifacts in `blobs`"));
    }
    // SQLite would throw the log away together with the records in it.
    if begins && size_of(&log)?.unwrap_or(0) > 0 {
        let why = format!("missing or empty, while there are records in `{}`", log.display());
        return Err(damaged(path, &why));
    }
    if begins {
        create(path).map_err(|error| failed("create", path, &error))?;
    }
    wal::check(&log).map_err(|fault| fault.explain(path))?;
    prepare_writer(path, may_begin).map_err(|fault| fault.explain(path))
}

/// Opens the file for reading, beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    connect(path, flags)
}

/// Held while a database is copied, beside its own connections: none may be open when it is opened
/// anew after a failure, because what SQLite keeps in memory of a file goes with the last one.
pub(super) static COPYING: RwLock<()> = RwLock::new(());

/// Copies a database, as it is at one moment, into a file that is not there yet. Others may write
/// to it meanwhile. Blocks.
pub(crate) fn copy_database(from: &Path, to: &Path) -> Result<(), StorageError> {
    // SQLite takes an empty file for none, and keeps its permissions.
    create_private_file(to).map_err(|error| failed("create", to, &error))?;
    let name = to.to_str().ok_or_else(|| {
        StorageError::Failed(format!("`{}` is no name that SQLite can use", to.display()))
    })?;
    let _copying = COPYING.read().unwrap_or_else(PoisonError::into_inner);
    let copied = open_reader(from).and_then(|connection| {
        connection.execute("VACUUM INTO ?1", [name])?;
        Ok(())
    });
    copied.map_err(|fault| fault.explain(from))
}

/// How many pages the log holds that the database does not have yet; `None` without a log.
pub(super) fn waiting_pages(connection: &Connection) -> Result<Option<u64>, Fault> {
    let (logged, moved) = log_state(connection)?;
    Ok((logged >= 0).then(|| logged.abs_diff(moved)))
}

/// How many frames of the log belong to finished transactions; `None` without a log.
pub(super) fn frames(connection: &Connection) -> Result<Option<u64>, Fault> {
    let (logged, _) = log_state(connection)?;
    Ok(u64::try_from(logged).ok())
}

/// The pages in the log, and how many of them the database has.
fn log_state(connection: &Connection) -> Result<(i64, i64), Fault> {
    let mut look = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    Ok(look.query_row(params![], |row| Ok((row.get(1)?, row.get(2)?)))?)
}

/// Moves as much of the log into the database as readers let it.
pub(super) fn move_log(connection: &Connection) -> Result<(), Fault> {
    let mut act = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    Ok(act.query_row(params![], |_| Ok(()))?)
}

/// Keeps SQLite from moving the log into the database when the connection is closed.
pub(super) fn keep_log(connection: &Connection) -> Result<(), Fault> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

fn prepare_writer(path: &Path, may_begin: bool) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = connect(path, flags)?;
    check_identity(&connection, may_begin)?;
    check_pages(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The writer does this itself, to see when it fails.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    migrate(&mut connection)?;
    // The switch to a log answers before it is done, and says nothing when the disk fails then.
    if waiting_pages(&connection)?.is_none() {
        return Err(Fault::Refused(
            "its log cannot be kept: the disk failed, or its file system is not fit for it".into(),
        ));
    }
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // In KiB. The file is small, and the kernel keeps it in memory already.
    connection.pragma_update(None, "cache_size", -256)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Refuses a file that is not ours, that lost its tables, or that a newer server has written.
fn check_identity(connection: &Connection, may_begin: bool) -> Result<(), Fault> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", params![], |row| row.get(0))?;
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = version(connection)?;
    let known = MIGRATIONS.len();
    match (tables, id, version) {
        (0, 0, 0) if may_begin => Ok(()),
        (0, 0, 0) => Err(Fault::Content("empty, while there are artifacts in `blobs`".into())),
        (0, ..) => Err(Fault::Content("its tables are gone".into())),
        (_, APPLICATION_ID, 1..) if version <= known => Ok(()),
        (_, APPLICATION_ID, 1..) => Err(Fault::Refused(format!(
            "it has schema {version}, this server knows schemas up to {known}: a newer server \
             has written it, start that one"
        ))),
        _ => Err(Fault::Content("not a database of this server".into())),
    }
}

fn check_pages(connection: &Connection) -> Result<(), Fault> {
    let finding: String =
        connection.query_row("PRAGMA integrity_check(1)", params![], |row| row.get(0))?;
    if finding == "ok" { Ok(()) } else { Err(Fault::Content(finding)) }
}

fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    let seen = version(connection)?;
    for (step, sql) in (1_i64..).zip(MIGRATIONS).skip(seen) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<usize, Fault> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(version).map_err(|_| Fault::Content(format!("schema {version}")))
}

/// SQLite gives the files it makes beside the database the same permissions.
fn create(path: &Path) -> io::Result<()> {
    match create_private_file(path) {
        Ok(file) => file.sync_all()?,
        // An empty one from a start that did not get further.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    path.parent().map_or(Ok(()), sync_dir)
}

/// The log beside a database.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::Digest;

    #[test]
    fn a_released_step_is_never_edited() {
        let steps: Vec<_> =
            MIGRATIONS.iter().map(|sql| Digest::of(sql.as_bytes()).short()).collect();
        assert_eq!(steps, ["bab7744e6ec1", "7399acb1851d", "17fc41fcf61b"]);
    }
}
