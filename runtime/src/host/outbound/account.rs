//! What one call has sent, and what it was told about that in its log.

use super::{
    ancestry::{Allowance, Ancestry},
    failure::Failure,
    target::Target,
};
use crate::{
    host::{Caller, Meter},
    request_id::RequestId,
};
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
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
    /// How many there may be, and were so far.
    pub(super) allowance: Arc<Allowance>,
    at_once: Arc<Semaphore>,
    told: Mutex<Vec<String>>,
}

impl Account {
    /// An account of a call that may send so many requests, so many of them at once.
    pub(super) fn new(ancestry: &Ancestry, most: u32, at_once: u32) -> Arc<Self> {
        Arc::new(Self {
            allowance: ancestry.allowance(most),
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
    /// What an answer's body keeps of it.
    pub(super) fn witness(&self) -> Witness {
        let caller = Arc::downgrade(&self.caller);
        Witness { caller, id: self.id, account: self.account.clone() }
    }

    /// Says something in the function's log.
    pub(super) fn tell(&self, text: &str) {
        if self.account.is_new(text) {
            self.caller.tell(self.id, text);
        }
    }
}

/// Who is told when an answer is cut off. An instance that waits may have left the answer unread, and
/// the function has instances that wait, so this does not keep the function.
pub(super) struct Witness {
    caller: Weak<dyn Caller>,
    id: RequestId,
    account: Arc<Account>,
}

impl Witness {
    /// Says that an answer is cut off, whose head was counted.
    pub(super) fn cut_off(&self, target: &Target, failure: &Failure) {
        let Some(caller) = self.caller.upgrade() else {
            return;
        };
        let text = format!("outbound {target} {}", failure.why);
        if self.account.is_new(&text) {
            caller.tell(self.id, &text);
        }
        if let Some(limit) = failure.limit {
            caller.reached(limit);
        }
    }
}
