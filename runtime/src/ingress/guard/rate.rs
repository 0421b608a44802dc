//! How often each client has called each function: the generic cell rate algorithm, which keeps one
//! number per client – when its bucket is full again – and is exact.
//!
//! Clients are counted on this node only. What is known of them is bounded: full buckets are
//! forgotten, because they look like no bucket; if that is not enough, those that would be full
//! soonest are.

use crate::functions::guard::{Guard, Rate};
use dashmap::{DashMap, Entry};
use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::{Duration, Instant},
};

/// Buckets that are looked at to find out which would be full soonest.
const SAMPLE: usize = 64;

/// Whose calls are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client<'a> {
    /// Those with this key.
    Key(&'a str),
    /// Those that a token names.
    Subject(&'a str),
    /// Those from this address; of IPv6, from this network: one client has a whole /64.
    Address(u64),
}

impl Client<'_> {
    /// Whoever is at an address.
    pub(super) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Address(u64::from(u32::from(address))),
            // No network of an IPv6 client is among the first 2^32.
            IpAddr::V6(address) => Self::Address((u128::from(address) >> 64) as u64),
        }
    }
}

/// The buckets of every client of every function with a rate.
pub(super) struct Rates {
    /// A client of a function, hashed with a secret: 128 bits do not meet by chance.
    seeds: [RandomState; 2],
    /// When each bucket is full again, in nanoseconds since `epoch`.
    buckets: DashMap<u128, AtomicU64>,
    /// How many there are. Counted apart, because the map would lock itself to tell.
    count: AtomicUsize,
    most: usize,
    making_room: AtomicBool,
    epoch: Instant,
}

impl Rates {
    /// Remembers at most about so many clients.
    pub(super) fn new(most: usize) -> Self {
        Self {
            seeds: [RandomState::new(), RandomState::new()],
            buckets: DashMap::new(),
            count: AtomicUsize::new(0),
            most,
            making_room: AtomicBool::new(false),
            epoch: Instant::now(),
        }
    }

    /// Takes a token for a call, or says how long it is until there is one.
    pub(super) fn take(
        &self,
        guard: &Guard,
        client: Client<'_>,
        rate: Rate,
    ) -> Result<(), Duration> {
        self.take_at(self.bucket(guard, client), rate, self.now())
    }

