//! HTTP in: accepts connections, finds the function a request is for, and answers.
//!
//! A request, top to bottom:
//!
//! | step | file | what happens |
//! |---|---|---|
//! | accept | `accept`, `crowd`, `lanes` | a place, a socket, a task on one thread |
//! | read | `connection` | TLS, which protocol; deadlines, drain, reset; every head seen whole |
//! | handle | `handle` | calls the rest in order; errors become responses here |
//! | check | `check` | is it HTTP, and for exactly one host |
//! | route | `router` | host and path to an app, pure |
//! | guard | `guard` | who may call, how often, from which pages; most functions have none |
//! | choose, call | `backend`, `sticky` | version and function from the snapshot; the engine |
//! | forward | `forward`, `body` | what the guest gets to see |
//! | respond | `respond`, `meter` | what the client gets to see; the request is counted once |
//!
//! Before the guest runs a request does no I/O but reading itself, spawns no task, arms no timer
//! and takes no lock – but for functions that say who may call them (`guard`).
//!
//! Known and accepted: a client that closes its connection without a reset looks like one that has
//! only finished sending, so its guest runs until it writes. What the `h2` crate answers by itself
//! – a header list over its limit, a malformed stream – has no body of ours. A bare LF inside the
//! trailers of a chunked request is a line end for hyper, which changes no framing. A bad head that
//! comes while the answer before it still waits to be written gets hyper's own words.

mod accept;
mod access_log;
mod backend;
mod body;
mod check;
mod connection;
mod crowd;
mod forward;
mod guard;
mod handle;
mod lanes;
mod meter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
mod proxies;
mod redirect;
mod respond;
mod router;
mod sticky;
#[cfg(test)]
mod tests;

use self::{
    accept::Room,
    access_log::Log,
    backend::Node,
    check::RequestLimits,
    connection::{Common, HeadLimits, Patience, Signals},
    crowd::{Crowd, CrowdLimits},
    guard::Guards,
    handle::{Shared, Visit},
    lanes::Lanes,
    meter::Books,
    redirect::Redirect,
    router::Naming,
};
use crate::{
    Shutdown,
    config::ConfigError,
    engine::Engine,
    functions::{keys::Keys, snapshot::Snapshot},
    telemetry::{LogFormat, metrics::Metrics},
    tls::{Acceptor, IngressTls},
};
pub(crate) use accept::max_connections;
pub use guard::AuthConfig;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use http::HeaderValue;
use ipnet::IpNet;
use proxies::Proxies;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore, time::timeout};
use tokio_util::task::TaskTracker;

/// How long a client gets to take note that its connection closes.
const CLOSING: Duration = Duration::from_secs(5);
/// How long connections get to end once they were told to end at once.
const CUT: Duration = Duration::from_secs(5);

/// Where requests come in, and how patient the node is with clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve connections; 0 is one for each core.
    pub threads: usize,
    /// Apps also answer on `<app>.<base_domain>`.
    pub base_domain: String,
    /// Whether apps answer on `/<app>/…`.
    pub path_routing: bool,
    /// Networks of proxies before the node whose `x-forwarded-for`, `-proto`, `-host` and
    /// `x-request-id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which requests are written to the node's log: `all`, `errors` or `off`.
    pub access_log: AccessLog,
    /// The most connections open at once; 0 derives it from the limit on open files.
    pub max_connections: usize,
    /// The most connections of one address, or of one IPv6 network of 64 bits. 0 is 512, and at most
    /// half of all, for addresses that are not loopback. Trusted proxies have no limit.
    pub max_connections_per_address: usize,
    /// What may be held for clients that are slow, of all connections together, in bytes.
    pub connection_memory_bytes: usize,
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
    /// Seconds between the moment `/readyz` turns 503 and the end of new connections when the node
    /// stops: as long as a load balancer in front takes to notice.
    pub drain_delay_s: u64,
    /// Seconds that requests in flight get to finish after that.
    pub drain_timeout_s: u64,
    /// A second address, without TLS, that sends every request to this one; port 0 takes a free one.
    #[serde(with = "optional_address")]
    pub http_redirect: Option<SocketAddr>,
    /// The certificates of this listener. Without any it speaks no TLS.
    pub tls: IngressTls,
}

/// No address is an empty string, so that every setting can be written.
mod optional_address {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::net::SocketAddr;

