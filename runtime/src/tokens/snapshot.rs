//! Every token as requests see them: immutable, swapped whole.

use super::{Refused, TokenRecord, id_of};
use crate::storage::{Doc, DocKey, Rev, record::read};
use faas_api::{Digest, Token, TokenId};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use subtle::ConstantTimeEq as _;

/// How exact the time of the last use is, in milliseconds.
const USE_STEP_MS: i64 = 60_000;

/// A token at a revision.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// What it is revoked by.
    pub(crate) id: TokenId,
    /// What it is.
    pub(crate) record: TokenRecord,
    pub(super) rev: Rev,
    /// When it was last used here, in milliseconds since 1970; 0 is never. All states of a token
    /// share it.
    used: Arc<AtomicI64>,
}

impl Known {
    pub(super) fn new(id: TokenId, record: TokenRecord, rev: Rev) -> Self {
        Self { id, record, rev, used: Arc::default() }
    }

    /// A document as a token. One that cannot be read opens nothing.
    pub(super) fn read(key: &DocKey, doc: &Doc) -> Option<Self> {
        let record = read(key, &doc.body);
        match (id_of(key), record) {
            (Some(id), Ok(record)) => Some(Self::new(id, record, doc.rev)),
            (_, record) => {
                let error = record.err().map(|error| error.to_string());
                tracing::error!(%key, ?error, "a token cannot be read and is not taken");
                None
            }
        }
    }

    /// Whether it is good at this time.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Refused> {
        let TokenRecord { name, expires_at, revoked_at, .. } = &self.record;
        if let Some(at) = *revoked_at {
            return Err(Refused::Revoked { name: name.clone(), at });
        }
        match *expires_at {
            Some(at) if at <= now => Err(Refused::Expired { name: name.clone(), at }),
            _ => Ok(()),
        }
    }

    /// Notes that it was used.
    pub(super) fn used(&self, now: Timestamp) {
        let now = now.as_millisecond();
        // Most requests only look, so that the cores do not fight for it.
        if now - self.used.load(Ordering::Relaxed) >= USE_STEP_MS {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// When it was last used, as far as this node knows.
    pub(super) fn last_used_at(&self) -> Option<Timestamp> {
        let here = match self.used.load(Ordering::Relaxed) {
            0 => None,
            used => Timestamp::from_millisecond(used).ok(),
        };
        here.max(self.record.last_used_at)
    }

    /// What others may see of it.
    pub(crate) fn token(&self) -> Token {
        let record = &self.record;
        Token {
            id: self.id.clone(),
            name: record.name.clone(),
            scope: record.scope.clone(),
            created_at: record.created_at,
            created_by: record.created_by.clone(),
            expires_at: record.expires_at,
            revoked_at: record.revoked_at,
            last_used_at: self.last_used_at(),
        }
    }
}

/// Every token.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    by_id: BTreeMap<TokenId, Arc<Known>>,
    /// By the first bytes of the hash: chance makes more than one per entry next to impossible,
    /// and nobody can aim at it.
    by_hash: HashMap<[u8; 8], Vec<Arc<Known>>>,
}

impl Snapshot {
    fn of(by_id: BTreeMap<TokenId, Arc<Known>>) -> Self {
        let mut by_hash: HashMap<[u8; 8], Vec<Arc<Known>>> = HashMap::new();
        for known in by_id.values() {
            by_hash.entry(first(&known.record.hash)).or_default().push(known.clone());
        }
        Self { by_id, by_hash }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_id.values()
    }

    pub(super) fn get(&self, id: &TokenId) -> Option<&Arc<Known>> {
        self.by_id.get(id)
    }

    /// The token with this text. Hashes are compared, in constant time, so that nothing of a
    /// token's text shows in how long that takes.
    pub(super) fn by_text(&self, text: &[u8]) -> Option<&Arc<Known>> {
        let hash = Digest::of(text);
        let candidates = self.by_hash.get(&first(&hash))?;
        candidates
            .iter()
            .find(|known| bool::from(known.record.hash.as_bytes().ct_eq(hash.as_bytes())))
    }

    /// The same with a token, unless its state here is as new or newer.
    pub(super) fn with(&self, mut known: Known) -> Self {
        let mut by_id = self.by_id.clone();
        if let Some(current) = by_id.get(&known.id) {
            if current.rev >= known.rev {
                return Self::of(by_id);
            }
            known.used = current.used.clone();
        }
        by_id.insert(known.id.clone(), Arc::new(known));
        Self::of(by_id)
    }

    pub(super) fn without(&self, id: &TokenId) -> Self {
        let mut by_id = self.by_id.clone();
        by_id.remove(id);
        Self::of(by_id)
    }

    /// The tokens that were listed at this revision, and what is known here of their use. What is
    /// newer than the list is not lost to it.
    pub(super) fn replaced_by(&self, listed: &[Known], at: Rev) -> Self {
        let newer = self.by_id.iter().filter(|(_, known)| known.rev > at);
        let newer = newer.map(|(id, known)| (id.clone(), known.clone()));
        let listed = listed.iter().map(|known| {
            let known = match self.by_id.get(&known.id) {
                Some(current) if current.rev >= known.rev => current.clone(),
                Some(current) => Arc::new(Known { used: current.used.clone(), ..known.clone() }),
                None => Arc::new(known.clone()),
            };
            (known.id.clone(), known)
        });
        Self::of(listed.chain(newer).collect())
    }
}

fn first(hash: &Digest) -> [u8; 8] {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}
