//! Who gets a place in the pool, and who waits for one.
//!
//! An app may hold a multiple of what is free at that moment, and no more: alone it gets nearly the
//! whole pool, several get equal parts, and a few places are always left for whoever holds none
//! (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). Nothing
//! has to know how many apps are active, and a request that finds room costs three atomic operations.
//!
//! Who waits stands in the line of its app. A place that comes free goes to the app that holds the
//! fewest; when the lines are full, the longest one loses its last.

use super::{InvokeError, config::EngineConfig, pool::PoolPlan};
use crate::host::{MemoryAccount, MemoryBudget, Pressure};
use dashmap::{DashMap, Entry};
use faas_api::AppName;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// The most places that are left for apps that hold none, however large the pool.
const RESERVE: u32 = 32;
/// A pool smaller than this has none to leave.
const SMALL_POOL: u32 = 16;

/// The places of the pool.
pub(super) struct Admission {
    places: u32,
    /// An app may hold so many times what is free.
    factor: u64,
    /// The most that one app may hold.
    most_of_an_app: u32,
    free: AtomicU32,
    /// How many requests wait, in all lines.
    queued: AtomicUsize,
    lines: Mutex<Vec<Line>>,
    tickets: AtomicU64,
    /// How many requests may wait.
    longest: usize,
    /// How long one waits.
    patience: Duration,
    memory: Arc<MemoryBudget>,
    shares: DashMap<AppName, Weak<Share>>,
}

/// What one app holds of the node.
pub(super) struct Share {
    admission: Arc<Admission>,
    held: AtomicU32,
    memory: Arc<MemoryAccount>,
}

/// A place in the pool. It is free again when this is dropped.
pub(super) struct Place {
    share: Arc<Share>,
    weight: u32,
}

/// The requests of one app that wait.
struct Line {
    share: Arc<Share>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    weight: u32,
    place: oneshot::Sender<Place>,
}

/// A request in line. It leaves the line when this is dropped.
struct Ticket<'a> {
    admission: &'a Admission,
    number: u64,
}

impl Admission {
    /// All places of a pool, free.
    pub(super) fn new(config: &EngineConfig, plan: &PoolPlan, memory: Arc<MemoryBudget>) -> Self {
        let places = plan.instances;
        let reserve = (places / SMALL_POOL).min(RESERVE);
        let factor = match reserve {
            0 => u64::MAX,
            // Where an app alone stops, exactly the reserve is free.
            reserve => u64::from(places / reserve).saturating_sub(1).max(1),
        };
        Self {
            places,
            factor,
            most_of_an_app: match config.app_instances {
                0 => places,
                most => most.min(places),
            },
            free: AtomicU32::new(places),
            queued: AtomicUsize::new(0),
            lines: Mutex::default(),
            tickets: AtomicU64::new(0),
            longest: config.queue,
            patience: Duration::from_millis(config.queue_timeout_ms),
            memory,
            shares: DashMap::new(),
        }
    }

    /// What an app holds, the same for all its versions and functions.
    pub(super) fn share(self: &Arc<Self>, app: &AppName) -> Arc<Share> {
        let new = || {
            Arc::new(Share {
                admission: self.clone(),
                held: AtomicU32::new(0),
                memory: MemoryAccount::new(self.memory.clone()),
            })
        };
        match self.shares.entry(app.clone()) {
            Entry::Occupied(mut known) => known.get().upgrade().unwrap_or_else(|| {
                let share = new();
                known.insert(Arc::downgrade(&share));
                share
            }),
            Entry::Vacant(unknown) => {
                let share = new();
                unknown.insert(Arc::downgrade(&share));
                share
            }
        }
    }

    /// Forgets apps that are gone.
    pub(super) fn forget_gone(&self) {
        self.shares.retain(|_, share| share.strong_count() > 0);
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.places.saturating_sub(self.free.load(Relaxed)) as usize
    }

    /// Whether an app that holds so much may take more of what is free. When memory is scarce each has
    /// one: what they free is all that helps.
    fn allows(&self, held: u32, free: u32, weight: u32) -> bool {
        free >= weight
            && (held == 0 || self.memory.pressure() == Pressure::None)
            && held.saturating_add(weight) <= self.most_of_an_app.max(weight)
            && u64::from(held) < self.factor.saturating_mul(free.into())
    }

    /// Gives places to those who wait, for as long as there are some.
    fn serve(&self) {
        let mut unclaimed = Vec::new();
        let mut lines = self.lock();
        while let Some(place) = self.serve_one(&mut lines) {
            unclaimed.extend(place);
        }
        drop(lines);
        // Outside of the lock: a place that comes back is given out again.
        drop(unclaimed);
    }

