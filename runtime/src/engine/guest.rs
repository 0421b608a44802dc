//! A running guest: one future that owns the store, polled by whoever wants the response.

use super::{
    Call, InvokeError, Program,
    instance::Ground,
    offload::{LONG, Moved},
    program::Running,
};
use crate::{
    clock,
    host::{
        Caller as _, CpuExhausted, HOSTCALL_FUEL, MAX_HANDLES, MAX_RESOURCES, Meter,
        NodeOutOfMemory,
    },
    telemetry::guest_logs::Event,
};
use http::Response;
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime::{
    FrameInfo, PoolConcurrencyLimitError, Trap, WasmBacktrace, component::ResourceTableError,
};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiBody;

/// A guest that has run for so long without a pause did not come to a tick: it was in one operation
/// that nothing interrupts, as filling half a gigabyte is. Its function's next calls begin where that
/// holds up nobody else.
const HELD: Duration = Duration::from_millis(25);

/// The future of a guest. It ends when the guest has nothing left to do.
pub(super) type GuestFuture = Pin<Box<dyn Future<Output = Result<(), InvokeError>> + Send>>;

/// Where a guest leaves the head of its response. While guest and reader run in one task, looking
/// after each poll is enough; a guest that was moved wakes the reader.
#[derive(Clone, Default)]
pub(super) struct HeadSlot(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    head: Option<Head>,
    reader: Option<Waker>,
    ending: bool,
}

/// The head of a response with a body to come, or why there is none.
type Head = Result<Response<WasiBody>, InvokeError>;

