//! End-to-end tests: the shipped binary, real sockets, real Wasm. One file per subject.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and says so"
)]

mod admin;
mod admission;
mod bad_input;
mod cli;
mod crash;
mod deadlines;
mod deploy;
mod dev;
mod disconnect;
mod examples;
mod framing;
mod guest_view;
mod http;
mod isolation;
mod limits;
mod logs;
mod metrics;
mod outbound;
mod previews;
mod residency;
mod restart;
mod reuse;
mod shutdown;
mod siblings;
mod start;
mod streaming;
mod swap;
