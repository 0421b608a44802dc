//! The composition root: opens the state, builds the engine, binds the listeners, drains.

use crate::{
    Config, Shutdown, Sockets,
    admin::{Admin, AdminParts, AdminToken, Readiness},
    backup::Backup,
    clock,
    config::ConfigError,
    configuration::{self, Configs},
    deploy::{Deployer, DeployerParts},
    engine::{self, ENGINE_RELEASE, Engine, EngineParts, PoolPlan},
    functions::{Functions, address::Addresses, canary, keys::Keys, snapshot::SnapshotBuilder},
    host::outbound::{Outbound, OwnAddresses},
    ingress::{Ingress, IngressConfig, IngressParts},
    listeners::{self, Listeners},
    storage::{
        Blobs, Journal, Registry, UsageStore,
        data_dir::{DataDir, DataDirError},
        embedded,
    },
    telemetry::{
        self,
        guest_logs::{Disk, GuestLogs, Sizes, disk::DiskLimits},
        metrics::Metrics,
        usage::UsageKeeper,
    },
    tls::{Acceptor, AcmeConfig, Tls},
    tokens::Tokens,
};
use jiff::{SignedDuration, Timestamp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
    io,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// What a node says once it serves.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where requests come in.
    pub ingress: SocketAddr,
    /// Where the API is.
    pub admin: SocketAddr,
    /// Whether requests come in over TLS.
    pub ingress_tls: bool,
    /// Whether the API speaks TLS.
    pub admin_tls: bool,
    /// Where requests without TLS come in that are sent to the ingress.
    pub redirect: Option<SocketAddr>,
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

impl Ready {
    /// The ingress as an address to go to.
    pub fn ingress_url(&self) -> String {
        url(self.ingress_tls, self.ingress)
    }

    /// The API as an address to go to.
    pub fn admin_url(&self) -> String {
        url(self.admin_tls, self.admin)
    }
}

fn url(tls: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}

/// Why a node did not start, or ended badly. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket that the node was given cannot be used.
    #[error("{0}")]
    Sockets(String),
    /// Another server uses the data directory.
    #[error("{0}")]
    InUse(String),
    /// Another process has an address.
    #[error("{0}")]
    Taken(String),
    /// Others can write to the data directory, or it is somebody else's.
    #[error("{0}")]
    Unsafe(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

impl From<DataDirError> for RunError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::InUse { .. } => Self::InUse(error.to_string()),
            DataDirError::Unsafe { .. } => Self::Unsafe(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn failed(error: impl Display) -> RunError {
    RunError::Failed(error.to_string())
}

/// Serves until `shutdown` says otherwise. `ready` is called once, when both listeners answer.
///
/// Where `sockets` were given to the node, it listens on those instead of the addresses in `config`,
/// and waits for another node that uses the data directory to end: it is that one's successor, and
/// clients wait in the queue of the sockets.
///
/// The process's own executable must call [`compile_worker`] when its first argument is
/// `compile-worker`: that is how the node compiles.
///
/// # Errors
/// [`RunError`] when the node cannot start; a drained node ends with `Ok`.
pub async fn run(
    mut config: Config,
    sockets: Sockets,
    shutdown: Shutdown,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    let given = sockets.take_over(&mut config);
    config.check()?;
    let _last_lines = telemetry::log::start(&config.log)
        .map_err(|problem| ConfigError::Value { key: "log.filter", problem })?;
    allow_files();
    for listener in given {
        tracing::info!(%listener, "listens on a socket that it was given");
    }
    let secrets = Secrets::read(&config)?;
    let Some((listeners, data_dir)) = begin(&config, sockets, &shutdown).await? else {
        return Ok(());
    };
    let own = listeners.own().map_err(failed)?;
    let (node, secrets) = Box::pin(Node::open(&config, data_dir, own, secrets)).await?;
    let readiness = Readiness::starting();
    // The admin listener outlives the ingress: probes must see the drain.
    let admin_shutdown = Shutdown::new();
    let admin = Admin::new(node.admin_parts(&config, readiness.clone()));
    ready(&node.ready(&config, &listeners).map_err(failed)?);
    // Behind what people are told first.
    tracing::info!(pool = %node.plan, code = %node.plan.capacity, "sized for this machine");
    let Listeners { doors, admin: admin_listener } = listeners;
    readiness.ready();

    let mut background = node.background(&config, secrets);
    let serving = async {
        let drained = node.ingress.clone().serve(doors, shutdown.clone()).await;
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
    background.shutdown().await;
    node.usage.flush().await;
    if tokio::time::timeout(LAST_WRITES, node.tokens.write_uses()).await.is_err() {
        tracing::warn!("when tokens were last used is not written down: the disk takes too long");
    }
    // Its successor, which waits for the directory, finds records closed and logs complete.
    let (_data_dir, logs) = node.close();
    // Whatever went wrong with it was told already.
    let _ = tokio::task::spawn_blocking(move || logs.finish()).await;
    Ok(())
}

/// Takes what only one node can have: the addresses and the data directory. Nothing when the node was
/// told to stop before it had them.
async fn begin(
    config: &Config,
    sockets: Sockets,
    shutdown: &Shutdown,
) -> Result<Option<(Listeners, DataDir)>, RunError> {
    let path = config.resolved_data_dir();
    if sockets.is_empty() {
        // Before anything else is touched: a taken port is the likeliest mistake.
        let listeners = Listeners::open(config, sockets)?;
        return Ok(Some((listeners, open_data_dir(path, CHILD).await?)));
    }
    // The other way round: the node before may have an address that was not given.
    let data_dir = tokio::select! {
        data_dir = open_data_dir(path, listeners::patience(config)) => data_dir?,
        () = shutdown.draining() => return Ok(None),
    };
    Ok(Some((Listeners::open(config, sockets)?, data_dir)))
}

/// The TLS of both listeners.
struct Secrets {
    ingress: Option<Tls>,
    admin: Option<Tls>,
}

impl Secrets {
    fn read(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            ingress: Tls::ingress(&config.ingress.tls, &config.resolved_data_dir())?,
            admin: Tls::admin(&config.admin.tls)?,
        })
    }

    /// Takes up what was got from an authority before, for the domains of now.
    fn recall(&mut self, config: &Config, functions: &Functions) -> io::Result<()> {
        let Some(tls) = &mut self.ingress else {
            return Ok(());
        };
        if let Some(domains) = tls.domains() {
            domains.set(certified(&config.ingress.tls.acme, functions));
        }
        tls.recall()
    }

    /// Keeps all certificates fresh, for ever.
    async fn tend(self) {
        let each = [self.ingress, self.admin].into_iter().flatten().map(Tls::tend);
        futures::future::join_all(each).await;
    }
}

/// The domains to ask an authority for.
fn certified(acme: &AcmeConfig, functions: &Functions) -> BTreeSet<String> {
    let mut domains = acme.domains();
    if acme.app_domains {
        let snapshot = functions.snapshot().load_full();
        domains.extend(snapshot.domains().map(|domain| domain.as_str().to_owned()));
    }
    domains
}

/// The parts of a node that listeners share.
struct Node {
    data_dir: DataDir,
    plan: PoolPlan,
    functions: Arc<Functions>,
    rev: u64,
    tokens: Arc<Tokens>,
    tokens_rev: u64,
    journal: Arc<dyn Journal>,
    configs: Arc<Configs>,
    configs_rev: u64,
    keys: Arc<Keys>,
    keys_rev: u64,
    deployer: Arc<Deployer>,
    engine: Arc<Engine>,
    ingress: Arc<Ingress>,
    logs: Arc<GuestLogs>,
    metrics: Arc<Metrics>,
    usage: Arc<UsageKeeper>,
    addresses: Addresses,
    admin_tls: Option<Acceptor>,
}

impl Node {
    #[expect(clippy::too_many_lines, reason = "who is given what, in order: one list")]
    async fn open(
        config: &Config,
        data_dir: DataDir,
        own: OwnAddresses,
        mut secrets: Secrets,
    ) -> Result<(Self, Secrets), RunError> {
        let metrics = Arc::new(Metrics::new().map_err(failed)?);
        let open = metrics.outbound_connections.clone();
        let outbound = Outbound::new(&config.outbound, own, open)?;
        let (registry, blobs) = embedded::open(data_dir.path()).await.map_err(failed)?;
        let records = Arc::new(registry);
        let registry: Arc<dyn Registry> = records.clone();
        let usage_store: Arc<dyn UsageStore> = records.clone();
        let journal: Arc<dyn Journal> = records;
        let blobs: Arc<dyn Blobs> = Arc::new(blobs);
        let given = configuration::load(&*registry, &config.secrets, &data_dir);
        let given = given.await.map_err(failed)?;
        let usage = UsageKeeper::new(metrics.ledger.clone(), usage_store);
        let beside = config.beside_instances();
        let logs = open_logs(config, &data_dir, beside.logs, metrics.clone()).await;
        let (limits, most) = (&config.limits, &config.max_limits);
        let plan = PoolPlan::for_this_machine(&config.engine, limits, most, beside.bytes);
        if let Some(warning) = plan.warning(&config.engine) {
            tracing::warn!("{warning}");
        }
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
            environments: given.environments,
        };
        let keep_versions = config.deploy.keep_versions;
        let (tokens, tokens_rev) = Tokens::load(registry.clone()).await.map_err(failed)?;
        let (functions, rev) =
            Functions::load(registry.clone(), blobs.clone(), builder, keep_versions)
                .await
                .map_err(failed)?;
        let functions = Arc::new(functions);
        logs.forget_others();
        secrets.recall(config, &functions).map_err(failed)?;
        let configs = Configs::new(registry.clone(), functions.clone(), given.sealer);
        let configs = Arc::new(configs);
        let apps = functions.snapshot().load().apps().map(|app| app.name.clone()).collect();
        let (keys, keys_rev) = Keys::load(registry.clone(), &apps).await.map_err(failed)?;
        let keys = Arc::new(keys);
        let addresses =
            Addresses::new(own.ingress, &config.ingress.base_domain, config.ingress.path_routing)
                .over_tls(secrets.ingress.is_some());
        let deployer = Arc::new(Deployer::new(DeployerParts {
            functions: functions.clone(),
            configs: configs.clone(),
            blobs,
            registry,
            engine: engine.clone(),
            addresses: addresses.clone(),
            metrics: metrics.clone(),
            config: config.deploy.clone(),
            limits: Arc::new(config.limits.clone()),
            maxima: config.max_limits.clone(),
        }));
        let ingress = Ingress::new(IngressParts {
            snapshot: functions.snapshot(),
            engine: engine.clone(),
            metrics: metrics.clone(),
            config: IngressConfig { max_connections: beside.connections, ..config.ingress.clone() },
            auth: config.auth.clone(),
            keys: keys.clone(),
            log_format: config.log.format,
            tls: secrets.ingress.as_ref().map(Tls::acceptor),
        });
        let ingress = Arc::new(ingress.map_err(failed)?);
        let node = Self {
            data_dir,
            plan,
            functions,
            rev,
            tokens: Arc::new(tokens),
            tokens_rev,
            journal,
            configs,
            configs_rev: given.rev,
            keys,
            keys_rev,
            deployer,
            engine,
            ingress,
            logs,
            metrics,
            usage,
            addresses,
            admin_tls: secrets.admin.as_ref().map(Tls::acceptor),
        };
        Ok((node, secrets))
    }

    fn admin_parts(&self, config: &Config, readiness: Readiness) -> AdminParts {
        AdminParts {
            functions: self.functions.clone(),
            configs: self.configs.clone(),
            keys: self.keys.clone(),
            deployer: self.deployer.clone(),
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            usage: self.usage.clone(),
            backup: Arc::new(Backup::new(self.data_dir.path(), self.deployer.clone())),
            addresses: self.addresses.clone(),
            token: AdminToken::new(self.data_dir.token()),
            tokens: self.tokens.clone(),
            journal: self.journal.clone(),
            readiness,
            config: config.admin.clone(),
            max_artifact_bytes: config.deploy.max_artifact_bytes,
            tls: self.admin_tls.clone(),
        }
    }

    /// What goes on beside the requests, until the node ends.
    fn background(&self, config: &Config, secrets: Secrets) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let (functions, rev) = (self.functions.clone(), self.rev);
        tasks.spawn(async move { if_lost("apps", functions.follow(rev).await) });
        let (tokens, rev) = (self.tokens.clone(), self.tokens_rev);
        tasks.spawn(async move { if_lost("tokens", tokens.follow(rev).await) });
        let (configs, rev) = (self.configs.clone(), self.configs_rev);
        tasks.spawn(async move { if_lost("configurations", configs.follow(rev).await) });
        let (keys, rev) = (self.keys.clone(), self.keys_rev);
        tasks.spawn(async move { if_lost("keys", keys.follow(rev).await) });
        let (tokens, journal) = (self.tokens.clone(), self.journal.clone());
        let audit_days = config.admin.audit_days;
        tasks.spawn(async move { keep_records(&tokens, &*journal, audit_days).await });
        let engine = self.engine.clone();
        tasks.spawn(async move { engine.tend().await });
        let functions = self.functions.clone();
        tasks.spawn(async move { canary::watch(&functions).await });
        let (usage, usage_config) = (self.usage.clone(), config.usage.clone());
        tasks.spawn(async move { usage.run(usage_config).await });
        if let Some(domains) = secrets.ingress.as_ref().and_then(Tls::domains).cloned() {
            let (functions, acme) = (self.functions.clone(), config.ingress.tls.acme.clone());
            tasks.spawn(async move {
                let mut changes = functions.changes();
                loop {
                    domains.set(certified(&acme, &functions));
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            });
        }
        tasks.spawn(Box::pin(secrets.tend()));
        let deployer = self.deployer.clone();
        tasks.spawn(async move {
            sweep(&deployer).await;
            catch_up(&deployer).await;
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                sweep(&deployer).await;
            }
        });
        tasks
    }

    /// Lets go of everything but the data directory, and what still writes there.
    fn close(self) -> (DataDir, Arc<GuestLogs>) {
        (self.data_dir, self.logs)
    }

    fn ready(&self, config: &Config, listeners: &Listeners) -> io::Result<Ready> {
        let Listeners { doors, admin } = listeners;
        Ok(Ready {
            ingress: doors.requests.listener.local_addr()?,
            admin: admin.local_addr()?,
            ingress_tls: config.ingress.tls.is_on(),
            admin_tls: config.admin.tls.is_on(),
            redirect: doors.redirect.as_ref().map(|door| door.listener.local_addr()).transpose()?,
            data_dir: self.data_dir.path().to_owned(),
            new: self.data_dir.is_new(),
            pool: self.plan.to_string(),
            engine: ENGINE_RELEASE,
            apps: self.functions.snapshot().load().len(),
            token_file: self.data_dir.token_file().to_owned(),
        })
    }
}

