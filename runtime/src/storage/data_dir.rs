//! The data directory: who may use it, and the node's own two secrets.

use super::{
    StorageError,
    files::{create_private_dir, random, sync_dir, write_private_file},
};
use std::{
    fmt::{self, Write as _},
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{self, Path, PathBuf},
};

/// What a node keeps in its data directory, but for the secrets, which are looked at when they are
/// read.
const OWN: &[&str] = &[
    "lock",
    "state.db",
    "state.db-wal",
    "state.db-shm",
    "blobs",
    "blobs/sha256",
    "blobs/tmp",
    "cache",
    "logs",
    "acme",
];
/// The bits of a mode with which others write.
const OTHERS_WRITE: u32 = 0o022;

/// No secret is longer than this; anything else is the wrong file.
const MAX_SECRET_BYTES: u64 = 4096;

/// An open data directory. While it lives no other server can use the same one.
pub(crate) struct DataDir {
    path: PathBuf,
    is_new: bool,
    token_file: PathBuf,
    token: String,
    node_key: [u8; 32],
    /// The lock is the open file's: it ends with the process, however that ends.
    _lock: File,
}

/// Why a data directory cannot be used. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another server has it open.
    #[error(
        "another server is using the data directory `{}`: stop that one, or choose another \
         directory with --data-dir", .0.display()
    )]
    InUse(PathBuf),
    /// It is not a directory, or takes no files.
    #[error("the data directory `{}` {problem}, or choose another with --data-dir", path.display())]
    Unusable {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong, and one way out.
        problem: String,
    },
    /// Somebody else may put things into it, or has: code, records and tokens would be theirs.
    #[error("`{}` {problem}", path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        problem: String,
    },
    /// A secret's file is not as a secret has to be. It is not replaced, because somebody may
    /// rely on it.
    #[error("`{}` {problem}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        problem: String,
    },
    /// The system refused.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// There are no random numbers to make a secret of.
    #[error(transparent)]
    Random(#[from] StorageError),
}

impl DataDir {
    /// Opens the directory, or makes it, and keeps every other server out. Blocks.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] when another server has it open, the others when it or a secret in
    /// it cannot be used as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        // Kept absolute, so that it stays the same directory and reads well in a log.
        let path = path::absolute(path).map_err(io_error("resolve", path))?;
        let is_new = create(&path)?;
        check_link(&path)?;
        check_mode(&path, &fs::metadata(&path).map_err(io_error("look at", &path))?)?;
        let lock = acquire(&path)?;
        check_owner(&path, &fs::metadata(&path).map_err(io_error("look at", &path))?)?;
        for name in OWN {
            check_own(&path.join(name))?;
        }
        let token_file = path.join("admin.token");
        let token = open_secret(&token_file, new_token, parse_token)?;
        let node_key = open_secret(&path.join("node.key"), new_key, parse_key)?;
        let cache = path.join("cache");
        create_private_dir(&cache).map_err(io_error("create", &cache))?;
        if forbids_code(&cache).map_err(io_error("look at", &cache))? {
            let problem = "is mounted `noexec`, and functions' native code is mapped from it: mount \
                           it with `exec`";
            return Err(unusable(&path, problem.into()));
        }
        Ok(Self { path, is_new, token_file, token, node_key, _lock: lock })
    }

    /// Where it is, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was made just now.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The administrator's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The file with the administrator's token, which the command line reads on this machine.
    pub(crate) fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// What this node signs its own native code with.
    pub(crate) fn node_key(&self) -> &[u8; 32] {
        &self.node_key
    }

    /// What this node stores apps' secrets with, unless it is given another key; nothing as long
    /// as that was not made. Blocks.
    ///
    /// # Errors
    /// When the file is not as a secret has to be.
    pub(crate) fn secrets_key(&self) -> Result<Option<[u8; 32]>, DataDirError> {
        read_secret(&self.secrets_key_file(), parse_key)
    }

    /// Makes it. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn make_secrets_key(&self) -> Result<[u8; 32], DataDirError> {
        open_secret(&self.secrets_key_file(), new_key, parse_key)
    }

    /// Where it is.
    pub(crate) fn secrets_key_file(&self) -> PathBuf {
        self.path.join("secrets.key")
    }

    /// Where things are kept that can be made again. It exists.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// Where the logs of functions are kept. It may not exist.
    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.path.join("logs")
    }
}

