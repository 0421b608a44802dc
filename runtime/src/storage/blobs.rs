//! Artifacts by digest: written once, never changed.

use super::StorageError;
use async_trait::async_trait;
use bytes::Bytes;
use faas_api::Digest;
use std::path::PathBuf;

/// Content-addressed bytes.
#[async_trait]
pub(crate) trait Blobs: Send + Sync {
    /// Begins a blob whose digest is not known yet.
    async fn create(&self) -> Result<Box<dyn BlobWriter>, StorageError>;

    /// The whole blob, its digest checked; `None` when there is none.
    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError>;

    /// Removes a blob; removing what is absent is no error.
    async fn delete(&self, digest: &Digest) -> Result<(), StorageError>;

    /// Every digest there is.
    async fn list(&self) -> Result<Vec<Digest>, StorageError>;

    /// A file on this machine that holds the blob, for a process that reads it by name. `None`
    /// when there is no such blob. An implementation without files makes a temporary one.
    async fn file(&self, digest: &Digest) -> Result<Option<PathBuf>, StorageError>;
}

/// A blob being written. Dropping it unfinished leaves nothing behind.
#[async_trait]
pub(crate) trait BlobWriter: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes the blob durable. Returns its digest, and whether it is new here.
    async fn finish(self: Box<Self>) -> Result<(Digest, bool), StorageError>;
}
