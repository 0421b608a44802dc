//! What a hostile program of WASI 0.2 does.

use crate::{begin, send, write};
use guest_common::Answer;
use std::hint::black_box;
use wasip2::cli::environment;
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::poll;
use wasip2::random::random;

/// Does it, and answers what came of it if that is not the end.
pub fn attack(request: &IncomingRequest, out: ResponseOutparam, what: &str) {
    spin_if(what);
    match what {
        "realloc" => drop(request.path_with_query()),
        "random-much" => drop(random::get_random_bytes((64 << 10) + 1)),
        "out-twice" => twice(out),
        "path" => send(out, &Answer::text(paths())),
        "fields" => send(out, &Answer::text(many_fields())),
        "head-some" => head(out, 1000),
        "head-many" => head(out, 100_000),
        "trailers" => trailers(out, 1),
        "trailers-much" => trailers(out, 18),
        "bytes" => bytes(out),
        "head-only" => {
            // And nothing after it, for longer than anybody waits.
            let _body = begin(out, 200, &[]);
            monotonic_clock::subscribe_duration(3_600_000_000_000).block();
        }
        _ => body(out, what),
    }
}

fn spin_if(what: &str) {
    match what {
        "random" => loop {
            black_box(random::get_random_u64());
        },
        "env" => loop {
            black_box(environment::get_environment());
        },
        "new" => loop {
            drop(Fields::new());
        },
        "poll" => {
            let now = monotonic_clock::subscribe_duration(0);
            loop {
                poll::poll(&[&now]);
            }
        }
        "block" => loop {
            monotonic_clock::subscribe_duration(0).block();
        },
        _ => {}
    }
}

/// Gives an answer, and then another one.
fn twice(out: ResponseOutparam) {
    let handle = out.take_handle();
    for _ in 0..2 {
        // SAFETY: the second one is no handle any more, which is what the host shall notice.
        let out = unsafe { ResponseOutparam::from_handle(handle) };
        ResponseOutparam::set(out, Ok(OutgoingResponse::new(Fields::new())));
    }
}

/// What would turn a request into one to somebody else.
fn paths() -> String {
    let request = OutgoingRequest::new(Fields::new());
    let paths =
        ["http://169.254.169.254/", "//169.254.169.254", "x", "*", "/a b", "/a\r\nb", "/ok"];
    let set = |path: &str| match request.set_path_with_query(Some(path)) {
        Ok(()) => format!("{path:?} taken\n"),
        Err(()) => format!("{path:?} refused\n"),
    };
    paths.map(set).concat()
}

/// As many as there may be.
fn many_fields() -> String {
    let fields = Fields::new();
    let mut count = 0;
    while count < 100_000 && fields.append("x-many", b"1").is_ok() {
        count += 1;
    }
    format!("{count}\n")
}

/// A head of so many fields, or as many as there may be.
fn head(out: ResponseOutparam, most: u32) {
    let fields = Fields::new();
    for _ in 0..most {
        if fields.append("x", b"1").is_err() {
            break;
        }
    }
    let response = OutgoingResponse::new(fields);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let _ = OutgoingBody::finish(body, None);
}

fn trailers(out: ResponseOutparam, times: u32) {
    let body = begin(out, 200, &[("trailer".to_owned(), "x-long".to_owned())]);
    let stream = body.write().unwrap();
    write(&stream, b"body\n").unwrap();
    drop(stream);
    let fields = Fields::new();
    // Twice is the end.
    for _ in 0..times {
        let _ = fields.append("x-long", &[b'1'; 60_000]);
    }
    let _ = OutgoingBody::finish(body, Some(fields));
}

/// One byte at a time.
fn bytes(out: ResponseOutparam) {
    let body = begin(out, 200, &[]);
    let stream = body.write().unwrap();
    for _ in 0..10_000 {
        if write(&stream, b"1").is_err() {
            return;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// What is done with a body.
fn body(out: ResponseOutparam, what: &str) {
    let body = begin(out, 200, &[]);
    let stream = body.write().unwrap();
    match what {
        "beyond" => {
            let room = stream.check_write().unwrap() as usize;
            let _ = stream.write(&vec![0; room + 1]);
        }
        "unchecked" => {
            let _ = stream.write(&[0; 1 << 20]);
        }
        "zeroes" => {
            let _ = stream.write_zeroes(u64::MAX);
        }
        "stderr-zeroes" => {
            let _ = wasip2::cli::stderr::get_stderr().write_zeroes(u64::MAX);
        }
        // Its stream is still there.
        "child" => drop(body),
        "finish-twice" => {
            drop(stream);
            let handle = body.take_handle();
            for _ in 0..2 {
                // SAFETY: the second one is no handle any more, which the host shall notice.
                let body = unsafe { OutgoingBody::from_handle(handle) };
                let _ = OutgoingBody::finish(body, None);
            }
        }
        _ => {}
    }
}
