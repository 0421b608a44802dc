//! Who may use the API: tokens with a scope and an end.
//!
//! The registry has the truth, one document per token; [`Snapshot`] is the same as requests see it.
//! A change is one write, then one swap, and only then an acknowledgement; changes of other nodes
//! come in through the registry's watch. So a token that was revoked is refused from then on.
//!
//! | part | what it holds |
//! |---|---|
//! | this file | the verbs: make, revoke, recognise, list |
//! | `record` | a token as it is stored |
//! | `secret` | a token's text: what it looks like, and what is kept of it |
//! | `snapshot` | every token, by id and by hash |
//! | `upkeep` | when tokens were last used, and which are forgotten |

mod record;
mod secret;
mod snapshot;
#[cfg(test)]
mod tests;
mod upkeep;

pub(crate) use record::TokenRecord;
pub(crate) use secret::Secret;
pub(crate) use snapshot::Known;

use crate::{
    clock,
    storage::{
        Change, DocKey, Expect, Registry, Rev, StorageError, random,
        record::{Rest, read as read_record},
    },
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use faas_api::{Scope, Token, TokenId};
use jiff::Timestamp;
use snapshot::Snapshot;
use std::{fmt::Write as _, sync::Arc};

/// The prefix of tokens' documents.
const TOKENS: &str = "tokens/";
/// How many tokens are kept at most, expired and revoked ones too.
pub(crate) const MAX_TOKENS: usize = 10_000;

/// Why a token could not be made, or found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    /// There are [`MAX_TOKENS`] already.
    #[error("there are {MAX_TOKENS} tokens already")]
    TooMany,
    /// There is no such token.
    #[error("there is no token `{0}`")]
    NoSuchToken(TokenId),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a token that was sent is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is none of this server's.
    Unknown,
    /// It was good until then.
    Expired { name: String, at: Timestamp },
    /// Somebody ended it then.
    Revoked { name: String, at: Timestamp },
}

/// A token to be made.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// What it is called; its id when nothing is said.
    pub(crate) name: Option<String>,
    /// What it may do.
    pub(crate) scope: Scope,
    /// When it ends.
    pub(crate) expires_at: Option<Timestamp>,
    /// The name of the token that makes it.
    pub(crate) created_by: String,
}

/// The tokens of a node.
pub(crate) struct Tokens {
    registry: Arc<dyn Registry>,
    snapshot: ArcSwap<Snapshot>,
}

impl Tokens {
    /// Reads every token.
    ///
    /// # Errors
    /// When the registry cannot be read. A single token that cannot be read opens nothing, and the
    /// log says so.
    pub(crate) async fn load(registry: Arc<dyn Registry>) -> Result<(Self, Rev), StorageError> {
        let tokens = Self { registry, snapshot: ArcSwap::default() };
        let rev = tokens.resync().await?;
        Ok((tokens, rev))
    }

    /// The token with this text, if it is good at this time; it counts as used.
    pub(crate) fn recognise(&self, given: &[u8], now: Timestamp) -> Result<Arc<Known>, Refused> {
        let snapshot = self.snapshot.load();
        let known = snapshot.by_text(given).ok_or(Refused::Unknown)?;
        known.check(now)?;
        known.used(now);
        Ok(known.clone())
    }

    /// Whether a token that was recognised before is still good.
    pub(crate) fn admits(&self, id: &TokenId, now: Timestamp) -> bool {
        self.snapshot.load().get(id).is_some_and(|known| known.check(now).is_ok())
    }

