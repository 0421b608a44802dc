//! Where bytes live: the platform's records and the artifacts, behind narrow traits.
//!
//! | part | what it holds |
//! |---|---|
//! | [`registry`] | `trait Registry`: small documents with revisions – what is deployed |
//! | [`record`] | records in documents, as other releases may have written them |
//! | [`blobs`] | `trait Blobs`: artifacts by digest |
//! | [`usage`] | `trait UsageStore`: what functions used, hour by hour |
//! | [`journal`] | `trait Journal`: what happened, appended and read |
//! | `memory` | all in memory: the executable specification, and what unit tests use |
//! | [`embedded`] | all on this machine's disk: SQLite and files – the default |
//! | [`data_dir`] | the data directory: its lock, its keys |
//! | [`feed`] | how both implementations tell watchers of changes |
//! | [`files`] | private files, durable names, threads that may wait |
//! | `conformance` | the one suite every implementation passes |
//!
//! Nothing of an implementation shows through the traits, so a cluster's engine is a second
//! implementation and nothing else changes.

pub(crate) mod blobs;
#[cfg(test)]
mod conformance;
pub(crate) mod data_dir;
pub(crate) mod embedded;
mod feed;
pub(crate) mod files;
pub(crate) mod journal;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod record;
pub(crate) mod registry;
pub(crate) mod usage;

pub(crate) use blobs::{BlobWriter, Blobs};
pub(crate) use files::random;
pub(crate) use journal::{Journal, JournalQuery, JournalRecord, Seq};
pub(crate) use registry::{Change, Doc, DocKey, Expect, MAX_DOC_BYTES, Registry, Rev};
pub(crate) use usage::{UsageKey, UsageQuery, UsageStore, Used};

/// Why the storage could not do what it was asked. Callers turn it into a code; its text goes to
/// the log, never to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StorageError {
    /// The document is not in the state the caller expected.
    #[error("the document changed in between")]
    Conflict,
    /// The disk, or the quota, is full.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The bytes are not the ones they were stored as.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Everything else.
    #[error("storage: {0}")]
    Failed(String),
}
