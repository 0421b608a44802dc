//! The engine: turns a prepared program and a request into a response, in an instance of its own.
//!
//! | part | what it does |
//! |---|---|
//! | `pool` | how many instances, and both engines' settings |
//! | `compile`, `worker` | Wasm to native code, in a process with limits |
//! | `cache` | native code on disk, proven before it is loaded |
//! | `prepared` | a program loaded and linked |
//! | `instance`, `cgi` | one instance for one request, by kind of program |
//! | `guest`, `early`, `body` | a running guest and the response it writes |
//! | `ticker` | the clock that interrupts guests |

mod body;
mod cache;
mod cgi;
mod compile;
mod config;
mod early;
mod error;
mod guest;
mod instance;
mod pool;
mod prepared;
mod ticker;
mod worker;

pub(crate) use body::GuestBody;
pub(crate) use compile::CompileError;
pub use config::{EngineConfig, Isolation, Limits};
pub(crate) use error::InvokeError;
pub(crate) use pool::{ENGINE_RELEASE, PoolPlan};
pub(crate) use worker::main as compile_worker;

pub(crate) use crate::host::Meter;
use crate::{
    functions::DeployConfig,
    host::{MemoryBudget, offers},
    request_id::RequestId,
    storage::Blobs,
    telemetry::{
        guest_logs::{AppLog, Origin},
        metrics::{FunctionMetrics, Metrics},
    },
};
use bytes::Bytes;
use cache::CacheMiss;
use compile::Compiler;
use faas_api::{Artifact, Digest, ImportProblem, Kind};
use guest::{Guest, HeadSlot};
use http::{Request, Response};
use http_body::Body;
use instance::Ground;
use prepared::{Engines, PrepareError, Prepared, engine_of};
use std::{
    future::poll_fn,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// A function as the engine knows it: what to run, and what a call of it may use.
pub(crate) struct Program {
    digest: Digest,
    kind: Kind,
    loaded: OnceCell<Prepared>,
    running: AtomicU32,
    /// What a call may use.
    pub(crate) limits: Arc<Limits>,
    /// The function's counters.
    pub(crate) metrics: FunctionMetrics,
    /// Where its guests' output goes.
    pub(crate) log: Arc<AppLog>,
    /// Whose output it is.
    pub(crate) origin: Arc<Origin>,
    node: Metrics,
}

impl Program {
    fn prepared(&self) -> Option<&Prepared> {
        self.loaded.get()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.loaded.initialized() {
            self.node.functions_loaded.dec();
        }
    }
}

/// What makes a program.
pub(crate) struct ProgramSpec {
    /// The artifact.
    pub(crate) digest: Digest,
    /// What kind of program it is.
    pub(crate) kind: Kind,
    /// What a call may use.
    pub(crate) limits: Arc<Limits>,
    /// The function's counters.
    pub(crate) metrics: FunctionMetrics,
    /// Where its guests' output goes.
    pub(crate) log: Arc<AppLog>,
    /// Whose output it is.
    pub(crate) origin: Arc<Origin>,
}

/// One call of a program.
pub(crate) struct Call {
    /// The request's id.
    pub(crate) id: RequestId,
    /// What the call uses; the caller keeps a clone and reads it when the answer has ended.
    pub(crate) meter: Arc<Meter>,
}

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
    /// The node's metrics.
    pub(crate) metrics: Metrics,
}

/// Runs programs.
pub(crate) struct Engine {
    engines: Arc<Engines>,
    compiler: Compiler,
    blobs: Arc<dyn Blobs>,
    ground: Ground,
    metrics: Metrics,
    seats: Arc<Semaphore>,
    pool_size: u32,
    waiting: AtomicUsize,
    queue: usize,
    queue_timeout: Duration,
}

/// A place in the pool, and in the count of a function's calls.
struct Seat {
    program: Arc<Program>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.program.running.fetch_sub(1, Relaxed);
        self.program.metrics.active.dec();
    }
}

impl Engine {
    /// Makes the pool and everything that is made once.
    ///
    /// # Errors
    /// When the machine does not give the pool its memory maps, or the cache folder cannot be used.
    pub(crate) fn new(parts: EngineParts<'_>) -> Result<Self, InvokeError> {
        let EngineParts { config, plan, deploy, cache_dir, node_key, blobs, metrics } = parts;
        let engines = Engines::new(plan, cache_dir, node_key).map_err(|error| {
            InvokeError::Internal(format!("the pool cannot be made: {error:#}"))
        })?;
        ticker::start(&engines.both())
            .map_err(|error| InvokeError::Internal(format!("no thread for the ticker: {error}")))?;
        let memory = MemoryBudget::new(plan.memory_budget);
        Ok(Self {
            engines: Arc::new(engines),
            compiler: Compiler::new(deploy, metrics.clone()),
            blobs,
            ground: Ground { memory, instance_start: metrics.instance_start.clone() },
            metrics,
            seats: Arc::new(Semaphore::new(plan.instances as usize)),
            pool_size: plan.instances,
            waiting: AtomicUsize::new(0),
            queue: config.queue,
            queue_timeout: Duration::from_millis(config.queue_timeout_ms),
        })
    }

