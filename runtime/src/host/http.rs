//! `wasi:http` for guests.

use super::{
    Call, Caller,
    outbound::{self, Account, Sender},
};
use http::{HeaderName, Request, Response, header};
use std::sync::{Arc, LazyLock, Weak};
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpHooks,
};

/// Bytes of one write to a response body.
const CHUNK_BYTES: usize = 32 << 10;
/// Writes to a response body that are held until the client has taken earlier ones.
const CHUNKS: usize = 15;

/// How `wasi:http` behaves here, for one instance.
pub(crate) struct Hooks {
    /// The function. It has instances that wait, so these do not keep it.
    caller: Weak<dyn Caller>,
    /// The call at hand.
    call: Call,
    /// Made by its first request to somebody else: most calls send none.
    account: Option<Arc<Account>>,
}

impl Hooks {
    /// Those of an instance that works for this call of this function.
    pub(crate) fn new(caller: Weak<dyn Caller>, call: &Call) -> Self {
        Self { caller, call: call.clone(), account: None }
    }

    /// From now on another call is at hand.
    pub(super) fn serve(&mut self, call: &Call) {
        self.call = call.clone();
        self.account = None;
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

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
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
        let account = self.account.get_or_insert_with(|| outbound.account(&ancestry)).clone();
        let sender = Sender { caller, id, meter, ancestry, account };
        Box::new(async move {
            let response = outbound::send(outbound, sender, request, options).await?;
            // Connections are driven elsewhere; there is nothing left to wait for.
            let done: IoResult = Box::new(async { Ok(()) });
            Ok((response, done))
        })
    }
}
