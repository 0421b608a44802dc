//! Guests that take long, on threads of their own, where every app gets its share.
//!
//! A guest begins on the thread that has its connection, which is the cheapest place for it: most
//! are done in microseconds. One that is not would hold up every other connection of that thread. So
//! after [`LONG`] it goes on here, among its like, and the thread that has the connections of
//! everybody else is theirs again. These threads have a lower priority: when there are more busy
//! guests than cores, the kernel still lets a short request run at once.
//!
//! Guests run in turns of a few milliseconds. The next turn is that of the app which has had the
//! least CPU time here, so that an app with hundreds of busy guests takes no more from another one
//! than an app with one. What an app has used counts for as long as it keeps using; who was idle
//! begins level with the others, without a claim for the time when it wanted nothing (start-time
//! fair queueing: Goyal, Vin, Cheng, 1996). Guests of one app take turns in order.

use super::InvokeError;
use crate::host::stopwatch;
use async_task::{FallibleTask, Runnable};
use faas_api::AppName;
use futures::FutureExt as _;
use std::{
    collections::{HashMap, VecDeque},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Handle, Runtime};

/// How long a guest may compute without a pause before it is moved. Less than it takes until a tick
/// makes it give way, so that one which computes for longer is moved right then.
pub(super) const LONG: Duration = Duration::from_millis(2);

/// What is added to the nice value of the threads: the kernel gives them a third of the time that it
/// gives to others which want it.
const NICENESS: i32 = 5;

/// The threads. They end when this is dropped.
pub(super) struct Offload {
    queue: Arc<Queue>,
    /// Timers and sockets of what runs here.
    runtime: Option<Runtime>,
}

impl Offload {
    /// Starts as many threads as there are cores.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().thread_name("long-guests-io").enable_all().build()?;
        let offload = Self { queue: Arc::default(), runtime: Some(runtime) };
        let threads = thread::available_parallelism().map_or(1, Into::into);
        for _ in 0..threads {
            let (queue, runtime) = (offload.queue.clone(), offload.handle()?);
            let builder = thread::Builder::new().name("long-guests".to_owned());
            builder.spawn(move || work(&queue, &runtime))?;
        }
        Ok(offload)
    }

    fn handle(&self) -> io::Result<Handle> {
        let runtime = self.runtime.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(runtime.handle().clone())
    }

    /// Runs a future of an app here. It ends when the handle is dropped.
    pub(super) fn spawn<F>(&self, app: &AppName, future: F) -> Moved<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (queue, app) = (self.queue.clone(), app.clone());
        let schedule = move |turn| queue.push(&app, turn);
        // A defect of the host in one guest is that guest's failure and no other's.
        let caught = AssertUnwindSafe(future).catch_unwind();
        let (turn, task) = async_task::spawn(caught, schedule);
        turn.schedule();
        Moved(task.fallible())
    }

    /// Runs a future where it is polled until it takes long, and from then on here. It is one that
    /// serves many: together they may take longer than one alone.
    pub(super) async fn roam<F>(&self, app: &AppName, future: F) -> Result<F::Output, InvokeError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut future = Box::pin(future);
        let ended = std::future::poll_fn(|cx| {
            let since = Instant::now();
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if since.elapsed() >= 2 * LONG => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        match ended.await {
            Some(output) => Ok(output),
            None => self.spawn(app, future).await,
        }
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        self.queue.close();
        // It may be dropped on an asynchronous thread, where nothing may be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A future that runs on the threads. Dropping it ends that at the next pause.
pub(super) struct Moved<T>(FallibleTask<thread::Result<T>>);

impl<T> Future for Moved<T> {
    type Output = Result<T, InvokeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let failed = |why: &str| InvokeError::Internal(format!("the host {why} under a guest"));
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(cx)) {
            Some(Ok(output)) => Ok(output),
            Some(Err(_)) => Err(failed("panicked")),
            None => Err(failed("ended")),
        })
    }
}

