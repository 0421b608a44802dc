//! Tests of the whole module: what goes in, and what a reader sees of it.

use super::{escape::*, *};
use faas_api::LogSource;
use futures::FutureExt as _;
use proptest::prelude::*;

fn logs(lines: usize) -> Arc<GuestLogs> {
    Arc::new(GuestLogs::counted(lines, Arc::new(Metrics::new().unwrap())))
}

fn log(lines: usize) -> Arc<AppLog> {
    logs(lines).app(&"hello".parse().unwrap())
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin { function: "main".parse().unwrap(), version: VersionId::new(3) })
}

fn say(log: &AppLog, message: &str) {
    log.push(&origin(), RequestId::new(), crate::clock::now(), Event::Stdout(message));
}

fn text(line: &LogLine) -> &str {
    match &line.source {
        LogSource::Stdout { message }
        | LogSource::Stderr { message }
        | LogSource::Log { message, .. }
        | LogSource::Failure { message } => message,
        LogSource::Request { path, .. } => path,
    }
}

fn texts(log: &Arc<AppLog>) -> Vec<String> {
    let lines = log.query(&Query::default());
    lines.iter().map(|line| text(line).to_owned()).collect()
}

fn output(log: &Arc<AppLog>, stream: OutputStream, budget: &Arc<LogBudget>) -> GuestOutput {
    GuestOutput::new(author(log, budget), stream)
}

fn author(log: &Arc<AppLog>, budget: &Arc<LogBudget>) -> Author {
    let (log, budget) = (log.clone(), budget.clone());
    Author { log, origin: origin(), request_id: RequestId::new(), budget }
}

fn plenty() -> Arc<LogBudget> {
    LogBudget::new(1 << 30)
}

#[test]
fn the_oldest_lines_make_room_and_leave_a_gap() {
    let log = log(3);
    for n in 0..5 {
        say(&log, &n.to_string());
    }
    assert_eq!(log.lines_lost(), 2);
    let lines = log.query(&Query::default());
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(texts(&log), ["2", "3", "4"]);
}

#[test]
fn memory_is_bounded_by_bytes_and_shared_between_many_apps() {
    let logs = logs(1_000_000);
    let app = |n: usize| format!("a{n}").parse::<AppName>().unwrap();
    let long = "x".repeat(MAX_LINE_BYTES);
    let first = logs.app(&app(0));
    for _ in 0..1100 {
        say(&first, &long);
    }
    assert!(first.lines_lost() > 76, "{}", first.lines_lost());
    assert!(first.ring().as_ref().unwrap().bytes() <= MAX_APP_BYTES);
    for n in 1..100 {
        logs.app(&app(n));
    }
    assert!(first.ring().as_ref().unwrap().bytes() <= MAX_LOG_MEMORY as usize / 100);
    assert!(!texts(&first).is_empty());
    for n in 1..100 {
        logs.remove(&app(n));
    }
    assert_eq!(logs.shared.allowance.load(Ordering::Relaxed), MAX_APP_BYTES);
}

