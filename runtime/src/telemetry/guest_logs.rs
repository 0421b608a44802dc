//! The logs of functions: a bounded ring per app, which `faas logs` reads and follows.

use crate::request_id::RequestId;
use dashmap::DashMap;
use faas_api::{AppName, FunctionName, LogLine, LogSource, VersionId};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// The longest line of a guest, in bytes; the rest of it is cut and marked.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

/// Every app's log.
pub(crate) struct GuestLogs {
    apps: DashMap<AppName, Arc<AppLog>>,
    capacity: usize,
}

impl GuestLogs {
    /// Logs that keep up to `capacity` lines per app.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            apps: DashMap::new(),
            capacity: capacity.max(1),
        }
    }

    /// The log of an app, made when there is none.
    pub(crate) fn app(&self, app: &AppName) -> Arc<AppLog> {
        if let Some(log) = self.apps.get(app) {
            return log.clone();
        }
        self.apps
            .entry(app.clone())
            .or_insert_with(|| Arc::new(AppLog::new(app.clone(), self.capacity)))
            .clone()
    }

    /// Forgets an app that was deleted.
    pub(crate) fn remove(&self, app: &AppName) {
        self.apps.remove(app);
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

/// A line in the ring. Formatting waits until somebody reads it.
#[derive(Clone)]
struct Record {
    seq: u64,
    time: Timestamp,
    origin: Arc<Origin>,
    request_id: RequestId,
    source: LogSource,
}

/// Which lines a reader wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Only lines with a larger sequence number.
    pub(crate) after: Option<u64>,
    /// Only lines at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// Only lines of this request.
    pub(crate) request_id: Option<String>,
    /// The newest so many.
    pub(crate) limit: Option<usize>,
}

/// The log of one app.
pub(crate) struct AppLog {
    app: AppName,
    capacity: usize,
    ring: Mutex<Ring>,
    /// The sequence number of the newest line, for followers.
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    next_seq: u64,
    records: VecDeque<Record>,
}

impl AppLog {
    fn new(app: AppName, capacity: usize) -> Self {
        Self {
            app,
            capacity,
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }

    /// Appends a line; the oldest makes room. Returns whether one was dropped.
    pub(crate) fn push(
        &self,
        origin: &Arc<Origin>,
        request_id: RequestId,
        source: LogSource,
    ) -> bool {
        let time = Timestamp::now();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.next_seq += 1;
        let seq = ring.next_seq;
        let full = ring.records.len() >= self.capacity;
        if full {
            ring.records.pop_front();
        }
        ring.records.push_back(Record {
            seq,
            time,
            origin: origin.clone(),
            request_id,
            source,
        });
        drop(ring);
        // Nobody follows most of the time; then this is one atomic load.
        if self.newest.receiver_count() > 0 {
            self.newest.send_replace(seq);
        }
        full
    }

    /// The lines a reader asks for, oldest first.
    pub(crate) fn query(&self, query: &Query) -> Vec<LogLine> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |record: &&Record| {
            query.after.is_none_or(|after| record.seq > after)
                && query.since.is_none_or(|since| record.time >= since)
                && query
                    .request_id
                    .as_ref()
                    .is_none_or(|id| record.request_id.to_string() == *id)
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut newest_first: Vec<Record> = ring
            .records
            .iter()
            .rev()
            .filter(wanted)
            .take(limit)
            .cloned()
            .collect();
        drop(ring);
        newest_first.reverse();
        newest_first
            .into_iter()
            .map(|record| self.line(record))
            .collect()
    }

    /// Tells a follower when there is something new.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn line(&self, record: Record) -> LogLine {
        LogLine {
            seq: record.seq,
            time: record.time,
            app: self.app.clone(),
            function: record.origin.function.clone(),
            version: record.origin.version,
            request_id: record.request_id.to_string(),
            source: record.source,
        }
    }
}

/// Which of a guest's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStream {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
}

/// STUB.
pub(crate) struct GuestOutput(Arc<AppLog>, Arc<Origin>, RequestId, OutputStream);

impl GuestOutput {
    /// STUB.
    pub(crate) fn new(
        log: Arc<AppLog>,
        origin: Arc<Origin>,
        request_id: RequestId,
        stream: OutputStream,
        _budget: Arc<std::sync::atomic::AtomicUsize>,
    ) -> Self {
        Self(log, origin, request_id, stream)
    }
    /// STUB.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let message = String::from_utf8_lossy(bytes).into_owned();
        self.0.push(
            &self.1,
            self.2,
            match self.3 {
                OutputStream::Stdout => LogSource::Stdout { message },
                OutputStream::Stderr => LogSource::Stderr { message },
            },
        );
    }
}
