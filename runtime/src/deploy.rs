//! The deploy path, top to bottom: receive → inspect → compile → publish.
//!
//! Nothing that a request can see changes before the last step, which is one write. What a failed
//! deploy stored is removed again; what a stopped node left is swept when it starts.

use crate::{
    engine::{CompileError, Engine},
    functions::{Functions, FunctionsError, address::Addresses, record::NewVersion},
    storage::{Blobs, StorageError},
    telemetry::metrics::Metrics,
};
use bytes::Bytes;
use faas_api::{
    AppName, Artifact, ArtifactError, DeployEvent, Deployed, Digest, ErrorBody, ErrorCode,
    Function, FunctionName, Kind, Reuse,
};
use futures::{Stream, StreamExt};
use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What the function of a single-file deploy is called when nothing is said.
const DEFAULT_FUNCTION: &str = "main";
/// The route of a single-file deploy.
const DEFAULT_ROUTE: &str = "/*";
/// Time between two words about a compilation that is still going on.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// A deploy of one artifact as one function.
#[derive(Debug, Clone)]
pub(crate) struct DeployRequest {
    /// The app.
    pub(crate) app: AppName,
    /// What the function is called; `main` when nothing is said.
    pub(crate) function: Option<FunctionName>,
    /// What the deployer says of it.
    pub(crate) message: Option<String>,
    /// How far its requests share instances.
    pub(crate) reuse: Option<Reuse>,
    /// Whether it becomes live.
    pub(crate) activate: bool,
    /// The name of the token that deploys.
    pub(crate) created_by: String,
}

/// The bytes of an upload as they arrive.
pub(crate) type Upload = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where progress is told; it may be dropped by a reader that lost interest.
pub(crate) type Progress = tokio::sync::mpsc::UnboundedSender<DeployEvent>;

/// Why a deploy failed: what the client may see, and what only the log may.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .body.code, .cause.as_deref().or(.body.detail.as_deref()).unwrap_or_default())]
pub(crate) struct DeployError {
    /// For the client.
    pub(crate) body: Box<ErrorBody>,
    /// For the log, where that is not the same.
    pub(crate) cause: Option<String>,
}

impl From<ErrorBody> for DeployError {
    fn from(body: ErrorBody) -> Self {
        Self { body: Box::new(body), cause: None }
    }
}

impl From<StorageError> for DeployError {
    fn from(error: StorageError) -> Self {
        let code = match error {
            StorageError::Full(_) => ErrorCode::StorageFull,
            _ => ErrorCode::Internal,
        };
        Self { body: Box::new(ErrorBody::new(code)), cause: Some(error.to_string()) }
    }
}

impl From<FunctionsError> for DeployError {
    fn from(error: FunctionsError) -> Self {
        match error {
            FunctionsError::Storage(error) => error.into(),
            other => Self {
                body: Box::new(ErrorBody::new(ErrorCode::Internal)),
                cause: Some(other.to_string()),
            },
        }
    }
}

/// What a deployer is made of.
pub(crate) struct DeployerParts {
    /// Where versions go.
    pub(crate) functions: Arc<Functions>,
    /// Where artifacts go.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// What compiles them.
    pub(crate) engine: Arc<Engine>,
    /// Where apps answer.
    pub(crate) addresses: Addresses,
    /// The node's metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The largest artifact, in bytes.
    pub(crate) max_bytes: u64,
    /// How many versions of an app are kept.
    pub(crate) keep_versions: usize,
}

/// Deploys.
pub(crate) struct Deployer {
    parts: DeployerParts,
    /// Artifacts of deploys that are under way: no version names them yet, and the sweep must
    /// leave them alone.
    held: Mutex<HashMap<Digest, usize>>,
    /// Taken while an artifact gets its name, and while names are swept.
    naming: tokio::sync::Mutex<()>,
}

/// An artifact that was received and is held.
struct Received {
    digest: Digest,
    size: u64,
}

impl Deployer {
    /// A deployer of nothing yet.
    pub(crate) fn new(parts: DeployerParts) -> Self {
        Self { parts, held: Mutex::default(), naming: tokio::sync::Mutex::default() }
    }

