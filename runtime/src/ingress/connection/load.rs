//! What the node holds for clients that are slow: halves of heads, room to read into, answers that
//! nobody takes.
//!
//! Every connection counts what it holds. Beyond what each may have anyway it tells the sum of all,
//! in large steps, so that requests of clients that are not slow touch nothing that threads share.
//! Memory of calls is not counted here: their number is bounded by the pool of instances.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicIsize, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
};
use tokio::sync::Notify;

/// What a connection may hold and not count.
const FREE: usize = 16 << 10;
/// What it may hold of answers, in bytes, when all together hold too much,
const MOST: usize = 512 << 10;
/// and when they hold so much more that those who shall go cannot keep up with those who come.
const FEW: usize = 64 << 10;
/// The steps in which it tells more.
const STEP: usize = 16 << 10;

/// What all connections hold together beyond what each may, and how much that may be.
#[derive(Debug)]
pub(in crate::ingress) struct Burden {
    /// Below zero for a moment, where what a thread takes away is told before what another adds.
    held: AtomicIsize,
    limit: isize,
    exceeded: Notify,
}

impl Burden {
    /// `limit` in bytes.
    pub(in crate::ingress) fn new(limit: usize) -> Arc<Self> {
        let limit = isize::try_from(limit).unwrap_or(isize::MAX);
        Arc::new(Self { held: AtomicIsize::new(0), limit, exceeded: Notify::new() })
    }

    /// Waits until more is held than may be.
    pub(in crate::ingress) async fn exceeded(&self) {
        self.exceeded.notified().await;
    }

    /// How many quarters of what may be held are held.
    fn quarters(&self) -> isize {
        self.held.load(Acquire) / (self.limit / 4).max(1)
    }

    /// How many bytes have to go, so that there is some room again; 0 while the limit is kept.
    pub(in crate::ingress) fn excess(&self) -> usize {
        self.excess_of(self.held.load(Acquire))
    }

    /// The same, if so many bytes were held.
    pub(in crate::ingress) fn excess_of(&self, held: isize) -> usize {
        match held > self.limit {
            true => usize::try_from(held - self.limit / 8 * 7).unwrap_or(0),
            false => 0,
        }
    }

    fn change(&self, from: usize, to: usize) {
        let more = to.cast_signed().wrapping_sub(from.cast_signed());
        let held = self.held.fetch_add(more, AcqRel).wrapping_add(more);
        if more > 0 && held > self.limit {
            self.exceeded.notify_one();
        }
    }
}

/// What one connection holds.
pub(super) struct Load {
    burden: Arc<Burden>,
    /// For reading, in bytes.
    room: AtomicUsize,
    /// Of streams that have no answer yet, in bytes.
    streams: AtomicUsize,
    /// Of answers, in bytes.
    answers: AtomicUsize,
    /// What the sum of all knows of.
    told: AtomicUsize,
    /// The connection's milliseconds since when there is too much and none of it goes.
    since: AtomicU64,
}

impl Load {
    pub(super) fn new(burden: Arc<Burden>) -> Self {
        Self {
            burden,
            room: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            since: AtomicU64::new(0),
        }
    }

    /// This much is there to read into, or was read and is not complete. Whether it has become more.
    pub(super) fn keeps(&self, bytes: usize, now_ms: impl Fn() -> u64) -> bool {
        // It is nearly always what it was.
        let before = self.room.load(Relaxed);
        if before != bytes {
            self.room.store(bytes, Relaxed);
            self.tell(now_ms);
        }
        before < bytes
    }

    /// A stream has begun, which takes so many bytes.
    pub(super) fn begins(&self, bytes: usize, now_ms: impl Fn() -> u64) {
        self.streams.fetch_add(bytes, AcqRel);
        self.tell(now_ms);
    }

    /// It ended without an answer.
    pub(super) fn breaks_off(&self, bytes: usize, now_ms: impl Fn() -> u64) {
        self.streams.fetch_sub(bytes, AcqRel);
        self.tell(now_ms);
    }

    /// In place of what one has taken so far, so many bytes of an answer wait for the client.
    pub(super) fn answers(&self, asked: usize, bytes: usize, now_ms: impl Fn() -> u64) {
        self.answers.fetch_add(bytes, AcqRel);
        self.streams.fetch_sub(asked, AcqRel);
        self.tell(now_ms);
    }

