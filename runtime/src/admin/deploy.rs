//! `POST /v1/apps/{app}/deploy`: the body is the artifact, and the answer is how it went.

use super::{
    Api, State,
    audit::{Audit, Later},
    auth::Principal,
    error::ApiError,
    extract::{self, AppPath, Query},
    openapi::{self, AppWrite, Upload as UploadProblems},
};
use crate::{
    deploy::{AppDeploy, DeployError, DeployRequest, Deployer, Outcome, Progress, Upload},
    request_id::RequestId,
};
use async_trait::async_trait;
use axum::{
    Json,
    body::{Body, HttpBody as _},
    extract::Request,
    http::{Extensions, HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use faas_api::{DeployEvent, Deployed, Digest, ErrorBody, ErrorCode, FunctionName, Reuse, Stored};
use futures::{FutureExt as _, Stream, StreamExt as _, TryFutureExt as _, stream};
use http_body_util::BodyStream;
use serde::{Deserialize, Serialize};
use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;
use utoipa::IntoParams;

/// The media type of one JSON document per line.
pub(super) const NDJSON: &str = "application/x-ndjson";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest message of a deploy, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Who deploys: the two verbs of a deployer that the API uses.
#[async_trait]
pub(crate) trait Deploys: Send + Sync {
    /// Takes an artifact and makes it a version. All or nothing.
    async fn deploy(
        &self,
        request: DeployRequest,
        upload: Upload,
        progress: Progress,
    ) -> Result<Deployed, DeployError>;

    /// Makes a version of artifacts that are here, or tells which are not. All or nothing.
    async fn deploy_app(
        &self,
        deploy: AppDeploy,
        progress: Progress,
    ) -> Result<Outcome, DeployError>;

    /// Takes an artifact that a deploy will name, from a token of this name.
    async fn store(&self, digest: Digest, by: &str, upload: Upload) -> Result<Stored, DeployError>;

    /// Removes what no kept version refers to.
    async fn sweep(&self) -> Result<usize, DeployError>;
}

#[async_trait]
impl Deploys for Deployer {
    async fn deploy(
        &self,
        request: DeployRequest,
        upload: Upload,
        progress: Progress,
    ) -> Result<Deployed, DeployError> {
        self.deploy(request, upload, progress).await
    }

    async fn deploy_app(
        &self,
        deploy: AppDeploy,
        progress: Progress,
    ) -> Result<Outcome, DeployError> {
        self.deploy_app(deploy, progress).await
    }

    async fn store(&self, digest: Digest, by: &str, upload: Upload) -> Result<Stored, DeployError> {
        self.store(digest, by, upload).await
    }

    async fn sweep(&self) -> Result<usize, DeployError> {
        self.sweep().await
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeployQuery {
    /// What the function is called; `main` when nothing is said.
    #[param(example = "main", pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length = 40)]
    function: Option<String>,
    /// Whether the version becomes live.
    #[serde(default = "yes")]
    #[param(default = true)]
    activate: bool,
    /// What is deployed, in one line.
    #[param(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    message: Option<String>,
    /// Lets an instance serve so many requests; without it each request has its own.
    #[param(minimum = 2, maximum = 1_000_000)]
    reuse_requests: Option<u32>,
    /// How many of them at once; only WASI 0.3 can more than 1.
    #[param(minimum = 1, maximum = 1000, default = 1)]
    reuse_concurrency: Option<u32>,
    /// How long an instance waits for its next request, in milliseconds.
    #[param(minimum = 1, maximum = 3_600_000, default = 10_000)]
    reuse_idle_ms: Option<u64>,
}

impl DeployQuery {
    fn reuse(&self) -> Result<Option<Reuse>, ApiError> {
        let refused = |why: String| Err(ApiError::new(ErrorCode::Unprocessable).detail(why));
        let Some(requests) = self.reuse_requests else {
            if self.reuse_concurrency.is_some() || self.reuse_idle_ms.is_some() {
                return refused("reuse: `reuse_requests` is missing".to_owned());
            }
            return Ok(None);
        };
        let mut reuse = Reuse::of(requests);
        reuse.concurrency = self.reuse_concurrency.unwrap_or(reuse.concurrency);
        reuse.idle_ms = self.reuse_idle_ms.unwrap_or(reuse.idle_ms);
        match reuse.check(None) {
            Ok(()) => Ok(Some(reuse)),
            Err(why) => refused(why),
        }
    }
}

fn yes() -> bool {
    true
}

/// Deploy one artifact as one function
///
/// The body is the Wasm file as it is. With `accept: application/x-ndjson` the answer is one
/// document per step while it happens; the last one is `done` or `failed`.
#[utoipa::path(post, path = "/v1/apps/{app}/deploy", operation_id = "deploy", tag = "apps",
    security(("bearer" = ["deploy"])),
    params(openapi::App, DeployQuery, openapi::IdempotencyKey),
    request_body(description = "The artifact.", content(
        (openapi::Binary = "application/wasm"),
        (openapi::Binary = "application/octet-stream"),
        (openapi::Binary = "application/x-www-form-urlencoded"))),
    responses(
        (status = 201, description = "The version is stored and, unless asked otherwise, live.",
            body = Deployed, headers(
                ("location" = String, description = "The address of the version."))),
        (status = 200, description = "The steps, one JSON document per line.",
            body = DeployEvent, content_type = "application/x-ndjson"),
        AppWrite, UploadProblems))]
pub(super) async fn deploy(
    axum::extract::State(api): State,
    principal: Principal,
    AppPath(app): AppPath,
    Query(query): Query<DeployQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let deploy = UnderWay::begin(&api, request.extensions())?;
    check_media_type(request.headers())?;
    let length = request.body().size_hint().exact();
    let limit = api.parts.max_artifact_bytes;
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let wanted = DeployRequest {
        app,
        function: function(query.function.as_deref())?,
        reuse: query.reuse()?,
        message: message(query.message)?,
        activate: query.activate,
        created_by: principal.to_string(),
        key: idempotency_key(request.headers())?,
    };
    let id = deploy.id;
    let events_wanted = extract::accepts(request.headers(), NDJSON);
    let end = Arc::<OnceLock<UploadEnd>>::default();
    let upload =
        upload(request.into_body(), Expected { length, limit }, api.patience.body, end.clone());
    let (progress, mut events) = mpsc::unbounded_channel();
    // A task of its own: once the upload is complete, the deploy does not depend on the client.
    let deploying = async move {
        let deploying = api.parts.deployer.deploy(wanted, upload, progress);
        let deploying = deploying.map_ok(|deployed| Outcome::Deployed(Box::new(deployed)));
        deploy.run(&api, deploying, |ended| outcome(ended, end.get(), limit)).await
    };
    let deploying = tokio::spawn(deploying.in_current_span());
    if events_wanted {
        // The first event comes when the upload is complete. Until then the head is not sent: not
        // every client reads while it writes.
        let first = events.recv().await;
        return Ok(told(first, events, deploying, id));
    }
    Ok(answer(joined(deploying.await)?))
}

/// A deploy that the drain waits for.
pub(super) struct UnderWay {
    _token: TaskTrackerToken,
    /// Its outcome may come long after its answer began.
    record: Option<Later>,
    pub(super) id: RequestId,
}

impl UnderWay {
    /// Begins a deploy, or refuses it because the node stops.
    pub(super) fn begin(api: &Api, extensions: &Extensions) -> Result<Self, ApiError> {
        // Taken before the look at the switch, so that the drain sees this deploy or it sees the
        // drain.
        let token = api.deploys.token();
        if api.shutdown.is_draining() || api.parts.readiness.is_draining() {
            return Err(ApiError::shutting_down());
        }
        let id = extract::request_id(extensions)?;
        Ok(Self { _token: token, record: Audit::of(extensions)?.later(), id })
    }

    /// Runs it to its end, wherever its client is by then, and records how it ended.
    pub(super) async fn run(
        self,
        api: &Api,
        deploying: impl Future<Output = Result<Outcome, DeployError>>,
        judge: impl FnOnce(Option<Result<Outcome, DeployError>>) -> Result<Outcome, ApiError>,
    ) -> Result<Outcome, ApiError> {
        // A panic is recorded like any other end.
        let caught = async {
            AssertUnwindSafe(deploying).catch_unwind().await.unwrap_or_else(|_| {
                let body = ErrorBody::new(ErrorCode::Internal).detail("the deploy panicked");
                Err(body.into())
            })
        };
        let mut outcome = judge(api.cut.run_until_cancelled(caught).await);
        if let Err(error) = &mut outcome {
            // Here and not where it is answered: the client may be gone.
            error.log(self.id);
        }
        // A plan changes nothing.
        let record = self.record.filter(|_| !matches!(outcome, Ok(Outcome::Planned(_))));
        if let Some(mut record) = record {
            if let Ok(Outcome::Deployed(deployed)) = &outcome {
                record.about(deployed.version);
            }
            record.done(outcome.as_ref().err()).await;
        }
        outcome
    }
}

/// The answer to a client that did not want to be told of every step.
pub(super) fn answer(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Planned(planned) => (StatusCode::OK, Json(planned)).into_response(),
        Outcome::Deployed(deployed) => {
            let Deployed { app, version, .. } = &*deployed;
            let location = format!("/v1/apps/{app}/versions/{version}");
            (StatusCode::CREATED, [(header::LOCATION, location)], Json(deployed)).into_response()
        }
    }
}

/// What the client calls this deploy, so that sending it again makes no second version.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    match (1..=128).contains(&text.len()) {
        true => Ok(Some(text.to_owned())),
        false => Err(ApiError::new(ErrorCode::BadRequest)
            .detail("`idempotency-key` has from 1 to 128 visible ASCII characters")),
    }
}

