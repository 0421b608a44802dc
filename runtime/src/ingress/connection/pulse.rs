//! What a connection is doing and since when, so that one timer can keep all of its deadlines.
//!
//! The reader, the writer and the service note what happens with plain atomic stores; the watch
//! looks at the notes when its timer fires. So a request arms no timer and cancels none.

use super::{
    leave::{Leave, Worth},
    load::{Burden, Load},
};
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// A connection that is younger has not been silent, however few bytes it has sent; nor has one
/// that waits for a shorter time to be read.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// How patient the node is with a client.
#[derive(Debug, Clone, Copy)]
pub(in crate::ingress) struct Patience {
    /// How long a new connection may stay silent.
    pub(in crate::ingress) first_byte: Duration,
    /// From the first byte of a request's head to its end.
    pub(in crate::ingress) head: Duration,
    /// Between two pieces of a request's body.
    pub(in crate::ingress) body_idle: Duration,
    /// How long a client may leave an answer unread.
    pub(in crate::ingress) write_idle: Duration,
    /// How long a connection may stay open without a request.
    pub(in crate::ingress) keep_alive: Duration,
    /// How long a client gets to take note that the connection closes.
    pub(in crate::ingress) closing: Duration,
    /// How long a connection may stay open without a request when the node drains: another request
    /// on it is answered, with the word that it was the last.
    pub(in crate::ingress) farewell: Duration,
}

impl Patience {
    /// No deadline can be nearer than this when it starts. A timer that fires this often sees
    /// each of them in time, whichever starts in between.
    fn shortest(&self) -> Duration {
        self.head.min(self.write_idle).min(self.keep_alive).min(self.closing)
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is in flight.
    Idle,
    /// A head has begun and has not ended.
    Head,
    /// A request is in flight.
    Busy,
    /// It was told to close and has not done so.
    Closing,
}

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Idle for too long.
    Idle,
    /// A head took too long.
    Head,
    /// The client does not read its answer.
    Write,
    /// The client does not close its end.
    Closing,
}

/// No request was handed to the service yet.
const FRAMING_UNKNOWN: u64 = u64::MAX;
/// The request's body is chunked.
const FRAMING_CHUNKED: u64 = u64::MAX - 1;

/// How the body of a request is framed, as hyper understood it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes, possibly none.
    Length(u64),
    /// RFC 9112 §7.1.
    Chunked,
}

/// The notes.
#[derive(Debug)]
pub(in crate::ingress) struct Pulse {
    start: Instant,
    /// The phase in the low two bits; above them the milliseconds after `start` it began at.
    phase: AtomicU64,
    /// Milliseconds after `start`, plus one, at which a write began to wait; 0 when none does.
    blocked: AtomicU64,
    framing: AtomicU64,
    /// HTTP/2 streams at work.
    streams: AtomicU32,
    draining: AtomicBool,
    eof: AtomicBool,
    unread: AtomicBool,
    /// The end of an answer may be nothing but the end of the connection.
    close_delimited: AtomicBool,
    /// A whole head has come at least once.
    asked: AtomicBool,
    /// It shall make room: a [`Leave`] plus one, or 0.
    leave: AtomicU8,
    leaving: Notify,
    /// It holds too much, and nobody had to find out.
    leaves_by_itself: AtomicBool,
    load: Load,
    /// Bytes of answers that hyper has taken and not written; HTTP/1 only.
    unwritten: AtomicUsize,
}

impl Pulse {
    /// The notes of a new connection. What it holds is part of `burden`.
    pub(in crate::ingress) fn new(burden: Arc<Burden>) -> Self {
        Self {
            start: Instant::now(),
            phase: AtomicU64::new(Phase::Idle as u64),
            blocked: AtomicU64::new(0),
            framing: AtomicU64::new(FRAMING_UNKNOWN),
            streams: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            eof: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            close_delimited: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            leave: AtomicU8::new(0),
            leaving: Notify::new(),
            leaves_by_itself: AtomicBool::new(false),
            load: Load::new(burden),
            unwritten: AtomicUsize::new(0),
        }
    }

