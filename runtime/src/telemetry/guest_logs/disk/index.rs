//! What is in which segment, and which apps were deleted.

use super::Wanted;
use faas_api::AppName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, VecDeque},
    fs,
    io::{self, BufRead},
    path::Path,
};

/// A place in the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Position {
    /// The segment's number; the first is 1.
    pub(super) segment: u64,
    /// Bytes from its beginning.
    pub(super) offset: u64,
}

impl Position {
    /// The beginning of a segment.
    pub(in super::super) fn start_of(segment: u64) -> Self {
        Self { segment, offset: 0 }
    }
}

/// What is in one segment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Segment {
    #[serde(skip)]
    id: u64,
    /// Whole lines, in bytes.
    bytes: u64,
    /// What the file that says so takes besides, in bytes.
    #[serde(skip)]
    note_bytes: u64,
    /// When the first and the last of its lines were written.
    times: Option<(Timestamp, Timestamp)>,
    /// The first and the last number of each app's lines, behind its deletion if there is one.
    apps: HashMap<AppName, (u64, u64)>,
    /// Where the last deletion of an app is told, in bytes from the beginning to the end of that.
    deleted: HashMap<AppName, u64>,
}

/// The head of a line in a segment, or all of one that tells a deletion.
#[derive(Deserialize)]
#[serde(untagged)]
enum Head {
    Line { seq: u64, time: Timestamp, app: AppName },
    Deletion { deleted: AppName },
}

/// What tells that an app was deleted.
pub(super) fn deletion(app: &AppName) -> String {
    format!("{{\"deleted\":\"{app}\"}}\n")
}

impl Segment {
    /// An empty one.
    pub(super) fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    /// Its number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whole lines, in bytes.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what was noted of a segment whose file has this length.
    pub(super) fn noted(id: u64, note: &Path, length: u64) -> Option<Self> {
        let text = fs::read(note).ok()?;
        let segment: Self = serde_json::from_slice(&text).ok()?;
        (segment.bytes == length).then_some(Self { id, note_bytes: text.len() as u64, ..segment })
    }

    /// Reads the segment itself. What is no line is passed over; the end of it that is no whole
    /// line does not count.
    pub(in super::super) fn scan(id: u64, mut lines: impl BufRead) -> io::Result<Self> {
        let mut segment = Self::new(id);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = lines.read_until(b'\n', &mut line)? as u64;
            if !line.ends_with(b"\n") {
                return Ok(segment);
            }
            segment.bytes += length;
            match serde_json::from_slice(&line) {
                Ok(Head::Line { seq, time, app }) => segment.add(&app, seq, time),
                Ok(Head::Deletion { deleted }) => segment.delete(deleted),
                Err(_) => {}
            }
        }
    }

    /// Notes a line.
    pub(super) fn add(&mut self, app: &AppName, seq: u64, time: Timestamp) {
        let (first, last) = self.times.unwrap_or((time, time));
        self.times = Some((first.min(time), last.max(time)));
        match self.apps.get_mut(app) {
            Some((first, last)) => (*first, *last) = ((*first).min(seq), (*last).max(seq)),
            None => drop(self.apps.insert(app.clone(), (seq, seq))),
        }
    }

    /// Notes a deletion that is told by the last of its bytes.
    fn delete(&mut self, app: AppName) {
        self.apps.remove(&app);
        self.deleted.insert(app, self.bytes);
    }

    fn may_have(&self, wanted: &Wanted) -> bool {
        let Some((first, last)) = self.times else { return false };
        wanted.since.is_none_or(|since| last >= since)
            && wanted.until.is_none_or(|until| first <= until)
            && wanted.app.as_ref().is_none_or(|app| self.apps.contains_key(app))
    }
}

/// All segments.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Lines of an app before this are a deleted one's.
    hidden: HashMap<AppName, Position>,
    /// The number of each app's newest line.
    newest: HashMap<AppName, u64>,
}

impl Index {
    /// An index of these segments, oldest first.
    pub(super) fn new(segments: VecDeque<Segment>) -> Self {
        let mut index = Self { segments, ..Self::default() };
        for segment in &index.segments {
            for (app, offset) in &segment.deleted {
                let position = Position { segment: segment.id, offset: *offset };
                index.hidden.insert(app.clone(), position);
                index.newest.remove(app);
            }
            for (app, (_, last)) in &segment.apps {
                index.newest.insert(app.clone(), *last);
            }
        }
        index
    }

