//! What an artifact is: recognised from its bytes, by its exports, without running or compiling it.
//!
//! Both ends inspect: `faas inspect` to tell a developer, the server to decide. The parser reads
//! only the outermost level of a component, so its cost does not depend on what hides inside.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;
use wasmparser::{Parser, Payload};

/// What kind of program an artifact is, by how the host calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// A component that exports `wasi:http/handler@0.3.x`.
    #[serde(rename = "http-0.3")]
    Http03,
    /// A component that exports `wasi:http/incoming-handler@0.2.x`.
    #[serde(rename = "http-0.2")]
    Http02,
    /// A component that exports `wasi:cli/run@0.2.x`, called as CGI (RFC 3875).
    #[serde(rename = "cgi-0.2")]
    Cgi02,
    /// A core module with `_start` on WASI 0.1, called as CGI (RFC 3875).
    #[serde(rename = "cgi-0.1")]
    Cgi01,
}

impl Kind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http03 => "http-0.3",
            Self::Http02 => "http-0.2",
            Self::Cgi02 => "cgi-0.2",
            Self::Cgi01 => "cgi-0.1",
        }
    }

    /// One line for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Http03 => "component, wasi:http/handler@0.3",
            Self::Http02 => "component, wasi:http/incoming-handler@0.2",
            Self::Cgi02 => "component, wasi:cli/run@0.2, called as CGI",
            Self::Cgi01 => "core module, WASI 0.1, called as CGI",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the outside of an artifact shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    /// How it would be called; absent when nothing it exports can be.
    pub kind: Option<Kind>,
    /// SHA-256 of the bytes.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Size, in bytes.
    pub size: u64,
    /// The largest linear memory that one of its core modules starts with, in bytes.
    pub memory_bytes: u64,
    /// What it imports: interfaces of a component, `module.name` of a core module. Sorted.
    pub imports: Vec<String>,
    /// What it exports. Sorted.
    pub exports: Vec<String>,
}

/// Why bytes are not an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// No Wasm header. The text says what the bytes look like, when that is known.
    #[error("not a WebAssembly binary: {0}")]
    NotWasm(&'static str),
    /// An object file: native code of a wasmtime, or any other.
    #[error("this is native code (ELF), not WebAssembly")]
    Precompiled,
    /// A Wasm header, then damage.
    #[error("damaged WebAssembly at byte {offset}: {message}")]
    Damaged {
        /// Where the parser gave up.
        offset: u64,
        /// What it found there.
        message: String,
    },
}

/// The interfaces whose export makes a component callable, in order of preference.
const HTTP_03: &str = "wasi:http/handler@0.3.";
const HTTP_02: &str = "wasi:http/incoming-handler@0.2.";
const RUN_02: &str = "wasi:cli/run@0.2.";

impl Artifact {
    /// Reads the outside of an artifact.
    ///
    /// # Errors
    /// [`ArtifactError`] when the bytes are not Wasm or damaged. An artifact that exports nothing
    /// callable is not an error here: its `kind` is absent.
    pub fn inspect(bytes: &[u8]) -> Result<Self, ArtifactError> {
        check_magic(bytes)?;
        let outside = Outside::read(bytes)?;
        Ok(Self {
            kind: outside.kind(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            memory_bytes: outside.memory_bytes,
            imports: outside.imports.into_iter().collect(),
            exports: outside.exports.into_iter().collect(),
        })
    }
}

fn check_magic(bytes: &[u8]) -> Result<(), ArtifactError> {
    match bytes {
        [b'\0', b'a', b's', b'm', ..] => Ok(()),
        [0x7f, b'E', b'L', b'F', ..] => Err(ArtifactError::Precompiled),
        [] => Err(ArtifactError::NotWasm("the file is empty")),
        [0x1f, 0x8b, ..] => Err(ArtifactError::NotWasm("this is gzip; unpack it first")),
        [b'P', b'K', ..] => Err(ArtifactError::NotWasm("this is a zip archive; unpack it first")),
        [b'(', ..] | [b';', b';', ..] => {
            Err(ArtifactError::NotWasm("this looks like WebAssembly text; name the file .wat"))
        }
        _ => Err(ArtifactError::NotWasm("it does not start with `\\0asm`")),
    }
}

#[derive(Default)]
struct Outside {
    component: bool,
    memory_bytes: u64,
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
}

impl Outside {
    fn read(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let damaged = |error: wasmparser::BinaryReaderError| ArtifactError::Damaged {
            offset: error.offset() as u64,
            message: error.message().to_owned(),
        };
        let mut outside = Self::default();
        // `parse_all` walks into nested modules and components; only level 0 is the outside. What a
        // memory begins with counts wherever it is.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(damaged)? {
                Payload::Version { encoding, .. } if depth == 0 => {
                    outside.component = encoding == wasmparser::Encoding::Component;
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory.map_err(damaged)?;
                        let page = 1_u64 << memory.page_size_log2.unwrap_or(16).min(16);
                        let initial = memory.initial.saturating_mul(page);
                        outside.memory_bytes = outside.memory_bytes.max(initial);
                    }
                }
                Payload::ImportSection(section) if depth == 0 => {
                    for import in section.into_imports() {
                        let import = import.map_err(damaged)?;
                        outside.imports.insert(format!("{}.{}", import.module, import.name));
                    }
                }
                Payload::ExportSection(section) if depth == 0 => {
                    for export in section {
                        outside.exports.insert(export.map_err(damaged)?.name.to_owned());
                    }
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        outside.imports.insert(full_name(&import.map_err(damaged)?.name));
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        outside.exports.insert(full_name(&export.map_err(damaged)?.name));
                    }
                }
                _ => {}
            }
        }
        Ok(outside)
    }

    fn kind(&self) -> Option<Kind> {
        let exports = |prefix: &str| self.exports.iter().any(|name| name.starts_with(prefix));
        match self.component {
            true if exports(HTTP_03) => Some(Kind::Http03),
            true if exports(HTTP_02) => Some(Kind::Http02),
            true if exports(RUN_02) => Some(Kind::Cgi02),
            false if self.exports.contains("_start") => Some(Kind::Cgi01),
            _ => None,
        }
    }
}

