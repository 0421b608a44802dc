//! `/v1/apps/{app}/keys`: who may call functions that want a key.

use super::{
    State,
    auth::Principal,
    error::ApiError,
    extract::{AppPath, Json, KeyPath, NoQuery},
    openapi::{self, AppChange, AppRead, JsonBody},
};
use crate::clock;
use axum::http::StatusCode;
use faas_api::{CreatedKey, ErrorCode, KeyList, NewKey, keys::MAX_KEY_FUNCTIONS};

/// List an app's API keys
///
/// By name, without their texts. Those that have expired are there until they are revoked.
#[utoipa::path(get, path = "/v1/apps/{app}/keys", operation_id = "list_keys", tag = "keys",
    security(("bearer" = ["read"]), ("bearer" = ["secrets"])),
    params(openapi::App),
    responses((status = 200, description = "Its keys.", body = KeyList), AppRead))]
pub(super) async fn list(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    _: NoQuery,
) -> Result<axum::Json<KeyList>, ApiError> {
    api.parts.functions.get(&app).await?;
    let keys = api.parts.keys.list(&app).await?;
    Ok(axum::Json(KeyList { app, keys }))
}

/// Make an API key
///
/// Its text is in the answer and nowhere else: the server keeps a hash. It opens functions whose
/// `auth` is `key`, from the next request on.
#[utoipa::path(post, path = "/v1/apps/{app}/keys", operation_id = "create_key", tag = "keys",
    security(("bearer" = ["secrets"])),
    params(openapi::App),
    request_body = NewKey,
    responses(
        (status = 201, description = "The key.", body = CreatedKey),
        AppChange, JsonBody))]
pub(super) async fn create(
    axum::extract::State(api): State,
    principal: Principal,
    AppPath(app): AppPath,
    _: NoQuery,
    Json(new): Json<NewKey>,
) -> Result<(StatusCode, axum::Json<CreatedKey>), ApiError> {
    let unprocessable =
        |detail: String| Err(ApiError::new(ErrorCode::Unprocessable).detail(detail));
    if new.functions.len() > MAX_KEY_FUNCTIONS {
        return unprocessable(format!("a key names at most {MAX_KEY_FUNCTIONS} functions"));
    }
    if new.expires_at.is_some_and(|end| end <= clock::now()) {
        return unprocessable("`expires_at` is over already".to_owned());
    }
    api.parts.functions.get(&app).await?;
    let created = api.parts.keys.create(&app, new, &principal.to_string()).await?;
    tracing::info!(%app, key = %created.key.name, id = created.key.id, by = %principal,
        "made a key");
    Ok((StatusCode::CREATED, axum::Json(created)))
}

/// Revoke an API key
///
/// From the next request on it opens nothing.
#[utoipa::path(delete, path = "/v1/apps/{app}/keys/{key}", operation_id = "revoke_key",
    security(("bearer" = ["secrets"])),
    tag = "keys",
    params(openapi::App, openapi::Key),
    responses((status = 204, description = "It is revoked."), AppChange))]
pub(super) async fn revoke(
    axum::extract::State(api): State,
    principal: Principal,
    KeyPath(app, key): KeyPath,
    _: NoQuery,
) -> Result<StatusCode, ApiError> {
    api.parts.functions.get(&app).await?;
    let revoked = api.parts.keys.revoke(&app, &key).await?;
    tracing::info!(%app, key = %revoked.name, id = revoked.id, by = %principal,
        "revoked a key");
    Ok(StatusCode::NO_CONTENT)
}
