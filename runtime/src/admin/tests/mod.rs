//! Tests of the API as a client sees it. Answers are compared with the description of the API:
//! a status that an endpoint does not describe fails the test that met it.

mod access;
mod apps;
mod backup;
mod configuration;
mod deploy;
mod keys;
mod logs;
mod matrix;
mod tokens;
mod usage;
mod wire;

use super::{gate::Gate, *};
use crate::{
    backup::{BackupError, Pieces},
    configuration::{Key, Sealer},
    deploy::{AppDeploy, DeployError, DeployRequest, Outcome, Progress, Upload},
    engine::{Engine, EngineConfig, EngineParts, Limits, Maxima, PoolPlan},
    functions::{
        Added, DeployConfig,
        environments::Environments,
        keys::Keys,
        record::{GoLive, NewVersion},
        snapshot::SnapshotBuilder,
    },
    host::outbound::{Outbound, OutboundConfig, OwnAddresses},
    storage::{
        Change, Doc, DocKey, Expect, Registry, Rev, StorageError,
        memory::{MemoryBlobs, MemoryJournal, MemoryRegistry, MemoryUsage},
    },
};
use async_trait::async_trait;
use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use faas_api::{
    AppName, DeployEvent, Deployed, Digest, ErrorBody, ErrorCode, Function, Kind, Planned,
    Settings, Stored,
};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU8, Ordering},
    },
};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc, oneshot};

const TOKEN: &str = "faas_c0ffee";
const WASM: &str = "\0asm pretend";

/// What a failing disk does.
const WORKS: u8 = 0;
const FAILS: u8 = 1;
const FULL: u8 = 2;
const HANGS: u8 = 3;
const PANICS: u8 = 4;

/// A registry whose disk does what a test says.
#[derive(Default)]
struct Disk {
    inner: MemoryRegistry,
    mood: AtomicU8,
}

