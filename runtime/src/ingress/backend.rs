//! What the ingress needs of the rest of the node: who answers an address, and the answer.
//!
//! A seam for tests; in a node it is [`Node`] and nothing else.

use super::{
    body::RequestBody,
    router::{self, Naming, NotFound, Route},
};
use crate::{
    engine::{Call, Engine, GuestBody, InvokeError, Program},
    functions::snapshot::{LiveApp, LiveVersion, Snapshot},
    request_id::RequestId,
    telemetry::{guest_logs::Event, metrics::FunctionMetrics},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use faas_api::{AppName, VersionId};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use jiff::Timestamp;
use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

/// Finds functions and calls them.
pub(super) trait Backend: Send + Sync + 'static {
    /// A function that was found.
    type Function: Function;
    /// The body of its answer.
    type Body: Body<Data = Bytes, Error = InvokeError> + Send + Unpin + 'static;

    /// The function for a host and a path, and how much of the path names its app.
    fn find(&self, host: &str, path: &str) -> Result<(Self::Function, usize), NotFound>;

    /// Calls it.
    fn invoke(
        &self,
        function: &Self::Function,
        call: Call,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, InvokeError>> + Send;
}

/// A function of a version of an app, as far as the ingress is concerned with it.
pub(super) trait Function: Send + Sync + Unpin + 'static {
    fn app(&self) -> &AppName;
    fn version(&self) -> VersionId;
    /// The version as `x-faas-version` carries it.
    fn version_header(&self) -> &HeaderValue;
    /// The largest request body, in bytes.
    fn body_limit(&self) -> u64;
    fn metrics(&self) -> &FunctionMetrics;
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
}

impl Backend for Node {
    type Function = Deployed;
    type Body = GuestBody;

    fn find(&self, host: &str, path: &str) -> Result<(Deployed, usize), NotFound> {
        let snapshot = self.snapshot.load();
        let find = |name: &str| snapshot.app(name);
        let Route { app, version, prefix } = router::route(find, &self.naming, host, path)?;
        let version = match version {
            Some(version) => app.version(version),
            None if app.is_split() => app.choose(draw_lot()),
            None => app.choose(0),
        }
        .ok_or(NotFound)?;
        let inside = match path.get(prefix..) {
            None | Some("") => "/",
            Some(inside) => inside,
        };
        let function = version.function(inside).ok_or(NotFound)?;
        let deployed = Deployed {
            app: app.clone(),
            version: version.clone(),
            program: function.program.clone(),
        };
        Ok((deployed, prefix))
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

    fn metrics(&self) -> &FunctionMetrics {
        self.program.metrics()
    }

    fn log(&self, id: RequestId, time: Timestamp, event: Event<'_>) {
        self.program.log().push(self.program.origin(), id, time, event);
    }
}

/// A number from 0 to 99, to split traffic by. Fair and fast; nothing secret depends on it.
fn draw_lot() -> u8 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // SplitMix64 (Steele, Lea, Flood 2014), scaled down by multiplication.
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from(((mixed >> 33) * 100) >> 31).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_drawn_evenly() {
        let mut drawn = [0u32; 100];
        for _ in 0..100_000 {
            drawn[usize::from(draw_lot())] += 1;
        }
        assert!(drawn.iter().all(|n| (800..1200).contains(n)), "{drawn:?}");
    }
}
