//! The newest lines of one app, packed into two queues: what every line has in one, all text in the
//! other. A line is written behind the one before it and displaces the oldest where that lies, so
//! that a busy log touches memory in order and allocates nothing: lines that each lay somewhere else
//! cost a request half a microsecond of waiting for memory.

use super::Origin;
use crate::request_id::RequestId;
use faas_api::{LogLevel, LogSource};
use jiff::Timestamp;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// What a line tells. Text is as the client or the guest wrote it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event<'a> {
    /// A request ended.
    Request {
        /// Its method, at most 64 bytes.
        method: &'a str,
        /// The path as the guest saw it, without the query, at most 1 KiB.
        path: &'a str,
        /// How it ended.
        end: RequestEnd,
    },
    /// The guest wrote to its standard output.
    Stdout(&'a str),
    /// The guest wrote to its standard error.
    Stderr(&'a str),
    /// The guest wrote through `wasi:logging`.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// What it is about.
        context: &'a str,
        /// One or more lines.
        message: &'a str,
    },
    /// Why a call failed: one or more lines.
    Failure(&'a str),
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RequestEnd {
    /// The status the client got.
    pub(crate) status: u16,
    /// The platform's error code, where the platform answered.
    pub(crate) code: Option<&'static str>,
    /// From the head of the request to the end of the answer.
    pub(crate) duration: Duration,
    /// CPU time of the guest and its host calls.
    pub(crate) cpu: Duration,
    /// The largest linear memory it had, in bytes.
    pub(crate) memory_bytes: u64,
}

impl Event<'_> {
    /// How much it matters.
    pub(crate) fn level(&self) -> LogLevel {
        match *self {
            Self::Request { end, .. } => LogLevel::of_status(end.status),
            Self::Stdout(_) => LogLevel::Info,
            Self::Stderr(_) | Self::Failure(_) => LogLevel::Error,
            Self::Log { level, .. } => level,
        }
    }

    /// The same as the API tells it.
    pub(crate) fn source(&self) -> LogSource {
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        match *self {
            Self::Request { method, path, end } => LogSource::Request {
                method: method.to_owned(),
                path: path.to_owned(),
                status: end.status,
                code: end.code.map(str::to_owned),
                duration_ms: millis(end.duration),
                cpu_ms: millis(end.cpu),
                memory_bytes: end.memory_bytes,
            },
            Self::Stdout(message) => LogSource::Stdout { message: message.to_owned() },
            Self::Stderr(message) => LogSource::Stderr { message: message.to_owned() },
            Self::Log { context, message, .. } => {
                LogSource::Log { context: context.to_owned(), message: message.to_owned() }
            }
            Self::Failure(message) => LogSource::Failure { message: message.to_owned() },
        }
    }
}

/// A line that was taken out of the ring to be read.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number.
    pub(super) seq: u64,
    /// When it was written.
    pub(super) time: Timestamp,
    /// Whose it is.
    pub(super) origin: Arc<Origin>,
    /// The request it belongs to.
    pub(super) request_id: RequestId,
    /// How much it matters.
    pub(super) level: LogLevel,
    /// What it tells, not escaped.
    pub(super) source: LogSource,
}

/// The newest lines. Their numbers have no gaps, so a number says where its line is.
#[derive(Default)]
pub(super) struct Ring {
    newest: u64,
    records: VecDeque<Record>,
    /// The text of all records, one behind the other.
    text: VecDeque<u8>,
    /// How many bytes of text were displaced so far.
    displaced: u64,
}

struct Record {
    time: Timestamp,
    origin: Arc<Origin>,
    request_id: RequestId,
    kind: Kind,
    /// Where its text begins, counted from the first that ever was.
    at: u64,
    /// How long its text is: of a request the method and then the path, of an entry through
    /// `wasi:logging` the context and then the message.
    length: u32,
}

enum Kind {
    Request { method_length: u32, end: RequestEnd },
    Stdout,
    Stderr,
    Log { level: LogLevel, context_length: u32 },
    Failure,
}

impl Ring {
    /// A ring whose first line has the number after this one.
    pub(super) fn after(newest: u64) -> Self {
        Self { newest, ..Self::default() }
    }

