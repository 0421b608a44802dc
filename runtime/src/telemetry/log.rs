//! The node's own log, on standard error.

use super::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts the log. In a process that has one already – a test, an embedder – that one stays.
///
/// # Errors
/// When the filter cannot be read; the text says where it came from.
pub(crate) fn start(config: &LogConfig) -> Result<(), String> {
    let from_env = std::env::var("FAAS_LOG").ok().filter(|filter| !filter.is_empty());
    let (source, text) = match &from_env {
        Some(filter) => ("FAAS_LOG", filter.as_str()),
        None => ("log.filter", config.filter.as_str()),
    };
    let filter = EnvFilter::try_new(text).map_err(|error| format!("{source}: {error}"))?;
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The error says that there is a log already.
    let _ = match json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder.with_target(false).try_init(),
    };
    Ok(())
}
