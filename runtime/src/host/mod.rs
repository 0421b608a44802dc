//! What a guest may ask for, and how much of it.
//!
//! Every context a guest can reach denies everything until a grant says otherwise: no
//! network, no files, no environment but what its app was given. `wasmtime` is named here and in
//! `engine/`, nowhere else.

pub(crate) mod budget;
pub(crate) mod environment;
mod http;
mod logging;
pub(crate) mod offers;
pub(crate) mod outbound;
pub(crate) mod stdio;
pub(crate) mod stopwatch;

pub(crate) use budget::{
    Budget, CpuExhausted, MAX_INSTANCES, MAX_MEMORIES, MAX_TABLES, MemoryAccount, MemoryBudget,
    Meter, NodeOutOfMemory, Pressure,
};
pub(crate) use environment::Environment;
pub use outbound::OutboundConfig;

use crate::request_id::RequestId;
use ::http::{Request, Response};
use faas_api::{AppName, OutboundHost, outbound::Sibling};
pub(crate) use http::Hooks;
use outbound::{Ancestry, Outbound};
use std::{pin::Pin, sync::Arc};
use stdio::LogStream;
use wasmtime::{Result, component::Linker};
use wasmtime_wasi::{
    ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    cli::{StdinStream, StdoutStream},
    p1::WasiP1Ctx,
};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

/// Handles of a component, and what runs at once inside of it.
pub(crate) const MAX_HANDLES: usize = 10_000;
/// Resources of the host that a call may hold: fields, bodies, requests to others. Each may be as
/// large as [`http`] lets it become.
pub(crate) const MAX_RESOURCES: usize = 1024;
/// So many more for every other request that an instance serves at the same time.
const RESOURCES_PER_REQUEST: usize = 32;
/// Bytes that one host call may copy out of a guest.
pub(crate) const HOSTCALL_FUEL: usize = 4 << 20;
/// The same of a core module, where buffers count that are read into or written from without being
/// copied: this is the largest buffer of one read or write.
pub(crate) const MODULE_FUEL: usize = 32 << 20;
/// Bytes of random data that one host call gives.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// One call of a program.
#[derive(Clone)]
pub(crate) struct Call {
    /// The request's id.
    pub(crate) id: RequestId,
    /// What the call uses; the caller keeps a clone and reads it when the answer has ended.
    pub(crate) meter: Arc<Meter>,
    /// The calls that led to it.
    pub(crate) ancestry: Ancestry,
}

impl Call {
    /// The call that an instance works for which is made before there is one.
    pub(crate) fn of_nobody() -> Self {
        let (meter, ancestry) = (Arc::default(), Ancestry::default());
        Self { id: RequestId::new(), meter, ancestry }
    }
}

/// The function that an instance is of, as far as what it sends is concerned. What is above this
/// level stands behind it.
pub(crate) trait Caller: Send + Sync {
    /// Its app.
    fn app(&self) -> &AppName;

    /// The hosts it may send requests to.
    fn grants(&self) -> &[OutboundHost];

    /// What sends them; none while the node ends.
    fn outbound(&self) -> Option<Arc<Outbound>>;

    /// Says in its log, in the name of a request, why something is refused or failed.
    fn tell(&self, request: RequestId, text: &str);

    /// How many requests one call of it may send, with those of the calls it makes.
    fn subrequests(&self) -> u32;

    /// Counts a request that it sent, by the class of the answer or why there is none.
    fn count(&self, code: &str);

    /// Counts a limit of what it sends that was reached.
    fn reached(&self, limit: &str);

    /// Calls another function of the same version, or the one whose route takes the request. `None`
    /// when there is none. Dropping the future, and then the body, cancels the call.
    fn call_sibling(
        &self,
        callee: Sibling<'_>,
        id: RequestId,
        ancestry: Ancestry,
        request: Request<WasiBody>,
    ) -> Option<SiblingAnswer>;
}

/// What a function answers another one with.
pub(crate) type SiblingAnswer =
    Pin<Box<dyn Future<Output = std::result::Result<Response<WasiBody>, Error>> + Send>>;

/// What a component's store carries.
pub(crate) struct HostState {
    /// Clocks, random numbers, streams and so on: made when the guest first asks for one of them,
    /// because answering a request needs none.
    wasi: Option<WasiCtx>,
    /// What they will be connected with.
    streams: Streams,
    /// Its function's variables and secrets.
    environment: Option<Arc<Environment>>,
    http: WasiHttpCtx,
    hooks: Hooks,
    table: ResourceTable,
    /// What the instance may use.
    pub(crate) budget: Budget,
}

/// The standard streams of a component.
enum Streams {
    /// It speaks HTTP by itself; both of its outputs are log lines.
    Log(LogStream),
    /// It is called as CGI: what its context will be made of, and where its log goes.
    Cgi(Option<CgiStreams>, LogStream),
}

impl HostState {
    /// The state of a component that speaks HTTP by itself; both of its outputs are log lines.
    pub(crate) fn new(
        output: LogStream,
        environment: Option<Arc<Environment>>,
        budget: Budget,
        hooks: Hooks,
    ) -> Self {
        Self::with(Streams::Log(output), environment, budget, hooks)
    }

