//! The `faas` command: the host (`faas serve`), and the client of its API (every other verb).
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the command line as typed |
//! | `context` | the command line as needed: server, token |
//! | `logins` | the servers and tokens that are stored for this user |
//! | `commands` | one file per verb |
//! | `client`, `configuration`, `ndjson` | typed calls to the admin API |
//! | `trust` | whose certificates are trusted |
//! | `project`, `build`, `artifact` | `faas.toml`, its build, and what the build makes |
//! | `diff`, `release` | what a deploy would change, and the deploy of an app |
//! | `dotenv` | `.env` files |
//! | `ui`, `format`, `log_view` | what is printed and asked, and how it looks |
//! | `documents` | what is printed for scripts |
//! | `service` | what a service manager is told |
//! | `error` | why a command fails; the exit codes |

mod args;
mod artifact;
mod build;
mod client;
mod commands;
mod configuration;
mod context;
mod diff;
mod documents;
mod dotenv;
mod error;
mod format;
mod log_view;
mod logins;
mod ndjson;
#[cfg(all(test, feature = "serve"))]
mod output_schema;
mod project;
#[cfg(test)]
mod reference;
mod release;
#[cfg(feature = "serve")]
mod service;
mod trust;
mod ui;
#[cfg(feature = "serve")]
mod watch;

use std::process::ExitCode;

#[cfg(feature = "serve")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The host runs its own executable again to compile; that process does nothing else.
    #[cfg(feature = "serve")]
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "compile-worker") {
        return faas_runtime::compile_worker();
    }
    commands::run(&std::env::args_os().collect::<Vec<_>>())
}
