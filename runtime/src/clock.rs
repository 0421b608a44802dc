//! The wall clock. Everything that records when something happened asks here; everything that
//! measures how long it took uses the monotonic [`std::time::Instant`].

use jiff::Timestamp;

/// The time now, to the millisecond: finer digits would only look exact.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
