//! Waiting for something to become true.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none in time; `what` says what was waited for.
pub fn eventually<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks again and again, and wants yes every time.
///
/// # Panics
/// At the first no; `what` says what should have stayed true.
pub fn holds(what: &str, time: Duration, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        assert!(ask(), "did not stay true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A number that is small in the suite, and large where `FAAS_TEST_FULL` is set: what takes minutes.
pub fn full(small: usize, large: usize) -> usize {
    if std::env::var_os("FAAS_TEST_FULL").is_some() { large } else { small }
}

/// Nothing that is waited for takes so long, on however busy a machine.
const FOR_EVER: Duration = Duration::from_secs(300);

/// Runs a future on a runtime of its own.
///
/// # Panics
/// When there is no thread for it, or it hangs: a test that never ends says less than one that
/// fails.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(FOR_EVER, future).await });
    ended.unwrap_or_else(|_| panic!("it hangs: no end within {FOR_EVER:?}"))
}

/// Says what was measured; `--nocapture` shows it.
pub fn figure(text: &str) {
    eprintln!("{text}");
}