#[test]
fn queries_choose_lines() {
    let log = log(1000);
    let id = RequestId::new();
    for n in 0..300 {
        say(&log, &n.to_string());
        if n % 100 == 50 {
            let message = format!("mine {n}");
            log.push(&origin(), id, crate::clock::now(), Event::Stderr(&message));
        }
    }
    let query = |limit, request_id| {
        let query = Query { request_id, limit, ..Query::default() };
        let lines = log.query(&query);
        lines.iter().map(|line| text(line).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(query(None, None).len(), 303);
    assert_eq!(query(Some(2), None), ["298", "299"]);
    assert_eq!(query(Some(0), None), [""; 0]);
    assert_eq!(query(Some(200), None).len(), 200);
    assert_eq!(query(None, Some(id.to_string())), ["mine 50", "mine 150", "mine 250"]);
    assert_eq!(query(Some(2), Some(id.to_string())), ["mine 150", "mine 250"]);
    assert_eq!(query(Some(9), Some(id.to_string())).len(), 3);
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let query = Query { since: Some(later), ..Query::default() };
    assert_eq!(log.query(&query), []);
}

#[test]
fn a_follower_sees_each_line_once_and_the_end_of_the_app() {
    let logs = logs(10);
    let app = "hello".parse().unwrap();
    let log = logs.app(&app);
    say(&log, "one");
    let mut reader = log.reader(Query { limit: Some(0), ..Query::default() });
    assert!(reader.next_page().is_empty());
    assert_eq!(reader.wait().now_or_never(), None);
    say(&log, "two");
    // What is there is read to the number known at the last wait, so reading ends.
    assert!(reader.next_page().is_empty());
    assert_eq!(reader.wait().now_or_never(), Some(true));
    assert_eq!(text(&reader.next_page()[0]), "two");
    assert_eq!(reader.wait().now_or_never(), None);
    say(&log, "three");
    logs.remove(&app);
    assert_eq!(reader.wait().now_or_never(), Some(true));
    assert_eq!(text(&reader.next_page()[0]), "three");
    assert_eq!(reader.wait().now_or_never(), Some(false));
    assert!(logs.get(&app).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_misses_nothing_of_concurrent_writers() {
    let log = log(100_000);
    let mut reader = log.reader(Query::default());
    let writers = (0..4).map(|_| {
        let log = log.clone();
        tokio::task::spawn_blocking(move || {
            for _ in 0..2500 {
                say(&log, "x");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut seen = 0;
    while seen < 10_000 {
        assert!(reader.wait().await);
        for line in reader.next_page() {
            seen += 1;
            assert_eq!(line.seq, seen);
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[test]
fn lines_are_made_of_any_pieces() {
    let log = log(100);
    let budget = plenty();
    let mut out = output(&log, OutputStream::Stdout, &budget);
    for piece in ["a", "b\n", "\n", "c\r\nd\ne", "f", ""] {
        out.write(piece.as_bytes());
    }
    assert_eq!(texts(&log), ["ab", "", "c", "d"]);
    drop(out);
    assert_eq!(texts(&log), ["ab", "", "c", "d", "ef"]);
    assert_eq!(log.lines_lost(), 0);
}

#[test]
fn a_long_line_is_cut_and_marked_and_counted_once() {
    let log = log(100);
    let budget = plenty();
    let mut out = output(&log, OutputStream::Stderr, &budget);
    for _ in 0..1000 {
        out.write("0123456789 é\u{20ac}".repeat(10).as_bytes());
    }
    out.write(b" the end\nnext\n");
    assert_eq!(log.lines_lost(), 1);
    let exactly = "x".repeat(MAX_LINE_BYTES);
    out.write(format!("{exactly}\n").as_bytes());
    assert_eq!(log.lines_lost(), 1);
    let texts = texts(&log);
    assert_eq!(texts.len(), 3);
    assert!(texts[0].ends_with(CUT_MARK) && texts[0].len() <= MAX_LINE_BYTES);
    assert_eq!(texts[1], "next");
    assert_eq!(texts[2], exactly);
}

#[test]
fn a_call_over_its_budget_is_told_once_and_the_rest_is_counted() {
    let log = log(100);
    let budget = LogBudget::new(10);
    let mut stdout = output(&log, OutputStream::Stdout, &budget);
    stdout.write(b"12345\n");
    assert_eq!(log.lines_lost(), 0);
    // Four bytes are left: this line is cut, and `two` is lost. The limit is told as it was set,
    // although this output was made later.
    let mut stderr = output(&log, OutputStream::Stderr, &budget);
    stderr.write(b"abcdef\ntwo\n");
    assert_eq!(log.lines_lost(), 2);
    for (piece, lost) in [("th", 3), ("ree", 3), (" still three\nfour\n", 4)] {
        stderr.write(piece.as_bytes());
        assert_eq!(log.lines_lost(), lost, "{piece:?}");
    }
    stdout.write(b"five");
    assert_eq!(log.lines_lost(), 5);
    drop((stdout, stderr));
    assert_eq!(texts(&log), ["12345", "abcd", "… log truncated: limit log_bytes (10) reached"]);
    assert_eq!(log.lines_lost(), 5);
}

#[test]
fn lines_that_a_call_displaces_are_counted_too() {
    let log = log(2);
    let budget = plenty();
    output(&log, OutputStream::Stdout, &budget).write(b"1\n2\n3\n4\n5");
    assert_eq!(texts(&log), ["4", "5"]);
    assert_eq!(log.lines_lost(), 3);
}

#[test]
fn no_line_steers_a_terminal_or_becomes_two() {
    let log = log(100);
    let mut out = output(&log, OutputStream::Stdout, &plenty());
    out.write(b"\x1b]0;title\x07\x1b[2J a\rb \x7f\xc2\x9b31m \xff\xfe\t.\n");
    out.write("\u{2028}x\u{202e}y {\"level\":\"error\"}\n".as_bytes());
    assert_eq!(
        texts(&log),
        [
            "\\u{1b}]0;title\\u{7}\\u{1b}[2J a\\rb \\u{7f}\\u{9b}31m \\xff\\xfe\t.",
            "\\u{2028}x\\u{202e}y {\"level\":\"error\"}",
        ]
    );
    let message = "trap\n  0 \x1b[31mname\n".to_owned();
    log.push(&origin(), RequestId::new(), crate::clock::now(), Event::Failure(&message));
    assert_eq!(texts(&log)[2], "trap\n  0 \\u{1b}[31mname\n");
    let mut bomb = "\x1b".repeat(MAX_LINE_BYTES);
    escape(&mut bomb, false);
    assert!(bomb.len() <= MAX_LINE_BYTES && bomb.ends_with(CUT_MARK));
}

proptest! {
    #[test]
    fn whatever_a_guest_writes_is_printable_lines_within_limits(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..20),
        budget in 0_usize..2000,
    ) {
        let log = log(10_000);
        let budget = LogBudget::new(budget);
        let mut out = output(&log, OutputStream::Stdout, &budget);
        for piece in &pieces {
            out.write(piece);
        }
        drop(out);
        for line in texts(&log) {
            prop_assert!(line.len() <= MAX_LINE_BYTES);
            prop_assert!(!line.chars().any(is_unsafe), "{line:?}");
        }
    }

    #[test]
    fn pieces_do_not_matter(
        text in "[a-c\n]{0,200}",
        cuts in proptest::collection::vec(1_usize..20, 0..50),
    ) {
        let (whole, pieced) = (log(1000), log(1000));
        output(&whole, OutputStream::Stdout, &plenty()).write(text.as_bytes());
        let mut out = output(&pieced, OutputStream::Stdout, &plenty());
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            out.write(piece);
            rest = more;
        }
        out.write(rest);
        drop(out);
        prop_assert_eq!(texts(&whole), texts(&pieced));
    }
}
