//! One request to a version that nobody else can reach yet.

use super::refused::DeployError;
use crate::{
    clock,
    engine::{Ancestry, Call, Engine, Meter, Program},
    functions::snapshot::LiveVersion,
    request_id::RequestId,
    telemetry::guest_logs::{Event, Query},
};
use bytes::Bytes;
use faas_api::{AppName, ErrorBody, ErrorCode, LogSource};
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use std::sync::Arc;

/// Lines of its output that whoever deploys is shown.
const SAID_LINES: u64 = 20;

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
        ErrorBody::new(ErrorCode::Unhealthy)
            .detail(format!("GET {path} of the new version {why}; what was live still is"))
            .hint("`health` of [app] names the path")
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
    let program = &function.program;
    let mut body = match engine.invoke(program, call, request).await {
        Ok(response) if response.status().is_success() || response.status().is_redirection() => {
            return Ok(response.status().as_u16());
        }
        Ok(response) => unhealthy(format!("was answered with {}", response.status().as_u16())),
        Err(error) => {
            let event = Event::Failure(&error.to_string());
            program.log().push(program.origin(), id, clock::now(), event);
            unhealthy(format!("failed ({})", error.code()))
        }
    };
    // The version has no log that anybody could look into.
    if let Some(detail) = &mut body.detail {
        detail.push_str(&said(program, id).await);
    }
    Err(body.into())
}

/// What a call has in the log: the last of it.
async fn said(program: &Program, id: RequestId) -> String {
    let query =
        Query { request_id: Some(id.to_string()), limit: Some(SAID_LINES), ..Query::default() };
    let mut reader = program.log().reader(query);
    let page = tokio::task::spawn_blocking(move || reader.next_page()).await.unwrap_or_default();
    let messages = page.into_iter().filter_map(|line| match line.source {
        LogSource::Stdout { message }
        | LogSource::Stderr { message }
        | LogSource::Log { message, .. }
        | LogSource::Failure { message } => Some(message),
        LogSource::Request { .. } => None,
    });
    messages.filter(|message| !message.is_empty()).map(|message| format!("\n  {message}")).collect()
}

/// What every request of a guest has.
fn set_headers(headers: &mut HeaderMap, app: &AppName, id: RequestId) {
    let host = HeaderValue::from_str(app.as_str());
    headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("faas-health"));
    headers.insert("x-request-id", id.header());
}
