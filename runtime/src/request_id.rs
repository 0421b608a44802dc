//! The id of a request: made first, and in every log line, response and error about it.

use http::HeaderValue;
use std::fmt;

/// A ULID: 48 bits of milliseconds, 80 random bits, 26 characters of Crockford's base 32.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestId(ulid::Ulid);

impl RequestId {
    /// A fresh id.
    pub(crate) fn new() -> Self {
        Self(ulid::Ulid::generate())
    }

    /// The id as a header value.
    pub(crate) fn header(self) -> HeaderValue {
        let mut buffer = [0; ulid::ULID_LEN];
        HeaderValue::from_str(self.0.array_to_str(&mut buffer))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
