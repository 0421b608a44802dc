//! What apps are given besides their versions: variables, and secrets that nobody can read back.
//!
//! | part | what it has |
//! |---|---|
//! | `store` | one document per app; every change is one write, then functions see it |
//! | `record` | that document, and how much it may hold |
//! | `seal` | a secret as it is stored: encrypted, and bound to its app and its name |
//! | `key` | where the key comes from |
//!
//! Values of secrets are in no log, no error, no answer and no file.

mod key;
mod record;
mod seal;
mod store;

pub use key::SecretsConfig;
pub(crate) use key::{Key, KeyError};
pub(crate) use record::SecretRecord;
pub(crate) use seal::Sealer;
pub(crate) use store::{Configs, ConfigsError, load};
