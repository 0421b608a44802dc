//! How many deploys and uploads are under way at once, and how much of what was uploaded may wait for
//! its deploy: one client, or one token, must not have the memory and the disk for itself.

use super::DeployError;
use faas_api::{ErrorBody, ErrorCode};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The places for deploys and uploads.
pub(super) struct Places {
    most: usize,
    most_bytes: u64,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<String, Share>,
}

/// What the deploys and uploads of one token have.
#[derive(Default)]
struct Share {
    places: usize,
    /// Of uploads that are under way.
    bytes: u64,
    /// Of uploads that are over since the first of these places was taken.
    stored: u64,
}

impl Places {
    /// So many places, and so many bytes of uploads of each token.
    pub(super) fn new(most: usize, most_bytes: u64) -> Self {
        Self { most, most_bytes, taken: Mutex::default() }
    }

    /// Takes a place for a token, by its name.
    ///
    /// # Errors
    /// When all are taken, or this token has half of them.
    pub(super) fn enter(&self, by: &str) -> Result<Place<'_>, DeployError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = taken.by.get(by).map_or(0, |share| share.places);
        if taken.all >= self.most || mine >= self.most.div_ceil(2) {
            return Err(ErrorBody::new(ErrorCode::Overloaded)
                .detail(format!("{} deploys and uploads are under way", taken.all))
                .hint("try again in a moment; `deploy.max_at_once` says how many there may be")
                .into());
        }
        taken.all += 1;
        let share = taken.by.entry(by.to_owned()).or_default();
        share.places += 1;
        Ok(Place { places: self, by: by.to_owned(), bytes: 0, stored_before: share.stored })
    }
}

/// A place, which is free again when this is dropped.
pub(super) struct Place<'a> {
    places: &'a Places,
    by: String,
    bytes: u64,
    /// What was stored when it was taken.
    stored_before: u64,
}

impl Place<'_> {
    /// Counts bytes that arrived, beside those that waited already when the place was taken.
    ///
    /// # Errors
    /// When that is more than a token may have waiting.
    pub(super) fn take(&mut self, bytes: u64, waiting: u64) -> Result<(), DeployError> {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let share = taken.by.entry(self.by.clone()).or_default();
        share.bytes = share.bytes.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        let since = share.stored.saturating_sub(self.stored_before);
        let all = share.bytes.saturating_add(since).saturating_add(waiting);
        if all <= self.places.most_bytes {
            return Ok(());
        }
        Err(ErrorBody::new(ErrorCode::UploadQuota)
            .detail(format!(
                "uploads of this token that no deploy has used may have {} MiB in all \
                 (`deploy.max_pending_bytes`)",
                self.places.most_bytes >> 20
            ))
            .hint(
                "deploy what was uploaded, or wait: what no deploy names is removed after an hour",
            )
            .into())
    }

    /// What arrived waits for its deploy from now on: uploads that began before count it, too.
    pub(super) fn stored(&mut self, bytes: u64) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = taken.by.get_mut(&self.by) {
            share.stored = share.stored.saturating_add(bytes);
            share.bytes = share.bytes.saturating_sub(self.bytes);
            self.bytes = 0;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(share) = taken.by.get_mut(&self.by) {
            share.places = share.places.saturating_sub(1);
            share.bytes = share.bytes.saturating_sub(self.bytes);
            if share.places == 0 {
                taken.by.remove(&self.by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T, DeployError>) -> Option<ErrorCode> {
        result.err().map(|error| error.body.code)
    }

    #[test]
    fn one_token_has_half_of_the_places() {
        let places = Places::new(4, 100);
        let mut taken = vec![places.enter("a").unwrap(), places.enter("a").unwrap()];
        assert_eq!(code(places.enter("a")), Some(ErrorCode::Overloaded));
        taken.extend([places.enter("b").unwrap(), places.enter("c").unwrap()]);
        assert_eq!(code(places.enter("d")), Some(ErrorCode::Overloaded));
        taken.pop();
        places.enter("d").unwrap();
        taken.clear();
        assert!(places.taken.lock().unwrap().by.is_empty());
        assert_eq!(places.taken.lock().unwrap().all, 0);
    }

    #[test]
    fn bytes_are_those_of_all_uploads_of_a_token() {
        let places = Places::new(8, 100);
        let (mut one, mut two) = (places.enter("a").unwrap(), places.enter("a").unwrap());
        one.take(40, 10).unwrap();
        two.take(50, 10).unwrap();
        assert_eq!(code(two.take(1, 10)), Some(ErrorCode::UploadQuota));
        places.enter("b").unwrap().take(100, 0).unwrap();
        drop(two);
        one.take(50, 10).unwrap();
        assert_eq!(code(one.take(u64::MAX, 10)), Some(ErrorCode::UploadQuota));
    }

    #[test]
    fn what_was_stored_meanwhile_counts_once() {
        let places = Places::new(8, 100);
        let (mut one, mut two) = (places.enter("a").unwrap(), places.enter("a").unwrap());
        one.take(60, 0).unwrap();
        one.stored(60);
        drop(one);
        two.take(40, 0).unwrap();
        assert_eq!(code(two.take(1, 0)), Some(ErrorCode::UploadQuota));
        // Whoever comes later is told of it as of what waits.
        drop(two);
        let mut three = places.enter("a").unwrap();
        three.take(40, 60).unwrap();
        assert_eq!(code(three.take(1, 60)), Some(ErrorCode::UploadQuota));
    }
}
