//! The platform's own records: small documents with revisions.

use super::StorageError;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use tokio::sync::mpsc;

/// A revision. Revisions grow over all documents, so the largest seen says how far one has read.
pub(crate) type Rev = u64;

/// The key of a document: segments of `a-z 0-9 - .` joined by `/`, as `apps/hello`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DocKey(String);

impl DocKey {
    /// A key made of trusted segments.
    pub(crate) fn new(segments: &[&str]) -> Self {
        Self(segments.join("/"))
    }

    /// The key as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doc {
    /// At most [`MAX_DOC_BYTES`].
    pub(crate) body: Bytes,
    /// Changes with every write of this document, and is never used again.
    pub(crate) rev: Rev,
}

/// The largest document, in bytes. Larger things are blobs.
pub(crate) const MAX_DOC_BYTES: usize = 256 * 1024;

/// Refuses a document that is too large, before anything else is looked at.
pub(super) fn check_size(key: &DocKey, body: &Bytes) -> Result<(), StorageError> {
    if body.len() <= MAX_DOC_BYTES {
        return Ok(());
    }
    let bytes = body.len();
    Err(StorageError::Failed(format!("`{key}` has {bytes} bytes, at most {MAX_DOC_BYTES} fit")))
}

/// What a write expects to find; anything else is [`StorageError::Conflict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Anything.
    Any,
    /// No such document.
    Absent,
    /// The document at this revision.
    Rev(Rev),
}

impl Expect {
    /// Whether this is what there is: the document's revision, or none.
    pub(super) fn holds(self, found: Option<Rev>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Rev(rev) => found == Some(rev),
        }
    }
}

/// A document that changed, as a watcher learns of it. Only the last state of a document counts:
/// an implementation may leave out states in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The document has this content now.
    Put(DocKey, Doc),
    /// The document is gone; the revision is that of its removal.
    Deleted(DocKey, Rev),
    /// The watcher fell behind: list again, then go on.
    Resync,
}

/// Small documents with revisions and preconditions.
///
/// A write that has returned `Ok` survives the process and, where the implementation has a disk,
/// the machine. Reads see every write that returned before they began.
#[async_trait]
pub(crate) trait Registry: Send + Sync {
    /// The document, if there is one.
    async fn get(&self, key: &DocKey) -> Result<Option<Doc>, StorageError>;

    /// Writes a document whole and returns its new revision. A body of more than
    /// [`MAX_DOC_BYTES`] is refused.
    async fn put(&self, key: &DocKey, body: Bytes, expect: Expect) -> Result<Rev, StorageError>;

    /// Removes a document and returns the revision of its removal. Removing what is absent is a
    /// conflict, unless anything was expected: then nothing changes, and the latest revision is
    /// returned.
    async fn delete(&self, key: &DocKey, expect: Expect) -> Result<Rev, StorageError>;

    /// Every document whose key starts with `prefix`, in byte order, and the revision at which
    /// that was so: watching from it misses nothing.
    async fn list(&self, prefix: &str) -> Result<(Vec<(DocKey, Doc)>, Rev), StorageError>;

    /// Returns once every write that was answered before is there for good, or will never be. Fails
    /// while that is not certain, because the disk failed: then nobody may conclude from what is not
    /// in the registry that it will not be.
    async fn settled(&self) -> Result<(), StorageError>;

    /// Changes of documents whose key starts with `prefix`, after the revision `after`, in the
    /// order of their revisions. The channel is bounded and no writer waits for it: a watcher that
    /// is too slow, or asks for changes too long ago, gets [`Change::Resync`] in their place. It
    /// ends with the registry.
    async fn watch(&self, prefix: &str, after: Rev)
    -> Result<mpsc::Receiver<Change>, StorageError>;
}
