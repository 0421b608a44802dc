//! One request, top to bottom: its id, is it HTTP, whose is it, which version, what does the guest
//! get to see, call it, answer. Errors become responses here and nowhere else.

use super::{
    backend::{Asked, Backend, Found, Function, Missed},
    body::RequestBody,
    check::{self, RequestLimits},
    connection::Serve,
    forward::{self, Said},
    meter::{Answer, Books, Ticket, panicked},
    respond,
};
use crate::engine::{Ancestry, Call, InvokeError};
use bytes::Bytes;
use faas_api::ErrorCode;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use std::{
    convert::Infallible, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

/// What every request needs.
pub(super) struct Shared<B> {
    pub(super) backend: B,
    pub(super) books: Arc<Books>,
    pub(super) limits: RequestLimits,
    /// How long a request's body may pause.
    pub(super) body_idle: Duration,
    /// The host that a request is for which names none.
    pub(super) default_host: HeaderValue,
}

/// The requests of one connection.
pub(super) struct Visit<B>(Arc<Visitor<B>>);

struct Visitor<B> {
    shared: Arc<Shared<B>>,
    /// The client's address, as `x-forwarded-for` carries it.
    address: HeaderValue,
}

impl<B: Backend> Visit<B> {
    pub(super) fn new(shared: Arc<Shared<B>>, peer: SocketAddr) -> Self {
        // An address is visible ASCII.
        let address = HeaderValue::from_str(&peer.ip().to_canonical().to_string());
        let address = address.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self(Arc::new(Visitor { shared, address }))
    }
}

impl<B: Backend> Serve for Visit<B> {
    type Body = Answer<B::Body, B::Function>;

    fn serve(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static {
        handle(self.0.clone(), request).map(Ok)
    }

    fn refuse(&self, code: ErrorCode) -> Bytes {
        // There is no request, and so no method and no path.
        let method = Method::from_bytes(b"-").unwrap_or_default();
        let uri = Uri::from_static("*");
        let mut ticket = Ticket::<B::Function>::new(self.0.shared.books.clone(), method, uri);
        let response = respond::error(code, None, ticket.labels());
        ticket.fails(code, None);
        ticket.answers(response.status().as_u16());
        let raw = respond::raw(&response);
        drop(Answer::<B::Body, _>::own(response.into_body(), ticket));
        raw
    }
}

/// Why a request has no answer of a guest.
struct Failure {
    code: ErrorCode,
    /// For the client.
    detail: Option<&'static str>,
    /// For the log.
    cause: Option<InvokeError>,
    /// Whether what follows on the connection can be trusted to be a request.
    close: bool,
}

impl Failure {
    fn new(code: ErrorCode) -> Self {
        Self { code, detail: None, cause: None, close: false }
    }
}

impl From<check::Refused> for Failure {
    fn from(refused: check::Refused) -> Self {
        Self { detail: Some(refused.detail), close: true, ..Self::new(refused.code) }
    }
}

impl From<Missed> for Failure {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Address => Self::new(ErrorCode::NotFound),
            Missed::Method => Self {
                detail: Some("there is something at this address, for other methods"),
                ..Self::new(ErrorCode::MethodNotAllowed)
            },
        }
    }
}

impl From<InvokeError> for Failure {
    fn from(cause: InvokeError) -> Self {
        let code = cause.code();
        Self { cause: Some(cause), ..Self::new(code) }
    }
}

/// Where a request ended.
enum Outcome<B> {
    Guest(Response<B>),
    Redirect(HeaderValue),
}

type Ended<B> = Response<Answer<<B as Backend>::Body, <B as Backend>::Function>>;

/// Answers one request. Cannot fail: every error becomes a response here.
async fn handle<B: Backend>(visitor: Arc<Visitor<B>>, request: Request<Incoming>) -> Ended<B> {
    let shared = &visitor.shared;
    let mut ticket =
        Ticket::new(shared.books.clone(), request.method().clone(), request.uri().clone());
    let is_http1 = request.version() != Version::HTTP_2;
    let expects = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let (body, flow) = RequestBody::new(body, shared.body_idle, expects);
    ticket.watches(flow.clone());
    let result = answer(&visitor, &mut ticket, Request::from_parts(head, body)).await;
    let (mut response, close) = match result {
        Ok(Outcome::Guest(response)) => (finish(response, ticket), false),
        Ok(Outcome::Redirect(to)) => {
            let response = respond::redirect(to, ticket.labels());
            (own(response, ticket), false)
        }
        Err(failure) => {
            let close = failure.close;
            (fail(failure, ticket), close)
        }
    };
    // By now nobody reads what is left of the request, unless the guest still runs.
    if is_http1 && (close || flow.is_some_and(|flow| flow.is_left_unread())) {
        respond::close(response.headers_mut());
    }
    response
}