/// What a thread does.
fn work(queue: &Queue, runtime: &Handle) {
    // Without it they still are threads of their own.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    stopwatch::measure_by_cpu_clock();
    let _entered = runtime.enter();
    while let Some((app, turn)) = queue.pop() {
        let since = stopwatch::cpu_clock();
        // What runs is caught already; what was given up is dropped here.
        let _ = catch_unwind(AssertUnwindSafe(|| turn.run()));
        queue.took(&app, stopwatch::cpu_clock().saturating_sub(since));
    }
}

/// Turns that are wanted, of whom.
#[derive(Default)]
struct Queue {
    turns: Mutex<Turns>,
    wanted: Condvar,
}

#[derive(Default)]
struct Turns {
    apps: HashMap<AppName, Share>,
    /// What the app had used that had the last turn: where those begin that come now.
    level: Duration,
    is_closed: bool,
}

/// What an app has had, and wants.
#[derive(Default)]
struct Share {
    /// CPU time, on the scale of `level`.
    used: Duration,
    waiting: VecDeque<Runnable>,
    /// How many threads work for it.
    running: usize,
}

impl Queue {
    fn push(&self, app: &AppName, turn: Runnable) {
        let mut turns = self.lock();
        if turns.is_closed {
            // Not under the lock: dropping it may wake and push others.
            drop(turns);
            return;
        }
        let level = turns.level;
        // Nothing is allocated for an app that is here already.
        match turns.apps.get_mut(app) {
            Some(share) => share.join(level, turn),
            None => turns.apps.entry(app.clone()).or_default().join(level, turn),
        }
        drop(turns);
        self.wanted.notify_one();
    }

