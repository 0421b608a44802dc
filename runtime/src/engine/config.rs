//! The engine's settings.

use faas_api::manifest::LimitWishes;
use serde::{Deserialize, Serialize};

/// The pool of instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// The most instances at once; 0 derives it from the machine.
    pub pool_size: u32,
    /// What the node may use of the machine's memory in all, in bytes; 0: all of it, or what its control
    /// group leaves. Everything below is derived from this.
    pub node_memory_bytes: u64,
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
    /// Whether traps tell files and lines, of artifacts that have debug information. Core modules
    /// are not merged then and native code is larger: for development.
    pub line_numbers: bool,
    /// The most instances that the functions of one app may have at once; 0: nearly all there are, when
    /// no other app needs them.
    pub app_instances: u32,
    /// How many requests may wait for an instance when all are in use.
    pub queue: usize,
    /// How long one of them waits before it is refused, in milliseconds.
    pub queue_timeout_ms: u64,
    /// Calls in a row that trap after which a function is out of service for a while; one that uses up
    /// its time counts as four. 0: never.
    pub quarantine_after: u32,
    /// The longest that it is before a call is let through to see, in seconds; at first it is one.
    pub quarantine_s: u64,
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
            node_memory_bytes: 0,
            memory_budget_bytes: 0,
            loaded_functions: 0,
            loaded_code_bytes: 0,
            isolation: Isolation::Fast,
            line_numbers: false,
            app_instances: 0,
            queue: 1024,
            queue_timeout_ms: 1000,
            quarantine_after: 20,
            quarantine_s: 30,
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
    /// How long a response that has begun may wait for more of its body, in milliseconds.
    pub response_idle_ms: u64,
    /// CPU time in which an instance is made, its start function included, in milliseconds.
    pub start_ms: u64,
    /// Time that a guest has after the end of its response, in milliseconds.
    pub after_response_ms: u64,
    /// Elements of all tables of one instance.
    pub table_elements: usize,
    /// The largest request body, in bytes.
    pub request_body_bytes: u64,
    /// What one call may write to its log, in bytes.
    pub log_bytes: usize,
    /// Requests that one call may send, with those of the functions it calls.
    pub subrequests: u32,
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
            response_idle_ms: 30_000,
            start_ms: 1_000,
            after_response_ms: 30_000,
            table_elements: 100_000,
            request_body_bytes: 10 << 20,
            log_bytes: 256 << 10,
            subrequests: 50,
            concurrency: 0,
        }
    }
}

/// What a function may ask for at most. A node's own default that is higher raises its maximum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Maxima {
    /// Linear memory of one instance, all its memories together, in bytes.
    pub memory_bytes: u64,
    /// CPU time of one call, in milliseconds.
    pub cpu_ms: u64,
    /// Time from the request to the head of the response, in milliseconds.
    pub first_byte_ms: u64,
    /// Time of a whole call, in milliseconds.
    pub wall_ms: u64,
    /// How long a response that has begun may wait for more of its body, in milliseconds.
    pub response_idle_ms: u64,
    /// The largest request body, in bytes.
    pub request_body_bytes: u64,
    /// What one call may write to its log, in bytes.
    pub log_bytes: usize,
    /// Requests that one call may send.
    pub subrequests: u32,
}

impl Default for Maxima {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            cpu_ms: 60_000,
            first_byte_ms: 300_000,
            wall_ms: 900_000,
            response_idle_ms: 900_000,
            request_body_bytes: 100 << 20,
            log_bytes: 1 << 20,
            subrequests: 1000,
        }
    }
}