    /// The number of the oldest line that is there, or of the next one when there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.newest + 1 - self.records.len() as u64
    }

    /// When the oldest line that is there was written.
    pub(super) fn oldest_time(&self) -> Option<Timestamp> {
        self.records.front().map(|record| record.time)
    }

    /// The number of the newest line; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// What the lines take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.records.len() * size_of::<Record>() + self.text.len()
    }

    /// Appends a line.
    pub(super) fn push(
        &mut self,
        time: Timestamp,
        origin: Arc<Origin>,
        request_id: RequestId,
        event: &Event<'_>,
    ) {
        let at = self.displaced + self.text.len() as u64;
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let (kind, first, second) = match *event {
            Event::Request { method, path, end } => {
                (Kind::Request { method_length: length(method), end }, method, path)
            }
            Event::Stdout(message) => (Kind::Stdout, message, ""),
            Event::Stderr(message) => (Kind::Stderr, message, ""),
            Event::Log { level, context, message } => {
                (Kind::Log { level, context_length: length(context) }, context, message)
            }
            Event::Failure(message) => (Kind::Failure, message, ""),
        };
        self.text.extend(first.as_bytes());
        self.text.extend(second.as_bytes());
        let length = length(first).saturating_add(length(second));
        self.newest += 1;
        self.records.push_back(Record { time, origin, request_id, kind, at, length });
    }

    /// Displaces the oldest lines until there are no more than this. Returns how many those were.
    pub(super) fn trim(&mut self, lines: usize, bytes: usize) -> u64 {
        let mut dropped = 0;
        // The newest line stays, however long it is.
        while self.records.len() > 1 && (self.records.len() > lines || self.bytes() > bytes) {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            let length = (oldest.length as usize).min(self.text.len());
            self.text.drain(..length);
            self.displaced += length as u64;
            dropped += 1;
        }
        dropped
    }

    /// Gives memory back that lines had and no longer have.
    pub(super) fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.text.shrink_to_fit();
    }

    /// Lines with numbers from `first` on: so many, fewer when they are long.
    pub(super) fn page(&self, first: u64, lines: usize, bytes: usize) -> Vec<Line> {
        let oldest = self.oldest();
        let first = first.max(oldest);
        let skip = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        let mut page = Vec::with_capacity(lines);
        let mut taken = 0;
        for (seq, record) in (first..).zip(self.records.range(skip.min(self.records.len())..)) {
            if page.len() == lines || taken > bytes {
                break;
            }
            taken += record.length as usize;
            page.push(self.line(seq, record));
        }
        page
    }

    fn line(&self, seq: u64, record: &Record) -> Line {
        let start = usize::try_from(record.at - self.displaced).unwrap_or(usize::MAX);
        let start = start.min(self.text.len());
        let end = (start + record.length as usize).min(self.text.len());
        // Piece by piece, not byte by byte.
        let (front, back) = self.text.as_slices();
        let mid = front.len();
        let mut bytes = Vec::with_capacity(end - start);
        bytes.extend_from_slice(front.get(start.min(mid)..end.min(mid)).unwrap_or_default());
        bytes.extend_from_slice(
            back.get(start.saturating_sub(mid)..end.saturating_sub(mid)).unwrap_or_default(),
        );
        // It was text when it was put there.
        let text = String::from_utf8(bytes).unwrap_or_default();
        let split = |length: u32| text.split_at_checked(length as usize).unwrap_or((&text, ""));
        let event = match record.kind {
            Kind::Request { method_length, end } => {
                let (method, path) = split(method_length);
                Event::Request { method, path, end }
            }
            Kind::Stdout => Event::Stdout(&text),
            Kind::Stderr => Event::Stderr(&text),
            Kind::Log { level, context_length } => {
                let (context, message) = split(context_length);
                Event::Log { level, context, message }
            }
            Kind::Failure => Event::Failure(&text),
        };
        Line {
            seq,
            time: record.time,
            origin: record.origin.clone(),
            request_id: record.request_id,
            level: event.level(),
            source: event.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::VersionId;
    use proptest::prelude::*;

    fn origin() -> Arc<Origin> {
        Arc::new(Origin { function: "main".parse().unwrap(), version: VersionId::new(3) })
    }

    fn end(status: u16) -> RequestEnd {
        RequestEnd {
            status,
            code: (status >= 500).then_some("internal"),
            duration: Duration::from_micros(1500),
            cpu: Duration::from_micros(250),
            memory_bytes: 65536,
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            texts in proptest::collection::vec((0..5u8, "\\PC{0,40}", "\\PC{0,9}"), 1..60),
            lines in 1..20usize,
            bytes in 0..4000usize,
            first in 0..70u64,
            most in 1..20usize,
        ) {
            let (mut ring, mut model) = (Ring::default(), Vec::new());
            for (kind, text, method) in &texts {
                let event = match kind {
                    0 => Event::Request { method, path: text, end: end(500 - 100 * (text.len() as u16 % 2)) },
                    1 => Event::Stdout(text),
                    2 => Event::Stderr(text),
                    3 => Event::Log { level: LogLevel::Warn, context: method, message: text },
                    _ => Event::Failure(text),
                };
                ring.push(Timestamp::UNIX_EPOCH, origin(), RequestId::new(), &event);
                model.push((model.len() as u64 + 1, event.source()));
                let before = ring.records.len();
                let dropped = ring.trim(lines, bytes) as usize;
                prop_assert_eq!(before - dropped, ring.records.len());
                prop_assert!(ring.records.len() == 1 || ring.bytes() <= bytes);
            }
            prop_assert_eq!(ring.newest(), model.len() as u64);
            let kept = &model[model.len() - ring.records.len()..];
            let wanted: Vec<_> =
                kept.iter().filter(|(seq, _)| *seq >= first).take(most).cloned().collect();
            let page = ring.page(first, most, usize::MAX);
            let page: Vec<_> = page.into_iter().map(|line| (line.seq, line.source)).collect();
            prop_assert_eq!(page, wanted);
        }
    }

    #[test]
    fn long_lines_make_short_pages() {
        let mut ring = Ring::default();
        for _ in 0..10 {
            let text = "x".repeat(100);
            ring.push(Timestamp::UNIX_EPOCH, origin(), RequestId::new(), &Event::Stdout(&text));
        }
        assert_eq!(ring.page(1, 64, 250).len(), 3);
        assert_eq!(ring.page(9, 64, 250).len(), 2);
        assert!(ring.page(11, 64, 250).is_empty());
        assert!(Ring::default().page(1, 64, 250).is_empty());
    }
}
