//! What one instance may use, and what it has used.

use super::stopwatch::{self, Stopwatch};
use crate::telemetry::usage::Bill;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use wasmtime::ResourceLimiter;

/// The most core instances of one component.
pub(crate) const MAX_INSTANCES: u32 = 100;
/// The most memories of one component.
pub(crate) const MAX_MEMORIES: u32 = 16;
/// The most tables of one component.
pub(crate) const MAX_TABLES: u32 = 64;
/// Bytes of a table's element.
const TABLE_ELEMENT: u64 = 8;
/// An app may hold so many times the memory that is free: alone half of it. Less than of places, because
/// memory comes back late: of those who come one after the other each leaves half to the next.
const SHARE_OF_FREE: u64 = 1;

/// What one call has used so far. Shared by the store, the future that polls it and the ingress.
#[derive(Debug)]
pub(crate) struct Meter {
    epoch: Instant,
    cpu_ns: AtomicU64,
    /// When the poll that runs now began, in nanoseconds since `epoch`; 0 between polls.
    polling_since_ns: AtomicU64,
    /// What the CPU clock of its thread read then, where that is what counts; else 0.
    thread_since_ns: AtomicU64,
    /// What it read shortly before, where the clock on the wall counts.
    thread_read_ns: AtomicU64,
    memory_peak: AtomicU64,
    /// When the guest was first polled and when its last poll ended, as above; 0 before.
    began_ns: AtomicU64,
    ended_ns: AtomicU64,
    /// Its part of the memory of an instance that serves several calls at once, times the time it
    /// was held, in MiB-nanoseconds.
    shared_memory: AtomicU64,
    outbound: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self::since(Instant::now())
    }
}

impl Meter {
    /// A meter of a call that began then.
    pub(crate) fn since(started: Instant) -> Self {
        Self {
            epoch: started,
            cpu_ns: AtomicU64::new(0),
            polling_since_ns: AtomicU64::new(0),
            thread_since_ns: AtomicU64::new(0),
            thread_read_ns: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            began_ns: AtomicU64::new(0),
            ended_ns: AtomicU64::new(0),
            shared_memory: AtomicU64::new(0),
            outbound: AtomicU64::new(0),
        }
    }

    /// When the call began.
    pub(crate) fn started(&self) -> Instant {
        self.epoch
    }

