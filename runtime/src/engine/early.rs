//! The beginning of a response body: as far as it goes without waiting.
//!
//! Most guests write a small body at once. Then the response goes out whole, in one write and with
//! its length; and what fails before that is still a proper error and not a broken answer.

use super::{
    InvokeError,
    body::{GuestBody, Pieces},
    guest::{Guest, body_error},
};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Empty};
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};
use wasmtime_wasi_http::WasiBody;

/// Bytes after which a body streams, although more of it may be there.
const ENOUGH: usize = 64 << 10;
/// The same for the body of a guest that has ended: what it left is bounded already, and with a
/// length it is better.
const ENOUGH_OF_ENDED: usize = 1 << 20;

/// What there is of a body.
#[derive(Default)]
struct Early {
    data: Pieces,
    trailers: Option<HeaderMap>,
}

/// How far a body got.
enum Reached {
    /// Its end.
    End,
    /// A point where more will come later.
    Pause,
}

/// Takes what there is of a body whose head is there; `guest` still runs, if it is given.
///
/// # Errors
/// What fails before the head is sent.
pub(super) fn finish(
    mut body: WasiBody,
    mut guest: Option<Guest>,
    headers: &mut HeaderMap,
) -> Result<GuestBody, InvokeError> {
    // Nobody is woken by what happens here: what is not ready now is polled again as a stream.
    let mut cx = Context::from_waker(Waker::noop());
    let mut early = Early::default();
    loop {
        let before = early.data.len();
        let most = if guest.is_none() { ENOUGH_OF_ENDED } else { ENOUGH };
        let reached = early.read(&mut body, most, &mut cx)?;
        if matches!(reached, Reached::End) {
            drop(body);
            // A guest may wait for nothing but the end of its body.
            if let Some(mut guest) = guest
                && guest.poll(&mut cx)?.is_pending()
            {
                guest.head_sent();
                if guest.is_ending() {
                    // How, is not known yet.
                    let nothing = Empty::new().map_err(|never| match never {}).boxed_unsync();
                    return Ok(GuestBody::streaming(early.data.joined(), nothing, Some(guest)));
                }
                guest.finish_in_background();
            }
            return Ok(early.complete(headers));
        }
        let progress = early.data.len() > before && early.data.len() < ENOUGH;
        match &mut guest {
            // What was read made room for more.
            Some(running) if progress => {
                if running.poll(&mut cx)?.is_ready() {
                    guest = None;
                }
            }
            Some(running) => {
                running.head_sent();
                return Ok(GuestBody::streaming(early.data.joined(), body, guest));
            }
            None => return Ok(GuestBody::streaming(early.data.joined(), body, None)),
        }
    }
}

impl Early {
    /// Reads on, until it has `most` bytes or there are no more.
    fn read(
        &mut self,
        body: &mut WasiBody,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Result<Reached, InvokeError> {
        while self.data.len() < most {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => self.data.push(data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(Some(Err(error))) => return Err(body_error(&error)),
                Poll::Ready(None) => return Ok(Reached::End),
                Poll::Pending => return Ok(Reached::Pause),
            }
        }
        Ok(Reached::Pause)
    }

    fn complete(mut self, headers: &mut HeaderMap) -> GuestBody {
        let trailers = self.trailers.take();
        if let Some(trailers) = &trailers {
            announce(trailers, headers);
        }
        GuestBody::complete(self.data.joined(), trailers)
    }
}

/// Names the trailers in the head, as RFC 9110 §6.6.2 asks for: HTTP/1.1 sends no others.
fn announce(trailers: &HeaderMap, headers: &mut HeaderMap) {
    if headers.contains_key(header::TRAILER) {
        return;
    }
    for name in trailers.keys() {
        headers.append(header::TRAILER, HeaderValue::from(name.clone()));
    }
}
