//! The access log: one line per request on standard error.
//!
//! A request formats its line into memory and goes on. A thread of its own writes what has come
//! together, so that a terminal or pipe that nobody reads can hold up nobody but itself; what
//! does not fit meanwhile is dropped and counted.

use super::{AccessLog, check::MAX_METHOD_BYTES};
use faas_api::{AppName, VersionId};
use jiff::Timestamp;
use std::{
    cell::RefCell,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Lines that wait to be written, in bytes.
const MAX_WAITING: usize = 1 << 20;
/// How long lines wait for company.
const GATHER: Duration = Duration::from_millis(50);
/// How long a node that stops waits for its last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest path in a log, in bytes.
pub(super) const MAX_PATH_BYTES: usize = 1024;

/// One request, as the log tells it.
pub(super) struct Line<'a> {
    /// When it ended.
    pub(super) time: Timestamp,
    pub(super) id: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) status: u16,
    pub(super) code: Option<&'a str>,
    pub(super) app: Option<&'a AppName>,
    pub(super) version: Option<VersionId>,
    pub(super) duration: Duration,
    pub(super) bytes: u64,
}

/// The log.
pub(super) struct Log {
    wanted: AccessLog,
    json: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write, or nobody will write any more.
    news: Condvar,
    /// Everything is written.
    quiet: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// The thread is at the sink.
    writing: bool,
    /// The thread has nothing to do.
    asleep: bool,
    closed: bool,
}

impl Log {
    /// A log that writes to `sink`; without a thread when nothing is wanted.
    pub(super) fn new(wanted: AccessLog, json: bool, sink: impl Write + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        if wanted != AccessLog::Off {
            let writes = shared.clone();
            let spawned = std::thread::Builder::new()
                .name("access-log".to_owned())
                .spawn(move || writes.run(sink, json));
            if let Err(error) = spawned {
                tracing::error!(%error, "no access log: its thread could not be started");
                return Self { wanted: AccessLog::Off, json, shared };
            }
        }
        Self { wanted, json, shared }
    }

    /// Whether a request that ended so is written.
    pub(super) fn wants(&self, status: u16) -> bool {
        match self.wanted {
            AccessLog::All => true,
            AccessLog::Errors => status >= 500,
            AccessLog::Off => false,
        }
    }

    /// Appends a line. Never waits for the sink.
    pub(super) fn write(&self, line: &Line<'_>) {
        thread_local! {
            static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
        }
        TEXT.with_borrow_mut(|text| {
            text.clear();
            match self.json {
                true => line.json(text),
                false => line.text(text),
            }
            self.shared.push(text.as_bytes());
        });
    }

    /// Waits until every line is written, but not for long.
    pub(super) fn flush(&self) {
        let waiting = self.shared.lock();
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.text.is_empty();
        drop(self.shared.quiet.wait_timeout_while(waiting, FLUSH_TIMEOUT, busy));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.news.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // What it guards is bytes; no panic can leave them half-made.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.text.len() + line.len() > MAX_WAITING {
            drop(waiting);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        waiting.text.extend_from_slice(line);
        let wake = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if wake {
            self.news.notify_one();
        }
    }

