//! The logs of functions: a bounded ring per app, which `faas logs` reads and follows.
//!
//! Writing is on the path of a request, so it does no more than it must: no formatting, no
//! escaping, one short lock. Whoever reads pays for the rest: text of guests and clients is escaped
//! on its way out, whoever wrote it, so that a line is always one record and no terminal obeys it.
//!
//! | part | what it holds |
//! |---|---|
//! | this file | the rings: [`GuestLogs`], [`AppLog`] |
//! | `ring` | how the lines of an app lie in memory |
//! | [`output`] | bytes of a guest's output, and its entries, become lines |
//! | [`query`] | which lines a reader wants |
//! | [`reader`] | [`LogReader`]: from where a query begins, page by page, and on as lines come |
//! | [`disk`] | what the rings no longer have |
//! | `escape` | what may stand in a line |

pub(crate) mod disk;
mod escape;
pub(crate) mod output;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub(crate) mod query;
mod rate;
pub(crate) mod reader;
mod ring;
#[cfg(test)]
mod tests;

pub(crate) use disk::Disk;
pub(crate) use output::{Author, GuestOutput, LogBudget, OutputStream};
pub(crate) use query::Query;
pub(crate) use reader::LogReader;
pub(crate) use ring::{Event, RequestEnd};

use crate::{request_id::RequestId, telemetry::metrics::Metrics};
use dashmap::DashMap;
use faas_api::{AppName, FunctionName, LogLine, VersionId};
use jiff::Timestamp;
use prometheus::IntCounter;
use rate::{Bucket, Pass, Rate};
use ring::{Line, Ring};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// The longest line of a guest, in bytes; the rest of it is cut and marked.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

/// What one app's log may hold, in bytes. Above sixteen apps the total is shared out, so that many
/// apps cost no more than a few chatty ones.
const MAX_APP_BYTES: usize = 16 << 20;
/// What all of them may hold together, in bytes, however much memory there is.
pub(crate) const MAX_LOG_MEMORY: u64 = 256 << 20;
const MIN_APP_BYTES: usize = 2 * MAX_LINE_BYTES;

/// Lines that are copied out of a ring under one hold of its lock, and how much text.
const PAGE: usize = 64;
const PAGE_BYTES: usize = 64 << 10;

/// How long a node that stops waits for its last lines to be on disk.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Seconds of output at the full rate that an app may write at once.
const BURST_S: u64 = 4;

/// How much logs may hold and take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Lines per app in memory.
    pub(crate) lines: usize,
    /// What all apps' lines may take in memory, in bytes.
    pub(crate) memory: u64,
    /// What the functions of one app may write, in bytes per second.
    pub(crate) bytes_per_s: u64,
}

/// Every app's log.
pub(crate) struct GuestLogs {
    apps: DashMap<AppName, Arc<AppLog>>,
    shared: Arc<Shared>,
}

/// What all logs have in common.
struct Shared {
    metrics: Arc<Metrics>,
    lines: usize,
    /// What all may hold together, in bytes.
    memory: usize,
    rate: Rate,
    /// What one app may hold now, in bytes.
    allowance: AtomicUsize,
    /// Marked as changed by every line of every app, for those who follow all of them.
    changes: watch::Sender<bool>,
    disk: Option<Arc<Disk>>,
}

impl GuestLogs {
    /// Logs of these sizes, that keep what fits on `disk` where there is one, and count lines that are
    /// lost.
    pub(crate) fn new(sizes: Sizes, metrics: Arc<Metrics>, disk: Option<Arc<Disk>>) -> Self {
        let memory = usize::try_from(sizes.memory).unwrap_or(usize::MAX);
        let shared = Shared {
            metrics,
            lines: sizes.lines.max(1),
            memory,
            rate: Rate::new(sizes.bytes_per_s),
            allowance: AtomicUsize::new(memory.clamp(MIN_APP_BYTES, MAX_APP_BYTES)),
            changes: watch::Sender::new(false),
            disk,
        };
        Self { apps: DashMap::new(), shared: Arc::new(shared) }
    }