    /// The next turn; none when there will be no more.
    fn pop(&self) -> Option<(AppName, Runnable)> {
        let mut turns = self.lock();
        loop {
            if turns.is_closed {
                return None;
            }
            if let Some(next) = turns.next() {
                return Some(next);
            }
            turns = self.wanted.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn took(&self, app: &AppName, time: Duration) {
        let mut turns = self.lock();
        if let Some(share) = turns.apps.get_mut(app) {
            share.used += time;
            share.running = share.running.saturating_sub(1);
        }
        turns.forget();
    }

    fn close(&self) {
        let mut turns = self.lock();
        turns.is_closed = true;
        let left = std::mem::take(&mut turns.apps);
        drop(turns);
        self.wanted.notify_all();
        // Dropping a guest may wake another one.
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// The turn of the app that has had least.
    fn next(&mut self) -> Option<(AppName, Runnable)> {
        let waiting = self.apps.iter_mut().filter(|(_, share)| !share.waiting.is_empty());
        let (app, share) = waiting.min_by_key(|(_, share)| share.used)?;
        let turn = share.waiting.pop_front()?;
        share.running += 1;
        let (app, used) = (app.clone(), share.used);
        self.level = self.level.max(used);
        Some((app, turn))
    }

    /// Forgets apps that want nothing and have had no more than others.
    fn forget(&mut self) {
        let is_busy = |share: &Share| share.running > 0 || !share.waiting.is_empty();
        if self.apps.values().any(is_busy) {
            let level = self.level;
            self.apps.retain(|_, share| is_busy(share) || share.used > level);
        } else {
            self.apps.clear();
            self.level = Duration::ZERO;
        }
    }
}

impl Share {
    fn join(&mut self, level: Duration, turn: Runnable) {
        if self.waiting.is_empty() && self.running == 0 {
            self.used = self.used.max(level);
        }
        self.waiting.push_back(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
    use tokio::task::yield_now;

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    /// A turn that does nothing.
    fn turn() -> Runnable {
        let (turn, task) = async_task::spawn(async {}, |_| {});
        task.detach();
        turn
    }

    /// Who has the next turns, when each takes so many milliseconds.
    fn order(queue: &Queue, times: &[(&str, u64)], count: usize) -> String {
        let next = |_| {
            let (name, _) = queue.lock().next()?;
            let time = times.iter().find(|(app, _)| *app == name.as_str()).map_or(3, |(_, ms)| *ms);
            queue.took(&name, Duration::from_millis(time));
            Some(name.to_string())
        };
        (0..count).map_while(next).collect()
    }

    #[test]
    fn an_app_with_many_has_no_more_than_an_app_with_one() {
        let queue = Queue::default();
        (0..10).for_each(|_| queue.push(&app("a"), turn()));
        (0..3).for_each(|_| queue.push(&app("b"), turn()));
        let order = order(&queue, &[], 8);
        assert_eq!(order[..6].matches('b').count(), 3, "{order}");
    }

    #[test]
    fn who_takes_long_turns_has_fewer_of_them() {
        let queue = Queue::default();
        (0..20).for_each(|_| queue.push(&app("a"), turn()));
        (0..20).for_each(|_| queue.push(&app("b"), turn()));
        let order = order(&queue, &[("a", 30), ("b", 3)], 12);
        assert!(order.matches('a').count() <= 2, "{order}");
    }

    #[test]
    fn who_comes_late_has_no_claim_and_owes_nothing() {
        let queue = Queue::default();
        (0..20).for_each(|_| queue.push(&app("a"), turn()));
        order(&queue, &[], 10);
        (0..10).for_each(|_| queue.push(&app("b"), turn()));
        let order = order(&queue, &[], 8);
        assert!((3..=5).contains(&order.matches('b').count()), "{order}");
    }

    #[test]
    fn what_was_used_is_remembered_while_it_matters() {
        let queue = Queue::default();
        (0..20).for_each(|_| queue.push(&app("a"), turn()));
        queue.push(&app("b"), turn());
        // It takes a very long turn, wants nothing for a moment, and comes again.
        let first = order(&queue, &[("b", 300)], 2);
        assert!(first.contains('b'), "{first}");
        queue.push(&app("b"), turn());
        assert_eq!(order(&queue, &[], 10), "aaaaaaaaaa");
        order(&queue, &[], 100);
        assert!(queue.lock().apps.is_empty(), "nobody is remembered for ever");
    }

    #[tokio::test]
    async fn futures_run_there_and_end_with_their_handle() {
        let offload = Offload::start().unwrap();
        let name = app("a");
        let thread = offload.spawn(&name, async {
            yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            thread::current().name().map(str::to_owned)
        });
        assert_eq!(thread.await.unwrap().as_deref(), Some("long-guests"));
        let panics = offload.spawn(&name, async { panic!("on purpose") });
        assert!(matches!(panics.await, Err(InvokeError::Internal(_))));
        let turns = Arc::new(AtomicU32::new(0));
        let gone = Arc::new(AtomicBool::new(false));
        struct Gone(Arc<AtomicBool>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let (count, guard) = (turns.clone(), Gone(gone.clone()));
        let endless = offload.spawn(&name, async move {
            let _guard = guard;
            loop {
                count.fetch_add(1, Relaxed);
                yield_now().await;
            }
        });
        while turns.load(Relaxed) < 10 {
            yield_now().await;
        }
        drop(endless);
        while !gone.load(Relaxed) {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_takes_long_moves() {
        let offload = Offload::start().unwrap();
        let here = || thread::current().name().map(str::to_owned);
        offload.roam(&app("a"), async { yield_now().await }).await.unwrap();
        let long = async move {
            thread::sleep(2 * LONG);
            yield_now().await;
            here()
        };
        let ended = offload.roam(&app("a"), long).await.unwrap();
        assert_eq!(ended.as_deref(), Some("long-guests"));
        let endless = offload.spawn(&app("a"), std::future::pending::<()>());
        drop(offload);
        // The threads are gone, and it with them or not at all.
        drop(endless);
    }
}
