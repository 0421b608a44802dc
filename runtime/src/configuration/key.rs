//! The key that secrets are stored with: 32 bytes that only this node, or this cluster, has.

use crate::storage::data_dir::{DataDir, DataDirError};
use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret as _, SecretBox, zeroize::Zeroize as _};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The variable that has the key, encoded.
const VARIABLE: &str = "FAAS_SECRETS_KEY";
/// What systemd calls the key, below `$CREDENTIALS_DIRECTORY`.
const CREDENTIAL: &str = "faas-secrets-key";
/// No file of a key is longer, in bytes.
const MAX_FILE: u64 = 4096;

/// How apps' secrets are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// The file with the key: 32 bytes, as they are, in base64 or hexadecimal. Empty: the systemd
    /// credential `faas-secrets-key`, else `secrets.key` in the data directory, made at first
    /// start. The variable `FAAS_SECRETS_KEY` wins over all.
    pub key_file: PathBuf,
}

/// A key, and where it was found.
pub(crate) struct Key {
    bytes: SecretBox<[u8; 32]>,
    /// For people: `the variable FAAS_SECRETS_KEY`.
    source: String,
}

/// Why there is no key. The text says what to do about it; it never has the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// What was found is no key.
    #[error("{from} is no key: {problem}; make one with `openssl rand -base64 32`")]
    Unusable {
        /// Where it was found.
        from: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Others can read the file.
    #[error("{0} can be read by everybody: `chmod 600` it, and think about who has read it")]
    Loose(String),
    /// The file cannot be read.
    #[error("cannot read {from}: {source}")]
    Unreadable {
        /// Which file.
        from: String,
        /// The system's word.
        source: io::Error,
    },
    /// The node's own one.
    #[error(transparent)]
    Own(#[from] DataDirError),
}

impl Key {
    /// The key that the operator gave, else the node's own; nothing where that is yet to be made.
    /// Blocks on files.
    ///
    /// # Errors
    /// When what was found cannot be used. Nothing else is tried then.
    pub(crate) fn find(config: &SecretsConfig, own: &DataDir) -> Result<Option<Self>, KeyError> {
        match given(config, &|name| std::env::var_os(name))? {
            Some(key) => Ok(Some(key)),
            None => Ok(own.secrets_key()?.map(|bytes| Self::own(bytes, own))),
        }
    }

    /// Makes the node's own key. Blocks on files.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn make(own: &DataDir) -> Result<Self, KeyError> {
        Ok(Self::own(own.make_secrets_key()?, own))
    }

    /// A key of these bytes.
    pub(crate) fn new(mut bytes: [u8; 32], source: impl Into<String>) -> Self {
        let boxed = SecretBox::new(Box::new(bytes));
        bytes.zeroize();
        Self { bytes: boxed, source: source.into() }
    }

    /// Where it was found, for people.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.bytes.expose_secret()
    }

    fn own(bytes: [u8; 32], own: &DataDir) -> Self {
        Self::new(bytes, format!("`{}`", own.secrets_key_file().display()))
    }
}

/// The key that the operator gave, if one was given.
fn given(
    config: &SecretsConfig,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Key>, KeyError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(value) = set(VARIABLE) {
        let from = format!("the variable {VARIABLE}");
        let decoded = value.to_str().and_then(decoded).ok_or(KeyError::Unusable {
            from: from.clone(),
            problem: "it is not 32 bytes in base64 or hexadecimal",
        })?;
        return Ok(Some(Key::new(decoded, from)));
    }
    if !config.key_file.as_os_str().is_empty() {
        return read(&config.key_file, "the key file").map(Some);
    }
    let credential = set("CREDENTIALS_DIRECTORY").map(|dir| Path::new(&dir).join(CREDENTIAL));
    match credential.filter(|file| file.exists()) {
        Some(file) => read(&file, "the credential").map(Some),
        None => Ok(None),
    }
}

