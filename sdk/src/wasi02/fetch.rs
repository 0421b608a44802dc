//! A request that the function sends, through WASI 0.2.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    FutureIncomingResponse, IncomingBody, IncomingResponse, OutgoingRequest,
};

use super::reactor;
use super::request::{Arriving, Broken, Message};
use super::response::send_body;
use crate::answer::{content_length, headers};
use crate::body::{Content, Incoming};
use crate::convert::{broken_answer, no_answer, to_fields, to_method, to_scheme, unanswered};
use crate::{Body, Bytes, Error, Request, Result};

type Sending = Pin<Box<dyn Future<Output = ()>>>;

/// Sends a request and waits for the head of its answer.
pub(crate) async fn fetch(request: Request) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let request = OutgoingRequest::new(to_fields(&parts.headers)?);
    let refused = |()| unanswered("the host refused the request's address");
    request.set_method(&to_method(&parts.method)).map_err(refused)?;
    request.set_scheme(to_scheme(parts.uri.scheme()).as_ref()).map_err(refused)?;
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    request.set_authority(authority).map_err(refused)?;
    let path = parts.uri.path_and_query().map(|path| path.as_str());
    request.set_path_with_query(path).map_err(refused)?;
    let outgoing = match body.is_end_stream() {
        true => None,
        // Only the first call of this fails.
        false => request.body().ok(),
    };
    let answer = outgoing_handler::handle(request, None).map_err(|code| no_answer(&code))?;
    let mut sending = outgoing
        .map(|outgoing| -> Sending { Box::pin(send_body(body, outgoing, "a request broke off")) });
    // A server may answer before it has read everything, or only then.
    let mut answered = Box::pin(wait(answer));
    let answer = poll_fn(|cx| {
        go_on(&mut sending, cx);
        answered.as_mut().poll(cx)
    });
    let answer = answer.await?;
    received(answer, sending, parts.method == Method::HEAD)
}

async fn wait(answer: FutureIncomingResponse) -> Result<IncomingResponse> {
    loop {
        match answer.get() {
            Some(Ok(Ok(response))) => return Ok(response),
            Some(Ok(Err(code))) => return Err(no_answer(&code)),
            Some(Err(())) => return Err(unanswered("the host has given the answer already")),
            None => reactor::ready(answer.subscribe()).await,
        }
    }
}

fn received(
    answer: IncomingResponse,
    sending: Option<Sending>,
    is_head: bool,
) -> Result<Response<Body>> {
    let status = StatusCode::from_u16(answer.status());
    let status = status.map_err(|_| unanswered("its status is none"))?;
    let fields = headers(answer.headers().entries());
    // The answer to a HEAD tells the length of a body that does not come.
    let length = content_length(&fields).filter(|_| !is_head);
    let arriving = Arriving::new(answer, length);
    let content: Box<dyn Incoming> = match sending {
        None => Box::new(arriving),
        sending => Box::new(Both { sending, arriving }),
    };
    let mut response = Response::new(Body::of(Content::Incoming(content)));
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    Ok(response)
}

impl Message for IncomingResponse {
    fn consume(&self) -> Result<IncomingBody, ()> {
        Self::consume(self)
    }

    fn broken(why: Broken<'_>) -> Error {
        broken_answer(match why {
            Broken::Code(_) => "the server gave up".to_owned(),
            Broken::Other(why) => why,
        })
    }
}

/// An answer's body whose request is still being sent, which goes on while it is read.
struct Both {
    sending: Option<Sending>,
    arriving: Arriving<IncomingResponse>,
}

impl Incoming for Both {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        go_on(&mut self.sending, cx);
        self.arriving.poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.arriving.size_hint()
    }
}

fn go_on(sending: &mut Option<Sending>, cx: &mut Context<'_>) {
    if let Some(body) = sending
        && body.as_mut().poll(cx).is_ready()
    {
        *sending = None;
    }
}
