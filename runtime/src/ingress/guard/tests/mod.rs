//! Tests of guards, with keys of the RFCs and an issuer on loopback.

mod issuers;
mod tokens;

use super::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

/// RFC 7515 A.2: PKCS #1.
const RSA: &str = "\
    MIIEowIBAAKCAQEAofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw\
    +4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo9wGz\
    jb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTBEMa2R2CapHg665xsmtdVMTBQ\
    Y4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxXFvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2\
    PAcDTW9gb54h4FRWyuXpoQIDAQABAoIBABKucaRpzQorw35SbEUAVx8dYXUdZOlJcHtiWQ+dC6V8ljxAHj/P\
    LyzTveyI5QO/xkObCyjIL303l2cfUhPu2MFaJdjVzqACXuOrLot/eSFvxjvqVidTtAZExqFRJ9mylUVAoLvh\
    owVWmC1On95fZCXxTUtxNEG1Xcc7m0rtzJKs45J+N/V9DP1edYH6USyPSWGp6wuA+KgHRnKKVf9GRx80JQY7\
    nVNkL17eHoTWEwga+lwi0FEoW9Y7lDtWXYmKBWhUE+U8PGxlJf8f40493HDw1WRQ/aSLoS4QTp3rn7gYgeHE\
    vfJdkkf0UMhlknlo53M09EFPdadQ4TlUbjqKc50CgYEA4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH/5IB3jw\
    3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw/Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc\
    1QlQ5xHdwW1VhvKn+nXqhJTBgIPgtldC+KDV5z+y2XDwGUcCgYEAuQPEfgmVtjL0Uyyx88GZFF1fOunH3+7c\
    epKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD/YwD66t62wDmpe/HlB+TnBA\
    +njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdcCgYAHAp9XcCSrn8wVkMVkKdb7DOX4\
    IKjzdahm+ctDAJN4O/y7OW5FKebvUjdAIt2GuoTZ71iTG+7F0F+lP88jtjP4U4qe7VHoewl4MKOfXZKTe+YC\
    S1XbNvfgwJ3Ltyl1OH9hWvu2yza7q+d5PCsDzqtm27kxuvULVeya+TEdAB1ijQKBgQCH/3r6YrVH/uCWGy6b\
    zV1nGNOdjKc9tmkfOJmN54dxdixdpozCQ6U4OxZrsj3FcOhHBsqAHvX2uuYjagqvo3cOj1TRqNocX40omfCC\
    Mx3bD1yPPf/6TI2XECva/ggqEY2mYzmIiA5LVVmc5nrybr+lssFKneeyxN2Wq93S0iJMdQKBgCGHewxzoa1r\
    8ZMD0LETNrToK423K377UCYqXfg5XMclbrjPbEC3YI1ZNqMtuhdBJqUnBi6tjKMF+34Xf0CUN8ncuXGO2CAY\
    vO8PdyCixHX52ybaDjy1FtCE6yUXjoKNXKvUm7MWGsAYH6f4IegOetN5NvmUMFStCSkh7ixZLkN1";
/// RFC 7515 A.3: PKCS #8.
const P256: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIffH1136cspYG6+0iY7X1fC\
    E9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1u\
    qQskrYpGIyiFiOWt";
/// Made for these tests: PKCS #8.
const P384: &str = "\
    MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDAGNEXle9D0HrC3Ppx2cvuqG9y7jEkGISatR8Ep\
    K5WyiXyc+0i4HbEcZkmDvo1t8QGhZANiAARrIc7Hp4YiGcy+3z8xxe25LU0YMp8qa3pQDC4le+RgYHJrfdTC\
    xquPbfG5bApkbMNlJEFg4eiv5b3lYiBrbZ95RXs7xSyDz/UfRoMiwbdSJhmuN1qpL1wiqVmr2Y9QKPE=";
/// RFC 8037 A.1: PKCS #8.
const ED25519: &str = "\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
/// The modulus of a key of RSA that is too small.
const SMALL_MODULUS: &str = "\
    4bStEiUgP2cqTEFtmVtwD2AAUTSlX1LlRhCyI8eqM6K5MzFwkKlq8ZXD0Y4eK5H_e0dnCeTH3vVQsYH8ZpjN\
    Qd19S6Yieu8ZhS70-3KFBfecNBF16JXnn8KQ0P-Ky2ofUUu2JHuvaWL86gyEKy-\
    bI3jMOo_E61vLrAAbDR58Mss";

const ISSUER: &str = "https://issuer.example";

fn der(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

/// The private key that signs with an algorithm.
fn signer(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_der(&der(P256)),
        Algorithm::ES384 => EncodingKey::from_ec_der(&der(P384)),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der(ED25519)),
        _ => EncodingKey::from_rsa_der(&der(RSA)),
    }
}

/// The public key that belongs to it, as an issuer publishes it.
fn jwk(algorithm: Algorithm, id: Option<&str>) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(&signer(algorithm), algorithm).unwrap();
    jwk.common.key_algorithm = None;
    jwk.common.key_id = id.map(str::to_owned);
    jwk
}

fn now() -> i64 {
    crate::clock::now().as_second()
}

/// What a good token says.
fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "ada", "aud": "shop", "exp": now() + 300 })
}

/// A token with these claims.
fn token(algorithm: Algorithm, id: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = id.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &signer(algorithm)).unwrap()
}

fn rules(audience: Option<&str>) -> JwtRules {
    let audience = audience.map(str::to_owned);
    JwtRules { issuer: ISSUER.to_owned(), audience, jwks: String::new() }
}