/// What `curl --data-binary` and plain HTTP clients say of a file is taken as well.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    match extract::media_type(headers)?.as_deref() {
        None
        | Some("application/wasm")
        | Some("application/octet-stream")
        | Some("application/x-www-form-urlencoded") => Ok(()),
        Some(_) => Err(ApiError::new(ErrorCode::UnsupportedMediaType)
            .detail("the body is one Wasm file, as it is")
            .hint("send `content-type: application/wasm`")),
    }
}

fn function(name: Option<&str>) -> Result<Option<FunctionName>, ApiError> {
    name.map(|name| name.parse().map_err(|error| ApiError::name("function", &error))).transpose()
}

/// The message as it is shown in a table: one line of limited length.
pub(super) fn message(message: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(message) = message.filter(|message| !message.is_empty()) else {
        return Ok(None);
    };
    let refused = |detail| Err(ApiError::new(ErrorCode::Unprocessable).detail(detail));
    if message.len() > MAX_MESSAGE_BYTES {
        return refused(format!("a message has at most {MAX_MESSAGE_BYTES} bytes"));
    }
    if message.chars().any(char::is_control) {
        return refused("a message is one line without control characters".to_owned());
    }
    Ok(Some(message))
}

pub(super) fn too_large(limit: u64) -> ApiError {
    ApiError::new(ErrorCode::BodyTooLarge)
        .detail(format!("an artifact has at most {limit} bytes"))
        .hint("build with optimisation for size and without debug information")
}

