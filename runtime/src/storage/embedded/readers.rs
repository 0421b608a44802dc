//! The connections that read: a few, used in turn on threads that may wait.

use super::database::{COPYING, Fault, open_reader};
use crate::storage::{
    StorageError,
    files::{blocking, lock},
};
use rusqlite::Connection;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
};
use tokio::sync::Semaphore;

/// How many reads run at once at most, even on a large machine.
const MOST: usize = 8;

/// A pool of read-only connections, opened when they are first needed.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Read by whoever has a connection, written by whoever needs that nobody has one.
    at_work: RwLock<()>,
}

impl Readers {
    /// A pool for the file `path`, with as many connections as the machine has cores.
    pub(super) fn new(path: PathBuf) -> Arc<Self> {
        let count = thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST));
        let permits = Arc::new(Semaphore::new(count));
        Arc::new(Self { path, idle: Mutex::default(), permits, at_work: RwLock::default() })
    }

    /// Runs `work` while there is no connection but the writer's. Blocks until those that are at
    /// work have finished.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let _copying = COPYING.write().unwrap_or_else(PoisonError::into_inner);
        let _at_work = self.at_work.write().unwrap_or_else(PoisonError::into_inner);
        lock(&self.idle).clear();
        work()
    }

    /// Runs `work` with a connection.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StorageError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StorageError::Failed("the registry is closed".into()))?;
        let readers = Arc::clone(self);
        blocking(move || {
            let _permit = permit;
            readers.run(work).map_err(|fault| fault.explain(&readers.path))
        })
        .await
    }

    fn run<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let _at_work = self.at_work.read().unwrap_or_else(PoisonError::into_inner);
        let idle = lock(&self.idle).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let value = work(&mut connection)?;
        // Only one that worked goes back: after an error a fresh one is the safer start.
        lock(&self.idle).push(connection);
        Ok(value)
    }
}