    /// Makes a token. Its text is in the answer and nowhere else.
    pub(crate) async fn create(&self, wanted: Wanted) -> Result<(Secret, Token), TokensError> {
        if self.snapshot.load().len() >= MAX_TOKENS {
            return Err(TokensError::TooMany);
        }
        let secret = Secret::generate()?;
        loop {
            let id = new_id()?;
            let record = TokenRecord {
                name: wanted.name.clone().unwrap_or_else(|| id.to_string()),
                hash: secret.hash(),
                scope: wanted.scope.clone(),
                created_at: clock::now(),
                created_by: wanted.created_by.clone(),
                expires_at: wanted.expires_at,
                revoked_at: None,
                revoked_by: None,
                last_used_at: None,
                rest: Rest::new(),
            };
            match self.write(&id, record, Expect::Absent).await {
                Ok(known) => return Ok((secret, known.token())),
                // The id is taken: another one is not.
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends a token. That it has ended already is no error.
    pub(crate) async fn revoke(&self, id: &TokenId, by: &str) -> Result<(), TokensError> {
        loop {
            let no_such = || TokensError::NoSuchToken(id.clone());
            let (mut record, rev) = self.find(id).await?.ok_or_else(no_such)?;
            if record.revoked_at.is_some() {
                return Ok(());
            }
            record.revoked_at = Some(clock::now());
            record.revoked_by = Some(by.to_owned());
            match self.write(id, record, Expect::Rev(rev)).await {
                Ok(_) => return Ok(()),
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The token of this id.
    pub(crate) fn get(&self, id: &TokenId) -> Option<Arc<Known>> {
        self.snapshot.load().get(id).cloned()
    }

    /// Every token, newest first.
    pub(crate) fn list(&self) -> Vec<Token> {
        let mut tokens: Vec<Token> =
            self.snapshot.load().iter().map(|known| known.token()).collect();
        tokens.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        tokens
    }

    /// Follows changes that others make, from this revision on, until the registry ends.
    pub(crate) async fn follow(&self, after: Rev) -> Result<(), StorageError> {
        let mut changes = self.registry.watch(TOKENS, after).await?;
        while let Some(change) = changes.recv().await {
            match change {
                Change::Put(key, doc) => {
                    if let Some(known) = Known::read(&key, &doc) {
                        self.apply(known);
                    }
                }
                Change::Deleted(key, _) => {
                    if let Some(id) = id_of(&key) {
                        self.forget(&id);
                    }
                }
                Change::Resync => {
                    if let Err(error) = self.resync().await {
                        tracing::error!(%error, "changes of tokens could not be followed");
                    }
                }
            }
        }
        Ok(())
    }

    async fn find(&self, id: &TokenId) -> Result<Option<(TokenRecord, Rev)>, StorageError> {
        let key = key(id);
        let Some(doc) = self.registry.get(&key).await? else {
            return Ok(None);
        };
        Ok(Some((read_record(&key, &doc.body)?, doc.rev)))
    }

    async fn write(
        &self,
        id: &TokenId,
        record: TokenRecord,
        expect: Expect,
    ) -> Result<Known, StorageError> {
        let body = serde_json::to_vec(&record)
            .map_err(|error| StorageError::Failed(format!("token `{id}`: {error}")))?;
        let rev = self.registry.put(&key(id), Bytes::from(body), expect).await?;
        let known = Known::new(id.clone(), record, rev);
        self.apply(known.clone());
        Ok(known)
    }

    /// Brings the snapshot up to a token's state, unless it is further already.
    fn apply(&self, known: Known) {
        self.snapshot.rcu(|current| current.with(known.clone()));
    }

    fn forget(&self, id: &TokenId) {
        self.snapshot.rcu(|current| current.without(id));
    }

    async fn resync(&self) -> Result<Rev, StorageError> {
        let (docs, rev) = self.registry.list(TOKENS).await?;
        let known: Vec<Known> =
            docs.iter().filter_map(|(key, doc)| Known::read(key, doc)).collect();
        self.snapshot.rcu(|current| current.replaced_by(&known, rev));
        Ok(rev)
    }
}

fn key(id: &TokenId) -> DocKey {
    DocKey::new(&["tokens", id.as_str()])
}

fn id_of(key: &DocKey) -> Option<TokenId> {
    key.as_str().strip_prefix(TOKENS)?.parse().ok()
}

fn new_id() -> Result<TokenId, StorageError> {
    let digits = random::<5>()?.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    });
    digits.parse().map_err(|error| StorageError::Failed(format!("`{digits}`: {error}")))
}
