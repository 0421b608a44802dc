//! Reading the stream, from a place in it to its end.

use super::{Disk, Position, Wanted};
use faas_api::LogLine;
use std::{fs::File, os::unix::fs::FileExt as _, sync::Arc};

/// How much is read at once, in bytes.
const CHUNK: u64 = 64 << 10;
/// The app's name stands within so many bytes of a line.
const HEAD_BYTES: usize = 160;

/// A place in the stream, and what was read from there on. Blocks on the disk.
pub(in super::super) struct Cursor {
    disk: Arc<Disk>,
    wanted: Wanted,
    /// How a line of the app begins to name it.
    app: Option<Vec<u8>>,
    /// Where the first byte of `buffer` that was not handed out is from.
    at: Position,
    /// Only the segment at hand is read.
    stays: bool,
    file: Option<(u64, File)>,
    buffer: Vec<u8>,
    /// How much of `buffer` was handed out.
    done: usize,
}

impl Cursor {
    /// From the beginning of a segment to the end of the stream.
    pub(in super::super) fn new(disk: Arc<Disk>, wanted: Wanted, segment: u64) -> Self {
        let app = wanted.app.as_ref().map(|app| format!("\"app\":\"{app}\"").into_bytes());
        let (at, file, buffer) = (Position::start_of(segment), None, Vec::new());
        Self { disk, wanted, app, at, stays: false, file, buffer, done: 0 }
    }

    /// The same, but only that segment.
    pub(in super::super) fn one(disk: Arc<Disk>, wanted: Wanted, segment: u64) -> Self {
        Self { stays: true, ..Self::new(disk, wanted, segment) }
    }

    /// The next line that may be wanted; none at the end. What cannot be read is passed over: it may
    /// have been removed, or damaged.
    pub(in super::super) fn next(&mut self) -> Option<LogLine> {
        loop {
            let rest = self.buffer.get(self.done..).unwrap_or_default();
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                if self.fill() {
                    continue;
                }
                return None;
            };
            let line = self.parse(rest.get(..length).unwrap_or_default());
            let position = self.at;
            self.done += length + 1;
            self.at.offset += length as u64 + 1;
            if let Some(line) = line
                && self.disk.index().shows(&line.app, position)
            {
                return Some(line);
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Option<LogLine> {
        let has = |text: &[u8], word: &[u8]| text.windows(word.len().max(1)).any(|at| at == word);
        let head = line.get(..HEAD_BYTES).unwrap_or(line);
        let app = self.app.as_ref().is_none_or(|app| has(head, app));
        // Looking for an id is much quicker than reading all of a line.
        let id = self.wanted.request_id.as_ref();
        let wanted = app && id.is_none_or(|id| has(line, id.as_bytes()));
        if wanted { serde_json::from_slice(line).ok() } else { None }
    }

    /// Reads more. False when there is none now.
    fn fill(&mut self) -> bool {
        self.buffer.drain(..self.done.min(self.buffer.len()));
        self.done = 0;
        let read = self.read();
        if read == 0 {
            return self.next_segment();
        }
        true
    }

    /// Reads more of the segment at hand, as far as it is written. Returns how much.
    fn read(&mut self) -> usize {
        let id = self.at.segment;
        let Some(end) = self.disk.index().readable(id) else { return 0 };
        if self.file.as_ref().is_none_or(|(open, _)| *open != id) {
            let Ok(file) = File::open(self.disk.file(id)) else { return 0 };
            self.file = Some((id, file));
        }
        let Some((_, file)) = &self.file else { return 0 };
        let held = self.buffer.len();
        let from = self.at.offset + held as u64;
        let length = usize::try_from(end.saturating_sub(from).min(CHUNK)).unwrap_or(0);
        self.buffer.resize(held + length, 0);
        let room = self.buffer.get_mut(held..).unwrap_or_default();
        let read = file.read_at(room, from).unwrap_or(0);
        self.buffer.truncate(held + read);
        read
    }

    fn next_segment(&mut self) -> bool {
        if self.stays {
            return false;
        }
        let next = self.disk.index().next(self.at.segment, &self.wanted);
        let Some(next) = next else { return false };
        self.at = Position::start_of(next);
        self.buffer.clear();
        true
    }
}
