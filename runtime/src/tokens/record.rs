//! A token as it is stored: everything but its text.

use crate::storage::record::Rest;
use faas_api::{Digest, Scope};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A token. Only its hash is kept of its text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    /// What versions and the audit log call it.
    pub(crate) name: String,
    /// SHA-256 of its text. That is enough for 256 random bits: there is nothing to guess.
    pub(crate) hash: Digest,
    /// What it may do.
    pub(crate) scope: Scope,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// The name of the token that made it.
    pub(crate) created_by: String,
    /// When it ends.
    pub(crate) expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub(crate) revoked_at: Option<Timestamp>,
    /// The name of the token that revoked it.
    pub(crate) revoked_by: Option<String>,
    /// When it was last used, as far as that was written down.
    pub(crate) last_used_at: Option<Timestamp>,
    /// What a newer server added.
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

impl TokenRecord {
    /// When it stopped or will stop being good, by itself or by somebody.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        match (self.expires_at, self.revoked_at) {
            (Some(expires), Some(revoked)) => Some(expires.min(revoked)),
            (expires, revoked) => expires.or(revoked),
        }
    }
}

// Not even the hash: a log's readers could tell which of two tokens somebody has.
impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .field("expires_at", &self.expires_at)
            .field("revoked_at", &self.revoked_at)
            .finish_non_exhaustive()
    }
}