    /// Writes until the log is closed. An error of the sink has nowhere to be told.
    fn run(&self, mut sink: impl Write, json: bool) {
        let mut text = Vec::new();
        loop {
            let mut waiting = self.lock();
            waiting.writing = false;
            while waiting.text.is_empty() {
                self.quiet.notify_all();
                if waiting.closed {
                    return;
                }
                waiting.asleep = true;
                waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.asleep = false;
            if !waiting.closed && waiting.text.len() < MAX_WAITING / 4 {
                drop(waiting);
                std::thread::sleep(GATHER);
                waiting = self.lock();
            }
            waiting.writing = true;
            std::mem::swap(&mut waiting.text, &mut text);
            drop(waiting);
            let dropped = self.dropped.swap(0, Relaxed);
            if dropped > 0 {
                tell_dropped(&mut text, dropped, json);
            }
            let _ = sink.write_all(&text).and_then(|()| sink.flush());
            text.clear();
        }
    }
}

fn tell_dropped(text: &mut Vec<u8>, lines: u64, json: bool) {
    let _ = match json {
        true => writeln!(
            text,
            r#"{{"level":"WARN","target":"access","message":"access log lines were dropped","lines":{lines}}}"#
        ),
        false => writeln!(text, "WARN access: {lines} lines were dropped"),
    };
}

impl Line<'_> {
    fn json(&self, out: &mut String) {
        out.push_str(r#"{"timestamp":""#);
        push_time(out, self.time);
        out.push_str(r#"","level":"INFO","target":"access","request_id":""#);
        push_escaped(out, self.id, usize::MAX);
        out.push_str(r#"","method":""#);
        push_escaped(out, self.method, MAX_METHOD_BYTES);
        out.push_str(r#"","path":""#);
        push_escaped(out, self.path, MAX_PATH_BYTES);
        out.push_str(r#"","status":"#);
        push_number(out, u64::from(self.status));
        if let Some(code) = self.code {
            out.push_str(r#","code":""#);
            out.push_str(code);
            out.push('"');
        }
        if let (Some(app), Some(version)) = (self.app, self.version) {
            out.push_str(r#","app":""#);
            out.push_str(app.as_str());
            out.push_str(r#"","version":"v"#);
            push_number(out, u64::from(version.number()));
            out.push('"');
        }
        out.push_str(r#","duration_ms":"#);
        push_millis(out, self.duration);
        out.push_str(r#","bytes":"#);
        push_number(out, self.bytes);
        out.push_str("}\n");
    }

    fn text(&self, out: &mut String) {
        push_time(out, self.time);
        out.push_str("  INFO access: ");
        push_escaped(out, self.method, MAX_METHOD_BYTES);
        out.push(' ');
        push_escaped(out, self.path, MAX_PATH_BYTES);
        out.push(' ');
        push_number(out, u64::from(self.status));
        if let Some(code) = self.code {
            out.push(' ');
            out.push_str(code);
        }
        if let (Some(app), Some(version)) = (self.app, self.version) {
            out.push(' ');
            out.push_str(app.as_str());
            out.push_str("@v");
            push_number(out, u64::from(version.number()));
        }
        out.push(' ');
        push_millis(out, self.duration);
        out.push_str("ms ");
        push_number(out, self.bytes);
        out.push_str("B ");
        push_escaped(out, self.id, usize::MAX);
        out.push('\n');
    }
}

/// Text of a client, so that it cannot look like anything else in a log: control characters,
/// quotes and backslashes are escaped as JSON does it, and so is everything beyond ASCII that a
/// terminal could act upon. Longer text is cut off.
fn push_escaped(out: &mut String, text: &str, max_bytes: usize) {
    let end = text.floor_char_boundary(max_bytes);
    let text = text.get(..end).unwrap_or_default();
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str("\\u");
                    for shift in [12, 8, 4, 0] {
                        let digit = u32::from(*unit >> shift & 15);
                        out.push(char::from_digit(digit, 16).unwrap_or('0'));
                    }
                }
            }
        }
    }
}

fn push_number(out: &mut String, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut length = 0;
    for digit in &mut digits {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        length += 1;
        if number == 0 {
            break;
        }
    }
    out.extend(digits.iter().take(length).rev().map(|digit| char::from(*digit)));
}

/// Milliseconds with three decimals.
fn push_millis(out: &mut String, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(out, micros / 1000);
    out.push('.');
    push_padded(out, micros % 1000);
}

fn push_padded(out: &mut String, thousandths: u64) {
    if thousandths < 100 {
        out.push('0');
    }
    if thousandths < 10 {
        out.push('0');
    }
    push_number(out, thousandths);
}

/// A time, in RFC 3339 with milliseconds. The text of a second is made once per thread.
fn push_time(out: &mut String, time: Timestamp) {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != time.as_second() {
            *second = time.as_second();
            *text = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.push_str(text);
    });
    out.push('.');
    push_padded(out, u64::try_from(time.subsec_millisecond()).unwrap_or(0));
    out.push('Z');
}

/// Standard error, locked for each write: a line is never torn by the node's own log.
pub(super) fn standard_error() -> impl Write + Send + 'static {
    io::stderr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::sync::mpsc;

    fn line<'a>(path: &'a str, app: Option<&'a AppName>) -> Line<'a> {
        Line {
            time: clock::now(),
            id: "01J",
            method: "GET",
            path,
            status: 504,
            code: app.map(|_| "cpu_time"),
            app,
            version: app.map(|_| VersionId::new(12)),
            duration: Duration::from_micros(1_234_056),
            bytes: 10,
        }
    }

    #[test]
    fn a_json_line_is_json_whatever_the_path_is() {
        let app = "shop".parse().unwrap();
        for path in ["/a", "/\"},{\"x\":\"", "/\\", "/\u{1b}]0;x\u{7}\r\n", "/\u{202e}é\u{1f600}"]
        {
            let mut text = String::new();
            line(path, Some(&app)).json(&mut text);
            assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["path"], path);
            assert_eq!(value["status"], 504);
            assert_eq!(value["duration_ms"], 1234.056);
            assert_eq!(value["version"], "v12");
            assert!(value["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
        }
    }

    #[test]
    fn a_text_line_is_one_line_and_cuts_the_path() {
        let mut text = String::new();
        line("/x\ny", None).text(&mut text);
        assert!(text.ends_with(" INFO access: GET /x\\u000ay 504 1234.056ms 10B 01J\n"), "{text}");
        let long = "é".repeat(1000);
        text.clear();
        line(&long, None).text(&mut text);
        assert_eq!(text.matches('é').count(), MAX_PATH_BYTES / 2);
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 999, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }

    #[test]
    fn only_what_is_wanted_is_written() {
        let sink = io::sink;
        assert!(Log::new(AccessLog::All, true, sink()).wants(200));
        assert!(!Log::new(AccessLog::Errors, true, sink()).wants(499));
        assert!(Log::new(AccessLog::Errors, true, sink()).wants(500));
        assert!(!Log::new(AccessLog::Off, true, sink()).wants(500));
    }

    /// Tells what it gets, and waits for leave before it takes the next.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            self.1.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_stands_still_holds_up_nobody_and_losses_are_counted() {
        let (text_in, text_out) = mpsc::channel();
        let (leave_in, leave_out) = mpsc::channel();
        let log = Log::new(AccessLog::All, true, Slow(text_in, leave_out));
        log.write(&line("/first", None));
        assert!(String::from_utf8(text_out.recv().unwrap()).unwrap().contains("/first"));
        let path = "x".repeat(1000);
        for _ in 0..2 * MAX_WAITING / 1000 {
            log.write(&line(&path, None));
        }
        let lost = log.shared.dropped.load(Relaxed);
        assert!(lost > 0);
        leave_in.send(()).unwrap();
        let second = String::from_utf8(text_out.recv().unwrap()).unwrap();
        leave_in.send(()).unwrap();
        log.flush();
        let told = second.lines().last().unwrap();
        assert!(told.contains(&format!("\"lines\":{lost}")), "{told}");
        assert!(second.len() <= MAX_WAITING + told.len() + 1);
    }
}