impl Disk {
    async fn ready(&self) -> Result<(), StorageError> {
        match self.mood.load(Ordering::SeqCst) {
            FAILS => Err(StorageError::Failed("/secret/path".into())),
            FULL => Err(StorageError::Full("/secret/path".into())),
            HANGS => std::future::pending().await,
            PANICS => panic!("/secret/path"),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Registry for Disk {
    async fn get(&self, key: &DocKey) -> Result<Option<Doc>, StorageError> {
        self.ready().await?;
        self.inner.get(key).await
    }
    async fn put(&self, key: &DocKey, body: Bytes, expect: Expect) -> Result<Rev, StorageError> {
        self.inner.put(key, body, expect).await
    }
    async fn delete(&self, key: &DocKey, expect: Expect) -> Result<Rev, StorageError> {
        self.inner.delete(key, expect).await
    }
    async fn list(&self, prefix: &str) -> Result<(Vec<(DocKey, Doc)>, Rev), StorageError> {
        self.ready().await?;
        self.inner.list(prefix).await
    }
    async fn settled(&self) -> Result<(), StorageError> {
        self.ready().await
    }
    async fn watch(
        &self,
        prefix: &str,
        after: Rev,
    ) -> Result<mpsc::Receiver<Change>, StorageError> {
        self.inner.watch(prefix, after).await
    }
}

/// A deployer that takes anything: what it does is in the bytes it gets.
struct Pretender {
    functions: Arc<Functions>,
    addresses: Addresses,
    /// A deploy goes on after its upload when there is a permit.
    go: Semaphore,
    /// How each upload ended: its size, or why it did not.
    uploads: mpsc::UnboundedSender<Result<usize, String>>,
    /// The app of each deploy that was done.
    done: mpsc::UnboundedSender<String>,
    sweeps: mpsc::UnboundedSender<()>,
}

#[async_trait]
impl Deploys for Pretender {
    async fn deploy(
        &self,
        request: DeployRequest,
        mut upload: Upload,
        progress: Progress,
    ) -> Result<Deployed, DeployError> {
        let mut bytes = Vec::new();
        while let Some(piece) = upload.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => {
                    self.uploads.send(Err(error.to_string())).unwrap();
                    return Err(ErrorBody::new(ErrorCode::BadRequest).into());
                }
            }
        }
        self.uploads.send(Ok(bytes.len())).unwrap();
        let (size, digest) = (bytes.len() as u64, Digest::of(&bytes));
        let (new, duration_ms) = (true, 1);
        // Nobody may be listening.
        let _ = progress.send(DeployEvent::Received { size, digest, new, duration_ms });
        self.go.acquire().await.unwrap().forget();
        match bytes.as_slice() {
            b"bad" => {
                return Err(ErrorBody::new(ErrorCode::InvalidWasm).detail("not Wasm").into());
            }
            b"boom" => {
                let body = ErrorBody::new(ErrorCode::Internal).detail("/secret/path");
                return Err(body.into());
            }
            b"panic" => panic!("/secret/path"),
            _ => {}
        }
        let DeployRequest { app, function, message, activate, created_by, .. } = request;
        let function = function.unwrap_or_else(|| "main".parse().unwrap());
        let functions = vec![function_of(function.as_str(), digest)];
        let new = version(created_by, functions.clone(), activate);
        let new = NewVersion { message, ..new };
        let added = self.functions.add_version(&app, new).await.unwrap();
        let Added { version, previous, traffic, replayed } = added;
        self.done.send(app.to_string()).unwrap();
        Ok(Deployed {
            function,
            version,
            kind: Kind::Cgi01,
            digest,
            size,
            reuse: None,
            active: activate,
            functions,
            previous,
            traffic,
            replayed,
            urls: self.addresses.of(&app),
            url: self.addresses.main(&app),
            preview_url: self.addresses.preview(&app, version),
            duration_ms,
            app,
        })
    }

    async fn deploy_app(&self, deploy: AppDeploy, _: Progress) -> Result<Outcome, DeployError> {
        let missing = deploy.new.manifest.digests();
        Ok(Outcome::Planned(Planned { missing, dry_run: deploy.new.dry_run }))
    }

    async fn store(
        &self,
        digest: Digest,
        _by: &str,
        mut upload: Upload,
    ) -> Result<Stored, DeployError> {
        let mut bytes = Vec::new();
        while let Some(piece) = upload.next().await {
            let piece = piece.map_err(|_| ErrorBody::new(ErrorCode::BadRequest))?;
            bytes.extend_from_slice(&piece);
        }
        match Digest::of(&bytes) == digest {
            true => Ok(Stored { digest, size: bytes.len() as u64, new: true }),
            false => Err(ErrorBody::new(ErrorCode::DigestMismatch).into()),
        }
    }

    async fn sweep(&self) -> Result<usize, DeployError> {
        self.sweeps.send(()).unwrap();
        Ok(0)
    }
}

/// Backups that a test writes.
#[derive(Default)]
struct Shelf {
    next: Mutex<Option<Result<Pieces, BackupError>>>,
}

#[async_trait]
impl Backups for Shelf {
    async fn begin(&self) -> Result<Pieces, BackupError> {
        // Where no test says otherwise, there is nothing in it.
        self.next.lock().unwrap().take().unwrap_or_else(|| Ok(mpsc::channel(1).1))
    }
}

fn function_of(name: &str, digest: Digest) -> Function {
    Function {
        name: name.parse().unwrap(),
        kind: Kind::Cgi01,
        digest,
        size: 7,
        route: "/*".into(),
        reuse: None,
        settings: Settings::default(),
    }
}

fn version(created_by: String, functions: Vec<Function>, activate: bool) -> NewVersion {
    NewVersion {
        created_by,
        message: Some("hello".into()),
        functions,
        functions_at: None,
        domains: vec![],
        health: None,
        deploy: None,
        go_live: if activate { GoLive::All } else { GoLive::No },
    }
}

/// A node that is nothing but its API.
struct Node {
    disk: Arc<Disk>,
    functions: Arc<Functions>,
    configs: Arc<Configs>,
    keys: Arc<Keys>,
    logs: Arc<GuestLogs>,
    tokens: Arc<Tokens>,
    journal: Arc<MemoryJournal>,
    deployer: Arc<Pretender>,
    uploads: mpsc::UnboundedReceiver<Result<usize, String>>,
    done: mpsc::UnboundedReceiver<String>,
    sweeps: mpsc::UnboundedReceiver<()>,
    readiness: Readiness,
    shutdown: Shutdown,
    spec: Value,
    metrics: Arc<Metrics>,
    usage: Arc<UsageKeeper>,
    shelf: Arc<Shelf>,
    addresses: Addresses,
    config: AdminConfig,
    patience: Patience,
    tls: Option<Acceptor>,
    _cache: TempDir,
}

impl Node {
    async fn new() -> Self {
        let cache = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let logs = Arc::new(GuestLogs::counted(1000, metrics.clone()));
        let disk = Arc::new(Disk::default());
        let builder = SnapshotBuilder {
            engine: engine(&cache, &metrics),
            limits: Arc::default(),
            maxima: Maxima::default(),
            metrics: metrics.clone(),
            logs: logs.clone(),
            buried: HashMap::new(),
            environments: Environments::default(),
        };
        let (functions, _) =
            Functions::load(disk.clone(), Arc::new(MemoryBlobs::default()), builder, 20)
                .await
                .unwrap();
        let functions = Arc::new(functions);
        let (tokens, _) = Tokens::load(disk.clone()).await.unwrap();
        let sealer = Sealer::new(&Key::new([7; 32], "a test"));
        let configs = Arc::new(Configs::new(disk.clone(), functions.clone(), sealer));
        let (keys, _) = Keys::load(disk.clone(), &HashSet::new()).await.unwrap();
        let addresses = Addresses::new(([127, 0, 0, 1], 8080).into(), "localhost", true);
        let (uploads, seen_uploads) = mpsc::unbounded_channel();
        let (done, seen_done) = mpsc::unbounded_channel();
        let (sweeps, seen_sweeps) = mpsc::unbounded_channel();
        let deployer = Pretender {
            functions: functions.clone(),
            addresses: addresses.clone(),
            go: Semaphore::new(1000),
            uploads,
            done,
            sweeps,
        };
        let readiness = Readiness::starting();
        readiness.ready();
        Self {
            disk,
            functions,
            configs,
            keys: Arc::new(keys),
            logs,
            tokens: Arc::new(tokens),
            journal: Arc::default(),
            deployer: Arc::new(deployer),
            uploads: seen_uploads,
            done: seen_done,
            sweeps: seen_sweeps,
            readiness,
            shutdown: Shutdown::new(),
            spec: serde_json::from_slice(&openapi::describe()).unwrap(),
            usage: UsageKeeper::new(metrics.ledger.clone(), Arc::new(MemoryUsage::default())),
            shelf: Arc::default(),
            metrics,
            addresses,
            config: AdminConfig::default(),
            patience: Patience::default(),
            tls: None,
            _cache: cache,
        }
    }

