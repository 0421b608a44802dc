//! A function as the engine knows it: small while nobody calls it.

use super::{
    InvokeError,
    admission::Share,
    breaker::{Breaker, BreakerRules, Change, Pass},
    config::Limits,
    instance::Instance,
    residency::Resident,
    reuse::{Shared, Stash, lock, shared},
    siblings::{self, Family},
};
use crate::{
    clock,
    host::{
        Caller, Environment, Meter, SiblingAnswer,
        outbound::{Ancestry, Outbound},
    },
    request_id::RequestId,
    telemetry::{
        guest_logs::{AppLog, Event, Origin},
        metrics::{FunctionMetrics, Metrics},
    },
};
use arc_swap::ArcSwapOption;
use faas_api::{AppName, Digest, Kind, OutboundHost, Reuse, outbound::Sibling};
use http::Request;
use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};
use wasmtime_wasi_http::WasiBody;

/// How many calls of a function begin where they hold up nobody, after one that did.
const CALLS_AWAY: u32 = 100;

/// What makes a program.
#[derive(Clone)]
pub(crate) struct ProgramSpec {
    /// The artifact.
    pub(crate) digest: Digest,
    /// What kind of program it is.
    pub(crate) kind: Kind,
    /// What a call may use.
    pub(crate) limits: Arc<Limits>,
    /// Whether its requests share instances, and how many of them.
    pub(crate) reuse: Option<Reuse>,
    /// Its variables and secrets, where it has any.
    pub(crate) environment: Option<Arc<Environment>>,
    /// The hosts it may send requests to.
    pub(crate) grants: Box<[OutboundHost]>,
    /// The functions of its version, which may call each other.
    pub(crate) family: Arc<Family>,
    /// Whose it is.
    pub(crate) app: AppName,
    /// Where its guests' output goes.
    pub(crate) log: Arc<AppLog>,
    /// Which function of which version.
    pub(crate) origin: Arc<Origin>,
}

/// What to run, and what a call of it may use. Thousands of these cost little: native code,
/// counters and instances are there from the first call on, and code only for as long as there is
/// room for it.
pub(crate) struct Program {
    spec: ProgramSpec,
    /// What its app has of the node.
    share: Arc<Share>,
    breaker: Breaker,
    rules: BreakerRules,
    node: Arc<Metrics>,
    metrics: OnceLock<Box<FunctionMetrics>>,
    resident: ArcSwapOption<Resident>,
    /// Held while native code is loaded, so that it is loaded once.
    loading: Arc<tokio::sync::Mutex<()>>,
    /// Shared with the program that this one replaced, whose calls may go on.
    running: Arc<AtomicU32>,
    /// How many of its next calls begin on the threads for those that take long.
    begins_away: AtomicU32,
    kept: OnceLock<Box<Keep>>,
}

/// Instances that outlive a request, or wait for their first.
#[derive(Default)]
pub(super) struct Keep {
    /// Those that serve one request at a time.
    pub(super) stash: Stash,
    /// Those that serve several at once.
    pub(super) shared: Mutex<Vec<Arc<Shared>>>,
}

impl Program {
    /// A program that nobody has called.
    pub(super) fn new(
        spec: ProgramSpec,
        share: Arc<Share>,
        rules: BreakerRules,
        node: Arc<Metrics>,
    ) -> Self {
        Self {
            spec,
            share,
            breaker: Breaker::new(rules.clone()),
            rules,
            node,
            metrics: OnceLock::new(),
            resident: ArcSwapOption::empty(),
            loading: Arc::default(),
            running: Arc::default(),
            begins_away: AtomicU32::new(0),
            kept: OnceLock::new(),
        }
    }

    /// The same program with another environment, and without instances.
    pub(super) fn with_environment(&self, environment: Option<Arc<Environment>>) -> Self {
        let spec = ProgramSpec { environment, ..self.spec.clone() };
        // In service, even if this one is not: it may have lacked a secret.
        let (share, rules) = (self.share.clone(), self.rules.clone());
        let mut next = Self::new(spec, share, rules, self.node.clone());
        next.running = self.running.clone();
        next
    }

