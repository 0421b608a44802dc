//! Errors of the API: one type, and the one place where it becomes a response.

use crate::{
    deploy::DeployError,
    functions::{FunctionsError, keys::KeysError, record::TrafficError},
    request_id::RequestId,
    storage::StorageError,
    tokens::TokensError,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use faas_api::{ErrorBody, ErrorCode, NameError};

/// The media type of an error's body (RFC 9457).
pub(super) const PROBLEM: &str = "application/problem+json";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ERROR: HeaderName = HeaderName::from_static("x-faas-error");

/// Why a request fails: what the client may see, and what only the log may.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    body: Box<ErrorBody>,
    cause: Option<String>,
    logged: bool,
}

impl ApiError {
    /// An error without particulars.
    pub(super) fn new(code: ErrorCode) -> Self {
        Self { body: Box::new(ErrorBody::new(code)), cause: None, logged: false }
    }

    /// The platform's fault; the cause goes to the log and nowhere else.
    pub(super) fn internal(cause: impl ToString) -> Self {
        Self::new(ErrorCode::Internal).because(cause)
    }

    /// No address of this API.
    pub(super) fn no_route() -> Self {
        Self::new(ErrorCode::NotFound)
            .detail("there is no such address")
            .hint("/v1/openapi.json lists them")
    }

    /// An address of this API, and none of its methods.
    pub(super) fn wrong_method() -> Self {
        Self::new(ErrorCode::MethodNotAllowed).detail("the `allow` header lists what is")
    }

    /// The revision is not the one that was expected.
    pub(super) fn changed() -> Self {
        Self::new(ErrorCode::Conflict)
            .detail("the app is no longer as it was when its `etag` was read")
            .hint("read it again, then decide again")
    }

    /// The node is stopping.
    pub(super) fn shutting_down() -> Self {
        Self::new(ErrorCode::ShuttingDown).hint("try again in a moment, or on another node")
    }

    /// A name that is none.
    pub(super) fn name(what: &str, error: &NameError) -> Self {
        let hint = match error {
            NameError::BadVersion => "versions are written v1, v2, …",
            NameError::BadTokenId => "`faas token list` shows the ids",
            NameError::Reserved(_) | NameError::ReservedVariable(_) => "choose another name",
            NameError::BadVariable => "as in LOG_LEVEL",
            _ => "a name has 1 to 40 of a-z, 0-9 and -, starts with a letter and has no `--`",
        };
        Self::new(ErrorCode::InvalidName).detail(format!("{what}: {error}")).hint(hint)
    }

    /// Says what happened this time.
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.body.detail = Some(detail.into());
        self
    }

    /// Says what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// Says to the log, and to nobody else, what is behind it.
    pub(super) fn because(mut self, cause: impl ToString) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Its code.
    pub(super) fn code(&self) -> ErrorCode {
        self.body.code
    }

    /// The status it is answered with.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Writes what the client does not see to the log. The second time it does nothing.
    pub(super) fn log(&mut self, id: RequestId) {
        if std::mem::replace(&mut self.logged, true) {
            return;
        }
        let code = self.body.code;
        let cause = self.cause.as_deref().or(self.body.detail.as_deref());
        let cause = cause.unwrap_or(code.title());
        // A server that stops refuses by design.
        if self.status().is_server_error() && code != ErrorCode::ShuttingDown {
            tracing::error!(request_id = %id, %code, %cause, "an API call failed");
        } else {
            tracing::debug!(request_id = %id, %code, %cause, "an API call was refused");
        }
    }

    /// What the client sees of it.
    pub(super) fn disclose(mut self, id: RequestId) -> Box<ErrorBody> {
        self.log(id);
        self.body.request_id = Some(id.to_string());
        self.body
    }
}

/// Carries the error to the gate, which knows the request's id and renders it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<FunctionsError> for ApiError {
    fn from(error: FunctionsError) -> Self {
        match error {
            FunctionsError::NoSuchApp(_) => Self::new(ErrorCode::NotFound)
                .detail(error.to_string())
                .hint("`faas list` shows the apps there are"),
            FunctionsError::Traffic(TrafficError::NoSuchVersion(_)) => {
                Self::new(ErrorCode::Unprocessable)
                    .detail(error.to_string())
                    .hint("`faas versions APP` shows the versions that are kept")
            }
            FunctionsError::Traffic(_) => {
                Self::new(ErrorCode::Unprocessable).detail(error.to_string())
            }
            FunctionsError::NoSuchVersion(_) => Self::new(ErrorCode::NotFound)
                .detail(error.to_string())
                .hint("`faas versions APP` shows the versions that are kept"),
            FunctionsError::Taken(_) => {
                Self::new(ErrorCode::RouteConflict).detail(error.to_string())
            }
            FunctionsError::KeyReused(_) => {
                Self::new(ErrorCode::Conflict).detail(error.to_string())
            }
            FunctionsError::TooLarge(_) => {
                Self::new(ErrorCode::Unprocessable).detail(error.to_string())
            }
            FunctionsError::Conflict => Self::changed(),
            FunctionsError::Storage(error) => error.into(),
        }
    }
}

