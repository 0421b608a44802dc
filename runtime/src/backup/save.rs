//! What of a data directory is in a backup, and how it becomes a stream.

use super::{COPIES, archive::Writer, is_saved};
use crate::{
    clock,
    deploy::{Deployer, SweepPause},
    storage::{
        StorageError,
        embedded::copy_database,
        files::{create_private_dir, failed},
    },
};
use bytes::Bytes;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard, mpsc},
};

/// What goes to the client at once, in bytes, and how many of these wait for it.
const PIECE: usize = 128 << 10;
const PIECES: usize = 4;
/// How deep folders of a data directory are; a link may lead in a circle.
const MAX_DEPTH: usize = 16;
/// What an SQLite file begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";
/// What SQLite keeps beside a database. Its copy has all of that in it.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The archive as it is written. An error means that what was received is no backup.
pub(crate) type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// One is being taken already.
    #[error("another backup is being taken")]
    UnderWay,
    /// The disk failed, or is full.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Takes backups of a data directory.
pub(crate) struct Backup {
    data_dir: PathBuf,
    deployer: Arc<Deployer>,
    one_at_a_time: Arc<Mutex<()>>,
}

/// A file of a backup.
struct Part {
    /// Its path in the archive.
    name: String,
    /// Where its bytes are.
    file: PathBuf,
}

/// What a backup that is under way holds on to.
struct Hold {
    copies: PathBuf,
    // Sweeps go on, and the next backup may begin, when the copies are gone.
    _sweeps: SweepPause,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // What stays behind is removed by the next backup, and is in none.
        let _ = fs::remove_dir_all(&self.copies);
    }
}

impl Backup {
    /// Backups of this data directory, whose artifacts this deployer removes when they are unused.
    pub(crate) fn new(data_dir: &Path, deployer: Arc<Deployer>) -> Self {
        Self { data_dir: data_dir.to_owned(), deployer, one_at_a_time: Arc::default() }
    }

    /// Begins a backup: copies the databases, and then sends the archive for as long as somebody
    /// takes it.
    ///
    /// # Errors
    /// When another one is being taken, or a database cannot be copied.
    pub(crate) async fn begin(&self) -> Result<Pieces, BackupError> {
        let turn = self.one_at_a_time.clone().try_lock_owned();
        let turn = turn.map_err(|_| BackupError::UnderWay)?;
        let sweeps = self.deployer.pause_sweeps().await;
        let copies = self.data_dir.join(COPIES);
        let hold = Hold { copies: copies.clone(), _sweeps: sweeps, _turn: turn };
        let data_dir = self.data_dir.clone();
        let gathering = tokio::task::spawn_blocking(move || {
            // Whoever gives up waiting drops this with the rest.
            let parts = gather(&data_dir, &copies)?;
            Ok::<_, StorageError>((parts, hold))
        });
        let stopped = |error: tokio::task::JoinError| StorageError::Failed(error.to_string());
        let (parts, hold) = gathering.await.map_err(stopped)??;
        let (sender, pieces) = mpsc::channel(PIECES);
        let deployer = self.deployer.clone();
        tokio::task::spawn_blocking(move || {
            send(&parts, &sender);
            drop(hold);
            // What was not swept meanwhile. Nobody waits for that.
            Handle::current().spawn(async move {
                if let Err(error) = deployer.sweep().await {
                    tracing::warn!(%error, "unused artifacts could not be removed");
                }
            });
        });
        Ok(pieces)
    }
}

