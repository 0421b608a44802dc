//! A data directory from a backup: unpacked beside its place, proven, and then moved there.

use super::{
    NEEDED, STATE,
    archive::{self, Contents, Sink},
    is_saved,
};
use crate::{
    functions,
    storage::{
        Blobs as _, StorageError,
        data_dir::DataDir,
        embedded,
        files::{create_private_dir, create_private_file, random, sync_dir},
    },
};
use jiff::Timestamp;
use std::{
    fmt::Display,
    fs,
    io::{self, ErrorKind, Read},
    path::{self, Path, PathBuf},
};

/// Why nothing was restored. The text says what to do about it; the data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive is something else, or of a newer release.
    #[error("this cannot be restored: {0}")]
    NotABackup(String),
    /// The archive is not as it was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// There is something already where the data directory shall be.
    #[error("{0}")]
    InTheWay(String),
    /// The system refused.
    #[error("{0}")]
    Failed(String),
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The data directory.
    pub data_dir: PathBuf,
    /// When the backup was taken.
    pub created_at: Timestamp,
    /// The release of the node that it is of.
    pub faas: String,
    /// How many files it has.
    pub files: usize,
    /// How many bytes they have together.
    pub bytes: u64,
    /// How many apps are deployed on it.
    pub apps: usize,
}

/// Makes a data directory of a backup. The directory must not exist, or be empty; it is there with
/// everything in it when this returns, and as it was when this fails.
///
/// # Errors
/// [`RestoreError`], when the archive is not a whole backup or the directory cannot be made.
pub async fn restore(
    from: Box<dyn Read + Send>,
    data_dir: PathBuf,
) -> Result<Restored, RestoreError> {
    let unpacking = tokio::task::spawn_blocking(move || {
        let place = Place::find(&data_dir)?;
        let mut folder = Folder { path: place.temp.path.clone() };
        let contents = archive::read(from, &mut folder)?;
        check_blobs(&contents)?;
        Ok::<_, RestoreError>((place, contents))
    });
    let (place, contents) = unpacking.await.map_err(failed)??;
    let apps = prove(&place.temp.path, &contents).await?;
    let (files, bytes) = (contents.count(), contents.bytes());
    let moving = tokio::task::spawn_blocking(move || place.take());
    let data_dir = moving.await.map_err(failed)??;
    let archive::Head { faas, created_at, .. } = contents.head;
    Ok(Restored { data_dir, created_at, faas, files, bytes, apps })
}

fn failed(error: impl Display) -> RestoreError {
    RestoreError::Failed(error.to_string())
}

/// Where the data directory will be, and where it is made.
pub(super) struct Place {
    pub(super) target: PathBuf,
    pub(super) temp: Temp,
    /// It is made inside of the target, because nothing can be made beside it.
    pub(super) is_inside: bool,
}

/// A folder that is removed unless it is moved away.
pub(super) struct Temp {
    pub(super) path: PathBuf,
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Best effort: its name says what it is.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Place {
    /// Looks where a data directory can be made.
    fn find(data_dir: &Path) -> Result<Self, RestoreError> {
        let cannot = |doing: &str, path: &Path, error: &io::Error| {
            failed(format!("cannot {doing} `{}`: {error}", path.display()))
        };
        let absolute = path::absolute(data_dir).map_err(failed)?;
        let exists = is_empty_or_absent(&absolute)?;
        // A link to an empty folder stays a link.
        let target = if exists { absolute.canonicalize().map_err(failed)? } else { absolute };
        let suffix = u32::from_le_bytes(random::<4>().map_err(failed)?);
        let parent = target.parent().unwrap_or(&target).to_owned();
        if !exists {
            fs::create_dir_all(&parent).map_err(|error| cannot("create", &parent, &error))?;
        }
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let beside = parent.join(format!(".{name}.restore-{suffix:08x}"));
        let is_mount = exists && device(&target) != device(&parent);
        let made = if is_mount {
            Err(io::Error::from(ErrorKind::CrossesDevices))
        } else {
            create_private_dir(&beside)
        };
        match made {
            Ok(_) => Ok(Self { target, temp: Temp { path: beside }, is_inside: false }),
            Err(_) if exists => {
                let inside = target.join(format!(".restore-{suffix:08x}"));
                create_private_dir(&inside).map_err(|error| cannot("create", &inside, &error))?;
                Ok(Self { target, temp: Temp { path: inside }, is_inside: true })
            }
            Err(error) => Err(cannot("create", &beside, &error)),
        }
    }

    /// Makes the directory live.
    pub(super) fn take(self) -> Result<PathBuf, RestoreError> {
        let Self { target, temp, is_inside } = self;
        let cannot = |error: io::Error| {
            failed(format!("cannot move the data directory to `{}`: {error}", target.display()))
        };
        sync_tree(&temp.path).map_err(cannot)?;
        if is_inside {
            // The artifacts first: beside them no server begins records anew.
            let mut names: Vec<_> = fs::read_dir(&temp.path)
                .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
                .map_err(cannot)?;
            names.sort_by_key(|name| (name != "blobs", name == STATE));
            for (moved, name) in names.iter().enumerate() {
                let renamed = fs::rename(temp.path.join(name), target.join(name));
                if let Err(error) = renamed {
                    // Back, so that the directory is as it was.
                    for name in names.iter().take(moved) {
                        let _ = fs::rename(target.join(name), temp.path.join(name));
                    }
                    return Err(cannot(error));
                }
            }
            drop(temp);
            sync_dir(&target).map_err(cannot)?;
        } else {
            // Somebody may have put something there meanwhile: then this fails.
            fs::rename(&temp.path, &target).map_err(cannot)?;
            target.parent().map_or(Ok(()), sync_dir).map_err(cannot)?;
        }
        Ok(target)
    }
}

/// Whether there is such a folder. It must have nothing in it.
fn is_empty_or_absent(path: &Path) -> Result<bool, RestoreError> {
    let shown = path.display();
    match fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(_) => Err(RestoreError::InTheWay(format!(
                "`{shown}` is not empty, and nothing is ever restored over something else: move \
                 it away, or choose another directory with --data-dir"
            ))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound && fs::read_link(path).is_err() => {
            Ok(false)
        }
        Err(error) => Err(failed(format!("cannot read `{shown}`: {error}"))),
    }
}

fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|metadata| metadata.dev())
}