    /// Logs in memory only.
    #[cfg(test)]
    pub(crate) fn counted(capacity: usize, metrics: Arc<Metrics>) -> Self {
        let sizes = Sizes { lines: capacity, memory: MAX_LOG_MEMORY, bytes_per_s: 1 << 20 };
        Self::new(sizes, metrics, None)
    }

    /// The log of an app, made when there is none.
    pub(crate) fn app(&self, app: &AppName) -> Arc<AppLog> {
        if let Some(log) = self.get(app) {
            return log;
        }
        let new = || {
            let first = self.shared.disk.as_ref().map_or(0, |disk| disk.newest(app));
            Arc::new_cyclic(|me| AppLog {
                me: me.clone(),
                app: app.clone(),
                shared: self.shared.clone(),
                lost: OnceLock::new(),
                written: Bucket::default(),
                first,
                ring: Mutex::default(),
                stored: AtomicU64::new(first),
                waits: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                changes: OnceLock::new(),
            })
        };
        let log = self.apps.entry(app.clone()).or_insert_with(new).clone();
        self.share();
        log
    }

    /// The log of an app, if the app has one.
    pub(crate) fn get(&self, app: &AppName) -> Option<Arc<AppLog>> {
        self.apps.get(app).map(|log| log.clone())
    }

    /// Forgets an app that was deleted: nobody reads its lines any more. Whoever follows its log
    /// comes to its end.
    pub(crate) fn remove(&self, app: &AppName) {
        if let Some((_, log)) = self.apps.remove(app) {
            log.close();
            if let Some(disk) = &self.shared.disk {
                disk.delete(app);
            }
        }
        self.share();
    }

    /// Forgets the lines on disk of apps that are gone: their deletion was the last that an earlier
    /// life of the node did.
    pub(crate) fn forget_others(&self) {
        let Some(disk) = &self.shared.disk else { return };
        for app in disk.apps().iter().filter(|app| !self.apps.contains_key(*app)) {
            disk.delete(app);
        }
    }

    /// Writes what is not on disk yet, and ends writing. Blocks, but not for long.
    pub(crate) fn finish(&self) {
        if let Some(disk) = &self.shared.disk {
            disk.finish(FINISH_TIMEOUT);
        }
    }

    /// Every log there is.
    fn all(&self) -> Vec<Arc<AppLog>> {
        self.apps.iter().map(|log| log.clone()).collect()
    }

    /// Shares the memory out anew. The share changes only when the number of apps passes a power
    /// of two, so that starting with thousands of apps does not walk all of them for each.
    fn share(&self) {
        let apps = self.apps.len().next_power_of_two();
        let share = (self.shared.memory / apps).clamp(MIN_APP_BYTES, MAX_APP_BYTES);
        if share < self.shared.allowance.swap(share, Ordering::Relaxed) {
            for log in &self.apps {
                if let Some(ring) = &mut *log.ring() {
                    ring.trim(self.shared.lines, share);
                    ring.shrink();
                }
            }
        }
    }
}

/// Whose line it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The function.
    pub(crate) function: FunctionName,
    /// The version.
    pub(crate) version: VersionId,
}

/// The log of one app.
pub(crate) struct AppLog {
    me: Weak<AppLog>,
    app: AppName,
    shared: Arc<Shared>,
    /// Lines that were displaced or cut off; made by the first one.
    lost: OnceLock<IntCounter>,
    written: Bucket,
    /// The number before that of its first line: earlier ones are an earlier life's.
    first: u64,
    /// Made by the first line.
    ring: Mutex<Option<Box<Ring>>>,
    /// The number of the newest line that is on disk.
    stored: AtomicU64,
    /// Whoever writes to disk knows that there is something to write.
    waits: AtomicBool,
    /// The app was deleted.
    closed: AtomicBool,
    /// Marked as changed by every line; true once the app is deleted. Made by the first follower:
    /// most apps of a large node have none.
    changes: OnceLock<watch::Sender<bool>>,
}

