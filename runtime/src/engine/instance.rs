//! An instance: make the store, instantiate, call, and see a request through to its end.

use super::{
    Call, InvokeError, Place, Program, cgi,
    guest::{GuestFuture, HeadSlot, Started, guest_error},
    offload::Offload,
    prepared::Prepared,
    residency::Resident,
    reuse::{Waiting, shared},
};
use crate::{
    host::{
        Budget, HOSTCALL_FUEL, Hooks, HostState, MAX_HANDLES, MODULE_FUEL, Meter, ModuleState,
        stdio::LogStream,
    },
    request_id::RequestId,
};
use bytes::Bytes;
use http::{HeaderValue, Request, header::HOST, uri::Authority};
use http_body_util::BodyExt as _;
use prometheus::Histogram;
use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;
use wasmtime::{Engine, InstancePre, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::{
    Error, FieldMap, WasiHttpView,
    p2::bindings::{Proxy, http::types::Scheme},
    p3,
    p3::bindings::Service,
};

/// How long a guest may have its thread to itself before a tick makes it give way.
const FAIR_TURN: Duration = Duration::from_millis(3);

/// What every instance needs, apart from its program and its call.
pub(super) struct Ground {
    /// How long making an instance takes.
    pub(super) instance_start: Histogram,
    /// The instances that wait for requests.
    pub(super) waiting: Waiting,
    /// Where guests go on that take long.
    pub(super) offload: Offload,
    /// What guests still do after their responses. A node that drains waits for it.
    pub(super) afterwards: TaskTracker,
}

/// An instance of an HTTP component with its store, between two calls or before its first.
pub(super) struct Instance {
    pub(super) store: Store<HostState>,
    pub(super) exports: Exports,
    /// How many requests it has served.
    pub(super) served: u32,
    /// How long it took to make.
    pub(super) took: Duration,
    /// Given back after the store.
    _place: Place,
}

/// How an instance is called.
pub(super) enum Exports {
    /// WASI 0.2.
    Http02(Proxy),
    /// WASI 0.3.
    Http03(Service),
}

/// Where a call runs.
pub(super) enum Seat {
    /// In an instance that is yet to be made.
    New(Arc<Resident>, Place),
    /// In one that is there.
    Kept(Instance),
    /// In one that serves others at the same time.
    Shared(shared::Seat),
}

impl Ground {
    /// The guest's future, which runs nothing until it is polled, and the slot in which the head
    /// of the response appears.
    pub(super) fn guest<B>(
        self: &Arc<Self>,
        program: &Arc<Program>,
        call: &Call,
        seat: Seat,
        request: Request<B>,
    ) -> Result<Started, InvokeError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let ground = self.clone();
        let slot = HeadSlot::default();
        let head = slot.clone();
        let started = |future, runs_here| Started { future, head: slot, runs_here };
        let (resident, place) = match seat {
            Seat::New(resident, place) => (resident, place),
            Seat::Kept(mut instance) => {
                instance.serve(call);
                let served = ground.http(program.clone(), instance, request, head);
                return Ok(started(Box::pin(served), true));
            }
            Seat::Shared(seat) => {
                let request = request.map(|body| guest_body(body).boxed_unsync());
                return Ok(started(Box::pin(seat.call(call.clone(), request, head)), false));
            }
        };
        let budget = self.budget(program, call.meter.clone());
        let future: GuestFuture = match &resident.prepared {
            Prepared::Http02(_) | Prepared::Http03(_) => {
                let state = ground.state(program, budget, call);
                let program = program.clone();
                Box::pin(async move {
                    let instance = ground.make(&resident, state, place).await?;
                    ground.http(program, instance, request, head).await
                })
            }
            Prepared::Cgi02(pre) => {
                let (log, environment) = (log_stream(program, call.id), program.environment());
                let (streams, output) = cgi::streams(request, environment.cloned(), log, head)?;
                let state =
                    HostState::cgi(streams, budget, Hooks::new(Arc::downgrade(program) as _, call));
                Box::pin(ground.cgi_02(pre.clone(), state, output, place))
            }
            Prepared::Cgi01(pre) => {
                let (log, environment) = (log_stream(program, call.id), program.environment());
                let (streams, output) = cgi::streams(request, environment.cloned(), log, head)?;
                let state = ModuleState::cgi(streams, budget);
                Box::pin(ground.cgi_01(pre.clone(), state, output, place))
            }
        };
        Ok(started(future, true))
    }

    /// What an instance of a function may use.
    pub(super) fn budget(&self, program: &Program, meter: Arc<Meter>) -> Budget {
        let limits = program.limits();
        let cpu = Duration::from_millis(limits.cpu_ms);
        let memory = program.share().memory().clone();
        let start = Duration::from_millis(limits.start_ms);
        Budget::new(limits.memory_bytes, limits.table_elements, cpu, memory, meter).starting(start)
    }

    /// What the store of an HTTP component carries, for a call.
    pub(super) fn state(&self, program: &Arc<Program>, budget: Budget, call: &Call) -> HostState {
        let (log, environment) = (log_stream(program, call.id), program.environment().cloned());
        let hooks = Hooks::new(Arc::downgrade(program) as _, call);
        let at_once = program.reuse().map_or(1, |reuse| reuse.concurrency);
        HostState::new(log, environment, budget, hooks).shared_by(at_once)
    }

    /// An instance of an HTTP component.
    pub(super) async fn make(
        &self,
        resident: &Resident,
        state: HostState,
        place: Place,
    ) -> Result<Instance, InvokeError> {
        let started = Instant::now();
        let mut store = component_store(resident.prepared.engine(), state);
        let exports = match &resident.prepared {
            Prepared::Http02(pre) => pre.instantiate_async(&mut store).await.map(Exports::Http02),
            Prepared::Http03(pre) => pre.instantiate_async(&mut store).await.map(Exports::Http03),
            Prepared::Cgi02(_) | Prepared::Cgi01(_) => {
                return Err(InvokeError::Internal("a CGI program has no HTTP exports".to_owned()));
            }
        };
        let exports =
            exports.map_err(|error| guest_error(&error, store.data().budget.refused()))?;
        store.data_mut().budget.started();
        let took = started.elapsed();
        self.instance_start.observe(took.as_secs_f64());
        resident.started(took);
        Ok(Instance { store, exports, served: 0, took, _place: place })
    }

    /// One request to an instance, which then is dropped, or waits for the next one where the
    /// function wants it so.
    async fn http<B>(
        self: Arc<Self>,
        program: Arc<Program>,
        mut instance: Instance,
        request: Request<B>,
        head: HeadSlot,
    ) -> Result<(), InvokeError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let Instance { store, exports, served, .. } = &mut instance;
        *served += 1;
        let slot = head.clone();
        let outcome = match exports {
            Exports::Http02(proxy) => http_02(store, proxy, request, head).await,
            Exports::Http03(service) => http_03(store, service, request, head).await,
        };
        outcome.map_err(|error| {
            slot.ends();
            guest_error(&error, store.data().budget.refused())
        })?;
        self.waiting.served(&program, instance);
        Ok(())
    }

    /// A component that is called as CGI: its standard output is the response.
    async fn cgi_02(
        self: Arc<Self>,
        pre: CommandPre<HostState>,
        state: HostState,
        output: cgi::Output,
        _place: Place,
    ) -> Result<(), InvokeError> {
        let started = Instant::now();
        let mut store = component_store(pre.engine(), state);
        let outcome = async {
            let command = pre.instantiate_async(&mut store).await?;
            store.data_mut().budget.started();
            self.instance_start.observe(started.elapsed().as_secs_f64());
            command.wasi_cli_run().call_run(&mut store).await
        }
        .await;
        let outcome = match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) => Err(InvokeError::Exit(1)),
            Err(error) => Err(guest_error(&error, store.data().budget.refused())),
        };
        output.end(outcome)
    }

    /// A core module that is called as CGI: its standard output is the response.
    async fn cgi_01(
        self: Arc<Self>,
        pre: InstancePre<ModuleState>,
        state: ModuleState,
        output: cgi::Output,
        _place: Place,
    ) -> Result<(), InvokeError> {
        let started = Instant::now();
        let mut store = Store::new(pre.module().engine(), state);
        store.limiter(|state| &mut state.budget);
        store.set_hostcall_fuel(MODULE_FUEL);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store: StoreContextMut<'_, ModuleState>| {
            tick(&store.data().budget)
        });
        let outcome = async {
            let instance = pre.instantiate_async(&mut store).await?;
            store.data_mut().budget.started();
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            self.instance_start.observe(started.elapsed().as_secs_f64());
            start.call_async(&mut store, ()).await
        }
        .await;
        let outcome = outcome.map_err(|error| guest_error(&error, store.data().budget.refused()));
        output.end(outcome)
    }
}

