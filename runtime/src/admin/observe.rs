//! `/metrics`, `/livez` and `/readyz`: plain text, for machines that know nothing of this API.

use super::{State, error::ApiError, openapi::Probe, readiness::DRAINING};
use axum::{
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};

/// The version of the text format is part of the media type.
const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// Metrics
///
/// In Prometheus' text format. Whether a token is needed is a setting of the node.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "observe",
    security((), ("bearer" = ["read"])),
    responses((status = 200, description = "Every metric.", body = String,
        content_type = "text/plain"), Probe))]
pub(super) async fn metrics(
    axum::extract::State(api): State,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let text = api.parts.metrics.render().map_err(ApiError::internal)?;
    Ok(([(CONTENT_TYPE, PROMETHEUS)], text))
}

/// Is the process alive?
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "observe",
    security((), ("bearer" = ["any"])),
    responses((status = 200, description = "It is.", body = String, content_type = "text/plain"),
        Probe))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Can the node take requests?
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "observe",
    security((), ("bearer" = ["any"])),
    responses(
        (status = 200, description = "It can.", body = String, content_type = "text/plain"),
        (status = 503, description = "It starts or stops; the body says which.", body = String,
            content_type = "text/plain"),
        Probe))]
pub(super) async fn readyz(axum::extract::State(api): State) -> impl IntoResponse {
    let obstacle = match api.shutdown.is_draining() {
        true => Some(DRAINING),
        false => api.parts.readiness.obstacle(),
    };
    match obstacle {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
