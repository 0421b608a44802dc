//! Merges the core modules of a WebAssembly component.
//!
//! A component is usually made of several core modules that import from each other: the program, a
//! shim in front of it and what fills the shim behind it, adapters, or all the libraries of an
//! interpreter. Each time the component is instantiated, each of them is, and every import of each
//! is resolved. [`merge`] writes the same component with as many as possible of them as one module,
//! whose parts call each other directly and whose contents are known before it is instantiated.

mod canon;
mod constant;
mod effects;
mod emit;
mod encode;
mod error;
mod graph;
mod group;
mod items;
mod link;
mod output;
mod shape;
mod space;

pub use error::Unmerged;

use graph::Graph;
use wasmparser::{Validator, WasmFeatures};

/// What a component may use: all that the engine has at most. A component that the engine refuses
/// is none that it accepts when it is merged, for a merge adds no feature.
const FEATURES: WasmFeatures = WasmFeatures::WASM3
    .union(WasmFeatures::COMPONENT_MODEL)
    .union(WasmFeatures::CM_ASYNC)
    .difference(WasmFeatures::GC_TYPES)
    .difference(WasmFeatures::EXCEPTIONS)
    .difference(WasmFeatures::THREADS);

/// The component with its core modules merged.
///
/// What the host sees of it is unchanged: imports, exports, types, and what it does. Functions keep
/// their names. Names of other things are gone.
///
/// # Errors
///
/// Why the component stays as it is: there is nothing to merge, it has something that is not
/// supported, or it is not valid.
pub fn merge(component: &[u8]) -> Result<Vec<u8>, Unmerged> {
    validate(component).map_err(|error| Unmerged::Invalid(error.to_string()))?;
    let graph = Graph::resolve(items::read(component)?, component.len())?;
    let group = group::choose(&graph)?;
    let merged = emit::component(&graph, &group)?;
    validate(&merged).map_err(|error| Unmerged::Output(error.to_string()))?;
    Ok(merged)
}

fn validate(component: &[u8]) -> Result<(), wasmparser::Error> {
    Validator::new_with_features(FEATURES).validate_all(component).map(drop)
}