    /// CPU time of the guest and its host calls: the time its worker thread spent on it. Where
    /// guests begin, that is time of the clock on the wall; where those go on that take long, it is
    /// the thread's own CPU time ([`stopwatch`]).
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Relaxed))
    }

    /// The largest sum of its linear memories, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Relaxed)
    }

    /// Counts time that was measured elsewhere, and memory that an instance had.
    pub(crate) fn add(&self, cpu: Duration, memory: u64) {
        self.cpu_ns.fetch_add(ns(cpu), Relaxed);
        self.memory_peak.fetch_max(memory, Relaxed);
    }

    /// The guest begins now, where its polls are counted elsewhere.
    pub(crate) fn begins(&self) {
        self.began_ns.store(self.now_ns(), Relaxed);
    }

    /// Whether a guest ran, or began to, for this call.
    pub(crate) fn has_begun(&self) -> bool {
        self.began_ns.load(Relaxed) > 0
    }

    /// Counts memory that it held, as its part of an instance that others share.
    pub(crate) fn holds(&self, bytes: u64, time: Duration) {
        self.shared_memory.fetch_add(mib_ns(bytes, time.as_nanos()), Relaxed);
    }

    /// Counts a request that the guest sends to another server.
    pub(crate) fn sends(&self) {
        self.outbound.fetch_add(1, Relaxed);
    }

    /// What the call has used. `is_over` is whether its guest has ended by itself: then it held its
    /// memory until its last poll, and else until now.
    pub(crate) fn bill(&self, is_over: bool) -> Bill {
        let memory_peak = self.memory_peak();
        let memory_mib_ns = match self.shared_memory.load(Relaxed) {
            0 => mib_ns(memory_peak, self.lived_ns(is_over).into()),
            shared => shared,
        };
        let outbound = self.outbound.load(Relaxed);
        // Of another thread's clock nothing is known but the time since: the rest of a turn.
        let cpu = self.cpu() + self.turn_on_wall().unwrap_or_default();
        Bill { cpu, memory_peak, memory_mib_ns, outbound }
    }

    fn lived_ns(&self, is_over: bool) -> u64 {
        let began = match self.began_ns.load(Relaxed) {
            0 => return 0,
            began => began,
        };
        let ended = match self.ended_ns.load(Relaxed) {
            ended if is_over && ended > 0 => ended,
            _ => self.now_ns(),
        };
        ended.saturating_sub(began)
    }

    /// Runs one poll of the guest, and counts its time. Tells that, too.
    pub(crate) fn count<R>(&self, poll: impl FnOnce() -> R) -> (R, Duration) {
        let watch = Stopwatch::start();
        let since = match watch {
            Stopwatch::Wall(since, read) => {
                self.thread_since_ns.store(0, Relaxed);
                self.thread_read_ns.store(ns(read), Relaxed);
                ns(since.saturating_duration_since(self.epoch)).max(1)
            }
            Stopwatch::Cpu(since) => {
                self.thread_since_ns.store(ns(since).max(1), Relaxed);
                self.now_ns()
            }
        };
        self.polling_since_ns.store(since, Relaxed);
        if self.began_ns.load(Relaxed) == 0 {
            self.began_ns.store(since, Relaxed);
        }
        let result = poll();
        self.polling_since_ns.store(0, Relaxed);
        let until = self.now_ns();
        self.ended_ns.store(until, Relaxed);
        let took = match watch {
            Stopwatch::Wall(_, read) => {
                stopwatch::worked(Duration::from_nanos(until.saturating_sub(since)), read)
            }
            Stopwatch::Cpu(_) => watch.elapsed(),
        };
        self.cpu_ns.fetch_add(ns(took), Relaxed);
        (result, took)
    }

    /// CPU time including the poll that runs now, on the thread that asks.
    fn cpu_now(&self) -> Duration {
        self.cpu() + self.turn().unwrap_or_default()
    }

    /// How long the poll that runs now, on the thread that asks, has taken; none where polls are
    /// counted elsewhere.
    fn turn(&self) -> Option<Duration> {
        match self.thread_since_ns.load(Relaxed) {
            0 => {
                let read = Duration::from_nanos(self.thread_read_ns.load(Relaxed));
                self.turn_on_wall().map(|turn| stopwatch::worked(turn, read))
            }
            since => self
                .turn_on_wall()
                .map(|_| stopwatch::cpu_clock().saturating_sub(Duration::from_nanos(since))),
        }
    }

    fn turn_on_wall(&self) -> Option<Duration> {
        match self.polling_since_ns.load(Relaxed) {
            0 => None,
            since => Some(Duration::from_nanos(self.now_ns().saturating_sub(since))),
        }
    }

    fn now_ns(&self) -> u64 {
        ns(self.epoch.elapsed()).max(1)
    }
}

/// In nanoseconds: enough for centuries.
fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes that were held for so many nanoseconds, in MiB-nanoseconds.
fn mib_ns(bytes: u64, ns: u128) -> u64 {
    u64::try_from((u128::from(bytes) * ns) >> 20).unwrap_or(u64::MAX)
}

/// How scarce the memory of the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// There is enough.
    None,
    /// No app gets more instances.
    High,
    /// Guests that run long enough to be interrupted are ended.
    Critical,
}

