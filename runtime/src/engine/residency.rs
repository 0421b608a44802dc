//! Which programs' native code is in memory.
//!
//! Code is loaded by a function's first request and stays until others need the room: each loaded
//! function takes address space, memory maps, a file descriptor and some memory of the engine's
//! own. What goes is what was not called for the longest time, a tenth at once, so that a node
//! that is touched all over does not look for a victim at every load.

use super::{prepared::Prepared, program::Program};
use prometheus::IntGauge;
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What the engine keeps for a loaded function besides its mapped file, as a share of the file:
/// types, names and tables, measured with components of a few hundred kilobytes.
const RECORDS_SHARE: u64 = 2;

/// How much may be in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Functions.
    pub(crate) functions: usize,
    /// Bytes of native code with what belongs to it.
    pub(crate) bytes: u64,
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} functions, {} MiB", self.functions, self.bytes >> 20)
    }
}

/// A program's native code, loaded and linked.
pub(super) struct Resident {
    /// What is called.
    pub(super) prepared: Prepared,
    /// How many places an instance of it takes in the pool.
    pub(super) places: u32,
    bytes: u64,
    /// The number of loads there had been when it was last called.
    used: AtomicU64,
    /// The fastest start of an instance, in microseconds, but for the first one, which finds
    /// nothing in memory.
    fastest_start: AtomicU32,
    started: AtomicBool,
    gauge: IntGauge,
}

impl Resident {
    /// An instance was made in so much time.
    pub(super) fn started(&self, took: Duration) {
        if self.started.load(Relaxed) {
            let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            if took < self.fastest_start.load(Relaxed) {
                self.fastest_start.fetch_min(took, Relaxed);
            }
        } else {
            self.started.store(true, Relaxed);
        }
    }

    /// How long making an instance takes at best, where that is known.
    pub(super) fn fastest_start(&self) -> Option<Duration> {
        let fastest = self.fastest_start.load(Relaxed);
        (fastest < u32::MAX).then(|| Duration::from_micros(fastest.into()))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// The programs whose native code is in memory.
pub(super) struct Residency {
    capacity: Capacity,
    /// How many loads there were: the clock by which age is told. Unlike a clock of time it costs
    /// a request one look, and it stands still while nothing has to go.
    loads: AtomicU64,
    loaded: Mutex<Loaded>,
    gauge: IntGauge,
}

/// The list, with its sum. Both may count programs that are gone by now, until the next look.
#[derive(Default)]
struct Loaded {
    programs: Vec<Weak<Program>>,
    bytes: u64,
}

impl Residency {
    /// Room for so much; `gauge` counts what is there.
    pub(super) fn new(capacity: Capacity, gauge: IntGauge) -> Self {
        Self { capacity, loads: AtomicU64::new(0), loaded: Mutex::default(), gauge }
    }

    /// Marks code as used now.
    pub(super) fn touch(&self, resident: &Resident) {
        let now = self.loads.load(Relaxed);
        if resident.used.load(Relaxed) != now {
            resident.used.store(now, Relaxed);
        }
    }

    /// Puts a program's code in place, and takes away what there is no room for. The caller holds
    /// the program's loading lock. Blocks while memory is unmapped.
    pub(super) fn admit(&self, program: &Arc<Program>, prepared: Prepared) -> Arc<Resident> {
        let file = prepared.image_bytes();
        self.gauge.inc();
        let resident = Arc::new(Resident {
            places: prepared.places(),
            prepared,
            bytes: file + file / RECORDS_SHARE,
            used: AtomicU64::new(self.loads.fetch_add(1, Relaxed) + 1),
            fastest_start: AtomicU32::new(u32::MAX),
            started: AtomicBool::new(false),
            gauge: self.gauge.clone(),
        });
        program.set_resident(Some(resident.clone()));
        let gone = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.programs.push(Arc::downgrade(program));
            loaded.bytes += resident.bytes;
            loaded.surplus(&self.capacity)
        };
        for program in gone {
            program.set_resident(None);
        }
        resident
    }

    /// Gives the code of a program to the one that takes its place.
    pub(super) fn hand_over(&self, from: &Arc<Program>, to: &Arc<Program>) {
        let Some(resident) = from.resident() else {
            return;
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut programs = loaded.programs.iter_mut();
        // Not in the list any more: it has just been told to let go.
        if let Some(place) = programs.find(|known| known.as_ptr() == Arc::as_ptr(from)) {
            to.set_resident(Some(resident));
            *place = Arc::downgrade(to);
        }
    }

    /// Takes all code away: it is for an engine that is no longer used.
    pub(super) fn clear(&self) {
        let loaded =
            std::mem::take(&mut *self.loaded.lock().unwrap_or_else(PoisonError::into_inner));
        for program in loaded.programs.iter().filter_map(Weak::upgrade) {
            program.drop_kept();
            program.set_resident(None);
        }
    }
}

impl Loaded {
    /// Takes out of the list what has to go, oldest use first.
    fn surplus(&mut self, capacity: &Capacity) -> Vec<Arc<Program>> {
        if self.programs.len() <= capacity.functions && self.bytes <= capacity.bytes {
            return Vec::new();
        }
        let loaded = self.programs.iter().filter_map(Weak::upgrade).filter_map(|program| {
            let resident = program.resident()?;
            Some((resident.used.load(Relaxed), resident.bytes, program))
        });
        let mut loaded: Vec<(u64, u64, Arc<Program>)> = loaded.collect();
        let bytes: u64 = loaded.iter().map(|(_, bytes, _)| bytes).sum();
        let fits = loaded.len() <= capacity.functions && bytes <= capacity.bytes;
        loaded.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let room = Capacity {
            functions: capacity.functions - capacity.functions / 10,
            bytes: capacity.bytes - capacity.bytes / 10,
        };
        let mut sum = 0;
        let stays = loaded.iter().enumerate().take_while(|(index, (_, bytes, _))| {
            sum += bytes;
            // The newest stays, however large it is: somebody is about to call it.
            fits || *index == 0 || *index < room.functions && sum <= room.bytes
        });
        let stays = stays.count();
        let gone = loaded.split_off(stays).into_iter().map(|(_, _, program)| program).collect();
        self.bytes = loaded.iter().map(|(_, bytes, _)| bytes).sum();
        self.programs = loaded.iter().map(|(_, _, program)| Arc::downgrade(program)).collect();
        gone
    }
}
