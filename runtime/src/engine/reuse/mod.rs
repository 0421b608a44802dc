//! Instances that are there before their request.
//!
//! Two reasons, kept apart by who asks. A function may say that its requests share instances
//! (`reuse`): it gives up the isolation between its own requests, never that between functions or
//! versions, for a program belongs to one version. And the node keeps a few instances ready of
//! functions that take long to start, made while nothing else runs: each still serves one request.
//!
//! | part | what it holds |
//! |---|---|
//! | this file | instances that wait: [`Waiting`] for the node, [`Stash`] for a program |
//! | [`shared`] | instances that serve several requests at once |

pub(super) mod shared;

pub(super) use shared::Shared;

use super::{instance::Instance, program::Program, residency::Resident};
use crate::host::MemoryBudget;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long an instance must take to start for one to be kept ready.
const WORTH_KEEPING_READY: Duration = Duration::from_micros(50);
/// How many of a function are kept ready.
const READY: usize = 2;
/// How long they are when nobody calls the function.
const READY_FOR: Duration = Duration::from_secs(60);

/// The instances of a node that wait.
pub(super) struct Waiting {
    /// How many may, all functions together.
    most: usize,
    count: Arc<AtomicUsize>,
    memory: Arc<MemoryBudget>,
    /// Programs that keep instances, or did.
    keepers: Mutex<Vec<Weak<Program>>>,
    /// Programs that lack a ready instance.
    lacking: Mutex<Vec<Weak<Program>>>,
    lack: Notify,
}

impl Waiting {
    /// Room for so many.
    pub(super) fn new(most: usize, memory: Arc<MemoryBudget>) -> Self {
        Self {
            most,
            count: Arc::default(),
            memory,
            keepers: Mutex::default(),
            lacking: Mutex::default(),
            lack: Notify::new(),
        }
    }

    /// How many wait now.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// An instance has served a request well. It serves another one if its function wants that.
    pub(super) fn served(&self, program: &Arc<Program>, instance: Instance) {
        let Some(reuse) = program.reuse() else {
            let is_slow = |resident: Arc<Resident>| {
                resident.fastest_start().is_some_and(|took| took >= WORTH_KEEPING_READY)
            };
            if instance.took >= WORTH_KEEPING_READY && program.resident().is_some_and(is_slow) {
                self.wish(program);
            }
            return;
        };
        let spent = instance.served >= reuse.requests;
        // It may grow as far again, and what has grown does not shrink.
        let bloated = instance.memory() > program.limits().memory_bytes / 2;
        if !spent && !bloated {
            self.keep(program, instance);
        }
    }

    /// Lets an instance wait, if there is room.
    pub(super) fn keep(&self, program: &Arc<Program>, instance: Instance) {
        let Some(counted) = self.reserve() else {
            return;
        };
        instance.store.data().rest();
        let (keep, new) = program.keep_or_new();
        if new {
            lock(&self.keepers).push(Arc::downgrade(program));
        }
        keep.stash.put(Idle { instance, since: Instant::now(), _counted: counted });
    }

    /// Room for an instance that keeps its place in the pool between requests.
    pub(super) fn reserve(&self) -> Option<Counted> {
        let taken = self.count.fetch_add(1, AcqRel);
        let counted = Counted(self.count.clone());
        (taken < self.most && self.memory.has_room()).then_some(counted)
    }

    /// Asks for a ready instance of a program.
    fn wish(&self, program: &Arc<Program>) {
        let (keep, new) = program.keep_or_new();
        if new {
            lock(&self.keepers).push(Arc::downgrade(program));
        }
        if keep.stash.len() < READY && !keep.stash.lacks.swap(true, AcqRel) {
            lock(&self.lacking).push(Arc::downgrade(program));
            self.lack.notify_one();
        }
    }

    /// Returns once some program lacks a ready instance.
    pub(super) async fn lack(&self) {
        while lock(&self.lacking).is_empty() {
            self.lack.notified().await;
        }
    }

    /// A program that lacks a ready instance.
    pub(super) fn next_lacking(&self) -> Option<Arc<Program>> {
        loop {
            let next = lock(&self.lacking).pop()?;
            if let Some(program) = next.upgrade() {
                return Some(program);
            }
        }
    }

    /// An instance of a program is ready, or could not be made.
    pub(super) fn made(&self, program: &Arc<Program>, instance: Option<Instance>) {
        let made = instance.is_some();
        if let Some(instance) = instance {
            self.keep(program, instance);
        }
        if let Some(keep) = program.keep() {
            keep.stash.lacks.store(false, Release);
        }
        if made {
            self.wish(program);
        }
    }

    /// Drops what has waited long enough.
    pub(super) fn expire(&self) {
        let keepers: Vec<Arc<Program>> = {
            let mut keepers = lock(&self.keepers);
            keepers.retain(|program| program.strong_count() > 0);
            keepers.iter().filter_map(Weak::upgrade).collect()
        };
        for program in keepers {
            let patience = program.reuse().map_or(READY_FOR, |r| Duration::from_millis(r.idle_ms));
            if let Some(keep) = program.keep() {
                // Dropped outside of the stash's lock.
                drop(keep.stash.older_than(patience));
            }
        }
    }
}

/// The instances of a program that wait.
#[derive(Default)]
pub(super) struct Stash {
    /// The one that came last is taken first: its memory is warm, and the others may expire.
    idle: Mutex<Vec<Idle>>,
    len: AtomicUsize,
    /// A ready instance was asked for.
    lacks: AtomicBool,
}

struct Idle {
    instance: Instance,
    since: Instant,
    // Last: the place in the pool is free when the count says so.
    _counted: Counted,
}

/// One instance in the node's count.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, AcqRel);
    }
}

impl Stash {
    fn len(&self) -> usize {
        self.len.load(Acquire)
    }

    fn put(&self, idle: Idle) {
        let mut waiting = lock(&self.idle);
        waiting.push(idle);
        self.len.store(waiting.len(), Relaxed);
    }

    /// An instance for a request.
    pub(super) fn take(&self) -> Option<Instance> {
        if self.len() == 0 {
            return None;
        }
        let mut waiting = lock(&self.idle);
        let taken = waiting.pop();
        self.len.store(waiting.len(), Relaxed);
        taken.map(|idle| idle.instance)
    }

    /// Drops all.
    pub(super) fn clear(&self) {
        drop(self.older_than(Duration::ZERO));
    }

    fn older_than(&self, age: Duration) -> Vec<Idle> {
        let mut waiting = lock(&self.idle);
        let old = waiting.iter().take_while(|idle| idle.since.elapsed() >= age).count();
        let rest = waiting.split_off(old);
        let old = std::mem::replace(&mut *waiting, rest);
        self.len.store(waiting.len(), Relaxed);
        old
    }
}

/// What these locks guard is lists; no panic leaves one half-made.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
