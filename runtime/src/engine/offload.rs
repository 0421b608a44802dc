//! Guests that take long, on threads of their own.
//!
//! A guest begins on the thread that has its connection, which is the cheapest place for it: most
//! are done in microseconds. One that is not would hold up every other connection of that thread. So
//! after [`LONG`] it goes on here, among its like, and the thread that has the connections of
//! everybody else is theirs again. These threads have a lower priority: when there are more busy
//! guests than cores, the kernel still lets a short request run at once.

use std::{io, time::Duration};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// How long a guest may compute without a pause before it is moved. Less than it takes until a tick
/// makes it give way, so that one which computes for longer is moved right then.
pub(super) const LONG: Duration = Duration::from_millis(2);

/// What is added to the nice value of the threads: the kernel gives them a third of the time that it
/// gives to others which want it.
const NICENESS: i32 = 5;

/// The threads.
pub(super) struct Offload(Option<Runtime>);

impl Offload {
    /// Starts as many threads as there are cores.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("long-guests")
            .enable_all()
            .on_thread_start(|| {
                // Without it they still are threads of their own.
                let _ = rustix::process::setpriority_process(None, NICENESS);
            })
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a future here. It ends when the handle is dropped.
    pub(super) fn spawn<F>(&self, future: F) -> Option<AbortOnDropHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.as_ref().map(|runtime| AbortOnDropHandle::new(runtime.spawn(future)))
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        // It may be dropped on an asynchronous thread, where nothing may be waited for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
