//! A response, as WASI 0.2 takes it.

use http::{HeaderMap, StatusCode};
use wasip2::http::types::{self, Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::OutputStream;

use super::reactor;
use crate::answer::fields;
use crate::pump::{End, Gone, Sink, pump};
use crate::{Body, Bytes, Error, Response, Result};

/// Gives a response to the host, and then its body.
pub(crate) async fn send(response: Response, outparam: ResponseOutparam) {
    let (parts, body) = response.into_parts();
    let (response, body) =
        match head(&parts.headers).and_then(|head| with_status(head, parts.status)) {
            Ok(response) => (response, body),
            Err(error) => refused(error),
        };
    // Only the first call of this fails.
    let Ok(outgoing) = response.body() else {
        return;
    };
    ResponseOutparam::set(outparam, Ok(response));
    send_body(body, outgoing).await;
}

/// What the client gets instead of a response that the host does not take.
fn refused(error: Error) -> (OutgoingResponse, Body) {
    let (parts, body) = error.into_text().into_parts();
    let response = OutgoingResponse::new(Fields::new());
    // If even this is refused, the client sees the text with another status.
    let _ = response.set_status_code(parts.status.as_u16());
    (response, body)
}

fn with_status(headers: Fields, status: StatusCode) -> Result<OutgoingResponse> {
    let response = OutgoingResponse::new(headers);
    // A new response is a 200 by itself.
    if status != 200 && response.set_status_code(status.as_u16()).is_err() {
        return Err(Error::internal(format_args!(
            "the host refused the status {status}"
        )));
    }
    Ok(response)
}

fn head(headers: &HeaderMap) -> Result<Fields> {
    if headers.is_empty() {
        return Ok(Fields::new());
    }
    Fields::from_list(&fields(headers)).map_err(|error| culprit(headers, &error))
}

/// Finds the header that the host refused, since it does not say.
fn culprit(headers: &HeaderMap, error: &types::HeaderError) -> Error {
    let probe = Fields::new();
    let name = headers.iter().find_map(|(name, value)| {
        probe
            .append(name.as_str(), value.as_bytes())
            .err()
            .map(|_| name.as_str())
    });
    let name = name.unwrap_or("?");
    Error::internal(format_args!(
        "the host refused the response's header `{name}`: {error:?}"
    ))
}

async fn send_body(body: Body, outgoing: OutgoingBody) {
    let Ok(stream) = outgoing.write() else { return };
    let mut stream = Outgoing(stream);
    let end = pump(body, &mut stream).await;
    // The stream belongs to the body and must be gone before it is finished.
    drop(stream);
    let finished = match end {
        // A body that is dropped unfinished breaks off at the client too.
        End::Gone => return,
        End::Broken(error) => return error.log(),
        End::Complete(None) => OutgoingBody::finish(outgoing, None),
        End::Complete(Some(trailers)) => match head(&trailers) {
            Ok(trailers) => OutgoingBody::finish(outgoing, Some(trailers)),
            Err(error) => return error.log(),
        },
    };
    if let Err(code) = finished {
        Error::internal(format_args!("the body could not be finished: {code:?}")).log();
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

impl std::fmt::Debug for super::Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}
