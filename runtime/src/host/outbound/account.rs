//! What one call has sent, and what it was told about that in its log.

use super::ancestry::Ancestry;
use crate::{
    host::{Caller, Meter},
    request_id::RequestId,
};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Different lines about refused requests that one call gets in its log.
const MAX_TOLD: usize = 16;

/// A call's requests. Made by the first of them: most calls send none.
pub(crate) struct Account {
    /// Sent so far, together with the calls around this one.
    pub(super) requests: Arc<AtomicU32>,
    at_once: Arc<Semaphore>,
    told: Mutex<Vec<String>>,
}

impl Account {
    /// An account of a call that may have so many requests under way at once.
    pub(super) fn new(ancestry: &Ancestry, at_once: u32) -> Arc<Self> {
        Arc::new(Self {
            requests: ancestry.requests(),
            at_once: Arc::new(Semaphore::new(at_once as usize)),
            told: Mutex::default(),
        })
    }

    /// Waits for its turn among the call's own requests.
    pub(super) async fn turn(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        turn(&self.at_once, patience).await
    }

    /// Whether the call shall be told something: the same thing only once.
    fn is_new(&self, text: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let new = told.len() < MAX_TOLD && told.iter().all(|other| other != text);
        if new {
            told.push(text.to_owned());
        }
        new
    }
}

/// Waits for a turn, but not for longer than that.
pub(super) async fn turn(
    turns: &Arc<Semaphore>,
    patience: Duration,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = turns.clone().try_acquire_owned() {
        return Some(permit);
    }
    timeout(patience, turns.clone().acquire_owned()).await.ok()?.ok()
}

/// A request's sender: which call of which function.
pub(crate) struct Sender {
    /// The function.
    pub(crate) caller: Arc<dyn Caller>,
    /// The request that it serves.
    pub(crate) id: RequestId,
    /// What the call uses.
    pub(crate) meter: Arc<Meter>,
    /// The calls that led to it.
    pub(crate) ancestry: Ancestry,
    /// What it has sent.
    pub(crate) account: Arc<Account>,
}

impl Sender {
    /// Says something in the function's log.
    pub(super) fn tell(&self, text: &str) {
        if self.account.is_new(text) {
            self.caller.tell(self.id, text);
        }
    }
}
