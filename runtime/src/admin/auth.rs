//! Who asks: bearer tokens (RFC 6750).

use super::error::ApiError;
use crate::tokens::{Known, Refused, Tokens};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use faas_api::{Digest, ErrorCode, Scope, TokenId, Verb};
use jiff::Timestamp;
use std::{
    fmt,
    sync::{Arc, LazyLock},
};
use subtle::ConstantTimeEq as _;

/// The server's own token, which may do everything. Only its hash is kept.
#[derive(Clone)]
pub(crate) struct AdminToken(Option<Digest>);

impl AdminToken {
    /// The token with this text. An empty one is no token: then nobody is let in.
    pub(crate) fn new(token: &str) -> Self {
        let token = token.trim();
        Self((!token.is_empty()).then(|| Digest::of(token.as_bytes())))
    }

    /// Whether this is it.
    fn is(&self, given: &[u8]) -> bool {
        let given = Digest::of(given);
        // Hashes are compared, so that neither a token's text nor its length shows in the time.
        self.0.is_some_and(|token| bool::from(token.as_bytes().ct_eq(given.as_bytes())))
    }
}

/// Who sent these headers.
pub(super) fn check(
    server: &AdminToken,
    tokens: &Tokens,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Principal, ApiError> {
    let unknown = |detail| {
        ApiError::new(ErrorCode::Unauthorized).detail(detail).hint(
            "send `authorization: Bearer TOKEN`; the server keeps its token in the file \
                 `admin.token` of its data directory",
        )
    };
    let given = bearer(headers).ok_or_else(|| unknown("no bearer token was sent"))?;
    if server.is(given) {
        return Ok(Principal::Server);
    }
    // What follows is told to those only who have, or had, the token.
    tokens.recognise(given, now).map(Principal::Token).map_err(|refused| match refused {
        Refused::Unknown => unknown("the token is not one of this server's"),
        Refused::Expired { name, at } => ApiError::new(ErrorCode::TokenExpired)
            .detail(format!("the token `{name}` expired on {at}"))
            .hint("ask for a new one: faas token create"),
        Refused::Revoked { name, at } => ApiError::new(ErrorCode::Unauthorized)
            .detail(format!("the token `{name}` was revoked on {at}"))
            .hint("ask for a new one: faas token create"),
    })
}

// Not even the hash: it would let a log's reader test guesses.
impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// The one credential of a request; two of them are none.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Whoever a good token belongs to.
#[derive(Debug, Clone)]
pub(super) enum Principal {
    /// The operator: the server's own token.
    Server,
    /// A token that was made.
    Token(Arc<Known>),
}

impl Principal {
    /// What the server's own token is called.
    pub(super) const SERVER: &str = "admin";

    /// The token's id; the server's own has none.
    pub(super) fn id(&self) -> Option<&TokenId> {
        match self {
            Self::Server => None,
            Self::Token(known) => Some(&known.id),
        }
    }

    /// What they may do.
    pub(super) fn scope(&self) -> &Scope {
        static EVERYTHING: LazyLock<Scope> = LazyLock::new(Scope::everything);
        match self {
            Self::Server => &EVERYTHING,
            Self::Token(known) => &known.record.scope,
        }
    }

    /// When that ends.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Server => None,
            Self::Token(known) => known.record.expires_at,
        }
    }

    /// Whether an app is shown to them.
    pub(super) fn sees(&self, app: &str) -> bool {
        let verbs = [Verb::Read, Verb::Deploy, Verb::Invoke];
        verbs.into_iter().any(|verb| self.scope().allows(verb, app))
    }
}

/// What records call them.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str(Self::SERVER),
            Self::Token(known) => f.write_str(&known.record.name),
        }
    }
}

/// Handlers that take a principal are only reached with one: the gate put it there.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let principal = parts.extensions.get::<Self>().cloned();
        principal.ok_or_else(|| ApiError::internal("a handler was reached without a principal"))
    }
}

/// Whether an address answers without a token.
pub(super) fn is_open(path: &str, open_probes: bool) -> bool {
    match path {
        "/v1/openapi.json" => true,
        "/metrics" | "/livez" | "/readyz" => open_probes,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const TOKEN: &str = "faas_0123456789abcdef";

    fn checked(values: &[&[u8]]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        opens(&AdminToken::new(&format!("{TOKEN}\n")), &headers)
    }

    fn opens(token: &AdminToken, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|given| token.is(given))
    }

    #[test]
    fn only_the_whole_token_opens() {
        let good = format!("Bearer {TOKEN}");
        assert!(checked(&[good.as_bytes()]));
        assert!(checked(&[format!("bearer  {TOKEN} ").as_bytes()]));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            "Basic faas_0123456789abcdef",
            "Bearer faas_0123456789abcdee",
            "Bearer faas_0123456789abcde",
            "Bearer faas_0123456789abcdef0",
            "Bearer FAAS_0123456789ABCDEF",
        ] {
            assert!(!checked(&[bad.as_bytes()]), "{bad}");
        }
        assert!(!checked(&[]));
        assert!(!checked(&[good.as_bytes(), good.as_bytes()]));
        assert!(!checked(&[b"Bearer \xff\xfe"]));
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        for text in ["", " ", "\n"] {
            let token = AdminToken::new(text);
            let mut headers = HeaderMap::new();
            assert!(!opens(&token, &headers));
            headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
            assert!(!opens(&token, &headers));
            assert!(!token.is(b""));
        }
    }

    #[test]
    fn no_token_shows_in_debug_output() {
        let text = format!("{:?}", AdminToken::new(TOKEN));
        assert_eq!(text, "AdminToken(..)");
    }
}
