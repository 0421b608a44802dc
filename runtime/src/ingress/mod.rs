//! HTTP in: accepts connections, finds the function a request is for, and answers.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use crate::{engine::{Engine, Call, GuestBody}, functions::snapshot::Snapshot, telemetry::metrics::Metrics, Shutdown, request_id::RequestId};
pub(crate) struct IngressParts { pub(crate) snapshot: Arc<arc_swap::ArcSwap<Snapshot>>, pub(crate) engine: Arc<Engine>, pub(crate) metrics: Metrics, pub(crate) config: IngressConfig }
pub(crate) struct Ingress(IngressParts);
impl Ingress {
    pub(crate) fn new(p: IngressParts) -> Self { Self(p) }
    pub(crate) async fn serve(self: Arc<Self>, l: tokio::net::TcpListener, s: Shutdown) {
        loop {
            let c = tokio::select!{ c = l.accept() => c, () = s.draining() => return };
            let Ok((c,_)) = c else { continue };
            let _ = c.set_nodelay(true);
            let me = self.clone();
            tokio::spawn(async move {
                let svc = hyper::service::service_fn(move |req: http::Request<hyper::body::Incoming>| { let me = me.clone(); async move { Ok::<_, std::convert::Infallible>(me.handle(req).await) } });
                let _ = hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(hyper_util::rt::TokioIo::new(c), svc).await;
            });
        }
    }
    async fn handle(&self, mut req: http::Request<hyper::body::Incoming>) -> http::Response<GuestBody> {
        let path = req.uri().path_and_query().map(|p| p.as_str().to_owned()).unwrap_or_default();
        let rest = path.strip_prefix('/').unwrap_or("");
        let (app, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let snap = self.0.snapshot.load();
        let Some(v) = snap.app(app).and_then(|a| a.choose(0)) else { return http::Response::builder().status(404).body(GuestBody::full("no\n".into())).unwrap_or_default2() };
        let f = &v.functions[0];
        *req.uri_mut() = format!("/{rest}").parse().unwrap_or_default();
        let meter = Arc::new(crate::engine::Meter::default());
        match self.0.engine.invoke(&f.program, Call { id: RequestId::new(), meter }, req).await {
            Ok(r) => r,
            Err(e) => http::Response::builder().status(e.code().status()).body(GuestBody::full(format!("{e}\n").into())).unwrap_or_default2(),
        }
    }
}
trait D { fn unwrap_or_default2(self) -> http::Response<GuestBody>; }
impl D for Result<http::Response<GuestBody>, http::Error> { fn unwrap_or_default2(self) -> http::Response<GuestBody> { match self { Ok(r) => r, Err(_) => http::Response::new(GuestBody::full(bytes::Bytes::new())) } } }


/// Where requests come in, and how patient the node is with clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Apps also answer on `<app>.<base_domain>`.
    pub base_domain: String,
    /// Whether apps answer on `/<app>/…`.
    pub path_routing: bool,
    /// Which requests are written to the node's log: `all`, `errors` or `off`.
    pub access_log: AccessLog,
    /// The most connections open at once; 0 derives it from the limit on open files.
    pub max_connections: usize,
    /// Seconds a new connection may stay silent.
    pub first_byte_timeout_s: u64,
    /// Seconds from the first byte of a request's head to its end.
    pub head_timeout_s: u64,
    /// Seconds between two pieces of a request's body.
    pub body_idle_timeout_s: u64,
    /// Seconds a client may leave an answer unread.
    pub write_idle_timeout_s: u64,
    /// Seconds a connection may stay open without a request.
    pub keep_alive_timeout_s: u64,
    /// The longest request target, in bytes.
    pub max_uri_bytes: usize,
    /// The largest header section of a request, in bytes.
    pub max_header_bytes: usize,
    /// The most header fields of a request.
    pub max_headers: usize,
    /// The most streams of one HTTP/2 connection.
    pub max_h2_streams: u32,
    /// Seconds that requests in flight get to finish when the node stops.
    pub drain_timeout_s: u64,
}

/// Which requests are written to the node's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// Every request.
    All,
    /// Requests that were answered with a 5xx.
    Errors,
    /// None.
    Off,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            base_domain: "localhost".to_owned(),
            path_routing: true,
            access_log: AccessLog::All,
            max_connections: 0,
            first_byte_timeout_s: 10,
            head_timeout_s: 10,
            body_idle_timeout_s: 30,
            write_idle_timeout_s: 30,
            keep_alive_timeout_s: 60,
            max_uri_bytes: 16 * 1024,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_h2_streams: 128,
            drain_timeout_s: 30,
        }
    }
}
