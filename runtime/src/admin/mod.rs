//! The API of the platform: deploy, list, roll back, logs, metrics and probes.
//!
//! | part | what it does |
//! |---|---|
//! | this file | settings, parts, and the route table |
//! | `serve` | accepts connections, drains, stops |
//! | `gate` | one request, top to bottom: id, origin, token, route, answer |
//! | `auth`, `origin` | who asks, and from where |
//! | `access` | what each operation needs of a token: the one place that checks it |
//! | `audit` | who changed what: every change is recorded here |
//! | `revocation` | answers that go on end with their token |
//! | `extract` | paths, queries and bodies become types, or an error that says why not |
//! | `error` | the only place that makes an error's response |
//! | `deploy`, `release`, `apps`, `versions`, `traffic`, `keys` | endpoints of apps |
//! | `logs`, `usage`, `tokens`, `audit`, `backup`, `observe` | endpoints of the node |
//! | `env`, `secrets`, `configuration` | an app's variables and secrets, and what these have in common |
//! | `openapi` | the description of all this, generated from the endpoints |

mod access;
mod apps;
mod audit;
mod auth;
mod backup;
mod configuration;
mod deploy;
mod env;
mod error;
mod extract;
mod gate;
mod keys;
mod logs;
mod observe;
mod openapi;
mod origin;
mod readiness;
mod release;
mod revocation;
mod secrets;
mod serve;
#[cfg(test)]
mod tests;
mod tokens;
mod traffic;
mod usage;
mod versions;

pub(crate) use auth::AdminToken;
pub(crate) use backup::Backups;
pub(crate) use deploy::Deploys;
pub(crate) use readiness::Readiness;

use crate::{
    Shutdown,
    configuration::Configs,
    functions::{Functions, address::Addresses, keys::Keys},
    storage::Journal,
    telemetry::{guest_logs::GuestLogs, metrics::Metrics, usage::UsageKeeper},
    tls::{Acceptor, TlsFiles},
    tokens::Tokens,
};
use axum::middleware::from_fn;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serve::Patience;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::{router::OpenApiRouter, routes};

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
    /// How many days the audit log remembers a change.
    pub audit_days: u32,
    /// The certificate of this listener. Without one it speaks no TLS.
    pub tls: TlsFiles,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            insecure: false,
            open_probes: true,
            audit_days: 365,
            tls: TlsFiles::default(),
        }
    }
}

/// What the API acts on.
pub(crate) struct AdminParts {
    /// What is deployed.
    pub(crate) functions: Arc<Functions>,
    /// What apps were given besides their versions.
    pub(crate) configs: Arc<Configs>,
    /// The apps' API keys.
    pub(crate) keys: Arc<Keys>,
    /// Who deploys; a [`crate::deploy::Deployer`] outside of tests.
    pub(crate) deployer: Arc<dyn Deploys>,
    /// The apps' logs.
    pub(crate) logs: Arc<GuestLogs>,
    /// The node's metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// What functions used.
    pub(crate) usage: Arc<UsageKeeper>,
    /// Who takes backups; a [`crate::backup::Backup`] outside of tests.
    pub(crate) backup: Arc<dyn Backups>,
    /// Where apps answer.
    pub(crate) addresses: Addresses,
    /// The server's own token, which may do everything.
    pub(crate) token: AdminToken,
    /// The tokens that were made.
    pub(crate) tokens: Arc<Tokens>,
    /// Where changes are recorded.
    pub(crate) journal: Arc<dyn Journal>,
    /// Whether the node can take requests.
    pub(crate) readiness: Readiness,
    /// The listener's settings.
    pub(crate) config: AdminConfig,
    /// The largest artifact, in bytes.
    pub(crate) max_artifact_bytes: u64,
    /// Shakes hands, where the listener speaks TLS.
    pub(crate) tls: Option<Acceptor>,
}

/// The API, ready to be served.
pub(crate) struct Admin {
    parts: AdminParts,
    patience: Patience,
}

impl Admin {
    /// An API on these parts.
    pub(crate) fn new(parts: AdminParts) -> Self {
        Self { parts, patience: Patience::default() }
    }

    /// Answers requests until `shutdown` says otherwise. While it drains, deploys that are under
    /// way finish, new ones are refused, and everything else is still answered.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: Shutdown) {
        serve::run(self, listener, shutdown).await;
    }
}

/// What the endpoints work with.
struct Api {
    parts: AdminParts,
    patience: Patience,
    shutdown: Shutdown,
    /// Deploys under way: the drain waits for them.
    deploys: TaskTracker,
    /// Changes under way: they end, and are recorded, whether or not their clients wait.
    changes: TaskTracker,
    /// Cuts off what the drain did not wait for.
    cut: CancellationToken,
    /// The description of this API, as JSON.
    openapi: Bytes,
}

/// The state as handlers take it.
type State = axum::extract::State<Arc<Api>>;

/// The route table. Everything needs a token but for what [`auth::is_open`] names; what a token
/// must be good for, each endpoint's description says.
fn routes(limit: Duration) -> OpenApiRouter<Arc<Api>> {
    openapi::router()
        .routes(routes!(apps::list))
        .routes(routes!(apps::describe, apps::delete))
        .routes(routes!(versions::list))
        .routes(routes!(versions::pin, versions::unpin))
        .routes(routes!(versions::describe))
        .routes(routes!(versions::activate))
        .routes(routes!(traffic::put))
        .routes(routes!(env::list, env::put, env::clear))
        .routes(routes!(env::get, env::set_one, env::unset))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::put, secrets::remove))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(logs::read))
        .routes(routes!(usage::of_node))
        .routes(routes!(usage::of_app))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::whoami))
        .routes(routes!(audit::read))
        .routes(routes!(logs::read_all))
        .routes(routes!(openapi::document))
        .routes(routes!(observe::metrics))
        .routes(routes!(observe::livez))
        .routes(routes!(observe::readyz))
        // What stands above has to answer in time; an upload and a copy take the time they take.
        .layer(from_fn(move |request, next| gate::in_time(limit, request, next)))
        .routes(routes!(deploy::deploy))
        .routes(routes!(release::create))
        .routes(routes!(release::put_blob))
        .routes(routes!(backup::take))
}
