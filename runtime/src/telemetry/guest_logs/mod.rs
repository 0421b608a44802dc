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
//! | [`output`] | [`GuestOutput`]: bytes of a guest's output become lines |
//! | [`reader`] | [`LogReader`]: queries, and following |
//! | `escape` | what may stand in a line |

mod escape;
pub(crate) mod output;
pub(crate) mod reader;
mod ring;
#[cfg(test)]
mod tests;

pub(crate) use output::{GuestOutput, LogBudget, OutputStream};
pub(crate) use reader::{LogReader, Query};
pub(crate) use ring::{Event, RequestEnd};

use crate::{request_id::RequestId, telemetry::metrics::Metrics};
use dashmap::DashMap;
use faas_api::{AppName, FunctionName, LogLine, VersionId};
use jiff::Timestamp;
use prometheus::IntCounter;
use ring::{Line, Ring};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::sync::watch;

/// The longest line of a guest, in bytes; the rest of it is cut and marked.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

/// What one app's log may hold, in bytes, and all of them together. Above sixteen apps the total
/// is shared out, so that many apps cost no more than a few chatty ones.
const MAX_APP_BYTES: usize = 16 << 20;
const MAX_TOTAL_BYTES: usize = 256 << 20;
const MIN_APP_BYTES: usize = 2 * MAX_LINE_BYTES;

/// Lines that are copied out of a ring under one hold of its lock, and how much text.
const PAGE: usize = 64;
const PAGE_BYTES: usize = 64 << 10;

/// Every app's log.
pub(crate) struct GuestLogs {
    apps: DashMap<AppName, Arc<AppLog>>,
    metrics: Arc<Metrics>,
    lines: usize,
    /// What one app may hold now, in bytes.
    allowance: Arc<AtomicUsize>,
}

impl GuestLogs {
    /// Logs that keep up to `capacity` lines per app, and count those that are lost.
    pub(crate) fn counted(capacity: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            apps: DashMap::new(),
            metrics,
            lines: capacity.max(1),
            allowance: Arc::new(AtomicUsize::new(MAX_APP_BYTES)),
        }
    }

    /// Logs with metrics of their own.
    #[cfg(test)]
    pub(crate) fn new(capacity: usize) -> Self {
        Self::counted(capacity, Arc::new(Metrics::new().unwrap()))
    }

    /// The log of an app, made when there is none.
    pub(crate) fn app(&self, app: &AppName) -> Arc<AppLog> {
        if let Some(log) = self.get(app) {
            return log;
        }
        let new = || {
            Arc::new(AppLog {
                app: app.clone(),
                lines: self.lines,
                allowance: self.allowance.clone(),
                metrics: self.metrics.clone(),
                lost: OnceLock::new(),
                ring: Mutex::default(),
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

    /// Forgets an app that was deleted. Whoever follows its log comes to its end.
    pub(crate) fn remove(&self, app: &AppName) {
        if let Some((_, log)) = self.apps.remove(app) {
            log.close();
        }
        self.share();
    }

    /// Shares the memory out anew. The share changes only when the number of apps passes a power
    /// of two, so that starting with thousands of apps does not walk all of them for each.
    fn share(&self) {
        let apps = self.apps.len().next_power_of_two();
        let share = (MAX_TOTAL_BYTES / apps).clamp(MIN_APP_BYTES, MAX_APP_BYTES);
        if share < self.allowance.swap(share, Ordering::Relaxed) {
            for log in &self.apps {
                if let Some(ring) = &mut *log.ring() {
                    ring.trim(log.lines, share);
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
    app: AppName,
    lines: usize,
    allowance: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// Lines that were displaced or cut off; made by the first one.
    lost: OnceLock<IntCounter>,
    /// Made by the first line.
    ring: Mutex<Option<Box<Ring>>>,
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
        let bytes = self.allowance.load(Ordering::Relaxed);
        let mut guard = self.ring();
        let ring = guard.get_or_insert_default();
        ring.push(time, origin.clone(), request_id, &event);
        let dropped = ring.trim(self.lines, bytes);
        drop(guard);
        // Nobody follows most of the time; then this is one atomic load. A follower subscribes
        // before it looks at the ring, so it either sees this line there or is seen here.
        if let Some(changes) = self.changes.get()
            && changes.receiver_count() > 0
        {
            changes.send_modify(|_| {});
        }
        self.lost(dropped);
    }

    /// Counts lines that nobody will read.
    fn lost(&self, lines: u64) {
        if lines > 0 {
            self.lost.get_or_init(|| self.metrics.log_lines_dropped(&self.app)).inc_by(lines);
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

    /// What tells a follower that there is more, or that there never will be.
    fn subscribe(&self) -> watch::Receiver<bool> {
        let changes = self.changes.get_or_init(|| watch::Sender::new(false));
        // It may have been closed just before there was anything to tell it with.
        if self.closed.load(Ordering::SeqCst) {
            changes.send_replace(true);
        }
        changes.subscribe()
    }

    /// Up to a page of lines with numbers from `first` on.
    fn page(&self, first: u64) -> Vec<Line> {
        self.ring().as_ref().map_or_else(Vec::new, |ring| ring.page(first, PAGE, PAGE_BYTES))
    }

    fn line(&self, line: Line) -> LogLine {
        LogLine {
            seq: line.seq,
            time: line.time,
            app: self.app.clone(),
            function: line.origin.function.clone(),
            version: line.origin.version,
            request_id: line.request_id.to_string(),
            source: escape::source(line.source),
        }
    }

    /// The number of the newest line; 0 before the first.
    fn newest(&self) -> u64 {
        self.ring().as_ref().map_or(0, |ring| ring.newest())
    }

    fn ring(&self) -> MutexGuard<'_, Option<Box<Ring>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