/// Why an upload ended before its end. The deployer only learns that it did.
#[derive(Debug, Clone, Copy)]
pub(super) enum UploadEnd {
    TooLarge,
    TooSlow,
    Broken,
}

/// What an upload must be.
pub(super) struct Expected {
    pub(super) length: Option<u64>,
    pub(super) limit: u64,
}

/// The bytes of a body as they arrive. A body that is not whole ends with an error, never as if
/// it were shorter.
pub(super) fn upload(
    body: Body,
    expected: Expected,
    patience: Duration,
    end: Arc<OnceLock<UploadEnd>>,
) -> Upload {
    struct Reading {
        frames: BodyStream<Body>,
        received: u64,
    }
    let reading = Reading { frames: BodyStream::new(body), received: 0 };
    let pieces = stream::try_unfold(reading, move |mut reading| {
        let Expected { length, limit } = expected;
        let end = end.clone();
        async move {
            let broken = |why| {
                // The first reason counts; there is only one.
                let _ = end.set(why);
                Err(io::Error::other(format!("the upload ended early: {why:?}")))
            };
            loop {
                let frame = tokio::time::timeout(patience, reading.frames.next()).await;
                let frame = match frame {
                    Err(_) => return broken(UploadEnd::TooSlow),
                    Ok(Some(Err(_))) => return broken(UploadEnd::Broken),
                    Ok(None) if length.is_some_and(|length| length != reading.received) => {
                        return broken(UploadEnd::Broken);
                    }
                    Ok(None) => return Ok(None),
                    Ok(Some(Ok(frame))) => frame,
                };
                // Trailers say nothing that is of use here.
                let Ok(piece) = frame.into_data() else {
                    continue;
                };
                reading.received += piece.len() as u64;
                if reading.received > limit {
                    return broken(UploadEnd::TooLarge);
                }
                return Ok(Some((piece, reading)));
            }
        }
    });
    Box::pin(pieces)
}

