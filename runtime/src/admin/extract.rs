//! What comes from outside becomes a type here, or an error that says what is wrong with it.

use super::{Api, audit::Audit, auth::Principal, error::ApiError};
use crate::request_id::RequestId;
use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{Extensions, HeaderMap, header, request::Parts},
};
use faas_api::{AppName, Digest, ErrorCode, NameError, TokenId, VersionId};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::{str::FromStr, sync::Arc};

/// The largest JSON body, in bytes.
const MAX_JSON_BYTES: usize = 64 * 1024;
/// The largest manifest, in bytes.
pub(super) const MAX_MANIFEST_BYTES: usize = 1 << 20;
/// An error repeats no more than this of what was sent, in bytes.
const MAX_DETAIL_BYTES: usize = 400;

/// The `{app}` of a path.
pub(super) struct AppPath(pub(super) AppName);

/// The `{app}` and `{version}` of a path.
pub(super) struct VersionPath(pub(super) AppName, pub(super) VersionId);

impl<S: Send + Sync> FromRequestParts<S> for AppPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        Ok(Self(segment(&params, "app")?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        Ok(Self(segment(&params, "app")?, segment(&params, "version")?))
    }
}

/// The `{app}` and `{key}` of a path.
pub(super) struct KeyPath(pub(super) AppName, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        // Whatever it is, it is only compared with what there is.
        let key = params.iter().find(|(name, _)| *name == "key");
        let (_, key) = key.ok_or_else(|| ApiError::internal("no `key` in the path"))?;
        Ok(Self(segment(&params, "app")?, key.to_owned()))
    }
}

/// The `{sha256}` of a path.
pub(super) struct BlobPath(pub(super) Digest);

impl<S: Send + Sync> FromRequestParts<S> for BlobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        let value = params.iter().find(|(key, _)| *key == "sha256");
        let (_, value) = value.ok_or_else(|| ApiError::internal("no `sha256` in the path"))?;
        value.parse().map(Self).map_err(|_| {
            ApiError::new(ErrorCode::InvalidName)
                .detail("a digest is 64 hexadecimal digits in lower case")
        })
    }
}

/// The id that the gate gave to a request.
pub(super) fn request_id(extensions: &Extensions) -> Result<RequestId, ApiError> {
    let id = extensions.get::<RequestId>().copied();
    id.ok_or_else(|| ApiError::internal("a handler was reached without a request id"))
}

/// The `{id}` of a path.
pub(super) struct TokenPath(pub(super) TokenId);

impl<S: Send + Sync> FromRequestParts<S> for TokenPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        Ok(Self(segment(&params, "id")?))
    }
}

pub(super) async fn params<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<RawPathParams, ApiError> {
    RawPathParams::from_request_parts(parts, state).await.map_err(|_| {
        ApiError::new(ErrorCode::InvalidName)
            .detail("the path is not UTF-8")
            .hint("names have a-z, 0-9 and - only")
    })
}

/// A segment of the path, percent-decoded, as a name.
pub(super) fn segment<T: FromStr<Err = NameError>>(
    params: &RawPathParams,
    name: &'static str,
) -> Result<T, ApiError> {
    let value = params.iter().find(|(key, _)| *key == name);
    let (_, value) = value.ok_or_else(|| ApiError::internal(format!("no `{name}` in the path")))?;
    value.parse().map_err(|error| ApiError::name(name, &error))
}

/// The query, every key of which must be known.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let why = text.split_once("string: ").map_or(text.as_str(), |(_, why)| why);
                Err(bad_query(why))
            }
        }
    }
}

/// An error about the query.
pub(super) fn bad_query(why: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest).detail(format!("query: {}", shorten(why)))
}

/// No query at all.
pub(super) struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => Err(bad_query("this address knows no query")),
        }
    }
}

/// A JSON body of at most so many bytes.
pub(super) struct Json<T, const MAX: usize = MAX_JSON_BYTES>(pub(super) T);

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<Api>> for Json<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        match media_type(request.headers())?.as_deref() {
            Some("application/json") => {}
            _ => {
                return Err(ApiError::new(ErrorCode::UnsupportedMediaType)
                    .detail("the body is JSON")
                    .hint("send `content-type: application/json`"));
            }
        }
        let body = request.into_body();
        let bytes = tokio::time::timeout(api.patience.body, read(body, MAX))
            .await
            .map_err(|_| ApiError::new(ErrorCode::RequestTimeout))??;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let code = match error.classify() {
                Category::Data => ErrorCode::Unprocessable,
                Category::Io | Category::Syntax | Category::Eof => ErrorCode::BadRequest,
            };
            ApiError::new(code).detail(format!("body: {}", shorten(&error.to_string())))
        })
    }
}

