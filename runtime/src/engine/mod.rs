//! The engine: turns a prepared program and a request into a response, in an instance of its own.
//!
//! | part | what it does |
//! |---|---|
//! | `pool` | how many instances, and both engines' settings |
//! | `compile`, `worker` | Wasm to native code, in a process with limits |
//! | `failures` | what could not be compiled of late |
//! | `cache` | native code on disk, proven before it is loaded |
//! | `program` | a function as the engine knows it |
//! | `admission`, `breaker` | who gets a place in the pool, and which function is out of service |
//! | `prepared`, `residency` | native code loaded and linked, and which is in memory |
//! | `instance`, `cgi` | one instance for one request, by kind of program |
//! | `reuse` | instances that are there before their request |
//! | `siblings` | calls of functions by functions of the same app |
//! | `guest`, `early`, `body` | a running guest and the response it writes |
//! | `ticker`, `offload` | the clock that interrupts guests, and where those go on that take long |

mod admission;
mod body;
mod breaker;
mod cache;
mod cgi;
mod compile;
mod config;
mod early;
mod error;
mod failures;
mod guest;
mod instance;
mod loader;
mod machine;
mod offload;
mod pool;
mod prepared;
mod program;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
mod residency;
mod reuse;
mod siblings;
mod ticker;
mod worker;

pub(crate) use body::GuestBody;
pub(crate) use compile::CompileError;
pub use config::{EngineConfig, Isolation, Limits, Maxima};
pub(crate) use error::InvokeError;
pub(crate) use machine::node_memory;
pub(crate) use pool::{ENGINE_RELEASE, PoolPlan};
pub(crate) use program::{Program, ProgramSpec};
pub(crate) use siblings::Family;
pub(crate) use worker::main as compile_worker;

pub(crate) use crate::host::{Call, Meter, outbound::Ancestry};
use crate::{
    functions::DeployConfig,
    host::{Environment, MemoryBudget, Pressure, offers, outbound::Outbound},
    storage::Blobs,
    telemetry::metrics::Metrics,
};
use admission::{Admission, Place};
use arc_swap::ArcSwap;
use breaker::BreakerRules;
use bytes::Bytes;
use compile::Compiler;
use faas_api::{Artifact, Digest, ImportProblem, Kind};
use guest::Guest;
use http::{Request, Response};
use http_body::Body;
use instance::{Ground, Instance, Seat};
use loader::Loader;
use offload::Offload;
use prepared::Engines;
use residency::{Residency, Resident};
use reuse::{Shared, Waiting};
use std::{
    future::poll_fn,
    path::{Path, PathBuf},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio_util::task::TaskTracker;

/// How often instances that wait are looked at.
const LOOK_AT_WAITING: Duration = Duration::from_millis(250);
/// How often the node looks at the memory it uses. Often, because guests can make the host allocate
/// fast; it remains a look, and no bound.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(25);
/// How often the node looks whether it is idle, while some function lacks a ready instance.
const LOOK_FOR_IDLENESS: Duration = Duration::from_millis(5);

/// What an engine is made of.
pub(crate) struct EngineParts<'a> {
    /// The pool's settings.
    pub(crate) config: &'a EngineConfig,
    /// What the pool is made of.
    pub(crate) plan: &'a PoolPlan,
    /// The compile process's settings.
    pub(crate) deploy: &'a DeployConfig,
    /// Where native code is kept.
    pub(crate) cache_dir: &'a Path,
    /// Proves that native code is this node's.
    pub(crate) node_key: [u8; 32],
    /// Where artifacts are.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// What sends functions' requests.
    pub(crate) outbound: Outbound,
    /// The node's metrics.
    pub(crate) metrics: Arc<Metrics>,
}

/// Runs programs.
pub(crate) struct Engine {
    plan: PoolPlan,
    cache_dir: PathBuf,
    node_key: [u8; 32],
    loader: Arc<Loader>,
    ground: Arc<Ground>,
    outbound: Arc<Outbound>,
    metrics: Arc<Metrics>,
    memory: Arc<MemoryBudget>,
    admission: Arc<Admission>,
    breakers: BreakerRules,
}

