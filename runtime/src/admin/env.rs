//! `/v1/apps/{app}/env`

use super::{
    Api, State,
    apps::etag,
    configuration::{MAX_ENV_JSON, NamePath, Tag, Text},
    error::ApiError,
    extract::{AppPath, Change, Json, NoQuery},
    openapi::{self, AppRead, ConfigChange, JsonBody},
};
use axum::http::StatusCode;
use faas_api::{AppName, Env, EnvChange, EnvVar, VarName, manifest::MAX_VALUE_LEN};

/// What is answered with an app's variables.
type Variables = (Tag, axum::Json<Env>);

/// List an app's variables
///
/// Those that were set for the app; functions see them over the variables of their manifest.
#[utoipa::path(get, path = "/v1/apps/{app}/env", operation_id = "list_env", tag = "configuration",
    security(("bearer" = ["read"])),
    params(openapi::App),
    responses(
        (status = 200, description = "Its variables.", body = Env, headers(
            ("etag" = String, description = "The configuration's revision, for `if-match`."))),
        AppRead))]
pub(super) async fn list(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
) -> Result<Variables, ApiError> {
    let (record, rev) = api.parts.configs.read(&app).await?;
    Ok(([etag(rev)], axum::Json(Env { app, revision: rev, env: record.env })))
}

/// Change several variables
///
/// Sets those that have a value and removes those that are `null`; others stay. All or nothing, in
/// one revision, which the next request sees. The app need not be deployed yet.
#[utoipa::path(put, path = "/v1/apps/{app}/env", operation_id = "change_env",
    tag = "configuration",
    security(("bearer" = ["deploy"]), ("bearer" = ["secrets"])),
    params(openapi::App, openapi::IfMatch),
    request_body = EnvChange,
    responses(
        (status = 200, description = "All its variables, as they are now.", body = Env, headers(
            ("etag" = String, description = "The configuration's new revision."))),
        ConfigChange, JsonBody))]
pub(super) async fn put(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
    change: Change,
    Json(EnvChange(wanted)): Json<EnvChange, MAX_ENV_JSON>,
) -> Result<Variables, ApiError> {
    let wanted: Vec<(VarName, Option<String>)> = wanted.into_iter().collect();
    set(&api, &change, app, &wanted).await
}

/// Remove all variables
///
/// Those of functions' manifests stay.
#[utoipa::path(delete, path = "/v1/apps/{app}/env", operation_id = "clear_env",
    tag = "configuration",
    security(("bearer" = ["deploy"]), ("bearer" = ["secrets"])),
    params(openapi::App, openapi::IfMatch),
    responses((status = 204, description = "There are none."), ConfigChange))]
pub(super) async fn clear(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
    change: Change,
) -> Result<StatusCode, ApiError> {
    let expect = change.expect_config(&api, &app).await?;
    let rev = api.parts.configs.clear_env(&app, expect).await?;
    tracing::info!(%app, by = %change.by, revision = rev, "all variables removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Read a variable
#[utoipa::path(get, path = "/v1/apps/{app}/env/{name}", operation_id = "get_env",
    tag = "configuration",
    security(("bearer" = ["read"])),
    params(openapi::App, openapi::VariableName),
    responses(
        (status = 200, description = "Its value.", body = EnvVar, headers(
            ("etag" = String, description = "The configuration's revision, for `if-match`."))),
        AppRead))]
pub(super) async fn get(
    axum::extract::State(api): State,
    NamePath(app, name): NamePath,
    _: NoQuery,
) -> Result<(Tag, axum::Json<EnvVar>), ApiError> {
    let (mut record, rev) = api.parts.configs.read(&app).await?;
    let value = record.env.remove(&name);
    let value = value.ok_or_else(|| ApiError::no_such_entry("variable", &app, &name))?;
    Ok(([etag(rev)], axum::Json(EnvVar { name, value })))
}

/// Set a variable
///
/// The body is its value.
#[utoipa::path(put, path = "/v1/apps/{app}/env/{name}", operation_id = "set_env",
    tag = "configuration",
    security(("bearer" = ["deploy"]), ("bearer" = ["secrets"])),
    params(openapi::App, openapi::VariableName, openapi::IfMatch),
    request_body(description = "The value, UTF-8.", content((String = "text/plain"))),
    responses(
        (status = 200, description = "All its variables, as they are now.", body = Env, headers(
            ("etag" = String, description = "The configuration's new revision."))),
        ConfigChange, JsonBody))]
pub(super) async fn set_one(
    axum::extract::State(api): State,
    NamePath(app, name): NamePath,
    _: NoQuery,
    change: Change,
    Text(value): Text<MAX_VALUE_LEN>,
) -> Result<Variables, ApiError> {
    set(&api, &change, app, &[(name, Some(value))]).await
}

/// Remove a variable
#[utoipa::path(delete, path = "/v1/apps/{app}/env/{name}", operation_id = "unset_env",
    tag = "configuration",
    security(("bearer" = ["deploy"]), ("bearer" = ["secrets"])),
    params(openapi::App, openapi::VariableName, openapi::IfMatch),
    responses((status = 204, description = "It is gone."), ConfigChange))]
pub(super) async fn unset(
    axum::extract::State(api): State,
    NamePath(app, name): NamePath,
    _: NoQuery,
    change: Change,
) -> Result<StatusCode, ApiError> {
    let expect = change.expect_config(&api, &app).await?;
    let rev = api.parts.configs.unset(&app, &name, expect).await?;
    tracing::info!(%app, by = %change.by, variable = %name, revision = rev, "variable removed");
    Ok(StatusCode::NO_CONTENT)
}

async fn set(
    api: &Api,
    change: &Change,
    app: AppName,
    wanted: &[(VarName, Option<String>)],
) -> Result<Variables, ApiError> {
    let expect = change.expect_config(api, &app).await?;
    let (record, rev) = api.parts.configs.set_env(&app, wanted, expect).await?;
    let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(" ");
    tracing::info!(%app, by = %change.by, variables = names, revision = rev, "variables changed");
    Ok(([etag(rev)], axum::Json(Env { app, revision: rev, env: record.env })))
}