/// Finds what belongs into a backup, and copies what changes while it is read.
fn gather(data_dir: &Path, copies: &Path) -> Result<Vec<Part>, StorageError> {
    match fs::remove_dir_all(copies) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed("remove", copies, &error));
        }
        _ => create_private_dir(copies).map_err(|error| failed("create", copies, &error))?,
    };
    // The databases first: what they name is there, and stays there.
    let mut parts = Vec::new();
    for path in files(data_dir)? {
        let file = data_dir.join(&path);
        if !is_artifact(&path) && is_database(&file)? {
            let copy = copies.join(parts.len().to_string());
            copy_database(&file, &copy)?;
            parts.push(Part { name: name(&path)?, file: copy });
        }
    }
    let databases: HashSet<String> = parts.iter().map(|part| part.name.clone()).collect();
    for path in files(data_dir)? {
        let file = data_dir.join(&path);
        let name = name(&path)?;
        let is_copied = databases.contains(&name);
        if !is_copied && (is_artifact(&path) || !is_beside_database(&file)) {
            parts.push(Part { name, file });
        }
    }
    Ok(parts)
}

/// Every file of a data directory that a backup has, by its path inside of it, sorted.
fn files(data_dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = data_dir.join(&folder);
        let cannot = |error| failed("read", &path, &error);
        for entry in fs::read_dir(&path).map_err(cannot)? {
            let inside = folder.join(entry.map_err(cannot)?.file_name());
            if !is_saved(&inside) {
                continue;
            }
            // A folder may be a link to another disk.
            let metadata = match fs::metadata(data_dir.join(&inside)) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("look at", &inside, &error)),
            };
            if metadata.is_dir() && inside.components().count() < MAX_DEPTH {
                folders.push(inside);
            } else if metadata.is_file() {
                found.push(inside);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> Result<String, StorageError> {
    let name = path.to_str().map(str::to_owned);
    name.ok_or_else(|| {
        let path = path.display();
        StorageError::Failed(format!("`{path}` of the data directory is not a name of ours"))
    })
}

/// Whether it is known by its digest: then its bytes are sent as they are, whatever they are.
fn is_artifact(path: &Path) -> bool {
    path.starts_with("blobs")
}

fn is_database(file: &Path) -> Result<bool, StorageError> {
    let mut begin = [0; SQLITE.len()];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut begin));
    match read {
        Ok(()) => Ok(begin == SQLITE),
        // Shorter, or gone meanwhile.
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound) => {
            Ok(false)
        }
        Err(error) => Err(failed("read", file, &error)),
    }
}

fn is_beside_database(file: &Path) -> bool {
    let name = file.as_os_str().to_string_lossy();
    let database = BESIDE.iter().find_map(|end| name.strip_suffix(end));
    database.is_some_and(|database| Path::new(database).is_file())
}

/// Writes the archive, to its end or until nobody takes it any more.
fn send(parts: &[Part], sender: &mpsc::Sender<io::Result<Bytes>>) {
    let Err(error) = write(parts, sender) else {
        return;
    };
    if !sender.is_closed() {
        tracing::error!(%error, "a backup broke off");
        // The reader may go away at this moment.
        let _ = sender.blocking_send(Err(error));
    }
}

fn write(parts: &[Part], sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let to = ToChannel { sender, gathered: Vec::with_capacity(PIECE) };
    let mut archive = Writer::begin(to, clock::now())?;
    for Part { name, file } in parts {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("`{name}`: {error}"));
        let file = match File::open(file) {
            Ok(file) => file,
            // Nothing that is named is ever removed meanwhile; the rest may be.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(named(error)),
        };
        let size = file.metadata().map_err(named)?.len();
        archive.add(name, size, file).map_err(named)?;
    }
    archive.end()?.flush()
}

/// Sends what is written, in pieces of one size.
struct ToChannel<'a> {
    sender: &'a mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl Write for ToChannel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE));
        if piece.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(ErrorKind::BrokenPipe, "nobody takes it");
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Archives of a folder, without a node.

    use super::*;

    /// The archive of a data directory that nobody changes.
    pub(in crate::backup) fn archive_of(data_dir: &Path) -> Vec<u8> {
        let copies = data_dir.join(COPIES);
        let parts = gather(data_dir, &copies).unwrap();
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let sending = std::thread::spawn(move || send(&parts, &sender));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            archive.extend_from_slice(&piece.unwrap());
        }
        sending.join().unwrap();
        fs::remove_dir_all(copies).unwrap();
        archive
    }
}