/// The memory that all instances of a node share.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
    pressure: AtomicU8,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), pressure: AtomicU8::new(0) })
    }

    /// How scarce memory is now.
    pub(crate) fn pressure(&self) -> Pressure {
        match self.pressure.load(Relaxed) {
            0 => Pressure::None,
            1 => Pressure::High,
            _ => Pressure::Critical,
        }
    }

    /// Tells how scarce memory is from now on.
    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Relaxed);
    }

    /// Whether less than half of it is used.
    pub(crate) fn has_room(&self) -> bool {
        self.used.load(Relaxed) < self.limit / 2
    }

    /// Takes bytes for an app that holds so many already. What is refused was never counted: a large
    /// wish that fails must not make others fail.
    fn take(&self, bytes: u64, held: u64) -> bool {
        let taken = self.used.fetch_update(Relaxed, Relaxed, |used| {
            let used = used.checked_add(bytes)?;
            let free = self.limit.checked_sub(used)?;
            // The first is judged by what there is, else nothing could be had of a small node.
            let allowed =
                held == 0 || held.saturating_add(bytes) <= free.saturating_mul(SHARE_OF_FREE);
            allowed.then_some(used)
        });
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// One app's part of the memory that all instances of a node share. It grows with what is free, so
/// that whoever takes much leaves something for the others.
#[derive(Debug)]
pub(crate) struct MemoryAccount {
    node: Arc<MemoryBudget>,
    held: AtomicU64,
}

impl MemoryAccount {
    /// An account of which nothing is used.
    pub(crate) fn new(node: Arc<MemoryBudget>) -> Arc<Self> {
        Arc::new(Self { node, held: AtomicU64::new(0) })
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// Why there are not as many.
    fn take(&self, bytes: u64) -> Result<(), String> {
        let held = self.held.load(Relaxed);
        if self.node.take(bytes, held) {
            self.held.fetch_add(bytes, Relaxed);
            return Ok(());
        }
        let limit = self.node.limit;
        let used = self.node.used.load(Relaxed);
        Err(format!(
            "of the node's memory budget of {limit} bytes {used} are in use, {held} by this app"
        ))
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Relaxed);
        self.node.give_back(bytes);
    }
}

/// The guest used up its CPU time: the error that stops it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuExhausted {
    /// The setting.
    pub(crate) name: &'static str,
    /// What it may use.
    pub(crate) limit: Duration,
    /// What it had used.
    pub(crate) used: Duration,
}

impl fmt::Display for CpuExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "used {:?} of {:?} CPU time (`{}`)", self.used, self.limit, self.name)
    }
}

impl std::error::Error for CpuExhausted {}

/// The node has next to no memory left: the error that stops guests at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeOutOfMemory;

impl fmt::Display for NodeOutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node has next to no memory left")
    }
}

impl std::error::Error for NodeOutOfMemory {}

/// What one instance may use. Memory is returned to the node when this is dropped.
pub(crate) struct Budget {
    /// Linear memory, all memories together, in bytes.
    pub(crate) memory_limit: u64,
    /// Elements of all tables.
    pub(crate) table_limit: usize,
    /// CPU time.
    pub(crate) cpu_limit: Duration,
    /// CPU time until the instance is made; none afterwards.
    start_limit: Option<Duration>,
    memory: u64,
    /// What its tables take, in bytes.
    tables: u64,
    table_elements: usize,
    refused: Option<String>,
    account: Arc<MemoryAccount>,
    meter: Arc<Meter>,
}

impl Budget {
    /// A budget of which nothing is used.
    pub(crate) fn new(
        memory_limit: u64,
        table_limit: usize,
        cpu_limit: Duration,
        account: Arc<MemoryAccount>,
        meter: Arc<Meter>,
    ) -> Self {
        Self {
            memory_limit,
            table_limit,
            cpu_limit,
            start_limit: None,
            memory: 0,
            tables: 0,
            table_elements: 0,
            refused: None,
            account,
            meter,
        }
    }

    /// The instance is not made yet, and that may take so much CPU time.
    pub(crate) fn starting(mut self, limit: Duration) -> Self {
        self.start_limit = Some(limit);
        self
    }

    /// The instance is made.
    pub(crate) fn started(&mut self) {
        self.start_limit = None;
    }

