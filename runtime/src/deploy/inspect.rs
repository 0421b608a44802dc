//! Step 2 of a deploy: is this something we can run?

use super::{
    deployer::{AT_ONCE, Deployer},
    refused::{DeployError, internal, not_an_artifact, nothing_to_run, too_little_memory},
};
use crate::engine::Engine;
use faas_api::{Artifact, Digest, ErrorBody, ErrorCode, FunctionSpec, Kind, Manifest};
use futures::{StreamExt, TryStreamExt, stream};

impl Deployer {
    /// Step 2 of every function whose artifact is here, in their order.
    pub(super) async fn inspect_all(
        &self,
        manifest: &Manifest,
        missing: &[Digest],
    ) -> Result<Vec<(Kind, u64)>, DeployError> {
        let mut inspecting = Vec::new();
        for function in manifest.functions.iter().filter(|f| !missing.contains(&f.digest)) {
            inspecting.push(self.inspect(function));
        }
        stream::iter(inspecting).buffered(AT_ONCE).try_collect().await
    }

    /// Step 2: is this something we can run?
    async fn inspect(&self, function: &FunctionSpec) -> Result<(Kind, u64), DeployError> {
        // Whole artifacts are in memory here, so few are looked at at once, whoever deploys them.
        let _turn =
            self.inspections.acquire().await.map_err(|error| internal(error.to_string()))?;
        let bytes = self.uploads.blobs().get(&function.digest).await?;
        let inspected =
            tokio::task::spawn_blocking(move || bytes.map(|bytes| Artifact::inspect(&bytes)));
        let artifact = inspected
            .await
            .map_err(|error| internal(error.to_string()))?
            .ok_or_else(|| internal("the artifact is gone".to_owned()))?
            .map_err(|error| not_an_artifact(&error))?;
        let kind = artifact.kind.ok_or_else(|| nothing_to_run(&artifact))?;
        if let Some(reuse) = &function.reuse {
            reuse.check(Some(kind)).map_err(|why| {
                ErrorBody::new(ErrorCode::Unprocessable)
                    .detail(why)
                    .hint("without `reuse` every request has an instance of its own")
            })?;
        }
        let most = self.parts.limits.with(&function.settings.limits, &self.parts.maxima);
        if artifact.memory_bytes > most.memory_bytes {
            return Err(too_little_memory(function, &artifact, most.memory_bytes).into());
        }
        let problems = Engine::missing_imports(&artifact, kind);
        if problems.is_empty() {
            return Ok((kind, artifact.size));
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
}
