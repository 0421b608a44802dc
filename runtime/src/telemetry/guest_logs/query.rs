//! Which lines a reader wants, and picking them.

use faas_api::{AppName, FunctionName, LogLevel, LogLine, LogSource, StatusSet, VersionId};
use jiff::Timestamp;
use regex::{Regex, RegexBuilder};
use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// The longest pattern, in bytes, and what it may take in memory once it is compiled.
const MAX_PATTERN_BYTES: usize = 1024;
const MAX_COMPILED_BYTES: usize = 256 << 10;

/// Lines that may wait for the end of their requests, and what they may hold, in bytes.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BYTES: usize = 1 << 20;

/// Which lines a reader wants: those that are everything that is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Only lines at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// Only lines at or before this time.
    pub(crate) until: Option<Timestamp>,
    /// Only lines of this request.
    pub(crate) request_id: Option<String>,
    /// Only lines of requests that ended with one of these.
    pub(crate) status: Option<StatusSet>,
    /// Only lines of this version.
    pub(crate) version: Option<VersionId>,
    /// Only lines of this function.
    pub(crate) function: Option<FunctionName>,
    /// Only lines that matter at least so much.
    pub(crate) level: Option<LogLevel>,
    /// Only lines in which this is found.
    pub(crate) grep: Option<Regex>,
    /// Of the lines there are, only the newest so many. Without it and `since`: as many as one app
    /// keeps in memory.
    pub(crate) limit: Option<u64>,
}

impl Query {
    /// A pattern for [`Query::grep`].
    ///
    /// # Errors
    /// When it is none, or too large; the text says which.
    pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!("it has more than {MAX_PATTERN_BYTES} bytes"));
        }
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).nest_limit(50);
        builder.build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it becomes too large".to_owned(),
            // Its last line says what is wrong; those before it draw where.
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        })
    }

    /// Whether every line is wanted, apart from `limit`.
    pub(super) fn takes_all(&self) -> bool {
        let Self { since, until, request_id, status, version, function, level, grep, limit: _ } =
            self;
        since.is_none()
            && until.is_none()
            && request_id.is_none()
            && status.is_none()
            && version.is_none()
            && function.is_none()
            && level.is_none()
            && grep.is_none()
    }

    /// Whether a line is wanted, apart from how its request ends.
    fn wants(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && self.until.is_none_or(|until| line.time <= until)
            && self.version.is_none_or(|version| line.version == version)
            && self.level.is_none_or(|level| line.level >= level)
            && self.function.as_ref().is_none_or(|function| line.function == *function)
            && self.request_id.as_ref().is_none_or(|id| line.request_id == *id)
            && self.grep.as_ref().is_none_or(|grep| grep.is_match(&text(line)))
    }
}

/// What a pattern is searched in: the words of a line, of a request `GET /path 500 guest_trap`.
fn text(line: &LogLine) -> Cow<'_, str> {
    match &line.source {
        LogSource::Stdout { message }
        | LogSource::Stderr { message }
        | LogSource::Failure { message } => Cow::Borrowed(message),
        LogSource::Log { context, message } if context.is_empty() => Cow::Borrowed(message),
        LogSource::Log { context, message } => Cow::Owned(format!("{context}: {message}")),
        LogSource::Request { method, path, status, code, .. } => {
            let code = code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
            Cow::Owned(format!("{method} {path} {status}{code}"))
        }
    }
}

/// Picks lines out of a log, one after another. How a request ended is told behind what its function
/// wrote: where statuses are asked for, lines wait here for the end of their request.
pub(super) struct Filter {
    query: Arc<Query>,
    waiting: VecDeque<LogLine>,
    waiting_bytes: usize,
    /// Lines that were lost before one that was not picked: the next that is picked says so.
    lost: HashMap<AppName, u64>,
}

impl Filter {
    pub(super) fn new(query: Arc<Query>) -> Self {
        Self { query, waiting: VecDeque::new(), waiting_bytes: 0, lost: HashMap::new() }
    }

    /// Takes a line, and appends what is picked now.
    pub(super) fn push(&mut self, mut line: LogLine, picked: &mut VecDeque<LogLine>) {
        if line.dropped > 0 {
            *self.lost.entry(line.app.clone()).or_default() += std::mem::take(&mut line.dropped);
        }
        let wanted = self.query.wants(&line);
        let Some(statuses) = &self.query.status else {
            if wanted {
                self.pick(line, picked);
            }
            return;
        };
        match line.source {
            LogSource::Request { status, .. } => {
                let ended = statuses.contains(status);
                let (its, others) = std::mem::take(&mut self.waiting)
                    .into_iter()
                    .partition::<VecDeque<_>, _>(|waiting| is_of(waiting, &line));
                self.waiting = others;
                self.waiting_bytes -= its.iter().map(size).sum::<usize>().min(self.waiting_bytes);
                if ended {
                    its.into_iter().for_each(|line| self.pick(line, picked));
                    if wanted {
                        self.pick(line, picked);
                    }
                }
            }
            _ if wanted => self.wait(line),
            _ => {}
        }
    }

    fn pick(&mut self, mut line: LogLine, picked: &mut VecDeque<LogLine>) {
        if !self.lost.is_empty() {
            line.dropped = self.lost.remove(&line.app).unwrap_or_default();
        }
        picked.push_back(line);
    }

    fn wait(&mut self, line: LogLine) {
        self.waiting_bytes += size(&line);
        self.waiting.push_back(line);
        while self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= size(&oldest).min(self.waiting_bytes);
        }
    }
}

fn is_of(line: &LogLine, end: &LogLine) -> bool {
    line.request_id == end.request_id && line.app == end.app
}

