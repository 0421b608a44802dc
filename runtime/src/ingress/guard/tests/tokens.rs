//! What is a good token, and what is none.

use super::{
    super::{
        jwks::KeySet,
        jwt::{IssuerKey, Refusal, Token, Verified},
    },
    *,
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{KeyAlgorithm, PublicKeyUse};

const ALL: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

const WRONG: Result<Verified, Refusal> = Err(Refusal::Invalid("the token's signature is wrong"));
const EXPIRED: Result<Verified, Refusal> = Err(Refusal::Invalid("the token has expired"));

fn set(keys: &[Jwk]) -> KeySet {
    KeySet::of(keys.iter().filter_map(IssuerKey::new).collect())
}

/// A set of one of each kind, without names.
fn every_kind() -> KeySet {
    let kinds = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    set(&kinds.map(|algorithm| jwk(algorithm, None)))
}

fn verify(text: &str, keys: &KeySet, rules: &JwtRules) -> Result<Verified, Refusal> {
    Token::read(text.as_bytes()).map_err(Refusal::Invalid)?.verify(keys, rules)
}

fn verified(subject: &str) -> Result<Verified, Refusal> {
    Ok(Verified { subject: Some(subject.to_owned()) })
}

#[test]
fn the_examples_of_the_standards() {
    let read = |text: &str| set(&[serde_json::from_str(text).unwrap()]);
    let joe = JwtRules { issuer: "joe".to_owned(), ..rules(None) };
    let body = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    // RFC 7515 A.2.
    let rsa = read(
        r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#,
    );
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let text = format!("eyJhbGciOiJSUzI1NiJ9.{body}.{signature}");
    // Its signature is right; it expired in 2011.
    assert_eq!(verify(&text, &rsa, &joe), EXPIRED);
    let forged = text.replace(".cC4h", ".cC5h");
    assert_eq!(verify(&forged, &rsa, &joe), Err(Refusal::UnknownKey));
    // RFC 7515 A.3.
    let ec = read(
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
    );
    let signature =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let text = format!("eyJhbGciOiJFUzI1NiJ9.{body}.{signature}");
    assert_eq!(verify(&text, &ec, &joe), EXPIRED);
    // RFC 8037 A.4: the signature is right, and what it signs are no claims.
    let ed =
        read(r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#);
    let text = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let unreadable = Err(Refusal::Invalid("the token cannot be read"));
    assert_eq!(verify(text, &ed, &joe), unreadable);
    let forged = text.replace(".hgyY", ".hgyZ");
    assert_eq!(verify(&forged, &ed, &joe), Err(Refusal::UnknownKey));
}

#[test]
fn every_algorithm_of_private_keys() {
    for algorithm in ALL {
        let text = token(algorithm, None, &claims());
        let only = set(&[jwk(algorithm, Some("a"))]);
        for keys in [&only, &every_kind()] {
            assert_eq!(verify(&text, keys, &rules(Some("shop"))), verified("ada"), "{algorithm:?}");
        }
        let named = token(algorithm, Some("a"), &claims());
        assert_eq!(verify(&named, &only, &rules(None)), verified("ada"));
        let other = token(algorithm, Some("b"), &claims());
        assert_eq!(verify(&other, &only, &rules(None)), Err(Refusal::UnknownKey));
        let (signed, _) = named.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", text.rsplit('.').next().unwrap());
        assert_eq!(verify(&forged, &only, &rules(None)), WRONG, "{algorithm:?}");
        for cut in [signed, &format!("{signed}."), &format!("{named}.x"), &named[1..]] {
            assert!(verify(cut, &only, &rules(None)).is_err(), "{cut}");
        }
    }
}

/// A token whose header and claims are these texts, with a signature of that algorithm.
fn crafted(header: &str, algorithm: Algorithm) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims().to_string())
    );
    let key = match algorithm {
        Algorithm::HS256 => {
            // What everybody knows of the issuer's key, as a shared secret.
            EncodingKey::from_secret(&serde_json::to_vec(&jwk(Algorithm::RS256, None)).unwrap())
        }
        _ => signer(algorithm),
    };
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