    /// So many bytes of an answer wait for the client.
    pub(super) fn owes(&self, bytes: usize, now_ms: impl Fn() -> u64) {
        self.answers.fetch_add(bytes, AcqRel);
        self.tell(now_ms);
    }

    /// They do no more.
    pub(super) fn paid(&self, bytes: usize, now_ms: impl Fn() -> u64) {
        self.answers.fetch_sub(bytes, AcqRel);
        if self.told.load(Relaxed) > 0 {
            self.since.store(now_ms(), Relaxed);
        }
        self.tell(now_ms);
    }

    /// Tells the sum of all. Streams do so from several threads: whatever order they come in, the
    /// sum is that of what was told.
    fn tell(&self, now_ms: impl Fn() -> u64) {
        let answers = self.answers.load(Acquire);
        let held = self.room.load(Relaxed) + self.streams.load(Acquire) + answers;
        let due = held.saturating_sub(FREE).next_multiple_of(STEP);
        if due == self.told.load(Relaxed) {
            return;
        }
        let before = self.told.swap(due, AcqRel);
        if before == 0 {
            self.since.store(now_ms(), Relaxed);
        }
        self.burden.change(before, due);
    }

    /// Whether this one alone holds so much that it is not compared with others, while all together hold
    /// too much: thousands of clients may come before somebody has looked at all of them. Calls that are
    /// under way are no fault of the client's, and count last.
    pub(super) fn is_too_much(&self) -> bool {
        let (room, answers) = (self.room.load(Relaxed), self.answers.load(Acquire));
        match self.burden.quarters() {
            ..4 => false,
            4 => answers > MOST,
            5..8 => room > FREE || answers > FEW,
            8.. => room > FREE || answers + self.streams.load(Acquire) > FEW,
        }
    }

    /// What the sum of all knows of.
    pub(super) fn told(&self) -> usize {
        self.told.load(Acquire)
    }

    /// The connection's milliseconds since when nothing of that has gone.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.burden.change(*self.told.get_mut(), 0);
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Load").field(&self.told).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_loads_are_nobodys_business() {
        let burden = Burden::new(100 << 10);
        let load = Load::new(burden.clone());
        load.keeps(8 << 10, || 0);
        load.owes(8 << 10, || 0);
        assert_eq!(burden.held.load(Relaxed), 0);
        load.owes(1, || 5);
        assert_eq!(
            (burden.held.load(Relaxed), load.told(), load.since()),
            (STEP.cast_signed(), STEP, 5)
        );
        load.paid(1, || 9);
        assert_eq!((burden.held.load(Relaxed), load.told(), load.since()), (0, 0, 9));
    }

    #[tokio::test]
    async fn too_much_is_noticed_and_goes_with_the_connection() {
        let burden = Burden::new(100 << 10);
        let (one, other) = (Load::new(burden.clone()), Load::new(burden.clone()));
        one.keeps(96 << 10, || 0);
        assert_eq!(burden.excess(), 0);
        other.owes(64 << 10, || 0);
        burden.exceeded().await;
        assert!(burden.excess() > 28 << 10);
        drop(one);
        assert_eq!(burden.excess(), 0);
        drop(other);
        assert_eq!(burden.held.load(Relaxed), 0);
    }

    #[test]
    fn whoever_comes_when_far_too_much_is_held_goes_again() {
        let burden = Burden::new(100 << 10);
        let (one, other) = (Load::new(burden.clone()), Load::new(burden.clone()));
        one.keeps(112 << 10, || 0);
        assert!(!one.is_too_much());
        other.begins(90 << 10, || 0);
        assert!(one.is_too_much());
        assert!(!other.is_too_much());
        other.answers(65 << 10, 65 << 10, || 0);
        assert!(other.is_too_much());
        other.breaks_off(25 << 10, || 0);
        drop(one);
        assert!(!other.is_too_much());
        let third = Load::new(burden.clone());
        third.begins(200 << 10, || 0);
        assert!(third.is_too_much());
    }

    #[test]
    fn threads_agree_on_the_sum() {
        let burden = Burden::new(1 << 30);
        let load = Load::new(burden.clone());
        std::thread::scope(|scope| {
            for size in 1..=4_usize {
                let load = &load;
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        load.owes(size << 14, || 0);
                        load.paid(size << 14, || 0);
                    }
                });
            }
        });
        assert_eq!(burden.held.load(Relaxed), load.told().cast_signed());
        load.keeps(1, || 0);
        assert_eq!(burden.held.load(Relaxed), 0);
    }
}
