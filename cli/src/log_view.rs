//! A log for people: each request on a line, what its function wrote and why it failed below it.
//!
//! The log itself is in order of time, so a function's lines come before the line of their request.
//! They wait here for it, but not for long: a request may take minutes.

use crate::format;
use faas_api::{LogLine, LogSource};
use std::time::{Duration, Instant};

/// How long a line waits for its request to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// More requests than this are not kept apart.
const MOST_WAITING: usize = 256;

/// How the line of a request looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// With time, app, version and request id.
    Full,
    /// The request and what came of it; for one developer's own server.
    Brief,
}

/// Lines of a log on their way to a person.
pub(crate) struct LogView {
    style: Style,
    /// The request that was printed last; what belongs to it needs no other heading.
    current: Option<String>,
    waiting: Vec<Waiting>,
}

/// What is known of a request that has not ended.
struct Waiting {
    first: LogLine,
    text: String,
    since: Instant,
}

impl LogView {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, current: None, waiting: Vec::new() }
    }

    /// Takes a line, and returns what can be printed now.
    pub(crate) fn push(&mut self, line: LogLine) -> String {
        let lost = lost(&line);
        if !lost.is_empty() {
            // What waits is older than what was lost.
            let earlier = self.finish();
            self.current = None;
            return format!("{earlier}{}{lost}{}", self.margin(), self.take(line));
        }
        self.take(line)
    }

    fn take(&mut self, line: LogLine) -> String {
        let place = self.waiting.iter().position(|waiting| belongs(&waiting.first, &line));
        if matches!(line.source, LogSource::Request { .. }) {
            let below = place.map(|place| self.waiting.remove(place).text).unwrap_or_default();
            let text = format!("{}{below}", self.heading(&line));
            self.current = Some(line.request_id);
            return text;
        }
        let text = below(&line, self.margin());
        if self.current.as_ref() == Some(&line.request_id) {
            return text;
        }
        if let Some(waiting) = place.and_then(|place| self.waiting.get_mut(place)) {
            waiting.text.push_str(&text);
            return String::new();
        }
        self.waiting.push(Waiting { first: line, text, since: Instant::now() });
        if self.waiting.len() > MOST_WAITING { self.flush_first() } else { String::new() }
    }

    /// What has waited long enough.
    pub(crate) fn overdue(&mut self) -> String {
        let mut text = String::new();
        while self.waiting.first().is_some_and(|first| first.since.elapsed() >= PATIENCE) {
            text.push_str(&self.flush_first());
        }
        text
    }

    /// When there will be something overdue.
    pub(crate) fn next_overdue(&self) -> Option<Instant> {
        self.waiting.first().map(|first| first.since + PATIENCE)
    }

    /// Everything that still waits.
    pub(crate) fn finish(&mut self) -> String {
        let mut text = String::new();
        while !self.waiting.is_empty() {
            text.push_str(&self.flush_first());
        }
        text
    }

    fn flush_first(&mut self) -> String {
        let Waiting { first, text, .. } = self.waiting.remove(0);
        let text = format!("{}{text}", self.heading(&first));
        self.current = Some(first.request_id);
        text
    }

    /// What stands left of every line.
    fn margin(&self) -> &'static str {
        match self.style {
            Style::Full => "",
            Style::Brief => "   ",
        }
    }

    fn heading(&self, line: &LogLine) -> String {
        let request = match &line.source {
            LogSource::Request { .. } if self.style == Style::Brief => brief(&line.source),
            LogSource::Request { .. } => full(&line.source),
            _ => "…".to_owned(),
        };
        match self.style {
            Style::Brief => format!("{}{request}\n", self.margin()),
            Style::Full => format!(
                "{} {}{} {} {} {request}\n",
                format::time_of_day(line.time),
                line.app,
                function_of(line),
                line.version,
                format::printable(&line.request_id),
            ),
        }
    }
}

fn belongs(first: &LogLine, line: &LogLine) -> bool {
    first.request_id == line.request_id && first.function == line.function && first.app == line.app
}

/// Says that lines before this one are missing.
fn lost(line: &LogLine) -> String {
    match line.dropped {
        0 => String::new(),
        1 => format!("… 1 line of {} was lost: this reader was too slow\n", line.app),
        lost => {
            let lost = format::count(lost);
            format!("… {lost} lines of {} were lost: this reader was too slow\n", line.app)
        }
    }
}

/// The function, where it is not the only one.
fn function_of(line: &LogLine) -> String {
    match line.function.as_str() {
        "main" => String::new(),
        name => format!("/{name}"),
    }
}

/// `GET /42 → 500 guest_trap   3.1 ms · 0.9 ms CPU · 6.2 MiB`
fn full(source: &LogSource) -> String {
    let LogSource::Request { method, path, status, code, duration_ms, cpu_ms, memory_bytes } =
        source
    else {
        return String::new();
    };
    let code = code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    format::printable(&format!(
        "{method} {path} → {status}{code}   {} · {} CPU · {}",
        format::milliseconds(*duration_ms),
        format::milliseconds(*cpu_ms),
        format::size(*memory_bytes)
    ))
    .into_owned()
}