impl Engine {
    /// Makes the pool and everything that is made once.
    ///
    /// # Errors
    /// When the machine does not give the pool its memory maps, or the cache folder cannot be used.
    pub(crate) fn new(parts: EngineParts<'_>) -> Result<Self, InvokeError> {
        let EngineParts { config, plan, deploy, cache_dir, node_key, blobs, outbound, metrics } =
            parts;
        let engines = Engines::new(plan, cache_dir, node_key).map_err(|error| {
            let hint = machine::address_space_hint();
            InvokeError::Internal(format!("the pool cannot be made: {error:#}{hint}"))
        })?;
        ticker::start(&engines.both())
            .map_err(|error| InvokeError::Internal(format!("no thread for the ticker: {error}")))?;
        let offload = Offload::start()
            .map_err(|error| InvokeError::Internal(format!("no threads for guests: {error}")))?;
        let memory = MemoryBudget::new(plan.memory_budget);
        // Most of the pool is always there for requests that need an instance of their own.
        let waiting = Waiting::new(plan.instances as usize / 4, memory.clone());
        Ok(Self {
            plan: plan.clone(),
            cache_dir: cache_dir.to_owned(),
            node_key,
            loader: Arc::new(Loader {
                compiler: Compiler::new(deploy, plan.line_numbers, metrics.clone()),
                blobs,
                engines: ArcSwap::from_pointee(engines),
                residency: Arc::new(Residency::new(
                    plan.capacity,
                    metrics.functions_loaded.clone(),
                )),
                metrics: metrics.clone(),
            }),
            admission: Arc::new(Admission::new(config, plan, memory.clone())),
            memory,
            breakers: BreakerRules::new(config, metrics.functions_quarantined.clone()),
            ground: Arc::new(Ground {
                instance_start: metrics.instance_start.clone(),
                waiting,
                offload,
                afterwards: TaskTracker::new(),
            }),
            outbound: Arc::new(outbound),
            metrics,
        })
    }

    /// A program. Its native code is loaded when it is first called.
    pub(crate) fn program(&self, spec: ProgramSpec) -> Arc<Program> {
        let share = self.admission.share(&spec.app);
        Arc::new(Program::new(spec, share, self.breakers.clone(), self.metrics.clone()))
    }

    /// The same program with another environment. What is loaded stays loaded; instances that wait
    /// are not its own, and end with the program it replaces.
    pub(crate) fn reprogram(
        &self,
        program: &Arc<Program>,
        environment: Option<Arc<Environment>>,
    ) -> Arc<Program> {
        let engines = self.loader.engines.load_full();
        let next = Arc::new(program.with_environment(environment));
        self.loader.residency.hand_over(program, &next);
        // As when it is loaded: nothing may stay on a pool that was replaced meanwhile.
        if !Arc::ptr_eq(&engines, &self.loader.engines.load()) {
            next.set_resident(None);
        }
        next
    }

    /// What sends functions' requests.
    pub(super) fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// What guests still do after their responses.
    pub(crate) fn afterwards(&self) -> &TaskTracker {
        &self.ground.afterwards
    }

    /// The imports of an artifact that nothing here implements.
    pub(crate) fn missing_imports(artifact: &Artifact, kind: Kind) -> Vec<ImportProblem> {
        offers::missing(artifact, kind)
    }

    /// Whether an artifact's native code is there already.
    pub(crate) fn is_compiled(&self, digest: &Digest, kind: Kind) -> bool {
        self.loader.engines.load().cache(kind).contains(digest)
    }

    /// Compiles an artifact, unless that was done before, and proves that it can be linked.
    ///
    /// # Errors
    /// When the artifact is no good, needs more than is allowed, or the platform fails.
    pub(crate) async fn compile(&self, digest: &Digest, kind: Kind) -> Result<(), CompileError> {
        self.loader.compiler.forget_failure(digest);
        self.loader.prepare(&self.loader.engines.load_full(), digest, kind).await.map(drop)
    }