/// Where members are written.
struct Folder {
    path: PathBuf,
}

impl Sink for Folder {
    fn take(&mut self, path: &str, content: &mut dyn Read) -> Result<(), RestoreError> {
        if !is_saved(Path::new(path)) {
            return Err(RestoreError::Damaged(format!("`{path}` is never in a backup")));
        }
        let file = self.path.join(path);
        let cannot =
            |error: io::Error| failed(format!("cannot write `{}`: {error}", file.display()));
        // Below a folder that nobody else knows: nothing in it leads elsewhere.
        let mut folder = self.path.clone();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            create_private_dir(&folder).map_err(cannot)?;
        }
        // One that is there already is in the archive twice.
        let mut to = create_private_file(&file).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => RestoreError::Damaged(format!("`{path}` is in it twice")),
            _ => cannot(error),
        })?;
        archive::copy(content, &mut to)?;
        to.sync_all().map_err(cannot)
    }
}

/// Makes the names in a folder and all below it durable; the files are already.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_dir(folder)
}

/// Every artifact is what its name says.
fn check_blobs(contents: &Contents) -> Result<(), RestoreError> {
    for path in contents.paths() {
        let Some(shelved) = path.strip_prefix("blobs/sha256/") else {
            continue;
        };
        let named = shelved.split_once('/').map(|(_, name)| name);
        if named.is_none() || contents.sha256(path) != named {
            return Err(RestoreError::Damaged(format!("`{path}` is not what its name says")));
        }
    }
    Ok(())
}

/// Opens it as a server would, and looks whether what is named is there. Returns how many apps
/// there are.
async fn prove(folder: &Path, contents: &Contents) -> Result<usize, RestoreError> {
    if let Some(lacking) = NEEDED.iter().find(|path| contents.sha256(path).is_none()) {
        return Err(RestoreError::Damaged(format!("`{lacking}` is missing")));
    }
    let unusable = |error: &dyn Display| {
        // The folder goes away with the attempt, and is no help to anybody.
        let text = error.to_string().replace(&folder.display().to_string(), "");
        RestoreError::Damaged(text)
    };
    let path = folder.to_owned();
    let opened = tokio::task::spawn_blocking(move || DataDir::open(&path)).await.map_err(failed)?;
    let data_dir = opened.map_err(|error| unusable(&error))?;
    let refused = |error: StorageError| match error {
        StorageError::Full(text) => RestoreError::Failed(text),
        // A newer server's records among others: that is told as it is.
        error => unusable(&error),
    };
    let (registry, blobs) = embedded::open(folder).await.map_err(refused)?;
    let named =
        functions::artifacts_in(&registry, &blobs).await.map_err(|error| unusable(&error))?;
    for digest in &named.digests {
        if blobs.file(digest).await.map_err(refused)?.is_none() {
            return Err(RestoreError::Damaged(format!("the artifact {digest} is missing")));
        }
    }
    drop(data_dir);
    Ok(named.apps)
}
