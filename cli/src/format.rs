//! How numbers, times and tables look to people. JSON never passes through here.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    time::Duration,
};

/// A duration in the unit that fits: `0.4 ms`, `12 ms`, `0.11 s`, `1.9 s`, `2 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    milliseconds(duration.as_secs_f64() * 1000.0)
}

/// The same, from a number of milliseconds.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms <= 0.0 => "0 ms".to_owned(),
        ms if ms < 0.05 => "< 0.1 ms".to_owned(),
        ms if ms < 9.95 => format!("{} ms", tenths(ms)),
        ms if ms < 99.5 => format!("{ms:.0} ms"),
        ms if ms < 995.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms < 99_950.0 => format!("{:.1} s", ms / 1000.0),
        ms => {
            let seconds = (ms / 1000.0).round();
            format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
        }
    }
}

/// A size in binary units: `512 B`, `84 KiB`, `6.2 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 { format!("{} {unit}", tenths(value)) } else { format!("{value:.0} {unit}") }
}

/// A count with thousands separators: `1,204,331`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share of a whole: `0 %`, `0.02 %`, `12 %`.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / (whole as f64).max(1.0);
    match percent {
        p if p <= 0.0 => "0 %".to_owned(),
        p if p < 0.01 => "< 0.01 %".to_owned(),
        p if p < 9.95 => format!("{} %", significant(p)),
        p => format!("{p:.0} %"),
    }
}

/// Seconds of work, of which there may be many: `0.4 ms`, `1.9 s`, `612 s`, `4,210 s`.
pub(crate) fn work(ms: f64) -> String {
    if ms < 99_950.0 { milliseconds(ms) } else { format!("{} s", count((ms / 1000.0) as u64)) }
}

/// Memory times time: `0.0012 GB-s`, `3.5 GB-s`, `1,204 GB-s`.
pub(crate) fn memory_time(gb_s: f64) -> String {
    match gb_s {
        0.0 => "0 GB-s".to_owned(),
        few if few < 9.95 => format!("{} GB-s", significant(few)),
        many => format!("{} GB-s", count(many.round() as u64)),
    }
}

/// Two digits that say something, from a number below 10.
fn significant(value: f64) -> String {
    let places = if value <= 0.0 { 0.0 } else { (1.0 - value.log10().floor()).clamp(1.0, 6.0) };
    let text = format!("{value:.0$}", places as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// `1 version`, `3 versions`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number as u64))
}

/// How long ago something was; a date once that says more.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).max(SignedDuration::ZERO).as_secs();
    let of = |number: i64, noun: &str| {
        format!("{number} {noun}{} ago", if number == 1 { "" } else { "s" })
    };
    match seconds {
        0..10 => "just now".to_owned(),
        10..60 => of(seconds, "second"),
        60..3_600 => of(seconds / 60, "minute"),
        3_600..86_400 => of(seconds / 3_600, "hour"),
        86_400..172_800 => "yesterday".to_owned(),
        172_800..1_209_600 => of(seconds / 86_400, "day"),
        _ => then.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string(),
    }
}

/// The time of day with milliseconds, in this machine's time zone.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
}

/// A path as seen from the current folder, where that is shorter.
pub(crate) fn shorten(file: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    file.strip_prefix(here).unwrap_or(file).to_owned()
}

/// A moment to the minute, in this machine's time zone.
pub(crate) fn minute(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// A moment to the second, in this machine's time zone.
pub(crate) fn second(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A path with the home folder written `~`.
pub(crate) fn tilde(path: &Path) -> String {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) => Path::new("~").join(rest).display().to_string(),
        None => path.display().to_string(),
    }
}

/// Text from elsewhere, safe to put on a terminal: control characters become escapes, and so do the
/// marks that make text run backwards.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let directs = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let harmless = |c: char| !c.is_control() && !directs(c) || c == '\t';
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .fold(String::new(), |mut safe, c| {
            if harmless(c) {
                safe.push(c);
            } else {
                safe.extend(c.escape_default());
            }
            safe
        })
        .into()
}

