//! The threads that serve connections: one for each core, with an event loop of its own.
//!
//! A connection stays on the thread it was given to, so that what it needs is in that core's cache
//! and nothing is handed from thread to thread: on two cores that is a seventh less CPU time for a
//! request than with threads that share their work. It goes to the thread with the fewest; sockets
//! that share a port by `SO_REUSEPORT` would leave that to chance, and let a second node take the
//! port of the first. What takes long is moved elsewhere (`engine::offload`).

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tokio_util::task::TaskTracker;

/// The threads. They end when this is dropped, with whatever still runs on them.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Where the search for the emptiest begins.
    next: AtomicUsize,
    /// Runs what one connection has much of.
    shared: Handle,
}

struct Lane {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// Its thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Lanes {
    /// Starts so many threads; 0 means one for each core.
    ///
    /// # Errors
    /// When the system gives no more threads.
    ///
    /// # Panics
    /// Outside of an asynchronous runtime.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, Into::into),
            set => set,
        };
        let lanes = (0..threads).map(Lane::start).collect::<io::Result<_>>()?;
        Ok(Self { lanes, next: AtomicUsize::new(0), shared: Handle::current() })
    }

    /// Serves a connection on the thread that has the fewest.
    pub(super) fn spawn(
        &self,
        tasks: &TaskTracker,
        serve: impl Future<Output = ()> + Send + 'static,
    ) {
        let start = self.next.fetch_add(1, Relaxed) % self.lanes.len().max(1);
        let (before, from) = self.lanes.split_at_checked(start).unwrap_or((&self.lanes, &[]));
        let lanes = from.iter().chain(before);
        let Some(lane) = lanes.min_by_key(|lane| lane.connections.load(Relaxed)) else {
            return;
        };
        let counted = Counted::new(&lane.connections);
        let serve = async move {
            serve.await;
            drop(counted);
        };
        tasks.spawn_on(serve, &lane.handle);
    }

    /// Where the streams of an HTTP/2 connection run: there may be many, and all of a proxy's clients
    /// in one connection.
    pub(super) fn shared(&self) -> &Handle {
        &self.shared
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lanes").field(&self.lanes.len()).finish()
    }
}

impl Lane {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name(format!("connections-{number}")).spawn(move || {
            // The sender says nothing; it is dropped.
            let _: Result<(), _> = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, connections: Arc::default(), _stop: stop })
    }
}

/// One connection in the count of its thread.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tokio::sync::{Semaphore, mpsc};

    #[tokio::test]
    async fn connections_are_shared_out_evenly_and_stay() {
        let lanes = Lanes::start(3).unwrap();
        let (tasks, go) = (TaskTracker::new(), Arc::new(Semaphore::new(0)));
        let (tell, mut told) = mpsc::unbounded_channel();
        for _ in 0..9 {
            let (tell, go) = (tell.clone(), go.clone());
            lanes.spawn(&tasks, async move {
                let thread = thread::current().id();
                tell.send(thread).unwrap();
                let _go = go.acquire().await.unwrap();
                assert_eq!(thread::current().id(), thread);
            });
        }
        let mut threads = HashMap::new();
        for _ in 0..9 {
            *threads.entry(told.recv().await.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(threads.into_values().collect::<Vec<_>>(), [3, 3, 3]);
        go.add_permits(9);
        tasks.close();
        tasks.wait().await;
        assert!(lanes.lanes.iter().all(|lane| lane.connections.load(Relaxed) == 0));
    }
}
