//! The deploy path, top to bottom: receive → inspect → compile → check → publish.

use super::{
    go_live::go_live,
    health,
    places::{Place, Places},
    refused::{DeployError, bad_manifest, internal, not_compiled, too_large},
    secrets,
    uploads::{Hold, SweepPause, Uploads},
};
use crate::{
    configuration::Configs,
    engine::{Engine, Limits, Maxima},
    functions::{
        Added, DeployConfig, Functions,
        address::Addresses,
        record::{DeployKey, GoLive, NewVersion, VersionRecord},
    },
    storage::{Blobs, Registry, record::Rest},
    telemetry::metrics::Metrics,
};
use bytes::Bytes;
use faas_api::{
    AppName, DeployEvent, Deployed, Digest, ErrorBody, ErrorCode, Function, FunctionName,
    FunctionSpec, Kind, Manifest, Planned, Reuse, Settings, Stored, manifest,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// What the function of a single-file deploy is called when nothing is said.
const DEFAULT_FUNCTION: &str = "main";
/// Time between two words about a compilation that is still going on.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Artifacts of one deploy that are looked at or compiled at once; the engine has a limit of its
/// own for compile processes.
pub(super) const AT_ONCE: usize = 4;
/// The most bytes of a version's functions that the app's document has; more have a blob.
const INLINE_BYTES: usize = 2 << 10;

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
    /// What the client calls this deploy, so that it can send it again.
    pub(crate) key: Option<String>,
}

/// A deploy of an app whose artifacts were sent before.
#[derive(Debug, Clone)]
pub(crate) struct AppDeploy {
    /// The app.
    pub(crate) app: AppName,
    /// What is deployed.
    pub(crate) new: manifest::NewVersion,
    /// The name of the token that deploys.
    pub(crate) created_by: String,
    /// What the client calls this deploy, so that it can send it again.
    pub(crate) key: Option<String>,
}

/// What became of a deploy of an app.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Nothing was changed: artifacts are missing, or it was a dry run.
    Planned(Planned),
    /// There is a new version.
    Deployed(Box<Deployed>),
}

/// The bytes of an upload as they arrive.
pub(crate) type Upload = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where progress is told; it may be dropped by a reader that lost interest.
pub(crate) type Progress = tokio::sync::mpsc::UnboundedSender<DeployEvent>;

/// What a deployer is made of.
pub(crate) struct DeployerParts {
    /// Where versions go.
    pub(crate) functions: Arc<Functions>,
    /// What apps were given besides their versions.
    pub(crate) configs: Arc<Configs>,
    /// Where artifacts go.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// Where it is noted which of them wait for their deploy.
    pub(crate) registry: Arc<dyn Registry>,
    /// What compiles them.
    pub(crate) engine: Arc<Engine>,
    /// Where apps answer.
    pub(crate) addresses: Addresses,
    /// The node's metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// What a deploy may be.
    pub(crate) config: DeployConfig,
    /// What a call may use when its function says nothing,
    pub(crate) limits: Arc<Limits>,
    /// and what a function may ask for at most.
    pub(crate) maxima: Maxima,
}

/// Deploys.
pub(crate) struct Deployer {
    pub(super) parts: DeployerParts,
    pub(super) uploads: Uploads,
    pub(super) inspections: Semaphore,
    places: Places,
}

/// What a version is made of, when all of its artifacts are here.
struct Release {
    app: AppName,
    manifest: Manifest,
    message: Option<String>,
    go_live: GoLive,
    created_by: String,
    key: Option<DeployKey>,
    started: Instant,
}

impl Deployer {
    /// A deployer of nothing yet.
    pub(crate) fn new(parts: DeployerParts) -> Self {
        let uploads = Uploads::new(parts.blobs.clone(), parts.registry.clone());
        let places = Places::new(parts.config.max_at_once, parts.config.max_pending_bytes);
        Self { parts, uploads, inspections: Semaphore::new(AT_ONCE), places }
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
        let mut place = self.places.enter(&request.created_by)?;
        let deployed = match self.receive(&mut place, 0, upload, &progress).await {
            Ok((hold, _)) => {
                let release = self.release_of(request, hold.digest(), started)?;
                self.publish(release, &progress).await
            }
            Err(error) => Err(error),
        };
        self.account(&deployed).await;
        deployed
    }