fn read(path: &Path, what: &str) -> Result<Key, KeyError> {
    let from = format!("{what} `{}`", path.display());
    let unreadable = |source| KeyError::Unreadable { from: from.clone(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    // A group may have it: that is how orchestrators hand out files to a user that is not root.
    if metadata.mode() & 0o007 != 0 {
        return Err(KeyError::Loose(from));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    let raw = <[u8; 32]>::try_from(bytes.as_slice()).ok();
    // 32 letters are half a key in hexadecimal rather than a whole one that looks like text.
    let raw = raw.filter(|raw| !raw.iter().all(u8::is_ascii_graphic));
    let key = raw.or_else(|| decoded(std::str::from_utf8(&bytes).ok()?));
    bytes.zeroize();
    let key = key.ok_or(KeyError::Unusable {
        from: from.clone(),
        problem: "it is not 32 bytes, as they are or in base64 or hexadecimal",
    })?;
    Ok(Key::new(key, from))
}

/// 32 bytes in base64, either alphabet, or in hexadecimal.
fn decoded(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(place * 2..place * 2 + 2)?, 16).ok()?;
        }
        return Some(bytes);
    }
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE].iter().find_map(|alphabet| {
        let bytes = GeneralPurpose::new(alphabet, lenient).decode(text).ok()?;
        bytes.try_into().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt as _};

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    fn bytes() -> [u8; 32] {
        decoded(HEX).unwrap()
    }

    fn find(
        key_file: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Option<([u8; 32], String)>, String> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let config = SecretsConfig { key_file: key_file.to_owned() };
        let found = given(&config, &|name| variables.get(name).map(OsString::from));
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.map(|key| (*key.bytes(), key.source().to_owned())))
    }

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn every_form_of_a_key() {
        for form in [
            HEX.to_owned(),
            HEX.to_uppercase(),
            format!(" {HEX}\n"),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=".to_owned(),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8".to_owned(),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=\n".replace('/', "_"),
        ] {
            assert_eq!(decoded(&form), Some(bytes()), "{form}");
        }
        for bad in ["", "x", &HEX[1..], &HEX[..32], "AAECAwQFBgcICQoLDA0ODw==", "ö"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_variable_wins_over_the_file_and_that_over_the_credential() {
        let temp = tempfile::tempdir().unwrap();
        let (file, credential) = (temp.path().join("key"), temp.path().join(CREDENTIAL));
        write(&file, &[1; 32], 0o440);
        write(&credential, &[2; 32], 0o400);
        let dir = ("CREDENTIALS_DIRECTORY", temp.path().to_str().unwrap());
        let (key, source) = find(&file, &[(VARIABLE, HEX), dir]).unwrap().unwrap();
        assert_eq!(key, bytes());
        assert!(source.contains(VARIABLE) && !source.contains(HEX), "{source}");
        assert_eq!(find(&file, &[(VARIABLE, ""), dir]).unwrap().unwrap().0, [1; 32]);
        assert_eq!(find(Path::new(""), &[dir]).unwrap().unwrap().0, [2; 32]);
        assert!(find(Path::new(""), &[]).unwrap().is_none());
        fs::remove_file(&credential).unwrap();
        assert!(find(Path::new(""), &[dir]).unwrap().is_none(), "other credentials are there");
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("key");
        let refused = find(&file, &[(VARIABLE, "hunter2")]).unwrap_err();
        assert!(refused.contains(VARIABLE) && !refused.contains("hunter2"), "{refused}");
        assert!(find(&file, &[]).unwrap_err().contains("cannot read the key file"));
        for content in [&b"hunter2"[..], &[b'a'; 32], &[0; 31], &[0; 33]] {
            write(&file, content, 0o600);
            let refused = find(&file, &[]).unwrap_err();
            assert!(refused.contains("is no key") && !refused.contains("hunter2"), "{refused}");
        }
        write(&file, HEX.as_bytes(), 0o604);
        assert!(find(&file, &[]).unwrap_err().contains("can be read by everybody"));
        write(&file, HEX.as_bytes(), 0o640);
        assert_eq!(find(&file, &[]).unwrap().unwrap().0, bytes());
    }

    #[test]
    fn the_nodes_own_key_is_made_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        assert!(dir.secrets_key().unwrap().is_none());
        let made = *Key::make(&dir).unwrap().bytes();
        assert_eq!(dir.secrets_key().unwrap(), Some(made));
        let mode = fs::metadata(dir.secrets_key_file()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
