//! After the disk failed: what may be believed, and how the database is opened anew.
//!
//! When the system cannot make data durable it tells so once, may drop the data, and may claim
//! success the next time (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So nothing may be built
//! on what the failed write left: the log is cut back to what was acknowledged before it, which was
//! durable then; everything that is kept in memory of the file is thrown away, because the file may
//! have changed; it is read and checked from one end to the other; and only when it has everything
//! that was acknowledged, writes go on.

use super::{
    database::{Fault, keep_log, log_of, open_writer},
    documents, wal,
};
use crate::storage::{Rev, StorageError, files::sync_dir};
use rusqlite::Connection;
use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

/// How often it is tried again, while there is something to write.
const RETRY: Duration = Duration::from_secs(1);

/// A database that cannot be written now.
#[derive(Debug)]
pub(super) struct Lost {
    why: String,
    acknowledged: Option<u64>,
    tried: Option<Instant>,
}

impl Lost {
    /// Lost for this reason; the log had so many acknowledged frames, if that is known.
    pub(super) fn new(why: String, acknowledged: Option<u64>) -> Self {
        Self { why, acknowledged, tried: None }
    }

    pub(super) fn acknowledged(&self) -> Option<u64> {
        self.acknowledged
    }

    /// Whether it is time to try again.
    pub(super) fn is_due(&self) -> bool {
        self.tried.is_none_or(|tried| tried.elapsed() >= RETRY)
    }

    pub(super) fn is_tried(&mut self) {
        self.tried = Some(Instant::now());
    }

    /// It could not be opened; that is said once for each reason.
    pub(super) fn still(&mut self, error: &StorageError) {
        let why = error.to_string();
        if why != self.why {
            tracing::error!(error = why, "the registry cannot be opened anew, trying again");
            self.why = why;
        }
    }

    /// What a caller is told.
    pub(super) fn refusal(&self) -> Fault {
        Fault::Refused(format!("no writes until it can be opened anew: {}", self.why))
    }

    #[cfg(test)]
    pub(super) fn expire(&mut self) {
        self.tried = None;
    }
}

/// Closes a connection without moving the log, which may be all there is.
pub(super) fn close(connection: Connection) {
    if let Err(fault) = keep_log(&connection) {
        tracing::error!(error = %fault, "the registry's log cannot be kept");
    }
    drop(connection);
}

/// Takes from the log what stands behind its acknowledged frames, for good.
pub(super) fn cut_back(path: &Path, acknowledged: Option<u64>) -> io::Result<()> {
    let frames = acknowledged.ok_or_else(|| io::Error::other("nobody knows how long it was"))?;
    wal::cut(&log_of(path), frames)
}

/// Opens the database anew, when no connection to it is left. It must have everything up to the
/// revision `known`.
pub(super) fn reopen(
    path: &Path,
    acknowledged: Option<u64>,
    known: Rev,
) -> Result<(Connection, Rev), StorageError> {
    let failed = |error: io::Error| Fault::Refused(error.to_string()).explain(path);
    if acknowledged.is_some() {
        cut_back(path, acknowledged).map_err(failed)?;
    }
    path.parent().map_or(Ok(()), sync_dir).map_err(failed)?;
    let connection = open_writer(path, false)?;
    let head = documents::verify(&connection).map_err(|fault| fault.explain(path))?;
    if head < known {
        close(connection);
        let why = format!(
            "the disk lost what it had taken: revision {known} was acknowledged, {head} is there"
        );
        return Err(Fault::Refused(why).explain(path));
    }
    Ok((connection, head))
}
