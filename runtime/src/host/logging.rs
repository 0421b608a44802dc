//! `wasi:logging`: entries of a guest's log that have a level. `runtime/wit/logging.wit` is what it
//! looks like from the guest.

use super::HostState;
use faas_api::LogLevel;
use wasmtime::{
    Result, StoreContextMut,
    component::{ComponentType, Lift, Linker, WasmStr},
};

/// The interface, under its draft's name and under the one it had before it had versions.
pub(super) const NAMES: [&str; 2] = ["wasi:logging/logging@0.1.0-draft", "wasi:logging/logging"];

/// A level, as a guest says it.
#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only guests make one")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
            Level::Critical => Self::Critical,
        }
    }
}

/// Offers it to components.
pub(super) fn link(linker: &mut Linker<HostState>) -> Result<()> {
    for name in NAMES {
        linker.instance(name)?.func_wrap("log", log)?;
    }
    Ok(())
}

/// Never waits: what is over the call's budget is dropped and counted.
fn log(
    store: StoreContextMut<'_, HostState>,
    (level, context, message): (Level, WasmStr, WasmStr),
) -> Result<()> {
    let context = context.to_str(&store)?;
    let message = message.to_str(&store)?;
    store.data().output().entry(level.into(), &context, &message);
    Ok(())
}
