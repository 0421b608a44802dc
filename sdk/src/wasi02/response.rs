//! A response, as WASI 0.2 takes it.

use http::StatusCode;
use wasip2::http::types::{self, Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::OutputStream;

use super::reactor;
use crate::convert::to_fields;
use crate::pump::{End, Gone, Sink, pump};
use crate::{Body, Bytes, Error, Response, Result};

/// Gives a response to the host, and then its body.
pub(crate) async fn send(response: Response, outparam: ResponseOutparam) {
    let (parts, body) = response.into_parts();
    let (response, body) =
        match to_fields(&parts.headers).and_then(|fields| with_status(fields, parts.status)) {
            Ok(response) => (response, body),
            Err(error) => refused(error),
        };
    // Only the first call of this fails.
    let Ok(outgoing) = response.body() else {
        return;
    };
    ResponseOutparam::set(outparam, Ok(response));
    send_body(body, outgoing, "the response broke off").await;
}

/// What the client gets instead of a response that the host does not take.
fn refused(error: Error) -> (OutgoingResponse, Body) {
    let (parts, body) = error.into_text().into_parts();
    let headers = to_fields(&parts.headers).unwrap_or_else(|_| Fields::new());
    let response = OutgoingResponse::new(headers);
    // If even this is refused, the client sees the text with another status.
    let _ = response.set_status_code(parts.status.as_u16());
    (response, body)
}

fn with_status(headers: Fields, status: StatusCode) -> Result<OutgoingResponse> {
    let response = OutgoingResponse::new(headers);
    // A new response is a 200 by itself.
    if status != 200 && response.set_status_code(status.as_u16()).is_err() {
        return Err(Error::internal(format_args!("the host refused the status {status}")));
    }
    Ok(response)
}

/// Sends a body to its end; `broken` is what the log says if it has none.
pub(super) async fn send_body(body: Body, outgoing: OutgoingBody, broken: &'static str) {
    let Ok(stream) = outgoing.write() else { return };
    let mut stream = Outgoing(stream);
    let end = pump(body, &mut stream).await;
    // The stream belongs to the body and must be gone before it is finished.
    drop(stream);
    let finished = match end {
        // A body that is dropped unfinished breaks off at the client too.
        End::Gone => return,
        End::Broken(error) => return error.log(broken),
        End::Complete(None) => OutgoingBody::finish(outgoing, None),
        End::Complete(Some(trailers)) => match to_fields(&trailers) {
            Ok(trailers) => OutgoingBody::finish(outgoing, Some(trailers)),
            Err(error) => return error.log(broken),
        },
    };
    if let Err(code) = finished {
        Error::internal(unfinished(&code)).log(broken);
    }
}

fn unfinished(code: &types::ErrorCode) -> &'static str {
    match code {
        types::ErrorCode::HttpResponseBodySize(_) => "the body does not have its `content-length`",
        _ => "the host refused the end of the body",
    }
}

struct Outgoing(OutputStream);

impl Sink for Outgoing {
    async fn write(&mut self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let room = self.0.check_write().map_err(|_| Gone)?;
            if room == 0 {
                reactor::ready(self.0.subscribe()).await;
                continue;
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let part = data.split_to(data.len().min(room));
            self.0.write(&part).map_err(|_| Gone)?;
        }
        Ok(())
    }
}
