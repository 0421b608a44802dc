//! The test guest as a CGI program.

use guest_common::{Answer, Fetch, Plan, Seen, fetched, piece, plan, surroundings, trap};
use std::io::{self, Read, Write};

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
