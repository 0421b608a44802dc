//! The faas host: runs WebAssembly functions, a fresh sandbox per request.
//!
//! | module | what it holds |
//! |---|---|
//! | [`run`] | the one verb: starts a node and serves until it is told to stop |
//! | [`Config`] | every setting of a node |
//! | [`Shutdown`] | how a node is told to stop |
//! | [`restore`] | makes a data directory of a backup |
//! | [`compile_worker`] | the entry of the compile process |

mod admin;
mod backup;
mod clock;
pub mod config;
mod configuration;
mod deploy;
mod engine;
mod functions;
mod host;
mod ingress;
mod node;
mod request_id;
mod shutdown;
mod storage;
mod telemetry;
mod tls;
mod tokens;

pub use backup::{RestoreError, Restored, restore};
pub use config::Config;
pub use node::{Ready, RunError, compile_worker, run};
pub use shutdown::Shutdown;

/// Properties of parsers, for `fuzz/`: each takes any bytes, and panics where one does not hold.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{
        engine::properties::{artifact, cgi_block},
        functions::properties::functions,
        ingress::properties::{host, pieces, response_head, route},
        telemetry::guest_logs::properties::{lines, log_file},
    };
}