/// The logs of functions. A folder for them that cannot be used keeps no node from serving.
async fn open_logs(
    config: &Config,
    data_dir: &DataDir,
    memory: u64,
    metrics: Arc<Metrics>,
) -> Arc<GuestLogs> {
    let log = &config.log;
    let limits = DiskLimits { bytes: log.disk_bytes, segment_bytes: log.segment_bytes };
    let dir = data_dir.logs_dir();
    let opened = match log.disk_bytes {
        0 => None,
        _ => {
            let dir = dir.clone();
            let open = tokio::task::spawn_blocking(move || Disk::open(&dir, limits));
            Some(open.await.map_err(io::Error::other).flatten())
        }
    };
    let disk = opened.and_then(|opened| {
        let dir = dir.display();
        let told = |error| tracing::error!(%error, %dir, "functions' logs are kept in memory only");
        opened.map_err(told).ok()
    });
    let (lines, bytes_per_s) = (log.function_lines, log.function_bytes_per_s);
    Arc::new(GuestLogs::new(Sizes { lines, memory, bytes_per_s }, metrics, disk))
}

/// A child that was being started when the last server was killed may hold its lock for a moment.
const CHILD: Duration = Duration::from_secs(1);

/// Opens the data directory, and waits for so long at most while another server uses it.
async fn open_data_dir(path: PathBuf, patience: Duration) -> Result<DataDir, RunError> {
    const PAUSE: Duration = Duration::from_millis(25);
    let start = Instant::now();
    let mut told = false;
    loop {
        let path = path.clone();
        let opened = tokio::task::spawn_blocking(move || DataDir::open(&path));
        match opened.await.map_err(failed)? {
            Err(DataDirError::InUse(path)) if start.elapsed() < patience => {
                if patience > CHILD && !std::mem::replace(&mut told, true) {
                    let data_dir = path.display();
                    tracing::info!(%data_dir, ?patience, "waits for the node before to end");
                }
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

/// Changes by others are followed for as long as the node lives, and it is said if they are not.
fn if_lost<E: Display>(what: &str, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::error!(%error, "changes of {what} by others are not followed");
    }
}

/// How long a node that ends waits for its disk.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Writes down when tokens were used, and forgets what is old, every hour.
async fn keep_records(tokens: &Tokens, journal: &dyn Journal, audit_days: u32) {
    const PERIOD: Duration = Duration::from_secs(60 * 60);
    loop {
        let now = clock::now();
        tokens.forget_ended(now).await;
        let kept = SignedDuration::from_hours(24 * i64::from(audit_days));
        // What is before the beginning of time is the beginning of time.
        let before = now.checked_sub(kept).unwrap_or(Timestamp::MIN);
        match journal.trim(before).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(dropped, "old entries of the audit log are dropped"),
            Err(error) => tracing::warn!(%error, "the audit log could not be shortened"),
        }
        tokio::time::sleep(PERIOD).await;
        tokens.write_uses().await;
    }
}

/// How often artifacts are removed that were sent for a deploy which never came.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

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
