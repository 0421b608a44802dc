//! Work that goes on after the handler has returned: sending the body.
//!
//! The bindings can spawn tasks too, but at the price of a whole executor in every function.
//! There is one task here, and the host already tells who to wake, so a future that polls itself
//! whenever it is woken is enough. The component's call ends once nothing is waited for any more.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// Work that waits, at the place its task knows. A waker must be `Send`, work need not be:
    /// hence the table. Free places are used again.
    static WAITING: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

enum Place {
    Free,
    /// Its work is being polled just now, and may have been woken meanwhile.
    Busy {
        woken: bool,
    },
    Waiting(Work),
}

struct Task {
    place: usize,
}

/// Starts `work` now and goes on with it whenever it is woken.
pub(crate) fn start(work: impl Future<Output = ()> + 'static) {
    let place = WAITING.with_borrow_mut(|places| {
        let free = places.iter().position(|place| matches!(place, Place::Free));
        free.unwrap_or_else(|| {
            places.push(Place::Free);
            places.len() - 1
        })
    });
    put(place, Place::Busy { woken: false });
    Arc::new(Task { place }).go_on(Box::pin(work));
}

impl Task {
    fn go_on(self: Arc<Self>, mut work: Work) {
        let waker = Waker::from(Arc::clone(&self));
        let mut context = Context::from_waker(&waker);
        loop {
            if work.as_mut().poll(&mut context).is_ready() {
                put(self.place, Place::Free);
                return;
            }
            // It may have woken itself, which `wake` can only note down.
            if !matches!(
                put(self.place, Place::Busy { woken: false }),
                Some(Place::Busy { woken: true })
            ) {
                put(self.place, Place::Waiting(work));
                return;
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        match put(self.place, Place::Busy { woken: false }) {
            Some(Place::Waiting(work)) => self.go_on(work),
            Some(Place::Busy { .. }) => drop(put(self.place, Place::Busy { woken: true })),
            // Woken although it has finished. Wakers may be that late.
            Some(Place::Free) | None => drop(put(self.place, Place::Free)),
        }
    }
}

/// Puts something else at a place and returns what was there.
fn put(place: usize, new: Place) -> Option<Place> {
    WAITING
        .with_borrow_mut(|places| places.get_mut(place).map(|place| std::mem::replace(place, new)))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::task::Poll;

    use super::*;

    /// Work that counts its polls, keeps its waker, and ends when told to.
    #[derive(Clone, Default)]
    struct Probe {
        polls: Rc<Cell<u32>>,
        waker: Rc<RefCell<Option<Waker>>>,
        done: Rc<Cell<bool>>,
    }

    impl Probe {
        fn start(&self) {
            let probe = self.clone();
            start(poll_fn(move |cx| {
                probe.polls.set(probe.polls.get() + 1);
                *probe.waker.borrow_mut() = Some(cx.waker().clone());
                if probe.done.get() { Poll::Ready(()) } else { Poll::Pending }
            }));
        }

        fn wake(&self) {
            let waker = self.waker.borrow().clone().unwrap();
            waker.wake();
        }
    }

    #[test]
    fn goes_on_when_woken_and_ends() {
        let probe = Probe::default();
        probe.start();
        assert_eq!(probe.polls.get(), 1);
        probe.wake();
        assert_eq!(probe.polls.get(), 2);
        probe.done.set(true);
        probe.wake();
        probe.wake();
        assert_eq!(probe.polls.get(), 3);
        // Only this test and the waker's owner are left: the work itself was dropped.
        assert_eq!(Rc::strong_count(&probe.polls), 1);
    }

    #[test]
    fn work_that_wakes_itself_is_polled_again() {
        let left = Rc::new(Cell::new(3));
        let count = Rc::clone(&left);
        start(poll_fn(move |cx| {
            if count.get() == 0 {
                return Poll::Ready(());
            }
            count.set(count.get() - 1);
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        assert_eq!(left.get(), 0);
    }

    #[test]
    fn a_late_waker_does_not_disturb_the_next_work() {
        let first = Probe::default();
        first.done.set(true);
        first.start();
        let second = Probe::default();
        second.start();
        // The second has the place of the first.
        first.wake();
        second.wake();
        assert_eq!(second.polls.get(), 3);
        second.done.set(true);
        second.wake();
        assert_eq!(Rc::strong_count(&second.polls), 1);
    }

    #[test]
    fn work_may_start_other_work() {
        let inner = Probe::default();
        let started = inner.clone();
        start(async move { started.start() });
        assert_eq!(inner.polls.get(), 1);
    }
}
