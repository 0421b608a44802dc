//! `/v1/apps` and `/v1/apps/{app}`

use super::{
    Api, State,
    auth::Principal,
    error::ApiError,
    extract::{AppPath, Change, NoQuery},
    openapi::{self, AppChange, AppRead, Common},
};
use crate::functions::{FunctionsError, record::AppRecord};
use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header::ETAG},
};
use faas_api::{App, AppList, AppName, AppSummary, Function};
use std::sync::Arc;

/// List the apps
///
/// Sorted by name; those that the token may see.
#[utoipa::path(get, path = "/v1/apps", operation_id = "list_apps", tag = "apps",
    security(("bearer" = ["read:any"]), ("bearer" = ["deploy:any"]), ("bearer" = ["invoke:any"])),
    responses((status = 200, description = "Every app.", body = AppList), Common))]
pub(super) async fn list(
    axum::extract::State(api): State,
    principal: Principal,
    _: NoQuery,
) -> Result<Json<AppList>, ApiError> {
    let mut records = api.parts.functions.list().await?;
    records.retain(|(name, _)| principal.sees(name.as_str()));
    let apps = records.into_iter().map(|(name, record)| AppSummary {
        url: api.parts.addresses.main(&name),
        name,
        versions: record.versions.len(),
        traffic: record.traffic,
        created_at: record.created_at,
        updated_at: record.updated_at,
    });
    let apps = apps.collect();
    Ok(Json(AppList { apps }))
}

/// Describe an app
#[utoipa::path(get, path = "/v1/apps/{app}", operation_id = "describe_app", tag = "apps",
    security(("bearer" = ["read"]), ("bearer" = ["deploy"]), ("bearer" = ["invoke"])),
    params(openapi::App),
    responses(
        (status = 200, description = "The app.", body = App, headers(
            ("etag" = String, description = "Its revision, for `if-match`."))),
        AppRead))]
pub(super) async fn describe(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
) -> Result<([(HeaderName, HeaderValue); 1], Json<App>), ApiError> {
    let (record, rev) = api.parts.functions.get(&app).await?;
    Ok(([etag(rev)], Json(app_of(&api, app, record))))
}

/// Delete an app with all its versions
///
/// With its variables and secrets. Requests that its functions are answering are finished.
#[utoipa::path(delete, path = "/v1/apps/{app}", operation_id = "delete_app", tag = "apps",
    security(("bearer" = ["admin"])),
    params(openapi::App, openapi::IfMatch),
    responses((status = 204, description = "It is gone."), AppChange))]
pub(super) async fn delete(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
    change: Change,
) -> Result<StatusCode, ApiError> {
    let expect = change.expect(&api, &app).await?;
    match api.parts.functions.delete(&app, expect).await {
        Ok(()) => {
            api.parts.configs.forget(&app).await?;
        }
        // It may have been given something before its first deploy, or keep it from a deletion
        // that was cut short.
        Err(FunctionsError::NoSuchApp(_)) if api.parts.configs.forget(&app).await? => {}
        Err(error) => return Err(error.into()),
    }
    // An app of the same name that comes later is another app.
    api.parts.keys.remove_all(&app).await?;
    tracing::info!(%app, by = %change.by, "deleted");
    sweep(api);
    Ok(StatusCode::NO_CONTENT)
}

/// Frees what only the deleted app used. Nobody waits for that.
fn sweep(api: Arc<Api>) {
    tokio::spawn(async move {
        let swept = api.cut.run_until_cancelled(api.parts.deployer.sweep()).await;
        if let Some(Err(error)) = swept {
            tracing::warn!(%error, "unused artifacts could not be removed");
        }
    });
}

/// A revision as the header that carries it.
pub(super) fn etag(rev: u64) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(&format!("\"{rev}\""));
    (ETAG, value.unwrap_or_else(|_| HeaderValue::from_static("\"\"")))
}

fn app_of(api: &Api, name: AppName, record: AppRecord) -> App {
    let live = record.live();
    let functions: Vec<Function> =
        live.map(|version| version.functions.clone()).unwrap_or_default();
    let domains = live.map(|version| version.domains.as_slice()).unwrap_or_default();
    App {
        urls: api.parts.addresses.with_domains(&name, domains),
        name,
        functions,
        versions: record.versions.len(),
        before: record.before(),
        aborted: record.aborted,
        traffic: record.traffic,
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}
