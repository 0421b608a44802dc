//! Answers `Hello from WASI 0.2!` on every path, with the bare bindings and no SDK.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_: IncomingRequest, outparam: ResponseOutparam) {
        let Some((response, body)) = prepare() else {
            return ResponseOutparam::set(outparam, Err(ErrorCode::InternalError(None)));
        };
        ResponseOutparam::set(outparam, Ok(response));
        // An error here means that the client has gone: nobody is left to be told.
        let _ = send(body, b"Hello from WASI 0.2!\n");
    }
}

fn prepare() -> Option<(OutgoingResponse, OutgoingBody)> {
    let content_type = ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec());
    let response = OutgoingResponse::new(Fields::from_list(&[content_type]).ok()?);
    let body = response.body().ok()?;
    Some((response, body))
}

fn send(body: OutgoingBody, text: &[u8]) -> Option<()> {
    let stream = body.write().ok()?;
    // A new stream has room for far more than this, so there is no need to wait for any.
    stream.check_write().ok()?;
    stream.write(text).ok()?;
    // The stream belongs to the body and must be gone before the body is finished.
    drop(stream);
    OutgoingBody::finish(body, None).ok()
}