impl Limits {
    /// These limits, but for what a function wants otherwise, within the node's maxima.
    pub(crate) fn with(&self, wishes: &LimitWishes, maxima: &Maxima) -> Self {
        let pick = |wish: Option<u64>, default: u64, most: u64| {
            wish.map_or(default, |wish| wish.min(most.max(default)))
        };
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            memory_bytes: pick(wishes.memory_bytes, self.memory_bytes, maxima.memory_bytes),
            cpu_ms: pick(wishes.cpu_ms, self.cpu_ms, maxima.cpu_ms),
            first_byte_ms: pick(wishes.first_byte_ms, self.first_byte_ms, maxima.first_byte_ms),
            wall_ms: pick(wishes.wall_ms, self.wall_ms, maxima.wall_ms),
            response_idle_ms: pick(
                wishes.response_idle_ms,
                self.response_idle_ms,
                maxima.response_idle_ms,
            ),
            request_body_bytes: pick(
                wishes.request_body_bytes,
                self.request_body_bytes,
                maxima.request_body_bytes,
            ),
            log_bytes: size(pick(wishes.log_bytes, self.log_bytes as u64, maxima.log_bytes as u64)),
            concurrency: match (wishes.concurrency, self.concurrency) {
                (Some(wish), 0) => wish,
                (Some(wish), most) => wish.min(most),
                (None, default) => default,
            },
            subrequests: wishes.subrequests.map_or(self.subrequests, |wish| {
                wish.min(maxima.subrequests.max(self.subrequests))
            }),
            table_elements: self.table_elements,
            start_ms: self.start_ms,
            after_response_ms: self.after_response_ms,
        }
    }

    /// The first wish that this node does not grant, with both numbers.
    pub(crate) fn above(&self, wishes: &LimitWishes, maxima: &Maxima) -> Option<String> {
        let above = |name: &str, unit: &str, wish: Option<u64>, default: u64, most: u64| {
            let most = most.max(default);
            let wish = wish.filter(|wish| *wish > most)?;
            Some(format!("`{name}` is {wish}{unit}, this node gives at most {most}{unit}"))
        };
        let concurrency = wishes.concurrency.map(u64::from);
        let at_once = match self.concurrency {
            0 => u64::MAX,
            most => u64::from(most),
        };
        let memory = (self.memory_bytes, maxima.memory_bytes);
        let body = (self.request_body_bytes, maxima.request_body_bytes);
        let log = (self.log_bytes as u64, maxima.log_bytes as u64);
        above("memory", " bytes", wishes.memory_bytes, memory.0, memory.1)
            .or_else(|| above("cpu", " ms", wishes.cpu_ms, self.cpu_ms, maxima.cpu_ms))
            .or_else(|| {
                let most = maxima.first_byte_ms;
                above("first_byte", " ms", wishes.first_byte_ms, self.first_byte_ms, most)
            })
            .or_else(|| above("timeout", " ms", wishes.wall_ms, self.wall_ms, maxima.wall_ms))
            .or_else(|| {
                let (default, most) = (self.response_idle_ms, maxima.response_idle_ms);
                above("response_idle", " ms", wishes.response_idle_ms, default, most)
            })
            .or_else(|| above("body", " bytes", wishes.request_body_bytes, body.0, body.1))
            .or_else(|| above("log", " bytes", wishes.log_bytes, log.0, log.1))
            .or_else(|| {
                let (wish, most) = (wishes.subrequests, maxima.subrequests);
                above("subrequests", "", wish.map(u64::from), self.subrequests.into(), most.into())
            })
            .or_else(|| above("concurrency", "", concurrency, 0, at_once))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_granted_up_to_the_maximum() {
        let (limits, maxima) = (Limits::default(), Maxima::default());
        let none = LimitWishes::default();
        assert_eq!(
            (limits.with(&none, &maxima), limits.above(&none, &maxima)),
            (limits.clone(), None)
        );
        let wishes = LimitWishes {
            cpu_ms: Some(50),
            memory_bytes: Some(256 << 20),
            concurrency: Some(7),
            ..none
        };
        let granted = limits.with(&wishes, &maxima);
        assert_eq!((granted.cpu_ms, granted.memory_bytes), (50, 256 << 20));
        assert_eq!((granted.concurrency, granted.wall_ms), (7, limits.wall_ms));
        assert_eq!(limits.above(&wishes, &maxima), None);
        let greedy = LimitWishes { cpu_ms: Some(60_001), ..none };
        assert_eq!(limits.with(&greedy, &maxima).cpu_ms, 60_000);
        let why = limits.above(&greedy, &maxima).unwrap();
        assert_eq!(why, "`cpu` is 60001 ms, this node gives at most 60000 ms");
        let greedy = LimitWishes { subrequests: Some(1001), ..none };
        assert_eq!(limits.with(&greedy, &maxima).subrequests, 1000);
        let why = limits.above(&greedy, &maxima).unwrap();
        assert_eq!(why, "`subrequests` is 1001, this node gives at most 1000");
        let few = Limits { concurrency: 2, ..limits };
        assert!(few.above(&wishes, &maxima).unwrap().contains("at most 2"));
    }

    #[test]
    fn a_higher_default_raises_the_maximum() {
        let limits = Limits { cpu_ms: 90_000, ..Limits::default() };
        let wishes = LimitWishes { cpu_ms: Some(80_000), ..LimitWishes::default() };
        assert_eq!(limits.above(&wishes, &Maxima::default()), None);
        assert_eq!(limits.with(&wishes, &Maxima::default()).cpu_ms, 80_000);
    }
}
