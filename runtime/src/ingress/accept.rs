//! Accepts connections. Nothing that can go wrong with one connection ends this, or holds it up.

use super::{
    connection::{self, Common, Serve},
    crowd::{Crowd, Member},
};
use futures::FutureExt;
use rustix::process::{Resource, getrlimit};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// How long to wait when the system has no room for a connection, and how long at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// How often connections are asked to make room while there is none.
const SQUEEZE_EVERY: Duration = Duration::from_millis(10);
/// The most connections, where the limit on open files would permit more.
const MAX_CONNECTIONS: usize = 20_000;
/// How many connections in the system's queue are accepted when the drain begins.
const LAST_ONES: usize = 1024;
/// What is assumed when the system knows no limit, or does not tell it.
const MIN_CONNECTIONS: usize = 64;

/// The most connections at once: what is configured, or else as many as there is `room` for in memory
/// and half of the files that may be open, so that the other half is there for storage, artifacts and
/// the administrator.
pub(crate) fn max_connections(configured: usize, room: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    let most = MAX_CONNECTIONS.min(room).max(MIN_CONNECTIONS);
    match getrlimit(Resource::Nofile).current {
        Some(files) => usize::try_from(files / 2).unwrap_or(most).clamp(MIN_CONNECTIONS, most),
        None => most,
    }
}

/// Accepts connections until the node drains, and serves each in a task of its own, on one of the
/// threads for that.
pub(super) async fn accept<S: Serve>(
    listener: TcpListener,
    room: Room,
    common: Arc<Common>,
    visitor: impl Fn(SocketAddr) -> S,
) {
    let serve = |(stream, peer, slot): Accepted| {
        let Some(member) = room.crowd.enter(peer.ip()) else {
            // No answer: there may be very many, and they may expect TLS.
            let _ = stream.set_zero_linger();
            return;
        };
        let (service, shared) = (visitor(peer), common.clone());
        // Its thread has an event loop of its own, which shall tell of this socket.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        common.lanes.spawn(&common.tasks, async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection::serve(stream, service, member.pulse(), &shared).await;
            }
            drop::<(Member, _)>((member, slot));
        });
    };
    let mut wait = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = common.signals.drain.cancelled() => break,
            accepted = next(&listener, &room) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                wait = BACK_OFF.0;
                serve(accepted);
            }
            Err(error) if concerns_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                if wait == BACK_OFF.0 {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                tokio::select! {
                    () = sleep(wait) => {}
                    () = common.signals.drain.cancelled() => break,
                }
                wait = (wait * 2).min(BACK_OFF.1);
            }
        }
    }
    // To these clients the connection stands already.
    for _ in 0..LAST_ONES {
        match next(&listener, &room).now_or_never() {
            Some(Ok(accepted)) => serve(accepted),
            _ => break,
        }
    }
}

/// Where connections find a place. Listeners may share it.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// The places.
    pub(super) slots: Arc<Semaphore>,
    /// Those who have one.
    pub(super) crowd: Arc<Crowd>,
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// A place first, then the connection: a client that waits in the system's queue costs nothing.
async fn next(listener: &TcpListener, room: &Room) -> io::Result<Accepted> {
    let slot = match room.slots.clone().try_acquire_owned() {
        Ok(slot) => slot,
        Err(_) => room.make().await?,
    };
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

impl Room {
    /// Waits for a place, and asks others for theirs meanwhile.
    async fn make(&self) -> io::Result<OwnedSemaphorePermit> {
        let slot = self.slots.clone().acquire_owned();
        tokio::pin!(slot);
        loop {
            self.crowd.make_room();
            tokio::select! {
                slot = &mut slot => return slot.map_err(io::Error::other),
                () = sleep(SQUEEZE_EVERY) => {}
            }
        }
    }
}

/// Whether the system reported the end of one connection rather than trouble of its own. On Linux
/// `accept` passes on errors that were pending on the new socket (accept(2)).
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::TimedOut
    ) || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::PROTO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_is_configured_or_follows_from_the_system() {
        assert_eq!(max_connections(7, usize::MAX), 7);
        let derived = max_connections(0, usize::MAX);
        assert!((MIN_CONNECTIONS..=MAX_CONNECTIONS).contains(&derived));
        assert_eq!(max_connections(0, 70), 70);
        assert_eq!(max_connections(0, 1), MIN_CONNECTIONS);
    }

    #[test]
    fn only_the_systems_own_trouble_makes_it_wait() {
        use rustix::io::Errno;
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::NETDOWN] {
            assert!(concerns_one_connection(&errno.into()), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL] {
            assert!(!concerns_one_connection(&errno.into()), "{errno}");
        }
    }
}
