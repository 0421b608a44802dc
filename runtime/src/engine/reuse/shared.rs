//! An instance that serves several requests at once: a WASI 0.3 function's own choice.
//!
//! A task of its own drives the store, for no single connection could: each of its requests may
//! be the one that is gone first. What it uses is shared out evenly among the requests that are in
//! it. A failure takes all of them with it, and one that is given up ends the instance for new
//! ones – the guest cannot be told to forget a single request.

use super::{Counted, lock};
use crate::{
    engine::{
        Call, InvokeError, Place,
        guest::{HeadSlot, guest_error},
        instance::{Exports, Ground, Instance, answered_error, request_03},
        program::Program,
        residency::Resident,
    },
    host::{Caller as _, HostState, Meter, stopwatch::Stopwatch},
};
use bytes::Bytes;
use faas_api::Reuse;
use futures::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::unconstrained,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::{WasiBody, p3::bindings::Service};

/// What is gathered of a body before its head is sent, in bytes.
const EARLY_BYTES: usize = 64 << 10;
/// How often the instance runs before a head leaves without the rest. A guest alone has written its
/// body, and its end, after three turns; in company the engine does a part of the work in each.
const TURNS_TO_BEGIN: u32 = 32;

/// An instance as its requests see it.
pub(in crate::engine) struct Shared {
    reuse: Reuse,
    cpu_limit: Duration,
    state: Mutex<State>,
    /// Why it failed, once it did; told to every request that was in it.
    failure: OnceLock<InvokeError>,
    failed: CancellationToken,
    /// Counts the memory of the instance.
    meter: Arc<Meter>,
    /// How often the instance was run until it waited.
    turns: AtomicU32,
}

struct State {
    /// Where requests go; none when it takes no more.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    /// The requests in it, by what counts them.
    running: Vec<Arc<Meter>>,
    /// How many more it takes.
    left: u32,
    /// CPU time that was used while no request was in it.
    loose: Duration,
    /// When a request last came or left.
    since: Instant,
}

/// A request on its way to the guest.
struct Job {
    call: Call,
    request: Request<WasiBody>,
    answer: oneshot::Sender<Result<Response<WasiBody>, InvokeError>>,
}

/// One request's part of an instance.
pub(in crate::engine) struct Seat {
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    /// The request was answered to its end.
    done: bool,
}

impl Shared {
    /// Starts an instance in a task of its own.
    pub(in crate::engine) fn start(
        ground: &Arc<Ground>,
        program: &Arc<Program>,
        reuse: Reuse,
        resident: Arc<Resident>,
        (place, counted): (Place, Counted),
    ) -> Arc<Self> {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let limits = program.limits();
        let meter = Arc::<Meter>::default();
        let shared = Arc::new(Self {
            reuse,
            cpu_limit: Duration::from_millis(limits.cpu_ms),
            state: Mutex::new(State {
                jobs: Some(jobs),
                running: Vec::new(),
                left: reuse.requests,
                loose: Duration::ZERO,
                since: Instant::now(),
            }),
            failure: OnceLock::new(),
            failed: CancellationToken::new(),
            meter: meter.clone(),
            turns: AtomicU32::new(0),
        });
        let budget = ground.budget(program, meter.clone());
        let state = ground.state(program, budget, &Call { meter, ..Call::of_nobody() });
        let actor = Actor { shared: shared.clone(), wall: Duration::from_millis(limits.wall_ms) };
        let (app, ground, roaming) = (program.app().clone(), ground.clone(), ground.clone());
        let work = async move {
            let meter = actor.shared.meter.clone();
            let mut made = Box::pin(ground.make(&resident, state, place));
            // For the limit of a start; afterwards the time is shared out.
            let made = poll_fn(|cx| meter.count(|| made.as_mut().poll(cx)).0);
            actor.run(async |actor| actor.serve(made.await?, waiting).await).await;
            drop(counted);
        };
        tokio::spawn(unconstrained(async move {
            // How it ended was told to its requests.
            let _ = roaming.offload.roam(&app, work).await;
        }));
        shared
    }

    /// A seat for one more request, if there is one.
    pub(in crate::engine) fn enter(self: &Arc<Self>, meter: &Arc<Meter>) -> Option<Seat> {
        let mut state = lock(&self.state);
        let is_full = state.running.len() >= self.reuse.concurrency as usize;
        if state.jobs.is_none() || state.left == 0 || is_full {
            return None;
        }
        state.share_memory(self.meter.memory_peak());
        state.left -= 1;
        state.loose = Duration::ZERO;
        state.running.push(meter.clone());
        Some(Seat { shared: self.clone(), meter: meter.clone(), done: false })
    }

