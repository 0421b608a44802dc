//! From an artifact to native code in memory: load it, or compile it and load it then.

use super::{
    InvokeError, Program,
    cache::CacheMiss,
    compile::{CompileError, Compiler},
    prepared::{Engines, PrepareError, Prepared, engine_of},
    residency::{Residency, Resident},
};
use crate::{storage::Blobs, telemetry::metrics::Metrics};
use arc_swap::ArcSwap;
use faas_api::{Digest, Kind};
use std::sync::Arc;

/// Gets native code into memory, and knows what is there.
pub(super) struct Loader {
    /// The engines of now. Another pool may take the place of this one.
    pub(super) engines: ArcSwap<Engines>,
    /// What is in memory.
    pub(super) residency: Arc<Residency>,
    /// What makes native code.
    pub(super) compiler: Compiler,
    /// Where artifacts are.
    pub(super) blobs: Arc<dyn Blobs>,
    /// Where refused code is counted.
    pub(super) metrics: Arc<Metrics>,
}

impl Loader {
    /// A program's native code, loaded once, however many wait for it. The work goes on when whoever
    /// asked first is gone: else clients with little patience could keep a program from ever being
    /// compiled.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(super) async fn load(
        self: Arc<Self>,
        program: Arc<Program>,
    ) -> Result<Arc<Resident>, InvokeError> {
        let alone = program.loading().await;
        if let Some(resident) = program.resident() {
            return Ok(resident);
        }
        let work = async move {
            let loaded = self.load_alone(&program).await;
            drop(alone);
            loaded
        };
        let ended = tokio::spawn(work).await;
        ended.map_err(|error| InvokeError::Internal(error.to_string()))?
    }

    async fn load_alone(&self, program: &Arc<Program>) -> Result<Arc<Resident>, InvokeError> {
        loop {
            let engines = self.engines.load_full();
            let prepared = self.prepare(&engines, &program.digest(), program.kind()).await;
            let prepared = prepared.map_err(|error| InvokeError::Unavailable(error.to_string()))?;
            program.metrics().cold_start();
            let (residency, loaded) = (self.residency.clone(), program.clone());
            let admitted = tokio::task::spawn_blocking(move || residency.admit(&loaded, prepared));
            let resident = admitted.await;
            let resident = resident.map_err(|error| InvokeError::Internal(error.to_string()))?;
            // The pool may have been replaced meanwhile, and nothing may stay on the old one.
            if Arc::ptr_eq(&engines, &self.engines.load()) {
                return Ok(resident);
            }
            program.set_resident(None);
        }
    }

    /// Loads and links; compiles first where the native code is not there.
    ///
    /// # Errors
    /// When the artifact is no good, needs more than is allowed, or the platform fails.
    pub(super) async fn prepare(
        &self,
        engines: &Arc<Engines>,
        digest: &Digest,
        kind: Kind,
    ) -> Result<Prepared, CompileError> {
        let mut compiled = false;
        loop {
            let (with, of) = (engines.clone(), *digest);
            let loading = tokio::task::spawn_blocking(move || with.prepare(&of, kind));
            let failed = |error: tokio::task::JoinError| CompileError::Failed(error.to_string());
            match loading.await.map_err(failed)? {
                Ok(prepared) => return Ok(prepared),
                Err(PrepareError::Refused(why) | PrepareError::Miss(CacheMiss::Unfit(why))) => {
                    return Err(CompileError::Refused(why));
                }
                Err(PrepareError::Miss(miss)) => {
                    if let CacheMiss::Rejected(why) = &miss {
                        tracing::warn!(%digest, why, "native code refused; it is made anew");
                        self.metrics.cache_rejected.inc();
                    }
                    if compiled {
                        return Err(CompileError::Failed("fresh native code is no good".into()));
                    }
                    self.compile(engines, digest, kind).await?;
                    compiled = true;
                }
            }
        }
    }

    async fn compile(
        &self,
        engines: &Engines,
        digest: &Digest,
        kind: Kind,
    ) -> Result<(), CompileError> {
        let file = self.blobs.file(digest).await;
        let file = file.map_err(|error| CompileError::Failed(error.to_string()))?;
        let Some(file) = file else {
            return Err(CompileError::Failed(format!("artifact {digest} is gone")));
        };
        self.compiler.compile(&file, digest, engine_of(kind), engines.cache(kind)).await
    }
}
