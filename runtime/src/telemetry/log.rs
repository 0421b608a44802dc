//! The node's own log, on standard error.
//!
//! A thread of its own writes it. Whoever reads it may be slow, or may have stopped reading: then lines
//! are lost, and requests, deploys and the end of the node go on.

use super::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Lines that wait for their reader; those beyond are lost.
const LINES: usize = 8192;

/// What the engine warns of is what guests ask for: a function could fill the node's log with it. A
/// filter that names this target asks for it again.
const OF_GUESTS: &str = "wasmtime_wasi=error";

/// Starts the log. In a process that has one already – a test, an embedder – that one stays. What
/// is returned writes the last lines when it is dropped, if they can be written within a second.
///
/// # Errors
/// When the filter cannot be read; the text says where it came from.
pub(crate) fn start(config: &LogConfig) -> Result<WorkerGuard, String> {
    let from_env = std::env::var("FAAS_LOG").ok().filter(|filter| !filter.is_empty());
    let (source, text) = match &from_env {
        Some(filter) => ("FAAS_LOG", filter.as_str()),
        None => ("log.filter", config.filter.as_str()),
    };
    let text = format!("{OF_GUESTS},{text}");
    let filter = EnvFilter::try_new(text).map_err(|error| format!("{source}: {error}"))?;
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let (writer, last_lines) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES)
        .thread_name("faas-log")
        .finish(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // The error says that there is a log already.
    let _ = match json {
        true => builder.json().flatten_event(true).finish().with(filter_fn(is_discreet)).try_init(),
        false => builder.with_target(false).finish().with(filter_fn(is_discreet)).try_init(),
    };
    Ok(last_lines)
}

/// Not what a library says of whole requests when everything is asked for: their fields and queries are
/// clients' secrets.
fn is_discreet(metadata: &Metadata<'_>) -> bool {
    *metadata.level() < Level::TRACE || !metadata.target().starts_with("wasmtime_wasi")
}
