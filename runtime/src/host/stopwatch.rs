//! How long a thread worked on something.

use rustix::time::{ClockId, clock_gettime};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

thread_local! {
    static BY_CPU_CLOCK: Cell<bool> = const { Cell::new(false) };
    /// When the CPU clock of this thread was read for a stopwatch, and what it said.
    static READ: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// How old what was read may be: that much more than was worked may be counted.
const FRESH: Duration = Duration::from_millis(5);
/// What takes as long as this may have been no work: the process was stopped, or had no core.
const LONG: Duration = Duration::from_millis(10);

/// From now on what this thread does is measured by its own CPU clock, which does not go on while
/// the thread waits for a core. Reading it takes about a fifth of a microsecond, longer than many a
/// guest: it is for threads that work on something for milliseconds.
pub(crate) fn measure_by_cpu_clock() {
    BY_CPU_CLOCK.set(true);
}

/// Measures what the thread does that made it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stopwatch {
    /// By the clock on the wall: since when, and what the CPU clock of the thread read then, or
    /// shortly before.
    Wall(Instant, Duration),
    /// By the CPU clock of the thread, which read this then.
    Cpu(Duration),
}

impl Stopwatch {
    /// Begins now.
    pub(crate) fn start() -> Self {
        match BY_CPU_CLOCK.get() {
            true => Self::Cpu(cpu_clock()),
            false => {
                let now = Instant::now();
                Self::Wall(now, read_lately(now))
            }
        }
    }

    /// What has passed. Only the thread that started it may ask.
    pub(crate) fn elapsed(self) -> Duration {
        match self {
            Self::Wall(since, read) => worked(since.elapsed(), read),
            Self::Cpu(since) => cpu_clock().saturating_sub(since),
        }
    }
}

/// What of a time on the wall this thread may have worked, when its CPU clock read this at its
/// beginning. A short time is believed without a look.
pub(crate) fn worked(time: Duration, read: Duration) -> Duration {
    if time < LONG { time } else { time.min(cpu_clock().saturating_sub(read)) }
}

fn read_lately(now: Instant) -> Duration {
    match READ.get() {
        Some((then, read)) if now.saturating_duration_since(then) < FRESH => read,
        _ => {
            let read = cpu_clock();
            READ.set(Some((now, read)));
            read
        }
    }
}

/// CPU time of this thread, in user and kernel.
pub(crate) fn cpu_clock() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_work_where_the_cpu_clock_counts_or_when_it_is_long() {
        let waited = |by_cpu_clock: bool, time: Duration| {
            std::thread::spawn(move || {
                if by_cpu_clock {
                    measure_by_cpu_clock();
                }
                let watch = Stopwatch::start();
                std::thread::sleep(time);
                watch.elapsed()
            })
        };
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(30));
        assert!(waited(false, short).join().unwrap() > Duration::ZERO);
        for by_cpu_clock in [false, true] {
            assert!(waited(by_cpu_clock, long).join().unwrap() < long);
        }
        std::thread::spawn(|| {
            measure_by_cpu_clock();
            let watch = Stopwatch::start();
            while watch.elapsed() < Duration::from_millis(1) {
                std::hint::black_box(0);
            }
        })
        .join()
        .unwrap();
    }
}
