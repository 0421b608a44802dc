//! `/v1/apps/{app}/secrets`: written, listed by name, never read.

use super::{
    Api, State,
    apps::etag,
    configuration::{NamePath, Tag, Text},
    error::ApiError,
    extract::{AppPath, Change, NoQuery},
    openapi::{self, AppRead, ConfigChange, JsonBody},
};
use crate::{configuration::SecretRecord, deploy::missing_secrets};
use axum::http::StatusCode;
use faas_api::{AppName, Secret, SecretList, Traffic, VarName, configuration::MAX_SECRET_LEN};
use secrecy::SecretString;

/// List an app's secrets
///
/// Their names, and when they changed. Values cannot be read.
#[utoipa::path(get, path = "/v1/apps/{app}/secrets", operation_id = "list_secrets",
    tag = "configuration",
    security(("bearer" = ["read"]), ("bearer" = ["secrets"])),
    params(openapi::App),
    responses(
        (status = 200, description = "Its secrets.", body = SecretList, headers(
            ("etag" = String, description = "The configuration's revision, for `if-match`."))),
        AppRead))]
pub(super) async fn list(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
) -> Result<(Tag, axum::Json<SecretList>), ApiError> {
    let (record, rev) = api.parts.configs.read(&app).await?;
    let secrets = record.secrets.into_iter().map(|(name, record)| secret_of(name, record));
    let list = SecretList { app, revision: rev, secrets: secrets.collect() };
    Ok(([etag(rev)], axum::Json(list)))
}

/// Set a secret
///
/// The body is its value. Functions that name it see it from the next request on. The app need not
/// be deployed yet.
#[utoipa::path(put, path = "/v1/apps/{app}/secrets/{name}", operation_id = "put_secret",
    tag = "configuration",
    security(("bearer" = ["secrets"])),
    params(openapi::App, openapi::VariableName, openapi::IfMatch),
    request_body(description = "The value, UTF-8.", content(
        (String = "text/plain"), (openapi::Binary = "application/octet-stream"))),
    responses(
        (status = 201, description = "It is new.", body = Secret, headers(
            ("etag" = String, description = "The configuration's new revision."))),
        (status = 200, description = "It was there already.", body = Secret, headers(
            ("etag" = String, description = "The configuration's revision."))),
        ConfigChange, JsonBody))]
pub(super) async fn put(
    axum::extract::State(api): State,
    NamePath(app, name): NamePath,
    _: NoQuery,
    change: Change,
    Text(value): Text<MAX_SECRET_LEN>,
) -> Result<(StatusCode, Tag, axum::Json<Secret>), ApiError> {
    let value = SecretString::from(value);
    let expect = change.expect_config(&api, &app).await?;
    let by = change.by.to_string();
    let put = api.parts.configs.put_secret(&app, (&name, &value), &by, expect);
    let (record, new, rev) = put.await?;
    tracing::info!(%app, by = %change.by, secret = %name, revision = rev, "secret set");
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [etag(rev)], axum::Json(secret_of(name, record))))
}

/// Remove a secret
///
/// Not while a live version names it.
#[utoipa::path(delete, path = "/v1/apps/{app}/secrets/{name}", operation_id = "remove_secret",
    tag = "configuration",
    security(("bearer" = ["secrets"])),
    params(openapi::App, openapi::VariableName, openapi::IfMatch),
    responses((status = 204, description = "It is gone."), ConfigChange))]
pub(super) async fn remove(
    axum::extract::State(api): State,
    NamePath(app, name): NamePath,
    _: NoQuery,
    change: Change,
) -> Result<StatusCode, ApiError> {
    let expect = change.expect_config(&api, &app).await?;
    let rev = api.parts.configs.remove_secret(&app, &name, expect).await?;
    tracing::info!(%app, by = %change.by, secret = %name, revision = rev, "secret removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Whether versions that shall be live have their secrets. Versions that are not there are not
/// looked at.
pub(super) async fn require(api: &Api, app: &AppName, live: &Traffic) -> Result<(), ApiError> {
    let (record, _) = api.parts.functions.get(app).await?;
    let versions = record.versions.iter().filter(|version| live.percent_of(version.id) > 0);
    let settings = versions.flat_map(|v| &v.functions).map(|function| &function.settings);
    let missing = api.parts.configs.missing(app, settings).await?;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(ApiError::of(missing_secrets(app, &missing))),
    }
}

fn secret_of(name: VarName, record: SecretRecord) -> Secret {
    Secret { name, updated_at: record.updated_at, updated_by: record.updated_by }
}
