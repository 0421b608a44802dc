//! How much the functions of an app may write to its log: one that writes without end would displace
//! everybody's lines on disk.

use super::{BURST_S, Event};
use jiff::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

const NS_PER_S: i64 = 1_000_000_000;

/// The rate that every app has.
pub(super) struct Rate {
    /// How long a byte takes to be made up for, in nanoseconds per 1,024 bytes; 0: no limit.
    ns_per_kib: i64,
}

/// What an app has written of late.
#[derive(Default)]
pub(super) struct Bucket {
    /// When all of it is made up for, in nanoseconds since 1970.
    paid_at: AtomicI64,
    /// When its log last told that lines are dropped, likewise.
    told_at: AtomicI64,
}

/// Whether a line is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Yes,
    No,
    /// No, and the log has not said so for a second.
    NoAndSaySo,
}

impl Rate {
    /// So many bytes in a second; 0 is no limit.
    pub(super) fn new(bytes_per_s: u64) -> Self {
        let bytes_per_s = i64::try_from(bytes_per_s).unwrap_or(i64::MAX);
        let ns_per_kib = if bytes_per_s == 0 { 0 } else { (NS_PER_S * 1024 / bytes_per_s).max(1) };
        Self { ns_per_kib }
    }

    /// Asks for a line. Lines about requests are the node's own, and there are as many as requests.
    pub(super) fn take(&self, bucket: &Bucket, event: &Event<'_>, time: Timestamp) -> Pass {
        let bytes = match event {
            Event::Request { .. } => return Pass::Yes,
            Event::Stdout(text) | Event::Stderr(text) | Event::Failure(text) => text.len(),
            Event::Log { context, message, .. } => context.len() + message.len(),
        };
        if self.ns_per_kib == 0 {
            return Pass::Yes;
        }
        let now = i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
        // A line has more than its text.
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(64);
        let costs = bytes.saturating_mul(self.ns_per_kib) / 1024;
        let burst = i64::try_from(BURST_S).unwrap_or(1).saturating_mul(NS_PER_S);
        let most = now.saturating_add(burst);
        let mut fits = false;
        let _ = bucket.paid_at.fetch_update(Relaxed, Relaxed, |paid_at| {
            // A clock that was set back must not silence anybody for long.
            let owed = paid_at.clamp(now, most);
            let then = owed.saturating_add(costs);
            fits = then <= most;
            Some(if fits { then } else { owed })
        });
        if fits {
            return Pass::Yes;
        }
        let told_at = bucket.told_at.load(Relaxed);
        if now.abs_diff(told_at) < NS_PER_S.unsigned_abs()
            || bucket.told_at.compare_exchange(told_at, now, Relaxed, Relaxed).is_err()
        {
            return Pass::No;
        }
        Pass::NoAndSaySo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate() {
        let rate = Rate::new(1 << 20);
        let bucket = Bucket::default();
        let line = "x".repeat(1024 - 64);
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let take = |second| rate.take(&bucket, &Event::Stdout(&line), at(second));
        let written = |second, most: usize| (0..most).filter(|_| take(second) == Pass::Yes).count();
        assert_eq!(written(0, 10_000), 4 * 1024);
        assert_eq!(take(0), Pass::No, "it was said already");
        assert_eq!(written(1, 1024), 1024);
        assert_eq!(take(1), Pass::NoAndSaySo);
        assert_eq!(written(100, 10_000), 4 * 1024);
        // The clock is set back by a minute.
        assert_eq!(take(40), Pass::NoAndSaySo);
        assert_eq!(take(41), Pass::Yes);
        let off = Rate::new(0);
        assert_eq!(off.take(&bucket, &Event::Stdout(&line), at(0)), Pass::Yes);
    }
}