    /// Takes an artifact and makes it a version, live if asked. All or nothing.
    ///
    /// # Errors
    /// What is wrong with the artifact, or with the platform; then nothing was changed.
    pub(crate) async fn deploy(
        &self,
        request: DeployRequest,
        upload: Upload,
        progress: Progress,
    ) -> Result<Deployed, DeployError> {
        let started = Instant::now();
        let deployed = match self.receive(upload, &progress).await {
            Ok(received) => {
                let hold = Hold { deployer: self, digest: received.digest };
                let deployed = self.publish(&request, &received, &progress, started).await;
                drop(hold);
                deployed
            }
            Err(error) => Err(error),
        };
        self.parts.metrics.deploy(match &deployed {
            Ok(_) => "ok",
            Err(error) if error.body.status < 500 => "rejected",
            Err(_) => "failed",
        });
        let surplus =
            |deployed: &Deployed| deployed.version.number() as usize > self.parts.keep_versions;
        if deployed.as_ref().map_or(true, surplus) {
            self.sweep().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "unused artifacts could not be removed");
                0
            });
        }
        deployed
    }

    /// Steps 2 to 4, each named; step 1 is [`Self::receive`].
    async fn publish(
        &self,
        request: &DeployRequest,
        received: &Received,
        progress: &Progress,
        started: Instant,
    ) -> Result<Deployed, DeployError> {
        let kind = self.inspect(received).await?;
        if let Some(reuse) = &request.reuse {
            reuse.check(Some(kind)).map_err(|why| {
                ErrorBody::new(ErrorCode::Unprocessable)
                    .detail(why)
                    .hint("without `reuse` every request has an instance of its own")
            })?;
        }
        let function = match &request.function {
            Some(function) => function.clone(),
            None => DEFAULT_FUNCTION.parse().map_err(|error: faas_api::NameError| DeployError {
                body: Box::new(ErrorBody::new(ErrorCode::Internal)),
                cause: Some(error.to_string()),
            })?,
        };
        self.compile(received, kind, &function, progress).await?;
        let new = NewVersion {
            created_by: request.created_by.clone(),
            message: request.message.clone(),
            functions: vec![Function {
                name: function.clone(),
                kind,
                digest: received.digest,
                size: received.size,
                route: DEFAULT_ROUTE.to_owned(),
                reuse: request.reuse,
            }],
            activate: request.activate,
        };
        let (version, previous) = self.parts.functions.add_version(&request.app, new).await?;
        tracing::info!(app = %request.app, %version, digest = %received.digest.short(),
            kind = kind.as_str(), active = request.activate, "deployed");
        Ok(Deployed {
            app: request.app.clone(),
            function,
            version,
            kind,
            digest: received.digest,
            size: received.size,
            reuse: request.reuse,
            active: request.activate,
            previous,
            url: self.parts.addresses.main(&request.app),
            preview_url: self.parts.addresses.preview(&request.app, version),
            duration_ms: millis(started.elapsed()),
        })
    }

    /// Step 1: the artifact becomes a blob while it arrives, and is held from then on.
    async fn receive(
        &self,
        mut upload: Upload,
        progress: &Progress,
    ) -> Result<Received, DeployError> {
        let started = Instant::now();
        let mut writer = self.parts.blobs.create().await?;
        let mut size = 0_u64;
        while let Some(piece) = upload.next().await {
            let piece = piece.map_err(|error| DeployError {
                body: Box::new(
                    ErrorBody::new(ErrorCode::BadRequest).detail("the upload ended early"),
                ),
                cause: Some(error.to_string()),
            })?;
            size += piece.len() as u64;
            if size > self.parts.max_bytes {
                return Err(too_large(self.parts.max_bytes).into());
            }
            writer.write(&piece).await?;
        }
        let naming = self.naming.lock().await;
        let (digest, new) = writer.finish().await?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default() += 1;
        drop(naming);
        let duration_ms = millis(started.elapsed());
        let _ = progress.send(DeployEvent::Received { size, digest, new, duration_ms });
        Ok(Received { digest, size })
    }

    /// Step 2: is this something we can run?
    async fn inspect(&self, received: &Received) -> Result<Kind, DeployError> {
        let bytes = self.parts.blobs.get(&received.digest).await?;
        let inspected =
            tokio::task::spawn_blocking(move || bytes.map(|bytes| Artifact::inspect(&bytes)));
        let artifact = inspected
            .await
            .map_err(|error| internal(error.to_string()))?
            .ok_or_else(|| internal("the artifact is gone".to_owned()))?
            .map_err(|error| not_an_artifact(&error))?;
        let kind = artifact.kind.ok_or_else(|| nothing_to_run(&artifact))?;
        let problems = Engine::missing_imports(&artifact, kind);
        if problems.is_empty() {
            return Ok(kind);
        }
        let count = match problems.len() {
            1 => "one import has".to_owned(),
            n => format!("{n} imports have"),
        };
        let mut body =
            ErrorBody::new(ErrorCode::UnknownImport).detail(format!("{count} no implementation"));
        body.hint = problems.first().map(|problem| problem.hint.clone());
        body.imports = problems;
        Err(body.into())
    }

    /// Step 3: native code now, so that the first request is not the slow one.
    async fn compile(
        &self,
        received: &Received,
        kind: Kind,
        function: &FunctionName,
        progress: &Progress,
    ) -> Result<(), DeployError> {
        let started = Instant::now();
        let digest = received.digest;
        let cached = self.parts.engine.is_compiled(&digest, kind);
        let mut compiling = std::pin::pin!(self.parts.engine.compile(&digest, kind));
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                outcome = &mut compiling => {
                    outcome.map_err(not_compiled)?;
                    break;
                }
                _ = ticks.tick(), if !cached => {
                    let elapsed_ms = millis(started.elapsed());
                    let function = function.clone();
                    let _ = progress.send(DeployEvent::Compiling { function, kind, elapsed_ms });
                }
            }
        }
        let duration_ms = millis(started.elapsed());
        let function = function.clone();
        let _ = progress.send(DeployEvent::Compiled { function, cached, duration_ms });
        Ok(())
    }

    /// Makes native code for what is deployed and has none: after an upgrade of the engine, or when
    /// the cache was removed. What is live comes first; a request that comes earlier waits for its
    /// own function only. Returns for how many artifacts.
    pub(crate) async fn catch_up(&self) -> Result<usize, DeployError> {
        let mut wanted = self.parts.functions.artifacts();
        let engine = self.parts.engine.clone();
        let lacking = tokio::task::spawn_blocking(move || {
            wanted.retain(|(digest, kind)| !engine.is_compiled(digest, *kind));
            wanted
        });
        let lacking = lacking.await.map_err(|error| internal(error.to_string()))?;
        let mut made = 0;
        for (digest, kind) in &lacking {
            match self.parts.engine.compile(digest, *kind).await {
                Ok(()) => made += 1,
                // The next request of it finds the same, and says so.
                Err(error) => tracing::warn!(%digest, %error, "native code could not be made"),
            }
        }
        let engine = self.parts.engine.clone();
        let forgotten = tokio::task::spawn_blocking(move || engine.forget_other_engines());
        let forgotten = forgotten.await.map_err(|error| internal(error.to_string()))?;
        forgotten.map_err(|error| internal(error.to_string()))?;
        Ok(made)
    }

    /// Removes artifacts and native code that no kept version and no deploy under way refers to.
    /// Returns how many.
    pub(crate) async fn sweep(&self) -> Result<usize, DeployError> {
        let _naming = self.naming.lock().await;
        let stored = self.parts.blobs.list().await?;
        // The held ones first: a deploy lets go only after its version is written, so what is not
        // held now is either in the records read next, or in none.
        let held: Vec<Digest> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.keys().copied().collect()
        };
        let named = self.parts.functions.digests().await?;
        let mut removed = 0;
        for digest in stored {
            if !named.contains(&digest) && !held.contains(&digest) {
                self.parts.engine.forget(&digest);
                self.parts.blobs.delete(&digest).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// An artifact that the sweep leaves alone while this lives.
struct Hold<'a> {
    deployer: &'a Deployer,
    digest: Digest,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut held = self.deployer.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.digest);
            }
        }
    }
}

