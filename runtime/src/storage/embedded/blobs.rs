//! `Blobs` as files: `blobs/sha256/ab/abcd…`, written under another name in `blobs/tmp` first.

use crate::storage::{
    BlobWriter, Blobs, StorageError,
    files::{
        TempFile, blocking, create_private_dir, create_private_file, failed, lock, random, size_of,
        sync_dir,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use faas_api::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    array,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// How many bytes are gathered before a thread is asked to write them.
const CHUNK: usize = 256 * 1024;

/// Artifacts as files named by their digest.
pub(crate) struct EmbeddedBlobs {
    folder: Arc<Folder>,
}

impl EmbeddedBlobs {
    /// Opens or makes the folder in `dir`, and removes what unfinished writers left. Blocks.
    pub(super) fn open(dir: &Path) -> Result<Self, StorageError> {
        let blobs = dir.join("blobs");
        let (root, temps) = (blobs.join("sha256"), blobs.join("tmp"));
        for made in [&blobs, &root, &temps] {
            create_private_dir(made).map_err(|error| failed("create", made, &error))?;
        }
        for parent in [dir, &blobs] {
            sync_dir(parent).map_err(|error| failed("sync", parent, &error))?;
        }
        for left in entries(&temps)? {
            fs::remove_file(&left).map_err(|error| failed("remove", &left, &error))?;
        }
        let publishing = array::from_fn(|_| Mutex::default());
        Ok(Self { folder: Arc::new(Folder { root, temps, publishing }) })
    }

    /// Whether there is no blob at all. Blocks.
    pub(super) fn is_empty(&self) -> Result<bool, StorageError> {
        Ok(self.folder.list()?.is_empty())
    }

    /// Runs `work` on the folder, on a thread that may wait.
    async fn on_folder<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let folder = Arc::clone(&self.folder);
        blocking(move || work(&folder)).await
    }
}

#[async_trait]
impl Blobs for EmbeddedBlobs {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, StorageError> {
        let draft = self.on_folder(Draft::create).await?;
        let folder = Arc::clone(&self.folder);
        Ok(Box::new(FileWriter { folder, draft: Some(draft), buffer: Vec::new() }))
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let digest = *digest;
        self.on_folder(move |folder| folder.get(&digest)).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StorageError> {
        let digest = *digest;
        self.on_folder(move |folder| folder.delete(&digest)).await
    }

    async fn list(&self) -> Result<Vec<Digest>, StorageError> {
        self.on_folder(Folder::list).await
    }

    async fn file(&self, digest: &Digest) -> Result<Option<PathBuf>, StorageError> {
        let digest = *digest;
        let found = move |folder: &Folder| Ok(folder.size(&digest)?.map(|_| folder.path(&digest)));
        self.on_folder(found).await
    }
}

/// Where the files are. Every method blocks.
struct Folder {
    root: PathBuf,
    temps: PathBuf,
    /// One per shelf, held until a new name is durable: of two equal blobs exactly one is new,
    /// and nobody relies on a name that a power failure would take away.
    publishing: [Mutex<()>; 256],
}

impl Folder {
    /// The directory of a blob, named by its digest's first two digits.
    fn shelf(&self, digest: &Digest) -> PathBuf {
        let [first, ..] = digest.as_bytes();
        self.root.join(format!("{first:02x}"))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.shelf(digest).join(digest.to_string())
    }

    fn publishing(&self, digest: &Digest) -> Option<MutexGuard<'_, ()>> {
        let [first, ..] = digest.as_bytes();
        self.publishing.get(usize::from(*first)).map(lock)
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let _publishing = self.publishing(digest);
        size_of(&self.path(digest))
    }

    fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        if Digest::of(&bytes) != *digest {
            // Out of the way, so that whoever is asked for it sends it again; kept, because the
            // fault may be the memory's.
            if let Err(error) = fs::rename(&path, damaged(&path)) {
                tracing::warn!(path = %path.display(), %error, "a damaged artifact stays");
            }
            return Err(StorageError::Damaged(format!(
                "`{}` does not match its digest: upload the same file again, or restore it from \
                 a backup",
                path.display(),
            )));
        }
        Ok(Some(bytes.into()))
    }

    /// Without waiting for the disk: if the blob is back after a power failure, it is only unused.
    fn delete(&self, digest: &Digest) -> Result<(), StorageError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<Digest>, StorageError> {
        let mut digests = Vec::new();
        for shelf in entries(&self.root)? {
            if !shelf.is_dir() {
                continue;
            }
            for path in entries(&shelf)? {
                let digest = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                digests.extend(digest.filter(|digest| self.path(digest) == path));
            }
        }
        Ok(digests)
    }

    /// Gives a finished file its name, and says whether there was none yet. An equal file is
    /// replaced, which heals one that was damaged.
    fn publish(&self, temp: TempFile, digest: &Digest) -> Result<bool, StorageError> {
        let _publishing = self.publishing(digest);
        let (shelf, path) = (self.shelf(digest), self.path(digest));
        let made = create_private_dir(&shelf);
        if made.map_err(|error| failed("create", &shelf, &error))?
            && let Err(error) = sync_dir(&self.root)
        {
            // Else the next one would find it there and take it for durable.
            fs::remove_dir(&shelf).ok();
            return Err(failed("sync", &self.root, &error));
        }
        let absent = size_of(&path)?.is_none();
        let new = absent && size_of(&damaged(&path))?.is_none();
        temp.rename(&path).map_err(|error| failed("rename a file to", &path, &error))?;
        if let Err(error) = sync_dir(&shelf) {
            if absent {
                fs::remove_file(&path).ok();
            }
            return Err(failed("sync", &shelf, &error));
        }
        fs::remove_file(damaged(&path)).ok();
        Ok(new)
    }
}

