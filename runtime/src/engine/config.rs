//! The engine's settings.

use serde::{Deserialize, Serialize};

/// The pool of instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// The most instances at once; 0 derives it from the machine.
    pub pool_size: u32,
    /// The most memory that all instances together may use, in bytes; 0 derives it.
    pub memory_budget_bytes: u64,
    /// The most functions whose native code is in memory; 0 derives it. What was not called for
    /// the longest time makes room, and is loaded again by its next request.
    pub loaded_functions: u32,
    /// The most native code in memory, with what belongs to it, in bytes; 0 derives it.
    pub loaded_code_bytes: u64,
    /// How a used slot is cleaned: `fast` resets the pages that were written where the kernel
    /// can tell them safely, `strict` always gives every page back.
    pub isolation: Isolation,
    /// How many requests may wait for an instance when all are in use.
    pub queue: usize,
    /// How long one of them waits before it is refused, in milliseconds.
    pub queue_timeout_ms: u64,
}

/// How a used slot is cleaned for the next instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Reset the pages that were written, where the kernel can tell them and swap cannot hide one.
    Fast,
    /// Give every page back to the kernel.
    Strict,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            pool_size: 0,
            memory_budget_bytes: 0,
            loaded_functions: 0,
            loaded_code_bytes: 0,
            isolation: Isolation::Fast,
            queue: 1024,
            queue_timeout_ms: 1000,
        }
    }
}

/// What one call of a function may use. A call over a limit fails with that limit's code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Linear memory of one instance, all its memories together, in bytes.
    pub memory_bytes: u64,
    /// CPU time of one call, host calls included, in milliseconds.
    pub cpu_ms: u64,
    /// Time from the request to the head of the response, in milliseconds.
    pub first_byte_ms: u64,
    /// Time of a whole call, in milliseconds.
    pub wall_ms: u64,
    /// Elements of all tables of one instance.
    pub table_elements: usize,
    /// The largest request body, in bytes.
    pub request_body_bytes: u64,
    /// What one call may write to its log, in bytes.
    pub log_bytes: usize,
    /// Calls of one function at once; 0 means as many as the pool has.
    pub concurrency: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20,
            cpu_ms: 5_000,
            first_byte_ms: 30_000,
            wall_ms: 300_000,
            table_elements: 100_000,
            request_body_bytes: 10 << 20,
            log_bytes: 256 << 10,
            concurrency: 0,
        }
    }
}
