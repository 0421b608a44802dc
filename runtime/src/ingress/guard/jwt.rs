//! Whether a token is what its function wants (RFC 7515, 7519; RFC 8725 §3).
//!
//! Tokens are signed with a private key of their issuer. Shared secrets and `none` do not exist
//! here: what names them is no token. A key serves the algorithms of its own kind and curve, and if
//! it names one, that one only; so a token cannot choose what it is checked with.

use super::jwks::KeySet;
use crate::{clock, functions::guard::JwtRules};
use http::HeaderValue;
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, TokenData, Validation,
    errors::{Error, ErrorKind},
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use std::fmt::Write as _;

/// Seconds by which clocks may differ.
const LEEWAY_S: u64 = 60;
/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// The longest subject, in bytes: as OpenID Connect Core §2 has it.
const MAX_SUBJECT: usize = 255;
/// The smallest modulus of RSA, in bytes (RFC 7518 §3.3).
const MIN_MODULUS: usize = 256;

/// A key of an issuer.
pub(super) struct IssuerKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl IssuerKey {
    /// A key that signatures can be checked with; none if it is for something else.
    pub(super) fn new(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|to| *to == PublicKeyUse::Signature);
        let verifies =
            common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
        let mut algorithms = algorithms(&jwk.algorithm)?.to_vec();
        if let Some(only) = common.key_algorithm {
            algorithms.retain(|algorithm| named(*algorithm) == only);
        }
        if !signs || !verifies || algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        if let jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind()
            && n.len() < MIN_MODULUS
        {
            return None;
        }
        Some(Self { id: common.key_id.clone(), algorithms, key })
    }

    /// Whether a token with this header can have been signed with it.
    fn fits(&self, header: &Header) -> bool {
        let is_named = header.kid.is_none() || header.kid == self.id;
        is_named && self.algorithms.contains(&header.alg)
    }
}

/// What a key of this kind can check.
fn algorithms(parameters: &AlgorithmParameters) -> Option<&'static [Algorithm]> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(_) => Some(&[RS256, RS384, RS512, PS256, PS384, PS512]),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Some(&[ES256]),
            EllipticCurve::P384 => Some(&[ES384]),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => Some(&[EdDSA]),
            _ => None,
        },
        // A shared secret that everybody can read is none.
        _ => None,
    }
}

/// An algorithm as keys name it.
fn named(algorithm: Algorithm) -> KeyAlgorithm {
    match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::RS384 => KeyAlgorithm::RS384,
        Algorithm::RS512 => KeyAlgorithm::RS512,
        Algorithm::PS256 => KeyAlgorithm::PS256,
        Algorithm::PS384 => KeyAlgorithm::PS384,
        Algorithm::PS512 => KeyAlgorithm::PS512,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        Algorithm::ES384 => KeyAlgorithm::ES384,
        Algorithm::EdDSA => KeyAlgorithm::EdDSA,
        _ => KeyAlgorithm::UNKNOWN_ALGORITHM,
    }
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// None of the keys has signed it.
    UnknownKey,
    /// It never will, and this is why.
    Invalid(&'static str),
}

/// What could be a token: only its header was read.
pub(super) struct Token<'a> {
    text: &'a [u8],
    header: Header,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verified {
    /// Whom it names.
    pub(super) subject: Option<String>,
}

impl Verified {
    /// What its holder is called: `jwt:SUBJECT`, where whatever is no visible ASCII, and `%`, is
    /// percent-encoded.
    pub(super) fn caller(&self) -> HeaderValue {
        let mut text = String::from("jwt:");
        for byte in self.subject.iter().flat_map(|subject| subject.bytes()) {
            match byte.is_ascii_graphic() && byte != b'%' {
                true => text.push(char::from(byte)),
                // A string takes everything.
                false => write!(text, "%{byte:02X}").unwrap_or_default(),
            }
        }
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("jwt:"))
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    iat: Option<f64>,
}

impl<'a> Token<'a> {
    /// Reads the header of a token.
    pub(super) fn read(text: &'a [u8]) -> Result<Self, &'static str> {
        if text.len() > MAX_TOKEN {
            return Err("the token is too long");
        }
        // What names an algorithm that is not known, such as `none`, cannot be read.
        let header = jsonwebtoken::decode_header(text)
            .map_err(|_| "that is no JSON Web Token with a signature")?;
        if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            return Err("the token is signed with a shared secret");
        }
        // RFC 7515 §4.1.11: extensions that are not understood must not be passed over.
        match header.crit {
            Some(_) => Err("the token needs an extension that is not known here"),
            None => Ok(Self { text, header }),
        }
    }

    /// Checks its signature and what it says.
    pub(super) fn verify(&self, keys: &KeySet, rules: &JwtRules) -> Result<Verified, Refusal> {
        let mut validation = validation(rules);
        validation.algorithms = vec![self.header.alg];
        let mut is_named = false;
        // Without a `kid` it can be any of them.
        for key in keys.keys.iter().filter(|key| key.fits(&self.header)) {
            match jsonwebtoken::decode::<Claims>(self.text, &key.key, &validation) {
                Ok(TokenData { claims, .. }) => return check(claims),
                Err(error) if is_signature(&error) => is_named |= self.header.kid.is_some(),
                Err(error) => return Err(Refusal::Invalid(explain(&error))),
            }
        }
        match is_named {
            true => Err(Refusal::Invalid("the token's signature is wrong")),
            false => Err(Refusal::UnknownKey),
        }
    }
}

/// What is checked of every token: `exp` must be there, `nbf` need not.
fn validation(rules: &JwtRules) -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.leeway = LEEWAY_S;
    validation.validate_nbf = true;
    validation.set_issuer(&[&rules.issuer]);
    match &rules.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        }
        None => {
            validation.validate_aud = false;
            validation.set_required_spec_claims(&["exp", "iss"]);
        }
    }
    validation
}

/// What is no claim of the specification's that the library checks.
fn check(claims: Claims) -> Result<Verified, Refusal> {
    // Seconds of this century are exact.
    let latest = (clock::now().as_second() + LEEWAY_S.cast_signed()) as f64;
    if claims.iat.is_some_and(|issued| issued > latest) {
        return Err(Refusal::Invalid("the token was issued in the future"));
    }
    if claims.sub.as_ref().is_some_and(|subject| subject.len() > MAX_SUBJECT) {
        return Err(Refusal::Invalid("the token's subject is too long"));
    }
    Ok(Verified { subject: claims.sub.filter(|subject| !subject.is_empty()) })
}

/// Whether another key might have signed the token.
fn is_signature(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidSignature | ErrorKind::InvalidKeyFormat | ErrorKind::InvalidEcdsaKey
    )
}

fn explain(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the token does not say when it expires",
            "iss" => "the token does not say who issued it",
            _ => "the token does not say whom it is for",
        },
        _ => "the token cannot be read",
    }
}