/// A blob being written: bytes gather here, and go to the file in chunks.
struct FileWriter {
    folder: Arc<Folder>,
    /// `None` while a thread has it, and for good after that thread failed.
    draft: Option<Draft>,
    buffer: Vec<u8>,
}

impl FileWriter {
    fn take(&mut self) -> Result<(Draft, Vec<u8>), StorageError> {
        let lost = || StorageError::Failed("an earlier write to this blob failed".into());
        Ok((self.draft.take().ok_or_else(lost)?, mem::take(&mut self.buffer)))
    }
}

#[async_trait]
impl BlobWriter for FileWriter {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        for piece in bytes.chunks(CHUNK) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len() < CHUNK {
                continue;
            }
            let (mut draft, mut buffer) = self.take()?;
            let append = move || {
                draft.append(&buffer)?;
                buffer.clear();
                Ok((draft, buffer))
            };
            let (draft, buffer) = blocking(append).await?;
            self.draft = Some(draft);
            self.buffer = buffer;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(Digest, bool), StorageError> {
        let (mut draft, buffer) = self.take()?;
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            draft.append(&buffer)?;
            let (temp, digest) = draft.close()?;
            Ok((digest, folder.publish(temp, &digest)?))
        })
        .await
    }
}

/// The file of a blob that has no name yet. Every method blocks.
struct Draft {
    temp: TempFile,
    file: File,
    hasher: Sha256,
}

impl Draft {
    fn create(folder: &Folder) -> Result<Self, StorageError> {
        let name = format!("{:032x}", u128::from_ne_bytes(random()?));
        let temp = TempFile::new(folder.temps.join(name));
        match create_private_file(temp.path()) {
            Ok(file) => Ok(Self { temp, file, hasher: Sha256::new() }),
            Err(error) => Err(failed("create", temp.path(), &error)),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| failed("write", self.temp.path(), &error))
    }

    /// Makes the bytes durable; their name is not yet.
    fn close(self) -> Result<(TempFile, Digest), StorageError> {
        let Self { temp, file, hasher } = self;
        match file.sync_all() {
            Ok(()) => Ok((temp, Digest::from_bytes(hasher.finalize().into()))),
            Err(error) => Err(failed("sync", temp.path(), &error)),
        }
    }
}

/// Where a blob is put that does not match its digest.
fn damaged(path: &Path) -> PathBuf {
    path.with_extension("damaged")
}

/// The paths of everything in a directory.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let read = || -> io::Result<_> { fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect() };
    read().map_err(|error| failed("list", dir, &error))
}
