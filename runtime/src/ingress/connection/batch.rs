//! Answers leave in batches.
//!
//! Sending a few bytes costs more than most functions do, and much of it is waking whoever waits
//! for them. So an answer is not sent the moment it is there: its connection first lets the others
//! that are ready take their turn, and then all of them send one after the other. (Redis writes
//! its replies at the end of a round of its event loop for the same reason.) With nobody else
//! ready this is one turn through an empty queue.
//!
//! The price is that an answer waits for the others' functions. While those take long, answers go
//! out at once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// A round that takes longer was not worth the wait: in this time a hundred small functions answer.
const LONG: Duration = Duration::from_millis(2);
/// How many writes of a thread go out at once after a long round.
const PENALTY: u32 = 500;

thread_local! {
    static AT_ONCE: Cell<u32> = const { Cell::new(0) };
}

/// The turns of one connection.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Since when a write waits for the others.
    since: Cell<Option<Instant>>,
}

impl Batch {
    /// Whether the write that is due shall wait for a turn of the others. Never twice in a row.
    pub(super) fn lets_others_go_first(&self) -> bool {
        if let Some(since) = self.since.take() {
            if since.elapsed() > LONG {
                AT_ONCE.set(PENALTY);
            }
            return false;
        }
        match AT_ONCE.get() {
            0 => {
                self.since.set(Some(Instant::now()));
                true
            }
            left => {
                AT_ONCE.set(left - 1);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_waits_once() {
        let batch = Batch::default();
        for _ in 0..3 {
            assert!(batch.lets_others_go_first());
            assert!(!batch.lets_others_go_first());
        }
    }

    #[test]
    fn after_a_long_round_nobody_waits_for_a_while() {
        let (late, other) = (Batch::default(), Batch::default());
        late.since.set(Instant::now().checked_sub(2 * LONG));
        assert!(!late.lets_others_go_first());
        for _ in 0..PENALTY {
            assert!(!other.lets_others_go_first());
        }
        assert!(other.lets_others_go_first());
    }
}