    /// A whole head has come.
    pub(super) fn asks(&self) {
        if !self.asked.load(Relaxed) {
            self.asked.store(true, Release);
        }
    }

    /// Whether a whole head has ever come.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.load(Acquire)
    }

    /// Asks the connection to make room.
    pub(in crate::ingress) fn ask_to_leave(&self, leave: Leave) {
        self.leave.store(leave as u8 + 1, Release);
        self.leaving.notify_one();
    }

    /// Waits until the connection shall make room and there is nothing against it: at once, or with a
    /// goodbye.
    pub(super) async fn shall_leave(&self) -> Leave {
        loop {
            match Leave::of(self.leave.load(Acquire)) {
                Some(Leave::Now) => return Leave::Now,
                Some(Leave::UnlessAsked) if !self.has_asked() => return Leave::Now,
                Some(_) if self.is_idle() => return Leave::IfIdle,
                Some(_) => self.leave.store(0, Release),
                None => {}
            }
            self.leaving.notified().await;
        }
    }

    /// What the connection is worth when there is need of its place, and how long it has been worth
    /// no more. `None` when it shall stay, or leaves already.
    pub(in crate::ingress) fn worth(&self) -> Option<(Worth, Duration)> {
        if self.leave.load(Acquire) != 0 {
            return None;
        }
        let now = self.now_ms();
        let since = |ms: u64| Duration::from_millis(now.saturating_sub(ms));
        let (phase, blocked) = (self.phase.load(Acquire), self.blocked.load(Acquire));
        if !self.has_asked() {
            return Some((Worth::NeverAsked, since(0))).filter(|(_, time)| *time >= FRESH);
        }
        match blocked.checked_sub(1) {
            Some(blocked) => {
                Some((Worth::Unread, since(blocked))).filter(|(_, time)| *time >= FRESH)
            }
            None => self.is_idle().then(|| (Worth::Idle, since(phase >> 2))),
        }
    }

    /// What the connection holds beyond what it may, in bytes.
    pub(in crate::ingress) fn excess(&self) -> usize {
        self.load.told()
    }

    /// For how long nothing of that has gone.
    pub(in crate::ingress) fn stuck(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.load.since()))
    }

    /// Whether it makes room at once.
    pub(in crate::ingress) fn leaves_now(&self) -> bool {
        self.leave.load(Acquire) == Leave::Now as u8 + 1
    }

    /// This much is there to read into, or was read and is not complete.
    pub(super) fn keeps(&self, bytes: usize) {
        if self.load.keeps(bytes, || self.now_ms()) {
            self.leaves_if_too_much();
        }
    }

    /// hyper has so many bytes of an answer to write.
    pub(super) fn writes(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, AcqRel);
        self.owes(bytes);
    }

    /// hyper has the end of an answer, of which so many bytes waited for the client.
    pub(super) fn writes_last(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, AcqRel);
    }

    /// hyper has written all it had.
    pub(super) fn flushed(&self) {
        if self.unwritten.load(Relaxed) != 0 {
            self.paid(self.unwritten.swap(0, AcqRel));
        }
    }

    /// An HTTP/2 stream has begun, which takes so many bytes.
    pub(super) fn begins(&self, bytes: usize) {
        self.load.begins(bytes, || self.now_ms());
        self.leaves_if_too_much();
    }

    /// It ended without an answer.
    pub(super) fn breaks_off(&self, bytes: usize) {
        self.load.breaks_off(bytes, || self.now_ms());
    }

    /// In place of what one has taken so far, so many bytes of an answer wait for the client.
    pub(super) fn answers(&self, asked: usize, bytes: usize) {
        self.load.answers(asked, bytes, || self.now_ms());
        self.leaves_if_too_much();
    }

    /// So many bytes of an answer wait for the client.
    pub(super) fn owes(&self, bytes: usize) {
        self.load.owes(bytes, || self.now_ms());
        self.leaves_if_too_much();
    }

    /// Answers may come faster than others are looked for who shall go.
    fn leaves_if_too_much(&self) {
        if self.load.is_too_much() && !self.leaves_now() {
            self.leaves_by_itself.store(true, Release);
            self.ask_to_leave(Leave::Now);
        }
    }

    /// Whether it made room before it was asked to.
    pub(in crate::ingress) fn has_left_by_itself(&self) -> bool {
        self.leaves_by_itself.load(Acquire)
    }

    /// They do no more.
    pub(super) fn paid(&self, bytes: usize) {
        self.load.paid(bytes, || self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Begins a phase now.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(self.now_ms() << 2 | phase as u64, Release);
    }

    /// Begins a phase now, unless the connection is in it already.
    pub(super) fn stay_or_enter(&self, phase: Phase) {
        if self.phase() != phase {
            self.enter(phase);
        }
    }

    /// A request is in flight. No deadline of the connection depends on when it began, so this
    /// does not look at the clock.
    pub(super) fn busy(&self) {
        self.phase.store(Phase::Busy as u64, Release);
    }

    pub(super) fn phase(&self) -> Phase {
        phase_of(self.phase.load(Acquire))
    }

    /// Whether nothing is in flight in either direction.
    pub(super) fn is_idle(&self) -> bool {
        self.phase() == Phase::Idle && !self.is_blocked() && !self.has_streams()
    }

    /// Whether a write waits for the client to read.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed) != 0
    }

    /// A write waits for the client to read.
    pub(super) fn write_waits(&self) {
        if self.blocked.load(Relaxed) == 0 {
            self.blocked.store(self.now_ms() + 1, Release);
        }
    }

    /// The client has read something.
    pub(super) fn wrote(&self) {
        if self.blocked.load(Relaxed) != 0 {
            self.blocked.store(0, Release);
        }
    }

    /// hyper accepted a head and called the service. `length` is the length of the body, where
    /// the head tells it.
    pub(super) fn called(&self, length: Option<u64>) {
        self.asks();
        self.framing.store(length.unwrap_or(FRAMING_CHUNKED), Release);
    }

    /// Whether the service was called for the head that was handed over last.
    pub(super) fn was_called(&self) -> bool {
        self.framing.load(Acquire) != FRAMING_UNKNOWN
    }

    /// How the body after the head that was handed over last is framed. Tells it once.
    pub(super) fn take_framing(&self) -> Option<Framing> {
        match self.framing.swap(FRAMING_UNKNOWN, AcqRel) {
            FRAMING_UNKNOWN => None,
            FRAMING_CHUNKED => Some(Framing::Chunked),
            length => Some(Framing::Length(length)),
        }
    }

    /// An HTTP/2 stream begins.
    pub(super) fn stream_begins(&self) {
        if self.streams.fetch_add(1, AcqRel) == 0 && self.phase() != Phase::Closing {
            self.busy();
        }
    }

    /// An HTTP/2 stream ends. Streams run on other threads: one may begin before this one has
    /// noted the phase, so that an idle phase counts only while there are no streams.
    pub(super) fn stream_ends(&self) {
        if self.streams.fetch_sub(1, AcqRel) == 1 {
            match self.phase() {
                Phase::Closing => self.enter(Phase::Closing),
                Phase::Idle | Phase::Head | Phase::Busy => self.enter(Phase::Idle),
            }
        }
    }

    /// Whether HTTP/2 streams are at work.
    pub(super) fn has_streams(&self) -> bool {
        self.streams.load(Acquire) != 0
    }

    /// From now on an idle connection is waited for only as long as a farewell takes.
    pub(super) fn drain(&self) {
        self.draining.store(true, Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Acquire)
    }

    /// The client has sent everything it will.
    pub(super) fn saw_eof(&self) {
        self.eof.store(true, Release);
    }

    pub(super) fn is_eof(&self) -> bool {
        self.eof.load(Acquire)
    }

    /// The client speaks HTTP/1.0: to it an answer of unknown length ends with the connection.
    pub(super) fn speaks_http_1_0(&self) {
        self.close_delimited.store(true, Release);
    }

    pub(super) fn is_close_delimited(&self) -> bool {
        self.close_delimited.load(Acquire)
    }

    /// Something that the client sent, or is still sending, was not read.
    pub(super) fn leaves_unread(&self) {
        self.unread.store(true, Release);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Acquire)
    }

    /// The deadline that has passed, or else when to look again.
    pub(super) fn check(&self, patience: &Patience) -> Result<Duration, Overdue> {
        let now = self.now_ms();
        let (mut next, idle) = match self.is_draining() {
            true => {
                let idle = patience.keep_alive.min(patience.farewell);
                (patience.shortest().min(idle), idle)
            }
            false => (patience.shortest(), patience.keep_alive),
        };
        let mut due = |since: u64, limit: Duration, overdue: Overdue| {
            let left = limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
            next = next.min(left);
            if left.is_zero() { Err(overdue) } else { Ok(()) }
        };
        let phase = self.phase.load(Acquire);
        let since = phase >> 2;
        let blocked = self.blocked.load(Acquire);
        if blocked != 0 {
            due(blocked - 1, patience.write_idle, Overdue::Write)?;
        }
        // What still has to be written, or runs in a stream, keeps a connection from being idle.
        let at_rest = blocked == 0 && !self.has_streams();
        match phase_of(phase) {
            Phase::Head => due(since, patience.head, Overdue::Head)?,
            Phase::Idle if at_rest => due(since, idle, Overdue::Idle)?,
            Phase::Closing if at_rest => due(since, patience.closing, Overdue::Closing)?,
            Phase::Idle | Phase::Closing | Phase::Busy => {}
        }
        // The clock of the notes has steps of a millisecond.
        Ok(next.max(Duration::from_millis(1)))
    }
}

