//! Takes a function out of service for a while that fails again and again.
//!
//! A circuit breaker for each function of a version. Failures in a row open it: then calls are refused
//! at once, which costs the node nothing, until after a pause one call is let through to see. If that
//! one ends well the breaker closes, else the pause doubles. What clients do does not count, nor does
//! an answer that the function itself gives, whatever its status.

use super::{InvokeError, config::EngineConfig};
use prometheus::IntGauge;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How much more a call that used up its time counts than one that trapped: it cost as much more.
const TIMEOUT_COUNTS: u32 = 4;

/// When breakers of a node open, and for how long.
#[derive(Debug, Clone)]
pub(super) struct BreakerRules {
    /// Failures in a row that open it; 0 means never.
    after: u32,
    longest_pause: Duration,
    /// How many functions are out of service.
    quarantined: IntGauge,
}

impl BreakerRules {
    /// As the settings say; `quarantined` counts the functions that are out of service.
    pub(super) fn new(config: &EngineConfig, quarantined: IntGauge) -> Self {
        Self {
            after: config.quarantine_after,
            longest_pause: Duration::from_secs(config.quarantine_s).max(FIRST_PAUSE),
            quarantined,
        }
    }
}

/// The breaker of one function.
#[derive(Debug)]
pub(super) struct Breaker {
    rules: BreakerRules,
    /// Failures since the last call that ended well.
    failures: AtomicU32,
    /// When the next call is let through, in milliseconds since `epoch()`; 0 while it is closed.
    opens_at: AtomicU64,
    /// How long it last paused, in milliseconds.
    pause: AtomicU64,
}

/// Whether a call is the one that is let through to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The function is in service.
    Open,
    /// It is not, and this call decides whether it is again.
    Probe,
}

/// How a call changed the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The function is out of service for so long.
    Quarantined(Duration),
    /// It is in service again.
    Restored,
}

impl Breaker {
    /// A function in service.
    pub(super) fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            failures: AtomicU32::new(0),
            opens_at: AtomicU64::new(0),
            pause: AtomicU64::new(0),
        }
    }

    /// Asks whether a call may go on.
    ///
    /// # Errors
    /// When the function is out of service.
    pub(super) fn pass(&self) -> Result<Pass, InvokeError> {
        let opens_at = self.opens_at.load(Relaxed);
        if opens_at == 0 {
            return Ok(Pass::Open);
        }
        let now = now_ms();
        // One is let through, and the next one after as long a pause, should this one never end.
        let next = now + self.pause.load(Relaxed).max(1);
        if now >= opens_at
            && self.opens_at.compare_exchange(opens_at, next, Relaxed, Relaxed).is_ok()
        {
            return Ok(Pass::Probe);
        }
        let opens_in = Duration::from_millis(opens_at.saturating_sub(now));
        Err(InvokeError::Quarantined { opens_in })
    }

    /// A call has ended well.
    pub(super) fn succeeded(&self) -> Option<Change> {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.opens_at.load(Relaxed) == 0 || self.opens_at.swap(0, Relaxed) == 0 {
            return None;
        }
        self.pause.store(0, Relaxed);
        self.rules.quarantined.dec();
        Some(Change::Restored)
    }

    /// A call has failed.
    pub(super) fn failed(&self, pass: Pass, error: &InvokeError) -> Option<Change> {
        let counts = match error {
            InvokeError::Trap(_) | InvokeError::Exit(_) => 1,
            InvokeError::CpuTime { .. } | InvokeError::WallTime { .. } => TIMEOUT_COUNTS,
            _ => return None,
        };
        let failures = self.failures.fetch_add(counts, Relaxed).saturating_add(counts);
        let is_open = self.opens_at.load(Relaxed) != 0;
        // Calls that were under way when it opened say nothing new.
        if self.rules.after == 0 || failures < self.rules.after || is_open != (pass == Pass::Probe)
        {
            return None;
        }
        let pause = match self.pause.load(Relaxed) {
            0 => FIRST_PAUSE,
            last => Duration::from_millis(last).saturating_mul(2).min(self.rules.longest_pause),
        };
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.pause.store(pause_ms, Relaxed);
        if self.opens_at.swap(now_ms().saturating_add(pause_ms).max(1), Relaxed) == 0 {
            self.rules.quarantined.inc();
        }
        Some(Change::Quarantined(pause))
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        if *self.opens_at.get_mut() != 0 {
            self.rules.quarantined.dec();
        }
    }
}