/// The platform failed; why is for the log.
fn internal(cause: String) -> DeployError {
    DeployError { body: Box::new(ErrorBody::new(ErrorCode::Internal)), cause: Some(cause) }
}

/// The answer to an artifact over the limit.
pub(crate) fn too_large(max_bytes: u64) -> ErrorBody {
    ErrorBody::new(ErrorCode::BodyTooLarge)
        .detail(format!("an artifact may have {} MiB", max_bytes >> 20))
        .hint("build with optimisation for size and without debug information")
}

fn not_an_artifact(error: &ArtifactError) -> ErrorBody {
    match error {
        ArtifactError::Precompiled => ErrorBody::new(ErrorCode::Precompiled)
            .detail(error.to_string())
            .hint("upload the .wasm file; each node compiles for itself"),
        ArtifactError::NotWasm(_) | ArtifactError::Damaged { .. } => {
            ErrorBody::new(ErrorCode::InvalidWasm)
                .detail(error.to_string())
                .hint("`faas inspect FILE` shows what a file is")
        }
    }
}

fn nothing_to_run(artifact: &Artifact) -> ErrorBody {
    let exports = match artifact.exports.as_slice() {
        [] => "nothing".to_owned(),
        exports => {
            let shown: Vec<String> = exports.iter().take(8).map(|e| format!("`{e}`")).collect();
            let more = exports.len().saturating_sub(shown.len());
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{tail}", shown.join(", "))
        }
    };
    ErrorBody::new(ErrorCode::UnknownKind).detail(format!("it exports {exports}")).hint(
        "export wasi:http/handler@0.3, wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2, \
         or build a WASI 0.1 program with `_start`",
    )
}

fn not_compiled(error: CompileError) -> DeployError {
    match error {
        CompileError::Refused(why) => {
            ErrorBody::new(ErrorCode::CompileFailed).detail(printable(&why)).into()
        }
        CompileError::OverLimit(why) => ErrorBody::new(ErrorCode::CompileFailed)
            .detail(why)
            .hint("make the artifact smaller, or ask the operator to raise the limit")
            .into(),
        CompileError::Failed(cause) => internal(cause),
    }
}

/// The compiler quotes names of the artifact; they may contain anything.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(2000).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
