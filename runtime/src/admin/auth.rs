//! Who asks: bearer tokens (RFC 6750).

use super::error::ApiError;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use faas_api::{Digest, ErrorCode};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// The token that may do everything. Only its hash is kept.
#[derive(Clone)]
pub(crate) struct AdminToken(Option<Digest>);

impl AdminToken {
    /// The token with this text. An empty one is no token: then nobody is let in.
    pub(crate) fn new(token: &str) -> Self {
        let token = token.trim();
        Self((!token.is_empty()).then(|| Digest::of(token.as_bytes())))
    }

    /// Who sent these headers.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let refused = |detail| {
            ApiError::new(ErrorCode::Unauthorized).detail(detail).hint(
                "send `authorization: Bearer TOKEN`; the server keeps its token in the file \
                     `admin.token` of its data directory",
            )
        };
        let given = bearer(headers).ok_or_else(|| refused("no bearer token was sent"))?;
        let given = Digest::of(given);
        // Hashes are compared, so that neither a token's text nor its length shows in the time.
        match self.0 {
            Some(token) if bool::from(token.as_bytes().ct_eq(given.as_bytes())) => {
                Ok(Principal { name: "admin" })
            }
            _ => Err(refused("the token is not one of this server's")),
        }
    }
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

/// Whoever a valid token belongs to.
#[derive(Debug, Clone)]
pub(super) struct Principal {
    /// What records call them.
    pub(super) name: &'static str,
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
        AdminToken::new(&format!("{TOKEN}\n")).check(&headers).is_ok()
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
            assert!(token.check(&headers).is_err());
            headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
            assert!(token.check(&headers).is_err());
        }
    }

    #[test]
    fn no_token_shows_in_debug_output() {
        let text = format!("{:?}", AdminToken::new(TOKEN));
        assert_eq!(text, "AdminToken(..)");
    }
}
