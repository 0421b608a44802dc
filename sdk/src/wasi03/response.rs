//! A response, as WASI 0.3 takes it.

use wasip3::http::types::{self, ErrorCode, Fields};
use wasip3::wit_bindgen::{FutureWriter, StreamReader, StreamWriter};
use wasip3::{wit_future, wit_stream};

use super::request::Trailers;
use crate::background;
use crate::body::Content;
use crate::convert::to_fields;
use crate::pump::{End, Gone, Sink, pump};
use crate::{Body, Bytes, Error, Response, Result};

/// Bytes that others hold too must be copied to be written; that many at once at most, so that a
/// large file built into the function is never there twice.
const COPY_SIZE: usize = 1024 * 1024;

/// Gives a response to the host, and goes on sending its body in the background.
pub(crate) fn send(response: Response) -> types::Response {
    let (parts, body) = response.into_parts();
    match to_fields(&parts.headers) {
        Ok(headers) => {
            let response = with_body(headers, body);
            // A new response is a 200 by itself. Any other status that HTTP knows is accepted.
            if parts.status != 200 && response.set_status_code(parts.status.as_u16()).is_err() {
                return refused(Error::internal(format_args!(
                    "the host refused the status {}",
                    parts.status
                )));
            }
            response
        }
        Err(error) => refused(error),
    }
}

/// What the client gets instead of a response that the host does not take.
fn refused(error: Error) -> types::Response {
    let (parts, body) = error.into_text().into_parts();
    let headers = to_fields(&parts.headers).unwrap_or_else(|_| Fields::new());
    let response = with_body(headers, body);
    // If even this is refused, the client sees the text with another status.
    let _ = response.set_status_code(parts.status.as_u16());
    response
}

fn with_body(headers: Fields, body: Body) -> types::Response {
    let (stream, trailers) = outgoing(body, "the response broke off");
    // The second value tells how the transmission ended. There would be nobody to tell it to.
    types::Response::new(headers, stream, trailers).0
}

/// Both ends of a body for the host, which is sent in the background; `broken` is what the log says
/// if it comes to no end.
pub(super) fn outgoing(body: Body, broken: &'static str) -> (Option<StreamReader<u8>>, Trailers) {
    let (content, trailers) = body.into_parts();
    match (content, trailers) {
        (Content::Empty, None) => (None, wit_future::new(|| Ok(None)).1),
        (Content::Incoming(incoming), None) => match incoming.untouched() {
            Ok(open) => (Some(open.stream), open.trailers),
            Err(incoming) => streamed(Body::of(Content::Incoming(incoming)), broken),
        },
        (content, None) => streamed(Body::of(content), broken),
        (content, Some(trailers)) => streamed(Body::of(content).with_trailers(trailers), broken),
    }
}

fn streamed(body: Body, broken: &'static str) -> (Option<StreamReader<u8>>, Trailers) {
    let (stream_writer, stream) = wit_stream::new();
    let (end_writer, end) = wit_future::new(|| Ok(None));
    background::start(send_body(body, stream_writer, end_writer, broken));
    (Some(stream), end)
}

async fn send_body(
    body: Body,
    stream: StreamWriter<u8>,
    end_writer: FutureWriter<Result<Option<Fields>, ErrorCode>>,
    broken: &'static str,
) {
    let mut stream = Outgoing(stream);
    let end = pump(body, &mut stream).await;
    // First the stream must end, or nobody will look at what follows.
    drop(stream);
    match end {
        // Dropping the writer says "complete, and no trailers".
        End::Complete(None) | End::Gone => {}
        End::Complete(Some(trailers)) => match to_fields(&trailers) {
            Ok(trailers) => drop(end_writer.write(Ok(Some(trailers))).await),
            Err(error) => error.log(broken),
        },
        End::Broken(error) => {
            error.log(broken);
            drop(end_writer.write(Err(ErrorCode::InternalError(None))).await);
        }
    }
}

struct Outgoing(StreamWriter<u8>);

impl Sink for Outgoing {
    async fn write(&mut self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let part = if data.is_unique() {
                std::mem::take(&mut data)
            } else {
                data.split_to(data.len().min(COPY_SIZE))
            };
            if !self.0.write_all(part.into()).await.is_empty() {
                return Err(Gone);
            }
        }
        Ok(())
    }
}
