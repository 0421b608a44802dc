//! Reading logs: from where a query begins, page by page, and on as lines come.
//!
//! What the rings have is read from there. What they no longer have is read from disk: then
//! everything is, up to the end of what is written, and the rest from the rings. Lines of several
//! apps are merged by their times.

use super::{
    AppLog, Disk, GuestLogs, PAGE, PAGE_BYTES,
    disk::{Wanted, cursor::Cursor},
    query::{Filter, Query, size},
};
use faas_api::{AppName, LogLine};
use jiff::Timestamp;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Where several logs are read, so much of each is held: lines, and their text in bytes.
const SMALL_PAGE: (usize, usize) = (16, 4 << 10);
/// Who follows all apps looks at each of them for news, so not for every line.
const GATHER: Duration = Duration::from_millis(50);

impl AppLog {
    /// Reads from where a query begins, oldest line first.
    pub(crate) fn reader(self: &Arc<Self>, query: Query) -> LogReader {
        LogReader::new(Scope::One(self.clone()), self.subscribe(), query)
    }

    /// Every line a reader asks for, oldest first.
    #[cfg(test)]
    pub(crate) fn query(self: &Arc<Self>, query: &Query) -> Vec<LogLine> {
        self.reader(query.clone()).all()
    }
}

impl GuestLogs {
    /// The same for all apps.
    pub(crate) fn reader(self: &Arc<Self>, query: Query) -> LogReader {
        LogReader::new(Scope::All(self.clone()), self.shared.changes.subscribe(), query)
    }
}

/// Whose lines are read.
enum Scope {
    One(Arc<AppLog>),
    All(Arc<GuestLogs>),
}

/// One reader's place in a log, or in all of them. It holds no lock between two pages: lines that
/// are displaced before it comes to them are lost to it, which the line behind them says.
pub(crate) struct LogReader {
    scope: Scope,
    query: Arc<Query>,
    /// Made by the first look, which may take long.
    walk: Option<Walk>,
    /// So many lines more are before the newest that are wanted.
    skip: u64,
    changes: watch::Receiver<bool>,
    gone: Arc<AtomicBool>,
}

/// Whoever wants the lines. Once this is dropped, the reader stops, wherever it is.
pub(crate) struct Audience(Arc<AtomicBool>);

impl Drop for Audience {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl LogReader {
    fn new(scope: Scope, changes: watch::Receiver<bool>, query: Query) -> Self {
        let (query, gone) = (Arc::new(query), Arc::default());
        Self { scope, query, walk: None, skip: 0, changes, gone }
    }

    /// Who must stay for the reader to go on.
    pub(crate) fn audience(&self) -> Audience {
        Audience(self.gone.clone())
    }

    /// The next lines; none when there are no more for now. Blocks: it may read from disk.
    pub(crate) fn next_page(&mut self) -> Vec<LogLine> {
        if self.walk.is_none() {
            let (walk, skip) = self.begin();
            (self.walk, self.skip) = (Some(walk), skip);
        }
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < PAGE && bytes < PAGE_BYTES {
            let Some(line) = self.walk.as_mut().and_then(Walk::next) else { break };
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            bytes += size(&line);
            page.push(line);
        }
        page
    }

