//! How a node stops: first it drains, then – when asked again, or out of patience – it stops at once.

use tokio_util::sync::CancellationToken;

/// The switch that stops a node, shared by whoever may throw it and whoever must notice.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    /// A switch that nobody has thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the node to drain: refuse new work, finish what is in flight, then end.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Asks the node to end at once; whatever is in flight is cut off.
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Whether the node is draining or stopping.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether the node was told to end at once.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Returns once the node should drain.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Returns once the node should end at once.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}