    /// Asked at every tick that interrupts the guest: whether it may go on.
    pub(crate) fn check_cpu(&self) -> Result<(), CpuExhausted> {
        let used = self.meter.cpu_now();
        let (name, limit) = match self.start_limit {
            Some(start) if start < self.cpu_limit => ("start_ms", start),
            _ => ("cpu_ms", self.cpu_limit),
        };
        if used < limit {
            return Ok(());
        }
        Err(CpuExhausted { name, limit, used })
    }

    /// Asked at every tick as well: whether the node has memory left for it.
    pub(crate) fn check_node(&self) -> Result<(), NodeOutOfMemory> {
        match self.account.node.pressure() {
            Pressure::Critical => Err(NodeOutOfMemory),
            Pressure::None | Pressure::High => Ok(()),
        }
    }

    /// How long it has had its thread to itself; none where that is not known.
    pub(crate) fn turn(&self) -> Option<Duration> {
        self.meter.turn()
    }

    /// The same instance serves another request, which is counted by this meter. Memory that the
    /// instance has is part of what that request uses.
    pub(crate) fn serve(&mut self, meter: Arc<Meter>) {
        meter.memory_peak.fetch_max(self.memory, Relaxed);
        self.meter = meter;
        self.refused = None;
    }

    /// Linear memory of the instance now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// The last growth that was refused, if one was: it explains most traps that follow.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.account.give_back(self.memory + self.tables);
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let total = self.memory.saturating_add(more);
        if total > self.memory_limit {
            self.refused = Some(format!(
                "limit `memory_bytes` reached: asked for {total} of {} bytes",
                self.memory_limit
            ));
            return Ok(false);
        }
        if let Err(why) = self.account.take(more) {
            self.refused = Some(why);
            return Ok(false);
        }
        self.memory = total;
        self.meter.memory_peak.fetch_max(total, Relaxed);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > self.table_limit {
            self.refused = Some(format!(
                "limit `table_elements` reached: asked for {total} of {}",
                self.table_limit
            ));
            return Ok(false);
        }
        let bytes = (total - self.table_elements) as u64 * TABLE_ELEMENT;
        if let Err(why) = self.account.take(bytes) {
            self.refused = Some(why);
            return Ok(false);
        }
        self.tables += bytes;
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(node: &Arc<MemoryBudget>) -> Budget {
        let account = MemoryAccount::new(node.clone());
        Budget::new(100, 10, Duration::from_secs(1), account, Arc::default())
    }

    #[test]
    fn memory_is_summed_over_all_memories() {
        let node = MemoryBudget::new(1000);
        let mut budget = budget(&node);
        assert!(budget.memory_growing(0, 60, None).unwrap());
        assert!(budget.memory_growing(0, 40, None).unwrap());
        assert!(!budget.memory_growing(40, 41, None).unwrap());
        assert!(budget.refused().unwrap().contains("memory_bytes"));
        assert_eq!(budget.meter.memory_peak(), 100);
    }

    #[test]
    fn a_bill_has_the_memory_for_as_long_as_the_guest_lived() {
        let meter = Meter::default();
        assert!(!meter.has_begun());
        assert_eq!(meter.bill(true), Bill::default());
        meter.add(Duration::ZERO, 3 << 20);
        let lived = Instant::now();
        meter.count(|| std::thread::sleep(Duration::from_millis(2)));
        let lived = lived.elapsed();
        assert!(meter.has_begun());
        std::thread::sleep(Duration::from_millis(20));
        meter.sends();
        let bill = meter.bill(true);
        assert_eq!((bill.memory_peak, bill.outbound), (3 << 20, 1));
        let mib_ns = u128::from(bill.memory_mib_ns);
        assert!((3 * 2_000_000..=3 * lived.as_nanos()).contains(&mib_ns), "{bill:?}");
        // One that is cancelled has held it until now.
        assert!(meter.bill(false).memory_mib_ns > 3 * 22_000_000);
        // A part of an instance that others share is counted by that instance.
        meter.holds(1 << 20, Duration::from_nanos(7));
        assert_eq!(meter.bill(true).memory_mib_ns, 7);
    }