    /// Returns once there may be more lines; false when there never will be.
    pub(crate) async fn wait(&mut self) -> bool {
        loop {
            let closed = *self.changes.borrow_and_update();
            let goes_on = match (&mut self.walk, &self.scope) {
                (None, _) => true,
                (Some(walk), Scope::One(log)) => walk.goes_on(log),
                (Some(walk), Scope::All(logs)) => walk.goes_on_with(logs.all()),
            };
            if goes_on {
                return true;
            }
            if closed || self.changes.changed().await.is_err() {
                return false;
            }
            if let Scope::All(_) = self.scope {
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// Every line until there are no more for now.
    #[cfg(test)]
    pub(crate) fn all(mut self) -> Vec<LogLine> {
        let pages = std::iter::from_fn(|| Some(self.next_page()).filter(|page| !page.is_empty()));
        pages.flatten().collect()
    }

    /// Where to begin, and how many lines from there are before those that are wanted.
    fn begin(&self) -> (Walk, u64) {
        let sources: Vec<Source> = match &self.scope {
            Scope::One(log) => vec![Source::new(log.clone())],
            Scope::All(logs) => logs.all().into_iter().map(Source::new).collect(),
        };
        let shared = match &self.scope {
            Scope::One(log) => &log.shared,
            Scope::All(logs) => &logs.shared,
        };
        let all = || self.query.since.is_none().then_some(shared.lines as u64);
        let limit = self.query.limit.or_else(all);
        let disk = shared.disk.as_ref();
        let older = disk.and_then(|disk| Some((disk, memory_begins(disk, &sources)?)));
        let Some((disk, horizon)) = older else {
            return self.through_memory(sources, self.query.clone(), limit);
        };
        // Of what is before this, the rings have only a part.
        let since = self.query.since.map_or(horizon, |since| since.max(horizon));
        let recent = Arc::new(Query { since: Some(since), ..Query::clone(&self.query) });
        let enough = |limit: u64| {
            let lines = self.walk(sources.clone(), None, recent.clone()).take_count(limit);
            lines == limit
        };
        if self.query.since.is_some_and(|since| since >= horizon) || limit.is_some_and(enough) {
            return self.through_memory(sources, recent, limit);
        }
        self.through_disk(disk, &sources, limit)
    }

    /// Reads the rings, up to so many of the newest lines.
    fn through_memory(
        &self,
        mut sources: Vec<Source>,
        query: Arc<Query>,
        limit: Option<u64>,
    ) -> (Walk, u64) {
        let Some(limit) = limit else {
            return (self.walk(sources, None, query), 0);
        };
        let there = if query.takes_all() {
            // No more of each than of all: what is before that need not be looked at.
            for source in &mut sources {
                source.begin_at(source.upto.saturating_sub(limit).max(source.after));
            }
            sources.iter().map(|source| source.upto - source.after).sum()
        } else {
            self.walk(sources.clone(), None, query.clone()).take_count(u64::MAX)
        };
        (self.walk(sources, None, query), there.saturating_sub(limit))
    }

    /// Reads the disk and then the rings, up to so many of the newest lines.
    fn through_disk(
        &self,
        disk: &Arc<Disk>,
        sources: &[Source],
        limit: Option<u64>,
    ) -> (Walk, u64) {
        let wanted = Wanted {
            app: match &self.scope {
                Scope::One(log) => Some(log.app.clone()),
                Scope::All(_) => None,
            },
            request_id: self.query.request_id.clone(),
            since: self.query.since,
            until: self.query.until,
        };
        let segments = disk.segments(&wanted);
        let on_disk = || sources.iter().map(Source::on_disk).collect::<Vec<_>>();
        let whole = |from: Option<u64>| {
            let cursor = from.map(|from| Cursor::new(disk.clone(), wanted.clone(), from));
            let query = self.query.clone();
            match cursor {
                Some(_) => self.walk(on_disk(), cursor, query),
                None => self.walk(sources.iter().map(Source::behind_disk).collect(), None, query),
            }
        };
        let Some(limit) = limit else {
            return (whole(segments.first().copied()), 0);
        };
        // From the newest back, until there are enough.
        let mut found = whole(None).take_count(limit);
        let mut from = None;
        for segment in segments.into_iter().rev() {
            if found >= limit {
                break;
            }
            let cursor = Cursor::one(disk.clone(), wanted.clone(), segment);
            let mut walk = self.walk(on_disk(), Some(cursor), self.query.clone());
            walk.only_disk = true;
            found += walk.take_count(u64::MAX);
            from = Some(segment);
        }
        let there = whole(from).take_count(u64::MAX);
        (whole(from), there.saturating_sub(limit))
    }

    fn walk(&self, sources: Vec<Source>, cursor: Option<Cursor>, query: Arc<Query>) -> Walk {
        Walk::new(sources, cursor, Filter::new(query), self.gone.clone())
    }
}

/// From when on the rings have everything, if the disk has more.
fn memory_begins(disk: &Disk, sources: &[Source]) -> Option<Timestamp> {
    let begins = |source: &Source| {
        let (oldest, time) = source.log.oldest();
        let has_more = disk.has_before(&source.log.app, oldest);
        has_more.then(|| time.unwrap_or(Timestamp::MAX))
    };
    sources.iter().filter_map(begins).max()
}

/// One log on the way of a reader.
#[derive(Clone)]
struct Source {
    log: Arc<AppLog>,
    /// The number of the last line that was read.
    after: u64,
    /// The number of the newest line when the reader last waited: without this a reader might
    /// never catch up with a guest that writes faster.
    upto: u64,
    /// The number that the next line has, if none is lost; nothing before the first.
    expected: Option<u64>,
    /// The newest line that was on disk when the reader came to its end.
    stored: u64,
    /// Lines that were read, and not handed out.
    page: VecDeque<LogLine>,
    /// It is in line for its next line.
    queued: bool,
}

impl Source {
    /// A log from its oldest line in memory on.
    fn new(log: Arc<AppLog>) -> Self {
        let (upto, (oldest, _)) = (log.newest(), log.oldest());
        let mut source = Self {
            log,
            after: 0,
            upto,
            expected: None,
            stored: 0,
            page: VecDeque::new(),
            queued: false,
        };
        source.begin_at((oldest - 1).min(upto));
        source
    }

    /// The same from its oldest line on disk on.
    fn on_disk(&self) -> Self {
        Self { after: 0, expected: None, ..self.clone() }
    }

    /// The same from the first line on that is not on disk.
    fn behind_disk(&self) -> Self {
        let mut source = self.clone();
        source.begin_at(source.log.stored.load(Ordering::Relaxed).min(source.upto));
        source
    }

    fn begin_at(&mut self, after: u64) {
        (self.after, self.expected) = (after, Some(after + 1));
    }

    /// Counts a line as read, and notes in it what was lost before.
    fn take(&mut self, mut line: LogLine) -> LogLine {
        line.dropped = self.expected.map_or(0, |expected| line.seq.saturating_sub(expected));
        (self.after, self.expected) = (line.seq, Some(line.seq + 1));
        line
    }

    /// Reads the next lines from the ring.
    fn fill(&mut self, (lines, bytes): (usize, usize)) {
        if !self.page.is_empty() || self.after >= self.upto {
            return;
        }
        for line in self.log.page(self.after + 1, lines, bytes) {
            if line.seq <= self.upto {
                let line = self.log.line(line);
                let line = self.take(line);
                self.page.push_back(line);
            }
        }
        if self.page.is_empty() {
            // They were displaced.
            self.after = self.upto;
        }
    }
}

/// Lines on their way out: from disk, then from memory, through the filter.
struct Walk {
    sources: Vec<Source>,
    places: HashMap<AppName, usize>,
    /// The sources that have a next line, by its time.
    line_up: BinaryHeap<Reverse<(Timestamp, usize)>>,
    page: (usize, usize),
    cursor: Option<Cursor>,
    /// The cursor has come to the end once.
    ending: bool,
    /// Memory is not read.
    only_disk: bool,
    filter: Filter,
    picked: VecDeque<LogLine>,
    gone: Arc<AtomicBool>,
}

impl Walk {
    fn new(
        sources: Vec<Source>,
        cursor: Option<Cursor>,
        filter: Filter,
        gone: Arc<AtomicBool>,
    ) -> Self {
        let mut walk = Self {
            page: if sources.len() == 1 { (PAGE, PAGE_BYTES) } else { SMALL_PAGE },
            sources,
            places: HashMap::new(),
            line_up: BinaryHeap::new(),
            cursor,
            ending: false,
            only_disk: false,
            filter,
            picked: VecDeque::new(),
            gone,
        };
        walk.arrange();
        walk
    }

    /// The next line that is wanted.
    fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.picked.pop_front() {
                return Some(line);
            }
            if self.gone.load(Ordering::Relaxed) {
                return None;
            }
            let line = self.next_of_all()?;
            self.filter.push(line, &mut self.picked);
        }
    }

    /// How many lines are wanted, counted up to a limit.
    fn take_count(mut self, limit: u64) -> u64 {
        let mut count = 0;
        while count < limit && self.next().is_some() {
            count += 1;
        }
        count
    }

    fn next_of_all(&mut self) -> Option<LogLine> {
        while let Some(cursor) = &mut self.cursor {
            if self.gone.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(line) = cursor.next() {
                let place = self.places.get(&line.app);
                let source = place.and_then(|place| self.sources.get_mut(*place));
                if let Some(source) = source
                    && (source.after + 1..=source.upto).contains(&line.seq)
                {
                    return Some(source.take(line));
                }
            } else if !std::mem::replace(&mut self.ending, true) {
                // What is written up to now is read before the rings are.
                for source in &mut self.sources {
                    source.stored = source.log.stored.load(Ordering::Relaxed).min(source.upto);
                }
            } else {
                self.leave_disk();
            }
        }
        let Reverse((_, place)) = self.line_up.pop()?;
        let line = self.sources.get_mut(place).and_then(|source| {
            source.queued = false;
            source.page.pop_front()
        });
        self.queue(place);
        line
    }

    fn leave_disk(&mut self) {
        self.cursor = None;
        for source in &mut self.sources {
            source.after = source.after.max(source.stored);
        }
        if !self.only_disk {
            self.queue_all();
        }
    }

    /// Finds a place for every source.
    fn arrange(&mut self) {
        let places = self.sources.iter().enumerate();
        self.places = places.map(|(place, source)| (source.log.app.clone(), place)).collect();
        self.line_up.clear();
        self.sources.iter_mut().for_each(|source| source.queued = false);
        if self.cursor.is_none() {
            self.queue_all();
        }
    }

    fn queue_all(&mut self) {
        for place in 0..self.sources.len() {
            self.queue(place);
        }
    }

    /// Puts a source in line by its next line, if it has one.
    fn queue(&mut self, place: usize) {
        let Some(source) = self.sources.get_mut(place) else { return };
        if source.queued {
            return;
        }
        source.fill(self.page);
        if let Some(next) = source.page.front() {
            source.queued = true;
            self.line_up.push(Reverse((next.time, place)));
        }
    }

    /// Whether there is more in the one log that is read.
    fn goes_on(&mut self, log: &AppLog) -> bool {
        let upto = log.newest();
        self.sources.iter_mut().for_each(|source| source.upto = upto);
        self.queue_all();
        !self.line_up.is_empty()
    }

    /// Whether there is more in all the logs there are now.
    fn goes_on_with(&mut self, logs: Vec<Arc<AppLog>>) -> bool {
        let before = self.sources.len();
        self.sources.retain(|source| !source.log.is_closed() || source.queued);
        let mut changed = self.sources.len() < before;
        if changed {
            self.arrange();
        }
        for log in logs {
            let place = self.places.get(&log.app);
            match place.and_then(|place| self.sources.get_mut(*place)) {
                Some(source) if Arc::ptr_eq(&source.log, &log) => source.upto = log.newest(),
                // Its lines come once those of the deleted one of that name are gone.
                Some(_) => {}
                None => {
                    let mut source = Source::new(log);
                    source.begin_at(source.log.first);
                    self.sources.push(source);
                    changed = true;
                }
            }
        }
        if changed {
            self.arrange();
        }
        self.queue_all();
        !self.line_up.is_empty()
    }
}
