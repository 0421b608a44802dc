//! What functions used, to be billed: counted by every call, kept hour by hour.
//!
//! A call adds to [`Counters`] that its function's handle points to: no look-up, no lock, nothing
//! allocated. The [`Ledger`] knows all of them; the [`UsageKeeper`] takes what they have gathered
//! every few seconds and adds it to the rows of the hour. What was gathered since is lost with a
//! node that is killed.

use crate::{
    clock,
    storage::{
        StorageError, UsageKey, UsageQuery, UsageStore, Used,
        usage::{Hour, SumKey},
    },
};
use faas_api::{AppName, FunctionName, VersionId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Seconds of an hour.
const HOUR_S: i64 = 60 * 60;
/// How long a call's use may wait to be stored: what a node that is killed loses.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// How long usage is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageConfig {
    /// Days that hourly rows of usage are kept; 0 keeps them for ever.
    pub keep_days: u32,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self { keep_days: 400 }
    }
}

/// What one call used, once it is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    /// CPU time of the guest and its host calls.
    pub(crate) cpu: Duration,
    /// The largest linear memory it had, in bytes.
    pub(crate) memory_peak: u64,
    /// Memory times the time it was held, in MiB-nanoseconds.
    pub(crate) memory_mib_ns: u64,
    /// Requests that it sent.
    pub(crate) outbound: u64,
}

/// What the calls of one function of one version have used since it was last taken. One line of
/// the processor's cache: a call writes to no other for this.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counters {
    requests: AtomicU64,
    failures: AtomicU64,
    cpu_ns: AtomicU64,
    memory_mib_ns: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    outbound: AtomicU64,
}

impl Counters {
    /// A request has ended for which the function ran.
    pub(crate) fn request(&self, bytes_in: u64, bytes_out: u64) {
        self.requests.fetch_add(1, Relaxed);
        add(&self.bytes_in, bytes_in);
        add(&self.bytes_out, bytes_out);
    }

    /// A call failed by the function's fault.
    pub(crate) fn failure(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// A guest has ended.
    pub(crate) fn bill(&self, bill: &Bill) {
        add(&self.cpu_ns, u64::try_from(bill.cpu.as_nanos()).unwrap_or(u64::MAX));
        add(&self.memory_mib_ns, bill.memory_mib_ns);
        add(&self.outbound, bill.outbound);
    }

    fn take(&self) -> Used {
        // One by one: a call that ends now may be in part here and in part in what is taken next.
        let take = |counter: &AtomicU64| match counter.load(Relaxed) {
            0 => 0,
            _ => counter.swap(0, Relaxed),
        };
        Used {
            requests: take(&self.requests),
            failures: take(&self.failures),
            cpu_ns: take(&self.cpu_ns),
            memory_mib_ns: take(&self.memory_mib_ns),
            bytes_in: take(&self.bytes_in),
            bytes_out: take(&self.bytes_out),
            outbound: take(&self.outbound),
        }
    }
}

/// Most calls send nothing and have no body.
fn add(counter: &AtomicU64, number: u64) {
    if number > 0 {
        counter.fetch_add(number, Relaxed);
    }
}

/// The counters of every function that was called.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: Mutex<Vec<Account>>,
}

#[derive(Debug)]
struct Account {
    app: AppName,
    function: FunctionName,
    version: VersionId,
    counters: Arc<Counters>,
}

impl Ledger {
    /// Counters for a function of a version. They count for as long as somebody has them.
    pub(crate) fn open(
        &self,
        app: &AppName,
        function: &FunctionName,
        version: VersionId,
    ) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        let account = Account {
            app: app.clone(),
            function: function.clone(),
            version,
            counters: counters.clone(),
        };
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).push(account);
        counters
    }

    /// Takes what was used since the last time, and adds it to the rows of an hour.
    fn take(&self, hour: Hour, rows: &mut BTreeMap<UsageKey, Used>) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain_mut(|account| {
            // Asked first: nobody can add to what nobody else has.
            let is_over = Arc::get_mut(&mut account.counters).is_some();
            let used = account.counters.take();
            if used != Used::default() {
                let Account { app, function, version, .. } = &*account;
                let (app, function, version) = (app.clone(), function.clone(), *version);
                rows.entry(UsageKey { hour, app, function, version }).or_default().add(&used);
            }
            !is_over
        });
    }
}