    #[test]
    fn the_nodes_memory_is_shared_and_returned() {
        let node = MemoryBudget::new(150);
        let mut first = budget(&node);
        let mut second = budget(&node);
        assert!(first.memory_growing(0, 100, None).unwrap());
        assert!(!second.memory_growing(0, 100, None).unwrap());
        drop(first);
        assert!(second.memory_growing(0, 100, None).unwrap());
        drop(second);
        assert_eq!(node.used.load(Relaxed), 0);
    }

    #[test]
    fn an_app_leaves_memory_for_others() {
        let node = MemoryBudget::new(800);
        let account = MemoryAccount::new(node.clone());
        let of_app = || {
            let second = Duration::from_secs(1);
            Budget::new(100, 10, second, account.clone(), Arc::default())
        };
        let mut greedy: Vec<Budget> = (0..8).map(|_| of_app()).collect();
        let grown =
            greedy.iter_mut().filter_map(|b| b.memory_growing(0, 100, None).unwrap().then_some(()));
        assert_eq!(grown.count(), 4);
        assert!(greedy.last().unwrap().refused().unwrap().contains("400 by this app"));
        let mut other = budget(&node);
        assert!(other.memory_growing(0, 100, None).unwrap());
        drop((greedy, other));
        assert_eq!((node.used.load(Relaxed), account.held.load(Relaxed)), (0, 0));
    }

    #[test]
    fn tables_are_summed() {
        let node = MemoryBudget::new(1000);
        let mut budget = budget(&node);
        assert!(budget.table_growing(0, 6, None).unwrap());
        assert!(!budget.table_growing(0, 5, None).unwrap());
        assert_eq!(node.used.load(Relaxed), 48, "they are memory too");
        drop(budget);
        assert_eq!(node.used.load(Relaxed), 0);
    }

    #[test]
    fn cpu_time_counts_the_poll_that_runs() {
        let node = MemoryBudget::new(0);
        let mut budget = budget(&node);
        budget.cpu_limit = Duration::from_nanos(1);
        let meter = budget.meter.clone();
        assert!(
            meter
                .count(|| {
                    std::hint::black_box((0..1000).sum::<u64>());
                    budget.check_cpu()
                })
                .0
                .is_err()
        );
        assert!(meter.cpu() > Duration::ZERO);
    }

    #[test]
    fn waiting_for_a_core_is_not_counted_where_guests_take_long() {
        let meter = Arc::new(Meter::default());
        let account = MemoryAccount::new(MemoryBudget::new(0));
        let budget = Budget::new(0, 0, Duration::from_millis(20), account, meter.clone());
        std::thread::spawn(move || {
            stopwatch::measure_by_cpu_clock();
            let ((), took) = meter.count(|| {
                // As if others had the core.
                std::thread::sleep(Duration::from_millis(50));
                assert!(budget.turn().unwrap() < Duration::from_millis(50));
                assert!(budget.check_cpu().is_ok());
                while budget.check_cpu().is_ok() {}
            });
            assert!(took >= Duration::from_millis(20));
            assert_eq!(meter.cpu(), took);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn until_it_is_made_an_instance_has_another_limit() {
        let node = MemoryBudget::new(0);
        let mut budget = budget(&node).starting(Duration::from_nanos(1));
        let meter = budget.meter.clone();
        meter.add(Duration::from_millis(1), 0);
        let name = |budget: &Budget| budget.check_cpu().map_err(|error| error.name);
        assert_eq!(name(&budget), Err("start_ms"));
        budget.started();
        assert_eq!(name(&budget), Ok(()));
        meter.add(Duration::from_secs(1), 0);
        assert_eq!(name(&budget), Err("cpu_ms"));
        // The smaller one ends it.
        assert_eq!(name(&budget.starting(Duration::from_secs(2))), Err("cpu_ms"));
    }
}
