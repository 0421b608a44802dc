//! The test guest as a component of WASI 0.2.

use guest_common::{Answer, Fetch, Plan, Seen, fetched, piece, plan, spin, surroundings, trap};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{OutputStream, StreamError};

mod attack;
mod hoard;

wasip2::http::proxy::export!(Guest);

struct Guest;

impl wasip2::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match plan(&seen(&request)) {
            Plan::Answer(answer) => send(out, &answer),
            Plan::Echo | Plan::Pass => echo(request, out),
            Plan::Length => {
                let length = length(&request);
                send(out, &Answer::text(format!("{length}\n")));
            }
            Plan::Ignore => send(out, &Answer::text("ignored\n")),
            Plan::Sleep(time) => {
                std::thread::sleep(time);
                send(out, &Answer::text("slept\n"));
            }
            Plan::Pieces { pieces, bytes, pause, trap: ends_badly } => {
                let body = begin(out, 200, &[]);
                let stream = body.write().unwrap();
                for number in 0..pieces {
                    if number > 0 && !pause.is_zero() {
                        std::thread::sleep(pause);
                    }
                    if write(&stream, &piece(number * bytes as u64, bytes)).is_err() {
                        return;
                    }
                }
                if ends_badly {
                    trap();
                }
                drop(stream);
                OutgoingBody::finish(body, None).unwrap();
            }
            Plan::NoResponse => {}
            Plan::Bad(what) => bad(out, &what),
            Plan::Attack(what) => attack::attack(&request, out, &what),
            Plan::After { wait } => {
                send(out, &Answer::text("ended\n"));
                match wait {
                    Some(time) => {
                        std::thread::sleep(time);
                        eprintln!("went on");
                    }
                    None => spin(),
                }
            }
            Plan::Hoard { what, most } => {
                hoard::hoard(&what, most);
                send(out, &Answer::text("held\n"));
            }
            Plan::Fetch(wanted) => fetch(out, &wanted),
            Plan::Environment { target } => {
                let text = format!("{}http {}\n", surroundings(&target), outbound(&target));
                send(out, &Answer::text(text));
            }
        }
    }
}

/// Passes an answer of somebody else on as it comes.
fn fetch(out: ResponseOutparam, wanted: &Fetch) {
    if wanted.times > 1 {
        return send(out, &fetched(&guest_outbound02::send_many(wanted)));
    }
    let mut answer = match guest_outbound02::send(wanted) {
        Ok(answer) => answer,
        Err(error) => return send(out, &fetched(&[format!("error: {error}")])),
    };
    let body = begin(out, answer.status, &answer.headers);
    let stream = body.write().unwrap();
    loop {
        match answer.next() {
            Ok(Some(bytes)) => {
                if write(&stream, &bytes).is_err() {
                    return;
                }
            }
            Ok(None) => break,
            Err(error) => {
                eprintln!("the body broke off: {error}");
                trap();
            }
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn seen(request: &IncomingRequest) -> Seen {
    let path = request.path_with_query().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let headers = request.headers().entries().into_iter();
    Seen {
        method: match request.method() {
            Method::Other(name) => name,
            known => format!("{known:?}").replace("Method::", "").to_uppercase(),
        },
        path: path.to_owned(),
        query: query.to_owned(),
        scheme: format!("{:?}", request.scheme()),
        authority: request.authority().unwrap_or_default(),
        headers: headers
            .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
            .collect(),
    }
}

/// Sends the head.
fn begin(out: ResponseOutparam, status: u16, headers: &[(String, String)]) -> OutgoingBody {
    let list: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let response = OutgoingResponse::new(Fields::from_list(&list).unwrap());
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

fn send(out: ResponseOutparam, answer: &Answer) {
    let body = begin(out, answer.status, &answer.headers);
    let stream = body.write().unwrap();
    let _ = write(&stream, &answer.body);
    drop(stream);
    // The client may not want it all.
    let _ = OutgoingBody::finish(body, None);
}

/// Writes as much at once as the host takes.
fn write(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let room = stream.check_write()? as usize;
        if room == 0 {
            stream.subscribe().block();
            continue;
        }
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        stream.write(now)?;
        bytes = later;
    }
    Ok(())
}

fn echo(request: IncomingRequest, out: ResponseOutparam) {
    // Over HTTP/1.1 only trailers that were announced are sent (RFC 9110 §6.6.2).
    let body = begin(out, 200, &[("trailer".to_owned(), "x-sum".to_owned())]);
    let incoming = request.consume().unwrap();
    let (input, output) = (incoming.stream().unwrap(), body.write().unwrap());
    loop {
        match input.blocking_read(64 << 10) {
            Ok(bytes) => {
                if write(&output, &bytes).is_err() {
                    return;
                }
            }
            Err(StreamError::Closed) => break,
            // A body that broke off must not look complete.
            Err(StreamError::LastOperationFailed(_)) => trap(),
        }
    }
    drop((input, output));
    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    let trailers = match trailers.get() {
        Some(Ok(Ok(trailers))) => trailers.map(|fields| fields.clone()),
        _ => None,
    };
    OutgoingBody::finish(body, trailers).unwrap();
}

fn length(request: &IncomingRequest) -> usize {
    let incoming = request.consume().unwrap();
    let input = incoming.stream().unwrap();
    let mut length = 0;
    loop {
        match input.blocking_read(64 << 10) {
            Ok(bytes) => length += bytes.len(),
            Err(StreamError::Closed) => return length,
            Err(StreamError::LastOperationFailed(_)) => trap(),
        }
    }
}

fn bad(out: ResponseOutparam, what: &str) {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (headers, body): (Vec<_>, &[u8]) = match what {
        "short" => (vec![pair("content-length", "10")], b"abc"),
        "long" => (vec![pair("content-length", "3")], b"abcdefghij"),
        "twice" => (vec![pair("content-length", "3"), pair("content-length", "4")], b"abc"),
        "chunked" => (vec![pair("transfer-encoding", "chunked")], b"3\r\nabc\r\n0\r\n\r\n"),
        "connection" => (vec![pair("connection", "upgrade")], b"abc"),
        "control" => (vec![pair("x-a", "a\u{1}b")], b"abc"),
        "error" => {
            ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("xyzzy".into()))));
            return;
        }
        "platform" => (
            vec![
                pair("x-request-id", "forged"),
                pair("x-faas-version", "v99"),
                pair("x-faas-error", "forged"),
            ],
            b"abc",
        ),
        _ => (vec![], b""),
    };
    let status = match what {
        "status" => 99,
        "informational" => 101,
        _ => 200,
    };
    let outgoing = begin(out, status, &headers);
    let stream = outgoing.write().unwrap();
    let _ = write(&stream, body);
    drop(stream);
    let _ = OutgoingBody::finish(outgoing, None);
}

fn outbound(target: &str) -> String {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(target));
    let _ = request.set_path_with_query(Some("/"));
    let response = match outgoing_handler::handle(request, None) {
        Ok(response) => response,
        Err(error) => return format!("denied: {error:?}"),
    };
    response.subscribe().block();
    match response.get() {
        Some(Ok(Ok(_))) => "ALLOWED".to_owned(),
        other => format!("denied: {other:?}"),
    }
}
