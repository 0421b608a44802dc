//! Load that keeps connections busy: `wrk`, on a core of its own.

use crate::process::LOAD_CORE;
use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

/// What the clients saw.
pub(crate) struct Seen {
    pub(crate) requests: f64,
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// What was not a success, in `wrk`'s words.
    pub(crate) problem: Option<String>,
}

/// Keeps connections busy for some seconds; `script` is one of `wrk`'s, for requests with a body.
pub(crate) fn run(
    address: SocketAddr,
    path: &str,
    connections: usize,
    seconds: u64,
    script: Option<&str>,
) -> Seen {
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "wrk", "-t1", "--latency"]);
    command.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
    if let Some(script) = script {
        command.args(["-s", script]);
    }
    command.arg(format!("http://{address}{path}")).stderr(Stdio::inherit());
    let output = command.output().expect("taskset and wrk are installed");
    let said = String::from_utf8_lossy(&output.stdout);
    let word = |line: &str, at: usize| line.split_whitespace().nth(at).unwrap_or("").to_owned();
    let find = |text: &str| said.lines().find(|line| line.contains(text)).unwrap_or_default();
    // Another line has percentages, too.
    let share = |text: &str| {
        said.lines().find(|line| line.trim_start().starts_with(text)).unwrap_or_default()
    };
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("no figures:\n{said}"));
    Seen {
        requests: number(word(find("requests in"), 0)),
        per_second: number(word(find("Requests/sec"), 1)),
        p50_ms: milliseconds(&word(share("50%"), 1)),
        p99_ms: milliseconds(&word(share("99%"), 1)),
        problem: said
            .lines()
            .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
            .map(|line| line.trim().to_owned()),
    }
}

/// `wrk` writes `87.00us`, `1.27ms` and `1.02s`.
fn milliseconds(text: &str) -> f64 {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let number: f64 = digits.parse().unwrap_or(f64::NAN);
    match &text[digits.len()..] {
        "us" => number / 1000.0,
        "ms" => number,
        _ => number * 1000.0,
    }
}