impl HeadSlot {
    /// Leaves the head.
    pub(super) fn set(&self, head: Head) {
        let mut slot = self.lock();
        slot.head = Some(head);
        let reader = slot.reader.take();
        drop(slot);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The guest is about to end. Said before anything of its response is closed: on another thread
    /// a body that breaks off would look complete until it is known how the guest ended.
    pub(super) fn ends(&self) {
        self.lock().ending = true;
    }

    fn is_ending(&self) -> bool {
        self.lock().ending
    }

    /// Takes the head, if it is there.
    pub(super) fn take(&self) -> Option<Head> {
        self.lock().head.take()
    }

    /// Who looks again when the head comes.
    fn wakes(&self, reader: &Waker) {
        self.lock().reader = Some(reader.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest that is about to run.
pub(super) struct Started {
    /// What runs it.
    pub(super) future: GuestFuture,
    /// Where the head of its response will be.
    pub(super) head: HeadSlot,
    /// Whether the future runs the guest itself, and does not only wait for another that does.
    pub(super) runs_here: bool,
}

/// Where a guest runs.
enum Work {
    /// In the task that wants its response.
    Here(GuestFuture),
    /// The same, for good.
    Stays(GuestFuture),
    /// On the threads for those that take long.
    Moved(Moved<Result<(), InvokeError>>),
    /// Nowhere: it has ended.
    Over,
}

/// A guest at work, held to its limits from outside of its store.
pub(super) struct Guest {
    work: Work,
    head: HeadSlot,
    ground: Arc<Ground>,
    program: Arc<Program>,
    call: Call,
    started: Instant,
    head_sent: bool,
    /// Since when whoever reads the body waits for more of it.
    silent_since: Option<Instant>,
    /// When the response was over, if it is.
    ended: Option<Instant>,
    /// Made when the guest first waits: most never do. Often it rings before there is anything to
    /// do: it is set anew when it did, and not whenever a deadline moves.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Left when this is dropped.
    running: Running,
}

impl Guest {
    /// A guest that has not run yet.
    pub(super) fn new(
        started: Started,
        ground: Arc<Ground>,
        program: Arc<Program>,
        call: Call,
        running: Running,
    ) -> Self {
        let Started { future, head, runs_here } = started;
        if !runs_here {
            call.meter.begins();
        }
        let moves = runs_here && program.begins_away();
        let mut guest = Self {
            work: if runs_here { Work::Here(future) } else { Work::Stays(future) },
            head,
            ground,
            program,
            started: call.meter.started().into(),
            call,
            head_sent: false,
            silent_since: None,
            ended: None,
            deadline: None,
            running,
        };
        if moves {
            guest.move_away();
        }
        guest
    }

    /// Takes the head of the response, if it is there.
    pub(super) fn take_head(&self) -> Option<Head> {
        self.head.take()
    }

    /// Whether it will end in a moment, and what its response looks like says nothing before that.
    pub(super) fn is_ending(&self) -> bool {
        self.head.is_ending()
    }

    /// Runs the guest until it waits or ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), InvokeError>> {
        if let Poll::Ready(outcome) = self.poll_work(cx) {
            self.work = Work::Over;
            self.running.ended(outcome.as_ref().err(), self.call.id);
            return Poll::Ready(outcome);
        }
        let passed = self.poll_deadline(cx);
        // Later it may be the client who takes long, to read the answer.
        if let Poll::Ready(error) = &passed
            && !self.head_sent
        {
            self.running.ended(Some(error), self.call.id);
        }
        passed.map(Err)
    }

    /// Ready when a deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<InvokeError> {
        let Deadline { name, limit, until, awaited } = self.next_deadline();
        let alarm = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if until < alarm.deadline() {
            alarm.as_mut().reset(until);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(InvokeError::WallTime { name, limit, awaited });
            }
            alarm.as_mut().reset(until);
        }
        Poll::Pending
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), InvokeError>> {
        let meter: &Meter = &self.call.meter;
        match &mut self.work {
            Work::Stays(future) => future.as_mut().poll(cx),
            Work::Here(future) => {
                let (polled, took) = meter.count(|| future.as_mut().poll(cx));
                if took >= HELD {
                    self.program.held_its_thread();
                }
                if polled.is_ready() || took < LONG {
                    return polled;
                }
                self.move_away();
                self.poll_work(cx)
            }
            Work::Moved(task) => {
                // Before the caller looks for the head, so that none comes unseen.
                self.head.wakes(cx.waker());
                Poll::Ready(ready!(Pin::new(task).poll(cx)).and_then(std::convert::identity))
            }
            Work::Over => Poll::Ready(Err(InvokeError::NoResponse)),
        }
    }

    /// It has taken long: from now on it does so elsewhere.
    fn move_away(&mut self) {
        let Work::Here(mut future) = std::mem::replace(&mut self.work, Work::Over) else {
            return;
        };
        let (meter, program) = (self.call.meter.clone(), self.program.clone());
        let run = poll_fn(move |cx| {
            let (polled, took) = meter.count(|| future.as_mut().poll(cx));
            if took >= HELD {
                program.held_its_thread();
            }
            polled
        });
        self.work = Work::Moved(self.ground.offload.spawn(self.program.app(), run));
    }

    /// From now on the limits are those of the whole call and of silence.
    pub(super) fn head_sent(&mut self) {
        self.head_sent = true;
    }

    /// Whoever reads the body waits for more of it. From the first time on that this is said, until
    /// there is more, the limit of silence runs: never while a client does not read, because nobody
    /// asks then.
    pub(super) fn is_awaited(&mut self, cx: &mut Context<'_>) -> Result<(), InvokeError> {
        self.silent_since.get_or_insert_with(Instant::now);
        match self.poll_deadline(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(error) => {
                self.running.ended(Some(&error), self.call.id);
                Err(error)
            }
        }
    }

    /// There was more of the body.
    pub(super) fn spoke(&mut self) {
        self.silent_since = None;
    }

    /// Lets the guest finish what it does after its response, within its limits.
    pub(super) fn finish_in_background(mut self) {
        self.silent_since = None;
        self.ended = Some(Instant::now());
        let afterwards = self.ground.afterwards.clone();
        afterwards.spawn(async move {
            if let Err(error) = poll_fn(|cx| self.poll(cx)).await {
                self.program.metrics().failure(error.code().as_str());
                let message = format!("after its response: {error}");
                self.program.log().push(
                    self.program.origin(),
                    self.call.id,
                    clock::now(),
                    Event::Failure(&message),
                );
            }
        });
    }

    /// Whether it has ended by itself.
    fn is_over(&self) -> bool {
        matches!(self.work, Work::Over)
    }

    /// What would end it next.
    fn next_deadline(&self) -> Deadline {
        let limits = self.program.limits();
        let deadline = |name, ms, since, awaited| {
            let limit = Duration::from_millis(ms);
            Deadline { name, limit, until: since + limit, awaited }
        };
        let awaited = if self.head_sent { "an end" } else { "a response" };
        let whole = deadline("wall_ms", limits.wall_ms, self.started, awaited);
        let other = match (self.head_sent, self.ended, self.silent_since) {
            (false, ..) => {
                Some(deadline("first_byte_ms", limits.first_byte_ms, self.started, awaited))
            }
            (true, Some(ended), _) => {
                Some(deadline("after_response_ms", limits.after_response_ms, ended, awaited))
            }
            (true, None, Some(since)) => {
                let awaited = "more of its body";
                Some(deadline("response_idle_ms", limits.response_idle_ms, since, awaited))
            }
            (true, None, None) => None,
        };
        other.filter(|other| other.until <= whole.until).unwrap_or(whole)
    }
}

/// A limit of time, and when it is reached.
struct Deadline {
    name: &'static str,
    limit: Duration,
    until: Instant,
    awaited: &'static str,
}

impl Drop for Guest {
    /// However it ends, what it used is billed.
    fn drop(&mut self) {
        let is_over = self.is_over();
        // A guest that is cancelled has used what it has used.
        self.work = Work::Over;
        self.program.metrics().bill(&self.call.meter.bill(is_over));
    }
}

/// Sorts an error of the engine by who is to blame. `refused` is the last growth that was denied.
pub(super) fn guest_error(error: &wasmtime::Error, refused: Option<&str>) -> InvokeError {
    if let Some(CpuExhausted { name, limit, used }) = error.downcast_ref() {
        return InvokeError::CpuTime { name, limit: *limit, used: *used };
    }
    if error.downcast_ref::<NodeOutOfMemory>().is_some() {
        return InvokeError::NodeOutOfMemory;
    }
    // It waits for something that nobody will do: the same as an end without an answer.
    if error.downcast_ref() == Some(&Trap::AsyncDeadlock) {
        return InvokeError::NoResponse;
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return InvokeError::Exit(*status);
    }
    if let Some(limit) = error.downcast_ref::<PoolConcurrencyLimitError>() {
        return InvokeError::PoolExhausted(limit.to_string());
    }
    let cause = error.root_cause().to_string();
    // `trap` stands before it already.
    let cause = cause.strip_prefix("wasm trap: ").unwrap_or(&cause);
    let mut text = limit_of(error, cause).unwrap_or_else(|| cause.to_owned());
    if let Some(refused) = refused {
        text = format!("{text} ({refused})");
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let frames: Vec<Frame> = backtrace.frames().iter().flat_map(Frame::of).collect();
        let frames = frames.iter().skip(panicking(&frames)).enumerate();
        frames.for_each(|(index, frame)| text.push_str(&format!("\n    {index}  {frame}")));
    }
    InvokeError::Trap(text)
}

/// What a guest is told by the host when it reaches one of the limits that are the same for every
/// call. The engine names them in its own words, and not all of them as a type.
fn limit_of(error: &wasmtime::Error, cause: &str) -> Option<String> {
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Some(format!(
            "limit of what it has open reached: {MAX_RESOURCES} of the host's, or {MAX_HANDLES} tasks \
             and streams ({cause})"
        ));
    }
    let limit = match cause {
        cause if cause.contains("store handle limit exceeded") => {
            format!("limit of handles inside of a component reached: {MAX_HANDLES}")
        }
        cause if cause.contains("fuel allocated for hostcalls has been exhausted") => {
            format!("limit of what one host call copies reached: {HOSTCALL_FUEL} bytes")
        }
        cause if cause.starts_with("requested len ") => "limit of random bytes reached".to_owned(),
        _ => return None,
    };
    Some(format!("{limit} ({cause})"))
}