impl Instance {
    /// Linear memory it has, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.store.data().budget.memory()
    }

    /// From now on it works for this call, within the limits of one.
    fn serve(&mut self, call: &Call) {
        self.store.data_mut().serve(call);
        arm(&mut self.store);
    }
}

/// Where the output of an instance goes.
pub(super) fn log_stream(program: &Program, request: RequestId) -> LogStream {
    let (log, origin) = (program.log().clone(), program.origin().clone());
    LogStream::new(log, origin, program.limits().log_bytes, request)
}

/// A function may answer with an error instead of a response.
pub(super) fn answered_error(code: &impl std::fmt::Debug) -> InvokeError {
    InvokeError::Trap(format!("the function answered with the error {code:?}"))
}

/// WASI 0.2: the guest sets its response, then writes its body, then returns.
async fn http_02<B>(
    store: &mut Store<HostState>,
    proxy: &Proxy,
    request: Request<B>,
    head: HeadSlot,
) -> wasmtime::Result<()>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request_02(request))?;
    let out = http.new_response_outparam_from_callback(move |response| {
        head.set(response.map_err(|code| answered_error(&code)));
    })?;
    proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
}

/// WASI 0.3: the guest returns its response, and tasks of the same store write the body.
async fn http_03<B>(
    store: &mut Store<HostState>,
    service: &Service,
    request: Request<B>,
    head: HeadSlot,
) -> wasmtime::Result<()>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (request, sent) = request_03(store.data_mut(), request);
    store
        .run_concurrent(async |accessor| {
            let response = match service.handle(accessor, request).await? {
                Ok(response) => response,
                Err(code) => {
                    head.set(Err(answered_error(&code)));
                    return wasmtime::error::Ok(());
                }
            };
            let response = accessor.with(|store| response.into_http(store, sent))?;
            head.set(Ok(response));
            // What the guest still does: writing its body, and work after that.
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        })
        .await?
}

