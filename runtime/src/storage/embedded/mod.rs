//! The default implementation: everything on this machine's disk.
//!
//! | part | what it holds |
//! |---|---|
//! | [`registry`] | `Registry` over `state.db` |
//! | [`journal`] | `Journal` over a table of it |
//! | [`writer`] | the one thread that writes to it, many documents per commit |
//! | [`readers`] | the connections that read from it |
//! | [`documents`] | the statements, and the checksum of every document |
//! | [`database`] | opening, checking and migrating an SQLite file; what its errors mean |
//! | [`wal`] | whether SQLite's log was damaged, which SQLite takes for its end |
//! | [`blobs`] | `Blobs` as files named by their digest |
//! | [`usage`] | `UsageStore` over a table of `state.db` |

mod blobs;
mod database;
mod documents;
mod journal;
mod readers;
mod recovery;
mod registry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod usage;
mod wal;
mod writer;

pub(crate) use blobs::EmbeddedBlobs;
pub(crate) use database::copy_database;
pub(crate) use registry::EmbeddedRegistry;

use super::{StorageError, files::blocking};
use std::path::Path;

/// Opens the records and the artifacts in the data directory `dir`, which exists and which nobody
/// else uses. Makes what is missing in an empty directory, and refuses what is damaged: records
/// are never begun anew beside artifacts that belonged to others.
pub(crate) async fn open(dir: &Path) -> Result<(EmbeddedRegistry, EmbeddedBlobs), StorageError> {
    let dir = dir.to_owned();
    blocking(move || {
        let blobs = EmbeddedBlobs::open(&dir)?;
        let registry = EmbeddedRegistry::open(&dir, blobs.is_empty()?)?;
        Ok((registry, blobs))
    })
    .await
}