    #[expect(clippy::ref_option, reason = "serde gives the field as it is")]
    pub(super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.is_empty() {
            true => Ok(None),
            false => text.parse().map(Some).map_err(|_| {
                let what = de::Unexpected::Str(&text);
                de::Error::invalid_value(what, &"an address, such as \"0.0.0.0:80\"")
            }),
        }
    }
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
            threads: 0,
            base_domain: "localhost".to_owned(),
            path_routing: true,
            trusted_proxies: Vec::new(),
            access_log: AccessLog::All,
            max_connections: 0,
            max_connections_per_address: 0,
            connection_memory_bytes: 96 << 20,
            first_byte_timeout_s: 10,
            head_timeout_s: 10,
            body_idle_timeout_s: 30,
            write_idle_timeout_s: 30,
            keep_alive_timeout_s: 60,
            max_uri_bytes: 16 * 1024,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_h2_streams: 128,
            drain_delay_s: 0,
            drain_timeout_s: 30,
            http_redirect: None,
            tls: IngressTls::default(),
        }
    }
}

impl IngressConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first setting that cannot be used, and why.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let at_least_one = [
            ("ingress.first_byte_timeout_s", self.first_byte_timeout_s),
            ("ingress.head_timeout_s", self.head_timeout_s),
            ("ingress.body_idle_timeout_s", self.body_idle_timeout_s),
            ("ingress.write_idle_timeout_s", self.write_idle_timeout_s),
            ("ingress.keep_alive_timeout_s", self.keep_alive_timeout_s),
            ("ingress.connection_memory_bytes", self.connection_memory_bytes as u64),
            ("ingress.max_headers", self.max_headers as u64),
            ("ingress.max_h2_streams", u64::from(self.max_h2_streams)),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(ConfigError::Value { key, problem: "cannot be 0".to_owned() });
            }
        }
        // `http::Uri` holds no longer target; what is far beyond is no header section either.
        let at_most = [
            ("ingress.max_uri_bytes", self.max_uri_bytes, 64, 65_534),
            ("ingress.max_header_bytes", self.max_header_bytes, 1024, 1 << 20),
        ];
        for (key, value, low, high) in at_most {
            if !(low..=high).contains(&value) {
                let problem = format!("{value} is not between {low} and {high}");
                return Err(ConfigError::Value { key, problem });
            }
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        let domain = self.base_domain.trim_matches('.');
        if domain.is_empty() || !domain.bytes().all(allowed) {
            let problem = format!("`{}` is not a domain", self.base_domain.escape_debug());
            return Err(ConfigError::Value { key: "ingress.base_domain", problem });
        }
        if self.http_redirect.is_some() && !self.tls.is_on() {
            let problem = "leads nowhere: `ingress.tls` names no certificate".to_owned();
            return Err(ConfigError::Value { key: "ingress.http_redirect", problem });
        }
        self.tls.validate()
    }

    fn patience(&self) -> Patience {
        Patience {
            first_byte: Duration::from_secs(self.first_byte_timeout_s),
            head: Duration::from_secs(self.head_timeout_s),
            body_idle: Duration::from_secs(self.body_idle_timeout_s),
            write_idle: Duration::from_secs(self.write_idle_timeout_s),
            keep_alive: Duration::from_secs(self.keep_alive_timeout_s),
            closing: CLOSING,
        }
    }
}

/// What the ingress is made of.
pub(crate) struct IngressParts {
    /// Its settings.
    pub(crate) config: IngressConfig,
    /// How callers are checked.
    pub(crate) auth: AuthConfig,
    /// The apps' keys.
    pub(crate) keys: Arc<Keys>,
    /// What is deployed.
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// What runs it.
    pub(crate) engine: Arc<Engine>,
    /// Where requests are counted.
    pub(crate) metrics: Arc<Metrics>,
    /// How the node's log is written, and so the access log.
    pub(crate) log_format: LogFormat,
    /// Shakes hands, where the listener speaks TLS.
    pub(crate) tls: Option<Acceptor>,
}

/// Where clients come in.
pub(crate) struct Doors {
    /// For requests.
    pub(crate) requests: TcpListener,
    /// For requests without TLS, which are sent to the other one.
    pub(crate) redirect: Option<TcpListener>,
}

/// The door of the node.
pub(crate) struct Ingress {
    config: IngressConfig,
    common: Arc<Common>,
    shared: Arc<Shared<Node>>,
}

