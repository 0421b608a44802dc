//! An app's configuration as it is stored: one document, so that every change is one write.

use super::{ConfigsError, seal::Sealed};
use crate::storage::{record::Rest, registry::MAX_DOC_BYTES};
use faas_api::{
    VarName,
    configuration::{MAX_SECRET_LEN, MAX_SECRETS, MAX_SECRETS_TOTAL},
    manifest::{MAX_ENVIRONMENT, MAX_VALUE_LEN, MAX_VARIABLES},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An app's variables and secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigRecord {
    /// Variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<VarName, String>,
    /// Secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) secrets: BTreeMap<VarName, SecretRecord>,
    /// What a newer server added.
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretRecord {
    /// Its value, encrypted.
    pub(crate) sealed: Sealed,
    /// When its value last changed.
    pub(crate) updated_at: Timestamp,
    /// The name of the token that changed it.
    pub(crate) updated_by: String,
    /// What a newer server added.
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

impl ConfigRecord {
    pub(super) fn is_empty(&self) -> bool {
        self.env.is_empty() && self.secrets.is_empty() && self.rest.is_empty()
    }

    /// Whether it holds no more than it may, all in all.
    pub(super) fn check(&self) -> Result<(), ConfigsError> {
        let most = |what: &'static str, has: usize, most: usize| match has <= most {
            true => Ok(()),
            false => Err(ConfigsError::TooMuch { what, has, most }),
        };
        most("variables of an app", self.env.len(), MAX_VARIABLES)?;
        let bytes = self.env.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        most("bytes of all variables of an app", bytes, MAX_ENVIRONMENT)?;
        most("secrets of an app", self.secrets.len(), MAX_SECRETS)?;
        let secrets = self.secrets.iter();
        let bytes = secrets.map(|(name, s)| name.as_str().len() + s.sealed.value_len()).sum();
        most("bytes of all secrets of an app", bytes, MAX_SECRETS_TOTAL)
    }

    /// The document.
    pub(super) fn encode(&self) -> Result<Vec<u8>, ConfigsError> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        // Only a text of which every second character has to be escaped comes that far.
        match body.len() <= MAX_DOC_BYTES {
            true => Ok(body),
            false => Err(ConfigsError::TooMuch {
                what: "bytes of an app's configuration as it is stored",
                has: body.len(),
                most: MAX_DOC_BYTES,
            }),
        }
    }
}

/// Whether a variable can have this value.
pub(super) fn check_variable(name: &VarName, value: &str) -> Result<(), ConfigsError> {
    check_value("variable", name, value, MAX_VALUE_LEN)
}

/// Whether a secret can have this value.
pub(super) fn check_secret(name: &VarName, value: &str) -> Result<(), ConfigsError> {
    check_value("secret", name, value, MAX_SECRET_LEN)
}

fn check_value(
    what: &'static str,
    name: &VarName,
    value: &str,
    most: usize,
) -> Result<(), ConfigsError> {
    if value.len() > most {
        let (name, has) = (name.clone(), value.len());
        return Err(ConfigsError::TooLong { what, name, has, most });
    }
    match value.contains('\0') {
        true => Err(ConfigsError::Nul { what, name: name.clone() }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{Key, Sealer};

    fn name(text: &str) -> VarName {
        text.parse().unwrap()
    }

    fn full(value: &str) -> ConfigRecord {
        let sealer = Sealer::new(&Key::new([1; 32], "a test"));
        let app = "a".repeat(40).parse().unwrap();
        let secret = |number: usize| {
            let name = name(&format!("S{number:0>127}"));
            let sealed = sealer.seal(&app, &name, &"s".repeat(640)).unwrap();
            let (updated_at, updated_by) = (Timestamp::now(), "b".repeat(64));
            (name, SecretRecord { sealed, updated_at, updated_by, rest: Rest::new() })
        };
        ConfigRecord {
            env: (0..MAX_VARIABLES)
                .map(|number| (name(&format!("V{number:0>127}")), value.to_owned()))
                .collect(),
            secrets: (0..MAX_SECRETS).map(secret).collect(),
            rest: Rest::new(),
        }
    }

    #[test]
    fn as_much_as_may_be_fits_a_document() {
        let record = full(&"v".repeat(384));
        record.check().unwrap();
        let bytes = record.encode().unwrap().len();
        assert!(bytes <= MAX_DOC_BYTES, "{bytes}");
        // What JSON has to escape six times over does not, and that is told.
        let record = full(&"\u{1}".repeat(384));
        record.check().unwrap();
        let error = record.encode().unwrap_err().to_string();
        assert!(error.contains(&MAX_DOC_BYTES.to_string()), "{error}");
    }

    #[test]
    fn what_a_newer_server_added_is_kept() {
        let mut stored = serde_json::to_value(full("v")).unwrap();
        stored["added"] = 1.into();
        let secret = name(&format!("S{:0>127}", 0)).to_string();
        stored["secrets"][&secret]["added"] = 2.into();
        stored["secrets"][&secret]["sealed"]["added"] = 3.into();
        let read: ConfigRecord = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), stored);
        let none = ConfigRecord { env: BTreeMap::new(), secrets: BTreeMap::new(), ..read };
        assert!(!none.is_empty(), "there is something to keep");
    }

    #[test]
    fn more_is_refused_with_both_numbers() {
        let told = |record: &ConfigRecord| record.check().unwrap_err().to_string();
        let mut record = full(&"v".repeat(385));
        assert!(told(&record).contains("65664") && told(&record).contains("65536"));
        record.env.clear();
        record.check().unwrap();
        let one = record.secrets.values().next().unwrap().clone();
        record.secrets.insert(name("ONE_MORE"), one);
        assert!(told(&record).contains("129") && told(&record).contains("128"));
    }

    #[test]
    fn values() {
        check_variable(&name("A"), &"v".repeat(MAX_VALUE_LEN)).unwrap();
        check_secret(&name("A"), &"v".repeat(MAX_SECRET_LEN)).unwrap();
        check_secret(&name("A"), "").unwrap();
        let long = check_secret(&name("A"), &"v".repeat(MAX_SECRET_LEN + 1)).unwrap_err();
        let text = long.to_string();
        assert!(text.contains("32769") && text.contains("32768") && !text.contains("vv"), "{text}");
        assert!(check_variable(&name("A"), &"v".repeat(MAX_VALUE_LEN + 1)).is_err());
        let nul = check_variable(&name("A"), "hunter2\0").unwrap_err().to_string();
        assert!(!nul.contains("hunter2"), "{nul}");
    }
}
