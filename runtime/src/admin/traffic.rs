//! `/v1/apps/{app}/traffic`

use super::{
    Api, State,
    apps::etag,
    error::ApiError,
    extract::{AppPath, Change, Json, NoQuery},
    openapi::{self, AppChange, GoesLive, JsonBody},
    secrets,
};
use axum::http::{HeaderName, HeaderValue};
use faas_api::{AppName, Traffic, apps::TrafficChanged};

/// What a change of traffic answers.
pub(super) type Changed = ([(HeaderName, HeaderValue); 1], axum::Json<TrafficChanged>);

/// Change which versions are live
///
/// The shares are from 1 to 100 percent, one per version, and sum to 100.
#[utoipa::path(put, path = "/v1/apps/{app}/traffic", operation_id = "set_traffic", tag = "versions",
    security(("bearer" = ["deploy"])),
    params(openapi::App, openapi::IfMatch),
    request_body = Traffic,
    responses(
        (status = 200, description = "It is live.", body = TrafficChanged, headers(
            ("etag" = String, description = "The app's new revision."))),
        AppChange, JsonBody, GoesLive))]
pub(super) async fn put(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
    change: Change,
    Json(traffic): Json<Traffic>,
) -> Result<Changed, ApiError> {
    change.audit.about(&traffic);
    set(&api, &change, app, traffic).await
}

/// Moves an app's traffic and tells what it was.
pub(super) async fn set(
    api: &Api,
    change: &Change,
    app: AppName,
    traffic: Traffic,
) -> Result<Changed, ApiError> {
    let expect = change.expect(api, &app).await?;
    secrets::require(api, &app, &traffic).await?;
    let functions = &api.parts.functions;
    let (previous, rev) = functions.set_traffic(&app, traffic.clone(), expect).await?;
    tracing::info!(%app, by = %change.by, %traffic, %previous, "traffic moved");
    let changed = TrafficChanged { url: api.parts.addresses.main(&app), app, traffic, previous };
    Ok(([etag(rev)], axum::Json(changed)))
}
