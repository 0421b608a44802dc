//! `wasi:http` for guests. Outbound requests are denied: there are no grants for them yet.

use http::{HeaderName, Request, Response, header};
use std::sync::{Arc, LazyLock};
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpHooks,
};

/// Bytes of one write to a response body.
const CHUNK_BYTES: usize = 32 << 10;
/// Writes to a response body that are held until the client has taken earlier ones.
const CHUNKS: usize = 15;

/// How `wasi:http` behaves here.
pub(super) struct Hooks;

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

    // Whoever lets a request through counts it: `Meter::sends`.
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _result: IoResult,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, IoResult)>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}
