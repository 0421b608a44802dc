//! What could not be compiled, remembered for a while: a broken artifact must not cost a compile
//! process for every request of it.
//!
//! Only requests ask here. A deploy always tries anew, because somebody may have mended what was
//! wrong.

use super::CompileError;
use faas_api::Digest;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long the artifact's own faults are believed. The same bytes fail the same way, but for limits
/// on time, which a machine under less load may not meet.
const ARTIFACTS_FAULT: Duration = Duration::from_secs(60);
/// How long failures of the platform are: so that requests that wait together fail together, and the
/// next ones find out whether it is over.
const PLATFORMS_FAULT: Duration = Duration::from_secs(1);
/// How many are remembered at most.
const MOST: usize = 1024;

/// The failures of late.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<Digest, Failure>>);

struct Failure {
    error: CompileError,
    until: Instant,
}

impl Failures {
    /// Why an artifact could not be compiled, if that is still believed.
    pub(super) fn of(&self, digest: &Digest, now: Instant) -> Option<CompileError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = known.get(digest)?;
        (now < failure.until).then(|| failure.error.clone())
    }

    /// Remembers a failure.
    pub(super) fn note(&self, digest: &Digest, error: &CompileError, now: Instant) {
        let believed = match error {
            CompileError::Refused(_) | CompileError::OverLimit(_) => ARTIFACTS_FAULT,
            CompileError::Full(_) | CompileError::Killed(_) | CompileError::Failed(_) => {
                PLATFORMS_FAULT
            }
        };
        let failure = Failure { error: error.clone(), until: now + believed };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, failure| now < failure.until);
        }
        // More at once than anybody deploys: those that are there will do.
        if known.len() < MOST {
            known.insert(*digest, failure);
        }
    }

    /// From now on nothing is known against an artifact.
    pub(super) fn forget(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_is_believed_for_its_time() {
        let (failures, now) = (Failures::default(), Instant::now());
        let (broken, unlucky) = (Digest::of(b"broken"), Digest::of(b"unlucky"));
        failures.note(&broken, &CompileError::Refused("no".into()), now);
        failures.note(&unlucky, &CompileError::Killed("no".into()), now);
        assert!(matches!(failures.of(&broken, now), Some(CompileError::Refused(_))));
        assert!(failures.of(&unlucky, now).is_some());
        assert!(failures.of(&Digest::of(b"other"), now).is_none());
        let later = now + PLATFORMS_FAULT;
        assert!(failures.of(&broken, later).is_some());
        assert!(failures.of(&unlucky, later).is_none());
        assert!(failures.of(&broken, now + ARTIFACTS_FAULT).is_none());
        failures.forget(&broken);
        assert!(failures.of(&broken, now).is_none());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let (failures, now) = (Failures::default(), Instant::now());
        for number in 0..MOST + 10 {
            let digest = Digest::of(number.to_string().as_bytes());
            failures.note(&digest, &CompileError::Failed("no".into()), now);
        }
        assert_eq!(failures.0.lock().unwrap().len(), MOST);
        let next = Digest::of(b"next");
        failures.note(&next, &CompileError::Refused("no".into()), now + PLATFORMS_FAULT);
        assert_eq!(failures.0.lock().unwrap().len(), 1);
    }
}