    /// Whether it will take another request, now or later.
    pub(in crate::engine) fn is_open(&self) -> bool {
        let state = lock(&self.state);
        state.jobs.is_some() && state.left > 0
    }

    /// Takes no more requests; it ends with those it has.
    pub(in crate::engine) fn retire(&self) {
        let mut state = lock(&self.state);
        state.left = 0;
        state.close_if_done();
    }

    fn leave(&self, seat: &Seat) {
        let mut state = lock(&self.state);
        state.share_memory(self.meter.memory_peak());
        let place = state.running.iter().position(|meter| Arc::ptr_eq(meter, &seat.meter));
        if let Some(place) = place {
            state.running.swap_remove(place);
        }
        if !seat.done {
            state.left = 0;
        }
        state.close_if_done();
    }

    /// Counts the time of one poll, in equal parts. Says what a request has used that is over its
    /// limit.
    fn charge(&self, spent: Duration) -> Option<Duration> {
        let memory = self.meter.memory_peak();
        let mut state = lock(&self.state);
        if state.running.is_empty() {
            state.loose += spent;
            return Some(state.loose).filter(|used| *used >= self.cpu_limit);
        }
        let part = spent / u32::try_from(state.running.len()).unwrap_or(u32::MAX);
        let used = state.running.iter().map(|meter| {
            meter.add(part, memory);
            meter.cpu()
        });
        used.max().filter(|used| *used >= self.cpu_limit)
    }

    /// The instance is over, for a reason that is every request's.
    fn fail(&self, error: InvokeError) {
        let _ = self.failure.set(error);
        lock(&self.state).jobs = None;
        self.failed.cancel();
    }

    /// Why it failed, once it has. What a request notices first is that its answer is gone.
    async fn failure(&self) -> InvokeError {
        self.failed.cancelled().await;
        self.failure.get().cloned().unwrap_or(InvokeError::NoResponse)
    }

    /// Closes it for having had nothing to do, unless a request came in between.
    fn expire(&self) -> bool {
        let mut state = lock(&self.state);
        if state.running.is_empty() {
            state.jobs = None;
        }
        state.jobs.is_none()
    }
}

impl State {
    /// Counts the memory that its requests have held since there were as many, in equal parts.
    fn share_memory(&mut self, bytes: u64) {
        let now = Instant::now();
        let time = now.duration_since(std::mem::replace(&mut self.since, now));
        let part = bytes / (self.running.len() as u64).max(1);
        for meter in &self.running {
            meter.holds(part, time);
        }
    }

    fn close_if_done(&mut self) {
        if self.left == 0 && self.running.is_empty() {
            self.jobs = None;
        }
    }
}

impl Seat {
    /// The future of a request: ends when its answer has.
    pub(in crate::engine) async fn call(
        mut self,
        call: Call,
        request: Request<WasiBody>,
        head: HeadSlot,
    ) -> Result<(), InvokeError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { call, request, answer };
        let jobs = lock(&self.shared.state).jobs.clone();
        if jobs.is_none_or(|jobs| jobs.send(job).is_err()) {
            return Err(self.shared.failure().await);
        }
        let response = match answered.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.done = true;
                head.set(Err(error));
                return Ok(());
            }
            Err(_) => return Err(self.shared.failure().await),
        };
        let (end, ended) = oneshot::channel();
        head.set(Ok(response.map(|body| Watched { body, _end: end }.boxed_unsync())));
        tokio::select! {
            biased;
            // The sender is dropped with the body.
            _ = ended => {}
            error = self.shared.failure() => return Err(error),
        }
        self.done = true;
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.leave(self);
    }
}

/// A body whose end somebody waits for.
struct Watched {
    body: WasiBody,
    _end: oneshot::Sender<()>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What drives a shared instance. However it ends, nobody waits for it any more.
struct Actor {
    shared: Arc<Shared>,
    /// How long a guest may go on after its last request.
    wall: Duration,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.shared.fail(InvokeError::NoResponse);
    }
}

impl Actor {
    /// Runs the work, counts its time and tells how it ended.
    async fn run(&self, work: impl AsyncFnOnce(&Self) -> Result<(), InvokeError>) {
        let mut work = pin!(work(self));
        let ended = poll_fn(|cx| {
            let watch = Stopwatch::start();
            self.shared.turns.fetch_add(1, Relaxed);
            let polled = work.as_mut().poll(cx);
            match self.shared.charge(watch.elapsed()) {
                Some(used) if polled.is_pending() => {
                    let limit = self.shared.cpu_limit;
                    Poll::Ready(Err(InvokeError::CpuTime { name: "cpu_ms", limit, used }))
                }
                _ => polled,
            }
        });
        if let Err(error) = ended.await {
            self.shared.fail(error);
        }
    }