/// What came of a deploy. What was wrong with the upload is known better here than there.
pub(super) fn outcome<T>(
    deployed: Option<Result<T, DeployError>>,
    end: Option<&UploadEnd>,
    limit: u64,
) -> Result<T, ApiError> {
    match (deployed, end) {
        (None, _) => Err(ApiError::shutting_down()),
        (Some(Ok(deployed)), _) => Ok(deployed),
        (Some(Err(_)), Some(UploadEnd::TooLarge)) => Err(too_large(limit)),
        (Some(Err(_)), Some(UploadEnd::TooSlow)) => {
            Err(ApiError::new(ErrorCode::RequestTimeout).detail("the upload stood still"))
        }
        (Some(Err(_)), Some(UploadEnd::Broken)) => {
            Err(ApiError::new(ErrorCode::BadRequest).detail("the upload ended early"))
        }
        (Some(Err(error)), None) => Err(error.into()),
    }
}

/// A deploy under way.
pub(super) type Deploying = JoinHandle<Result<Outcome, ApiError>>;

/// How it ended.
pub(super) fn joined(
    outcome: Result<Result<Outcome, ApiError>, tokio::task::JoinError>,
) -> Result<Outcome, ApiError> {
    outcome.unwrap_or_else(|error| Err(ApiError::internal(error)))
}

/// The steps of a deploy as they happen.
pub(super) fn told(
    first: Option<DeployEvent>,
    events: mpsc::UnboundedReceiver<DeployEvent>,
    deploying: Deploying,
    id: RequestId,
) -> Response {
    let events = stream::iter(first).chain(stream::unfold(events, async |mut events| {
        events.recv().await.map(|event| (event, events))
    }));
    // How it ended is for this module to say, whatever the deployer has told.
    let steps = events.filter(|event| {
        let end = |event: &DeployEvent| {
            matches!(event, DeployEvent::Done(_) | DeployEvent::Planned(_) | DeployEvent::Failed(_))
        };
        let step = !end(event);
        futures::future::ready(step)
    });
    let last = stream::once(async move {
        match joined(deploying.await) {
            Ok(Outcome::Deployed(deployed)) => DeployEvent::Done(*deployed),
            Ok(Outcome::Planned(planned)) => DeployEvent::Planned(planned),
            Err(error) => DeployEvent::Failed(*error.disclose(id)),
        }
    });
    ndjson(steps.chain(last).map(|event| line(&event)))
}

/// A response of JSON lines.
pub(super) fn ndjson(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, NDJSON)], body).into_response()
}

/// A document and the end of its line.
fn line(document: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(document).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
