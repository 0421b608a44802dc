//! The API of the platform: deploy, list, roll back, logs, metrics and probes.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use crate::{functions::{Functions, address::Addresses}, deploy::{Deployer, DeployRequest}, telemetry::{metrics::Metrics, guest_logs::GuestLogs}, Shutdown};
pub(crate) struct AdminParts { pub(crate) functions: Arc<Functions>, pub(crate) deployer: Arc<Deployer>, pub(crate) logs: Arc<GuestLogs>, pub(crate) metrics: Metrics, pub(crate) addresses: Addresses, pub(crate) token: AdminToken, pub(crate) readiness: Readiness, pub(crate) config: AdminConfig, pub(crate) max_artifact_bytes: u64 }
pub(crate) struct AdminToken;
impl AdminToken { pub(crate) fn new(_: &str) -> Self { Self } }
#[derive(Clone)] pub(crate) struct Readiness;
impl Readiness { pub(crate) fn starting() -> Self { Self } pub(crate) fn ready(&self) {} pub(crate) fn draining(&self) {} }
pub(crate) struct Admin(AdminParts);
impl Admin {
    pub(crate) fn new(p: AdminParts) -> Self { Self(p) }
    pub(crate) async fn serve(self, l: tokio::net::TcpListener, s: Shutdown) {
        use axum::{extract::{Path, State}, routing::*};
        let me = Arc::new(self);
        let r = axum::Router::new().route("/v1/apps/{app}/deploy", post(async |State(me): State<Arc<Admin>>, Path(app): Path<String>, body: axum::body::Body| {
            let (tx, _rx) = tokio::sync::mpsc::unbounded_channel();
            let up = Box::pin(futures::StreamExt::map(body.into_data_stream(), |r| r.map_err(std::io::Error::other)));
            match me.0.deployer.deploy(DeployRequest { app: app.parse().unwrap_or_else(|_| panic!()), function: None, message: None, activate: true, created_by: "x".into() }, up, tx).await { Ok(d) => serde_json::to_string(&d).unwrap_or_default(), Err(e) => format!("{e} {:?}\n", e.body) }
        })).route("/metrics", get(async |State(me): State<Arc<Admin>>| me.0.metrics.render().unwrap_or_default())).route("/logs/{app}", get(async |State(me): State<Arc<Admin>>, Path(app): Path<String>| serde_json::to_string(&me.0.logs.app(&app.parse().unwrap_or_else(|_| panic!())).query(&Default::default())).unwrap_or_default())).layer(axum::extract::DefaultBodyLimit::disable()).with_state(me);
        let _ = axum::serve(l, r).with_graceful_shutdown(async move { s.draining().await }).await;
    }
}


/// Where the operator and the command line come in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows an address beyond loopback although this listener speaks no TLS.
    pub insecure: bool,
    /// Whether `/metrics`, `/livez` and `/readyz` answer without a token.
    pub open_probes: bool,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            insecure: false,
            open_probes: true,
        }
    }
}
