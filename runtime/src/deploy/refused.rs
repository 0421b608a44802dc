//! Why a deploy is refused, in words that say what to do.

use crate::{engine::CompileError, functions::FunctionsError, storage::StorageError};
use faas_api::{
    Artifact, ArtifactError, ErrorBody, ErrorCode, FunctionSpec, manifest::ManifestProblem,
};

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
            FunctionsError::Taken(taken) => ErrorBody::new(ErrorCode::RouteConflict)
                .detail(taken.to_string())
                .hint("remove it there, or choose another domain")
                .into(),
            FunctionsError::KeyReused(reused) => ErrorBody::new(ErrorCode::Conflict)
                .detail(reused.to_string())
                .hint("use a new key for a new deploy")
                .into(),
            error @ FunctionsError::TooLarge(_) => ErrorBody::new(ErrorCode::Unprocessable)
                .detail(error.to_string())
                .hint("`faas unpin APP VERSION` lets versions go")
                .into(),
            other => Self {
                body: Box::new(ErrorBody::new(ErrorCode::Internal)),
                cause: Some(other.to_string()),
            },
        }
    }
}

/// The platform failed; why is for the log.
pub(super) fn internal(cause: String) -> DeployError {
    DeployError { body: Box::new(ErrorBody::new(ErrorCode::Internal)), cause: Some(cause) }
}

/// The answer to an artifact over the limit.
pub(crate) fn too_large(max_bytes: u64) -> ErrorBody {
    ErrorBody::new(ErrorCode::BodyTooLarge)
        .detail(format!("an artifact may have {} MiB", max_bytes >> 20))
        .hint("build with optimisation for size and without debug information")
}

pub(super) fn not_an_artifact(error: &ArtifactError) -> ErrorBody {
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

pub(super) fn nothing_to_run(artifact: &Artifact) -> ErrorBody {
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

pub(super) fn not_compiled(error: CompileError) -> DeployError {
    match error {
        CompileError::Refused(why) => {
            ErrorBody::new(ErrorCode::CompileFailed).detail(printable(&why)).into()
        }
        CompileError::OverLimit(why) => ErrorBody::new(ErrorCode::CompileFailed)
            .detail(why)
            .hint("make the artifact smaller, or ask the operator to raise the limit")
            .into(),
        error @ CompileError::Full(_) => DeployError {
            body: Box::new(ErrorBody::new(ErrorCode::StorageFull)),
            cause: Some(error.to_string()),
        },
        error @ CompileError::Killed(_) => DeployError {
            body: Box::new(
                ErrorBody::new(ErrorCode::Overloaded)
                    .detail("the compile process was stopped before its end")
                    .hint("nothing is wrong with the artifact: try again"),
            ),
            cause: Some(error.to_string()),
        },
        CompileError::Failed(cause) => internal(cause),
    }
}

/// The answer to an artifact that its function's limit leaves no room for.
pub(super) fn too_little_memory(
    function: &FunctionSpec,
    artifact: &Artifact,
    limit: u64,
) -> ErrorBody {
    ErrorBody::new(ErrorCode::Manifest)
        .detail(format!(
            "functions.{}.limits.memory: it starts with {} KiB of memory, and may have {} KiB",
            function.name,
            artifact.memory_bytes >> 10,
            limit >> 10
        ))
        .hint("allow more, or have the program linked to start with less")
}

/// The compiler quotes names of the artifact; they may contain anything.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(2000).collect()
}

/// The answer to a manifest that cannot be.
pub(super) fn bad_manifest(problem: ManifestProblem) -> ErrorBody {
    let body = ErrorBody::new(ErrorCode::Manifest).detail(problem.to_string());
    match problem.hint {
        Some(hint) => body.hint(hint),
        None => body,
    }
}
