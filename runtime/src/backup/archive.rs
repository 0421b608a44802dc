//! The format: a plain tar (POSIX ustar, and GNU's way to write a path that is too long for it). First `faas-backup.json`, which says what this is; then
//! the members; last `manifest.json`, with the size and SHA-256 of each. So it can be written and
//! checked as a stream, and one that was cut off lacks its end.

use super::restore::RestoreError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::{Component, Path},
};
use tar::{Archive, Builder, EntryType, Header};

/// The version of the format.
const FORMAT: u32 = 1;
const HEAD: &str = "faas-backup.json";
const MANIFEST: &str = "manifest.json";
/// The largest head and manifest, in bytes; members are as large as they are.
const MAX_HEAD_BYTES: u64 = 64 << 10;
const MAX_MANIFEST_BYTES: u64 = 256 << 20;
/// The longest path of a member, in bytes, and what surely fits into a header.
const MAX_PATH_BYTES: usize = 1024;
const SHORT_PATH_BYTES: usize = 100;
/// What is read at once, in bytes.
const CHUNK: usize = 128 << 10;

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The version of the format.
    pub(super) format: u32,
    /// The release of the node that made it.
    pub(super) faas: String,
    /// When.
    pub(super) created_at: Timestamp,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    members: BTreeMap<String, Member>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    size: u64,
    sha256: String,
}

/// An archive that is being written.
pub(super) struct Writer<W: Write> {
    tar: Builder<W>,
    manifest: Manifest,
    created_at: Timestamp,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub(super) fn begin(to: W, created_at: Timestamp) -> io::Result<Self> {
        let mut writer = Self { tar: Builder::new(to), manifest: Manifest::default(), created_at };
        let faas = env!("CARGO_PKG_VERSION").to_owned();
        let head = serde_json::to_vec_pretty(&Head { format: FORMAT, faas, created_at })?;
        writer.append(HEAD, head.len() as u64, &head[..])?;
        Ok(writer)
    }

    /// Adds a member of exactly this size.
    pub(super) fn add(&mut self, path: &str, size: u64, from: impl Read) -> io::Result<()> {
        let mut hashed = Hashed::new(from);
        self.append(path, size, &mut hashed)?;
        let (read, sha256) = hashed.end();
        if read != size {
            return Err(io::Error::other(format!("`{path}` has {read} bytes, not {size}")));
        }
        self.manifest.members.insert(path.to_owned(), Member { size, sha256 });
        Ok(())
    }

    /// Writes its end.
    pub(super) fn end(mut self) -> io::Result<W> {
        let manifest = serde_json::to_vec(&self.manifest)?;
        self.append(MANIFEST, manifest.len() as u64, &manifest[..])?;
        self.tar.into_inner()
    }

    fn append(&mut self, path: &str, size: u64, from: impl Read) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.created_at.as_second()).unwrap_or(0));
        header.set_entry_type(EntryType::Regular);
        // What follows must not move, whatever becomes of the file.
        self.tar.append_data(&mut header, path, from.take(size))
    }
}

/// Where members go when an archive is read.
pub(super) trait Sink {
    /// Takes a member. Its path is relative and plain: no `..`, no links.
    fn take(&mut self, path: &str, content: &mut dyn Read) -> Result<(), RestoreError>;
}

/// What was read.
#[derive(Debug)]
pub(super) struct Contents {
    /// What the archive says of itself.
    pub(super) head: Head,
    /// The size and SHA-256 of each member.
    members: BTreeMap<String, Member>,
}

impl Contents {
    /// How many members there are.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    /// Their sizes together.
    pub(super) fn bytes(&self) -> u64 {
        self.members.values().map(|member| member.size).sum()
    }

    /// The SHA-256 of a member, if there is one of this path.
    pub(super) fn sha256(&self, path: &str) -> Option<&str> {
        self.members.get(path).map(|member| member.sha256.as_str())
    }

    /// The paths of all members.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }
}

/// Reads an archive from end to end and proves that it is whole. Members are handed to the sink as
/// they come: nothing of them may be used before this returns.
pub(super) fn read(from: impl Read, sink: &mut dyn Sink) -> Result<Contents, RestoreError> {
    let mut archive = Archive::new(from);
    let entries = archive.entries().map_err(|error| broken(&error))?;
    // Raw: what would lengthen names or make links are entries of a kind that we never write.
    let mut entries = entries.raw(true);
    let mut entry = |expected: &str| match entries.next() {
        Some(Ok(entry)) => Ok(Some(entry)),
        Some(Err(error)) if expected == HEAD => Err(foreign(&error.to_string())),
        Some(Err(error)) => Err(broken(&error)),
        None => Ok(None),
    };
    let first = entry(HEAD)?.ok_or_else(|| foreign("it is empty"))?;
    let head = head(first)?;
    let mut seen = BTreeMap::new();
    loop {
        let mut member = entry(MANIFEST)?.ok_or_else(cut_off)?;
        let mut long = None;
        if member.header().entry_type() == EntryType::GNULongName {
            long = Some(long_path(&mut member)?);
            member = entry(MANIFEST)?.ok_or_else(cut_off)?;
        }
        let path = path(&member, long)?;
        if path == MANIFEST {
            let manifest: Manifest = json(&mut member, MAX_MANIFEST_BYTES)
                .map_err(|why| RestoreError::Damaged(format!("its manifest {why}")))?;
            if entry(MANIFEST)?.is_some() {
                return Err(RestoreError::Damaged("something follows its end".into()));
            }
            compare(&manifest.members, &seen)?;
            return Ok(Contents { head, members: seen });
        }
        let size = member.size();
        let mut hashed = Hashed::new(&mut member);
        sink.take(&path, &mut hashed)?;
        let (read, sha256) = hashed.end();
        if read != size {
            return Err(cut_off());
        }
        if seen.insert(path.clone(), Member { size, sha256 }).is_some() {
            return Err(RestoreError::Damaged(format!("`{path}` is in it twice")));
        }
    }
}

