//! The thread that writes.

use super::{
    Disk, GATHER,
    index::{Appended, Segment, deletion},
    note,
};
use crate::telemetry::guest_logs::{AppLog, PAGE, PAGE_BYTES, ring::Line};
use faas_api::AppName;
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

/// About how much is written at once, in bytes.
const BATCH_BYTES: usize = 512 << 10;
/// How long a disk that took nothing is left alone.
const PAUSE: Duration = Duration::from_secs(2);

/// Writes until the disk is closed, then to the end.
pub(super) fn run(disk: &Disk) {
    let mut writer = Writer { disk, file: None, failing: false };
    while let Some(work) = disk.next_work() {
        writer.write(work);
    }
    writer.seal();
    disk.inbox().ended = true;
    disk.quiet.notify_all();
}

/// What there is to do at a time.
#[derive(Default)]
struct Work {
    logs: Vec<Arc<AppLog>>,
    deleted: Vec<AppName>,
}

impl Disk {
    /// Waits for something to do, and a moment longer for more of it.
    fn next_work(&self) -> Option<Work> {
        let mut inbox = self.inbox();
        while inbox.logs.is_empty() && inbox.deleted.is_empty() && !inbox.closed {
            inbox.asleep = true;
            inbox = self.news.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        inbox.asleep = false;
        let waited = self.news.wait_timeout_while(inbox, GATHER, |inbox| !inbox.closed);
        let (mut inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (mut logs, deleted) =
            (std::mem::take(&mut inbox.logs), std::mem::take(&mut inbox.deleted));
        // One that was put back may have said so again.
        logs.sort_by_key(Arc::as_ptr);
        logs.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let work = Work { logs, deleted };
        (!work.logs.is_empty() || !work.deleted.is_empty()).then_some(work)
    }

    /// Puts work back that could not be done, and waits a while. What comes meanwhile is announced as
    /// usual: it waits in the rings.
    fn put_back(&self, work: Work) {
        let mut inbox = self.inbox();
        if inbox.closed {
            return;
        }
        inbox.logs.extend(work.logs);
        // They came first, and must be told first.
        inbox.deleted.splice(0..0, work.deleted);
        drop(self.news.wait_timeout_while(inbox, PAUSE, |inbox| !inbox.closed));
    }
}

struct Writer<'a> {
    disk: &'a Disk,
    /// The segment that is written to.
    file: Option<(u64, File)>,
    /// The last attempt did not succeed, which was said.
    failing: bool,
}

impl Writer<'_> {
    /// Writes what is new in these logs.
    fn write(&mut self, mut work: Work) {
        for log in &work.logs {
            // Before the ring is looked at: a line that comes later says so again.
            log.waits.store(false, Ordering::Relaxed);
        }
        match self.write_lines(&mut work) {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("functions' logs are written to disk again");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let dir = self.disk.dir.display();
                    tracing::error!(
                        %error, %dir,
                        "functions' logs cannot be written to disk; they are kept in memory only \
                         until it takes them again"
                    );
                }
                work.logs.retain(|log| !log.is_closed());
                self.disk.put_back(work);
            }
        }
    }

    fn write_lines(&mut self, work: &mut Work) -> io::Result<()> {
        let mut batch = Batch::default();
        work.deleted.iter().for_each(|app| batch.delete(app));
        // A page of each in turn: nobody waits for whoever writes most. Where each began, so that
        // one which goes on writing does not hold this up.
        let mut logs: VecDeque<_> = work
            .logs
            .iter()
            .map(|log| (log.clone(), log.stored.load(Ordering::Relaxed), log.newest()))
            .collect();
        let most =
            BATCH_BYTES.min(usize::try_from(self.disk.limits.segment_bytes / 4).unwrap_or(0));
        while let Some((log, after, upto)) = logs.pop_front() {
            let page = log.page(after + 1, PAGE, PAGE_BYTES);
            let Some(last) = page.last().map(|line| line.seq) else { continue };
            if log.is_closed() {
                continue;
            }
            for line in page {
                batch.add(&log, line);
            }
            if last < upto {
                logs.push_back((log, last, upto));
            }
            if batch.text.len() >= most {
                self.append(std::mem::take(&mut batch))?;
                work.deleted.clear();
            }
        }
        self.append(batch)?;
        work.deleted.clear();
        Ok(())
    }

    /// Appends lines to the stream. Either all of them are there then, or none.
    fn append(&mut self, mut batch: Batch) -> io::Result<()> {
        if batch.lines.is_empty() {
            return Ok(());
        }
        let (bytes, lines) = batch.in_order();
        let at = self.make_room(bytes.len() as u64)?;
        let Some((_, file)) = &self.file else {
            return Err(io::Error::other("no segment is open"));
        };
        if let Err(error) = file.write_all_at(&bytes, at) {
            // What is behind the end is overwritten next time; this only keeps the folder tidy.
            let _ = file.set_len(at);
            return Err(error);
        }
        let mut index = self.disk.index();
        index.appended(&lines);
        for (log, seq) in batch.logs {
            log.stored.store(seq, Ordering::Relaxed);
            // It was deleted since its lines were taken.
            if log.is_closed() {
                index.delete(&log.app);
            }
        }
        Ok(())
    }

    /// Opens a segment with room for so many bytes, which the budget allows. Returns where they go.
    fn make_room(&mut self, bytes: u64) -> io::Result<u64> {
        let (end, is_full) = {
            let mut index = self.disk.index();
            let most = self.disk.limits.segment_bytes;
            let full =
                |segment: &mut Segment| segment.bytes() > 0 && segment.bytes() + bytes > most;
            (index.end(), index.active().is_none_or(full))
        };
        let position = if is_full {
            self.seal();
            let id = end.segment + 1;
            let file = create(&self.disk.file(id))?;
            self.disk.index().push(Segment::new(id));
            self.file = Some((id, file));
            0
        } else {
            if self.file.as_ref().is_none_or(|(id, _)| *id != end.segment) {
                // Its note will be out of date.
                remove(&note(&self.disk.dir, end.segment))?;
                self.disk.index().noted(end.segment, 0);
                let file = OpenOptions::new().write(true).open(self.disk.file(end.segment))?;
                self.file = Some((end.segment, file));
            }
            end.offset
        };
        loop {
            let oldest = {
                let index = self.disk.index();
                let spent = index.bytes() + bytes > self.disk.limits.bytes;
                index.oldest().filter(|_| spent)
            };
            let Some(oldest) = oldest else { return Ok(position) };
            remove(&self.disk.file(oldest))?;
            remove(&note(&self.disk.dir, oldest))?;
            self.disk.index().forget_oldest();
        }
    }

    /// Ends the segment that is open: flushes it to the device, and notes what is in it. Both only
    /// make the next start quicker and safer, so a failure is nothing to tell.
    fn seal(&mut self) {
        let Some((id, file)) = self.file.take() else { return };
        let _ = file.sync_data();
        let text = {
            let mut index = self.disk.index();
            index.active().filter(|segment| segment.id() == id).map(|s| serde_json::to_vec(s))
        };
        let Some(Ok(text)) = text else { return };
        let path = note(&self.disk.dir, id);
        let temporary = path.with_extension("tmp");
        let written = create(&temporary)
            .and_then(|file| file.write_all_at(&text, 0))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_ok() {
            self.disk.index().noted(id, text.len() as u64);
        }
    }
}