    /// The functions of its version.
    pub(crate) fn family(&self) -> &Family {
        &self.spec.family
    }

    /// Its variables and secrets, where it has any.
    pub(crate) fn environment(&self) -> Option<&Arc<Environment>> {
        self.spec.environment.as_ref()
    }

    /// The artifact.
    pub(crate) fn digest(&self) -> Digest {
        self.spec.digest
    }

    /// What kind of program it is.
    pub(crate) fn kind(&self) -> Kind {
        self.spec.kind
    }

    /// What its app has of the node.
    pub(super) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Whether its requests share instances.
    pub(super) fn reuse(&self) -> Option<Reuse> {
        self.spec.reuse
    }

    /// What a call may use.
    pub(crate) fn limits(&self) -> &Limits {
        &self.spec.limits
    }

    /// Where its guests' output goes.
    pub(crate) fn log(&self) -> &Arc<AppLog> {
        &self.spec.log
    }

    /// Whose output it is.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.spec.origin
    }

    /// The function's counters. A function that was never called has none.
    pub(crate) fn metrics(&self) -> &FunctionMetrics {
        self.metrics.get_or_init(|| {
            let Origin { function, version } = &*self.spec.origin;
            Box::new(self.node.function(&self.spec.app, function, *version))
        })
    }

    /// Its native code, if that is in memory.
    pub(super) fn resident(&self) -> Option<Arc<Resident>> {
        self.resident.load_full()
    }

    /// Puts native code in place, or takes it away; calls that run keep what they have.
    pub(super) fn set_resident(&self, resident: Option<Arc<Resident>>) {
        self.resident.store(resident);
    }

    /// One at a time may load.
    pub(super) async fn loading(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.loading.clone().lock_owned().await
    }

    /// Counts a call, unless there are as many as there may be, or the function is out of service.
    /// `has_body` is whether the guest may have to wait for its client.
    pub(super) fn enter(self: &Arc<Self>, has_body: bool) -> Result<Running, InvokeError> {
        let pass = self.breaker.pass()?;
        let limit = self.spec.limits.concurrency;
        // Counted first: of two that come at once only one may be the last.
        if self.running.fetch_add(1, Relaxed) >= limit && limit > 0 {
            self.running.fetch_sub(1, Relaxed);
            return Err(InvokeError::Concurrency { limit });
        }
        self.metrics().active.inc();
        Ok(Running { program: self.clone(), pass, has_body })
    }

    /// A call of it has changed whether it is in service.
    #[cold]
    fn tell_change(&self, change: Change, error: Option<&InvokeError>, id: RequestId) {
        let (app, Origin { function, version }) = (&self.spec.app, &*self.spec.origin);
        match change {
            Change::Quarantined(pause) => {
                let last = error.map(ToString::to_string).unwrap_or_default();
                let last = last.lines().next().unwrap_or_default();
                let text = format!("quarantined for {pause:?}, it failed repeatedly; last: {last}");
                self.log().push(self.origin(), id, clock::now(), Event::Failure(&text));
                tracing::warn!(%app, %function, %version, ?pause, last, "function quarantined");
            }
            Change::Restored => {
                tracing::info!(%app, %function, %version, "function in service again")
            }
        }
    }

    /// Whether a call begins on the threads for those that take long.
    pub(super) fn begins_away(&self) -> bool {
        match self.begins_away.load(Relaxed) {
            0 => false,
            left => {
                // Of two at once both may take the same: it need not be exact.
                self.begins_away.store(left - 1, Relaxed);
                true
            }
        }
    }

    /// A call of it kept its thread from everybody else.
    pub(super) fn held_its_thread(&self) {
        self.begins_away.store(CALLS_AWAY, Relaxed);
    }

    /// Its instances that outlive a request, if there ever was one.
    pub(super) fn keep(&self) -> Option<&Keep> {
        self.kept.get().map(|keep| &**keep)
    }

    /// The same, made when there is none; the second value says so.
    pub(super) fn keep_or_new(&self) -> (&Keep, bool) {
        let mut new = false;
        let keep = self.kept.get_or_init(|| {
            new = true;
            Box::default()
        });
        (keep, new)
    }

    /// An instance that waits for a request.
    pub(super) fn take_kept(&self) -> Option<Instance> {
        self.keep()?.stash.take()
    }

    /// How its instances serve several requests at once, if they do. Only WASI 0.3 can.
    pub(super) fn sharing(&self) -> Option<Reuse> {
        let can = self.spec.kind == Kind::Http03;
        self.spec.reuse.filter(|reuse| can && reuse.concurrency > 1)
    }

    /// A seat in an instance that serves several requests at once.
    pub(super) fn enter_shared(&self, meter: &Arc<Meter>) -> Option<shared::Seat> {
        lock(&self.keep()?.shared).iter().find_map(|instance| instance.enter(meter))
    }

    /// The same, in a new instance if there is no seat in another: requests that come together
    /// to a function which has none share the first one.
    pub(super) fn enter_shared_or_start(
        &self,
        meter: &Arc<Meter>,
        start: impl FnOnce() -> Arc<Shared>,
    ) -> Option<shared::Seat> {
        let mut shared = lock(&self.keep_or_new().0.shared);
        if let Some(seat) = shared.iter().find_map(|instance| instance.enter(meter)) {
            return Some(seat);
        }
        shared.retain(|instance| instance.is_open());
        let instance = start();
        let seat = instance.enter(meter);
        shared.push(instance);
        seat
    }

    /// Drops every instance that waits, and lets the shared ones end.
    pub(super) fn drop_kept(&self) {
        if let Some(keep) = self.keep() {
            keep.stash.clear();
            lock(&keep.shared).drain(..).for_each(|instance| instance.retire());
        }
    }
}

