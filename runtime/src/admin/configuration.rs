//! What the endpoints of variables and secrets have in common.

use super::{
    Api,
    error::ApiError,
    extract::{self, Change, segment},
};
use crate::configuration::ConfigsError;
use axum::{
    body::HttpBody as _,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderName, HeaderValue, request::Parts},
};
use faas_api::{AppName, ErrorBody, ErrorCode, VarName};
use std::sync::Arc;

/// The largest change of variables, in bytes: what they may have, escaped, and some to remove.
pub(super) const MAX_ENV_JSON: usize = 512 << 10;

/// A revision, as a header.
pub(super) type Tag = [(HeaderName, HeaderValue); 1];

/// The `{app}` and `{name}` of a path.
pub(super) struct NamePath(pub(super) AppName, pub(super) VarName);

impl<S: Send + Sync> FromRequestParts<S> for NamePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = extract::params(parts, state).await?;
        Ok(Self(segment(&params, "app")?, segment(&params, "name")?))
    }
}

/// A body that is text of at most so many bytes.
pub(super) struct Text<const MAX: usize>(pub(super) String);

impl<const MAX: usize> FromRequest<Arc<Api>> for Text<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        match extract::media_type(request.headers())?.as_deref() {
            None | Some("text/plain" | "application/octet-stream") => {}
            Some(_) => {
                return Err(ApiError::new(ErrorCode::UnsupportedMediaType)
                    .detail("the body is the value itself")
                    .hint("send `content-type: text/plain`"));
            }
        }
        let body = request.into_body();
        if let Some(bytes) = body.size_hint().exact().filter(|bytes| *bytes > MAX as u64) {
            return Err(ApiError::new(ErrorCode::BodyTooLarge)
                .detail(format!("the value has {bytes} bytes, at most {MAX} are possible")));
        }
        let reading = tokio::time::timeout(api.patience.body, extract::read(body, MAX));
        let bytes = reading.await.map_err(|_| ApiError::new(ErrorCode::RequestTimeout))??;
        // What is wrong is not quoted: it may be a secret.
        String::from_utf8(bytes.into()).map(Self).map_err(|_| {
            ApiError::new(ErrorCode::Unprocessable)
                .detail("the value is not UTF-8")
                .hint("store binary values in base64, and let the function decode them")
        })
    }
}

impl Change {
    /// The revision that the app's configuration must still have, if it must have one.
    pub(super) async fn expect_config(
        &self,
        api: &Api,
        app: &AppName,
    ) -> Result<Option<u64>, ApiError> {
        match self.is_conditional() {
            true => {
                let rev = api.parts.configs.revision(app).await?;
                self.expect_rev(rev).map_err(|error| error.detail(CHANGED))
            }
            false => Ok(None),
        }
    }
}

/// What has changed when a precondition of a configuration does not hold.
const CHANGED: &str = "the configuration is no longer as it was when its `etag` was read";

impl ApiError {
    /// No variable or secret of that name.
    pub(super) fn no_such_entry(what: &'static str, app: &AppName, name: &VarName) -> Self {
        ConfigsError::NoSuch { what, app: app.clone(), name: name.clone() }.into()
    }

    /// What another module says.
    pub(super) fn of(ErrorBody { code, detail, hint, .. }: ErrorBody) -> Self {
        let error = Self::new(code).detail(detail.unwrap_or_default());
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<ConfigsError> for ApiError {
    fn from(error: ConfigsError) -> Self {
        let told = |code| Self::new(code).detail(error.to_string());
        match error {
            ConfigsError::NoSuch { what, ref app, .. } => {
                let verb = if what == "secret" { "secret" } else { "env" };
                told(ErrorCode::NotFound).hint(format!("`faas {verb} list --app {app}` shows them"))
            }
            ConfigsError::TooLong { .. } => told(ErrorCode::BodyTooLarge),
            ConfigsError::TooMuch { .. } | ConfigsError::Nul { .. } => {
                told(ErrorCode::Unprocessable)
            }
            ConfigsError::InUse { .. } => told(ErrorCode::SecretInUse)
                .hint("deploy a version that does not name it, then remove it"),
            ConfigsError::Conflict => Self::changed().detail(CHANGED),
            ConfigsError::Seal(error) => Self::internal(error),
            ConfigsError::Functions(error) => error.into(),
            ConfigsError::Storage(error) => error.into(),
        }
    }
}