/// Finds the function and calls it.
async fn answer<B: Backend>(
    visitor: &Visitor<B>,
    ticket: &mut Ticket<B::Function>,
    mut request: Request<RequestBody>,
) -> Result<Outcome<B::Body>, Failure> {
    let shared = &visitor.shared;
    let host = check::check(&request, &shared.limits)?;
    let (path, method) = (request.uri().path(), request.method());
    let asked = Asked { host, path, method, headers: request.headers() };
    let Found { function, prefix, strip, stay } = shared.backend.find(asked)?;
    let limit = function.body_limit();
    let enters = path.len() > prefix;
    ticket.is_for(function, prefix, strip);
    ticket.stays(stay);
    if !enters && prefix > 0 {
        let to = forward::with_slash(request.uri());
        return to.map(Outcome::Redirect).ok_or_else(|| Failure::new(ErrorCode::BadRequest));
    }
    request.body_mut().limit(limit).map_err(Failure::new)?;
    let (mut head, body) = request.into_parts();
    let said = Said {
        id: ticket.id_header().clone(),
        client: visitor.address.clone(),
        default_host: &shared.default_host,
        prefix: prefix + strip,
    };
    forward::for_guest(&mut head, said)?;
    let response = invoke(&shared.backend, ticket, Request::from_parts(head, body)).await;
    // Whatever the guest made of a body that failed: the client is at fault and shall know it.
    match ticket.flow().and_then(|flow| flow.fault()) {
        Some(code) => Err(Failure::new(code)),
        None => Ok(Outcome::Guest(response?)),
    }
}

/// Calls the function. A defect of the host in one request is that request's failure and no
/// other's.
async fn invoke<B: Backend>(
    backend: &B,
    ticket: &mut Ticket<B::Function>,
    request: Request<RequestBody>,
) -> Result<Response<B::Body>, InvokeError> {
    let (id, meter) = (ticket.id(), ticket.meters());
    let call = Call { id, meter, ancestry: Ancestry::of(request.headers())? };
    let Some(function) = ticket.function() else {
        return Err(InvokeError::NoResponse);
    };
    AssertUnwindSafe(backend.invoke(function, call, request))
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// Sends a guest's response, if HTTP allows it.
fn finish<B, F>(response: Response<B>, mut ticket: Box<Ticket<F>>) -> Response<Answer<B, F>>
where
    B: http_body::Body,
    F: Function,
{
    let (mut head, body) = response.into_parts();
    match respond::clean(&mut head, ticket.method(), &body.size_hint()) {
        Ok(content) => {
            respond::label(&mut head, ticket.labels());
            ticket.answers(head.status.as_u16());
            Response::from_parts(head, Answer::of_guest(body, content, ticket))
        }
        Err(problem) => {
            drop(body);
            fail(InvokeError::BadResponse(problem).into(), ticket)
        }
    }
}

/// Says what went wrong.
fn fail<B, F: Function>(failure: Failure, mut ticket: Box<Ticket<F>>) -> Response<Answer<B, F>> {
    ticket.fails(failure.code, failure.cause);
    own(respond::error(failure.code, failure.detail, ticket.labels()), ticket)
}

/// Sends a response of the node's own.
fn own<B, F: Function>(
    response: Response<Bytes>,
    mut ticket: Box<Ticket<F>>,
) -> Response<Answer<B, F>> {
    let (mut head, mut body) = response.into_parts();
    ticket.answers(head.status.as_u16());
    if ticket.method() == Method::HEAD && !body.is_empty() {
        set_length(&mut head.headers, body.len());
        body = Bytes::new();
    }
    Response::from_parts(head, Answer::own(body, ticket))
}

fn set_length(headers: &mut HeaderMap, length: usize) {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}
