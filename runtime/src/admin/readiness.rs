//! Whether the node can take requests, as `/readyz` tells.

use std::sync::{Arc, Mutex, PoisonError};

/// A flag that the node sets and `/readyz` reads.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Draining,
}

impl Readiness {
    /// A node that has just begun to start.
    pub(crate) fn starting() -> Self {
        Self(Arc::new(Mutex::new(State::Starting)))
    }

    /// The node can take requests.
    pub(crate) fn ready(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A node that was told to stop while it started does not become ready any more.
        if *state == State::Starting {
            *state = State::Ready;
        }
    }

    /// The node finishes what it has and takes nothing new.
    pub(crate) fn draining(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Draining;
    }

    /// Why the node cannot take requests, if it cannot.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        match self.state() {
            State::Starting => Some("starting: the node is not ready yet"),
            State::Ready => None,
            State::Draining => Some(DRAINING),
        }
    }

    /// Whether the node takes nothing new any more.
    pub(super) fn is_draining(&self) -> bool {
        self.state() == State::Draining
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node that stops says.
pub(super) const DRAINING: &str = "draining: the node is stopping";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_goes_forward() {
        let readiness = Readiness::starting();
        let seen = readiness.clone();
        assert!(seen.obstacle().unwrap().starts_with("starting"));
        readiness.ready();
        assert_eq!(seen.obstacle(), None);
        readiness.draining();
        readiness.ready();
        assert_eq!(seen.obstacle(), Some(DRAINING));
        assert!(seen.is_draining());
    }
}