impl fmt::Debug for DataDir {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataDir")
            .field("path", &self.path)
            .field("is_new", &self.is_new)
            .finish_non_exhaustive()
    }
}

/// Whether nothing on this file system may be executed, nor mapped to be.
fn forbids_code(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statvfs(path)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Makes the directory unless it exists, and says whether it did.
fn create(path: &Path) -> Result<bool, DataDirError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(false),
        Ok(_) => return Err(unusable(path, "is not a directory: move that file away".into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(path, format!("cannot be opened ({error}): mend that"))),
    }
    if let Ok(target) = fs::read_link(path) {
        let target = target.display();
        let problem = format!("is a link to `{target}`, which does not exist: make or mount it");
        return Err(unusable(path, problem));
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let cannot = |error| format!("cannot be made ({error}): make it for the user that runs this");
    made.map_err(|error| unusable(path, cannot(error)))?;
    path.parent().map_or(Ok(()), sync_dir).map_err(io_error("sync the parent of", path))?;
    Ok(true)
}

/// A link to the directory is its operator's way to say where it is, unless it is somebody else's.
fn check_link(path: &Path) -> Result<(), DataDirError> {
    let metadata = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
    if metadata.uid() == 0 || !metadata.is_symlink() {
        return Ok(());
    }
    check_owner(path, &metadata)
}

/// Refuses what is not this user's own, and what is somewhere else in truth. That it is not there is
/// fine.
fn check_own(path: &Path) -> Result<(), DataDirError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at", path)(error)),
    };
    if metadata.is_symlink() {
        let problem = "is a link: put in its place what it points to, or link or mount the whole \
                       data directory";
        return Err(not_safe(path, problem.into()));
    }
    check_owner(path, &metadata)?;
    check_mode(path, &metadata)
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), DataDirError> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(not_safe(
        path,
        format!(
            "belongs to user {owner}, and this server runs as user {user}: run it as its owner, or, \
             if you trust what is in there, `chown -R {user}` the data directory"
        ),
    ))
}

fn check_mode(path: &Path, metadata: &Metadata) -> Result<(), DataDirError> {
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(not_safe(
        path,
        format!(
            "can be written to by others (mode {mode:03o}): if nobody has, `chmod go-w` it; else \
             restore the data directory from a backup"
        ),
    ))
}

fn not_safe(path: &Path, problem: String) -> DataDirError {
    DataDirError::Unsafe { path: path.to_owned(), problem }
}

/// Takes the lock. It is the kernel's, so a server that was killed leaves none behind.
fn acquire(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(no_follow());
    let cannot = |error| format!("takes no files ({error}): give it to the user that runs this");
    let file = options.open(&path).map_err(|error| unusable(dir, cannot(error)))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

fn unusable(path: &Path, problem: String) -> DataDirError {
    DataDirError::Unusable { path: path.to_owned(), problem }
}

/// Reads a secret, or makes it when there is none.
fn open_secret<T>(
    path: &Path,
    make: fn() -> Result<Vec<u8>, StorageError>,
    parse: fn(&[u8]) -> Result<T, &'static str>,
) -> Result<T, DataDirError> {
    if let Some(secret) = read_secret(path, parse)? {
        return Ok(secret);
    }
    let bytes = make()?;
    write_private_file(path, &bytes).map_err(io_error("write", path))?;
    parsed(path, &bytes, parse)
}

/// Reads a secret, if there is one.
fn read_secret<T>(
    path: &Path,
    parse: fn(&[u8]) -> Result<T, &'static str>,
) -> Result<Option<T>, DataDirError> {
    let refused = |problem: String| DataDirError::Secret { path: path.to_owned(), problem };
    let file = match OpenOptions::new().read(true).custom_flags(no_follow()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(refused("is a link: put the file itself in its place".into()));
        }
        Err(error) => return Err(io_error("read", path)(error)),
    };
    check_private(&file).map_err(io_error("look at", path))?.map_err(refused)?;
    check_owner(path, &file.metadata().map_err(io_error("look at", path))?)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_SECRET_BYTES).read_to_end(&mut bytes);
    read.map_err(io_error("read", path))?;
    parsed(path, &bytes, parse).map(Some)
}

fn parsed<T>(
    path: &Path,
    bytes: &[u8],
    parse: fn(&[u8]) -> Result<T, &'static str>,
) -> Result<T, DataDirError> {
    parse(bytes).map_err(|problem| DataDirError::Secret {
        path: path.to_owned(),
        problem: format!("{problem}: restore it, or remove it and a new one is made"),
    })
}

