//! An artifact on this machine: read, assembled where it is text, recognised.

use crate::{
    error::{CliError, Exit, Result},
    format,
};
use faas_api::{Artifact, ArtifactError, ErrorCode};
use std::path::Path;

/// A file that holds WebAssembly.
pub(crate) struct LocalArtifact {
    pub(crate) bytes: Vec<u8>,
    pub(crate) artifact: Artifact,
}

impl LocalArtifact {
    /// Reads a `.wasm` or a `.wat` file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let bytes = std::fs::read(file).map_err(|error| {
            CliError::new(
                Exit::Usage,
                "no_such_file",
                format!("cannot read `{}`: {}", file.display(), io_text(&error)),
            )
        })?;
        let bytes = match file.extension() {
            Some(extension) if extension == "wat" => assemble(file, &bytes)?,
            _ => bytes,
        };
        let artifact = Artifact::inspect(&bytes).map_err(|error| refusal(file, &error))?;
        Ok(Self { bytes, artifact })
    }

    /// Why the host could not call it, if so.
    pub(crate) fn unknown_kind(&self, file: &Path) -> Option<CliError> {
        if self.artifact.kind.is_some() {
            return None;
        }
        let exports = match self.artifact.exports.as_slice() {
            [] => "it exports nothing".to_owned(),
            [one] => format!("it exports `{one}`"),
            [one, more @ ..] => format!("it exports `{one}` and {} more", more.len()),
        };
        let message = format!("`{}` has nothing the host can call: {exports}", file.display());
        Some(CliError::new(Exit::Rejected, ErrorCode::UnknownKind.as_str(), message).hint(
            "export wasi:http/handler@0.3, wasi:http/incoming-handler@0.2 or \
                 wasi:cli/run@0.2 from a component, or `_start` from a WASI 0.1 module",
        ))
    }
}

fn assemble(file: &Path, text: &[u8]) -> Result<Vec<u8>> {
    let assembled = wat::parse_bytes(text).map(std::borrow::Cow::into_owned);
    assembled.map_err(|error| {
        let text = format!("`{}` is not WebAssembly text: {error}", file.display());
        CliError::several_lines(Exit::Rejected, ErrorCode::InvalidWasm.as_str(), &text)
    })
}

fn refusal(file: &Path, error: &ArtifactError) -> CliError {
    let code = match error {
        ArtifactError::Precompiled => ErrorCode::Precompiled,
        ArtifactError::NotWasm(_) | ArtifactError::Damaged { .. } => ErrorCode::InvalidWasm,
    };
    let refusal = CliError::new(
        Exit::Rejected,
        code.as_str(),
        format!("`{}` cannot be used: {error}", file.display()),
    );
    match error {
        ArtifactError::Precompiled => {
            refusal.hint("deploy the .wasm it was made from; each host compiles for itself")
        }
        _ => refusal,
    }
}

/// What the system said, without its number.
pub(crate) fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    format::printable(&first.into_iter().chain(chars).collect::<String>()).into_owned()
}
