//! One instance for one request: make the store, instantiate, call, and see it through to its end.

use super::{
    Call, InvokeError, Program, cgi,
    guest::{GuestFuture, HeadSlot, guest_error},
    prepared::Prepared,
};
use crate::{
    host::{
        Budget, HOSTCALL_FUEL, HostState, MAX_HANDLES, MemoryBudget, ModuleState,
        stdio::{CallLog, LogStream},
    },
    telemetry::guest_logs::LogBudget,
};
use bytes::Bytes;
use http::{HeaderValue, Request, header::HOST, uri::Authority};
use prometheus::Histogram;
use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};
use wasmtime::{Engine, InstancePre, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::{
    Error, FieldMap, WasiHttpView,
    p2::bindings::{ProxyPre, http::types::Scheme},
    p3,
    p3::bindings::ServicePre,
};

/// What every instance needs, apart from its program and its call.
#[derive(Clone)]
pub(super) struct Ground {
    /// The memory all instances share.
    pub(super) memory: Arc<MemoryBudget>,
    /// How long making an instance takes.
    pub(super) instance_start: Histogram,
}

impl Ground {
    /// The guest's future: runs nothing until it is polled. The head of the response appears in
    /// the slot.
    pub(super) fn guest<B>(
        &self,
        program: &Arc<Program>,
        call: &Call,
        request: Request<B>,
        head: HeadSlot,
    ) -> Result<GuestFuture, InvokeError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let prepared = program
            .prepared()
            .ok_or_else(|| InvokeError::Internal("called before it was loaded".to_owned()))?;
        let limits = &program.limits;
        let budget = Budget::new(
            limits.memory_bytes,
            limits.table_elements,
            Duration::from_millis(limits.cpu_ms),
            self.memory.clone(),
            call.meter.clone(),
        );
        let log = LogStream::new(CallLog {
            log: program.log.clone(),
            origin: program.origin.clone(),
            request_id: call.id,
            budget: LogBudget::new(limits.log_bytes),
        });
        let ground = self.clone();
        Ok(match prepared {
            Prepared::Http02(pre) => {
                let pre = pre.clone();
                let state = HostState::new(log, budget);
                Box::pin(ground.http_02(pre, state, request, head))
            }
            Prepared::Http03(pre) => {
                let pre = pre.clone();
                let state = HostState::new(log, budget);
                Box::pin(ground.http_03(pre, state, request, head))
            }
            Prepared::Cgi02(pre) => {
                let (streams, output) = cgi::streams(request, log, head)?;
                let state = HostState::cgi(streams, budget);
                Box::pin(ground.cgi_02(pre.clone(), state, output))
            }
            Prepared::Cgi01(pre) => {
                let (streams, output) = cgi::streams(request, log, head)?;
                let state = ModuleState::cgi(streams, budget);
                Box::pin(ground.cgi_01(pre.clone(), state, output))
            }
        })
    }

    /// WASI 0.2: the guest sets its response, then writes its body, then returns.
    async fn http_02<B>(
        self,
        pre: ProxyPre<HostState>,
        state: HostState,
        request: Request<B>,
        head: HeadSlot,
    ) -> Result<(), InvokeError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        let mut store = component_store(pre.engine(), state);
        let mut http = store.data_mut().http();
        let request =
            http.new_incoming_request(Scheme::Http, request_02(request)).map_err(internal)?;
        let out = http
            .new_response_outparam_from_callback(move |response| {
                head.set(response.map_err(|code| {
                    InvokeError::Trap(format!("the function answered with the error {code:?}"))
                }));
            })
            .map_err(internal)?;
        let outcome = async {
            let proxy = pre.instantiate_async(&mut store).await?;
            self.instance_start.observe(started.elapsed().as_secs_f64());
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
        }
        .await;
        outcome.map_err(|error| guest_error(&error, store.data().budget.refused()))
    }

    /// WASI 0.3: the guest returns its response, and tasks of the same store write the body.
    async fn http_03<B>(
        self,
        pre: ServicePre<HostState>,
        state: HostState,
        request: Request<B>,
        head: HeadSlot,
    ) -> Result<(), InvokeError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        let mut store = component_store(pre.engine(), state);
        let (request, sent) = request_03(&mut store, request);
        let outcome = async {
            let service = pre.instantiate_async(&mut store).await?;
            self.instance_start.observe(started.elapsed().as_secs_f64());
            store
                .run_concurrent(async |accessor| {
                    let response = match service.handle(accessor, request).await? {
                        Ok(response) => response,
                        Err(code) => {
                            head.set(Err(InvokeError::Trap(format!(
                                "the function answered with the error {code:?}"
                            ))));
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
        .await;
        outcome.map_err(|error| guest_error(&error, store.data().budget.refused()))
    }

    /// A component that is called as CGI: its standard output is the response.
    async fn cgi_02(
        self,
        pre: CommandPre<HostState>,
        state: HostState,
        output: cgi::Output,
    ) -> Result<(), InvokeError> {
        let started = Instant::now();
        let mut store = component_store(pre.engine(), state);
        let outcome = async {
            let command = pre.instantiate_async(&mut store).await?;
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
        self,
        pre: InstancePre<ModuleState>,
        state: ModuleState,
        output: cgi::Output,
    ) -> Result<(), InvokeError> {
        let started = Instant::now();
        let mut store = Store::new(pre.module().engine(), state);
        store.limiter(|state| &mut state.budget);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store: StoreContextMut<'_, ModuleState>| {
            tick(&store.data().budget)
        });
        let outcome = async {
            let instance = pre.instantiate_async(&mut store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            self.instance_start.observe(started.elapsed().as_secs_f64());
            start.call_async(&mut store, ()).await
        }
        .await;
        let outcome = outcome.map_err(|error| guest_error(&error, store.data().budget.refused()));
        output.end(outcome)
    }
}

/// A component's store, with every limit on before the first instruction.
fn component_store(engine: &Engine, state: HostState) -> Store<HostState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.budget);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(MAX_HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store: StoreContextMut<'_, HostState>| {
        tick(&store.data().budget)
    });
    store
}

/// At every tick a guest gives way to others of its thread, or ends.
fn tick(budget: &Budget) -> wasmtime::Result<UpdateDeadline> {
    budget.check_cpu()?;
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
fn request_03<B>(
    store: &mut Store<HostState>,
    request: Request<B>,
) -> (p3::Request, impl Future<Output = Result<(), Error>> + Send + 'static)
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (parts, body) = request.into_parts();
    let host = parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = parts.uri.authority().cloned().or(host);
    let path = parts.uri.path_and_query().cloned();
    let headers = FieldMap::new_immutable(store.data_mut().http().hooks, parts.headers);
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

fn internal(error: wasmtime::Error) -> InvokeError {
    InvokeError::Internal(format!("{error:#}"))
}
