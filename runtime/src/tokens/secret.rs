//! The text of a token: `faas_`, 64 hexadecimal digits of chance, 8 that check them.
//!
//! The prefix lets scanners of repositories find one that leaked; the check lets a client say that
//! one was not copied whole, without asking a server.

use crate::storage::{StorageError, random};
use faas_api::{Digest, tokens::checked_text};
use std::fmt;

/// A token's text, while it is on its way to whoever asked for it.
pub(crate) struct Secret(String);

impl Secret {
    /// A fresh one.
    pub(super) fn generate() -> Result<Self, StorageError> {
        Ok(Self(checked_text(&random::<32>()?)))
    }

    /// What is kept of it.
    pub(super) fn hash(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// The text itself, to be shown once.
    pub(crate) fn reveal(self) -> String {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