fn head(mut first: tar::Entry<'_, impl Read>) -> Result<Head, RestoreError> {
    if first.path_bytes() != HEAD.as_bytes() || first.header().entry_type() != EntryType::Regular {
        return Err(foreign("it begins with something else"));
    }
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let value: serde_json::Value =
        json(&mut first, MAX_HEAD_BYTES).map_err(|why| foreign(&format!("its head {why}")))?;
    let Format { format } =
        Format::deserialize(&value).map_err(|error| foreign(&error.to_string()))?;
    if format != FORMAT {
        return Err(RestoreError::NotABackup(format!(
            "it has format {format}, and this `faas` knows format {FORMAT}: restore it with the \
             release that made it"
        )));
    }
    Head::deserialize(value).map_err(|error| foreign(&error.to_string()))
}

/// Every member as its writer had it, and none besides.
fn compare(
    manifest: &BTreeMap<String, Member>,
    seen: &BTreeMap<String, Member>,
) -> Result<(), RestoreError> {
    let damaged = |why: String| Err(RestoreError::Damaged(why));
    for (path, member) in seen {
        match manifest.get(path) {
            Some(written) if written == member => {}
            Some(_) => return damaged(format!("`{path}` is not as it was written")),
            None => return damaged(format!("`{path}` is not in its manifest")),
        }
    }
    match manifest.keys().find(|path| !seen.contains_key(*path)) {
        Some(path) => damaged(format!("`{path}` is missing")),
        None => Ok(()),
    }
}

/// The path of the member that comes next, which is too long for a header.
fn long_path(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, RestoreError> {
    let mut bytes = Vec::new();
    // One more than there may be, and the NUL behind it.
    let most = MAX_PATH_BYTES as u64 + 2;
    entry.take(most).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
    if bytes.pop() != Some(0) || bytes.len() < SHORT_PATH_BYTES {
        return Err(RestoreError::Damaged("a path is written in a way that is not ours".into()));
    }
    Ok(bytes)
}

/// The path of a member, which has to be a plain file below the top.
fn path(entry: &tar::Entry<'_, impl Read>, long: Option<Vec<u8>>) -> Result<String, RestoreError> {
    let bytes = long.map_or_else(|| entry.path_bytes(), Into::into);
    let shown = String::from_utf8_lossy(&bytes).escape_debug().to_string();
    let refused = |why: &str| RestoreError::Damaged(format!("`{shown}` {why}"));
    if entry.header().entry_type() != EntryType::Regular {
        return Err(refused("is not a plain file"));
    }
    let path = std::str::from_utf8(&bytes).map_err(|_| refused("is not a path of ours"))?;
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let parts = Path::new(path).components();
    // Written in one way only: no `.`, no `//`, no `/` at the end.
    let is_canonical = parts.clone().all(is_plain) && path.split('/').count() == parts.count();
    if path.is_empty() || path.len() > MAX_PATH_BYTES || !is_canonical || path.contains('\0') {
        return Err(refused("is not a path of ours"));
    }
    Ok(path.to_owned())
}

fn json<T: for<'a> Deserialize<'a>>(from: &mut impl Read, most: u64) -> Result<T, String> {
    let mut bytes = Vec::new();
    from.take(most).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("cannot be read: {error}"))
}

fn foreign(why: &str) -> RestoreError {
    RestoreError::NotABackup(format!("it is not a backup of faas: {why}"))
}

fn broken(error: &io::Error) -> RestoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => cut_off(),
        _ => RestoreError::Damaged(error.to_string()),
    }
}

fn cut_off() -> RestoreError {
    RestoreError::Damaged("it was cut off: its end is missing".into())
}

/// Bytes that are counted and hashed on their way.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    fn end(self) -> (u64, String) {
        let digest = self.hasher.finalize();
        (self.bytes, digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Copies all of a member.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), CopyError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(CopyError::Write)?;
    }
}

/// Which end of a copy failed.
pub(super) enum CopyError {
    /// The archive.
    Read(io::Error),
    /// The disk.
    Write(io::Error),
}

impl From<CopyError> for RestoreError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(error) => broken(&error),
            CopyError::Write(error) => Self::Failed(format!("cannot write: {error}")),
        }
    }
}