    /// Makes a version of artifacts that are here, or tells which are not.
    ///
    /// # Errors
    /// What is wrong with the manifest or an artifact, or with the platform; then nothing was
    /// changed.
    pub(crate) async fn deploy_app(
        &self,
        deploy: AppDeploy,
        progress: Progress,
    ) -> Result<Outcome, DeployError> {
        let started = Instant::now();
        let AppDeploy { app, mut new, created_by, key } = deploy;
        let _place = self.places.enter(&created_by)?;
        new.manifest.check().map_err(bad_manifest)?;
        let go_live = go_live(&new)?;
        self.check_node(&app, &new.manifest).await?;
        let digests = new.manifest.digests();
        let (held, missing) = self.uploads.hold_all(&digests).await?;
        if new.dry_run {
            self.inspect_all(&new.manifest, &missing).await?;
            return Ok(Outcome::Planned(Planned { missing, dry_run: true }));
        }
        if !missing.is_empty() {
            return Ok(Outcome::Planned(Planned { missing, dry_run: false }));
        }
        let release = Release {
            app,
            key: key.map(|key| deploy_key(key, &new.manifest)),
            go_live,
            manifest: new.manifest,
            message: new.message,
            created_by,
            started,
        };
        let deployed = self.publish(release, &progress).await;
        match &deployed {
            Ok(_) => self.uploads.deployed(&digests).await?,
            Err(_) => {
                let (_, missing) = self.uploads.hold_all(&digests).await?;
                if !missing.is_empty() {
                    // One was damaged, and is out of the way now: whoever deploys it has it.
                    return Ok(Outcome::Planned(Planned { missing, dry_run: false }));
                }
            }
        }
        drop(held);
        self.account(&deployed).await;
        deployed.map(|deployed| Outcome::Deployed(Box::new(deployed)))
    }

    /// Takes an artifact that a deploy will name.
    ///
    /// # Errors
    /// When it is too large, breaks off, or is not what was announced; then it is not kept.
    pub(crate) async fn store(
        &self,
        digest: Digest,
        by: &str,
        upload: Upload,
    ) -> Result<Stored, DeployError> {
        let mut place = self.places.enter(by)?;
        let (progress, _) = tokio::sync::mpsc::unbounded_channel();
        let mut waiting = self.uploads.waiting(by, &digest).await?;
        if waiting > 0 && waiting >= self.parts.config.max_pending_bytes {
            // What waited too long is in the way no more.
            self.tidy_up().await;
            waiting = self.uploads.waiting(by, &digest).await?;
        }
        let (hold, stored) = self.receive(&mut place, waiting, upload, &progress).await?;
        if hold.digest() == digest {
            let size = if stored.new { stored.size } else { 0 };
            self.uploads.expect_deploy(&digest, by, size).await?;
            place.stored(size);
            return Ok(stored);
        }
        let found = hold.digest();
        drop(hold);
        self.tidy_up().await;
        Err(ErrorBody::new(ErrorCode::DigestMismatch)
            .detail(format!("the address names {digest}, the content is {found}"))
            .hint("was the file changed while it was sent?")
            .into())
    }

    /// Counts a deploy, and removes what it left over.
    async fn account(&self, deployed: &Result<Deployed, DeployError>) {
        self.parts.metrics.deploy(match deployed {
            Ok(_) => "ok",
            Err(error) if error.body.status < 500 => "rejected",
            Err(_) => "failed",
        });
        let surplus = |deployed: &Deployed| {
            deployed.version.number() as usize > self.parts.config.keep_versions
        };
        if deployed.as_ref().map_or(true, surplus) {
            self.tidy_up().await;
        }
    }

