//! Work that goes on after the handler has returned: sending the body.
//!
//! The bindings can spawn tasks too, but at the price of a whole executor in every function.
//! There is one task here, and the host already tells who to wake, so a future that polls itself
//! whenever it is woken is enough. The component's call ends once nothing is waited for any more.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// Work that waits, at the place its task knows. A waker must be `Send`, work need not be:
    /// hence the table. Free places are used again.
    static WAITING: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

enum Place {
    Free,
    /// Its work is being polled just now.
    Busy,
    Waiting(Work),
}

struct Task {
    place: usize,
    woken: AtomicBool,
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
    put(place, Place::Busy);
    Arc::new(Task {
        place,
        woken: AtomicBool::new(false),
    })
    .go_on(Box::pin(work));
}

impl Task {
    fn go_on(self: Arc<Self>, mut work: Work) {
        let waker = Waker::from(Arc::clone(&self));
        let mut context = Context::from_waker(&waker);
        loop {
            match work.as_mut().poll(&mut context) {
                Poll::Ready(()) => return drop(put(self.place, Place::Free)),
                Poll::Pending if self.woken.swap(false, Ordering::Relaxed) => {}
                Poll::Pending => return drop(put(self.place, Place::Waiting(work))),
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        match put(self.place, Place::Busy) {
            Some(Place::Waiting(work)) => self.go_on(work),
            // It wakes itself: `go_on` is on the stack below and will see it.
            Some(Place::Busy) => self.woken.store(true, Ordering::Relaxed),
            // Woken although it has finished. Wakers may be that late.
            Some(Place::Free) | None => drop(put(self.place, Place::Free)),
        }
    }
}

/// Puts something else at a place and returns what was there.
fn put(place: usize, new: Place) -> Option<Place> {
    WAITING.with_borrow_mut(|places| {
        places
            .get_mut(place)
            .map(|place| std::mem::replace(place, new))
    })
}
