//! Reading a log: from where a query begins, page by page, and on as lines come.

use super::{AppLog, PAGE, Record};
use faas_api::LogLine;
use jiff::Timestamp;
use std::sync::Arc;
use tokio::sync::watch;

/// Which lines a reader wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Only lines at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// Only lines of this request.
    pub(crate) request_id: Option<String>,
    /// Of the lines there are, only the newest so many.
    pub(crate) limit: Option<usize>,
}

impl AppLog {
    /// Reads from where a query begins, oldest line first.
    pub(crate) fn reader(self: &Arc<Self>, query: &Query) -> LogReader {
        let changes = self.subscribe();
        let upto = self.ring().newest;
        let mut reader = LogReader {
            log: self.clone(),
            since: query.since,
            request_id: query.request_id.clone(),
            after: 0,
            upto,
            changes,
        };
        if let Some(limit) = query.limit {
            reader.after = reader.before_the_newest(limit);
        }
        reader
    }

    /// Every line a reader asks for, oldest first.
    #[cfg(test)]
    pub(crate) fn query(self: &Arc<Self>, query: &Query) -> Vec<LogLine> {
        let mut reader = self.reader(query);
        std::iter::from_fn(|| Some(reader.next_page()).filter(|page| !page.is_empty()))
            .flatten()
            .collect()
    }
}

/// One reader's place in a log. It holds no lock between two pages: lines that are displaced
/// before it comes to them are a gap in its numbers.
pub(crate) struct LogReader {
    log: Arc<AppLog>,
    since: Option<Timestamp>,
    request_id: Option<String>,
    /// The number of the last line that was looked at.
    after: u64,
    /// The number of the newest line when the reader last waited: without this a reader might
    /// never catch up with a guest that writes faster.
    upto: u64,
    changes: watch::Receiver<bool>,
}

impl LogReader {
    /// The next lines; none when there are no more for now.
    pub(crate) fn next_page(&mut self) -> Vec<LogLine> {
        while self.after < self.upto {
            let page = self.log.page(self.after + 1);
            let Some(last) = page.last() else { break };
            self.after = last.seq;
            let lines: Vec<LogLine> = page
                .iter()
                .filter(|record| record.seq <= self.upto && self.wants(record))
                .map(|record| self.log.line(record))
                .collect();
            if !lines.is_empty() {
                self.after = self.after.min(self.upto);
                return lines;
            }
        }
        self.after = self.after.min(self.upto);
        Vec::new()
    }

    /// Returns once there may be more lines; false when there never will be.
    pub(crate) async fn wait(&mut self) -> bool {
        loop {
            let closed = *self.changes.borrow_and_update();
            self.upto = self.log.ring().newest;
            if self.after < self.upto {
                return true;
            }
            if closed || self.changes.changed().await.is_err() {
                return false;
            }
        }
    }

    /// The number before the first of the newest `limit` lines that are wanted.
    fn before_the_newest(&self, limit: usize) -> u64 {
        let mut left = limit;
        let mut end = self.upto;
        while left > 0 && end > 0 {
            let first = end.saturating_sub(PAGE as u64 - 1).max(1);
            let page = self.log.page(first);
            if page.first().is_none_or(|record| record.seq > end) {
                break;
            }
            for record in page.iter().rev().filter(|record| record.seq <= end) {
                if self.wants(record) {
                    left -= 1;
                    if left == 0 {
                        return record.seq - 1;
                    }
                }
            }
            end = first - 1;
        }
        if left > 0 { 0 } else { end }
    }

    fn wants(&self, record: &Record) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self.request_id.as_ref().is_none_or(|id| record.request_id.to_string() == *id)
    }
}