    /// Serves requests until it takes no more and has none.
    async fn serve(
        &self,
        mut instance: Instance,
        mut jobs: mpsc::UnboundedReceiver<Job>,
    ) -> Result<(), InvokeError> {
        let Instance { store, exports, .. } = &mut instance;
        let Exports::Http03(service) = exports else {
            return Err(InvokeError::Internal("only WASI 0.3 is shared".to_owned()));
        };
        let outcome = store
            .run_concurrent(async |accessor| {
                self.requests(accessor, service, &mut jobs).await?;
                // What the guest still does after its responses, within the limits of a call.
                let idle = poll_fn(|cx| accessor.poll_no_interesting_tasks(cx));
                let _ = timeout(self.wall, idle).await;
                wasmtime::error::Ok(())
            })
            .await;
        let outcome = outcome.and_then(std::convert::identity);
        outcome.map_err(|error| {
            let error = guest_error(&error, store.data().budget.refused());
            // Before the store is gone, and bodies end with it: they would look complete.
            self.shared.fail(error.clone());
            error
        })
    }

    async fn requests(
        &self,
        accessor: &Accessor<HostState>,
        service: &Service,
        jobs: &mut mpsc::UnboundedReceiver<Job>,
    ) -> wasmtime::Result<()> {
        let func = *service.wasi_http_handler().func_handle().func();
        let patience = Duration::from_millis(self.shared.reuse.idle_ms);
        let mut calls = FuturesUnordered::new();
        let mut idle = pin!(sleep_until(Instant::now() + patience));
        poll_fn(|cx| {
            loop {
                match calls.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(()))) => {
                        idle.as_mut().reset(Instant::now() + patience);
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) | Poll::Pending => {}
                }
                // A guest that is busy inside says so, and gets no more for now.
                if accessor.poll_ready_for_concurrent_call(func, cx).is_ready() {
                    match jobs.poll_recv(cx) {
                        Poll::Ready(Some(job)) => {
                            calls.push(serve(&self.shared, accessor, service, job));
                            continue;
                        }
                        Poll::Ready(None) if calls.is_empty() => return Poll::Ready(Ok(())),
                        Poll::Ready(None) | Poll::Pending => {}
                    }
                }
                if calls.is_empty() && idle.as_mut().poll(cx).is_ready() {
                    if self.shared.expire() {
                        return Poll::Ready(Ok(()));
                    }
                    // A request is in it whose answer is still read, or one is on its way.
                    idle.as_mut().reset(Instant::now() + patience);
                    continue;
                }
                return Poll::Pending;
            }
        })
        .await
    }
}

/// One request inside the instance, up to the head of its response.
async fn serve(
    shared: &Shared,
    accessor: &Accessor<HostState>,
    service: &Service,
    job: Job,
) -> wasmtime::Result<()> {
    let Job { call, request, answer } = job;
    let (request, sent) = accessor.with(|mut store| {
        let state = store.data_mut();
        // Neither lines nor requests to others can be told apart; they are the last one's.
        state.join(&call);
        request_03(state, request)
    });
    let response = match service.handle(accessor, request).await? {
        Ok(response) => {
            let (head, body) = accessor.with(|store| response.into_http(store, sent))?.into_parts();
            Ok(Response::from_parts(head, begun(body, shared).await))
        }
        Err(code) => Err(answered_error(&code)),
    };
    // A request that was given up needs no answer.
    let _ = answer.send(response);
    Ok(())
}

/// A body, once its guest has written what it writes at once: most write all of it, and then it
/// can leave with its head in one piece.
async fn begun(mut body: WasiBody, shared: &Shared) -> WasiBody {
    let mut frames = Vec::new();
    let mut bytes = 0;
    let give_up = shared.turns.load(Relaxed).wrapping_add(TURNS_TO_BEGIN);
    poll_fn(|cx| {
        loop {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    let data = frame.as_ref().ok().and_then(|frame| frame.data_ref());
                    bytes += data.map_or(0, Bytes::len);
                    frames.push(frame);
                    if bytes >= EARLY_BYTES {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending if shared.turns.load(Relaxed) != give_up => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) | Poll::Pending => return Poll::Ready(()),
            }
        }
    })
    .await;
    StreamBody::new(stream::iter(frames).chain(BodyStream::new(body))).boxed_unsync()
}
