//! The connections of the whole node: how many there may be, and how many there are.

use super::{account, failure::Failure};
use prometheus::IntGauge;
use rustix::process::{Resource, getrlimit};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most connections, where the limit on open files would permit more.
const MOST: u32 = 4096;
/// What is assumed when the system knows no limit, or does not tell it.
const LEAST: u32 = 64;

/// The places for connections.
pub(super) struct Sockets {
    places: Arc<Semaphore>,
    most: u32,
    open: IntGauge,
}

/// The place of one connection.
pub(super) struct Socket {
    _place: OwnedSemaphorePermit,
    open: IntGauge,
}

impl Sockets {
    /// So many, or with 0 as many as a quarter of the files that may be open: the ingress has half of
    /// them.
    pub(super) fn new(configured: u32, open: IntGauge) -> Self {
        let derived = || match getrlimit(Resource::Nofile).current {
            Some(files) => u32::try_from(files / 4).unwrap_or(MOST).clamp(LEAST, MOST),
            None => MOST,
        };
        let most = if configured > 0 { configured } else { derived() };
        Self { places: Arc::new(Semaphore::new(most as usize)), most, open }
    }

    /// Whether all places are taken. Nobody keeps an idle connection then.
    pub(super) fn are_all_taken(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// A place. When there is none, `make_room` is called once, and then one is waited for.
    ///
    /// # Errors
    /// When none came free in time.
    pub(super) async fn take(
        &self,
        patience: Duration,
        make_room: impl FnOnce(),
    ) -> Result<Socket, Failure> {
        if self.are_all_taken() {
            make_room();
        }
        let place = account::turn(&self.places, patience).await;
        let place = place.ok_or_else(|| Failure::limit("max_connections", self.most))?;
        self.open.inc();
        Ok(Socket { _place: place, open: self.open.clone() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_given_back() {
        let open = IntGauge::new("open", "open").unwrap();
        let sockets = Sockets::new(1, open.clone());
        let first = sockets.take(Duration::ZERO, || panic!("there is room")).await.unwrap();
        assert_eq!((open.get(), sockets.are_all_taken()), (1, true));
        let mut asked = false;
        let refused = sockets.take(Duration::from_millis(1), || asked = true).await;
        assert!(asked && refused.err().unwrap().why.contains("`outbound.max_connections`"));
        // Who gives up its own makes room.
        let second = sockets.take(Duration::from_secs(9), || drop(first)).await.unwrap();
        assert_eq!(open.get(), 1);
        drop(second);
        assert_eq!((open.get(), sockets.are_all_taken()), (0, false));
        assert!((LEAST..=MOST).contains(&Sockets::new(0, open).most));
    }
}
