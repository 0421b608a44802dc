//! Files, locks and the threads that may wait for them: what the parts of the storage share.

use super::StorageError;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Runs `work` on a thread that may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => Err(StorageError::Failed(format!("a task ended early: {stopped}"))),
    }
}

/// Locks. No code of the storage panics while it holds a lock, so a poisoned one is usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Random bytes, for secrets and for names nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StorageError> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(StorageError::Failed(format!("no random numbers: {error}"))),
    }
}

/// The size of a file, if there is one.
pub(super) fn size_of(path: &Path) -> Result<Option<u64>, StorageError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path, &error)),
    }
}

/// Says what could not be done to which path, and tells a full disk from everything else.
pub(crate) fn failed(doing: &str, path: &Path, error: &io::Error) -> StorageError {
    let text = format!("cannot {doing} `{}`: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StorageError::Full(text),
        _ => StorageError::Failed(text),
    }
}

/// Makes a directory that only this user can enter, and says whether it was missing.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a new file that only this user can read. That it exists already is an error, so nobody
/// can have put a link or a file with looser permissions in its place.
pub(crate) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the names in a directory durable: a rename or a new file is only safe after this.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a whole private file: after a crash it is there with all its bytes or not at all.
///
/// Only one writer at a time may write the same path.
pub(crate) fn write_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temp = TempFile::new(path.with_file_name(name));
    // A crash may have left one.
    match fs::remove_file(temp.path()) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_private_file(temp.path())?;
    file.write_all(bytes)?;
    file.sync_all()?;
    temp.rename(path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The path of a file that is removed again unless it gets its final name.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
    kept: bool,
}

impl TempFile {
    /// Watches over `path`, whether there is a file yet or not.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, kept: false }
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name, replacing what has it.
    pub(super) fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // Best effort: what stays behind is removed at the next start.
            fs::remove_file(&self.path).ok();
        }
    }
}