    /// Forgets clients whose buckets are full.
    pub(super) fn sweep(&self) {
        self.forget_until(self.now());
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn bucket(&self, guard: &Guard, client: Client<'_>) -> u128 {
        let whose = (guard.app.as_str(), guard.function.as_str(), client);
        let [high, low] = self.seeds.each_ref().map(|seed| u128::from(seed.hash_one(whose)));
        high << 64 | low
    }

    fn take_at(&self, bucket: u128, rate: Rate, now: u64) -> Result<(), Duration> {
        if let Some(full_at) = self.buckets.get(&bucket) {
            return advance(&full_at, rate, now);
        }
        if self.count.load(Relaxed) >= self.most {
            self.make_room(now);
        }
        match self.buckets.entry(bucket) {
            // Another call of the client was faster.
            Entry::Occupied(full_at) => advance(full_at.get(), rate, now),
            Entry::Vacant(vacant) => {
                // Before it can be forgotten.
                self.count.fetch_add(1, Relaxed);
                vacant.insert(AtomicU64::new(now.saturating_add(rate.interval)));
                Ok(())
            }
        }
    }

    /// One thread at a time does this; the others go on meanwhile.
    fn make_room(&self, now: u64) {
        if self.making_room.swap(true, AcqRel) {
            return;
        }
        self.forget_until(now);
        // Otherwise there would be room for a few, and then the same again.
        if self.count.load(Relaxed) > self.most / 4 * 3 {
            let mut sample: Vec<u64> =
                self.buckets.iter().take(SAMPLE).map(|bucket| bucket.load(Relaxed)).collect();
            sample.sort_unstable();
            if let Some(soonest) = sample.get(sample.len() / 3) {
                self.forget_until(*soonest);
            }
        }
        self.making_room.store(false, Release);
    }

    /// Forgets the buckets that are full by then.
    fn forget_until(&self, then: u64) {
        let mut forgotten = 0;
        self.buckets.retain(|_, full_at| {
            let keep = full_at.load(Relaxed) > then;
            forgotten += usize::from(!keep);
            keep
        });
        self.count.fetch_sub(forgotten, Relaxed);
    }
}

/// Takes a token out of a bucket, unless that would leave it less than empty.
fn advance(full_at: &AtomicU64, rate: Rate, now: u64) -> Result<(), Duration> {
    let mut before = full_at.load(Acquire);
    loop {
        let after = before.max(now).saturating_add(rate.interval);
        let ahead = after - now;
        if ahead > rate.window {
            return Err(Duration::from_nanos(ahead - rate.window));
        }
        match full_at.compare_exchange_weak(before, after, AcqRel, Acquire) {
            Ok(_) => return Ok(()),
            Err(changed) => before = changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::manifest::RateLimit;
    use proptest::prelude::*;
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        thread,
    };

    const SECOND: u64 = 1_000_000_000;

    fn rate(requests: u32, per_ms: u64, burst: Option<u32>) -> Rate {
        Rate::new(&RateLimit { requests, per_ms, burst })
    }

    #[test]
    fn a_burst_and_then_one_by_one() {
        let rates = Rates::new(1000);
        let rate = rate(2, 1000, Some(3));
        for _ in 0..3 {
            assert_eq!(rates.take_at(1, rate, 0), Ok(()));
        }
        assert_eq!(rates.take_at(1, rate, 0), Err(Duration::from_millis(500)));
        assert_eq!(rates.take_at(2, rate, 0), Ok(()), "another client");
        // A refusal costs nothing.
        assert_eq!(rates.take_at(1, rate, SECOND / 2), Ok(()));
        assert_eq!(rates.take_at(1, rate, SECOND / 2), Err(Duration::from_millis(500)));
        // After a pause the bucket is full, and not more than full.
        for _ in 0..3 {
            assert_eq!(rates.take_at(1, rate, 100 * SECOND), Ok(()));
        }
        assert!(rates.take_at(1, rate, 100 * SECOND).is_err());
    }

    #[test]
    fn who_is_one_client() {
        let v4 = |text: &str| Client::at(text.parse::<Ipv4Addr>().unwrap().into());
        let v6 = |text: &str| Client::at(text.parse::<Ipv6Addr>().unwrap().into());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1:2:3"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), v4("192.0.2.1"));
        assert_ne!(v4("192.0.2.1"), v4("192.0.2.2"));
        assert_ne!(Client::Key("a"), Client::Subject("a"));
    }

    #[test]
    fn full_buckets_are_forgotten_and_memory_is_bounded() {
        let rates = Rates::new(1000);
        let slow = rate(1, 60_000, Some(10));
        for client in 0..100_000_u128 {
            // Each needs its bucket for a minute, the later ones longer.
            assert_eq!(rates.take_at(client, slow, u64::try_from(client).unwrap()), Ok(()));
            assert!(rates.buckets.len() <= 1000);
        }
        assert_eq!(rates.count.load(Relaxed), rates.buckets.len());
        rates.forget_until(200 * SECOND);
        assert_eq!((rates.count.load(Relaxed), rates.buckets.len()), (0, 0));
    }

    #[test]
    fn threads_share_a_bucket() {
        let rates = Rates::new(1000);
        let rate = rate(1000, 86_400_000, Some(1000));
        let taken: usize = thread::scope(|scope| {
            let take = || (0..500).filter(|_| rates.take_at(7, rate, 0).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        /// However calls come, no more pass than a bucket that is filled at the rate has tokens for,
        /// and none that it has one for is refused.
        #[test]
        fn a_bucket_is_exact(
            requests in 1u32..50,
            per_ms in 1u64..2000,
            burst in 1u32..20,
            pauses in prop::collection::vec(0u64..3_000_000_000, 1..200),
        ) {
            let rate = rate(requests, per_ms, Some(burst));
            let rates = Rates::new(1000);
            // Tokens, times the interval, so that all is exact.
            let full = u128::from(rate.interval) * u128::from(burst);
            let (mut tokens, mut now) = (full, 0_u64);
            for pause in pauses {
                now += pause;
                tokens = (tokens + u128::from(pause)).min(full);
                let expected = tokens >= u128::from(rate.interval);
                let taken = rates.take_at(1, rate, now);
                prop_assert_eq!(taken.is_ok(), expected);
                match taken {
                    Ok(()) => tokens -= u128::from(rate.interval),
                    Err(wait) => {
                        let missing = u128::from(rate.interval) - tokens;
                        prop_assert_eq!(wait.as_nanos(), missing);
                    }
                }
            }
        }
    }
}
