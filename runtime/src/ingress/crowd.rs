//! Everybody who is connected: how many from one address, and who has to go when there is no more
//! room for others.
//!
//! A connection is entered when it was accepted and leaves when it ends; nothing else of it comes
//! by here, so that one lock does. Whoever looks for somebody to go looks at all of them.

use super::{
    connection::{Burden, Leave, Pulse, Worth},
    proxies::Proxies,
};
use crate::telemetry::metrics::ConnectionMetrics;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// The most connections of one address, where nothing else is said,
const OF_ONE_ADDRESS: usize = 512;
/// and no more than one of so many of all.
const SHARE_OF_ONE_ADDRESS: usize = 2;
/// When there is no place left, one of so many connections is asked to go, so that the next ones
/// need not look again.
const SHARE_TO_GO: usize = 256;
/// How long those who hold too much get to be gone before others are looked at.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the log tells of the same.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How many may come.
#[derive(Debug, Clone, Copy)]
pub(super) struct CrowdLimits {
    /// Connections of one address; 0 derives it, and then holds for no address of this machine.
    pub(super) of_one_address: usize,
    /// All connections.
    pub(super) connections: usize,
    /// Bytes that all connections may hold beyond what each may.
    pub(super) burden: usize,
}

/// Those who are connected.
pub(super) struct Crowd {
    limits: CrowdLimits,
    proxies: Proxies,
    burden: Arc<Burden>,
    members: Mutex<Members>,
    metrics: ConnectionMetrics,
    start: Instant,
    /// The milliseconds after `start`, plus one, at which the log told of each reason.
    told: [AtomicU64; 3],
}

#[derive(Default)]
struct Members {
    next: u64,
    /// By number: the oldest come first.
    all: BTreeMap<u64, (Origin, Arc<Pulse>)>,
    origins: HashMap<Origin, usize>,
}

/// Where connections come from: an address, or a whole network where one client has so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Origin {
    /// Of an IPv6 address it is the first half, which is what one client gets (RFC 6177).
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

/// Why a connection is not kept.
#[derive(Debug, Clone, Copy)]
enum Reason {
    /// Its address has too many.
    Address,
    /// Others need its place.
    Room,
    /// It holds too much.
    Memory,
}

impl Reason {
    const ALL: [Self; 3] = [Self::Address, Self::Room, Self::Memory];

    fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Room => "room",
            Self::Memory => "memory",
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Address => {
                "an address has as many connections as `ingress.max_connections_per_address` \
                 permits; its next ones are closed"
            }
            Self::Room => {
                "there are as many connections as `ingress.max_connections` permits; those that ask \
                 for nothing, and those whose clients do not read, make room"
            }
            Self::Memory => {
                "slow clients make connections hold more than `ingress.connection_memory_bytes`; \
                 those that hold most for longest are closed"
            }
        }
    }
}

impl Crowd {
    /// Nobody yet. What comes from `proxies` is not counted by address.
    pub(super) fn new(
        limits: CrowdLimits,
        proxies: Proxies,
        metrics: ConnectionMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits,
            proxies,
            burden: Burden::new(limits.burden),
            members: Mutex::default(),
            metrics,
            start: Instant::now(),
            told: Default::default(),
        })
    }

    /// Lets a connection in, unless its address has too many.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Member> {
        let origin = Origin::of(peer);
        let most = self.most_of(peer.to_canonical());
        let mut members = self.lock();
        let count = members.origins.entry(origin).or_insert(0);
        if *count >= most {
            drop(members);
            self.counts(Reason::Address, 1);
            return None;
        }
        *count += 1;
        let (number, pulse) = (members.next, Arc::new(Pulse::new(self.burden.clone())));
        members.next += 1;
        members.all.insert(number, (origin, pulse.clone()));
        self.metrics.open.inc();
        Some(Member { crowd: self.clone(), number, pulse })
    }

    /// How many connections an address may have.
    fn most_of(&self, peer: IpAddr) -> usize {
        let CrowdLimits { of_one_address, connections, .. } = self.limits;
        match of_one_address {
            _ if self.proxies.trust(peer) => usize::MAX,
            0 if peer.is_loopback() => usize::MAX,
            0 => OF_ONE_ADDRESS.min(connections / SHARE_OF_ONE_ADDRESS).max(1),
            set => set,
        }
    }

    /// Asks some connections to make room for others: first those that never sent a whole head, then
    /// idle ones, then those whose clients do not read. Of each kind first those of the address with
    /// the most, and of these those that have been so for longest.
    pub(super) fn make_room(&self) {
        let members = self.lock();
        let mut candidates: Vec<_> = members
            .all
            .values()
            .filter_map(|(origin, pulse)| {
                let (worth, time) = pulse.worth()?;
                let crowd = match worth {
                    // Whoever keeps many connections open for a while is a good client, too.
                    Worth::Idle => 0,
                    _ => members.origins.get(origin).copied().unwrap_or_default(),
                };
                Some(((worth, Reverse(crowd), Reverse(time)), pulse))
            })
            .collect();
        let wanted = (self.limits.connections / SHARE_TO_GO).max(1);
        candidates.sort_unstable_by_key(|(key, _)| *key);
        let mut gone = 0;
        for ((worth, ..), pulse) in candidates.into_iter().take(wanted) {
            pulse.ask_to_leave(worth.leave());
            gone += 1;
        }
        drop(members);
        if gone > 0 {
            self.counts(Reason::Room, gone);
        }
    }

    /// Closes connections whenever all together hold more than they may. Never ends.
    pub(super) async fn watch_burden(&self) {
        loop {
            self.burden.exceeded().await;
            while self.burden.excess() > 0 {
                self.relieve();
                sleep(PAUSE).await;
            }
        }
    }

    /// Closes those that hold most for longest. What others hold who leave already, or have left and are
    /// not forgotten, goes by itself.
    fn relieve(&self) {
        let members = self.lock();
        let weigh = |pulse: &'_ Arc<Pulse>| {
            let bytes = pulse.excess();
            (bytes as u128 * (pulse.stuck().as_millis() + 100), bytes, pulse.clone())
        };
        let stay = |pulse: &&Arc<Pulse>| pulse.excess() > 0 && !pulse.leaves_now();
        let pulses = members.all.values().map(|(_, pulse)| pulse);
        let mut candidates: Vec<_> = pulses.filter(stay).map(weigh).collect();
        drop(members);
        candidates.sort_unstable_by_key(|(weight, ..)| Reverse(*weight));
        let held: usize = candidates.iter().map(|(_, bytes, _)| bytes).sum();
        let excess = self.burden.excess_of(held.try_into().unwrap_or(isize::MAX));
        let (mut relief, mut gone) = (0, 0);
        for (_, bytes, pulse) in candidates {
            if relief >= excess {
                break;
            }
            pulse.ask_to_leave(Leave::Now);
            relief += bytes;
            gone += 1;
        }
        if gone > 0 {
            self.counts(Reason::Memory, gone);
        }
    }

    fn counts(&self, reason: Reason, number: u64) {
        self.metrics.rejected(reason.label(), number);
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let every = u64::try_from(TELL_EVERY.as_millis()).unwrap_or(u64::MAX);
        let index = Reason::ALL.iter().position(|other| *other as u8 == reason as u8);
        let Some(told) = index.and_then(|index| self.told.get(index)) else {
            return;
        };
        let before = told.load(Relaxed);
        let due = before == 0 || now + 1 >= before.saturating_add(every);
        if due && told.compare_exchange(before, now + 1, Relaxed, Relaxed).is_ok() {
            tracing::warn!(reason = reason.label(), "{}", reason.says());
        }
    }

    /// Whoever holds it only counts, so that it is as good as before if that panicked.
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Crowd").field(&self.limits).finish()
    }
}

