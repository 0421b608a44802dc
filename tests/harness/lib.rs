//! What the end-to-end tests are made of: nodes of the shipped binary, clients, guests.
//!
//! | part | what it holds |
//! |---|---|
//! | [`Node`] | a `faas serve` process with a data directory of its own |
//! | [`Cli`] | one run of `faas` in a hermetic environment |
//! | [`Request`], [`Connection`], [`Answer`] | HTTP/1.1 byte by byte, over a plain socket |
//! | [`frames`] | HTTP/2 frame by frame |
//! | [`hyper_client`] | HTTP/1.1 and HTTP/2 through hyper |
//! | [`tls`] | certificates, and clients that trust them |
//! | [`acme`] | an authority that gives out certificates |
//! | [`Issuer`] | signs tokens, and publishes and changes its keys |
//! | [`Metrics`] | what `/metrics` says |
//! | [`Parent`] | what a service manager does for a node |
//! | [`process`] | what the kernel says of a process |
//! | [`swap`] | swap for a moment, and memory that is forced out |
//! | [`disk`] | disks that are full or fail |
//! | [`load`] | an open-loop client |
//! | [`Project`] | a folder with a manifest |
//! | [`Relay`] | a connection that a test can spoil |
//! | [`Terminal`] | what a person sees |
//! | [`dns`] | a name server |
//! | [`Network`] | a network of a test's own |
//! | [`upstream`] | servers that functions send requests to |
//! | [`WallClock`] | a wall clock that jumps |
//! | [`artifacts`] | Wasm to deploy |
//!
//! Tests run side by side: ports are free ones, folders are temporary, nothing leaves loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says so"
)]

pub mod acme;
pub mod artifacts;
mod cli;
pub mod disk;
pub mod dns;
pub mod frames;
mod functions;
mod http1;
pub mod hyper_client;
mod issuer;
pub mod load;
mod metrics;
mod network;
mod node;
pub mod parent;
mod poll;
pub mod process;
mod project;
mod relay;
pub mod swap;
mod terminal;
pub mod tls;
pub mod upstream;
mod wall_clock;

pub use cli::{Cli, Output, faas_binary, toolchains};
pub use functions::Deploy;
pub use http1::{Answer, Connection, Request, reset};
pub use issuer::Issuer;
pub use metrics::Metrics;
pub use network::Network;
pub use node::Node;
pub use parent::Parent;
pub use poll::{block_on, eventually, figure, full, holds};
pub use project::Project;
pub use relay::{Fate, Relay};
pub use terminal::Terminal;
pub use wall_clock::WallClock;
