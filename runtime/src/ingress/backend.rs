//! What the ingress needs of the rest of the node: who answers an address, and the answer.
//!
//! A seam for tests; in a node it is [`Node`] and nothing else.

use super::{
    body::RequestBody,
    router::{self, Key, Naming, NotFound, Route},
    sticky,
};
use crate::{
    engine::{Call, Engine, GuestBody, InvokeError, Program},
    functions::{
        guard::Guard,
        routing::Unmatched,
        snapshot::{LiveApp, LiveVersion, Snapshot},
    },
    request_id::RequestId,
    telemetry::{guest_logs::Event, metrics::FunctionMetrics},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use faas_api::{AppName, VersionId};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;
use jiff::Timestamp;
use std::sync::Arc;

/// Finds functions and calls them.
pub(super) trait Backend: Send + Sync + 'static {
    /// A function that was found.
    type Function: Function;
    /// The body of its answer.
    type Body: Body<Data = Bytes, Error = InvokeError> + Send + Unpin + 'static;

    /// The function that a request is for.
    fn find(&self, asked: Asked<'_>) -> Result<Found<Self::Function>, Missed>;

    /// Calls it.
    fn invoke(
        &self,
        function: &Self::Function,
        call: Call,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, InvokeError>> + Send;
}

/// What decides which function answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// As the client wrote it.
    pub(super) host: &'a str,
    /// As the client wrote it, without the query.
    pub(super) path: &'a str,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
}

/// A function that was found.
pub(super) struct Found<F> {
    pub(super) function: F,
    /// How many bytes of the path name its app.
    pub(super) prefix: usize,
    /// How many more the function does not see.
    pub(super) strip: usize,
    /// What makes the client come back to the same version: the value of a cookie.
    pub(super) stay: Option<u8>,
}

/// Nothing answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missed {
    /// There is nothing at this address.
    Address,
    /// There is something, with other methods.
    Method,
}

impl From<NotFound> for Missed {
    fn from(NotFound: NotFound) -> Self {
        Self::Address
    }
}

impl From<Unmatched> for Missed {
    fn from(unmatched: Unmatched) -> Self {
        match unmatched {
            Unmatched::Path => Self::Address,
            Unmatched::Method => Self::Method,
        }
    }
}

/// A function of a version of an app, as far as the ingress is concerned with it.
pub(super) trait Function: Send + Sync + Unpin + 'static {
    fn app(&self) -> &AppName;
    fn version(&self) -> VersionId;
    /// The version as `x-faas-version` carries it.
    fn version_header(&self) -> &HeaderValue;
    /// The largest request body, in bytes.
    fn body_limit(&self) -> u64;
    /// What stands before it, if anything does.
    fn guard(&self) -> Option<&Arc<Guard>>;
    fn metrics(&self) -> &FunctionMetrics;
    /// A request of it was answered with this status.
    fn answered(&self, status: u16);
    /// Appends to the app's log.
    fn log(&self, id: RequestId, time: Timestamp, event: Event<'_>);
}

/// The node: what is deployed, and the engine.
pub(super) struct Node {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) engine: Arc<Engine>,
    pub(super) naming: Naming,
}

/// A deployed function. It stays what it is while a request holds it, whatever is deployed since.
pub(super) struct Deployed {
    app: Arc<LiveApp>,
    version: Arc<LiveVersion>,
    program: Arc<Program>,
    guard: Option<Arc<Guard>>,
}

impl Backend for Node {
    type Function = Deployed;
    type Body = GuestBody;

    fn find(&self, asked: Asked<'_>) -> Result<Found<Deployed>, Missed> {
        let snapshot = self.snapshot.load();
        let find = |key: Key<'_>| match key {
            Key::Name(name) => snapshot.app(name),
            Key::Domain(domain) => snapshot.domain(domain),
        };
        let Route { app, version, prefix } =
            router::route(find, &self.naming, asked.host, asked.path)?;
        let mut stay = None;
        let version = match version {
            Some(version) => app.version(version),
            None if app.is_split() => {
                let lot;
                (lot, stay) = sticky::lot(app.sticky.as_ref(), asked.headers);
                app.choose(lot)
            }
            None => app.choose(0),
        }
        .ok_or(Missed::Address)?;
        let inside = match asked.path.get(prefix..) {
            None | Some("") => "/",
            Some(inside) => inside,
        };
        let host = router::without_port(asked.host);
        let (function, strip) = version.function(host, asked.method.as_str(), inside)?;
        let function = Deployed {
            app: app.clone(),
            version: version.clone(),
            program: function.program.clone(),
            guard: function.guard.clone(),
        };
        Ok(Found { function, prefix, strip, stay })
    }

    async fn invoke(
        &self,
        function: &Deployed,
        call: Call,
        request: Request<RequestBody>,
    ) -> Result<Response<GuestBody>, InvokeError> {
        self.engine.invoke(&function.program, call, request).await
    }
}

impl Function for Deployed {
    fn app(&self) -> &AppName {
        &self.app.name
    }

    fn version(&self) -> VersionId {
        self.version.id
    }

    fn version_header(&self) -> &HeaderValue {
        &self.version.header
    }

    fn body_limit(&self) -> u64 {
        self.program.limits().request_body_bytes
    }

    fn guard(&self) -> Option<&Arc<Guard>> {
        self.guard.as_ref()
    }

    fn metrics(&self) -> &FunctionMetrics {
        self.program.metrics()
    }

    fn answered(&self, status: u16) {
        if self.app.canary.is_some() {
            self.version.trial().count(status);
        }
    }

    fn log(&self, id: RequestId, time: Timestamp, event: Event<'_>) {
        self.program.log().push(self.program.origin(), id, time, event);
    }
}