/// A component's store, with every limit on before the first instruction.
fn component_store(engine: &Engine, state: HostState) -> Store<HostState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.budget);
    store.set_max_component_handles(MAX_HANDLES);
    if let Some(tasks) = store.concurrent_resource_table() {
        tasks.set_max_capacity(MAX_HANDLES);
    }
    store.epoch_deadline_callback(|store: StoreContextMut<'_, HostState>| {
        tick(&store.data().budget)
    });
    arm(&mut store);
    store
}

/// What a call uses up, anew.
fn arm(store: &mut Store<HostState>) {
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_epoch_deadline(1);
}

/// At a tick a guest gives way to others of its thread, or ends. One that has only just begun goes
/// on: most are done before it would have paid.
fn tick(budget: &Budget) -> wasmtime::Result<UpdateDeadline> {
    budget.check_cpu()?;
    budget.check_node()?;
    if budget.turn().is_some_and(|turn| turn < FAIR_TURN) {
        return Ok(UpdateDeadline::Continue(1));
    }
    // Not `Yield`: that would put the task before all others in line, and nobody would run.
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}

/// The request as WASI 0.2 wants it: with a `host` field, and a body with errors of its own.
fn request_02<B>(mut request: Request<B>) -> Request<impl GuestRequestBody>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    if request.uri().authority().is_none() && !request.headers().contains_key(HOST) {
        // HTTP/1.0 clients may leave it out; guests are promised one.
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    }
    request.map(guest_body)
}

/// The request as WASI 0.3 wants it: scheme and authority apart from the path. Also a future that
/// ends when its body was sent to the guest.
pub(super) fn request_03<B>(
    state: &mut HostState,
    request: Request<B>,
) -> (p3::Request, impl Future<Output = Result<(), Error>> + Send + use<B>)
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (parts, body) = request.into_parts();
    let host = parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = parts.uri.authority().cloned().or(host);
    let path = parts.uri.path_and_query().cloned();
    let headers = FieldMap::new_immutable(state.http().hooks, parts.headers);
    let scheme = Some(http::uri::Scheme::HTTP);
    p3::Request::new(parts.method, scheme, authority, path, headers, None, guest_body(body))
}

/// A request's body, as the bindings take it.
trait GuestRequestBody: http_body::Body<Data = Bytes, Error = Error> + Send + 'static {}
impl<T> GuestRequestBody for T where T: http_body::Body<Data = Bytes, Error = Error> + Send + 'static
{}

fn guest_body<B>(body: B) -> impl GuestRequestBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    http_body_util::BodyExt::map_err(body, |error| Error::InternalError(Some(error.to_string())))
}