    /// It will serve so many requests at once.
    pub(crate) fn shared_by(mut self, requests: u32) -> Self {
        let others = (requests as usize).saturating_sub(1);
        self.table.set_max_capacity(MAX_RESOURCES + others * RESOURCES_PER_REQUEST);
        self
    }

    /// The state of a component that is called as CGI.
    pub(crate) fn cgi(cgi: CgiStreams, budget: Budget, hooks: Hooks) -> Self {
        let (log, environment) = (cgi.log.clone(), cgi.environment.clone());
        Self::with(Streams::Cgi(Some(cgi), log), environment, budget, hooks)
    }

    fn is_cgi(&self) -> bool {
        matches!(self.streams, Streams::Cgi(..))
    }

    fn with(
        streams: Streams,
        environment: Option<Arc<Environment>>,
        budget: Budget,
        hooks: Hooks,
    ) -> Self {
        let mut table = ResourceTable::with_capacity(16);
        table.set_max_capacity(MAX_RESOURCES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(self::http::FIELDS_BYTES);
        Self { wasi: None, streams, environment, http, hooks, table, budget }
    }

    /// The same instance serves another request: what is counted and logged is that request's.
    pub(crate) fn serve(&mut self, call: &Call) {
        self.join(call);
        self.budget.serve(call.meter.clone());
    }

    /// The instance waits for its next request.
    pub(crate) fn rest(&self) {
        if let Streams::Log(output) = &self.streams {
            output.rest();
        }
    }

    /// What is logged and sent from now on is this call's.
    pub(crate) fn join(&mut self, call: &Call) {
        if let Streams::Log(output) = &self.streams {
            output.serve(call.id);
        }
        let left = self.table.iter_mut().count();
        self.hooks.serve(call, left);
    }

    /// Where its log goes.
    fn output(&self) -> &LogStream {
        match &self.streams {
            Streams::Log(output) | Streams::Cgi(_, output) => output,
        }
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let streams = &mut self.streams;
        let ctx = self.wasi.get_or_insert_with(|| match streams {
            Streams::Log(output) => {
                denied().stdout(output.stdout()).stderr(output.stderr()).build()
            }
            Streams::Cgi(cgi, _) => cgi.take().map_or_else(denied, CgiStreams::context).build(),
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl IoView for HostState {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for HostState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// What a core module's store carries.
pub(crate) struct ModuleState {
    wasi: WasiP1Ctx,
    /// What the instance may use.
    pub(crate) budget: Budget,
}

impl ModuleState {
    /// The state of a core module, which is called as CGI.
    pub(crate) fn cgi(cgi: CgiStreams, budget: Budget) -> Self {
        Self { wasi: cgi.context().build_p1(), budget }
    }
}

/// What a CGI program gets: its meta-variables, and three streams (RFC 3875 §4, §6).
pub(crate) struct CgiStreams {
    /// Meta-variables, as the environment.
    pub(crate) variables: Vec<(String, String)>,
    /// Its function's variables and secrets; meta-variables win over them.
    pub(crate) environment: Option<Arc<Environment>>,
    /// The request's body.
    pub(crate) stdin: Box<dyn StdinStream + Sync>,
    /// The response: header block and body.
    pub(crate) stdout: Box<dyn StdoutStream + Sync>,
    /// Where log lines go.
    pub(crate) log: LogStream,
}

impl CgiStreams {
    fn context(self) -> WasiCtxBuilder {
        let mut wasi = denied();
        let others = self.environment.iter().flat_map(|environment| environment.pairs());
        for (name, value) in others {
            if self.variables.iter().all(|(variable, _)| variable != name) {
                wasi.env(name, value);
            }
        }
        wasi.envs(&self.variables)
            .arg("function")
            .stdin(self.stdin)
            .stdout(self.stdout)
            .stderr(self.log.stderr());
        wasi
    }
}

/// A context that grants nothing.
fn denied() -> WasiCtxBuilder {
    let mut wasi = WasiCtxBuilder::new();
    wasi.allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(MAX_RANDOM_BYTES);
    wasi
}

/// Everything a component of WASI 0.2 may import.
pub(crate) fn link_02(linker: &mut Linker<HostState>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // In place of its own `wasi:io`, which would make the whole context for nothing but the table.
    linker.allow_shadowing(true);
    wasmtime_wasi_io::add_to_linker_async(linker)?;
    linker.allow_shadowing(false);
    environment::link_02(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    http::link_02(linker)?;
    linker.allow_shadowing(false);
    logging::link(linker)
}

/// Everything a component of WASI 0.3 may import: toolchains mix 0.2 interfaces in, so those too.
pub(crate) fn link_03(linker: &mut Linker<HostState>) -> Result<()> {
    link_02(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    environment::link_03(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    linker.allow_shadowing(true);
    http::link_03(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Everything a core module may import.
pub(crate) fn link_01(linker: &mut wasmtime::Linker<ModuleState>) -> Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |state| &mut state.wasi)
}
