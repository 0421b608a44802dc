//! One request, top to bottom: its id, is it HTTP, whose is it, which version, what does the guest
//! get to see, call it, answer. Errors become responses here and nowhere else.

use super::{
    backend::{Asked, Backend, Found, Function, Missed},
    body::RequestBody,
    check::{self, RequestLimits},
    connection::Serve,
    forward::{self, Said},
    guard::{self, Denied, Guards, cors},
    meter::{Answer, Books, Ticket, panicked},
    proxies::{self, Client, Proxies},
    respond,
};
use crate::{
    engine::{Ancestry, Call, InvokeError},
    functions::guard::Guard,
    request_id::RequestId,
};
use bytes::Bytes;
use faas_api::ErrorCode;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Up to so many bytes of targets and values are kept as they came.
const SMALL_HEAD: usize = 4 << 10;

/// What every request needs.
pub(super) struct Shared<B> {
    pub(super) backend: B,
    pub(super) books: Arc<Books>,
    pub(super) limits: RequestLimits,
    /// How long a request's body may pause.
    pub(super) body_idle: Duration,
    /// The host that a request is for which names none.
    pub(super) default_host: HeaderValue,
    /// `http` or `https`: what clients speak.
    pub(super) scheme: &'static str,
    /// Proxies that are believed.
    pub(super) proxies: Proxies,
    /// What functions with guards need.
    pub(super) guards: Guards,
}

/// The requests of one connection.
pub(super) struct Visit<B>(Arc<Visitor<B>>);

struct Visitor<B> {
    shared: Arc<Shared<B>>,
    peer: IpAddr,
    /// The peer's address, as `x-forwarded-for` carries it.
    address: HeaderValue,
    /// The peer is a proxy whose word is taken.
    is_trusted: bool,
    /// The name that it asked for in its TLS handshake.
    name: OnceLock<Box<str>>,
}

impl<B> Visitor<B> {
    /// Who sent a request.
    fn client(&self, headers: &HeaderMap) -> Client {
        match self.is_trusted {
            true => self.shared.proxies.client(self.peer, headers),
            false => {
                Client { ip: self.peer, address: self.address.clone(), scheme: None, host: None }
            }
        }
    }

    /// What a request is known by.
    fn request_id(&self, headers: &HeaderMap) -> RequestId {
        let given = self.is_trusted.then(|| proxies::request_id(headers)).flatten();
        given.unwrap_or_else(RequestId::new)
    }
}

