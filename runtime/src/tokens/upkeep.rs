//! What is done now and then: writing down when tokens were last used, and forgetting those that
//! ended long ago.

use super::{Known, Tokens, key};
use crate::storage::{Expect, StorageError};
use jiff::{SignedDuration, Timestamp};

/// How long a token that ended is kept, so that its holder learns why it is refused.
const KEEP_ENDED: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How much later than written down a token must have been used to be written down again.
const USE_STEP: SignedDuration = SignedDuration::from_mins(1);

impl Tokens {
    /// Writes down when tokens were last used. Called rarely: no request pays for a write.
    pub(crate) async fn write_uses(&self) {
        let snapshot = self.snapshot.load_full();
        for known in snapshot.iter() {
            if let Err(error) = self.write_use(known).await {
                tracing::warn!(%error, id = %known.id, "the use of a token is not written down");
            }
        }
    }

    async fn write_use(&self, known: &Known) -> Result<(), StorageError> {
        let Some(used) = known.last_used_at() else {
            return Ok(());
        };
        let is_news = |noted: Option<Timestamp>| {
            noted.is_none_or(|noted| used.duration_since(noted) >= USE_STEP)
        };
        if !is_news(known.record.last_used_at) {
            return Ok(());
        }
        let Some((mut record, rev)) = self.find(&known.id).await? else {
            return Ok(());
        };
        if !is_news(record.last_used_at) {
            return Ok(());
        }
        record.last_used_at = Some(used);
        match self.write(&known.id, record, Expect::Rev(rev)).await {
            // Whoever changed it in between had something more important to say.
            Ok(_) | Err(StorageError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forgets tokens that ended long before this time.
    pub(crate) async fn forget_ended(&self, now: Timestamp) {
        let snapshot = self.snapshot.load_full();
        let long_ended = |known: &&std::sync::Arc<Known>| {
            let ended = known.record.ends_at();
            ended.is_some_and(|ended| now.duration_since(ended) > KEEP_ENDED)
        };
        for known in snapshot.iter().filter(long_ended) {
            match self.registry.delete(&key(&known.id), Expect::Rev(known.rev)).await {
                Ok(_) => self.forget(&known.id),
                // Another node was quicker.
                Err(StorageError::Conflict) => {}
                Err(error) => tracing::warn!(%error, id = %known.id, "a token is not forgotten"),
            }
        }
    }
}
