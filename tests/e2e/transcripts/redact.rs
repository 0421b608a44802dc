//! Gives what differs from run to run one and the same form.

use regex::Regex;
use std::path::Path;

/// What is replaced, in this order. What is not in the list is the same in every run, or has no
/// place in a transcript.
const VOLATILE: &[(&str, &str)] = &[
    // What is shown once.
    (r"faas_key_[0-9a-f]{64}", "faas_key_…"),
    (r"faas_[0-9a-f]{64,72}", "faas_…"),
    // Ids of requests and keys; of tokens.
    (r"\b01[0-9A-Za-z]{24}\b", "REQUEST-ID"),
    (r"\b[0-9a-f]{10}\b", "TOKEN-ID"),
    // Moments.
    (r"(?m)^date: .*GMT$", "date: TIME"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "TIME"),
    (r"\b\d\d:\d\d:\d\d\.\d{3}\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DATE"),
    (r"\b(\d+ (second|minute)s? ago|just now)\b", "AGO"),
    // Durations as people read them. A limit is a whole number of seconds, or has more digits.
    (r"(< )?\b\d\.\d+ m?s\b|\b\d{1,2}\.\d s\b|\b\d{1,2} ms\b|\b\d+ min \d+ s\b", "N ms"),
    (r"\bused [\d.]+m?s\b", "used N ms"),
    (r"\b(< )?[\d.]+ GB-s\b", "N GB-s"),
    // Lines of the test guests' sources.
    (r"\.rs:\d+(:\d+)?", ".rs:LINE"),
    // This machine, and this release.
    (r"(pool +)[\d,]+ instances · \d+ MiB", "${1}N instances · N MiB"),
    (r"page-map reset (on|off)", "page-map reset ON-OR-OFF"),
    (r"worst case [\d.]+ of [\d.]+ GiB", "worst case N of N GiB"),
    (r"\bfaas \d+\.\d+\.\d+ · wasmtime \d+\.\d+\.\d+", "faas VERSION · wasmtime VERSION"),
    (r"127\.0\.0\.1:\d{5}\b", "127.0.0.1:PORT"),
];

/// The replacements above, and those of one session.
pub(super) struct Redact {
    fixed: Vec<(String, String)>,
    patterns: Vec<(Regex, &'static str)>,
    spaces: Regex,
}

impl Redact {
    /// For a user with this home, which is written `~`.
    pub(super) fn new(home: &Path) -> Self {
        let pattern = |(text, by): &(&str, &'static str)| (Regex::new(text).unwrap(), *by);
        Self {
            fixed: vec![(home.display().to_string(), "~".to_owned())],
            patterns: VOLATILE.iter().map(pattern).collect(),
            spaces: Regex::new(r"(\S)   +").unwrap(),
        }
    }

    /// Writes a text otherwise.
    pub(super) fn text(&mut self, text: &str, by: &str) {
        self.fixed.push((text.to_owned(), by.to_owned()));
    }

    /// A command and what it showed. Columns beside something that was replaced would be as wide as
    /// that was: there, two spaces stand between all of them.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut stable = text.to_owned();
        for (found, by) in &self.fixed {
            stable = stable.replace(found, by);
        }
        for (pattern, by) in &self.patterns {
            stable = pattern.replace_all(&stable, *by).into_owned();
        }
        if stable != text {
            stable = self.spaces.replace_all(&stable, "$1  ").into_owned();
        }
        // Blanks at the end of a line are nothing that a person sees.
        let lines: Vec<&str> = stable.split('\n').map(str::trim_end).collect();
        lines.join("\n")
    }
}
