//! What a hostile program of WASI 0.3 does.

use crate::{begin, send, sleep};
use guest_common::{Answer, trap};
use std::hint::black_box;
use std::time::Duration;
use wasip3::cli::environment;
use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::random::random;
use wasip3::wit_bindgen::yield_async;
use wasip3::{spawn_local, wit_future, wit_stream};

/// Does it, and answers what came of it if that is not the end.
pub async fn attack(request: &Request, what: &str) -> Result<Response, ErrorCode> {
    spin_if(what).await;
    match what {
        "realloc" => drop(request.get_path_with_query()),
        "random-much" => {
            let bytes = random::get_random_bytes(1 << 40).len();
            return Ok(send(&Answer::text(format!("{bytes}\n"))));
        }
        // More waits at once than it may have.
        "tasks" => {
            for _ in 0..20_000 {
                spawn_local(monotonic_clock::wait_for(3_600_000_000_000));
            }
            sleep(Duration::from_secs(3600)).await;
        }
        "fields" => return Ok(send(&Answer::text(many_fields()))),
        "path" => return Ok(send(&Answer::text(paths()))),
        "head-some" => return Ok(head(1000)),
        "head-many" => return Ok(head(100_000)),
        _ => {}
    }
    let length = [("content-length".to_owned(), "100".to_owned())];
    let (response, mut body, end) = begin(200, if what == "short" { &length } else { &[] })?;
    let what = what.to_owned();
    spawn_local(async move {
        if what == "late-trap" {
            trap();
        }
        let _ = body.write_all(b"the beginning".to_vec()).await;
        match what.as_str() {
            // And nothing after it, for longer than anybody waits.
            "head-only" => sleep(Duration::from_secs(3600)).await,
            "trailers-much" => {
                let fields = Fields::new();
                for _ in 0..18 {
                    let _ = fields.append("x-long", &[b'1'; 60_000]);
                }
                drop(body);
                let _ = end.write(Ok(Some(fields))).await;
            }
            "trailers" => {
                let fields = Fields::new();
                while fields.append("x-long", &[b'1'; 60_000]).is_ok() {}
                drop(body);
                let _ = end.write(Ok(Some(fields))).await;
            }
            "bytes" => {
                for _ in 0..10_000 {
                    if !body.write_all(b"1".to_vec()).await.is_empty() {
                        return;
                    }
                }
            }
            // The body ends before what was promised.
            _ => drop((body, end)),
        }
    });
    Ok(response)
}

async fn spin_if(what: &str) {
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
        "poll" => loop {
            monotonic_clock::wait_for(0).await;
        },
        "yield" => loop {
            yield_async().await;
        },
        "stream" => loop {
            let (writer, reader) = wit_stream::new::<u8>();
            drop((writer, reader));
        },
        _ => {}
    }
}

/// A head of so many fields, or as many as there may be.
fn head(most: u32) -> Response {
    let fields = Fields::new();
    for _ in 0..most {
        if fields.append("x", b"1").is_err() {
            break;
        }
    }
    Response::new(fields, None, wit_future::new(|| Ok(None)).1).0
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

/// What would turn a request into one to somebody else.
fn paths() -> String {
    let (_end, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let paths =
        ["http://169.254.169.254/", "//169.254.169.254", "x", "*", "/a b", "/a\r\nb", "/ok"];
    let set = |path: &str| match request.set_path_with_query(Some(path)) {
        Ok(()) => format!("{path:?} taken\n"),
        Err(()) => format!("{path:?} refused\n"),
    };
    paths.map(set).concat()
}