/// `GET /            200   0.4 ms   1.1 MiB`
fn brief(source: &LogSource) -> String {
    let LogSource::Request { method, path, status, code, duration_ms, memory_bytes, .. } = source
    else {
        return String::new();
    };
    let request = format!("{method} {path}");
    let code = code.as_ref().map(|code| format!("   {code}")).unwrap_or_default();
    format::printable(&format!(
        "{request:<16} {status}   {}   {}{code}",
        format::milliseconds(*duration_ms),
        format::size(*memory_bytes)
    ))
    .into_owned()
}

/// Lines under the line of their request. A failure's text is laid out already.
fn below(line: &LogLine, margin: &str) -> String {
    let (text, hanging) = match &line.source {
        LogSource::Stdout { message } => (format!("stdout  {message}"), ""),
        LogSource::Stderr { message } => (format!("stderr  {message}"), ""),
        LogSource::Log { context, message } => {
            let context = if context.is_empty() { "" } else { &format!("{context}: ") };
            (format!("{:<8}{context}{message}", line.level.as_str()), "          ")
        }
        LogSource::Failure { message } => (message.clone(), ""),
        LogSource::Request { .. } => return String::new(),
    };
    let mut indent = "  ";
    let mut lines = String::new();
    for line in text.lines() {
        lines.push_str(&format!("{margin}{indent}{}\n", format::printable(line)));
        indent = hanging;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::LogLevel;

    fn line(request_id: &str, source: LogSource) -> LogLine {
        LogLine {
            seq: 1,
            time: "2026-11-20T12:04:07.113Z".parse().unwrap(),
            app: "orders".parse().unwrap(),
            function: "main".parse().unwrap(),
            version: "v7".parse().unwrap(),
            request_id: request_id.to_owned(),
            level: LogLevel::Warn,
            dropped: 0,
            source,
        }
    }

    fn stderr(request_id: &str, message: &str) -> LogLine {
        line(request_id, LogSource::Stderr { message: message.to_owned() })
    }

    fn failure(request_id: &str, message: &str) -> LogLine {
        line(request_id, LogSource::Failure { message: message.to_owned() })
    }

    fn request(request_id: &str) -> LogLine {
        line(
            request_id,
            LogSource::Request {
                method: "GET".to_owned(),
                path: "/42".to_owned(),
                status: 500,
                code: Some("guest_trap".to_owned()),
                duration_ms: 3.1,
                cpu_ms: 0.9,
                memory_bytes: 6_501_171,
            },
        )
    }

    #[test]
    fn lines_gather_below_their_request() {
        let mut view = LogView::new(Style::Full);
        assert_eq!(view.push(stderr("A", "one")), "");
        assert_eq!(view.push(stderr("B", "other\u{1b}[2J")), "");
        assert_eq!(view.push(failure("A", "trap    unreachable\n    0  orders::price")), "");
        let text = view.push(request("A"));
        let (heading, rest) = text.split_once('\n').unwrap();
        assert!(
            heading
                .ends_with(" orders v7 A GET /42 → 500 guest_trap   3.1 ms · 0.9 ms CPU · 6.2 MiB"),
            "{heading}"
        );
        assert_eq!(rest, "  stderr  one\n  trap    unreachable\n    0  orders::price\n");
        assert_eq!(view.push(failure("A", "late")), "  late\n");
        let rest = view.finish();
        assert!(rest.ends_with(" orders v7 B …\n  stderr  other\\u{1b}[2J\n"), "{rest}");
        assert_eq!(view.finish(), "");
    }

    #[test]
    fn entries_have_their_level_and_lines_of_their_own() {
        let mut view = LogView::new(Style::Full);
        let entry = |context: &str, message: &str| {
            let (context, message) = (context.to_owned(), message.to_owned());
            line("A", LogSource::Log { context, message })
        };
        view.push(entry("payment", "declined\nforged \u{1b}[2J"));
        view.push(entry("", "again"));
        let text = view.push(request("A"));
        let (_, rest) = text.split_once('\n').unwrap();
        assert_eq!(
            rest,
            "  warn    payment: declined\n          forged \\u{1b}[2J\n  warn    again\n"
        );
    }

    #[test]
    fn what_was_lost_is_told_where_it_was() {
        let mut view = LogView::new(Style::Full);
        view.push(stderr("A", "before"));
        let text = view.push(LogLine { dropped: 4000, ..request("B") });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(" orders v7 A …"), "{text}");
        assert_eq!(lines[1], "  stderr  before");
        assert_eq!(lines[2], "… 4,000 lines of orders were lost: this reader was too slow");
        assert!(lines[3].contains(" B GET /42 "), "{text}");
    }

    #[test]
    fn a_developers_own_server_says_less() {
        let mut view = LogView::new(Style::Brief);
        assert_eq!(
            view.push(request("A")),
            "   GET /42          500   3.1 ms   6.2 MiB   guest_trap\n"
        );
        assert_eq!(
            view.push(failure("A", "trap    unreachable\n    0  main")),
            "     trap    unreachable\n       0  main\n"
        );
    }
}
