//! `wasi:http` for guests.

use super::{
    Call, Caller, HostState,
    outbound::{self, Account, Sender},
};
use http::{HeaderName, Request, Response, header};
use std::sync::{Arc, LazyLock, Weak};
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpHooks, WasiHttpView,
    p2::bindings::http::types as p2, p3, p3::bindings::http::types as p3_types,
};

/// Bytes of one write to a body.
const CHUNK_BYTES: usize = 32 << 10;
/// Writes to a body that are held until its reader has taken earlier ones.
const CHUNKS: usize = 15;
/// Bodies of one call that get as much. Each keeps what was written to it until somebody takes it,
/// and nobody ever may: later ones get less, so that all together stay below 32 MiB.
const ROOMY_BODIES: usize = 32;
/// Bodies beyond these get as little as works.
const USUAL_BODIES: usize = 128;
/// Bytes of all fields of a message that a guest makes.
pub(super) const FIELDS_BYTES: usize = 64 << 10;

/// Characters of a method or a scheme that has no name in `wasi:http`.
const WORD_LENGTH: usize = 64;
/// Characters of an authority: a name of DNS with a port, and room.
const AUTHORITY_LENGTH: usize = 512;
/// Characters of a path with its query.
const PATH_LENGTH: usize = 16 << 10;

/// How `wasi:http` behaves here, for one instance.
pub(crate) struct Hooks {
    /// The function. It has instances that wait, so these do not keep it.
    caller: Weak<dyn Caller>,
    /// The call at hand.
    call: Call,
    /// Made by its first request to somebody else: most calls send none.
    account: Option<Arc<Account>>,
    /// Bodies it has made in this call, and whatever calls before it have left.
    bodies: usize,
}

impl Hooks {
    /// Those of an instance that works for this call of this function.
    pub(crate) fn new(caller: Weak<dyn Caller>, call: &Call) -> Self {
        Self { caller, call: call.clone(), account: None, bodies: 0 }
    }

    /// From now on another call is at hand. Earlier ones have left so many resources.
    pub(super) fn serve(&mut self, call: &Call, left: usize) {
        self.call = call.clone();
        self.account = None;
        self.bodies = left;
    }
}

/// Fields that belong to the connection and not to the message (RFC 9110 §7.6.1); a guest neither
/// sees nor sets them.
fn is_forbidden(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::HOST
        || *name == header::PROXY_AUTHENTICATE
        || *name == header::PROXY_AUTHORIZATION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "http2-settings" | "keep-alive" | "proxy-connection")
}

static FILTER: LazyLock<ForbiddenHeaderFilter> = LazyLock::new(|| Arc::new(is_forbidden));

type Outcome = std::result::Result<(), Error>;
type IoResult = Box<dyn Future<Output = Outcome> + Send>;

impl WasiHttpHooks for Hooks {
    // The provided method allocates a filter per header; requests are full of headers.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        FILTER.clone()
    }

    // Asked for once for every body, before the size of its chunks.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        self.bodies = self.bodies.saturating_add(1);
        if self.bodies <= ROOMY_BODIES { CHUNKS } else { 1 }
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        if self.bodies <= USUAL_BODIES { CHUNK_BYTES } else { CHUNK_BYTES / 8 }
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        2 * CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _result: IoResult,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, IoResult)>> + Send> {
        // A function that is gone has no grants.
        let caller = self.caller.upgrade();
        let Some((caller, outbound)) =
            caller.and_then(|caller| caller.outbound().map(|outbound| (caller, outbound)))
        else {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        let Call { id, meter, ancestry } = self.call.clone();
        let account = self
            .account
            .get_or_insert_with(|| outbound.account(&ancestry, caller.subrequests()))
            .clone();
        let sender = Sender { caller, id, meter, ancestry, account };
        Box::new(async move {
            let response = outbound::send(outbound, sender, request, options).await?;
            // Connections are driven elsewhere; there is nothing left to wait for.
            let done: IoResult = Box::new(async { Ok(()) });
            Ok((response, done))
        })
    }
}

/// Texts of requests that `wasi:http` of WASI 0.2 takes at any length, and keeps.
pub(super) fn link_02(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    use p2::HostOutgoingRequest as _;
    type State<'a> = StoreContextMut<'a, HostState>;
    type Request = Resource<p2::OutgoingRequest>;
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut state: State<'_>, (request, method): (Request, p2::Method)| {
            let long = matches!(&method, p2::Method::Other(name) if name.len() > WORD_LENGTH);
            unless(long, || state.data_mut().http().set_method(request, method))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-scheme",
        |mut state: State<'_>, (request, scheme): (Request, Option<p2::Scheme>)| {
            let long = matches!(&scheme, Some(p2::Scheme::Other(name)) if name.len() > WORD_LENGTH);
            unless(long, || state.data_mut().http().set_scheme(request, scheme))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut state: State<'_>, (request, authority): (Request, Option<String>)| {
            let long = is_long(authority.as_ref(), AUTHORITY_LENGTH);
            unless(long, || state.data_mut().http().set_authority(request, authority))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut state: State<'_>, (request, path): (Request, Option<String>)| {
            let long = is_long(path.as_ref(), PATH_LENGTH);
            unless(long, || state.data_mut().http().set_path_with_query(request, path))
        },
    )
}

/// The same of WASI 0.3.
pub(super) fn link_03(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    use p3_types::HostRequest as _;
    type State<'a> = StoreContextMut<'a, HostState>;
    type Request = Resource<p3::Request>;
    let mut types = linker.instance("wasi:http/types@0.3.0")?;
    types.func_wrap(
        "[method]request.set-method",
        |mut state: State<'_>, (request, method): (Request, p3_types::Method)| {
            let long = matches!(&method, p3_types::Method::Other(name) if name.len() > WORD_LENGTH);
            unless(long, || state.data_mut().http().set_method(request, method))
        },
    )?;
    types.func_wrap(
        "[method]request.set-scheme",
        |mut state: State<'_>, (request, scheme): (Request, Option<p3_types::Scheme>)| {
            let long =
                matches!(&scheme, Some(p3_types::Scheme::Other(name)) if name.len() > WORD_LENGTH);
            unless(long, || state.data_mut().http().set_scheme(request, scheme))
        },
    )?;
    types.func_wrap(
        "[method]request.set-authority",
        |mut state: State<'_>, (request, authority): (Request, Option<String>)| {
            let long = is_long(authority.as_ref(), AUTHORITY_LENGTH);
            unless(long, || state.data_mut().http().set_authority(request, authority))
        },
    )?;
    types.func_wrap(
        "[method]request.set-path-with-query",
        |mut state: State<'_>, (request, path): (Request, Option<String>)| {
            let long = is_long(path.as_ref(), PATH_LENGTH);
            unless(long, || state.data_mut().http().set_path_with_query(request, path))
        },
    )
}

fn is_long(text: Option<&String>, most: usize) -> bool {
    text.is_some_and(|text| text.len() > most)
}

type Set = std::result::Result<(), ()>;

/// What is too long is refused as what is not well formed.
fn unless(long: bool, set: impl FnOnce() -> wasmtime::Result<Set>) -> wasmtime::Result<(Set,)> {
    Ok((if long { Err(()) } else { set()? },))
}