/// Columns under a header, indented by two, two apart.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// A table whose columns are only known now.
    pub(crate) fn of(header: Vec<String>) -> Self {
        Self { rows: vec![header] }
    }

    /// A row of such a table.
    pub(crate) fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines of the table, the header first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let text: String = cells.map(|(cell, width)| format!("  {cell:<width$}")).collect();
            text.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    pub(crate) fn to_text(&self) -> String {
        self.lines().into_iter().map(|line| line + "\n").collect()
    }
}

/// One decimal, unless it is a zero.
fn tenths(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            (0.0, "0 ms"),
            (0.004, "< 0.1 ms"),
            (0.4, "0.4 ms"),
            (3.1, "3.1 ms"),
            (4.0, "4 ms"),
            (9.96, "10 ms"),
            (12.3, "12 ms"),
            (99.6, "0.10 s"),
            (112.0, "0.11 s"),
            (996.0, "1.0 s"),
            (1_912.0, "1.9 s"),
            (99_960.0, "1 min 40 s"),
            (125_000.0, "2 min 5 s"),
        ];
        for (ms, text) in cases {
            assert_eq!(milliseconds(ms), text);
        }
    }

    #[test]
    fn sizes_and_counts() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (86_016, "84 KiB"),
            (1_048_575, "1 MiB"),
            (6_501_171, "6.2 MiB"),
            (10_480_000, "10 MiB"),
            (4 << 30, "4 GiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(count(7), "7");
        assert_eq!(count(1_204_331), "1,204,331");
        assert_eq!(counted(1, "version"), "1 version");
        assert_eq!(counted(1024, "instance"), "1,024 instances");
    }

    #[test]
    fn what_is_billed() {
        let shares = [
            ((0, 0), "0 %"),
            ((0, 10), "0 %"),
            ((1, 1_000_000), "< 0.01 %"),
            ((240, 1_204_331), "0.02 %"),
            ((1, 30), "3.3 %"),
            ((1, 8), "12 %"),
            ((7, 7), "100 %"),
        ];
        for ((part, whole), text) in shares {
            assert_eq!(share(part, whole), text);
        }
        for (ms, text) in [(0.4, "0.4 ms"), (1_900.0, "1.9 s"), (612_400.0, "612 s")] {
            assert_eq!(work(ms), text);
        }
        assert_eq!(work(4_210_000.0), "4,210 s");
        for (gb_s, text) in [
            (0.0, "0 GB-s"),
            (0.000_000_2, "0 GB-s"),
            (0.001_234, "0.0012 GB-s"),
            (0.5, "0.5 GB-s"),
            (3.46, "3.5 GB-s"),
            (88.2, "88 GB-s"),
            (1_204.0, "1,204 GB-s"),
        ] {
            assert_eq!(memory_time(gb_s), text);
        }
    }

    #[test]
    fn times() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let before = |seconds: i64| now - SignedDuration::from_secs(seconds);
        assert_eq!(ago(before(-5), now), "just now");
        assert_eq!(ago(before(42), now), "42 seconds ago");
        assert_eq!(ago(before(119), now), "1 minute ago");
        assert_eq!(ago(before(7_300), now), "2 hours ago");
        assert_eq!(ago(before(90_000), now), "yesterday");
        assert_eq!(ago(before(3 * 86_400), now), "3 days ago");
        assert_eq!(ago(before(20 * 86_400), now), "2026-10-31");
        // Midnight or not depends on the time zone; the length does not.
        assert_eq!((minute(now).len(), second(now).len()), (16, 19));
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(printable("plain\ttext ü"), "plain\ttext ü");
        assert_eq!(printable("a\x1b[31mb\r"), "a\\u{1b}[31mb\\r");
        assert_eq!(printable("a\u{202e}b\u{2066}"), "a\\u{202e}b\\u{2066}");
        assert_eq!(printable("\u{1f469}\u{200d}\u{1f680}"), "\u{1f469}\u{200d}\u{1f680}");
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(["NAME", "SIZE"]);
        table.row(["hello-world".to_owned(), "84 KiB".to_owned()]);
        table.row(["ä".to_owned(), String::new()]);
        assert_eq!(table.to_text(), "  NAME         SIZE\n  hello-world  84 KiB\n  ä\n");
    }
}