fn phase_of(packed: u64) -> Phase {
    match packed & 3 {
        0 => Phase::Idle,
        1 => Phase::Head,
        2 => Phase::Busy,
        _ => Phase::Closing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(ms: u64) -> Patience {
        let limit = Duration::from_millis(ms);
        Patience {
            first_byte: limit,
            head: limit,
            body_idle: limit,
            write_idle: limit,
            keep_alive: limit,
            closing: limit,
            farewell: limit,
        }
    }

    fn new(phase: Phase) -> Pulse {
        let pulse = Pulse::new(Burden::new(1 << 20));
        pulse.enter(phase);
        pulse
    }

    fn passed() -> Duration {
        std::thread::sleep(Duration::from_millis(20));
        Duration::ZERO
    }

    #[test]
    fn a_phase_has_its_own_deadline_and_busy_has_none() {
        for (phase, overdue) in [
            (Phase::Idle, Some(Overdue::Idle)),
            (Phase::Head, Some(Overdue::Head)),
            (Phase::Closing, Some(Overdue::Closing)),
            (Phase::Busy, None),
        ] {
            let pulse = new(Phase::Busy);
            pulse.enter(phase);
            assert_eq!(pulse.phase(), phase);
            assert!(pulse.check(&patience(10_000)).is_ok());
            passed();
            assert_eq!(pulse.check(&patience(10)).err(), overdue, "{phase:?}");
        }
    }

    #[test]
    fn a_write_that_waits_is_overdue_even_while_a_request_runs() {
        let pulse = new(Phase::Busy);
        pulse.write_waits();
        passed();
        pulse.write_waits();
        assert_eq!(pulse.check(&patience(10)), Err(Overdue::Write));
        pulse.wrote();
        assert!(pulse.check(&patience(10)).is_ok());
    }

    #[test]
    fn the_next_look_is_never_later_than_the_shortest_deadline() {
        let pulse = new(Phase::Busy);
        let patience = Patience { head: Duration::from_millis(300), ..patience(60_000) };
        assert_eq!(pulse.check(&patience), Ok(Duration::from_millis(300)));
        pulse.enter(Phase::Head);
        passed();
        assert!(pulse.check(&patience).unwrap() < Duration::from_millis(300));
    }

    #[test]
    fn a_drain_shortens_the_time_of_an_idle_connection_and_of_no_other() {
        let patience = Patience { farewell: Duration::from_millis(10), ..patience(10_000) };
        for (phase, overdue) in [(Phase::Idle, Some(Overdue::Idle)), (Phase::Head, None)] {
            let pulse = new(phase);
            passed();
            assert!(pulse.check(&patience).is_ok());
            pulse.drain();
            assert_eq!(pulse.check(&patience).err(), overdue, "{phase:?}");
            // Whatever begins next is seen in time.
            pulse.busy();
            assert!(pulse.check(&patience).unwrap() <= patience.farewell);
        }
    }

    #[test]
    fn framing_is_told_once() {
        let pulse = new(Phase::Idle);
        assert_eq!(pulse.take_framing(), None);
        pulse.called(Some(7));
        assert!(pulse.was_called());
        assert_eq!(pulse.take_framing(), Some(Framing::Length(7)));
        assert_eq!(pulse.take_framing(), None);
        pulse.called(None);
        assert_eq!(pulse.take_framing(), Some(Framing::Chunked));
    }

    #[test]
    fn streams_make_it_busy_and_the_last_one_idle() {
        let pulse = new(Phase::Idle);
        pulse.stream_begins();
        pulse.stream_begins();
        pulse.stream_ends();
        assert_eq!(pulse.phase(), Phase::Busy);
        assert!(pulse.has_streams());
        pulse.stream_ends();
        assert!(pulse.is_idle());
    }

    /// As if it had begun this long ago.
    fn aged(pulse: &mut Pulse, age: Duration) {
        pulse.start = pulse.start.checked_sub(age).unwrap();
    }

    #[test]
    fn who_is_worth_least() {
        let worth = |pulse: &Pulse| pulse.worth().map(|(worth, _)| worth);
        let mut pulse = new(Phase::Head);
        assert_eq!(worth(&pulse), None, "it had no time yet");
        aged(&mut pulse, FRESH);
        assert_eq!(worth(&pulse), Some(Worth::NeverAsked));
        pulse.called(Some(0));
        pulse.busy();
        assert_eq!(worth(&pulse), None);
        pulse.write_waits();
        assert_eq!(worth(&pulse), None, "it may still read");
        aged(&mut pulse, FRESH);
        assert_eq!(worth(&pulse), Some(Worth::Unread));
        pulse.wrote();
        pulse.enter(Phase::Idle);
        assert_eq!(worth(&pulse), Some(Worth::Idle));
        pulse.ask_to_leave(Leave::IfIdle);
        assert_eq!(worth(&pulse), None, "it leaves already");
    }

    #[tokio::test]
    async fn whoever_has_become_busy_stays() {
        use futures::FutureExt;
        let pulse = new(Phase::Idle);
        pulse.ask_to_leave(Leave::IfIdle);
        assert_eq!(pulse.shall_leave().now_or_never(), Some(Leave::IfIdle));
        pulse.busy();
        pulse.ask_to_leave(Leave::IfIdle);
        assert_eq!(pulse.shall_leave().now_or_never(), None);
        pulse.ask_to_leave(Leave::UnlessAsked);
        assert_eq!(pulse.shall_leave().now_or_never(), Some(Leave::Now));
        pulse.called(Some(0));
        pulse.ask_to_leave(Leave::UnlessAsked);
        assert_eq!(pulse.shall_leave().now_or_never(), None);
        pulse.ask_to_leave(Leave::Now);
        assert_eq!(pulse.shall_leave().now_or_never(), Some(Leave::Now));
    }
}