/// Whether only the file's owner can read it. Asks the open file, which nobody can swap.
fn check_private(file: &File) -> io::Result<Result<(), String>> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o777;
    if !metadata.is_file() {
        return Ok(Err("is not a regular file: remove it and a new one is made".into()));
    }
    if mode & 0o077 != 0 {
        return Ok(Err(format!(
            "can be read by others (mode {mode:03o}): if nobody has, `chmod 600` it; else remove \
             it and a new one is made"
        )));
    }
    Ok(Ok(()))
}

/// A name that is a link is an error.
fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

fn new_token() -> Result<Vec<u8>, StorageError> {
    let mut token = String::from("faas_");
    for byte in random::<32>()? {
        // Writing to a string cannot fail.
        write!(token, "{byte:02x}").ok();
    }
    token.push('\n');
    Ok(token.into_bytes())
}

fn parse_token(bytes: &[u8]) -> Result<String, &'static str> {
    match bytes.trim_ascii() {
        [] => Err("is empty"),
        token if token.iter().all(u8::is_ascii_graphic) => {
            Ok(token.iter().copied().map(char::from).collect())
        }
        _ => Err("is not one word of ASCII characters"),
    }
}

fn new_key() -> Result<Vec<u8>, StorageError> {
    Ok(random::<32>()?.to_vec())
}

