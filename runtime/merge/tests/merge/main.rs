//! What a component does before and after it is merged.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test program; its helpers stand outside of `#[test]` functions"
)]

mod canonical;
mod harness;
mod hostile;
mod linking;
mod order;
mod random;
mod refused;