impl From<KeysError> for ApiError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::NameTaken(_) => Self::new(ErrorCode::Conflict)
                .detail(error.to_string())
                .hint("revoke it first, or choose another name"),
            KeysError::TooMany => Self::new(ErrorCode::Unprocessable)
                .detail(error.to_string())
                .hint("revoke those that nobody uses"),
            KeysError::NoSuchKey => Self::new(ErrorCode::NotFound)
                .detail(error.to_string())
                .hint("`faas key list --app APP` shows the keys there are"),
            KeysError::NoRandom(_) => Self::internal(error),
            KeysError::Storage(error) => error.into(),
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        let code = match error {
            StorageError::Full(_) => ErrorCode::StorageFull,
            StorageError::Conflict => ErrorCode::Conflict,
            StorageError::Damaged(_) | StorageError::Failed(_) => ErrorCode::Internal,
        };
        Self::new(code).because(error)
    }
}

impl From<TokensError> for ApiError {
    fn from(error: TokensError) -> Self {
        match error {
            TokensError::TooMany => Self::new(ErrorCode::Conflict)
                .detail(error.to_string())
                .hint("those that ended are forgotten after 90 days"),
            TokensError::NoSuchToken(_) => Self::new(ErrorCode::NotFound)
                .detail(error.to_string())
                .hint("`faas token list` shows the tokens there are"),
            TokensError::Storage(error) => error.into(),
        }
    }
}

impl From<DeployError> for ApiError {
    fn from(DeployError { mut body, cause }: DeployError) -> Self {
        let mut cause = cause;
        if body.code == ErrorCode::Internal {
            // Whatever a lower module wrote there: a platform failure says no more than that.
            let detail = body.detail.take();
            body.hint = None;
            cause = cause.or(detail);
        }
        Self { body, cause, logged: false }
    }
}

/// The last step of every answer: an error gets its body, everything gets its id.
pub(super) fn finish(mut response: Response, id: RequestId) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let body = error.disclose(id);
        let headers = response.headers_mut();
        explain(headers, body.code);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        // The router has noted the length of the body that this one replaces.
        headers.remove(header::CONTENT_LENGTH);
        *response.body_mut() = serde_json::to_vec(&body).unwrap_or_default().into();
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.header());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A whole HTTP/1 response, for a client that speaks the wrong protocol and is not heard further.
pub(super) fn raw(error: ApiError, id: RequestId) -> Vec<u8> {
    let body = error.disclose(id);
    let (status, code, text) =
        (body.status, body.code, serde_json::to_string(&body).unwrap_or_default());
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM}\r\nx-faas-error: {code}\r\n\
         x-request-id: {id}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{text}"
    )
    .into_bytes()
}

/// The headers that go with a code.
fn explain(headers: &mut HeaderMap, code: ErrorCode) {
    headers.insert(ERROR, HeaderValue::from_static(code.as_str()));
    match code {
        ErrorCode::Unauthorized => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // RFC 6750 §3.1 has words for these two.
        ErrorCode::TokenExpired => {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        ErrorCode::MissingScope => {
            let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        ErrorCode::Overloaded | ErrorCode::RateLimited | ErrorCode::ShuttingDown => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_failure_tells_the_client_nothing() {
        let failed = || StorageError::Failed("/var/lib/secret.db: locked".into());
        let deploy = DeployError {
            body: Box::new(
                ErrorBody::new(ErrorCode::Internal)
                    .detail("blob 1234 is gone")
                    .hint("look at /var/lib"),
            ),
            cause: None,
        };
        for error in [
            ApiError::internal("secret"),
            failed().into(),
            FunctionsError::Storage(failed()).into(),
            FunctionsError::Storage(StorageError::Full("/dev/secret".into())).into(),
            deploy.into(),
        ] {
            let body = error.disclose(RequestId::new());
            assert!(body.status >= 500);
            assert_eq!((&body.detail, &body.hint), (&None, &None), "{body:?}");
        }
    }
}