impl Ingress {
    /// Puts it together. The settings have been validated.
    ///
    /// # Errors
    /// When the system gives no more threads.
    ///
    /// # Panics
    /// Outside of an asynchronous runtime.
    pub(crate) fn new(parts: IngressParts) -> io::Result<Self> {
        let IngressParts { config, auth, keys, snapshot, engine, metrics, log_format, tls } = parts;
        let json = match log_format {
            LogFormat::Auto => !std::io::stderr().is_terminal(),
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let common = common(&config, tls)?;
        let domain = config.base_domain.trim_matches('.');
        let shared = Shared {
            backend: Node { snapshot, engine, naming: Naming::new(domain, config.path_routing) },
            books: Arc::new(Books {
                metrics,
                log: Log::new(config.access_log, json, access_log::standard_error()),
                cut: common.signals.cut.clone(),
            }),
            limits: RequestLimits { uri: config.max_uri_bytes, headers: config.max_headers },
            body_idle: common.patience.body_idle,
            default_host: HeaderValue::from_str(domain)
                .unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            scheme,
            proxies: Proxies::new(&config.trusted_proxies),
            guards: Guards::new(&auth, keys, Handle::current()),
        };
        Ok(Self { config, common: Arc::new(common), shared: Arc::new(shared) })
    }

    /// Serves its listeners until the node has drained or is stopped: stops accepting, lets what is
    /// in flight finish, and cuts off what has not when patience ends.
    pub(crate) async fn serve(self: Arc<Self>, doors: Doors, shutdown: Shutdown) {
        let room = self.room();
        let port = doors.requests.local_addr().map_or(0, |address| address.port());
        let visitor = |peer| Visit::new(self.shared.clone(), peer);
        let requests = accept::accept(doors.requests, room.clone(), self.common.clone(), visitor);
        let redirect = async {
            if let Some(listener) = doors.redirect {
                let common = Arc::new(Common { tls: None, ..Common::clone(&self.common) });
                let visitor = |_| Redirect::new(self.shared.clone(), port);
                accept::accept(listener, room.clone(), common, visitor).await;
            }
        };
        // Apart from each other, and not moved about with all that waits for them.
        let accepting = futures::future::join(Box::pin(requests), Box::pin(redirect)).map(drop);
        let drain = Drain {
            delay: Duration::from_secs(self.config.drain_delay_s),
            patience: Duration::from_secs(self.config.drain_timeout_s),
            afterwards: self.shared.backend.engine.afterwards().clone(),
        };
        tokio::select! {
            () = run(accepting, &self.common, drain, &shutdown) => {}
            // These never end.
            () = self.shared.guards.tend() => {}
            () = room.crowd.watch_burden() => {}
        }
        // The log's thread is waited for outside the asynchronous threads.
        let shared = self.shared.clone();
        let _ = tokio::task::spawn_blocking(move || shared.books.log.flush()).await;
    }

    /// Where all connections find a place.
    fn room(&self) -> Room {
        let config = &self.config;
        let connections = max_connections(config.max_connections, usize::MAX);
        tracing::info!(max_connections = connections, "the ingress accepts requests");
        let limits = CrowdLimits {
            of_one_address: config.max_connections_per_address,
            connections,
            burden: config.connection_memory_bytes,
        };
        let proxies = Proxies::new(&config.trusted_proxies);
        let metrics = self.shared.books.metrics.connections.clone();
        Room {
            slots: Arc::new(Semaphore::new(connections)),
            crowd: Crowd::new(limits, proxies, metrics),
        }
    }
}

fn common(config: &IngressConfig, tls: Option<Acceptor>) -> io::Result<Common> {
    Ok(Common {
        patience: config.patience(),
        heads: HeadLimits { uri: config.max_uri_bytes, headers: config.max_header_bytes },
        max_headers: config.max_headers,
        max_h2_streams: config.max_h2_streams,
        signals: Signals::default(),
        tasks: TaskTracker::new(),
        lanes: Lanes::start(config.threads)?.into(),
        tls,
    })
}

/// How long the end takes.
struct Drain {
    /// Until no connection is accepted any more.
    delay: Duration,
    /// Until what is in flight then is cut off.
    patience: Duration,
    /// What functions still do after their responses.
    afterwards: TaskTracker,
}

/// Accepts, drains, cuts. `accepting` ends when the drain begins, and the listener with it.
async fn run(
    accepting: impl Future<Output = ()>,
    common: &Common,
    Drain { delay, patience, afterwards }: Drain,
    shutdown: &Shutdown,
) {
    let signals = &common.signals;
    let switched = async {
        shutdown.draining().await;
        // Probes say so already; whoever has not asked them yet still finds the node.
        let _ = timeout(delay, shutdown.stopped()).await;
        signals.drain.cancel();
    };
    tokio::join!(accepting, switched);
    common.tasks.close();
    let finished = async {
        common.tasks.wait().await;
        // Only now no more can begin.
        afterwards.close();
        afterwards.wait().await;
    };
    tokio::select! {
        biased;
        () = shutdown.stopped() => tracing::warn!("stopping at once"),
        drained = timeout(patience, finished) => if drained.is_err() {
            tracing::warn!(
                connections = common.tasks.len(), afterwards = afterwards.len(), ?patience,
                "requests are cut off: they did not finish within `ingress.drain_timeout_s`"
            );
        }
    }
    signals.cut.cancel();
    if timeout(CUT, common.tasks.wait()).await.is_err() {
        tracing::error!(tasks = common.tasks.len(), "connections did not end when they were cut");
    }
}
