//! From the bytes of a guest's output to lines of its app's log.

use super::{
    AppLog, Event, MAX_LINE_BYTES, Origin,
    escape::{cut, hex},
};
use crate::{clock, request_id::RequestId};
use faas_api::LogLevel;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What an entry through `wasi:logging` is about has at most so many bytes.
const MAX_CONTEXT_BYTES: usize = 256;

/// Which of its outputs a guest writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStream {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
}

/// What one call may write to its log, all outputs together.
#[derive(Debug)]
pub(crate) struct LogBudget {
    limit: usize,
    left: AtomicUsize,
}

/// What is left of a budget that was exceeded, once that was said.
const SPENT: usize = usize::MAX;

/// How much of a write is within the budget.
enum Grant {
    All,
    /// This many bytes; nobody has been told yet.
    Last(usize),
    Nothing,
}

impl LogBudget {
    /// A budget of this many bytes.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit: bytes, left: AtomicUsize::new(bytes.min(SPENT - 1)) })
    }

    fn take(&self, bytes: usize) -> Grant {
        let taken = self.left.fetch_update(Relaxed, Relaxed, |left| match left {
            SPENT => None,
            left => Some(left.checked_sub(bytes).unwrap_or(SPENT)),
        });
        match taken {
            Ok(left) if left >= bytes => Grant::All,
            Ok(left) => Grant::Last(left),
            Err(_) => Grant::Nothing,
        }
    }
}

/// In whose name lines are written, and how much of it a call may write.
#[derive(Clone)]
pub(crate) struct Author {
    /// Where they go.
    pub(crate) log: Arc<AppLog>,
    /// The function and its version.
    pub(crate) origin: Arc<Origin>,
    /// The request that is served.
    pub(crate) request_id: RequestId,
    /// Shared by all outputs of the call.
    pub(crate) budget: Arc<LogBudget>,
}

impl Author {
    /// Writes an entry of `wasi:logging`. What is beyond the budget is dropped and counted.
    pub(crate) fn entry(&self, level: LogLevel, context: &str, message: &str) {
        let context = begin(context, MAX_CONTEXT_BYTES);
        let message = message.trim_end_matches(['\n', '\r']);
        match self.budget.take(context.len() + message.len()) {
            Grant::All if message.len() > MAX_LINE_BYTES => {
                let mut message = begin(message, MAX_LINE_BYTES).to_owned();
                cut(&mut message);
                self.push(Event::Log { level, context, message: &message });
                self.log.lost(1);
            }
            Grant::All => self.push(Event::Log { level, context, message }),
            Grant::Last(left) => {
                let message =
                    begin(message, left.saturating_sub(context.len()).min(MAX_LINE_BYTES));
                if !message.is_empty() {
                    self.push(Event::Log { level, context, message });
                }
                let message = self.truncation();
                self.push(Event::Log { level: LogLevel::Warn, context: "", message: &message });
                self.log.lost(1);
            }
            Grant::Nothing => self.log.lost(1),
        }
    }

    /// Says that the budget is spent.
    fn truncation(&self) -> String {
        format!("… log truncated: limit log_bytes ({}) reached", self.budget.limit)
    }

    fn push(&self, event: Event<'_>) {
        self.log.push(&self.origin, self.request_id, clock::now(), event);
    }
}

/// The beginning of a text, of at most so many bytes.
fn begin(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// Makes lines of what a guest writes to one of its outputs, in pieces of any size.
pub(crate) struct GuestOutput {
    author: Author,
    stream: OutputStream,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// The rest of the line at hand is lost, and counted already.
    skipping: bool,
}

impl GuestOutput {
    /// An output of one call.
    pub(crate) fn new(author: Author, stream: OutputStream) -> Self {
        Self { author, stream, partial: Vec::new(), skipping: false }
    }

    /// Takes bytes from the guest. What is beyond the budget is dropped and counted.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        match self.author.budget.take(bytes.len()) {
            Grant::All => self.lines(bytes),
            Grant::Last(left) => {
                let (fit, rest) = bytes.split_at_checked(left).unwrap_or((bytes, &[]));
                self.lines(fit);
                self.flush();
                self.push(&self.author.truncation());
                self.lose(rest);
            }
            Grant::Nothing => self.lose(bytes),
        }
    }

    /// Ends the line that has no end yet, as dropping the output does.
    fn flush(&mut self) {
        if !self.partial.is_empty() {
            self.line();
        }
    }

    fn lines(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            self.piece(line);
            if !std::mem::take(&mut self.skipping) {
                self.line();
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.piece(bytes);
    }

    /// Adds a piece to the line at hand, and ends the line early if it is too long.
    fn piece(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        let room = (MAX_LINE_BYTES + 1).saturating_sub(self.partial.len());
        self.partial.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if self.partial.len() > MAX_LINE_BYTES {
            self.line();
            self.skipping = true;
            self.author.log.lost(1);
        }
    }

    /// Ends the line at hand.
    fn line(&mut self) {
        let mut line = std::mem::take(&mut self.partial);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let mut message = String::from_utf8(line).unwrap_or_else(|error| hex(error.as_bytes()));
        if message.len() > MAX_LINE_BYTES {
            cut(&mut message);
        }
        self.push(&message);
    }

    /// Counts the lines that begin here and are not kept, and no line twice.
    fn lose(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let unfinished = *last != b'\n';
        let counted = std::mem::replace(&mut self.skipping, unfinished);
        self.author.log.lost(ends + u64::from(unfinished) - u64::from(counted));
    }

    fn push(&self, message: &str) {
        self.author.push(match self.stream {
            OutputStream::Stdout => Event::Stdout(message),
            OutputStream::Stderr => Event::Stderr(message),
        });
    }
}

impl Drop for GuestOutput {
    fn drop(&mut self) {
        self.flush();
    }
}
