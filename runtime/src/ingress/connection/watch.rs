//! What may end a connection from outside: a deadline, a reset, a node that stops.
//!
//! hyper polls a connection for every packet; these futures hardly ever have news. So they have a
//! waker of their own and are polled only when it was used: on the hot path the watch costs one
//! atomic load.

use super::{
    leave::Leave,
    pulse::{Overdue, Patience, Pulse},
};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// News for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// A deadline has passed.
    Overdue(Overdue),
    /// The client reset the connection.
    Reset,
    /// The node drains.
    Drain,
    /// There is need of its place and it is idle.
    Squeezed,
    /// There is need of what it holds, idle or not.
    Evicted,
    /// The node stops.
    Cut,
}

/// What all connections of a listener watch.
#[derive(Debug, Clone, Default)]
pub(in crate::ingress) struct Signals {
    /// The node ends soon: every answer of HTTP/1 says that it is the last of its connection.
    pub(in crate::ingress) leaving: Arc<AtomicBool>,
    /// Finish what is in flight, and close.
    pub(in crate::ingress) drain: CancellationToken,
    /// Close at once.
    pub(in crate::ingress) cut: CancellationToken,
}

/// Returns with the next news. After [`Alarm::Drain`] it is called again with `drained`.
pub(super) async fn next_alarm(
    socket: &TcpStream,
    pulse: &Pulse,
    patience: &Patience,
    signals: &Signals,
    drained: bool,
) -> Alarm {
    let sleep = sleep(pulse.check(patience).unwrap_or_default());
    tokio::pin!(sleep);
    let leaves = pulse.shall_leave();
    tokio::pin!(leaves);
    loop {
        tokio::select! {
            biased;
            () = signals.cut.cancelled() => return Alarm::Cut,
            () = signals.drain.cancelled(), if !drained => return Alarm::Drain,
            // A FIN is no error: the client may only have finished sending. A reset is one, and
            // epoll tells it even when nobody reads.
            _ = socket.ready(Interest::ERROR) => return Alarm::Reset,
            () = &mut sleep => match pulse.check(patience) {
                Ok(next) => sleep.as_mut().reset(Instant::now() + next),
                Err(overdue) => return Alarm::Overdue(overdue),
            },
            leave = &mut leaves => return match leave {
                Leave::Now => Alarm::Evicted,
                Leave::IfIdle | Leave::UnlessAsked => Alarm::Squeezed,
            },
        }
    }
}

/// A future that is polled only when it woke itself.
pub(super) struct Seldom<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
    /// The task that polled last. A connection stays in one task, so this is set once.
    task: Option<Waker>,
}

struct Bell {
    rung: AtomicBool,
    /// Stays set, so that no wake-up can find it empty.
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Release);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

impl<F: Future> Seldom<F> {
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::new(None) });
        let waker = Waker::from(bell.clone());
        Self { future: Box::pin(future), bell, waker, task: None }
    }

    /// Polls the future if it has woken itself since.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *self.bell.task.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(cx.waker().clone());
            self.task = Some(cx.waker().clone());
        }
        if !self.bell.rung.load(Acquire) || !self.bell.rung.swap(false, AcqRel) {
            return Poll::Pending;
        }
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn it_is_polled_when_it_woke_itself_and_only_then() {
        let (tell, told) = oneshot::channel();
        let polls = Arc::new(AtomicUsize::new(0));
        let count = polls.clone();
        let mut told = Box::pin(told);
        let mut seldom = Seldom::new(poll_fn(move |cx| {
            count.fetch_add(1, Relaxed);
            told.as_mut().poll(cx)
        }));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..5 {
            assert!(seldom.poll(&mut cx).is_pending());
        }
        assert_eq!(polls.load(Relaxed), 1);
        let waits = tokio::spawn(async move { poll_fn(|cx| seldom.poll(cx)).await });
        tokio::task::yield_now().await;
        tell.send(7).unwrap();
        assert_eq!(waits.await.unwrap(), Ok(7));
        assert_eq!(polls.load(Relaxed), 2);
    }
}