/// Keeps the books: from the ledger's counters to rows in the store.
pub(crate) struct UsageKeeper {
    ledger: Arc<Ledger>,
    store: Arc<dyn UsageStore>,
    books: tokio::sync::Mutex<Books>,
}

/// What is taken and not stored.
struct Books {
    rows: BTreeMap<UsageKey, Used>,
    taken_at: Timestamp,
    is_failing: bool,
}

impl UsageKeeper {
    /// A keeper of what this ledger counts from now on.
    pub(crate) fn new(ledger: Arc<Ledger>, store: Arc<dyn UsageStore>) -> Arc<Self> {
        let books = Books { rows: BTreeMap::new(), taken_at: clock::now(), is_failing: false };
        Arc::new(Self { ledger, store, books: tokio::sync::Mutex::new(books) })
    }

    /// Stores what is counted, in time, and forgets what is too old. Never ends.
    pub(crate) async fn run(self: &Arc<Self>, config: UsageConfig) {
        let mut looked_at: Option<Hour> = None;
        loop {
            let hour = hour_of(clock::now());
            if looked_at.replace(hour) != Some(hour) {
                self.forget(hour, config.keep_days).await;
            }
            tokio::time::sleep(nap(clock::now())).await;
            self.flush().await;
        }
    }

    /// Stores what was counted up to now. What cannot be stored is tried again with what comes
    /// next; the log has why.
    pub(crate) async fn flush(self: &Arc<Self>) {
        let keeper = self.clone();
        // In a task of its own, so that a caller who gives up leaves nothing half-done.
        let flushing = tokio::spawn(async move { keeper.flush_at(clock::now()).await });
        if let Err(error) = flushing.await {
            tracing::error!(%error, "usage could not be stored");
        }
    }

    async fn flush_at(&self, now: Timestamp) {
        let mut books = self.books.lock().await;
        let hour = hour_of(counted_since(books.taken_at, now));
        self.ledger.take(hour, &mut books.rows);
        books.taken_at = now;
        if books.rows.is_empty() {
            return;
        }
        let rows = books.rows.iter().map(|(key, used)| (key.clone(), *used)).collect();
        match self.store.add(rows).await {
            Ok(()) => {
                books.rows.clear();
                books.is_failing = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut books.is_failing, true) {
                    tracing::error!(%error, "usage cannot be stored, trying again");
                }
            }
        }
    }

    /// Sums of what was used up to now; none when there would be more than the query allows.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn sum(
        self: &Arc<Self>,
        query: UsageQuery,
    ) -> Result<Option<Vec<(SumKey, Used)>>, StorageError> {
        self.flush().await;
        self.store.sum(query).await
    }

    async fn forget(&self, now: Hour, keep_days: u32) {
        if keep_days == 0 {
            return;
        }
        match self.store.forget(now - 24 * Hour::from(keep_days)).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, keep_days, "forgot usage that was kept long enough"),
            Err(error) => tracing::warn!(%error, "old usage could not be removed"),
        }
    }
}

/// The hour that a time is in.
pub(crate) fn hour_of(time: Timestamp) -> Hour {
    time.as_second().div_euclid(HOUR_S)
}

/// The beginning of an hour; the last one there is for those that no calendar has.
pub(crate) fn beginning_of(hour: Hour) -> Timestamp {
    Timestamp::from_second(hour.saturating_mul(HOUR_S)).unwrap_or(Timestamp::MAX)
}

