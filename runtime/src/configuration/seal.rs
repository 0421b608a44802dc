//! A secret as it is stored: XChaCha20-Poly1305 with a random nonce. App and name are part of what
//! is authenticated, so that a value which is moved to another place does not open there.

use super::Key;
use crate::storage::record::Rest;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use chacha20poly1305::{AeadInOut as _, KeyInit as _, XChaCha20Poly1305, XNonce};
use faas_api::{AppName, VarName};
use secrecy::{SecretString, zeroize::Zeroize as _};
use serde::{Deserialize, Serialize};

/// Bytes that a value grows by.
const TAG: usize = 16;
/// Bytes of a nonce: enough that random ones never meet.
const NONCE: usize = 24;

/// Encrypts and decrypts.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    /// Tells keys apart, and says nothing about them.
    key_id: String,
}

/// A value as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    /// Which key opens it.
    key: String,
    /// In base64, as the next one.
    nonce: String,
    ciphertext: String,
    /// What a newer server added. Whoever encrypts otherwise names another key, too.
    #[serde(flatten)]
    rest: Rest,
}

/// Why a value cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// It was sealed with another key.
    #[error("it was stored with another key")]
    OtherKey,
    /// It is not what was stored, or not where it was.
    #[error("it is damaged, or was moved")]
    Damaged,
    /// There are no random numbers, or too many bytes.
    #[error("it cannot be encrypted")]
    Failed,
}

impl Sealer {
    /// With this key.
    pub(crate) fn new(key: &Key) -> Self {
        let id = blake3::derive_key("faas 2026-11-26 id of the secrets key", key.bytes());
        let key_id = id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { cipher: XChaCha20Poly1305::new(key.bytes().into()), key_id }
    }

    /// Encrypts a value for its place.
    pub(crate) fn seal(
        &self,
        app: &AppName,
        name: &VarName,
        value: &str,
    ) -> Result<Sealed, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Failed)?;
        let mut buffer = Vec::with_capacity(value.len() + TAG);
        buffer.extend_from_slice(value.as_bytes());
        self.cipher
            .encrypt_in_place(&XNonce::from(nonce), &place(app, name), &mut buffer)
            .map_err(|_| SealError::Failed)?;
        Ok(Sealed {
            key: self.key_id.clone(),
            nonce: BASE64.encode(nonce),
            ciphertext: BASE64.encode(buffer),
            rest: Rest::new(),
        })
    }

    /// Decrypts a value from its place.
    pub(crate) fn open(
        &self,
        app: &AppName,
        name: &VarName,
        sealed: &Sealed,
    ) -> Result<SecretString, SealError> {
        if sealed.key != self.key_id {
            return Err(SealError::OtherKey);
        }
        let nonce = BASE64.decode(&sealed.nonce).ok().and_then(|nonce| nonce.try_into().ok());
        let nonce: [u8; NONCE] = nonce.ok_or(SealError::Damaged)?;
        let mut buffer = BASE64.decode(&sealed.ciphertext).map_err(|_| SealError::Damaged)?;
        self.cipher
            .decrypt_in_place(&XNonce::from(nonce), &place(app, name), &mut buffer)
            .map_err(|_| SealError::Damaged)?;
        match String::from_utf8(buffer) {
            Ok(value) => Ok(value.into()),
            Err(error) => {
                error.into_bytes().zeroize();
                Err(SealError::Damaged)
            }
        }
    }
}

impl Sealed {
    /// Bytes of the value.
    pub(crate) fn value_len(&self) -> usize {
        (self.ciphertext.len() * 3 / 4).saturating_sub(TAG)
    }
}

/// Where a value belongs. Names have no zero byte, so no two places read the same.
fn place(app: &AppName, name: &VarName) -> Vec<u8> {
    format!("faas-secret-1\0{app}\0{name}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&Key::new([byte; 32], "a test"))
    }

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    fn name(name: &str) -> VarName {
        name.parse().unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let sealer = sealer(1);
        for value in ["", "x", "hunter2", "ä\n=\"", &"long".repeat(10_000)] {
            let sealed = sealer.seal(&app("shop"), &name("KEY"), value).unwrap();
            let opened = sealer.open(&app("shop"), &name("KEY"), &sealed).unwrap();
            assert_eq!(opened.expose_secret(), value);
            assert_eq!(sealed.value_len(), value.len());
            for (other, key) in [("shop", "KEX"), ("shoq", "KEY"), ("sho", "PKEY")] {
                let moved = sealer.open(&app(other), &name(key), &sealed).unwrap_err();
                assert_eq!(moved, SealError::Damaged);
            }
            let text = serde_json::to_string(&sealed).unwrap();
            assert!(value.is_empty() || value == "x" || !text.contains(value), "{text}");
            assert_eq!(serde_json::from_str::<Sealed>(&text).unwrap(), sealed);
        }
    }

    #[test]
    fn the_same_value_never_looks_the_same() {
        let (sealer, app, name) = (sealer(1), app("shop"), name("KEY"));
        let one = sealer.seal(&app, &name, "hunter2").unwrap();
        let two = sealer.seal(&app, &name, "hunter2").unwrap();
        assert_ne!(one.nonce, two.nonce);
        assert_ne!(one.ciphertext, two.ciphertext);
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let (app, name) = (app("shop"), name("KEY"));
        let sealed = sealer(1).seal(&app, &name, "hunter2").unwrap();
        let open = |sealer: &Sealer, sealed: &Sealed| sealer.open(&app, &name, sealed).unwrap_err();
        assert_eq!(open(&sealer(2), &sealed), SealError::OtherKey);
        let claims = Sealed { key: sealer(2).key_id, ..sealed.clone() };
        assert_eq!(open(&sealer(2), &claims), SealError::Damaged);
        for (nonce, ciphertext) in [("", ""), ("?", "?"), ("AAAA", &*sealed.ciphertext)] {
            let damaged =
                Sealed { nonce: nonce.into(), ciphertext: ciphertext.into(), ..sealed.clone() };
            assert_eq!(open(&sealer(1), &damaged), SealError::Damaged);
        }
        assert!(!sealed.key.contains("01"), "the id is not the key");
    }
}
