//! The clock that interrupts guests.
//!
//! A thread of its own: a guest that never returns to the asynchronous runtime would otherwise
//! also keep the runtime's timers from firing, and with them its own end.

use std::{thread, time::Duration};
use wasmtime::Engine;

/// Time between two interruptions of a running guest. Each time its CPU time is checked, and if it
/// has run for a while it yields to other requests of its thread.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Ticks for as long as one of the engines exists.
pub(super) fn start(engines: &[Engine]) -> std::io::Result<()> {
    let weak: Vec<_> = engines.iter().map(Engine::weak).collect();
    thread::Builder::new().name("faas-epoch".to_owned()).spawn(move || {
        loop {
            thread::sleep(TICK);
            let alive = weak.iter().filter_map(|engine| engine.upgrade());
            if alive.inspect(Engine::increment_epoch).count() == 0 {
                return;
            }
        }
    })?;
    Ok(())
}