    async fn tidy_up(&self) {
        self.sweep().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "unused artifacts could not be removed");
            0
        });
    }

    /// What a deploy of one file is: an app of one function that answers everything.
    fn release_of(
        &self,
        request: DeployRequest,
        digest: Digest,
        started: Instant,
    ) -> Result<Release, DeployError> {
        let name = match request.function {
            Some(function) => function,
            None => DEFAULT_FUNCTION
                .parse()
                .map_err(|error: faas_api::NameError| internal(error.to_string()))?,
        };
        let settings = Settings::default();
        let function = FunctionSpec { name, digest, reuse: request.reuse, settings };
        let mut manifest = Manifest { functions: vec![function], ..Manifest::default() };
        manifest.check().map_err(bad_manifest)?;
        Ok(Release {
            app: request.app,
            key: request.key.map(|key| deploy_key(key, &manifest)),
            manifest,
            message: request.message,
            go_live: if request.activate { GoLive::All } else { GoLive::No },
            created_by: request.created_by,
            started,
        })
    }

    /// Step 1: an artifact becomes a blob while it arrives, and is held from then on.
    async fn receive(
        &self,
        place: &mut Place<'_>,
        waiting: u64,
        mut upload: Upload,
        progress: &Progress,
    ) -> Result<(Hold<'_>, Stored), DeployError> {
        let started = Instant::now();
        let mut writer = self.uploads.blobs().create().await?;
        let mut size = 0_u64;
        while let Some(piece) = upload.next().await {
            let piece = piece.map_err(|error| DeployError {
                body: Box::new(
                    ErrorBody::new(ErrorCode::BadRequest).detail("the upload ended early"),
                ),
                cause: Some(error.to_string()),
            })?;
            size += piece.len() as u64;
            if size > self.parts.config.max_artifact_bytes {
                return Err(too_large(self.parts.config.max_artifact_bytes).into());
            }
            place.take(piece.len() as u64, waiting)?;
            writer.write(&piece).await?;
        }
        let (hold, new) = self.uploads.finish(writer).await?;
        let (digest, duration_ms) = (hold.digest(), millis(started.elapsed()));
        let _ = progress.send(DeployEvent::Received { size, digest, new, duration_ms });
        Ok((hold, Stored { digest, size, new }))
    }

    /// Steps 2 to 5, each named; the artifacts are here and held.
    async fn publish(
        &self,
        release: Release,
        progress: &Progress,
    ) -> Result<Deployed, DeployError> {
        let functions = &self.parts.functions;
        if let Some(key) = &release.key
            && let Some(version) = functions.made_by(&release.app, key).await?
        {
            let (record, _) = functions.get(&release.app).await?;
            let (previous, traffic) = (record.traffic.clone(), record.traffic);
            let added = Added { version: version.id, previous, traffic, replayed: true };
            return self.told(&release, version.functions, added);
        }
        let kinds = self.inspect_all(&release.manifest, &[]).await?;
        self.compile_all(&release.manifest, &kinds, progress).await?;
        let deployed: Vec<Function> =
            release.manifest.functions.iter().zip(kinds).map(function_of).collect();
        if release.go_live != GoLive::No
            && let Some(path) = &release.manifest.health
        {
            self.check_health(&release, &deployed, path, progress).await?;
        }
        let list = serde_json::to_vec(&deployed).map_err(|error| internal(error.to_string()))?;
        let own_blob = match list.len() > INLINE_BYTES {
            true => Some(self.uploads.store(&list).await?),
            false => None,
        };
        let new = NewVersion {
            created_by: release.created_by.clone(),
            message: release.message.clone(),
            functions: deployed.clone(),
            functions_at: own_blob.as_ref().map(Hold::digest),
            domains: release.manifest.domains.clone(),
            health: release.manifest.health.clone(),
            deploy: release.key.clone(),
            go_live: release.go_live.clone(),
        };
        // Compiling takes its time, and a secret may have gone meanwhile.
        secrets::check(&self.parts.configs, &release.app, &release.manifest).await?;
        let added = functions.add_version(&release.app, new).await?;
        drop(own_blob);
        tracing::info!(app = %release.app, version = %added.version, functions = deployed.len(),
            live = %added.traffic, "deployed");
        self.told(&release, deployed, added)
    }

    /// What the deployer is told.
    fn told(
        &self,
        release: &Release,
        functions: Vec<Function>,
        added: Added,
    ) -> Result<Deployed, DeployError> {
        let Added { version, previous, traffic, replayed } = added;
        let first = functions.first().cloned();
        let first = first.ok_or_else(|| internal("a version has no function".to_owned()))?;
        let app = release.app.clone();
        Ok(Deployed {
            function: first.name,
            version,
            kind: first.kind,
            digest: first.digest,
            size: first.size,
            reuse: first.reuse,
            active: traffic.percent_of(version) > 0,
            functions,
            previous,
            traffic,
            replayed,
            url: self.parts.addresses.main(&app),
            urls: self.parts.addresses.with_domains(&app, &release.manifest.domains),
            preview_url: self.parts.addresses.preview(&app, version),
            duration_ms: millis(release.started.elapsed()),
            app,
        })
    }

    /// What a manifest asks of this node, and of the apps beside it.
    async fn check_node(&self, app: &AppName, manifest: &Manifest) -> Result<(), DeployError> {
        for function in &manifest.functions {
            if let Some(why) =
                self.parts.limits.above(&function.settings.limits, &self.parts.maxima)
            {
                return Err(ErrorBody::new(ErrorCode::LimitAboveMaximum)
                    .detail(format!("functions.{}.limits: {why}", function.name))
                    .hint("ask for less, or ask the operator to raise `max_limits`")
                    .into());
            }
        }
        let own = |domain: &&faas_api::Domain| self.parts.addresses.is_own(domain.as_str());
        if let Some(domain) = manifest.domains.iter().find(own) {
            return Err(ErrorBody::new(ErrorCode::Manifest)
                .detail(format!("domains: `{domain}` is this server's own"))
                .hint("every app has a name below it already")
                .into());
        }
        secrets::check(&self.parts.configs, app, manifest).await?;
        Ok(self.parts.functions.check_domains(app, &manifest.domains).await?)
    }

    /// Step 3 of every function.
    async fn compile_all(
        &self,
        manifest: &Manifest,
        kinds: &[(Kind, u64)],
        progress: &Progress,
    ) -> Result<(), DeployError> {
        let mut compiling = Vec::new();
        for (function, (kind, _)) in manifest.functions.iter().zip(kinds) {
            compiling.push(self.compile(function, *kind, progress));
        }
        stream::iter(compiling).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Step 3: native code now, so that the first request is not the slow one.
    async fn compile(
        &self,
        function: &FunctionSpec,
        kind: Kind,
        progress: &Progress,
    ) -> Result<(), DeployError> {
        let started = Instant::now();
        let digest = function.digest;
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
                    let function = function.name.clone();
                    let _ = progress.send(DeployEvent::Compiling { function, kind, elapsed_ms });
                }
            }
        }
        let duration_ms = millis(started.elapsed());
        let function = function.name.clone();
        let _ = progress.send(DeployEvent::Compiled { function, cached, duration_ms });
        Ok(())
    }

    /// Step 4: does it answer, before anybody depends on it?
    async fn check_health(
        &self,
        release: &Release,
        functions: &[Function],
        path: &str,
        progress: &Progress,
    ) -> Result<(), DeployError> {
        let started = Instant::now();
        let version = VersionRecord {
            id: self.parts.functions.next_version(&release.app).await?,
            created_at: crate::clock::now(),
            created_by: release.created_by.clone(),
            message: None,
            functions: functions.to_vec(),
            functions_at: None,
            domains: Vec::new(),
            health: None,
            deploy: None,
            rest: Rest::new(),
        };
        let version = self.parts.functions.unpublished(&release.app, &version);
        let checked = health::check(&self.parts.engine, &release.app, &version, path).await;
        if checked.is_err() {
            self.parts.functions.discard(&release.app);
        }
        let status = checked?;
        let (path, duration_ms) = (path.to_owned(), millis(started.elapsed()));
        let _ = progress.send(DeployEvent::Healthy { path, status, duration_ms });
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

    /// From now on no artifact is removed, until what this returns is dropped; then somebody has
    /// to sweep.
    pub(crate) async fn pause_sweeps(&self) -> SweepPause {
        self.uploads.pause().await
    }

    /// Removes what no kept version and no deploy under way refers to. Returns how many artifacts.
    pub(crate) async fn sweep(&self) -> Result<usize, DeployError> {
        self.uploads.sweep(&self.parts.functions, &self.parts.engine).await
    }
}

fn function_of((function, (kind, size)): (&FunctionSpec, (Kind, u64))) -> Function {
    let first = function.settings.routes.first();
    Function {
        name: function.name.clone(),
        kind,
        digest: function.digest,
        size,
        route: first.map_or_else(String::new, ToString::to_string),
        reuse: function.reuse,
        settings: function.settings.clone(),
    }
}

/// The key with a digest of what it stands for; serde writes the same manifest the same way.
fn deploy_key(key: String, manifest: &Manifest) -> DeployKey {
    let text = serde_json::to_vec(manifest).unwrap_or_default();
    DeployKey { key, of: Digest::of(&text) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