/// The name with its version as the author wrote it; tools may split `@0.2` and `.3` apart.
fn full_name(name: &wasmparser::ComponentExternName<'_>) -> String {
    format!("{}{}", name.name, name.version_suffix.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect(text: &str) -> Artifact {
        Artifact::inspect(&wat::parse_str(text).unwrap()).unwrap()
    }

    #[test]
    fn kinds_by_export() {
        let component = |export: &str| {
            inspect(&format!(
                r#"(component (component $c) (instance $i (instantiate $c)) (export "{export}" (instance $i)))"#
            ))
        };
        assert_eq!(component("wasi:http/handler@0.3.0").kind, Some(Kind::Http03));
        assert_eq!(component("wasi:http/handler@0.3.2").kind, Some(Kind::Http03));
        assert_eq!(component("wasi:http/incoming-handler@0.2.12").kind, Some(Kind::Http02));
        assert_eq!(component("wasi:cli/run@0.2.0").kind, Some(Kind::Cgi02));
        assert_eq!(component("wasi:http/incoming-handler@0.1.0").kind, None);
        assert_eq!(inspect(r#"(module (func (export "_start")))"#).kind, Some(Kind::Cgi01));
        assert_eq!(inspect(r#"(module (func (export "run")))"#).kind, None);
    }

    #[test]
    fn the_largest_memory_counts() {
        assert_eq!(inspect("(module)").memory_bytes, 0);
        let artifact =
            inspect("(component (core module (memory 3 100)) (core module (memory 2) (memory 1)))");
        assert_eq!(artifact.memory_bytes, 3 << 16);
    }

    #[test]
    fn only_the_outside_counts() {
        let artifact = inspect(
            r#"(component
                (import "a:b/c@1.0.0" (instance))
                (core module (import "env" "x" (func)) (func (export "_start")))
                (component (import "d:e/f" (func))))"#,
        );
        assert_eq!(artifact.imports, ["a:b/c@1.0.0"]);
        assert_eq!(artifact.exports, [""; 0]);
        assert_eq!(artifact.kind, None);
    }

    #[test]
    fn refusals() {
        let error = |bytes: &[u8]| Artifact::inspect(bytes).unwrap_err();
        assert_eq!(error(b"\x7fELF\x02\x01"), ArtifactError::Precompiled);
        assert!(matches!(error(b""), ArtifactError::NotWasm(_)));
        assert!(
            matches!(error(b"\x1f\x8b\x08"), ArtifactError::NotWasm(text) if text.contains("gzip"))
        );
        assert!(
            matches!(error(b"(module)"), ArtifactError::NotWasm(text) if text.contains(".wat"))
        );
        assert!(matches!(error(b"hello"), ArtifactError::NotWasm(_)));
        let whole = wat::parse_str(
            r#"(module (memory 1) (func (export "_start")) (data (i32.const 0) "hello"))"#,
        )
        .unwrap();
        for cut in 5..whole.len() {
            let cut = Artifact::inspect(&whole[..cut]);
            assert!(
                !matches!(&cut, Ok(artifact) if artifact.kind.is_some() && artifact.size as usize == whole.len()),
            );
        }
        assert!(matches!(error(&whole[..whole.len() - 3]), ArtifactError::Damaged { .. }));
    }
}