    /// Removes native code for engines that this node no longer has. Blocks on files.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn forget_other_engines(&self) -> std::io::Result<usize> {
        self.loader.engines.load().forget_others(&self.cache_dir)
    }

    /// Removes an artifact's native code.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.loader.engines.load().forget(digest);
    }

    /// Answers one request, in an instance of its own, which is gone when the answer is, unless the
    /// function shares instances between its requests.
    ///
    /// The guest runs inside this future, and after it returned inside the body: dropping either
    /// cancels the guest. The caller has checked the request; hop-by-hop fields are gone from it.
    /// The URI is `/path?query` as the guest shall see it; the `host` field is in the headers.
    ///
    /// # Errors
    /// Why there is no answer. A failure after the head was sent shows as an error of the body.
    pub(crate) async fn invoke<B>(
        &self,
        program: &Arc<Program>,
        call: Call,
        request: Request<B>,
    ) -> Result<Response<GuestBody>, InvokeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let running = program.enter(!request.body().is_end_stream())?;
        let seat = self.seat(program, &call).await?;
        let started = self.ground.guest(program, &call, seat, request)?;
        let mut guest = Guest::new(started, self.ground.clone(), program.clone(), call, running);
        let (head, ended) = poll_fn(|cx| match guest.poll(cx) {
            // Its head may be there too: the guest ran from one end to the other.
            Poll::Ready(Ok(())) => Poll::Ready(
                guest
                    .take_head()
                    .map_or(Err(InvokeError::NoResponse), |head| head.map(|head| (head, true))),
            ),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match guest.take_head() {
                Some(head) => Poll::Ready(head.map(|head| (head, false))),
                None => Poll::Pending,
            },
        })
        .await?;
        let (mut parts, body) = head.into_parts();
        let guest = (!ended).then_some(guest);
        let body = early::finish(body, guest, &mut parts.headers)?;
        Ok(Response::from_parts(parts, body))
    }

    /// Where a call runs: in an instance that waits for it, or in a new one.
    async fn seat(&self, program: &Arc<Program>, call: &Call) -> Result<Seat, InvokeError> {
        if let Some(instance) = program.take_kept() {
            return Ok(Seat::Kept(instance));
        }
        let sharing = program.sharing();
        if sharing.is_some()
            && let Some(seat) = program.enter_shared(&call.meter)
        {
            return Ok(Seat::Shared(seat));
        }
        // Code comes first: who waits for it takes no place from others.
        let mut resident = self.resident(program).await?;
        let place = match program.share().try_take(resident.places) {
            Some(place) => place,
            None => {
                let place = program.share().wait(resident.places).await?;
                // It may have made room for others meanwhile, or the pool been replaced.
                resident = self.resident(program).await?;
                place
            }
        };
        let Some(reuse) = sharing else {
            return Ok(Seat::New(resident, place));
        };
        // Without room for one more that stays, the request has an instance of its own.
        let Some(counted) = self.ground.waiting.reserve() else {
            return Ok(Seat::New(resident, place));
        };
        let place = (place, counted);
        let start = || Shared::start(&self.ground, program, reuse, resident, place);
        let seat = program.enter_shared_or_start(&call.meter, start);
        seat.map(Seat::Shared).ok_or(InvokeError::NoResponse)
    }

    /// A program's native code, loaded once, however many requests wait for it.
    async fn resident(&self, program: &Arc<Program>) -> Result<Arc<Resident>, InvokeError> {
        if let Some(resident) = program.resident() {
            self.loader.residency.touch(&resident);
            return Ok(resident);
        }
        let limit = Duration::from_millis(program.limits().first_byte_ms);
        let loading = tokio::time::timeout(limit, self.loader.clone().load(program.clone()));
        Box::pin(loading).await.unwrap_or_else(|_| {
            Err(InvokeError::Unavailable(format!("its native code is not there after {limit:?}")))
        })
    }

    /// Looks after instances that wait, and after swap. Never ends.
    pub(crate) async fn tend(&self) {
        // Side by side: making an instance runs a guest, and nothing may wait for that.
        tokio::join!(self.look_after(), self.keep_ready(), self.watch_memory());
    }

    /// The pool's plan bounds what instances use, and the limits of a call what the host holds for
    /// it, but not for all calls at once. So the node looks at what it uses, and sheds load before
    /// the kernel does.
    async fn watch_memory(&self) {
        let mut pressure = Pressure::None;
        loop {
            tokio::time::sleep(LOOK_AT_MEMORY).await;
            let Some(used) = machine::resident_memory() else {
                continue;
            };
            let now = self.plan.pressure(used);
            self.memory.set_pressure(now);
            if now > pressure {
                let (used, of) = (used >> 20, self.plan.machine_memory >> 20);
                tracing::warn!(
                    ?now,
                    "the node uses {used} of {of} MiB; it takes fewer calls until it uses less"
                );
            }
            pressure = now;
        }
    }

    /// Drops instances that have waited long enough, and looks whether swap is on.
    async fn look_after(&self) {
        let mut look = tokio::time::interval(LOOK_AT_WAITING);
        loop {
            look.tick().await;
            self.ground.waiting.expire();
            self.outbound.expire();
            self.admission.forget_gone();
            self.watch_swap();
        }
    }

    /// Makes instances ready of functions that are slow to start, while nothing else runs.
    async fn keep_ready(&self) {
        let waiting = &self.ground.waiting;
        loop {
            waiting.lack().await;
            tokio::time::sleep(LOOK_FOR_IDLENESS).await;
            if self.is_idle()
                && let Some(program) = waiting.next_lacking()
            {
                waiting.made(&program, self.make_ready(&program).await);
            }
        }
    }

    /// Swap may be turned on while the node serves.
    fn watch_swap(&self) {
        if !self.loader.engines.load().page_map_reset || !machine::swap_in_use() {
            return;
        }
        match self.harden() {
            Ok(()) => tracing::warn!(
                "swap was turned on: used memory is given back to the kernel from now on, which \
                 costs more time; restart after turning it off"
            ),
            Err(error) => tracing::error!(%error, "swap was turned on, and isolation needs it off"),
        }
    }

    /// Whether no request is at work.
    fn is_idle(&self) -> bool {
        self.admission.taken() <= self.ground.waiting.count()
    }

    /// An instance that waits for its one request.
    async fn make_ready(&self, program: &Arc<Program>) -> Option<Instance> {
        let resident = program.resident()?;
        let place = program.share().try_take(resident.places)?;
        let call = Call::of_nobody();
        let meter = call.meter.clone();
        let budget = self.ground.budget(program, meter.clone());
        let state = self.ground.state(program, budget, &call);
        let mut making = std::pin::pin!(self.ground.make(&resident, state, place));
        let making = poll_fn(|cx| meter.count(|| making.as_mut().poll(cx)).0);
        let patience = Duration::from_millis(program.limits().first_byte_ms);
        // Why it cannot be made is told to the request that needs it.
        tokio::time::timeout(patience, making).await.ok()?.ok()
    }

    /// From now on every page of a used slot is given back to the kernel: swap is in use, which
    /// hides pages from the page map. Calls that run end on the old pool, which nobody gets a slot
    /// of any more.
    ///
    /// # Errors
    /// When the machine does not give a second pool its memory maps.
    fn harden(&self) -> Result<(), InvokeError> {
        let plan = PoolPlan { page_map_reset: false, ..self.plan.clone() };
        let engines = Engines::new(&plan, &self.cache_dir, self.node_key)
            .and_then(|engines| Ok(ticker::start(&engines.both()).map(|()| engines)?))
            .map_err(|error| InvokeError::Internal(format!("no strict pool: {error:#}")))?;
        self.loader.engines.store(Arc::new(engines));
        self.loader.residency.clear();
        Ok(())
    }
}