impl Caller for Program {
    fn app(&self) -> &AppName {
        &self.spec.app
    }

    fn grants(&self) -> &[OutboundHost] {
        &self.spec.grants
    }

    fn outbound(&self) -> Option<Arc<Outbound>> {
        self.spec.family.engine().map(|engine| engine.outbound().clone())
    }

    fn tell(&self, request: RequestId, text: &str) {
        self.log().push(self.origin(), request, clock::now(), Event::Failure(text));
    }

    fn subrequests(&self) -> u32 {
        self.spec.limits.subrequests
    }

    fn reached(&self, limit: &str) {
        self.metrics().outbound_limit(limit);
    }

    fn count(&self, code: &str) {
        self.metrics().outbound(code);
    }

    fn call_sibling(
        &self,
        callee: Sibling<'_>,
        id: RequestId,
        ancestry: Ancestry,
        request: Request<WasiBody>,
    ) -> Option<SiblingAnswer> {
        let engine = self.spec.family.engine()?;
        let family = &self.spec.family;
        let callee = match callee {
            Sibling::Function(name) => (family.member(name)?, 0),
            Sibling::Route => family.routed(&request)?,
        };
        let caller = &self.spec.origin.function;
        Some(siblings::call(engine, callee, caller, (id, ancestry), request))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.drop_kept();
    }
}

/// A call in the count of its function's calls.
pub(super) struct Running {
    program: Arc<Program>,
    pass: Pass,
    has_body: bool,
}

impl Running {
    /// Its guest has ended, well or with an error.
    pub(super) fn ended(&self, error: Option<&InvokeError>, id: RequestId) {
        let breaker = &self.program.breaker;
        let change = match error {
            None => breaker.succeeded(),
            // It may be the client who takes long.
            Some(InvokeError::WallTime { .. }) if self.has_body => None,
            Some(error) => breaker.failed(self.pass, error),
        };
        if let Some(change) = change {
            self.program.tell_change(change, error, id);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.program.running.fetch_sub(1, Relaxed);
        self.program.metrics().active.dec();
    }
}
