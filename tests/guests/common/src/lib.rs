//! What every kind of test guest does: the path of a request chooses a behaviour.
//!
//! Whatever needs no input or output of its own happens in [`plan`]; the rest is a [`Plan`] that
//! the kinds carry out, each through its own interface.

mod attack;
mod canary;
mod fetch;
mod surroundings;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use fetch::{Fetch, fetched};
pub use surroundings::surroundings;

/// A request, as the guest sees it.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Scheme and authority, where the interface has them.
    pub scheme: String,
    pub authority: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(body: impl Into<String>) -> Self {
        let body: String = body.into();
        Self {
            status: 200,
            headers: vec![("content-type".into(), "text/plain".into())],
            body: body.into_bytes(),
        }
    }
}

/// What is left to do.
#[derive(Debug)]
pub enum Plan {
    /// Answer, and be done.
    Answer(Answer),
    /// Send the request's body back as it arrives, trailers too.
    Echo,
    /// Send the request's body back without looking at it.
    Pass,
    /// Read the whole body, then say how long it was.
    Length,
    /// Answer without having read the body.
    Ignore,
    /// Wait, then answer.
    Sleep(Duration),
    /// Send `pieces` of `bytes` each, waiting before each but the first.
    Pieces {
        pieces: u64,
        bytes: usize,
        pause: Duration,
        /// Trap instead of ending.
        trap: bool,
    },
    /// Return without an answer.
    NoResponse,
    /// Send something that HTTP does not allow; the word says what.
    Bad(String),
    /// Say what can be reached: `surroundings`, then what the interface itself has.
    Environment { target: String },
    /// Send a request, or many, and say what came of it.
    Fetch(Fetch),
    /// Do what a program should not; the word says what.
    Attack(String),
    /// Answer, and then go on: wait for so long, or compute for ever.
    After { wait: Option<Duration> },
    /// Make the host hold so much of something, or as much as it lets itself be given; the word says
    /// of what.
    Hoard { what: String, most: u64 },
}

/// Carries out what needs no input or output, and says what is left to do.
pub fn plan(seen: &Seen) -> Plan {
    let number = |name: &str, otherwise: u64| {
        parameter(&seen.query, name).map_or(otherwise, |value| value.parse().unwrap_or(otherwise))
    };
    match seen.path.as_str() {
        "/count" => text(count()),
        "/canary" if seen.query == "fill" => text(canary::fill()),
        "/canary" if seen.query.starts_with("hold") => {
            canary::fill();
            Plan::Sleep(Duration::from_millis(number("ms", 100)))
        }
        "/canary" => text(canary::look()),
        "/trap" => trap(),
        "/divide" => text(divide()),
        "/bounds" => text(beyond()),
        "/panic" => panic!("a secret word of the guest: xyzzy"),
        "/exit" => std::process::exit(number("code", 0) as i32),
        "/spin" => spin(),
        // Computes for so long, and goes on as another path does.
        "/work" => {
            work(Duration::from_millis(number("ms", 10)));
            let path = format!("/{}", parameter(&seen.query, "then").unwrap_or("count"));
            plan(&Seen { path, ..seen.clone() })
        }
        "/recurse" => text(recurse(1)),
        "/grow" => text(grow(number("mib", 1))),
        "/hog" => hog(),
        "/log" => text(log(number("lines", 1))),
        "/status" => {
            Plan::Answer(Answer { status: number("code", 200) as u16, ..Answer::text("status\n") })
        }
        "/empty" => Plan::Answer(Answer { status: 204, headers: Vec::new(), body: Vec::new() }),
        "/headers" => text(dump(seen)),
        "/echo" => Plan::Echo,
        "/pass" => Plan::Pass,
        "/length" => Plan::Length,
        "/ignore" => Plan::Ignore,
        "/sleep" => Plan::Sleep(Duration::from_millis(number("ms", 100))),
        "/stream" => Plan::Pieces {
            pieces: number("kib", 1024) * 1024 / number("chunk", 65536).max(1),
            bytes: number("chunk", 65536) as usize,
            pause: Duration::ZERO,
            trap: false,
        },
        "/slow" => Plan::Pieces {
            pieces: number("pieces", 5),
            bytes: number("bytes", 10) as usize,
            pause: Duration::from_millis(number("ms", 100)),
            trap: false,
        },
        "/half" => Plan::Pieces {
            pieces: number("pieces", 2),
            bytes: number("bytes", 100_000) as usize,
            pause: Duration::from_millis(number("ms", 20)),
            trap: true,
        },
        "/no-response" => Plan::NoResponse,
        "/hoard" => Plan::Hoard {
            what: parameter(&seen.query, "what").unwrap_or("").to_owned(),
            most: number("most", u64::MAX),
        },
        "/attack" => {
            let what = parameter(&seen.query, "what").unwrap_or("").to_owned();
            attack::spin_if(&what);
            Plan::Attack(what)
        }
        "/after" => Plan::After {
            wait: parameter(&seen.query, "ms")
                .and_then(|ms| ms.parse().ok())
                .map(Duration::from_millis),
        },
        "/bad" => Plan::Bad(parameter(&seen.query, "what").unwrap_or("").to_owned()),
        // One variable by its name, or all of them.
        "/variable" => text(variable(parameter(&seen.query, "name").unwrap_or_default())),
        "/variables" => text(variables()),
        "/fetch" | "/again" => Plan::Fetch(Fetch::new(seen)),
        "/env" => Plan::Environment {
            target: parameter(&seen.query, "target").unwrap_or("127.0.0.1:9").to_owned(),
        },
        _ => text("hello\n".to_owned()),
    }
}

