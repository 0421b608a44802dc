//! The composition root: opens the state, builds the engine, binds the listeners, drains.

use crate::{
    Config, Shutdown,
    admin::{Admin, AdminParts, AdminToken, Readiness},
    config::ConfigError,
    deploy::{Deployer, DeployerParts},
    engine::{self, ENGINE_RELEASE, Engine, EngineParts, PoolPlan},
    functions::{Functions, address::Addresses, canary, snapshot::SnapshotBuilder},
    host::outbound::{Listeners, Outbound},
    ingress::{Ingress, IngressParts},
    storage::{
        Blobs, Registry,
        data_dir::{DataDir, DataDirError},
        embedded,
    },
    telemetry::{self, guest_logs::GuestLogs, metrics::Metrics},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::HashMap, fmt::Display, io, net::SocketAddr, path::PathBuf, process::ExitCode,
    sync::Arc, time::Duration,
};
use tokio::net::TcpListener;

/// What a node says once it serves.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where requests come in.
    pub ingress: SocketAddr,
    /// Where the API is.
    pub admin: SocketAddr,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Whether the data directory was made just now.
    pub new: bool,
    /// The pool, in one line for people.
    pub pool: String,
    /// The release of the engine.
    pub engine: &'static str,
    /// How many apps are deployed.
    pub apps: usize,
    /// Where the admin token is.
    pub token_file: PathBuf,
}

