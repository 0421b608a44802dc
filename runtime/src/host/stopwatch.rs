//! How long a thread worked on something.

use rustix::time::{ClockId, clock_gettime};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

thread_local! {
    static BY_CPU_CLOCK: Cell<bool> = const { Cell::new(false) };
}

/// From now on what this thread does is measured by its own CPU clock, which does not go on while
/// the thread waits for a core. Reading it takes about a fifth of a microsecond, longer than many a
/// guest: it is for threads that work on something for milliseconds.
pub(crate) fn measure_by_cpu_clock() {
    BY_CPU_CLOCK.set(true);
}

/// Measures what the thread does that made it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stopwatch {
    /// By the clock on the wall.
    Wall(Instant),
    /// By the CPU clock of the thread, which read this then.
    Cpu(Duration),
}

impl Stopwatch {
    /// Begins now.
    pub(crate) fn start() -> Self {
        match BY_CPU_CLOCK.get() {
            true => Self::Cpu(cpu_clock()),
            false => Self::Wall(Instant::now()),
        }
    }

    /// What has passed. Only the thread that started it may ask.
    pub(crate) fn elapsed(self) -> Duration {
        match self {
            Self::Wall(since) => since.elapsed(),
            Self::Cpu(since) => cpu_clock().saturating_sub(since),
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
    fn waiting_is_not_work_where_the_cpu_clock_counts() {
        let waited = |by_cpu_clock: bool| {
            std::thread::spawn(move || {
                if by_cpu_clock {
                    measure_by_cpu_clock();
                }
                let watch = Stopwatch::start();
                std::thread::sleep(Duration::from_millis(30));
                watch.elapsed()
            })
        };
        assert!(waited(false).join().unwrap() >= Duration::from_millis(30));
        assert!(waited(true).join().unwrap() < Duration::from_millis(30));
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