/// Milliseconds since this process first asked.
fn now_ms() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = EPOCH.get_or_init(Instant::now);
    u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(after: u32, longest: u64) -> Breaker {
        let gauge = IntGauge::new("quarantined", "quarantined").unwrap();
        let config = EngineConfig {
            quarantine_after: after,
            quarantine_s: longest,
            ..EngineConfig::default()
        };
        Breaker::new(BreakerRules::new(&config, gauge))
    }

    fn trap() -> InvokeError {
        InvokeError::Trap("unreachable".to_owned())
    }

    /// As if the pause were over.
    fn wait(breaker: &Breaker) {
        breaker.opens_at.store(1, Relaxed);
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_call_closes_it() {
        let breaker = breaker(3, 60);
        let fail = |pass| breaker.failed(pass, &trap());
        assert_eq!((fail(Pass::Open), fail(Pass::Open)), (None, None));
        assert_eq!(breaker.succeeded(), None);
        assert_eq!((fail(Pass::Open), fail(Pass::Open)), (None, None));
        assert_eq!(fail(Pass::Open), Some(Change::Quarantined(FIRST_PAUSE)));
        assert_eq!(breaker.rules.quarantined.get(), 1);
        assert!(matches!(breaker.pass(), Err(InvokeError::Quarantined { .. })));
        assert_eq!(fail(Pass::Open), None, "it was under way");
        wait(&breaker);
        assert_eq!(breaker.pass(), Ok(Pass::Probe));
        assert!(breaker.pass().is_err(), "one is enough");
        assert_eq!(fail(Pass::Probe), Some(Change::Quarantined(2 * FIRST_PAUSE)));
        wait(&breaker);
        assert_eq!(breaker.pass(), Ok(Pass::Probe));
        assert_eq!(breaker.succeeded(), Some(Change::Restored));
        assert_eq!(breaker.rules.quarantined.get(), 0);
        assert_eq!(breaker.pass(), Ok(Pass::Open));
        assert_eq!(fail(Pass::Open), None, "it begins anew");
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let breaker = breaker(1, 3);
        let pauses = [1, 2, 3, 3].map(|seconds| {
            wait_if_open(&breaker);
            let pass = breaker.pass().unwrap();
            assert_eq!(
                breaker.failed(pass, &trap()),
                Some(Change::Quarantined(Duration::from_secs(seconds)))
            );
        });
        assert_eq!(pauses.len(), 4);
    }

    fn wait_if_open(breaker: &Breaker) {
        if breaker.opens_at.load(Relaxed) != 0 {
            wait(breaker);
        }
    }

    #[test]
    fn what_is_not_the_functions_doing_does_not_count() {
        let breaker = breaker(1, 60);
        for error in [
            InvokeError::NoResponse,
            InvokeError::Internal("disk".to_owned()),
            InvokeError::Concurrency { limit: 1 },
        ] {
            assert_eq!(breaker.failed(Pass::Open, &error), None, "{error}");
        }
        let limit = Duration::from_millis(1);
        let slow = InvokeError::CpuTime { name: "cpu_ms", limit, used: limit };
        assert!(breaker.failed(Pass::Open, &slow).is_some());
        let off = self::breaker(0, 60);
        assert!((0..100).all(|_| off.failed(Pass::Open, &slow).is_none()));
    }

    #[test]
    fn a_breaker_that_goes_leaves_no_count() {
        let gauge = {
            let breaker = breaker(1, 60);
            breaker.failed(Pass::Open, &trap());
            assert_eq!(breaker.rules.quarantined.get(), 1);
            breaker.rules.quarantined.clone()
        };
        assert_eq!(gauge.get(), 0);
    }
}