    fn admin(&self) -> Admin {
        let mut admin = Admin::new(AdminParts {
            functions: self.functions.clone(),
            configs: self.configs.clone(),
            keys: self.keys.clone(),
            deployer: self.deployer.clone(),
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            usage: self.usage.clone(),
            backup: self.shelf.clone(),
            addresses: self.addresses.clone(),
            token: AdminToken::new(TOKEN),
            tokens: self.tokens.clone(),
            journal: self.journal.clone(),
            readiness: self.readiness.clone(),
            config: self.config.clone(),
            max_artifact_bytes: 1000,
            tls: self.tls.clone(),
        });
        admin.patience = self.patience;
        admin
    }

    /// Stores a version without the API.
    async fn add(&self, app: &str, activate: bool) {
        let new = version("test".into(), vec![function_of("main", Digest::of(b"x"))], activate);
        let app: AppName = app.parse().unwrap();
        self.functions.add_version(&app, new).await.unwrap();
    }

    /// A request with the token, answered without a socket.
    async fn ask(&self, method: &str, target: &str) -> Answer {
        self.call(request(method, target).body(Body::empty()).unwrap()).await
    }

    async fn send(&self, method: &str, target: &str, kind: &str, body: &str) -> Answer {
        let request = request(method, target).header("content-type", kind);
        self.call(request.body(body.to_owned().into()).unwrap()).await
    }

    async fn put(&self, target: &str, body: &str) -> Answer {
        self.send("PUT", target, "application/json", body).await
    }

    async fn deploy(&self, target: &str, body: &str) -> Answer {
        self.send("POST", target, "application/wasm", body).await
    }