pub(super) async fn read(body: Body, max: usize) -> Result<bytes::Bytes, ApiError> {
    let too_large = || {
        ApiError::new(ErrorCode::BodyTooLarge).detail(format!("this body has at most {max} bytes"))
    };
    // What is announced as too much is not even begun.
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => {
            Err(ApiError::new(ErrorCode::BadRequest).detail("the body ended early").because(error))
        }
    }
}

/// The media type of a body, without its parameters and in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    // Nothing here undoes an encoding; storing the encoded bytes would be worse than refusing.
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType)
            .detail("a body cannot have a `content-encoding`")
            .hint("send it as it is"));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(None);
    };
    let value = value.to_str().unwrap_or("?").split(';').next();
    Ok(value.map(|value| value.trim().to_ascii_lowercase()))
}

/// Whether the client asks for this media type by its name.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(media_type))
}

/// Who asks for a change, and on which condition.
pub(super) struct Change {
    /// Who asks.
    pub(super) by: Principal,
    /// What is recorded of it.
    pub(super) audit: Audit,
    condition: IfMatch,
}

impl<S: Sync> FromRequestParts<S> for Change {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let by = Principal::from_request_parts(parts, state).await?;
        let audit = Audit::from_request_parts(parts, state).await?;
        let condition = IfMatch::read(&parts.headers)?;
        Ok(Self { by, audit, condition })
    }
}

impl Change {
    /// The revision that the app must still have, if it must have one.
    pub(super) async fn expect(&self, api: &Api, app: &AppName) -> Result<Option<u64>, ApiError> {
        if !self.is_conditional() {
            return Ok(None);
        }
        let (_, rev) = api.parts.functions.get(app).await?;
        self.expect_rev(rev)
    }

    /// Whether there is a condition at all.
    pub(super) fn is_conditional(&self) -> bool {
        matches!(self.condition, IfMatch::Tags(_))
    }

    /// This revision, if it is what the condition asks for.
    pub(super) fn expect_rev(&self, rev: u64) -> Result<Option<u64>, ApiError> {
        match &self.condition {
            IfMatch::Any => Ok(None),
            IfMatch::Tags(tags) if tags.contains(&rev.to_string()) => Ok(Some(rev)),
            IfMatch::Tags(_) => Err(ApiError::changed()),
        }
    }
}

/// What a change is allowed to build on (RFC 9110 §13.1.1).
enum IfMatch {
    /// Anything; nothing was asked for.
    Any,
    /// One of these, without their quotes.
    Tags(Vec<String>),
}

impl IfMatch {
    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut tags = Vec::new();
        let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
        if values.peek().is_none() {
            return Ok(Self::Any);
        }
        for value in values {
            let value = value.to_str().unwrap_or("?");
            if value.trim() == "*" {
                return Ok(Self::Any);
            }
            for tag in value.split(',').map(str::trim) {
                let (weak, tag) = match tag.strip_prefix("W/") {
                    Some(tag) => (true, tag),
                    None => (false, tag),
                };
                // Shells eat quotes: what can only be a revision is taken without.
                let text = match tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) {
                    None if !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_digit()) => tag,
                    None => return Err(bad_tag()),
                    Some(text) => text,
                };
                // A weak tag matches nothing: it does not promise that nothing has changed.
                if !weak {
                    tags.push(text.to_owned());
                }
            }
        }
        Ok(Self::Tags(tags))
    }
}

fn bad_tag() -> ApiError {
    ApiError::new(ErrorCode::BadRequest)
        .detail("`if-match` has something that is no tag")
        .hint("send the `etag` as it was received, quotes included")
}

/// The beginning of a text that quotes what was sent.
fn shorten(text: &str) -> String {
    match text.len() > MAX_DETAIL_BYTES {
        true => format!("{}…", text.split_at(text.floor_char_boundary(MAX_DETAIL_BYTES)).0),
        false => text.to_owned(),
    }
}
