//! Requests through `wasi:http/outgoing-handler` of WASI 0.2, for the guests that have it.

use guest_common::{Fetch, piece};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method,
    OutgoingBody, OutgoingRequest, Scheme,
};
use wasip2::io::streams::{InputStream, StreamError};

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    input: InputStream,
    _body: IncomingBody,
}

impl Answer {
    /// The next piece of its body.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        match self.input.blocking_read(64 << 10) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StreamError::Closed) => Ok(None),
            Err(StreamError::LastOperationFailed(error)) => {
                let code = wasip2::http::types::http_error_code(&error);
                Err(format!("{code:?}"))
            }
        }
    }

    /// What is left of its body.
    pub fn rest(&mut self) -> Result<Vec<u8>, String> {
        let mut rest = Vec::new();
        while let Some(piece) = self.next()? {
            rest.extend(piece);
        }
        Ok(rest)
    }
}

/// Sends a request, and waits for the head of its answer.
pub fn send(fetch: &Fetch) -> Result<Answer, String> {
    begin(fetch).and_then(|response| wait(&response)).map_err(|code| format!("{code:?}"))
}

/// Sends many, and says what became of each.
pub fn send_many(fetch: &Fetch) -> Vec<String> {
    let mut lines = Vec::new();
    if fetch.abandon {
        let abandoned = begin(fetch);
        lines.push(line(send(&fetch.ready())));
        drop(abandoned);
        return lines;
    }
    if !fetch.together {
        for _ in 0..fetch.times {
            lines.push(line(send(fetch)));
        }
        return lines;
    }
    let begun: Vec<_> = (0..fetch.times).map(|_| begin(fetch)).collect();
    let answers = begun.into_iter().map(|begun| {
        begun.and_then(|response| wait(&response)).map_err(|code| format!("{code:?}"))
    });
    match fetch.hold {
        true => answers.collect::<Vec<_>>().into_iter().map(line).collect(),
        false => answers.map(line).collect(),
    }
}

fn line(answer: Result<Answer, String>) -> String {
    let read = answer.and_then(|mut answer| Ok((answer.status, answer.rest()?)));
    match read {
        Ok((status, body)) => format!("{status} {}", body.len()),
        Err(error) => format!("error: {error}"),
    }
}

fn begin(fetch: &Fetch) -> Result<FutureIncomingResponse, ErrorCode> {
    let headers: Vec<(String, Vec<u8>)> =
        fetch.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let refused = |error| ErrorCode::InternalError(Some(format!("{error:?}")));
    let request = OutgoingRequest::new(Fields::from_list(&headers).map_err(refused)?);
    let (scheme, authority, path) = fetch.parts();
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let uri = || ErrorCode::HttpRequestUriInvalid;
    request.set_method(&Method::Other(fetch.method.clone())).map_err(|()| uri())?;
    request.set_scheme(Some(&scheme)).map_err(|()| uri())?;
    // Without one the request is a relative one.
    request.set_authority((!authority.is_empty()).then_some(authority)).map_err(|()| uri())?;
    request.set_path_with_query(Some(path)).map_err(|()| uri())?;
    let body = (fetch.body > 0).then(|| request.body().unwrap());
    let response = outgoing_handler::handle(request, None)?;
    if let Some(body) = body {
        write(body, fetch.body);
    }
    Ok(response)
}

/// Writes a body, as far as somebody wants it.
fn write(body: OutgoingBody, length: usize) {
    let stream = body.write().unwrap();
    let mut written = 0;
    while written < length {
        let bytes = piece(written as u64, (length - written).min(4096));
        if stream.blocking_write_and_flush(&bytes).is_err() {
            return;
        }
        written += bytes.len();
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn wait(response: &FutureIncomingResponse) -> Result<Answer, ErrorCode> {
    response.subscribe().block();
    let response: IncomingResponse = response.get().unwrap().unwrap()?;
    let headers = response.headers().entries().into_iter();
    let headers =
        headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    let body = response.consume().unwrap();
    let input = body.stream().unwrap();
    Ok(Answer { status: response.status(), headers, input, _body: body })
}
