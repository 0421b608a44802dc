//! Reading a log: from where a query begins, page by page, and on as lines come.

use super::{AppLog, PAGE, ring::Line};
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
        let upto = self.newest();
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
                .into_iter()
                .filter(|line| line.seq <= self.upto && self.wants(line))
                .map(|line| self.log.line(line))
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
            self.upto = self.log.newest();
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
            let lines = self.lines_between(first, end);
            if lines.is_empty() {
                break;
            }
            for line in lines.iter().rev() {
                if self.wants(line) {
                    left -= 1;
                    if left == 0 {
                        return line.seq - 1;
                    }
                }
            }
            end = first - 1;
        }
        if left > 0 { 0 } else { end }
    }

    /// The lines with numbers from `first` to `last`, as far as they are there.
    fn lines_between(&self, first: u64, last: u64) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let next = lines.last().map_or(first, |line| line.seq + 1);
            let page = self.log.page(next);
            let before = lines.len();
            lines.extend(page.into_iter().filter(|line| line.seq <= last));
            if lines.len() == before {
                return lines;
            }
        }
    }

    fn wants(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && self.request_id.as_ref().is_none_or(|id| line.request_id.to_string() == *id)
    }
}
