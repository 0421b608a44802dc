//! Where a request carries its key or token: `authorization: Bearer …` (RFC 6750 §2.1), and
//! `x-api-key` for keys. Nowhere else: targets end up in logs.

use faas_api::keys::KEY_PREFIX;
use http::{HeaderMap, HeaderName, header};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const SCHEME: &[u8] = b"bearer ";

/// What a request says of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// Nothing.
    Absent,
    /// This.
    Sent(&'a [u8]),
}

/// There is more than one, and which of them counts is not for the node to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misplaced;

/// The key of a request. One in `x-api-key` counts more: `authorization` may be the function's own.
pub(super) fn key(headers: &HeaderMap) -> Result<Credential<'_>, Misplaced> {
    match only(headers, &API_KEY)? {
        Some(value) => Ok(Credential::Sent(value.trim_ascii())),
        None => token(headers),
    }
}

/// The token of a request.
pub(super) fn token(headers: &HeaderMap) -> Result<Credential<'_>, Misplaced> {
    let value = only(headers, &header::AUTHORIZATION)?;
    Ok(value.and_then(bearer).map_or(Credential::Absent, Credential::Sent))
}

/// Takes every key out of a request: its function need not know what opened it.
pub(super) fn remove_keys(headers: &mut HeaderMap) {
    headers.remove(API_KEY);
    let is_key =
        |value: &[u8]| bearer(value).is_some_and(|token| token.starts_with(KEY_PREFIX.as_bytes()));
    if headers.get(header::AUTHORIZATION).is_some_and(|value| is_key(value.as_bytes())) {
        headers.remove(header::AUTHORIZATION);
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Misplaced> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.as_bytes())),
        (_, Some(_)) => Err(Misplaced),
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn where_keys_and_tokens_are() {
        let sent = |text: &'static str| Ok(Credential::Sent(text.as_bytes()));
        for (fields, key_of, token_of) in [
            (vec![], Ok(Credential::Absent), Ok(Credential::Absent)),
            (vec![("authorization", "Bearer k")], sent("k"), sent("k")),
            (vec![("authorization", "bearer  k ")], sent("k"), sent("k")),
            (vec![("x-api-key", "k")], sent("k"), Ok(Credential::Absent)),
            (vec![("x-api-key", "k"), ("authorization", "Bearer t")], sent("k"), sent("t")),
            (vec![("authorization", "Basic k")], Ok(Credential::Absent), Ok(Credential::Absent)),
            (vec![("authorization", "Bearer")], Ok(Credential::Absent), Ok(Credential::Absent)),
            (vec![("authorization", "Bearer ")], Ok(Credential::Absent), Ok(Credential::Absent)),
            (
                vec![("authorization", "Bearer a"), ("authorization", "Bearer b")],
                Err(Misplaced),
                Err(Misplaced),
            ),
            (vec![("x-api-key", "a"), ("x-api-key", "a")], Err(Misplaced), Ok(Credential::Absent)),
        ] {
            let headers = headers(&fields);
            assert_eq!(key(&headers), key_of, "{fields:?}");
            assert_eq!(token(&headers), token_of, "{fields:?}");
        }
    }

    #[test]
    fn keys_are_removed_and_nothing_else() {
        let kept = |fields: &[(&'static str, &'static str)]| {
            let mut headers = headers(fields);
            remove_keys(&mut headers);
            headers.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert!(
            kept(&[("authorization", "Bearer faas_key_1"), ("x-api-key", "faas_key_2")]).is_empty()
        );
        assert_eq!(kept(&[("authorization", "Bearer own"), ("x-api-key", "k")]), ["authorization"]);
    }
}