    /// A program. Its native code is loaded when it is first called.
    pub(crate) fn program(&self, spec: ProgramSpec) -> Arc<Program> {
        let ProgramSpec { digest, kind, limits, metrics, log, origin } = spec;
        Arc::new(Program {
            digest,
            kind,
            loaded: OnceCell::new(),
            running: AtomicU32::new(0),
            limits,
            metrics,
            log,
            origin,
            node: self.metrics.clone(),
        })
    }

    /// The imports of an artifact that nothing here implements.
    pub(crate) fn missing_imports(artifact: &Artifact, kind: Kind) -> Vec<ImportProblem> {
        offers::missing(artifact, kind)
    }

    /// Whether an artifact's native code is there already.
    pub(crate) fn is_compiled(&self, digest: &Digest, kind: Kind) -> bool {
        self.engines.cache(kind).contains(digest)
    }

    /// Compiles an artifact, unless that was done before, and proves that it can be linked.
    ///
    /// # Errors
    /// When the artifact is no good, needs more than is allowed, or the platform fails.
    pub(crate) async fn compile(&self, digest: &Digest, kind: Kind) -> Result<(), CompileError> {
        self.prepare(digest, kind).await.map(drop)
    }

    /// Removes an artifact's native code.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.engines.forget(digest);
    }

    /// Answers one request in an instance of its own, which is gone when the answer is.
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
        let seat = self.admit(program).await?;
        if program.prepared().is_none() {
            self.load(program).await?;
        }
        let head = HeadSlot::default();
        let future = self.ground.guest(program, &call, request, head.clone())?;
        let mut guest = Guest::new(future, program.clone(), call, seat);
        let (head, ended) = poll_fn(|cx| match guest.poll(cx) {
            // Its head may be there too: the guest ran from one end to the other.
            Poll::Ready(Ok(())) => Poll::Ready(
                head.take()
                    .map_or(Err(InvokeError::NoResponse), |head| head.map(|head| (head, true))),
            ),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match head.take() {
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

    /// A place in the pool: at once, or after a short wait, or not at all.
    async fn admit(&self, program: &Arc<Program>) -> Result<Seat, InvokeError> {
        let limit = program.limits.concurrency;
        if limit > 0 && program.running.load(Relaxed) >= limit {
            return Err(InvokeError::Concurrency { limit });
        }
        let permit = match self.seats.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.queue_up().await?,
        };
        program.running.fetch_add(1, Relaxed);
        program.metrics.active.inc();
        Ok(Seat { program: program.clone(), _permit: permit })
    }

    async fn queue_up(&self) -> Result<OwnedSemaphorePermit, InvokeError> {
        /// One fewer waits, however the wait ends.
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        let queued = self.waiting.fetch_add(1, Relaxed);
        let _place = Place(&self.waiting);
        let overloaded = InvokeError::Overloaded { pool_size: self.pool_size, queued };
        if queued >= self.queue {
            return Err(overloaded);
        }
        match tokio::time::timeout(self.queue_timeout, self.seats.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(overloaded),
        }
    }

    /// Loads a program once, however many requests wait for it.
    async fn load(&self, program: &Program) -> Result<(), InvokeError> {
        let load = async || {
            let prepared = self.prepare(&program.digest, program.kind).await;
            let prepared = prepared.map_err(|e| InvokeError::Unavailable(e.to_string()))?;
            self.metrics.functions_loaded.inc();
            program.metrics.cold_start();
            Ok(prepared)
        };
        program.loaded.get_or_try_init(load).await.map(drop)
    }

    /// Loads and links; compiles first where the native code is not there.
    async fn prepare(&self, digest: &Digest, kind: Kind) -> Result<Prepared, CompileError> {
        let mut compiled = false;
        loop {
            let (engines, digest) = (self.engines.clone(), *digest);
            let loading = tokio::task::spawn_blocking(move || engines.prepare(&digest, kind));
            let failed = |error: tokio::task::JoinError| CompileError::Failed(error.to_string());
            match loading.await.map_err(failed)? {
                Ok(prepared) => return Ok(prepared),
                Err(PrepareError::Refused(why) | PrepareError::Miss(CacheMiss::Unfit(why))) => {
                    return Err(CompileError::Refused(why));
                }
                Err(PrepareError::Miss(miss)) => {
                    if let CacheMiss::Rejected(why) = &miss {
                        tracing::warn!(%digest, why, "native code refused; it is made anew");
                        self.metrics.cache_rejected.inc();
                    }
                    if compiled {
                        return Err(CompileError::Failed("fresh native code is no good".into()));
                    }
                    self.compile_now(&digest, kind).await?;
                    compiled = true;
                }
            }
        }
    }

    async fn compile_now(&self, digest: &Digest, kind: Kind) -> Result<(), CompileError> {
        let file = self.blobs.file(digest).await;
        let file = file.map_err(|error| CompileError::Failed(error.to_string()))?;
        let Some(file) = file else {
            return Err(CompileError::Failed(format!("artifact {digest} is gone")));
        };
        self.compiler.compile(&file, digest, engine_of(kind), self.engines.cache(kind)).await
    }
}
