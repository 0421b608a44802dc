//! Tests of the lines on disk: what is written is read, whatever happens in between.

use super::*;
use crate::{
    request_id::RequestId,
    telemetry::{
        guest_logs::{Event, GuestLogs, Origin, Query, Sizes},
        metrics::Metrics,
    },
};
use faas_api::{LogLine, LogSource, VersionId};
use jiff::SignedDuration;
use std::{
    cell::Cell,
    io::Write as _,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PLENTY: DiskLimits = DiskLimits { bytes: 64 << 20, segment_bytes: 1 << 20 };
const LONG: Duration = Duration::from_secs(30);

struct Node {
    dir: TempDir,
    limits: DiskLimits,
    lines: usize,
    logs: Arc<GuestLogs>,
    /// No two lines have the same time.
    clock: Cell<Timestamp>,
}

impl Node {
    fn new(limits: DiskLimits, lines: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let logs = open(&dir.path().join("logs"), limits, lines);
        let clock = Cell::new(crate::clock::now());
        Self { dir, limits, lines, logs, clock }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    fn restart(&mut self) {
        self.logs.finish();
        self.logs = open(&self.folder(), self.limits, self.lines);
    }

    /// A new life after this one was killed: nothing is finished.
    fn killed(&mut self) {
        self.logs = open(&self.folder(), self.limits, self.lines);
    }

    fn say(&self, app: &str, message: &str) {
        let origin = Origin { function: "main".parse().unwrap(), version: VersionId::new(1) };
        let log = self.logs.app(&app.parse().unwrap());
        let time = self.clock.get() + SignedDuration::from_millis(1);
        self.clock.set(time);
        log.push(&Arc::new(origin), RequestId::new(), time, Event::Stdout(message));
    }

    /// Waits until everything that was said is on disk.
    fn written(&self) {
        let until = Instant::now() + LONG;
        let behind = |log: &Arc<AppLog>| log.stored.load(Ordering::Relaxed) < log.newest();
        while self.logs.all().iter().any(behind) {
            assert!(Instant::now() < until, "nothing is written");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn read(&self, app: &str, query: Query) -> Vec<LogLine> {
        self.logs.app(&app.parse().unwrap()).reader(query).all()
    }

    fn texts(&self, app: &str) -> Vec<String> {
        texts(&self.read(app, everything()))
    }

    fn files(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.folder()).unwrap().map(Result::unwrap);
        let file = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
        };
        let mut files: Vec<_> = entries.map(file).collect();
        files.sort();
        files
    }
}

fn open(dir: &Path, limits: DiskLimits, lines: usize) -> Arc<GuestLogs> {
    let disk = Disk::open(dir, limits).unwrap();
    let sizes = Sizes { lines, memory: 256 << 20, bytes_per_s: 0 };
    Arc::new(GuestLogs::new(sizes, Arc::new(Metrics::new().unwrap()), Some(disk)))
}

fn everything() -> Query {
    Query { since: Some(Timestamp::MIN), ..Query::default() }
}

fn texts(lines: &[LogLine]) -> Vec<String> {
    let text = |line: &LogLine| match &line.source {
        LogSource::Stdout { message } => message.clone(),
        other => panic!("{other:?}"),
    };
    lines.iter().map(text).collect()
}

fn numbers(lines: &[LogLine]) -> Vec<u64> {
    lines.iter().map(|line| line.seq).collect()
}

#[test]
fn lines_outlive_the_node_and_numbers_go_on() {
    let mut node = Node::new(PLENTY, 100);
    node.say("one", "1");
    node.say("two", "2");
    node.say("one", "3 \u{1b}[31m");
    node.restart();
    node.say("one", "4");
    let lines = node.read("one", everything());
    assert_eq!(texts(&lines), ["1", "3 \\u{1b}[31m", "4"]);
    assert_eq!(numbers(&lines), [1, 2, 3]);
    assert!(lines.iter().all(|line| line.dropped == 0));
    assert_eq!(node.texts("two"), ["2"]);
    let all = node.logs.reader(everything()).all();
    assert_eq!(texts(&all), ["1", "2", "3 \\u{1b}[31m", "4"]);
    // Without a time: as many as are kept in memory.
    assert_eq!(node.read("one", Query::default()).len(), 3);
    for limit in 0..=3 {
        let query = Query { limit: Some(limit), ..Query::default() };
        let newest = texts(&node.read("one", query.clone()));
        assert_eq!(newest, texts(&lines)[3 - limit as usize..], "{limit}");
        assert_eq!(node.logs.reader(query).all().len() as u64, limit);
    }
    let last = lines.last().unwrap();
    let query = Query { since: Some(last.time), ..Query::default() };
    assert!(texts(&node.read("one", query)).ends_with(&["4".to_owned()]));
    let query = Query { request_id: Some(lines[0].request_id.clone()), ..Query::default() };
    assert_eq!(texts(&node.read("one", query)), ["1"]);
}

#[test]
fn what_the_ring_displaced_is_read_from_disk_and_is_not_lost() {
    let node = Node::new(PLENTY, 100);
    for round in 0..4 {
        for n in 0..90 {
            node.say("busy", &format!("{round} {n}"));
        }
        node.say("quiet", &round.to_string());
        node.written();
    }
    let log = node.logs.app(&"busy".parse().unwrap());
    assert_eq!(log.lines_lost(), 0);
    let lines = node.read("busy", everything());
    assert_eq!(numbers(&lines), (1..=360).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line.dropped == 0));
    let limit = |n| Query { limit: Some(n), ..Query::default() };
    for n in [1, 99, 100, 101, 250, 360, 1000] {
        let from = 361 - n.min(360);
        assert_eq!(numbers(&node.read("busy", limit(n))), (from..=360).collect::<Vec<_>>(), "{n}");
    }
    // The quiet app's lines are all in memory, and still stand where they belong.
    let all = node.logs.reader(everything()).all();
    assert_eq!(all.len(), 364);
    assert!(all.is_sorted_by_key(|line| line.time));
    let newest = node.logs.reader(limit(150)).all();
    assert_eq!(newest.len(), 150);
    assert_eq!(texts(&newest), texts(&all[364 - 150..]));
}

#[test]
fn a_killed_node_leaves_the_beginning_of_a_line() {
    let mut node = Node::new(PLENTY, 100);
    node.say("one", "before");
    node.written();
    let file = node.folder().join("0000000001.ndjson");
    let mut torn = fs::OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(b"no line at all\n{\"seq\":2,\"time\":\"2026-").unwrap();
    node.killed();
    assert_eq!(node.texts("one"), ["before"]);
    node.say("one", "after");
    node.written();
    assert_eq!(node.texts("one"), ["before", "after"]);
    node.restart();
    assert_eq!(node.texts("one"), ["before", "after"]);
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 3);
}

