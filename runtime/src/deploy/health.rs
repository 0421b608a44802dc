//! One request to a version that nobody else can reach yet.

use super::refused::DeployError;
use crate::{
    engine::{Ancestry, Call, Engine, Meter},
    functions::snapshot::LiveVersion,
    request_id::RequestId,
};
use bytes::Bytes;
use faas_api::{AppName, ErrorBody, ErrorCode};
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use std::sync::Arc;

/// Asks a version for the path of its health check, and returns the status: 2xx or 3xx.
///
/// # Errors
/// When nothing answers there, or the answer is another.
pub(super) async fn check(
    engine: &Engine,
    app: &AppName,
    version: &LiveVersion,
    path: &str,
) -> Result<u16, DeployError> {
    let unhealthy = |why: String| {
        DeployError::from(
            ErrorBody::new(ErrorCode::Unhealthy)
                .detail(format!("GET {path} of the new version {why}; what was live still is"))
                .hint("its output is in `faas logs`; `health` of [app] names the path"),
        )
    };
    let bare = path.split('?').next().unwrap_or(path);
    let (function, _) = version
        .function("", "GET", bare)
        .map_err(|_| unhealthy("is answered by no function".to_owned()))?;
    let uri: Uri = path.parse().map_err(|_| unhealthy("is no path".to_owned()))?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri;
    let id = RequestId::new();
    set_headers(request.headers_mut(), app, id);
    let call = Call { id, meter: Arc::new(Meter::default()), ancestry: Ancestry::default() };
    match engine.invoke(&function.program, call, request).await {
        Ok(response) if response.status().is_success() || response.status().is_redirection() => {
            Ok(response.status().as_u16())
        }
        Ok(response) => Err(unhealthy(format!("was answered with {}", response.status().as_u16()))),
        Err(error) => Err(unhealthy(format!("failed ({})", error.code()))),
    }
}

/// What every request of a guest has.
fn set_headers(headers: &mut HeaderMap, app: &AppName, id: RequestId) {
    let host = HeaderValue::from_str(app.as_str());
    headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("faas-health"));
    headers.insert("x-request-id", id.header());
}
