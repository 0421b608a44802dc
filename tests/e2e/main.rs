//! End-to-end tests: the shipped binary, real sockets, real Wasm. One file per subject.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and says so"
)]

mod access;
mod acme;
mod admin;
mod admission;
mod apps;
mod artifacts;
mod backup;
mod bad_input;
mod canaries;
mod cli;
mod clocks;
mod config;
mod crash;
mod crash_loops;
mod crowds;
mod deadlines;
mod deploy;
mod dev;
mod disconnect;
mod disk_faults;
mod examples;
mod exit_codes;
mod fairness;
mod faults_of_accept;
mod framing;
mod guard;
mod guest_view;
mod handover;
mod hoard;
mod hostile;
mod hostile_http2;
mod http;
mod idle_crowds;
mod isolation;
mod large_answers;
mod ledger;
mod limits;
mod little_room;
mod log_files;
mod logs;
mod metrics;
mod outbound;
mod outbound_limits;
mod outbound_table;
mod outbound_wire;
mod output;
mod overload;
mod paused;
mod previews;
mod quarantine;
mod refusals;
mod residency;
mod restart;
mod reuse;
mod rollout;
mod service;
mod shutdown;
mod siblings;
mod silence;
mod spinners;
mod start;
mod streaming;
mod swap;
mod tls;
mod tokens;
mod transcripts;
mod usage;