#[test]
fn the_budget_holds_and_the_oldest_lines_make_room() {
    let limits = DiskLimits { bytes: 200 << 10, segment_bytes: 64 << 10 };
    let mut node = Node::new(limits, 1000);
    let text = "x".repeat(1000);
    for round in 0..5 {
        for n in 0..100 {
            node.say("hello", &format!("{round} {n} {text}"));
        }
        node.written();
        let used: u64 = node.files().iter().map(|(_, bytes)| bytes).sum();
        assert!(used <= limits.bytes, "{:?}", node.files());
    }
    let last = |node: &Node| node.texts("hello").last().cloned().unwrap();
    node.restart();
    assert!(node.files().len() > 2, "{:?}", node.files());
    assert!(last(&node).starts_with("4 99 "));
    let lines = node.read("hello", everything());
    assert!((50..200).contains(&lines.len()), "{}", lines.len());
    assert_eq!(lines.last().unwrap().seq, 500);
    // A smaller budget holds from the next line on.
    node.limits = DiskLimits { bytes: 130 << 10, ..limits };
    node.restart();
    node.say("hello", "new");
    node.written();
    let used: u64 = node.files().iter().map(|(_, bytes)| bytes).sum();
    assert!(used <= 130 << 10, "{:?}", node.files());
    assert_eq!(last(&node), "new");
}