    /// The number of an app's newest line; 0 when there is none.
    pub(super) fn newest(&self, app: &AppName) -> u64 {
        self.newest.get(app).copied().unwrap_or(0)
    }

    /// The apps that have lines.
    pub(super) fn apps(&self) -> Vec<AppName> {
        self.newest.keys().cloned().collect()
    }

    /// Hides everything that an app has until now.
    pub(super) fn delete(&mut self, app: &AppName) {
        self.newest.remove(app);
        self.hidden.insert(app.clone(), self.end());
    }

    /// Whether a line of an app at this place is to be seen.
    pub(super) fn shows(&self, app: &AppName, position: Position) -> bool {
        self.hidden.get(app).is_none_or(|hidden| position >= *hidden)
    }

    /// Whether there are lines of an app with numbers below this one.
    pub(super) fn has_before(&self, app: &AppName, number: u64) -> bool {
        let has = |segment: &Segment| {
            let end = Position { segment: segment.id, offset: segment.bytes };
            segment.apps.get(app).is_some_and(|(first, _)| *first < number)
                && self.hidden.get(app).is_none_or(|hidden| *hidden < end)
        };
        self.newest.contains_key(app) && self.segments.iter().any(has)
    }

    /// The segments that may have something that is wanted.
    pub(super) fn segments(&self, wanted: &Wanted) -> Vec<u64> {
        let may_have = |segment: &&Segment| segment.may_have(wanted);
        self.segments.iter().filter(may_have).map(Segment::id).collect()
    }

    /// The next segment after this one that may have something that is wanted.
    pub(super) fn next(&self, after: u64, wanted: &Wanted) -> Option<u64> {
        let mut later = self.segments.iter().filter(|segment| segment.id > after);
        later.find(|segment| segment.may_have(wanted)).map(Segment::id)
    }

    /// How much of a segment can be read, in bytes; nothing when it is gone.
    pub(super) fn readable(&self, id: u64) -> Option<u64> {
        let place = self.segments.binary_search_by_key(&id, Segment::id).ok()?;
        self.segments.get(place).map(Segment::bytes)
    }

    /// The segment that is written to.
    pub(super) fn active(&mut self) -> Option<&mut Segment> {
        self.segments.back_mut()
    }

    /// Where the next line goes.
    pub(super) fn end(&self) -> Position {
        self.segments.back().map_or_else(Position::default, |segment| Position {
            segment: segment.id,
            offset: segment.bytes,
        })
    }

    /// From now on this one is written to.
    pub(super) fn push(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    /// What a segment's note takes besides.
    pub(super) fn noted(&mut self, id: u64, bytes: u64) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.id == id) {
            segment.note_bytes = bytes;
        }
    }

    /// The oldest segment, unless it is the one that is written to.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.front().filter(|_| self.segments.len() > 1).map(Segment::id)
    }

    /// Forgets the oldest segment, and the deletions that hide nothing but what was in it.
    pub(super) fn forget_oldest(&mut self) {
        self.segments.pop_front();
        let Some(oldest) = self.segments.front().map(Segment::id) else { return };
        self.hidden.retain(|_, position| position.segment >= oldest);
        // Numbers go on where they were even if the lines are gone: only an app that writes nothing
        // for as long as the budget lasts begins anew after a restart.
    }

    /// What all segments take, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes + segment.note_bytes).sum()
    }

    /// Notes what was appended to the segment that is written to.
    pub(super) fn appended(&mut self, lines: &[Appended]) {
        for line in lines {
            let Some(segment) = self.segments.back_mut() else { return };
            segment.bytes += line.bytes;
            let end = Position { segment: segment.id, offset: segment.bytes };
            match line.seq {
                Some((seq, time)) => {
                    segment.add(&line.app, seq, time);
                    self.newest.insert(line.app.clone(), seq);
                }
                None => {
                    segment.delete(line.app.clone());
                    self.newest.remove(&line.app);
                    self.hidden.insert(line.app.clone(), end);
                }
            }
        }
    }
}

/// A line that was appended.
#[derive(Debug)]
pub(super) struct Appended {
    /// Whose it is.
    pub(super) app: AppName,
    /// Its number and time; without, it tells that the app was deleted.
    pub(super) seq: Option<(u64, Timestamp)>,
    /// How long it is.
    pub(super) bytes: u64,
}
