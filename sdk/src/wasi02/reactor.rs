//! Waiting in WASI 0.2: when no future can go on, the host is asked to poll.

use std::cell::RefCell;
use std::future::Future;
use std::io::Write as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use wasip2::io::poll::{Pollable, poll};

thread_local! {
    static WAITS: RefCell<Waits> = const { RefCell::new(Waits { next_id: 0, list: Vec::new() }) };
}

/// What futures wait for at the moment.
struct Waits {
    next_id: usize,
    list: Vec<Entry>,
}

struct Entry {
    id: usize,
    pollable: Pollable,
    waker: Waker,
}

/// A future that is ready once the host says that the pollable is.
pub(crate) struct Wait(State);

enum State {
    New(Pollable),
    /// In the list under this number. Once it is not there any more, the wait is over.
    Listed(usize),
    Done,
}

/// Waits for `pollable`.
pub(crate) fn ready(pollable: Pollable) -> Wait {
    Wait(State::New(pollable))
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::New(pollable) => {
                self.0 = State::Listed(list(pollable, cx.waker().clone()));
                Poll::Pending
            }
            State::Listed(id) if still_listed(id, cx.waker()) => {
                self.0 = State::Listed(id);
                Poll::Pending
            }
            State::Listed(_) | State::Done => Poll::Ready(()),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // A pollable must be gone before that which it belongs to.
        if let State::Listed(id) = self.0 {
            WAITS.with_borrow_mut(|waits| waits.list.retain(|entry| entry.id != id));
        }
    }
}

/// Runs a future to its end, asking the host to poll whenever it cannot go on by itself.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !woken.0.swap(false, Ordering::Relaxed) {
            poll_host();
        }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has the host wait for anything in the list; takes out and wakes what became ready.
fn poll_host() {
    let entries = WAITS.with_borrow_mut(|waits| std::mem::take(&mut waits.list));
    if entries.is_empty() {
        let _ = std::io::stderr().write_all(b"error: the function waits for nothing, for ever\n");
        std::process::abort();
    }
    let pollables: Vec<&Pollable> = entries.iter().map(|entry| &entry.pollable).collect();
    let ready = poll(&pollables);
    let is_ready = |index: usize| ready.iter().any(|&found| found as usize == index);

    let mut wakers = Vec::with_capacity(ready.len());
    let mut rest = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        if is_ready(index) {
            wakers.push(entry.waker);
        } else {
            rest.push(entry);
        }
    }
    WAITS.with_borrow_mut(|waits| waits.list = rest);
    wakers.into_iter().for_each(Waker::wake);
}

fn list(pollable: Pollable, waker: Waker) -> usize {
    WAITS.with_borrow_mut(|waits| {
        let id = waits.next_id;
        waits.next_id = id.wrapping_add(1);
        waits.list.push(Entry { id, pollable, waker });
        id
    })
}

fn still_listed(id: usize, waker: &Waker) -> bool {
    WAITS.with_borrow_mut(|waits| {
        let entry = waits.list.iter_mut().find(|entry| entry.id == id);
        entry.map(|entry| entry.waker.clone_from(waker)).is_some()
    })
}