impl AppLog {
    /// Appends a line; the oldest make room.
    pub(crate) fn push(
        &self,
        origin: &Arc<Origin>,
        request_id: RequestId,
        time: Timestamp,
        event: Event<'_>,
    ) {
        let event = match event {
            Event::Failure(message) => {
                let end = message.floor_char_boundary(MAX_LINE_BYTES);
                Event::Failure(message.get(..end).unwrap_or_default())
            }
            event => event,
        };
        match self.shared.rate.take(&self.written, &event, time) {
            Pass::Yes => self.append(origin, request_id, time, &event),
            Pass::No => self.lost(1),
            Pass::NoAndSaySo => {
                self.lost(1);
                let notice =
                    "limit `log.function_bytes_per_s` reached: lines of this app are dropped";
                self.append(origin, request_id, time, &Event::Failure(notice));
            }
        }
    }

    fn append(
        &self,
        origin: &Arc<Origin>,
        request_id: RequestId,
        time: Timestamp,
        event: &Event<'_>,
    ) {
        let bytes = self.shared.allowance.load(Ordering::Relaxed);
        let mut guard = self.ring();
        let ring = guard.get_or_insert_with(|| Box::new(Ring::after(self.first)));
        ring.push(time, origin.clone(), request_id, event);
        let displaced = ring.trim(self.shared.lines, bytes);
        let newest_displaced = ring.oldest() - 1;
        drop(guard);
        if displaced > 0 {
            // What is on disk is not lost.
            let stored = self.stored.load(Ordering::Relaxed);
            self.lost(displaced.min(newest_displaced.saturating_sub(stored)));
        }
        self.tell();
    }

    /// Tells whoever waits for lines. Nobody follows most of the time, and whoever writes to disk
    /// knows already: then these are three atomic loads.
    fn tell(&self) {
        // A follower subscribes before it looks at the ring, so it either sees the line there or is
        // seen here.
        if let Some(changes) = self.changes.get()
            && changes.receiver_count() > 0
        {
            changes.send_modify(|_| {});
        }
        if self.shared.changes.receiver_count() > 0 {
            self.shared.changes.send_modify(|_| {});
        }
        // The writer resets this before it looks at the ring.
        if let Some(disk) = &self.shared.disk
            && !self.waits.load(Ordering::Relaxed)
            && !self.waits.swap(true, Ordering::Relaxed)
        {
            disk.wake(self.me.upgrade());
        }
    }

    /// Counts lines that nobody will read.
    fn lost(&self, lines: u64) {
        if lines > 0 {
            let count = || self.shared.metrics.log_lines_dropped(&self.app);
            self.lost.get_or_init(count).inc_by(lines);
        }
    }

    /// How many were counted.
    #[cfg(test)]
    fn lines_lost(&self) -> u64 {
        self.lost.get().map_or(0, IntCounter::get)
    }

    /// Ends the log: whoever follows it comes to its end.
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(changes) = self.changes.get() {
            changes.send_replace(true);
        }
    }

    /// Whether the app was deleted.
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// What tells a follower that there is more, or that there never will be.
    fn subscribe(&self) -> watch::Receiver<bool> {
        let changes = self.changes.get_or_init(|| watch::Sender::new(false));
        // It may have been closed just before there was anything to tell it with.
        if self.is_closed() {
            changes.send_replace(true);
        }
        changes.subscribe()
    }

    /// Lines with numbers from `first` on, not escaped: so many, fewer when they are long.
    fn page(&self, first: u64, lines: usize, bytes: usize) -> Vec<Line> {
        self.ring().as_ref().map_or_else(Vec::new, |ring| ring.page(first, lines, bytes))
    }

    fn line(&self, line: Line) -> LogLine {
        LogLine {
            seq: line.seq,
            time: line.time,
            app: self.app.clone(),
            function: line.origin.function.clone(),
            version: line.origin.version,
            request_id: line.request_id.to_string(),
            level: line.level,
            dropped: 0,
            source: escape::source(line.source),
        }
    }

    /// The number of the newest line; before the first that of the last one of an earlier life.
    fn newest(&self) -> u64 {
        self.ring().as_ref().map_or(self.first, |ring| ring.newest())
    }

    /// The number of the oldest line in memory, or of the next one when there is none.
    fn oldest(&self) -> (u64, Option<Timestamp>) {
        let ring = self.ring();
        ring.as_ref().map_or((self.first + 1, None), |ring| (ring.oldest(), ring.oldest_time()))
    }

    fn ring(&self) -> MutexGuard<'_, Option<Box<Ring>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