/// A function as people know it, and the line it was at where that is known.
struct Frame {
    name: String,
    place: Option<String>,
}

impl Frame {
    /// A frame, after those of functions that were inlined into it.
    fn of(frame: &FrameInfo) -> Vec<Self> {
        let readable = |name: &str| format!("{:#}", rustc_demangle::demangle(name));
        let whole = || match frame.func_name() {
            Some(name) => readable(name),
            None => format!("function {}", frame.func_index()),
        };
        if frame.symbols().is_empty() {
            return vec![Self { name: whole(), place: None }];
        }
        let symbols = frame.symbols().iter();
        let frames = symbols.map(|symbol| Self {
            name: symbol.name().map_or_else(whole, readable),
            place: symbol.file().map(|file| match symbol.line() {
                Some(line) => format!("{}:{line}", shortened(file)),
                None => shortened(file).to_owned(),
            }),
        });
        frames.collect()
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, "  {place}"))
    }
}

/// A file without the folders of a package manager before it, which say nothing.
fn shortened(file: &str) -> &str {
    let crates = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    let std = file.split_once("/library/");
    match (crates, std) {
        (Some((_, path)), _) => path,
        (None, Some((before, path))) if before.contains("/rustc/") => path,
        _ => file,
    }
}

/// How many frames are a Rust panic on its way to the trap, and not where it began: what it said is
/// in the log already.
fn panicking(frames: &[Frame]) -> usize {
    let entry = |Frame { name, .. }: &Frame| {
        name.starts_with("core::panicking::") || name.starts_with("__rustc::rust_begin_unwind")
    };
    let begins = frames.iter().rposition(entry).map_or(0, |last| last + 1);
    if begins < frames.len() { begins } else { 0 }
}

/// Sorts an error of a response body.
pub(super) fn body_error(error: &wasmtime_wasi_http::Error) -> InvokeError {
    use wasmtime_wasi_http::Error;
    match error {
        Error::HttpResponseBodySize(written) => InvokeError::BadResponse(match written {
            Some(written) => format!("its body of {written} bytes is not as long as it said"),
            None => "its body is not as long as it said".to_owned(),
        }),
        other => InvokeError::BadResponse(format!("its body broke off: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panics_own_frames_are_left_out() {
        let skipped = |frames: &[&str]| {
            let frame = |name: &&str| Frame { name: (*name).to_owned(), place: None };
            panicking(&frames.iter().map(frame).collect::<Vec<_>>())
        };
        let panic = ["abort", "__rustc::rust_begin_unwind", "core::panicking::panic_fmt"];
        assert_eq!(skipped(&[&panic[..], &["orders::price", "orders::handle"]].concat()), 3);
        assert_eq!(skipped(&["orders::price", "orders::handle"]), 0);
        assert_eq!(skipped(&panic), 0, "better those than none");
        assert_eq!(skipped(&[]), 0);
    }
}