    /// Serves the first in the line of the app that holds the fewest. Returns the place when whoever
    /// waited for it has just left; none at all when nobody can be served.
    fn serve_one(&self, lines: &mut Vec<Line>) -> Option<Option<Place>> {
        let free = self.free.load(SeqCst);
        let servable = lines.iter().enumerate().filter_map(|(index, line)| {
            let held = line.share.held.load(Relaxed);
            let weight = line.waiting.front()?.weight;
            self.allows(held, free, weight).then_some((held, index))
        });
        let (_, index) = servable.min()?;
        let line = lines.get_mut(index)?;
        let place = line.share.try_take(line.waiting.front()?.weight)?;
        let first = line.waiting.pop_front()?;
        if line.waiting.is_empty() {
            lines.swap_remove(index);
        }
        self.queued.fetch_sub(1, SeqCst);
        Some(first.place.send(place).err())
    }

    /// Makes room in the lines for one more of an app, at the cost of the longest.
    fn make_room(&self, lines: &mut [Line], share: &Arc<Share>) -> bool {
        if self.queued.load(SeqCst) < self.longest {
            return true;
        }
        let mine = lines.iter().find(|line| Arc::ptr_eq(&line.share, share));
        let mine = mine.map_or(0, |line| line.waiting.len());
        let longest = lines.iter_mut().max_by_key(|line| line.waiting.len());
        match longest {
            Some(line) if line.waiting.len() > mine + 1 => {
                // Dropping its end tells it.
                drop(line.waiting.pop_back());
                self.queued.fetch_sub(1, SeqCst);
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// The memory that the app's instances use.
    pub(super) fn memory(&self) -> &Arc<MemoryAccount> {
        &self.memory
    }

    /// A place, if the app may have one now. An instance that needs the memories of several
    /// takes several.
    pub(super) fn try_take(self: &Arc<Self>, weight: u32) -> Option<Place> {
        let admission = &*self.admission;
        let weight = weight.clamp(1, admission.places.max(1));
        // Counted first: of two that come at once only one may be the last.
        let held = self.held.fetch_add(weight, SeqCst);
        let taken = admission.free.fetch_update(SeqCst, SeqCst, |free| {
            admission.allows(held, free, weight).then(|| free - weight)
        });
        if taken.is_err() {
            self.held.fetch_sub(weight, SeqCst);
            return None;
        }
        Some(Place { share: self.clone(), weight })
    }

    /// A place, after waiting for one. Boxed: requests that find room do not carry what waiting needs.
    ///
    /// # Errors
    /// When too many wait already, or none came free in time.
    pub(super) fn wait(
        self: &Arc<Self>,
        weight: u32,
    ) -> Pin<Box<dyn Future<Output = Result<Place, InvokeError>> + Send + '_>> {
        Box::pin(async move {
            let admission = &*self.admission;
            let weight = weight.clamp(1, admission.places.max(1));
            let (sender, place) = oneshot::channel();
            let Some(ticket) = self.line_up(weight, sender) else {
                return Err(self.refusal());
            };
            // There may have come one free before the line knew of this request.
            admission.serve();
            let waited = tokio::time::timeout(admission.patience, place).await;
            drop(ticket);
            waited.ok().and_then(Result::ok).ok_or_else(|| self.refusal())
        })
    }

    fn line_up(self: &Arc<Self>, weight: u32, place: oneshot::Sender<Place>) -> Option<Ticket<'_>> {
        let admission = &*self.admission;
        let mut lines = admission.lock();
        if !admission.make_room(&mut lines, self) {
            return None;
        }
        let ticket = admission.tickets.fetch_add(1, Relaxed);
        let waiting = Waiting { ticket, weight, place };
        match lines.iter_mut().find(|line| Arc::ptr_eq(&line.share, self)) {
            Some(line) => line.waiting.push_back(waiting),
            None => lines.push(Line { share: self.clone(), waiting: VecDeque::from([waiting]) }),
        }
        admission.queued.fetch_add(1, SeqCst);
        Some(Ticket { admission, number: ticket })
    }

    /// Why there is no place.
    fn refusal(&self) -> InvokeError {
        let admission = &*self.admission;
        let held = self.held.load(Relaxed);
        if held >= admission.most_of_an_app && admission.most_of_an_app < admission.places {
            return InvokeError::AppConcurrency { limit: admission.most_of_an_app };
        }
        InvokeError::Overloaded {
            pool_size: admission.places,
            held,
            queued: admission.queued.load(Relaxed),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let admission = &*self.share.admission;
        self.share.held.fetch_sub(self.weight, SeqCst);
        admission.free.fetch_add(self.weight, SeqCst);
        if admission.queued.load(SeqCst) > 0 {
            admission.serve();
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut lines = self.admission.lock();
        let place = lines.iter().enumerate().find_map(|(index, line)| {
            let is_it = |waiting: &Waiting| waiting.ticket == self.number;
            Some((index, line.waiting.iter().position(is_it)?))
        });
        let Some((index, position)) = place else {
            return;
        };
        if let Some(line) = lines.get_mut(index) {
            line.waiting.remove(position);
            if line.waiting.is_empty() {
                lines.swap_remove(index);
            }
            self.admission.queued.fetch_sub(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::config::Limits, engine::config::Maxima};

    fn pool(places: u32, queue: usize) -> Arc<Admission> {
        let config = EngineConfig {
            pool_size: places,
            queue,
            queue_timeout_ms: 60_000,
            ..EngineConfig::default()
        };
        let plan = PoolPlan::for_this_machine(&config, &Limits::default(), &Maxima::default(), 0);
        let plan = PoolPlan { instances: places, ..plan };
        Arc::new(Admission::new(&config, &plan, MemoryBudget::new(1 << 30)))
    }

    fn app(admission: &Arc<Admission>, name: &str) -> Arc<Share> {
        admission.share(&name.parse().unwrap())
    }

    fn take_all(share: &Arc<Share>) -> Vec<Place> {
        std::iter::from_fn(|| share.try_take(1)).collect()
    }

    #[test]
    fn an_app_alone_leaves_a_few_places() {
        for (places, alone) in [(1, 1), (2, 2), (15, 15), (16, 15), (64, 60), (2047, 2015)] {
            let admission = pool(places, 8);
            let greedy = take_all(&app(&admission, "greedy"));
            assert_eq!(greedy.len(), alone, "of {places}");
            // An app that holds none gets what is left, and others after it.
            let left = places as usize - alone;
            let (second, third) = (app(&admission, "second"), app(&admission, "third"));
            let taken: Vec<_> = [&second, &third].iter().map(|app| app.try_take(1)).collect();
            assert_eq!(taken.iter().flatten().count(), left.min(2));
            drop((taken, greedy));
            assert_eq!(admission.taken(), 0);
        }
    }

    #[test]
    fn greedy_apps_end_with_equal_parts() {
        let admission = pool(1024, 8);
        let apps = ["a", "b", "c", "d"].map(|name| app(&admission, name));
        let mut held: Vec<Place> = Vec::new();
        loop {
            let round: Vec<Place> = apps.iter().filter_map(|app| app.try_take(1)).collect();
            if round.is_empty() {
                break;
            }
            held.extend(round);
        }
        let parts = apps.map(|app| app.held.load(Relaxed));
        assert!(parts.iter().all(|part| (250..=256).contains(part)), "{parts:?}");
        assert!(admission.taken() < 1024);
    }

    #[tokio::test]
    async fn a_place_goes_to_who_holds_the_fewest() {
        let admission = pool(4, 8);
        let (greedy, modest) = (app(&admission, "greedy"), app(&admission, "modest"));
        let mut held = take_all(&greedy);
        assert_eq!(held.len(), 4);
        let waits = |share: &Arc<Share>| {
            let share = share.clone();
            tokio::spawn(async move { share.wait(1).await })
        };
        let in_line = async |count| {
            while admission.queued.load(SeqCst) < count {
                tokio::task::yield_now().await;
            }
        };
        let first = waits(&greedy);
        in_line(1).await;
        let second = waits(&modest);
        in_line(2).await;
        held.pop();
        let place = second.await.unwrap().ok().unwrap();
        assert!(!first.is_finished());
        drop(place);
        first.await.unwrap().ok().unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_costs_the_longest_line() {
        let admission = pool(2, 3);
        let (greedy, modest) = (app(&admission, "greedy"), app(&admission, "modest"));
        let held = take_all(&greedy);
        let lines: Vec<_> = (0..3)
            .map(|_| {
                let greedy = greedy.clone();
                tokio::spawn(async move { greedy.wait(1).await.map(drop) })
            })
            .collect();
        while admission.queued.load(SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(greedy.wait(1).await.is_err(), "its line is the longest already");
        let modest = tokio::spawn(async move { modest.wait(1).await.map(drop) });
        let last = async {
            while !lines.iter().any(|line| line.is_finished()) {
                tokio::task::yield_now().await;
            }
        };
        last.await;
        drop(held);
        assert!(modest.await.unwrap().is_ok());
        let mut served = 0;
        for line in lines {
            served += usize::from(line.await.unwrap().is_ok());
        }
        assert_eq!(served, 2);
        assert_eq!((admission.taken(), admission.queued.load(SeqCst)), (0, 0));
    }

    #[tokio::test]
    async fn whoever_leaves_is_out_of_the_line() {
        let admission = pool(1, 2);
        let share = app(&admission, "a");
        let held = share.try_take(1).unwrap();
        for _ in 0..10 {
            let waits = share.wait(1);
            assert!(tokio::time::timeout(Duration::from_millis(1), waits).await.is_err());
        }
        assert_eq!(admission.queued.load(SeqCst), 0);
        drop(held);
        assert!(share.try_take(1).is_some());
    }

    #[test]
    fn an_instance_with_many_memories_takes_many_places() {
        let admission = pool(8, 2);
        let share = app(&admission, "wide");
        let wide = share.try_take(6).unwrap();
        assert!(share.try_take(3).is_none());
        drop(wide);
        // One that needs more than there is runs alone.
        let alone = share.try_take(100).unwrap();
        assert!(share.try_take(1).is_none());
        drop(alone);
        assert_eq!(admission.taken(), 0);
    }
}