fn parse_key(bytes: &[u8]) -> Result<[u8; 32], &'static str> {
    bytes.try_into().map_err(|_| "does not have 32 bytes")
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> DataDirError {
    move |source| DataDirError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode_of(path: &Path) -> u32 {
        mode(path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> String {
        DataDir::open(path).unwrap_err().to_string()
    }

    #[test]
    fn the_first_start_makes_everything_and_the_second_finds_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert!(first.is_new());
        assert_eq!(first.path(), path);
        let secret = first.token().strip_prefix("faas_").unwrap();
        assert_eq!(secret.len(), 64);
        assert!(secret.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_eq!(fs::read_to_string(first.token_file()).unwrap().trim(), first.token());
        assert_eq!([mode(&path), mode(&first.cache_dir())], [0o700; 2]);
        for file in ["admin.token", "node.key", "lock"] {
            assert_eq!(mode(&path.join(file)), 0o600, "{file}");
        }
        let (token, key) = (first.token().to_owned(), *first.node_key());
        drop(first);
        let second = DataDir::open(&path).unwrap();
        assert!(!second.is_new());
        assert_eq!((second.token(), second.node_key()), (token.as_str(), &key));
    }

    #[test]
    fn two_directories_share_no_secret() {
        let temp = tempfile::tempdir().unwrap();
        let one = DataDir::open(&temp.path().join("1")).unwrap();
        let two = DataDir::open(&temp.path().join("2")).unwrap();
        assert_ne!(one.token(), two.token());
        assert_ne!(one.node_key(), two.node_key());
    }

    #[test]
    fn a_second_server_is_refused_until_the_first_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(temp.path()).unwrap();
        assert!(!first.is_new(), "it was there already");
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(&error, DataDirError::InUse(path) if path == temp.path()), "{error}");
        assert!(error.to_string().contains(temp.path().to_str().unwrap()), "{error}");
        drop(first);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "x").unwrap();
        let text = refusal(&file);
        assert!(text.contains("`") && text.contains("is not a directory"), "{text}");
        assert!(refusal(&file.join("below")).contains("below"));
        let link = temp.path().join("link");
        symlink(temp.path().join("nowhere"), &link).unwrap();
        let text = refusal(&link);
        assert!(text.contains("is a link to") && text.contains("nowhere"), "{text}");
        assert!(!temp.path().join("nowhere").exists());
    }

    #[test]
    fn a_link_to_a_directory_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (real, link) = (temp.path().join("real"), temp.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let first = DataDir::open(&link).unwrap();
        assert!(matches!(DataDir::open(&real), Err(DataDirError::InUse(_))));
        drop(first);
    }

    #[test]
    fn what_others_can_write_to_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        DataDir::open(temp.path()).unwrap();
        for (name, mode) in
            [("", 0o770), ("", 0o703), ("cache", 0o720), ("lock", 0o602), ("blobs", 0o777)]
        {
            let path = temp.path().join(name);
            create_private_dir(&temp.path().join("blobs")).unwrap();
            let before = mode_of(&path);
            set_mode(&path, mode);
            let error = DataDir::open(temp.path()).unwrap_err();
            assert!(matches!(&error, DataDirError::Unsafe { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("can be written to by others") && text.contains("chmod go-w"));
            assert!(text.contains(&format!("(mode {mode:o})")), "{text}");
            set_mode(&path, before);
        }
        DataDir::open(temp.path()).unwrap();
        // To look into it is no danger by itself: its files are private.
        set_mode(temp.path(), 0o755);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn links_inside_are_refused() {
        for name in ["cache", "blobs", "state.db", "lock", "admin.token", "node.key"] {
            let temp = tempfile::tempdir().unwrap();
            let elsewhere = tempfile::tempdir().unwrap();
            symlink(elsewhere.path().join(name), temp.path().join(name)).unwrap();
            let said = refusal(temp.path());
            assert!(said.contains("link") || said.contains("takes no files"), "{name}: {said}");
            assert!(!elsewhere.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn what_belongs_to_others_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for name in ["", "cache", "lock", "admin.token", "node.key"] {
            let temp = tempfile::tempdir().unwrap();
            DataDir::open(temp.path()).unwrap();
            std::os::unix::fs::chown(temp.path().join(name), Some(65534), None).unwrap();
            let text = refusal(temp.path());
            assert!(text.contains("belongs to user 65534") && text.contains("chown"), "{text}");
        }
    }

    #[test]
    fn a_file_system_that_forbids_code_is_noticed() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut known = [false; 2];
        for line in mounts.lines() {
            let mut words = line.split(' ');
            let (Some(path), Some(options)) = (words.nth(1), words.nth(1)) else {
                panic!("{line}")
            };
            let covered =
                mounts.lines().filter(|line| line.split(' ').nth(1) == Some(path)).count();
            let Ok(found) = forbids_code(Path::new(path)) else { continue };
            if covered == 1 {
                let said = options.split(',').any(|option| option == "noexec");
                assert_eq!(found, said, "{line}");
                known[usize::from(said)] = true;
            }
        }
        assert!(known[0], "some file system lets programs run: this one does");
    }

    #[test]
    fn a_directory_that_takes_no_files_is_refused() {
        // Permissions do not hold an administrator back, but this file system does.
        let text = refusal(Path::new("/proc/self"));
        assert!(text.contains("`/proc/self` takes no files"), "{text}");
        if !rustix::process::geteuid().is_root() {
            let temp = tempfile::tempdir().unwrap();
            set_mode(temp.path(), 0o500);
            let text = refusal(temp.path());
            set_mode(temp.path(), 0o700);
            assert!(text.contains("takes no files"), "{text}");
        }
    }

    #[test]
    fn a_secret_that_is_empty_or_loose_is_refused_and_kept() {
        for (file, good) in [("admin.token", &b"mine\n"[..]), ("node.key", &[7; 32])] {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join(file);
            for (bytes, mode, part) in [
                (good, 0o640, "can be read by others (mode 640)"),
                (good, 0o604, "can be read by others (mode 604)"),
                (&b" \n"[..], 0o600, if file == "node.key" { "32 bytes" } else { "is empty" }),
                (&b"\xff two words"[..], 0o600, if file == "node.key" { "32" } else { "ASCII" }),
            ] {
                fs::write(&path, bytes).unwrap();
                set_mode(&path, mode);
                let text = refusal(temp.path());
                assert!(text.contains(part) && text.contains(file), "{text}");
                assert_eq!(fs::read(&path).unwrap(), bytes);
            }
            fs::write(&path, good).unwrap();
            DataDir::open(temp.path()).unwrap();
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            set_mode(&path, 0o700);
            assert!(refusal(temp.path()).contains("is not a regular file"));
        }
    }

    #[test]
    fn an_own_token_is_trimmed_and_used() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("admin.token");
        fs::write(&path, " mine\r\n").unwrap();
        set_mode(&path, 0o400);
        assert_eq!(DataDir::open(temp.path()).unwrap().token(), "mine");
    }

    #[test]
    fn a_crash_while_a_secret_was_written_does_no_harm() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("admin.token.tmp"), "half").unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        assert_eq!(dir.token().len(), 69);
        assert!(!temp.path().join("admin.token.tmp").exists());
    }

    #[test]
    fn debug_shows_no_secret() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let text = format!("{dir:?}");
        assert!(
            text.contains("path") && !text.contains("token") && !text.contains("key"),
            "{text}"
        );
    }
}
