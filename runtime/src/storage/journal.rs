//! What happened: small records that are appended, read newest first, and dropped when they are
//! old. Nothing changes one.

use super::StorageError;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

/// The place of a record. Places grow, and none is used twice.
pub(crate) type Seq = u64;

/// The largest record, in bytes.
pub(crate) const MAX_RECORD_BYTES: usize = 16 * 1024;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalRecord {
    /// When it happened; kept to the millisecond.
    pub(crate) time: Timestamp,
    /// What it is about: an app, or nothing in particular.
    pub(crate) subject: Option<String>,
    /// At most [`MAX_RECORD_BYTES`].
    pub(crate) body: Bytes,
}

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalQuery {
    /// Only about one of these; `None` is about anything, or nothing in particular.
    pub(crate) subjects: Option<Vec<String>>,
    /// Only from this time on.
    pub(crate) since: Option<Timestamp>,
    /// Only in places before this one: how a reader goes on.
    pub(crate) before: Option<Seq>,
    /// The newest so many.
    pub(crate) limit: usize,
}

impl JournalQuery {
    /// Whether a record is one of those that are wanted.
    #[cfg(test)]
    pub(super) fn wants(&self, seq: Seq, record: &JournalRecord) -> bool {
        let about = |subjects: &Vec<String>| {
            record.subject.as_ref().is_some_and(|subject| subjects.contains(subject))
        };
        self.subjects.as_ref().is_none_or(about)
            && self.since.is_none_or(|since| record.time >= since)
            && self.before.is_none_or(|before| seq < before)
    }
}

/// Refuses a record that is too large.
pub(super) fn check_size(record: &JournalRecord) -> Result<(), StorageError> {
    match record.body.len() {
        0..=MAX_RECORD_BYTES => Ok(()),
        bytes => Err(StorageError::Failed(format!(
            "a record has {bytes} bytes, at most {MAX_RECORD_BYTES} fit"
        ))),
    }
}

/// An append-only list of small records.
///
/// An append that has returned `Ok` survives the process and, where the implementation has a disk,
/// the machine.
#[async_trait]
pub(crate) trait Journal: Send + Sync {
    /// Adds a record and returns its place. A body of more than [`MAX_RECORD_BYTES`] is refused.
    async fn append(&self, record: JournalRecord) -> Result<Seq, StorageError>;

    /// The records that are wanted, newest first.
    async fn read(&self, query: JournalQuery) -> Result<Vec<(Seq, JournalRecord)>, StorageError>;

    /// Drops what happened before this time, and returns how many records that were.
    async fn trim(&self, before: Timestamp) -> Result<u64, StorageError>;
}
