//! `POST /v1/apps/{app}/versions` and `PUT /v1/blobs/{sha256}`: a deploy of which only what is new
//! travels.

use super::{
    State,
    auth::Principal,
    deploy::{
        Expected, NDJSON, UnderWay, UploadEnd, answer, idempotency_key, joined, message, outcome,
        told, upload,
    },
    error::ApiError,
    extract::{self, AppPath, BlobPath, Json, MAX_MANIFEST_BYTES, NoQuery},
    openapi::{self, AppWrite, BlobProblems, JsonBody},
};
use crate::deploy::AppDeploy;
use axum::{
    body::HttpBody as _,
    extract::{FromRequest as _, Request},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use faas_api::{DeployEvent, Deployed, Planned, Stored, manifest::NewVersion};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use tracing::Instrument as _;

/// Deploy an app
///
/// The body names each artifact by its SHA-256. What the server lacks is listed in the answer, and
/// nothing is changed: send each with `PUT /v1/blobs/{sha256}`, then send this again. Otherwise the
/// version is made. With `accept: application/x-ndjson` the answer is one document per step while
/// it happens; the last one is `done`, `planned` or `failed`.
#[utoipa::path(post, path = "/v1/apps/{app}/versions", operation_id = "create_version",
    tag = "versions",
    security(("bearer" = ["deploy"])),
    params(openapi::App, openapi::IdempotencyKey),
    request_body = NewVersion,
    responses(
        (status = 201, description = "The version is stored and, unless asked otherwise, live.",
            body = Deployed, headers(
                ("location" = String, description = "The address of the version."))),
        (status = 200, description = "Nothing was changed: artifacts are missing, or it was a dry \
            run. Or, when the client accepts that, the steps, one JSON document per line.", content(
                (Planned = "application/json"), (DeployEvent = "application/x-ndjson"))),
        AppWrite, JsonBody))]
pub(super) async fn create(
    axum::extract::State(api): State,
    principal: Principal,
    AppPath(app): AppPath,
    _: NoQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let deploy = UnderWay::begin(&api, request.extensions())?;
    let headers = request.headers().clone();
    let Json(mut new) = Json::<NewVersion, MAX_MANIFEST_BYTES>::from_request(request, &api).await?;
    new.message = message(new.message)?;
    let created_by = principal.to_string();
    let key = idempotency_key(&headers)?;
    let (progress, mut events) = mpsc::unbounded_channel();
    let wanted = AppDeploy { app, new, created_by, key };
    let id = deploy.id;
    // A task of its own: from here on the deploy does not depend on the client.
    let deploying = async move {
        let deploying = api.parts.deployer.deploy_app(wanted, progress);
        deploy.run(&api, deploying, |ended| outcome(ended, None, 0)).await
    };
    let deploying = tokio::spawn(deploying.in_current_span());
    if extract::accepts(&headers, NDJSON) {
        let first = events.recv().await;
        return Ok(told(first, events, deploying, id));
    }
    Ok(answer(joined(deploying.await)?))
}

/// Store an artifact
///
/// For a deploy that names it; without one it is removed after an hour.
#[utoipa::path(put, path = "/v1/blobs/{sha256}", operation_id = "store_blob", tag = "versions",
    security(("bearer" = ["deploy:any"])),
    params(openapi::Blob),
    request_body(description = "The artifact.", content(
        (openapi::Binary = "application/wasm"),
        (openapi::Binary = "application/octet-stream"))),
    responses(
        (status = 201, description = "It is stored.", body = Stored),
        (status = 200, description = "It was there already.", body = Stored),
        BlobProblems))]
pub(super) async fn put_blob(
    axum::extract::State(api): State,
    principal: Principal,
    BlobPath(digest): BlobPath,
    _: NoQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let _token = api.deploys.token();
    if api.shutdown.is_draining() || api.parts.readiness.is_draining() {
        return Err(ApiError::shutting_down());
    }
    extract::media_type(request.headers())?;
    let (length, limit) = (request.body().size_hint().exact(), api.parts.max_artifact_bytes);
    if length.is_some_and(|length| length > limit) {
        return Err(super::deploy::too_large(limit));
    }
    let end = Arc::<OnceLock<UploadEnd>>::default();
    let body =
        upload(request.into_body(), Expected { length, limit }, api.patience.body, end.clone());
    let by = principal.to_string();
    let storing = api.parts.deployer.store(digest, &by, body);
    let storing = api.cut.run_until_cancelled(storing).await;
    let stored = outcome(storing, end.get(), limit)?;
    let status = if stored.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(stored)).into_response())
}
