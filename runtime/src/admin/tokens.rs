//! `/v1/tokens` and `/v1/whoami`

use super::{
    State,
    access::{self, Place},
    audit::Audit,
    auth::Principal,
    error::ApiError,
    extract::{Json, NoQuery, TokenPath},
    openapi::{self, Common, JsonBody, TokenChange, TokenWrite},
};
use crate::{clock, tokens::Wanted};
use axum::http::StatusCode;
use faas_api::{
    CreatedToken, ErrorCode, NewToken, Scope, TokenList, Verb, WhoAmI, tokens::MAX_TOKEN_NAME_BYTES,
};
use jiff::{SignedDuration, Timestamp};

/// The longest life of a token, in seconds: a hundred years.
const MAX_LIFE_S: u64 = 100 * 365 * 24 * 60 * 60;

/// Make a token
///
/// Nobody can give more than they have: the verbs, the apps and the time of the new token are
/// within those of the one that asks. The answer has the secret, this once.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "access",
    security(("bearer" = ["admin:any"])),
    request_body = NewToken,
    responses((status = 201, description = "It can be used.", body = CreatedToken),
        TokenWrite, JsonBody))]
pub(super) async fn create(
    axum::extract::State(api): State,
    principal: Principal,
    audit: Audit,
    _: NoQuery,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, axum::Json<CreatedToken>), ApiError> {
    let refused = |why: String| ApiError::new(ErrorCode::Unprocessable).detail(why);
    let scope = new.scope.checked().map_err(refused)?;
    let name = new.name.map(checked_name).transpose().map_err(refused)?;
    if !administers(&principal, &scope) {
        let own = principal.scope();
        return Err(ApiError::new(ErrorCode::MissingScope)
            .detail(format!("the token `{principal}` has {own}; it cannot give {scope}"))
            .hint("nobody can give more than they have; name fewer apps or verbs"));
    }
    let expires_at = new.expires_in_s.map(|life| expiry(life, clock::now())).transpose();
    let expires_at = expires_at.map_err(refused)?;
    if let Some(end) = principal.expires_at()
        && expires_at.is_none_or(|expires_at| expires_at > end)
    {
        return Err(ApiError::new(ErrorCode::MissingScope)
            .detail(format!("the token would outlive `{principal}`, which expires on {end}"))
            .hint("let it expire earlier: --expires"));
    }
    let wanted = Wanted { name, scope, expires_at, created_by: principal.to_string() };
    let (secret, token) = api.parts.tokens.create(wanted).await?;
    audit.about(&token.id);
    tracing::info!(id = %token.id, name = token.name, scope = %token.scope, by = %principal,
        "token made");
    Ok((StatusCode::CREATED, axum::Json(CreatedToken { secret: secret.reveal(), token })))
}

/// List tokens
///
/// Newest first, without their secrets; expired and revoked ones for 90 days. A token that
/// administers some apps only sees those that are for nothing else.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "access",
    security(("bearer" = ["admin:any"])),
    responses((status = 200, description = "The tokens.", body = TokenList), Common))]
pub(super) async fn list(
    axum::extract::State(api): State,
    principal: Principal,
    _: NoQuery,
) -> axum::Json<TokenList> {
    let mut tokens = api.parts.tokens.list();
    tokens.retain(|token| administers(&principal, &token.scope));
    axum::Json(TokenList { tokens })
}

/// Revoke a token
///
/// It is refused from now on, on connections that are open too. Every token can revoke itself.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "revoke_token", tag = "access",
    security(("bearer" = ["any"])),
    params(openapi::TokenId),
    responses((status = 204, description = "It is refused from now on."), TokenChange))]
pub(super) async fn revoke(
    axum::extract::State(api): State,
    principal: Principal,
    TokenPath(id): TokenPath,
    _: NoQuery,
) -> Result<StatusCode, ApiError> {
    let known = api.parts.tokens.get(&id);
    let own = principal.id() == Some(&id);
    let may = match &known {
        Some(known) => administers(&principal, &known.record.scope),
        // Whether there is such a token is nothing for those who could not see it.
        None => principal.scope().allows_everywhere(Verb::Admin),
    };
    if !own && !may {
        return Err(access::missing(&principal, Verb::Admin, Place::Everywhere));
    }
    api.parts.tokens.revoke(&id, &principal.to_string()).await?;
    tracing::info!(%id, by = %principal, "token revoked");
    Ok(StatusCode::NO_CONTENT)
}

/// Who is asking?
///
/// What the token that was sent is called and what it may do: how a client checks one.
#[utoipa::path(get, path = "/v1/whoami", operation_id = "whoami", tag = "access",
    security(("bearer" = ["any"])),
    responses((status = 200, description = "The token that was sent.", body = WhoAmI), Common))]
pub(super) async fn whoami(principal: Principal, _: NoQuery) -> axum::Json<WhoAmI> {
    axum::Json(WhoAmI {
        name: principal.to_string(),
        id: principal.id().cloned(),
        scope: principal.scope().clone(),
        expires_at: principal.expires_at(),
    })
}

/// Whether somebody may make and end tokens of this scope.
fn administers(principal: &Principal, scope: &Scope) -> bool {
    let admin = Scope { apps: scope.apps.clone(), can: vec![Verb::Admin] };
    principal.scope().covers(&admin)
}

/// A name that reads well in a table.
fn checked_name(name: String) -> Result<String, String> {
    if name.is_empty() || name.len() > MAX_TOKEN_NAME_BYTES {
        return Err(format!("a token's name has 1 to {MAX_TOKEN_NAME_BYTES} bytes"));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err("a token's name is one line without space around it".to_owned());
    }
    match name.as_str() {
        Principal::SERVER => Err(format!("`{name}` is what the server's own token is called")),
        _ => Ok(name),
    }
}

fn expiry(life_s: u64, now: Timestamp) -> Result<Timestamp, String> {
    if !(1..=MAX_LIFE_S).contains(&life_s) {
        return Err(format!("`expires_in_s` is from 1 to {MAX_LIFE_S}"));
    }
    let life = SignedDuration::from_secs(i64::try_from(life_s).unwrap_or(i64::MAX));
    now.checked_add(life).map_err(|_| "`expires_in_s` is beyond the end of time".to_owned())
}
