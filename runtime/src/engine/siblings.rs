//! Calls of functions by functions of the same version of the same app: in the process, without a
//! socket, and the only way to those that are private.
//!
//! The callee has an instance, limits, a log and counters of its own, and counts as any other call of
//! it; only the request's id is the caller's, so that a log shows both. It runs in a task of its
//! own, because its computing is not the caller's, and ends when the caller no longer waits.

use super::{Call, Engine, InvokeError, Meter, Program};
use crate::{
    clock,
    functions::routing::{Matched, Routes},
    host::{
        SiblingAnswer,
        outbound::{Ancestry, CALLER, clean, clean_trailers},
    },
    request_id::RequestId,
    telemetry::guest_logs::{Event, RequestEnd},
};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use faas_api::{ErrorBody, ErrorCode, FunctionName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Instant,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, WasiBody};

/// Pieces of an answer that are held until the caller has taken earlier ones.
const PIECES: usize = 1;
/// The status of a call that its caller gave up.
const GIVEN_UP: u16 = 499;
/// The longest method and path in a log line, in bytes.
const MAX_METHOD_BYTES: usize = 64;
const MAX_PATH_BYTES: usize = 1024;

/// What a log line holds of a text; it is escaped when it is read.
fn label(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default()
}

/// The functions of a version, as they know each other. They do not keep each other, nor the engine.
pub(crate) struct Family {
    engine: Weak<Engine>,
    members: ArcSwapOption<Box<[Weak<Program>]>>,
    /// Which of them answers which request.
    routes: Arc<Routes>,
}

impl Family {
    /// Nobody yet.
    pub(crate) fn new(engine: &Arc<Engine>, routes: Arc<Routes>) -> Arc<Self> {
        let (engine, members) = (Arc::downgrade(engine), ArcSwapOption::empty());
        Arc::new(Self { engine, members, routes })
    }

    /// These are its members, in the version's order. They are others when the app's environment changes, and those that
    /// are replaced and still run call the new ones, too.
    pub(crate) fn settle<'a>(&self, members: impl Iterator<Item = &'a Arc<Program>>) {
        self.members.store(Some(Arc::new(members.map(Arc::downgrade).collect())));
    }

    /// What runs them; none while the node ends.
    pub(super) fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.upgrade()
    }

    /// The member of this name.
    pub(super) fn member(&self, name: &str) -> Option<Arc<Program>> {
        let members = self.members.load();
        members.as_ref()?.iter().filter_map(Weak::upgrade).find(|program| {
            let function: &FunctionName = &program.origin().function;
            function.as_str() == name
        })
    }

    /// The member that answers such a request of a client, and how much of the path it does not see.
    /// Routes for one of the app's domains are not asked: the request is for none of them.
    pub(super) fn routed<B>(&self, request: &Request<B>) -> Option<(Arc<Program>, usize)> {
        let (method, path) = (request.method().as_str(), request.uri().path());
        let Matched { function, strip } = self.routes.find("", method, path).ok()?;
        let members = self.members.load();
        Some((members.as_ref()?.get(function)?.upgrade()?, strip))
    }
}

/// Calls a function for another one. It does not see so many bytes of the path.
pub(super) fn call(
    engine: Arc<Engine>,
    (callee, strip): (Arc<Program>, usize),
    caller: &FunctionName,
    (id, ancestry): (RequestId, Ancestry),
    request: Request<WasiBody>,
) -> SiblingAnswer {
    let meter = Arc::<Meter>::default();
    let account = Account::new(callee.clone(), id, meter.clone(), &request);
    let request = for_callee(request, strip, caller, id);
    let call = Call { id, meter, ancestry };
    Box::pin(async move {
        let (head, answered) = oneshot::channel();
        let work = run(engine, callee, call, request, (account, head));
        let task = AbortOnDropHandle::new(tokio::spawn(work));
        let gone = |_| Error::InternalError(Some("the host failed under a function".to_owned()));
        let response = answered.await.map_err(gone)?;
        Ok(response.map(|answer| match answer {
            Answer::Whole(bytes) => {
                // Nothing is left for it to do but to settle the account.
                task.detach();
                Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
            }
            Answer::Pieces(rest) => Passed { rest, _task: task }.boxed_unsync(),
        }))
    })
}

/// Runs the callee, hands over the head of its answer, and then its body.
async fn run(
    engine: Arc<Engine>,
    callee: Arc<Program>,
    call: Call,
    request: Request<WasiBody>,
    (mut account, head): (Account, oneshot::Sender<Response<Answer>>),
) {
    let (id, is_head) = (call.id, request.method() == Method::HEAD);
    let invoked = match limited(request, callee.limits().request_body_bytes) {
        Ok(request) => engine.invoke(&callee, call, request).await.and_then(checked),
        Err(code) => {
            account.fails(code, None);
            let _ = head.send(refusal(code, id));
            return;
        }
    };
    let (parts, body) = match invoked {
        Ok(response) => response.into_parts(),
        Err(error) => {
            let code = error.code();
            account.fails(code, Some(error));
            let _ = head.send(refusal(code, id));
            return;
        }
    };
    account.status = parts.status.as_u16();
    if is_head || body.is_end_stream() {
        account.complete = true;
        let _ = head.send(Response::from_parts(parts, Answer::Whole(Bytes::new())));
        return;
    }
    let (pieces, rest) = mpsc::channel(PIECES);
    let _ = head.send(Response::from_parts(parts, Answer::Pieces(rest)));
    pass_on(body, &pieces, &mut account).await;
}

/// How an answer comes.
enum Answer {
    /// At once.
    Whole(Bytes),
    /// Piece by piece.
    Pieces(mpsc::Receiver<Result<Frame<Bytes>, Error>>),
}