/// One connection among the others.
pub(super) struct Member {
    crowd: Arc<Crowd>,
    number: u64,
    pulse: Arc<Pulse>,
}

impl Member {
    /// The notes of the connection.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.crowd.lock();
        if let Some((origin, _)) = members.all.remove(&self.number)
            && let Some(count) = members.origins.get_mut(&origin)
        {
            *count -= 1;
            if *count == 0 {
                members.origins.remove(&origin);
            }
        }
        drop(members);
        if self.pulse.has_left_by_itself() {
            self.crowd.counts(Reason::Memory, 1);
        }
        self.crowd.metrics.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn crowd(of_one_address: usize) -> (Arc<Crowd>, Metrics) {
        let metrics = Metrics::new().unwrap();
        let limits = CrowdLimits { of_one_address, connections: 20, burden: 1 << 20 };
        let proxies = Proxies::new(&["10.0.0.0/8".parse().unwrap()]);
        (Crowd::new(limits, proxies, metrics.connections.clone()), metrics)
    }

    fn fill(crowd: &Arc<Crowd>, addresses: &[&str]) -> Vec<Option<Member>> {
        addresses.iter().map(|address| crowd.enter(address.parse().unwrap())).collect()
    }

    #[test]
    fn an_address_has_so_many_and_no_more() {
        let (crowd, metrics) = crowd(2);
        let same = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2", "127.0.0.1"];
        let entered: Vec<bool> = fill(&crowd, &same).iter().map(Option::is_some).collect();
        assert_eq!(entered, [true, true, false, true, true]);
        let members = fill(&crowd, &["2001:db8::1", "2001:db8::ffff:1", "2001:db8::2"]);
        assert!(members[0].is_some() && members[1].is_some() && members[2].is_none());
        assert!(crowd.enter("2001:db8:0:1::1".parse().unwrap()).is_some());
        let text = metrics.render().unwrap();
        assert!(text.contains(r#"faas_connections_rejected_total{reason="address"} 2"#), "{text}");
        assert!(text.contains("faas_connections_open 2"), "{text}");
        drop(members);
        assert!(crowd.lock().all.is_empty() && crowd.lock().origins.is_empty());
        assert!(crowd.enter("2001:db8::2".parse().unwrap()).is_some());
    }

    #[test]
    fn what_is_derived_holds_for_strangers_only() {
        let (derived, _) = crowd(0);
        for (address, most) in [
            ("192.0.2.1", 10),
            ("2001:db8::1", 10),
            ("127.0.0.1", usize::MAX),
            ("::1", usize::MAX),
            ("10.1.2.3", usize::MAX),
        ] {
            assert_eq!(derived.most_of(address.parse().unwrap()), most, "{address}");
        }
        let (set, _) = crowd(7);
        assert_eq!(set.most_of("127.0.0.1".parse().unwrap()), 7);
        assert_eq!(set.most_of("10.1.2.3".parse().unwrap()), usize::MAX);
    }
}