    async fn call(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.open(request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        };
        answer.check(&self.spec, &method, &path);
        answer
    }

    async fn open(&self, request: Request<Body>) -> axum::response::Response {
        let api = serve::api(self.admin(), self.shutdown.clone());
        Gate::new(Arc::new(api), [127, 0, 0, 1].into()).answer(request).await
    }

    /// Serves on a socket; the receiver learns when serving has ended.
    async fn listen(&self) -> (SocketAddr, oneshot::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, end) = oneshot::channel();
        let serving = self.admin().serve(listener, self.shutdown.clone());
        tokio::spawn(async move {
            serving.await;
            let _ = ended.send(());
        });
        (address, end)
    }
}

fn request(method: &str, target: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "localhost:8081")
        .header("authorization", format!("Bearer {TOKEN}"))
}

fn engine(cache: &TempDir, metrics: &Arc<Metrics>) -> Arc<Engine> {
    let config = EngineConfig { pool_size: 1, ..EngineConfig::default() };
    let engine = Engine::new(EngineParts {
        config: &config,
        plan: &PoolPlan::for_this_machine(&config, &Limits::default(), &Maxima::default(), 0),
        deploy: &DeployConfig::default(),
        cache_dir: cache.path(),
        node_key: [7; 32],
        blobs: Arc::new(MemoryBlobs::default()),
        outbound: outbound(metrics),
        metrics: metrics.clone(),
    });
    Arc::new(engine.unwrap())
}

/// What sends functions' requests.
fn outbound(metrics: &Metrics) -> Outbound {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let own = OwnAddresses { ingress: nowhere, admin: nowhere };
    let open = metrics.outbound_connections.clone();
    Outbound::new(&OutboundConfig::default(), own, open).unwrap()
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error that this must be.
    #[track_caller]
    fn error(&self, code: ErrorCode) -> ErrorBody {
        let body: ErrorBody =
            serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(body.code, code, "{self:?}");
        assert_eq!(self.status.as_u16(), code.status());
        body
    }

    /// What holds for every answer, and that the description says so.
    #[track_caller]
    fn check(&self, spec: &Value, method: &Method, path: &str) {
        let id = self.header("x-request-id");
        assert_eq!(id.len(), 26, "{self:?}");
        assert_eq!(self.header("cache-control"), "no-store");
        assert!(!self.body.contains("/secret/path"), "{self:?}");
        if let Some(length) = self.headers.get("content-length") {
            let length: usize = length.to_str().unwrap().parse().unwrap();
            assert!(method == Method::HEAD || length == self.body.len(), "{self:?}");
        }
        assert!(!self.headers.contains_key("access-control-allow-origin"));
        let kind = self.header("content-type").split(';').next().unwrap();
        if self.status.as_u16() >= 400 && kind != "text/plain" {
            assert_eq!(kind, "application/problem+json", "{self:?}");
            let body: ErrorBody = serde_json::from_str(&self.body).unwrap();
            assert_eq!(body.status, self.status.as_u16());
            assert_eq!(body.request_id.as_deref(), Some(id));
            assert_eq!(self.header("x-faas-error"), body.code.as_str());
        }
        let Some(operation) = operation(spec, method, path) else {
            assert!(matches!(self.status.as_u16(), 400..=405), "{method} {path}: {self:?}");
            return;
        };
        let response = &operation["responses"][self.status.as_str()];
        assert!(response.is_object(), "{method} {path}: {} is not described", self.status);
        let content = response["content"].as_object();
        let described = content.map_or(kind.is_empty(), |content| content.contains_key(kind));
        assert!(described, "{method} {path}: {} as {kind} is not described", self.status);
    }
}

/// The description of the operation that such a request is.
fn operation<'a>(spec: &'a Value, method: &Method, path: &str) -> Option<&'a Value> {
    let matches = |template: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template.zip(path).all(|(t, p)| t == p || t.starts_with('{'))
    };
    let method = match method.as_str() {
        "HEAD" => "get".to_owned(),
        method => method.to_ascii_lowercase(),
    };
    let paths = spec["paths"].as_object().unwrap();
    let (_, item) = paths.iter().find(|(template, _)| matches(template))?;
    item.get(&method)
}