/// The caller's request, as the callee sees it.
fn for_callee(
    request: Request<WasiBody>,
    strip: usize,
    caller: &FunctionName,
    id: RequestId,
) -> Request<WasiBody> {
    let (mut parts, body) = request.into_parts();
    clean(&mut parts.headers);
    let host = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        parts.headers.insert(header::HOST, host);
    }
    parts.headers.insert("x-request-id", id.header());
    if let Ok(caller) = HeaderValue::from_str(caller.as_str()) {
        parts.headers.insert(CALLER, caller);
    }
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let (prefix, rest) = target.split_at_checked(strip).unwrap_or((target, ""));
    if let (1.., Ok(prefix)) = (strip, HeaderValue::from_str(prefix)) {
        parts.headers.insert("x-forwarded-prefix", prefix);
    }
    // All of the path may be taken off; what is left of it is the root.
    let root = if rest.starts_with('/') { "" } else { "/" };
    parts.uri = format!("{root}{rest}").parse().unwrap_or_else(|_| Uri::from_static("/"));
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    Request::from_parts(parts, body)
}

/// Holds the request's body to the callee's limit.
fn limited(request: Request<WasiBody>, limit: u64) -> Result<Request<WasiBody>, ErrorCode> {
    if request.body().size_hint().lower() > limit {
        return Err(ErrorCode::BodyTooLarge);
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(ErrorCode::BodyTooLarge);
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(request.map(|body| {
        let limited = Limited::new(body, limit);
        limited
            .map_frame(clean_trailers)
            .map_err(|error| match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(error) if error.is::<LengthLimitError>() => Error::HttpRequestBodySize(None),
                Err(error) => Error::InternalError(Some(error.to_string())),
            })
            .boxed_unsync()
    }))
}

/// An answer that HTTP allows.
fn checked<B>(mut response: Response<B>) -> Result<Response<B>, InvokeError> {
    if response.status().is_informational() {
        let problem = format!("{} is not the status of an answer", response.status());
        return Err(InvokeError::BadResponse(problem));
    }
    clean(response.headers_mut());
    Ok(response)
}

/// What the caller gets when the callee gives no answer. It sees the code and no more: why stands in
/// the callee's log.
fn refusal(code: ErrorCode, id: RequestId) -> Response<Answer> {
    let mut body = ErrorBody::new(code);
    body.request_id = Some(id.to_string());
    let text = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
    let mut response = Response::new(Answer::Whole(text));
    *response.status_mut() =
        StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers: &mut HeaderMap = response.headers_mut();
    let problem = HeaderValue::from_static("application/problem+json");
    headers.insert(header::CONTENT_TYPE, problem);
    headers.insert("x-faas-error", HeaderValue::from_static(code.as_str()));
    response
}

/// Hands an answer's body to the caller, as fast as that takes it.
async fn pass_on<B>(
    mut body: B,
    pieces: &mpsc::Sender<Result<Frame<Bytes>, Error>>,
    account: &mut Account,
) where
    B: Body<Data = Bytes, Error = InvokeError> + Unpin,
{
    while let Some(piece) = body.frame().await {
        let piece = piece.map(clean_trailers).map_err(|error| {
            account.code = Some(error.code());
            account.failure = Some(error);
            Error::HttpResponseIncomplete
        });
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
    account.complete = true;
}

/// An answer's body. Dropping it cancels the callee.
struct Passed {
    rest: mpsc::Receiver<Result<Frame<Bytes>, Error>>,
    _task: AbortOnDropHandle<()>,
}

impl Body for Passed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.rest.poll_recv(cx)
    }
}

/// A call's account: written into the callee's books when it is over, however that comes.
struct Account {
    callee: Arc<Program>,
    id: RequestId,
    meter: Arc<Meter>,
    started: Instant,
    method: Method,
    path: String,
    /// 0 until there is an answer.
    status: u16,
    code: Option<ErrorCode>,
    failure: Option<InvokeError>,
    complete: bool,
}

impl Account {
    fn new<B>(
        callee: Arc<Program>,
        id: RequestId,
        meter: Arc<Meter>,
        request: &Request<B>,
    ) -> Self {
        Self {
            callee,
            id,
            meter,
            started: Instant::now(),
            method: request.method().clone(),
            path: label(request.uri().path(), MAX_PATH_BYTES).to_owned(),
            status: 0,
            code: None,
            failure: None,
            complete: false,
        }
    }

    /// There is no answer but this.
    fn fails(&mut self, code: ErrorCode, failure: Option<InvokeError>) {
        (self.status, self.code, self.failure) = (code.status(), Some(code), failure);
        self.complete = true;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let (now, duration) = (clock::now(), self.started.elapsed());
        let code = self.code.map(ErrorCode::as_str);
        let code = match self.complete {
            true => code,
            false => Some("client_closed"),
        };
        let status = if self.status == 0 { GIVEN_UP } else { self.status };
        let (cpu, memory_bytes) = (self.meter.cpu(), self.meter.memory_peak());
        let metrics = self.callee.metrics();
        metrics.request(status, duration);
        // Nothing of it went over the network.
        if self.meter.has_begun() {
            metrics.invoked(0, 0);
        }
        let (log, origin) = (self.callee.log(), self.callee.origin());
        if let Some(failure) = &self.failure {
            match failure.is_guests_fault() {
                true => metrics.failure(failure.code().as_str()),
                false => metrics.rejected(failure.code().as_str()),
            }
            log.push(origin, self.id, now, Event::Failure(&failure.to_string()));
        }
        let method = label(self.method.as_str(), MAX_METHOD_BYTES);
        let end = RequestEnd { status, code, duration, cpu, memory_bytes };
        log.push(origin, self.id, now, Event::Request { method, path: &self.path, end });
    }
}