/// How long to sleep, so that nothing waits for too long and what is taken is of one hour.
fn nap(now: Timestamp) -> Duration {
    let next_hour = beginning_of(hour_of(now) + 1);
    let left = Duration::try_from(next_hour.duration_since(now)).unwrap_or(FLUSH_EVERY);
    // Not a moment early, which would be the old hour still.
    (left + Duration::from_millis(1)).min(FLUSH_EVERY)
}

/// Since when that was counted which is taken now. Not since the last time if that is too long
/// ago: then the clock was set, or the machine slept.
fn counted_since(last: Timestamp, now: Timestamp) -> Timestamp {
    let usual = SignedDuration::try_from(FLUSH_EVERY).unwrap_or_default();
    let earliest = now.saturating_sub(usual).unwrap_or(now);
    if last > now { now } else { last.max(earliest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryUsage;
    use async_trait::async_trait;
    use faas_api::{UsageBy, UsageGroup};
    use std::sync::atomic::AtomicBool;

    fn time(text: &str) -> Timestamp {
        format!("2026-11-20T{text}Z").parse().unwrap()
    }

    fn everything(by: UsageBy) -> UsageQuery {
        UsageQuery { hours: 0..Hour::MAX, app: None, by, group: UsageGroup::Version, most: 100 }
    }

    /// A store that may refuse to store.
    #[derive(Default)]
    struct Store {
        inner: MemoryUsage,
        fails: AtomicBool,
    }

    #[async_trait]
    impl UsageStore for Store {
        async fn add(&self, rows: Vec<(UsageKey, Used)>) -> Result<(), StorageError> {
            if self.fails.load(Relaxed) {
                return Err(StorageError::Full("no room".into()));
            }
            self.inner.add(rows).await
        }
        async fn sum(
            &self,
            query: UsageQuery,
        ) -> Result<Option<Vec<(SumKey, Used)>>, StorageError> {
            self.inner.sum(query).await
        }
        async fn forget(&self, before: Hour) -> Result<u64, StorageError> {
            self.inner.forget(before).await
        }
    }

    struct Desk {
        ledger: Arc<Ledger>,
        store: Arc<Store>,
        keeper: Arc<UsageKeeper>,
    }

    impl Desk {
        fn at(now: Timestamp) -> Self {
            let (ledger, store) = (Arc::<Ledger>::default(), Arc::<Store>::default());
            let keeper = UsageKeeper::new(ledger.clone(), store.clone());
            keeper.books.try_lock().unwrap().taken_at = now;
            Self { ledger, store, keeper }
        }

        fn open(&self, version: u32) -> Arc<Counters> {
            let (app, function) = ("shop".parse().unwrap(), "api".parse().unwrap());
            self.ledger.open(&app, &function, VersionId::new(version))
        }

        /// Hour of the day, version, requests.
        async fn rows(&self) -> Vec<(Hour, u32, u64)> {
            let rows = self.store.sum(everything(UsageBy::Hour)).await.unwrap().unwrap();
            let row = |((hour, _, _, version), used): (SumKey, Used)| {
                (hour.unwrap() % 24, version.unwrap().number(), used.requests)
            };
            rows.into_iter().map(row).collect()
        }
    }

    #[tokio::test]
    async fn what_is_counted_is_stored_once() {
        let desk = Desk::at(time("11:00:00"));
        let counters = desk.open(1);
        counters.request(3, 70);
        counters.request(0, 7);
        counters.failure();
        let (cpu, memory_peak) = (Duration::from_micros(5), 1);
        counters.bill(&Bill { cpu, memory_peak, memory_mib_ns: 11, outbound: 2 });
        for _ in 0..2 {
            desk.keeper.flush_at(time("11:00:04")).await;
        }
        let rows = desk.store.sum(everything(UsageBy::Total)).await.unwrap().unwrap();
        let used = Used {
            requests: 2,
            failures: 1,
            cpu_ns: 5000,
            memory_mib_ns: 11,
            bytes_in: 3,
            bytes_out: 77,
            outbound: 2,
        };
        assert_eq!(rows.iter().map(|(_, used)| *used).collect::<Vec<_>>(), [used]);
    }

    #[tokio::test]
    async fn it_belongs_to_the_hour_in_which_it_ended() {
        let desk = Desk::at(time("11:59:55"));
        let counters = desk.open(1);
        counters.request(0, 0);
        // A moment late, as sleepers are.
        desk.keeper.flush_at(time("12:00:00.003")).await;
        counters.request(0, 0);
        desk.keeper.flush_at(time("12:00:05")).await;
        counters.request(0, 0);
        // The machine slept.
        desk.keeper.flush_at(time("15:20:00")).await;
        counters.request(0, 0);
        // The clock was set back.
        desk.keeper.flush_at(time("12:00:30")).await;
        assert_eq!(desk.rows().await, [(11, 1, 1), (12, 1, 2), (15, 1, 1)]);
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_kept_with_its_hour() {
        let desk = Desk::at(time("11:59:55"));
        let counters = desk.open(1);
        desk.store.fails.store(true, Relaxed);
        for now in ["11:59:59", "12:00:04"] {
            counters.request(0, 0);
            desk.keeper.flush_at(time(now)).await;
        }
        assert_eq!(desk.rows().await, []);
        desk.store.fails.store(false, Relaxed);
        counters.request(0, 0);
        desk.keeper.flush_at(time("12:00:09")).await;
        assert_eq!(desk.rows().await, [(11, 1, 2), (12, 1, 1)]);
    }

    #[tokio::test]
    async fn counters_that_nobody_has_are_counted_to_their_end() {
        let desk = Desk::at(time("11:00:00"));
        let (old, new) = (desk.open(1), desk.open(2));
        // The same version may be there twice: its app was deleted and deployed again.
        let again = desk.open(1);
        for counters in [&old, &new, &again] {
            counters.request(0, 0);
        }
        drop((old, again));
        desk.keeper.flush_at(time("11:00:01")).await;
        assert_eq!(desk.ledger.accounts.lock().unwrap().len(), 1);
        new.request(0, 0);
        desk.keeper.flush_at(time("11:00:02")).await;
        assert_eq!(desk.rows().await, [(11, 1, 2), (11, 2, 2)]);
    }

    #[test]
    fn every_call_of_many_threads_counts() {
        let ledger = Ledger::default();
        let counters = ledger.open(&"a".parse().unwrap(), &"b".parse().unwrap(), VersionId::new(1));
        let mut rows = BTreeMap::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.request(1, 2)));
            }
            while rows.values().map(|used: &Used| used.requests).sum::<u64>() < 20_000 {
                ledger.take(1, &mut rows);
            }
        });
        ledger.take(1, &mut rows);
        let used = rows.into_values().next().unwrap();
        assert_eq!((used.requests, used.bytes_in, used.bytes_out), (40_000, 40_000, 80_000));
    }

    #[tokio::test]
    async fn only_what_is_old_is_forgotten() {
        let desk = Desk::at(time("00:00:00"));
        let counters = desk.open(1);
        for now in ["00:00:30", "11:00:30", "12:00:30"] {
            counters.request(0, 0);
            desk.keeper.flush_at(time(now)).await;
        }
        let tomorrow = hour_of(time("12:30:00")) + 24;
        desk.keeper.forget(tomorrow, 0).await;
        assert_eq!(desk.rows().await.len(), 3);
        desk.keeper.forget(tomorrow, 1).await;
        assert_eq!(desk.rows().await, [(12, 1, 1)]);
    }

    #[test]
    fn naps_end_with_the_hour() {
        for (now, ms) in [
            ("11:00:00", 5_000),
            ("11:59:54", 5_000),
            ("11:59:57", 3_001),
            ("11:59:59.999", 2),
            ("12:00:00", 5_000),
        ] {
            assert_eq!(nap(time(now)), Duration::from_millis(ms), "{now}");
        }
        assert_eq!(beginning_of(hour_of(time("11:59:59"))), time("11:00:00"));
        assert_eq!(beginning_of(Hour::MAX), Timestamp::MAX);
    }
}