/// Why a node did not start, or ended badly. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another server uses the data directory.
    #[error("{0}")]
    InUse(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

impl From<DataDirError> for RunError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::InUse { .. } => Self::InUse(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn failed(error: impl Display) -> RunError {
    RunError::Failed(error.to_string())
}

/// Serves until `shutdown` says otherwise. `ready` is called once, when both listeners answer.
///
/// The process's own executable must call [`compile_worker`] when its first argument is
/// `compile-worker`: that is how the node compiles.
///
/// # Errors
/// [`RunError`] when the node cannot start; a drained node ends with `Ok`.
pub async fn run(
    config: Config,
    shutdown: Shutdown,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    config.check()?;
    telemetry::log::start(&config.log)
        .map_err(|problem| ConfigError::Value { key: "log.filter", problem })?;
    allow_files();
    // Bound before anything else is touched: a taken port is the likeliest mistake.
    let ingress_listener = bind("ingress", config.ingress.listen).await?;
    let admin_listener = bind("admin", config.admin.listen).await?;
    let own = Listeners {
        ingress: ingress_listener.local_addr().map_err(failed)?,
        admin: admin_listener.local_addr().map_err(failed)?,
    };
    let node = Node::open(&config, own).await?;
    let readiness = Readiness::starting();
    // The admin listener outlives the ingress: probes must see the drain.
    let admin_shutdown = Shutdown::new();
    let admin = Admin::new(node.admin_parts(&config, readiness.clone()));
    ready(&node.ready(&ingress_listener, &admin_listener).map_err(failed)?);
    readiness.ready();

    let follow = tokio::spawn({
        let (functions, rev) = (node.functions.clone(), node.rev);
        async move {
            if let Err(error) = functions.follow(rev).await {
                tracing::error!(%error, "changes by others are not followed");
            }
        }
    });
    let tend = tokio::spawn({
        let engine = node.engine.clone();
        async move { engine.tend().await }
    });
    let trials = tokio::spawn({
        let functions = node.functions.clone();
        async move { canary::watch(&functions).await }
    });
    let sweep = tokio::spawn({
        let deployer = node.deployer.clone();
        async move {
            sweep(&deployer).await;
            catch_up(&deployer).await;
        }
    });
    let serving = async {
        let drained = node.ingress.clone().serve(ingress_listener, shutdown.clone()).await;
        admin_shutdown.drain();
        drained
    };
    let told = async {
        shutdown.draining().await;
        tracing::info!("draining");
        readiness.draining();
        shutdown.stopped().await;
        admin_shutdown.stop();
    };
    let both = async { tokio::join!(serving, admin.serve(admin_listener, admin_shutdown.clone())) };
    tokio::select! {
        _ = both => {}
        // Never first: it ends only after everything else was told to.
        () = async { told.await; std::future::pending().await } => {}
    }
    // They hold the records open; those are closed in order, which leaves one file and no log.
    for task in [follow, sweep, tend, trials] {
        task.abort();
        let _ = task.await;
    }
    drop(node);
    Ok(())
}

/// The parts of a node that listeners share.
struct Node {
    data_dir: DataDir,
    plan: PoolPlan,
    functions: Arc<Functions>,
    rev: u64,
    deployer: Arc<Deployer>,
    engine: Arc<Engine>,
    ingress: Arc<Ingress>,
    logs: Arc<GuestLogs>,
    metrics: Arc<Metrics>,
    addresses: Addresses,
}

impl Node {
    async fn open(config: &Config, own: Listeners) -> Result<Self, RunError> {
        let outbound = Outbound::new(&config.outbound, own)?;
        let data_dir = open_data_dir(config.resolved_data_dir()).await?;
        let (registry, blobs) = embedded::open(data_dir.path()).await.map_err(failed)?;
        let registry: Arc<dyn Registry> = Arc::new(registry);
        let blobs: Arc<dyn Blobs> = Arc::new(blobs);
        let metrics = Arc::new(Metrics::new().map_err(failed)?);
        let logs = Arc::new(GuestLogs::counted(config.log.function_lines, metrics.clone()));
        let plan = PoolPlan::for_this_machine(&config.engine, &config.limits, &config.max_limits);
        tracing::info!(pool = %plan, code = %plan.capacity, "sized for this machine");
        let engine = Engine::new(EngineParts {
            config: &config.engine,
            plan: &plan,
            deploy: &config.deploy,
            cache_dir: &data_dir.cache_dir(),
            node_key: *data_dir.node_key(),
            blobs: blobs.clone(),
            outbound,
            metrics: metrics.clone(),
        });
        let engine = Arc::new(engine.map_err(failed)?);
        let builder = SnapshotBuilder {
            engine: engine.clone(),
            limits: Arc::new(config.limits.clone()),
            maxima: config.max_limits.clone(),
            metrics: metrics.clone(),
            logs: logs.clone(),
            buried: HashMap::new(),
        };
        let keep_versions = config.deploy.keep_versions;
        let (functions, rev) =
            Functions::load(registry.clone(), blobs.clone(), builder, keep_versions)
                .await
                .map_err(failed)?;
        let functions = Arc::new(functions);
        let addresses =
            Addresses::new(own.ingress, &config.ingress.base_domain, config.ingress.path_routing);
        let deployer = Arc::new(Deployer::new(DeployerParts {
            functions: functions.clone(),
            blobs,
            registry,
            engine: engine.clone(),
            addresses: addresses.clone(),
            metrics: metrics.clone(),
            max_bytes: config.deploy.max_artifact_bytes,
            keep_versions,
            limits: Arc::new(config.limits.clone()),
            maxima: config.max_limits.clone(),
        }));
        let ingress = Ingress::new(IngressParts {
            snapshot: functions.snapshot(),
            engine: engine.clone(),
            metrics: metrics.clone(),
            config: config.ingress.clone(),
            log_format: config.log.format,
        });
        let ingress = Arc::new(ingress.map_err(failed)?);
        Ok(Self {
            data_dir,
            plan,
            functions,
            rev,
            deployer,
            engine,
            ingress,
            logs,
            metrics,
            addresses,
        })
    }

    fn admin_parts(&self, config: &Config, readiness: Readiness) -> AdminParts {
        AdminParts {
            functions: self.functions.clone(),
            deployer: self.deployer.clone(),
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            addresses: self.addresses.clone(),
            token: AdminToken::new(self.data_dir.token()),
            readiness,
            config: config.admin.clone(),
            max_artifact_bytes: config.deploy.max_artifact_bytes,
        }
    }

    fn ready(&self, ingress: &TcpListener, admin: &TcpListener) -> io::Result<Ready> {
        Ok(Ready {
            ingress: ingress.local_addr()?,
            admin: admin.local_addr()?,
            data_dir: self.data_dir.path().to_owned(),
            new: self.data_dir.is_new(),
            pool: self.plan.to_string(),
            engine: ENGINE_RELEASE,
            apps: self.functions.snapshot().load().len(),
            token_file: self.data_dir.token_file().to_owned(),
        })
    }
}

/// A child that was being started when the last server was killed may hold its lock for a moment.
async fn open_data_dir(path: PathBuf) -> Result<DataDir, RunError> {
    const ATTEMPTS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(100);
    let mut attempt = 1;
    loop {
        let path = path.clone();
        let opened = tokio::task::spawn_blocking(move || DataDir::open(&path));
        match opened.await.map_err(failed)? {
            Err(DataDirError::InUse { .. }) if attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}

/// Lets this process open as many files as it may: clients and loaded functions take one each, and
/// the usual limit is meant for programs that wait on them with `select`.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => RunError::Failed(format!(
            "the {name} address {address} is taken by another process; choose another with \
             `{name}.listen`, port 0 takes a free one"
        )),
        _ => RunError::Failed(format!("cannot listen on the {name} address {address}: {error}")),
    })
}

/// Removes what a stopped node may have left of deploys that were under way.
async fn sweep(deployer: &Deployer) {
    match deployer.sweep().await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed artifacts that no version refers to"),
        Err(error) => tracing::warn!(%error, "unused artifacts could not be removed"),
    }
}

/// Makes native code that another release of the engine left to make.
async fn catch_up(deployer: &Deployer) {
    match deployer.catch_up().await {
        Ok(0) => {}
        Ok(made) => tracing::info!(made, "made native code for this release of the engine"),
        Err(error) => tracing::warn!(%error, "native code could not be made ahead of requests"),
    }
}

/// The entry of the compile process: the host runs its own executable again with the hidden verb
/// `compile-worker`, so that hostile Wasm can only hurt a process with limits.
pub fn compile_worker() -> ExitCode {
    engine::compile_worker()
}