/// An empty file that only this user can read. Something may be left of an attempt that failed later.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lines on their way to disk.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: Vec<Entry>,
    /// Each log of which there are lines, and the number of the newest of them.
    logs: Vec<(Arc<AppLog>, u64)>,
}

struct Entry {
    /// What it is sorted by.
    order: Timestamp,
    app: AppName,
    seq: Option<(u64, Timestamp)>,
    text: Range<usize>,
}

impl Batch {
    fn delete(&mut self, app: &AppName) {
        let begin = self.text.len();
        self.text.extend_from_slice(deletion(app).as_bytes());
        let text = begin..self.text.len();
        self.lines.push(Entry { order: Timestamp::MIN, app: app.clone(), seq: None, text });
    }

    fn add(&mut self, log: &Arc<AppLog>, line: Line) {
        let line = log.line(line);
        let begin = self.text.len();
        // Writing to memory does not fail, and a log line has nothing that JSON cannot say.
        if serde_json::to_writer(&mut self.text, &line).is_err() {
            return self.text.truncate(begin);
        }
        self.text.push(b'\n');
        let mut order = line.time;
        match self.logs.iter_mut().rev().find(|(known, _)| Arc::ptr_eq(known, log)) {
            Some((_, newest)) => {
                // Lines of one app stay in the order of their numbers, whatever their clocks say.
                let before = self.lines.iter().rev().find(|entry| entry.app == line.app);
                order = before.map_or(order, |before| before.order.max(order));
                *newest = line.seq;
            }
            None => self.logs.push((log.clone(), line.seq)),
        }
        let text = begin..self.text.len();
        self.lines.push(Entry { order, app: line.app, seq: Some((line.seq, line.time)), text });
    }

    /// The lines in the order of their times.
    fn in_order(&mut self) -> (Vec<u8>, Vec<Appended>) {
        self.lines.sort_by_key(|entry| entry.order);
        let mut bytes = Vec::with_capacity(self.text.len());
        let lines = self.lines.drain(..).map(|Entry { app, seq, text, .. }| {
            let text = self.text.get(text).unwrap_or_default();
            bytes.extend_from_slice(text);
            Appended { app, seq, bytes: text.len() as u64 }
        });
        let lines = lines.collect();
        (bytes, lines)
    }
}
