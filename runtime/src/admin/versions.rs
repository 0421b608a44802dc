//! `/v1/apps/{app}/versions`

use super::{
    Api, State,
    error::ApiError,
    extract::{AppPath, Change, NoQuery, VersionPath},
    openapi::{self, AppChange, AppRead, GoesLive},
    traffic::{self, Changed},
};
use crate::functions::record::{AppRecord, VersionRecord};
use axum::{Json, http::StatusCode};
use faas_api::{
    AppName, ErrorCode, Traffic, Version, VersionId, VersionList, apps::TrafficChanged,
};

/// List an app's versions
///
/// Newest first; only the versions that are kept.
#[utoipa::path(get, path = "/v1/apps/{app}/versions", operation_id = "list_versions",
    tag = "versions",
    security(("bearer" = ["read"]), ("bearer" = ["deploy"])),
    params(openapi::App),
    responses((status = 200, description = "Its versions.", body = VersionList), AppRead))]
pub(super) async fn list(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
) -> Result<Json<VersionList>, ApiError> {
    let (record, _) = api.parts.functions.get(&app).await?;
    let newest_first = record.versions.iter().rev();
    let versions = newest_first.map(|version| version_of(&api, &app, &record, version));
    let versions = versions.collect();
    Ok(Json(VersionList { app, versions }))
}

/// Describe a version
#[utoipa::path(get, path = "/v1/apps/{app}/versions/{version}", operation_id = "describe_version",
    tag = "versions",
    security(("bearer" = ["read"]), ("bearer" = ["deploy"])),
    params(openapi::App, openapi::Version),
    responses((status = 200, description = "The version.", body = Version), AppRead))]
pub(super) async fn describe(
    axum::extract::State(api): State,
    VersionPath(app, id): VersionPath,
    _: NoQuery,
) -> Result<Json<Version>, ApiError> {
    let (record, _) = api.parts.functions.get(&app).await?;
    let version = record.version(id).ok_or_else(|| no_such_version(id))?;
    Ok(Json(version_of(&api, &app, &record, version)))
}

/// Make a version live
///
/// All traffic goes to it: the way to roll back and to roll forward.
#[utoipa::path(post, path = "/v1/apps/{app}/versions/{version}/activate",
    operation_id = "activate_version", tag = "versions",
    security(("bearer" = ["deploy"])),
    params(openapi::App, openapi::Version, openapi::IfMatch),
    responses(
        (status = 200, description = "It is live.", body = TrafficChanged, headers(
            ("etag" = String, description = "The app's new revision."))),
        AppChange, GoesLive))]
pub(super) async fn activate(
    axum::extract::State(api): State,
    VersionPath(app, id): VersionPath,
    _: NoQuery,
    change: Change,
) -> Result<Changed, ApiError> {
    // In the path a version that is not there is an address that is not there.
    let (record, _) = api.parts.functions.get(&app).await?;
    record.version(id).ok_or_else(|| no_such_version(id))?;
    traffic::set(&api, &change, app, Traffic::all_to(id)).await
}

/// Keep a version
///
/// It stays however many newer ones there are, until it is no longer pinned.
#[utoipa::path(put, path = "/v1/apps/{app}/versions/{version}/pin", operation_id = "pin_version",
    tag = "versions",
    security(("bearer" = ["deploy"])),
    params(openapi::App, openapi::Version, openapi::IfMatch),
    responses((status = 204, description = "It is kept."), AppChange))]
pub(super) async fn pin(
    axum::extract::State(api): State,
    VersionPath(app, id): VersionPath,
    _: NoQuery,
    change: Change,
) -> Result<StatusCode, ApiError> {
    set_pin(&api, &app, id, true, &change).await
}

/// Keep a version no longer
///
/// It is removed when there are enough newer ones, as any other.
#[utoipa::path(delete, path = "/v1/apps/{app}/versions/{version}/pin",
    operation_id = "unpin_version", tag = "versions",
    security(("bearer" = ["deploy"])),
    params(openapi::App, openapi::Version, openapi::IfMatch),
    responses((status = 204, description = "It is as any other."), AppChange))]
pub(super) async fn unpin(
    axum::extract::State(api): State,
    VersionPath(app, id): VersionPath,
    _: NoQuery,
    change: Change,
) -> Result<StatusCode, ApiError> {
    set_pin(&api, &app, id, false, &change).await
}

async fn set_pin(
    api: &Api,
    app: &AppName,
    id: VersionId,
    pinned: bool,
    change: &Change,
) -> Result<StatusCode, ApiError> {
    let expect = change.expect(api, app).await?;
    api.parts.functions.pin(app, id, pinned, expect).await?;
    tracing::info!(%app, version = %id, by = %change.by, pinned, "pinned");
    Ok(StatusCode::NO_CONTENT)
}

fn no_such_version(id: VersionId) -> ApiError {
    ApiError::new(ErrorCode::NotFound)
        .detail(format!("there is no version {id}"))
        .hint("`faas versions APP` shows the versions that are kept")
}

fn version_of(api: &Api, app: &AppName, record: &AppRecord, version: &VersionRecord) -> Version {
    Version {
        version: version.id,
        created_at: version.created_at,
        created_by: version.created_by.clone(),
        message: version.message.clone(),
        size: version.functions.iter().map(|function| function.size).sum(),
        live_percent: record.traffic.percent_of(version.id),
        functions: version.functions.clone(),
        domains: version.domains.clone(),
        pinned: record.pinned.contains(&version.id),
        preview_url: api.parts.addresses.preview(app, version.id),
    }
}