/// What a line holds, in bytes, roughly.
pub(super) fn size(line: &LogLine) -> usize {
    let text = match &line.source {
        LogSource::Stdout { message }
        | LogSource::Stderr { message }
        | LogSource::Failure { message } => message.len(),
        LogSource::Log { context, message } => context.len() + message.len(),
        LogSource::Request { method, path, .. } => method.len() + path.len(),
    };
    size_of::<LogLine>() + text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, id: &str, source: LogSource) -> LogLine {
        LogLine {
            seq,
            time: Timestamp::UNIX_EPOCH,
            app: "hello".parse().unwrap(),
            function: "main".parse().unwrap(),
            version: VersionId::new(2),
            request_id: id.to_owned(),
            level: LogLevel::Info,
            dropped: 0,
            source,
        }
    }

    fn says(seq: u64, id: &str, message: &str) -> LogLine {
        line(seq, id, LogSource::Stdout { message: message.to_owned() })
    }

    fn ends(seq: u64, id: &str, status: u16) -> LogLine {
        let (method, path) = ("GET".to_owned(), "/a".to_owned());
        let code = (status == 500).then(|| "guest_trap".to_owned());
        let (duration_ms, cpu_ms, memory_bytes) = (1.0, 1.0, 0);
        let source =
            LogSource::Request { method, path, status, code, duration_ms, cpu_ms, memory_bytes };
        line(seq, id, source)
    }

    fn picked(query: Query, lines: Vec<LogLine>) -> Vec<(u64, u64)> {
        let mut filter = Filter::new(Arc::new(query));
        let mut picked = VecDeque::new();
        lines.into_iter().for_each(|line| filter.push(line, &mut picked));
        picked.iter().map(|line| (line.seq, line.dropped)).collect()
    }

    fn numbers(query: Query, lines: Vec<LogLine>) -> Vec<u64> {
        picked(query, lines).into_iter().map(|(seq, _)| seq).collect()
    }

    #[test]
    fn a_status_picks_whole_requests() {
        let lines = || {
            vec![
                says(1, "a", "of a good one"),
                says(2, "b", "of a bad one"),
                ends(3, "a", 200),
                says(4, "b", "again"),
                ends(5, "b", 500),
                says(6, "c", "goes on"),
            ]
        };
        let of = |text: &str| Query { status: Some(text.parse().unwrap()), ..Query::default() };
        assert_eq!(numbers(of("5xx"), lines()), [2, 4, 5]);
        assert_eq!(numbers(of("200,404"), lines()), [1, 3]);
        assert_eq!(numbers(of("404"), lines()), [0; 0]);
        let again = Query { grep: Some(Query::pattern("again").unwrap()), ..of("500") };
        assert_eq!(numbers(again, lines()), [4]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut filter =
            Filter::new(Arc::new(Query { status: "500".parse().ok(), ..Query::default() }));
        let mut picked = VecDeque::new();
        for n in 0..3 * MAX_WAITING as u64 {
            filter.push(says(n, "a", &"x".repeat(2000)), &mut picked);
        }
        assert!(filter.waiting_bytes <= MAX_WAITING_BYTES);
        let expected: usize = filter.waiting.iter().map(size).sum();
        assert_eq!(filter.waiting_bytes, expected);
        filter.push(ends(99999, "a", 500), &mut picked);
        assert_eq!(filter.waiting_bytes, 0);
        assert!(picked.len() > 100);
    }

    #[test]
    fn patterns_search_what_a_line_says() {
        let finds = |pattern: &str, line: LogLine| {
            let query = Query { grep: Some(Query::pattern(pattern).unwrap()), ..Query::default() };
            !numbers(query, vec![line]).is_empty()
        };
        assert!(finds("^GET /a 500 guest_trap$", ends(1, "a", 500)));
        assert!(finds(r"h.llo|x", says(1, "a", "say hello")));
        assert!(!finds("HELLO", says(1, "a", "say hello")));
        assert!(finds("(?i)HELLO", says(1, "a", "say hello")));
        for bad in ["(", "a{1000}{1000}{1000}", "[z-a]", &"x".repeat(2000)] {
            let why = Query::pattern(bad).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn a_loss_is_told_by_the_next_line_that_is_picked() {
        let lost = |seq, message: &str, dropped| LogLine { dropped, ..says(seq, "a", message) };
        let lines =
            vec![lost(5, "no", 4), lost(6, "no", 0), lost(9, "yes", 2), says(10, "a", "yes")];
        let query = Query { grep: Some(Query::pattern("yes").unwrap()), ..Query::default() };
        assert_eq!(picked(query, lines), [(9, 6), (10, 0)]);
    }

    #[test]
    fn levels_versions_functions_and_times() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let lines = || {
            (1..=4_u32)
                .map(|n| LogLine {
                    time: at(i64::from(n)),
                    level: if n % 2 == 0 { LogLevel::Error } else { LogLevel::Debug },
                    version: VersionId::new(n),
                    function: if n < 3 { "main" } else { "other" }.parse().unwrap(),
                    ..says(u64::from(n), "a", "x")
                })
                .collect()
        };
        let all = Query::default;
        assert_eq!(numbers(Query { level: Some(LogLevel::Info), ..all() }, lines()), [2, 4]);
        assert_eq!(numbers(Query { version: Some(VersionId::new(3)), ..all() }, lines()), [3]);
        assert_eq!(numbers(Query { function: "other".parse().ok(), ..all() }, lines()), [3, 4]);
        let between = Query { since: Some(at(2)), until: Some(at(3)), ..all() };
        assert_eq!(numbers(between, lines()), [2, 3]);
        assert!(all().takes_all() && !Query { level: Some(LogLevel::Trace), ..all() }.takes_all());
    }
}
