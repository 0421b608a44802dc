//! Records in documents, which another release of the server may have written.
//!
//! A record is a JSON object. Fields that a newer release has added are kept when this one writes
//! the record again ([`Rest`]), and otherwise nothing to it. A field that must not be overlooked – one
//! that forbids what was allowed before – comes with `min_reader` beside it: a server that reads only
//! older records refuses such a one, instead of doing what was forbidden.

use super::{DocKey, StorageError};
use serde::{Deserialize, de::DeserializeOwned};

/// The newest records that this release understands. It grows when a field is added that must not be
/// overlooked; records that have such a field say so in `min_reader`.
pub(crate) const READER: u32 = 1;

/// Fields that this release does not know.
pub(crate) type Rest = serde_json::Map<String, serde_json::Value>;

#[derive(Deserialize)]
struct ForWhom {
    #[serde(default = "anybody")]
    min_reader: u32,
}

fn anybody() -> u32 {
    0
}

/// The record in a document.
///
/// # Errors
/// When it is none, or is for newer servers only.
pub(crate) fn read<T: DeserializeOwned>(key: &DocKey, body: &[u8]) -> Result<T, StorageError> {
    check_reader(key, body)?;
    serde_json::from_slice(body).map_err(|error| unreadable(key, &error))
}

/// Whether the record in a document is for this release.
///
/// # Errors
/// When it is none, or is for newer servers only.
pub(crate) fn check_reader(key: &DocKey, body: &[u8]) -> Result<(), StorageError> {
    let for_whom: ForWhom = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        StorageError::Damaged(format!("document `{key}`, line {line}, column {column}"))
    })?;
    match for_whom.min_reader {
        newer if newer > READER => Err(StorageError::Failed(format!(
            "document `{key}` is for servers that read records of format {newer}, and this one reads \
             up to {READER}: a newer server has written it, start that one"
        ))),
        _ => Ok(()),
    }
}

/// A word that is new is a newer server's; everything else is damage.
fn unreadable(key: &DocKey, error: &serde_json::Error) -> StorageError {
    let text = error.to_string();
    match text.contains("unknown field") || text.contains("unknown variant") {
        true => StorageError::Failed(format!(
            "document `{key}`: {text}: a newer server has written it, start that one"
        )),
        false => StorageError::Damaged(format!("document `{key}`: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Known {
        name: String,
        #[serde(flatten)]
        rest: Rest,
    }

    fn read(body: &str) -> Result<Known, StorageError> {
        super::read(&DocKey::new(&["apps", "a"]), body.as_bytes())
    }

    #[test]
    fn what_a_newer_release_added_is_kept() {
        let body = r#"{"name":"a","min_reader":1,"colour":{"r":[1,2.5,null]}}"#;
        let record = read(body).unwrap();
        assert_eq!(record.name, "a");
        let written = serde_json::to_value(&record).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(body).unwrap());
    }

    #[test]
    fn what_must_not_be_overlooked_is_refused() {
        let newer = r#"{"name":"a","min_reader":2,"only_for":["b"]}"#;
        let Err(StorageError::Failed(text)) = read(newer) else { panic!() };
        assert!(text.contains("`apps/a`") && text.contains("newer server"), "{text}");
        for damaged in ["", "{", "[]x", r#"{"min_reader":"x"}"#, r#"{"no":1}"#] {
            assert!(matches!(read(damaged), Err(StorageError::Damaged(_))), "{damaged}");
        }
    }
}