/// A piece of a generated body: the bytes of the alphabet, by their place in the whole body.
///
/// Copied from a table: what is measured with it is how bytes travel, not how they are made.
pub fn piece(offset: u64, bytes: usize) -> Vec<u8> {
    const PERIOD: usize = 26;
    const TABLE: usize = 64 << 10;
    static ALPHABETS: [u8; TABLE + PERIOD] = {
        let mut table = [0; TABLE + PERIOD];
        let mut at = 0;
        while at < table.len() {
            table[at] = b'a' + (at % PERIOD) as u8;
            at += 1;
        }
        table
    };
    let mut piece = Vec::with_capacity(bytes);
    while piece.len() < bytes {
        let start = ((offset + piece.len() as u64) % PERIOD as u64) as usize;
        let length = TABLE.min(bytes - piece.len());
        piece.extend_from_slice(&ALPHABETS[start..start + length]);
    }
    piece
}

/// The value of a parameter in a query string, not decoded.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Ends the instance.
pub fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    unreachable!("only built for Wasm")
}

/// Divides by zero, as a compiler of another language lets a program do: that traps.
fn divide() -> String {
    // SAFETY: none. Nothing is derived from its not being zero, which it is only known to be here.
    let zero = unsafe { std::num::NonZeroU32::new_unchecked(std::hint::black_box(0)) };
    format!("{}\n", std::hint::black_box(7) / std::hint::black_box(zero))
}

/// Reads where there is no memory: that traps.
fn beyond() -> String {
    let nowhere = std::hint::black_box(0xffff_fff0_usize) as *const u32;
    // SAFETY: none.
    format!("{}\n", unsafe { nowhere.read_volatile() })
}

fn text(body: String) -> Plan {
    Plan::Answer(Answer::text(body))
}

/// How often this instance was asked: 1, always.
fn count() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}\n", COUNT.fetch_add(1, Ordering::Relaxed) + 1)
}

fn variable(name: &str) -> String {
    std::env::var(name).map_or("none\n".to_owned(), |value| format!("={value}\n"))
}

fn variables() -> String {
    let mut lines: Vec<String> =
        std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    lines.sort();
    lines.concat()
}

fn work(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::black_box(begun);
    }
}

/// Computes for ever.
pub fn spin() -> ! {
    let mut number = 1_u32;
    loop {
        number = std::hint::black_box(number.wrapping_mul(1_664_525).wrapping_add(1));
    }
}

#[inline(never)]
fn recurse(depth: u64) -> String {
    let deeper = std::hint::black_box([depth; 64]);
    if depth == u64::MAX {
        return String::new();
    }
    let end = recurse(depth + 1);
    format!("{end}{}", deeper.len())
}

fn grow(mib: u64) -> String {
    let mut grown = 0;
    while grown < mib && grow_pages(16).is_some() {
        grown += 1;
    }
    match grown == mib {
        true => format!("grown {grown} MiB\n"),
        false => format!("refused after {grown} MiB\n"),
    }
}

/// The new memory, as its first byte and its length.
fn grow_pages(pages: usize) -> Option<(*mut u8, usize)> {
    #[cfg(target_arch = "wasm32")]
    {
        let before = core::arch::wasm32::memory_grow(0, pages);
        (before != usize::MAX).then_some(((before << 16) as *mut u8, pages << 16))
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        let _ = pages;
        None
    }
}

/// Allocates and writes until nothing more is given, which ends a Rust program.
fn hog() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn log(lines: u64) -> String {
    for line in 0..lines {
        eprintln!("error line {line}");
    }
    format!("{lines}\n")
}

fn dump(seen: &Seen) -> String {
    let mut text = format!(
        "method {}\npath {}\nquery {}\nscheme {}\nauthority {}\n",
        seen.method, seen.path, seen.query, seen.scheme, seen.authority
    );
    for (name, value) in &seen.headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text
}