impl<B: Backend> Visit<B> {
    pub(super) fn new(shared: Arc<Shared<B>>, peer: SocketAddr) -> Self {
        let peer = peer.ip().to_canonical();
        let Client { address, .. } = Client::of_connection(peer);
        let is_trusted = shared.proxies.trust(peer);
        Self(Arc::new(Visitor { shared, peer, address, is_trusted, name: OnceLock::new() }))
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

    fn is_named(&self, name: &str) {
        // A proxy may ask for one name and send requests for many hosts.
        if !self.0.is_trusted {
            let _ = self.0.name.set(name.into());
        }
    }

    fn refuse(&self, code: ErrorCode) -> Bytes {
        refuse::<B>(&self.0.shared, code)
    }
}

/// A whole response to what is no request, and so has no method and no path.
pub(super) fn refuse<B: Backend>(shared: &Shared<B>, code: ErrorCode) -> Bytes {
    let method = Method::from_bytes(b"-").unwrap_or_default();
    let uri = Uri::from_static("*");
    let mut ticket =
        Ticket::<B::Function>::new(shared.books.clone(), RequestId::new(), method, uri);
    let response = respond::error(code, None, ticket.labels());
    ticket.fails(code, None);
    ticket.answers(response.status().as_u16());
    let raw = respond::raw(&response);
    drop(Answer::<B::Body, _>::own(response.into_body(), ticket));
    raw
}

/// Why a request has no answer of a guest.
pub(super) struct Failure {
    code: ErrorCode,
    /// For the client.
    detail: Option<&'static str>,
    /// For the log.
    cause: Option<InvokeError>,
    /// What goes with the code.
    field: Option<(HeaderName, HeaderValue)>,
    /// Whether what follows on the connection can be trusted to be a request.
    close: bool,
}

impl Failure {
    pub(super) fn new(code: ErrorCode) -> Self {
        Self { code, detail: None, cause: None, field: None, close: false }
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
    Preflight(HeaderMap),
}

type Ended<B> = Response<Answer<<B as Backend>::Body, <B as Backend>::Function>>;

/// Answers one request. Cannot fail: every error becomes a response here.
async fn handle<B: Backend>(visitor: Arc<Visitor<B>>, request: Request<Incoming>) -> Ended<B> {
    let shared = &visitor.shared;
    let id = visitor.request_id(request.headers());
    let is_http1 = request.version() != Version::HTTP_2;
    let (method, uri) = (request.method().clone(), uri_to_keep(&request, is_http1));
    let mut ticket = Ticket::new(shared.books.clone(), id, method, uri);
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
        Ok(Outcome::Preflight(fields)) => {
            let response = respond::preflight(fields, ticket.labels());
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

/// The target of a request, which is kept until its answer has ended. As it came it would keep all
/// that was read with it; an answer may wait for its client for long, and over HTTP/2 many of them.
fn uri_to_keep<B>(request: &Request<B>, is_http1: bool) -> Uri {
    let uri = request.uri();
    let bytes = || request.headers().values().map(HeaderValue::len).sum::<usize>();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let copied = match is_http1 && target + bytes() < SMALL_HEAD {
        true => None,
        false => Uri::try_from(uri.to_string()).ok(),
    };
    copied.unwrap_or_else(|| uri.clone())
}

/// Finds the function and calls it.
async fn answer<B: Backend>(
    visitor: &Visitor<B>,
    ticket: &mut Ticket<B::Function>,
    mut request: Request<RequestBody>,
) -> Result<Outcome<B::Body>, Failure> {
    let shared = &visitor.shared;
    let host = check::check(&request, &shared.limits)?;
    if visitor.name.get().is_some_and(|name| !check::is_name_of(host, name)) {
        return Err(Failure::new(ErrorCode::MisdirectedRequest));
    }
    let (path, method) = (request.uri().path(), request.method());
    let asked = Asked { host, path, method, headers: request.headers() };
    if let Some(wanted) = cors::asks_for(method, asked.headers)
        && let Some(answer) = preflight(shared, ticket, Asked { method: &wanted, ..asked })
    {
        return answer.map(Outcome::Preflight);
    }
    let Found { function, prefix, strip, stay } = shared.backend.find(asked)?;
    let limit = function.body_limit();
    let guard = function.guard().cloned();
    let enters = path.len() > prefix;
    ticket.is_for(function, prefix, strip);
    ticket.stays(stay);
    if !enters && prefix > 0 {
        let to = forward::with_slash(request.uri());
        return to.map(Outcome::Redirect).ok_or_else(|| Failure::new(ErrorCode::BadRequest));
    }
    let client = visitor.client(request.headers());
    let caller = match guard {
        // Boxed, so that requests of other functions do not carry it.
        Some(guard) => {
            let asks = Box::pin(admit(visitor, ticket, &guard, client.ip, request.headers_mut()));
            asks.await?
        }
        None => None,
    };
    request.body_mut().limit(limit).map_err(Failure::new)?;
    let (mut head, body) = request.into_parts();
    let said = Said {
        id: ticket.id_header().clone(),
        client: client.address,
        host: client.host,
        default_host: &shared.default_host,
        scheme: client.scheme.unwrap_or(shared.scheme),
        prefix: prefix + strip,
    };
    forward::for_guest(&mut head, said)?;
    if let Some(caller) = caller {
        head.headers.insert(guard::CALLER, caller);
    }
    let response = invoke(&shared.backend, ticket, Request::from_parts(head, body)).await;
    // Whatever the guest made of a body that failed: the client is at fault and shall know it.
    match ticket.flow().and_then(|flow| flow.fault()) {
        Some(code) => Err(Failure::new(code)),
        None => Ok(Outcome::Guest(response?)),
    }
}

/// What the browser of a page is told that asks whether it may send a request; nothing if that is
/// the function's own affair. A route can be for one method only, so that it is found by the method
/// that the request would have.
fn preflight<B: Backend>(
    shared: &Shared<B>,
    ticket: &mut Ticket<B::Function>,
    asked: Asked<'_>,
) -> Option<Result<HeaderMap, Failure>> {
    let Found { function, prefix, strip, .. } = shared.backend.find(asked).ok()?;
    let guard = function.guard()?.clone();
    let rules = guard.cors.as_ref()?;
    ticket.is_for(function, prefix, strip);
    let refused = || Failure::new(ErrorCode::ForbiddenOrigin);
    Some(cors::preflight(rules, asked.headers).ok_or_else(refused))
}

/// Asks the guard of a function whether a request may pass, and who sends it.
async fn admit<B: Backend>(
    visitor: &Visitor<B>,
    ticket: &mut Ticket<B::Function>,
    guard: &Guard,
    client: IpAddr,
    headers: &mut HeaderMap,
) -> Result<Option<HeaderValue>, Failure> {
    if let Some(rules) = &guard.cors {
        // A page shall be able to read why its request was refused.
        ticket.tells(cors::told(rules, headers));
    }
    let admitted = visitor.shared.guards.admit(guard, headers, client).await;
    admitted.map_err(|Denied { code, detail, field, note }| {
        ticket.notes(note);
        Failure { detail: Some(detail), field, ..Failure::new(code) }
    })
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
pub(super) fn fail<B, F: Function>(
    failure: Failure,
    mut ticket: Box<Ticket<F>>,
) -> Response<Answer<B, F>> {
    ticket.fails(failure.code, failure.cause);
    let mut response = respond::error(failure.code, failure.detail, ticket.labels());
    if let Some((name, value)) = failure.field {
        response.headers_mut().insert(name, value);
    }
    own(response, ticket)
}

/// Sends a response of the node's own.
pub(super) fn own<B, F: Function>(
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
