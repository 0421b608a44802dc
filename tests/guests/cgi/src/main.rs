//! The test guest as a CGI program.

use guest_common::{Answer, Fetch, Plan, Seen, fetched, piece, plan, surroundings, trap};
use std::io::{self, Read, Write};

#[cfg_attr(target_env = "p2", path = "attack02.rs")]
#[cfg_attr(not(target_env = "p2"), path = "attack01.rs")]
mod attack;

fn main() -> io::Result<()> {
    let seen = seen();
    let mut out = io::stdout().lock();
    match plan(&seen) {
        Plan::Answer(answer) => send(&mut out, &answer),
        Plan::Echo | Plan::Pass => echo(&mut out),
        Plan::Length => {
            let length = io::copy(&mut io::stdin().lock(), &mut io::sink())?;
            send(&mut out, &Answer::text(format!("{length}\n")))
        }
        Plan::Ignore => send(&mut out, &Answer::text("ignored\n")),
        Plan::Sleep(time) => {
            std::thread::sleep(time);
            send(&mut out, &Answer::text("slept\n"))
        }
        Plan::Pieces { pieces, bytes, pause, trap: ends_badly } => {
            out.write_all(b"Content-Type: text/plain\r\n\r\n")?;
            out.flush()?;
            for number in 0..pieces {
                if number > 0 && !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                out.write_all(&piece(number * bytes as u64, bytes))?;
                out.flush()?;
            }
            if ends_badly { trap() } else { Ok(()) }
        }
        Plan::NoResponse => Ok(()),
        Plan::Bad(what) => bad(&mut out, &what),
        Plan::Attack(what) => {
            let text = attack::attack(&what);
            send(&mut out, &Answer::text(text))
        }
        // A program's answer ends with the program.
        Plan::After { .. } => send(&mut out, &Answer::text("ended\n")),
        Plan::Hoard { what, most } => hoard(&mut out, &what, most),
        Plan::Fetch(wanted) => send(&mut out, &fetch(&wanted)),
        Plan::Environment { target } => send(&mut out, &Answer::text(surroundings(&target))),
    }
}

#[cfg(target_env = "p2")]
fn fetch(wanted: &Fetch) -> Answer {
    if wanted.times > 1 {
        return fetched(&guest_outbound02::send_many(wanted));
    }
    let answer =
        guest_outbound02::send(wanted).and_then(|mut answer| Ok((answer.status, answer.rest()?)));
    match answer {
        Ok((status, body)) => Answer { status, body, ..Answer::text("") },
        Err(error) => fetched(&[format!("error: {error}")]),
    }
}

#[cfg(not(target_env = "p2"))]
fn fetch(_: &Fetch) -> Answer {
    fetched(&["error: WASI 0.1 has no requests".to_owned()])
}

fn seen() -> Seen {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut headers: Vec<(String, String)> = std::env::vars()
        .filter_map(|(name, value)| {
            let name = match name.as_str() {
                "CONTENT_TYPE" | "CONTENT_LENGTH" => &name,
                _ => name.strip_prefix("HTTP_")?,
            };
            Some((name.to_lowercase().replace('_', "-"), value))
        })
        .collect();
    headers.sort();
    Seen {
        method: variable("REQUEST_METHOD"),
        path: variable("PATH_INFO"),
        query: variable("QUERY_STRING"),
        scheme: String::new(),
        authority: variable("SERVER_NAME"),
        headers,
    }
}

fn send(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    write!(out, "Status: {} Whatever\r\n", answer.status)?;
    for (name, value) in &answer.headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    out.write_all(b"\r\n")?;
    out.write_all(&answer.body)?;
    out.flush()
}

fn echo(out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"Content-Type: application/octet-stream\r\n\r\n")?;
    out.flush()?;
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            length => {
                out.write_all(buffer.get(..length).unwrap_or_default())?;
                out.flush()?;
            }
        }
    }
}

/// Makes the host hold as much as it lets itself be given.
fn hoard(out: &mut impl Write, what: &str, most: u64) -> io::Result<()> {
    match what {
        // More of them, in one write, than a map of fields can have.
        "fields" => {
            out.write_all(b"a:1\n".repeat(31_000).as_slice())?;
            out.write_all(b"\n")?;
            out.flush()
        }
        // More than the host offers room for.
        "write" => loop {
            write_at_once(&[b'1'; 4 << 20]);
        },
        _ => {
            for _ in 0..most {
                subscribe(1 << 19);
            }
            send(out, &Answer::text("held\n"))
        }
    }
}

#[cfg(target_env = "p2")]
fn write_at_once(bytes: &[u8]) {
    let _ = wasip2::cli::stdout::get_stdout().write(bytes);
}

#[cfg(not(target_env = "p2"))]
fn write_at_once(bytes: &[u8]) {
    let _ = io::stdout().write(bytes);
}

#[cfg(target_env = "p2")]
fn subscribe(_: usize) {
    std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX));
}

/// Waits for so many moments at once, each of which is over.
#[cfg(not(target_env = "p2"))]
fn subscribe(count: usize) {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn poll_oneoff(
            subscriptions: *const u8,
            events: *mut u8,
            count: usize,
            got: *mut u8,
        ) -> i32;
    }
    // A clock that is read at once: zeroes all over.
    let (subscriptions, mut events) = (vec![0_u8; 48 * count], vec![0_u8; 32 * count]);
    let mut got = [0; 4];
    let result = unsafe {
        poll_oneoff(subscriptions.as_ptr(), events.as_mut_ptr(), count, got.as_mut_ptr())
    };
    if result != 0 {
        eprintln!("refused {count}: {result}");
        if count > 1 {
            subscribe(count / 2);
        }
    }
}

fn bad(out: &mut impl Write, what: &str) -> io::Result<()> {
    let text = match what {
        "short" => "Content-Length: 10\r\n\r\nabc",
        "long" => "Content-Length: 3\r\n\r\nabcdefghij",
        "twice" => "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "chunked" => "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "connection" => "Connection: upgrade\r\nUpgrade: x\r\n\r\nabc",
        "status" => "Status: 99\r\n\r\n",
        "informational" => "Status: 101\r\n\r\n",
        "control" => "X-A: a\u{1}b\r\n\r\n",
        "colon" => "no colon here\r\n\r\n",
        "platform" => {
            "X-Request-Id: forged\r\nX-Faas-Version: v99\r\nX-Faas-Error: forged\r\n\r\nabc"
        }
        "endless" => loop {
            out.write_all(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")?;
        },
        _ => "Content-Type: text/plain\r\n",
    };
    out.write_all(text.as_bytes())?;
    out.flush()
}
