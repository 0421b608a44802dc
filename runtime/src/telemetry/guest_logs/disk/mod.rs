//! The lines of all apps on disk: what the rings no longer have, and what there was before the node
//! started.
//!
//! One stream for the whole node, so that thousands of apps cost no more files than one: segments of
//! JSON lines, as the API gives them. The newest segment is appended to; the oldest is removed when
//! the budget is spent. One thread writes. It reads from the rings, so a request never waits for a
//! disk: when the disk is slow or full, the rings are the buffer, and what they displace is lost and
//! counted.
//!
//! A killed node loses what it wrote in the last moments, and at most the end of one line stays behind.
//! A power cut may cost more: nothing is flushed to the device before a segment is full.
//!
//! | part | what it does |
//! |---|---|
//! | this file | [`Disk`]: opening, and what others ask of it |
//! | `index` | what is in which segment, and which apps were deleted |
//! | `writer` | the thread |
//! | [`cursor`] | reading |

pub(super) mod cursor;
pub(super) mod index;
#[cfg(test)]
mod tests;
mod writer;

pub(super) use index::Position;

use super::AppLog;
use faas_api::AppName;
use index::{Index, Segment};
use jiff::Timestamp;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long lines wait for company.
const GATHER: Duration = Duration::from_millis(250);

/// How much disk the lines may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskLimits {
    /// All of them, in bytes.
    pub(crate) bytes: u64,
    /// One segment, in bytes.
    pub(crate) segment_bytes: u64,
}

/// The lines on disk.
pub(crate) struct Disk {
    dir: PathBuf,
    limits: DiskLimits,
    index: Mutex<Index>,
    inbox: Mutex<Inbox>,
    /// There is something to write, or never will be.
    news: Condvar,
    /// The thread has ended.
    quiet: Condvar,
}

/// What the thread has to do.
#[derive(Default)]
struct Inbox {
    /// Logs with new lines.
    logs: Vec<Arc<AppLog>>,
    /// Apps that were deleted.
    deleted: Vec<AppName>,
    /// The thread waits for news.
    asleep: bool,
    /// Nothing more will come.
    closed: bool,
    /// The thread has ended.
    ended: bool,
}

impl Disk {
    /// Opens the folder, or makes it, and starts to write. Blocks: it reads the newest segment.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub(crate) fn open(dir: &Path, limits: DiskLimits) -> io::Result<Arc<Self>> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut ids = Vec::new();
        for entry in fs::read_dir(dir)? {
            ids.extend(segment_id(&entry?.path()));
        }
        ids.sort_unstable();
        let newest = ids.last().copied();
        let segments = ids.into_iter().map(|id| open_segment(dir, id, Some(id) == newest));
        let index = Index::new(segments.collect::<io::Result<_>>()?);
        let disk = Arc::new(Self {
            dir: dir.to_owned(),
            limits,
            index: Mutex::new(index),
            inbox: Mutex::default(),
            news: Condvar::new(),
            quiet: Condvar::new(),
        });
        let writes = disk.clone();
        let name = "function-logs".to_owned();
        std::thread::Builder::new().name(name).spawn(move || writer::run(&writes))?;
        Ok(disk)
    }

    /// The number of an app's newest line; 0 when there is none.
    pub(super) fn newest(&self, app: &AppName) -> u64 {
        self.index().newest(app)
    }

    /// The apps that have lines.
    pub(super) fn apps(&self) -> Vec<AppName> {
        self.index().apps()
    }

    /// Hides the lines of an app that was deleted, also from one that will have its name.
    pub(super) fn delete(&self, app: &AppName) {
        self.index().delete(app);
        let mut inbox = self.inbox();
        inbox.deleted.push(app.clone());
        self.rouse(inbox);
    }

    /// A log has new lines.
    pub(super) fn wake(&self, log: Option<Arc<AppLog>>) {
        let mut inbox = self.inbox();
        if inbox.closed {
            return;
        }
        inbox.logs.extend(log);
        self.rouse(inbox);
    }

    /// Nothing more will come: the thread writes what there is, and ends.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.closed = true;
        self.rouse(inbox);
    }

    /// The same, and waits for that, but not for longer than this.
    pub(super) fn finish(&self, patience: Duration) {
        self.close();
        let inbox = self.inbox();
        let (inbox, _) = self
            .quiet
            .wait_timeout_while(inbox, patience, |inbox| !inbox.ended)
            .unwrap_or_else(PoisonError::into_inner);
        if !inbox.ended {
            tracing::warn!("the last lines of functions' logs could not be written in time");
        }
    }

    /// Whether there are lines of an app with numbers below this one.
    pub(super) fn has_before(&self, app: &AppName, number: u64) -> bool {
        self.index().has_before(app, number)
    }

    /// The segments that may have something that is wanted, oldest first.
    pub(super) fn segments(&self, wanted: &Wanted) -> Vec<u64> {
        self.index().segments(wanted)
    }

    fn rouse(&self, mut inbox: MutexGuard<'_, Inbox>) {
        let wake = std::mem::take(&mut inbox.asleep) || inbox.closed;
        drop(inbox);
        if wake {
            self.news.notify_one();
        }
    }

    // What they guard is data that no panic can leave half-made.

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, segment: u64) -> PathBuf {
        file(&self.dir, segment)
    }
}

/// What a reader of the disk is after: what else is there it need not read.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// The app; all of them without.
    pub(super) app: Option<AppName>,
    /// The request.
    pub(super) request_id: Option<String>,
    /// The earliest line.
    pub(super) since: Option<Timestamp>,
    /// The latest line.
    pub(super) until: Option<Timestamp>,
}

fn file(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:010}.ndjson"))
}

/// Where it is noted what is in a segment: a short cut for the next start.
fn note(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:010}.index"))
}

fn segment_id(path: &Path) -> Option<u64> {
    let ours = path.extension()? == "ndjson";
    let name = path.file_stem()?.to_str().filter(|_| ours)?;
    name.parse().ok().filter(|id| *id > 0)
}

/// What is in a segment, as it was noted, else as the segment itself says. The end of a line that a
/// killed node left is cut off.
fn open_segment(dir: &Path, id: u64, newest: bool) -> io::Result<Segment> {
    let (path, note) = (file(dir, id), note(dir, id));
    let length = fs::metadata(&path)?.len();
    if let Some(segment) = Segment::noted(id, &note, length) {
        return Ok(segment);
    }
    let segment = Segment::scan(id, BufReader::new(File::open(&path)?))?;
    if newest && segment.bytes() < length {
        OpenOptions::new().write(true).open(&path)?.set_len(segment.bytes())?;
    }
    Ok(segment)
}