#[test]
fn a_token_does_not_choose_what_it_is_checked_with() {
    let keys = every_kind();
    let is_refused = |text: &str| verify(text, &keys, &rules(None)).is_err();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"ES512"}"#,
        r#"{"alg":""}"#,
        r#"{"typ":"JWT"}"#,
        "[]",
        "",
    ] {
        assert!(is_refused(&crafted(header, Algorithm::HS256)), "{header}");
        assert!(is_refused(&crafted(header, Algorithm::RS256)), "{header}");
        let unsigned = crafted(header, Algorithm::RS256);
        let (signed, _) = unsigned.rsplit_once('.').unwrap();
        assert!(is_refused(&format!("{signed}.")), "{header}");
    }
    // A signature that is right, under the name of another algorithm.
    for (header, algorithm) in [
        (r#"{"alg":"PS256"}"#, Algorithm::RS256),
        (r#"{"alg":"RS512"}"#, Algorithm::RS256),
        (r#"{"alg":"ES384"}"#, Algorithm::ES256),
        (r#"{"alg":"EdDSA"}"#, Algorithm::ES256),
        (r#"{"alg":"RS256"}"#, Algorithm::EdDSA),
    ] {
        assert!(is_refused(&crafted(header, algorithm)), "{header}");
    }
    // Keys that come with the token are nobody's.
    let own = format!(
        r#"{{"alg":"ES384","jwk":{}}}"#,
        serde_json::to_string(&jwk(Algorithm::ES384, None)).unwrap()
    );
    let others = set(&[jwk(Algorithm::RS256, None)]);
    let text = crafted(&own, Algorithm::ES384);
    assert_eq!(verify(&text, &others, &rules(None)), Err(Refusal::UnknownKey));
    // Extensions that must be understood.
    assert!(is_refused(&crafted(
        r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
        Algorithm::RS256
    )));
    assert!(!is_refused(&crafted(r#"{"alg":"RS256"}"#, Algorithm::RS256)));
}

#[test]
fn what_a_key_is_for() {
    let text = token(Algorithm::RS256, Some("a"), &claims());
    let with = |change: &dyn Fn(&mut Jwk)| {
        let mut key = jwk(Algorithm::RS256, Some("a"));
        change(&mut key);
        verify(&text, &set(&[key]), &rules(None))
    };
    assert_eq!(with(&|_| ()), verified("ada"));
    let names = |algorithm| move |key: &mut Jwk| key.common.key_algorithm = Some(algorithm);
    assert_eq!(with(&names(KeyAlgorithm::RS256)), verified("ada"));
    for other in [KeyAlgorithm::PS256, KeyAlgorithm::RS384, KeyAlgorithm::RSA_OAEP] {
        assert_eq!(with(&names(other)), Err(Refusal::UnknownKey), "{other:?}");
    }
    assert_eq!(
        with(&|key| key.common.public_key_use = Some(PublicKeyUse::Signature)),
        verified("ada")
    );
    assert_eq!(
        with(&|key| key.common.public_key_use = Some(PublicKeyUse::Encryption)),
        Err(Refusal::UnknownKey)
    );
    let small = json!({ "kty": "RSA", "e": "AQAB", "n": SMALL_MODULUS });
    assert!(IssuerKey::new(&serde_json::from_value(small).unwrap()).is_none());
    let secret = json!({ "kty": "oct", "k": "c2VjcmV0" });
    assert!(IssuerKey::new(&serde_json::from_value(secret).unwrap()).is_none());
    // Of two keys with one name, the one that fits.
    let two = [jwk(Algorithm::ES256, Some("a")), jwk(Algorithm::RS256, Some("a"))];
    assert_eq!(verify(&text, &set(&two), &rules(None)), verified("ada"));
}

#[test]
fn what_a_token_must_say() {
    let keys = every_kind();
    let said = |change: &[(&str, Value)], audience: Option<&str>| {
        let mut claims = claims();
        for (name, value) in change {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(*name)),
                value => claims[*name] = value.clone(),
            }
        }
        let text = token(Algorithm::EdDSA, None, &claims);
        verify(&text, &keys, &rules(audience)).map_err(|refusal| match refusal {
            Refusal::Invalid(why) => why,
            Refusal::UnknownKey => "unknown",
        })
    };
    let shop = Some("shop");
    for (change, audience) in [
        (vec![], shop),
        (vec![("aud", json!(["other", "shop"]))], shop),
        (vec![("aud", Value::Null)], None),
        (vec![("aud", json!("anything"))], None),
        (vec![("exp", json!(now() - 50))], shop),
        (vec![("exp", json!(now() as f64 + 10.5))], shop),
        (vec![("nbf", json!(now() + 50)), ("iat", json!(now() + 50))], shop),
        (vec![("iat", json!(now() as f64 - 0.5))], shop),
    ] {
        assert!(said(&change, audience).is_ok(), "{change:?}");
    }
    for (change, why) in [
        (vec![("exp", json!(now() - 70))], "the token has expired"),
        (vec![("exp", Value::Null)], "the token does not say when it expires"),
        (vec![("exp", json!("tomorrow"))], "the token does not say when it expires"),
        (vec![("exp", json!(-1))], "the token does not say when it expires"),
        (vec![("nbf", json!(now() + 70))], "the token is not valid yet"),
        (vec![("iat", json!(now() + 70))], "the token was issued in the future"),
        (vec![("iat", json!("yesterday"))], "the token cannot be read"),
        (vec![("iss", json!("https://evil.example"))], "the token is of another issuer"),
        (vec![("iss", json!("https://issuer.example/"))], "the token is of another issuer"),
        (vec![("iss", Value::Null)], "the token does not say who issued it"),
        (vec![("aud", json!("other"))], "the token is for another audience"),
        (vec![("aud", json!([]))], "the token is for another audience"),
        (vec![("aud", Value::Null)], "the token does not say whom it is for"),
        (vec![("sub", json!(7))], "the token cannot be read"),
        (vec![("sub", json!("x".repeat(256)))], "the token's subject is too long"),
    ] {
        assert_eq!(said(&change, shop), Err(why), "{change:?}");
    }
    assert!(verify(&"a.b.c".repeat(10_000), &keys, &rules(None)).is_err());
}

#[test]
fn subjects_as_functions_see_them() {
    let caller = |subject: Option<&str>| {
        let verified = Verified { subject: subject.map(str::to_owned) };
        verified.caller().to_str().unwrap().to_owned()
    };
    assert_eq!(caller(Some("auth0|5f7c8ec7")), "jwt:auth0|5f7c8ec7");
    assert_eq!(caller(Some("a b\r\nx: %ü")), "jwt:a%20b%0D%0Ax:%20%25%C3%BC");
    assert_eq!(caller(None), "jwt:");
}