#[test]
fn a_deleted_apps_lines_are_gone_for_one_that_has_its_name() {
    let mut node = Node::new(PLENTY, 100);
    let app: AppName = "hello".parse().unwrap();
    for (life, restarted) in [(1, false), (2, true), (3, true)] {
        node.say("hello", &format!("of life {life}"));
        node.say("other", "x");
        if life < 3 {
            node.written();
        }
        assert_eq!(node.texts("hello"), [format!("of life {life}")]);
        node.logs.remove(&app);
        if restarted {
            node.restart();
        }
        assert_eq!(node.texts("hello"), [""; 0]);
        assert_eq!(node.logs.app(&app).newest(), 0, "numbers begin anew");
    }
    assert_eq!(node.texts("other").len(), 3);
    assert_eq!(node.logs.reader(everything()).all().len(), 3);
    // Deleted by a node that was killed before it could say so here.
    node.say("gone", "x");
    node.restart();
    node.logs.app(&"other".parse().unwrap());
    node.logs.forget_others();
    assert_eq!(node.texts("gone"), [""; 0]);
    assert_eq!(node.texts("other").len(), 3);
}

#[test]
fn a_disk_that_refuses_is_tried_again() {
    let node = Node::new(PLENTY, 100);
    fs::remove_dir_all(node.folder()).unwrap();
    node.say("hello", "one");
    let log = node.logs.app(&"hello".parse().unwrap());
    let disk = node.logs.shared.disk.clone().unwrap();
    // The writer takes it, fails, and puts it back.
    let until = Instant::now() + LONG;
    while !(log.waits.load(Ordering::Relaxed) || disk.inbox().logs.is_empty()) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(node.texts("hello"), ["one"]);
    node.say("hello", "two");
    fs::create_dir(node.folder()).unwrap();
    node.written();
    assert_eq!(node.texts("hello"), ["one", "two"]);
    assert_eq!(log.lines_lost(), 0);
    let text = fs::read_to_string(node.folder().join("0000000001.ndjson")).unwrap();
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn what_is_noted_of_a_segment_is_what_is_in_it() {
    let mut node = Node::new(DiskLimits { segment_bytes: 64 << 10, ..PLENTY }, 1000);
    for n in 0..300 {
        node.say(["one", "two", "three"][n % 3], &"x".repeat(500));
        if n == 100 {
            node.written();
            node.logs.remove(&"two".parse().unwrap());
        }
    }
    node.restart();
    let mut notes = 0;
    for (name, length) in node.files() {
        let Some(id) = segment_id(Path::new(&name)) else { continue };
        let path = file(&node.folder(), id);
        let scanned = Segment::scan(id, BufReader::new(File::open(path).unwrap())).unwrap();
        let noted = Segment::noted(id, &note(&node.folder(), id), length).unwrap();
        assert_eq!(noted.bytes(), scanned.bytes());
        let same = |segment: &Segment| serde_json::to_value(segment).unwrap();
        assert_eq!(same(&noted), same(&scanned));
        notes += 1;
    }
    assert!(notes >= 2);
    // A note that is damaged is not believed.
    fs::write(note(&node.folder(), 1), "{").unwrap();
    let before = node.texts("one");
    node.restart();
    assert_eq!(node.texts("one"), before);
    assert_eq!(before.len(), 100);
}

#[tokio::test]
async fn who_follows_all_apps_sees_new_ones_too() {
    let node = Node::new(PLENTY, 100);
    node.say("one", "1");
    let mut reader = node.logs.reader(Query { limit: Some(0), ..Query::default() });
    assert!(reader.next_page().is_empty());
    for (app, text) in [("one", "2"), ("two", "3"), ("one", "4")] {
        node.say(app, text);
        assert!(tokio::time::timeout(LONG, reader.wait()).await.unwrap());
        assert_eq!(texts(&reader.next_page()), [text]);
        assert!(reader.next_page().is_empty());
    }
    node.logs.remove(&"two".parse().unwrap());
    node.say("two", "5");
    assert!(tokio::time::timeout(LONG, reader.wait()).await.unwrap());
    assert_eq!(texts(&reader.next_page()), ["5"]);
}

#[test]
fn a_reader_whose_client_left_stops() {
    let node = Node::new(PLENTY, 100);
    node.say("one", "1");
    let mut reader = node.logs.reader(everything());
    drop(reader.audience());
    assert!(reader.next_page().is_empty());
}
