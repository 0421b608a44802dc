//! Why a call has no answer, and who is to blame.

use crate::host::outbound::{MAX_DEPTH, TooDeep};
use faas_api::ErrorCode;
use std::time::Duration;

/// Why a call failed. The text is for the log; a client only ever sees the code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvokeError {
    /// The guest trapped; the text has the trap and the guest's frames.
    #[error("trap    {0}")]
    Trap(String),
    /// The guest ended without an answer.
    #[error("the function ended without setting a response")]
    NoResponse,
    /// The guest exited with a failure.
    #[error("the function exited with status {0}")]
    Exit(i32),
    /// The guest answered something HTTP does not allow.
    #[error("the function's response is not valid: {0}")]
    BadResponse(String),
    /// The guest used up its CPU time.
    #[error("limit `{name}` reached: used {used:?} of {limit:?}")]
    CpuTime {
        /// The setting: of the call, or of the making of its instance.
        name: &'static str,
        /// What it may use.
        limit: Duration,
        /// What it had used when it was stopped.
        used: Duration,
    },
    /// The guest took too long.
    #[error("limit `{name}` reached: {limit:?} without {awaited}")]
    WallTime {
        /// The setting.
        name: &'static str,
        /// Its value.
        limit: Duration,
        /// What was waited for.
        awaited: &'static str,
    },
    /// No instance came free in time.
    #[error("no instance came free: the app has {held} of {pool_size}, and {queued} requests wait")]
    Overloaded {
        /// How many instances there are.
        pool_size: u32,
        /// How many of them the function's app has.
        held: u32,
        /// How many requests wait for one.
        queued: usize,
    },
    /// There is a place for the instance, and not as many memories, tables or stacks as it has.
    #[error("the pool has no room for it: {0}")]
    PoolExhausted(String),
    /// The node has next to no memory left.
    #[error("{}", crate::host::NodeOutOfMemory)]
    NodeOutOfMemory,
    /// The function already runs as often as it may.
    #[error("limit `concurrency` reached: {limit} of {limit} calls at once")]
    Concurrency {
        /// How often it may.
        limit: u32,
    },
    /// The functions of the app run as often as they may together.
    #[error("setting `engine.app_instances` reached: {limit} instances of one app")]
    AppConcurrency {
        /// How often they may.
        limit: u32,
    },
    /// The function failed again and again, and is out of service for a while.
    #[error("the function is quarantined; a call is let through in {opens_in:?}")]
    Quarantined {
        /// How long until a call is let through.
        opens_in: Duration,
    },
    /// It lies too deep in calls of other functions.
    #[error("{0} calls lie inside each other already")]
    TooDeep(u8),
    /// The artifact or its native code could not be had.
    #[error("artifact unavailable: {0}")]
    Unavailable(String),
    /// The platform failed.
    #[error("{0}")]
    Internal(String),
}

impl From<TooDeep> for InvokeError {
    fn from(TooDeep: TooDeep) -> Self {
        Self::TooDeep(MAX_DEPTH)
    }
}

impl InvokeError {
    /// The code a client sees.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Trap(_) => ErrorCode::GuestTrap,
            Self::NoResponse => ErrorCode::GuestNoResponse,
            Self::Exit(_) => ErrorCode::GuestExit,
            Self::BadResponse(_) => ErrorCode::BadResponse,
            Self::CpuTime { .. } => ErrorCode::CpuTime,
            Self::WallTime { .. } => ErrorCode::WallTime,
            Self::Overloaded { .. } | Self::PoolExhausted(_) | Self::NodeOutOfMemory => {
                ErrorCode::Overloaded
            }
            Self::Concurrency { .. } | Self::AppConcurrency { .. } => ErrorCode::Concurrency,
            Self::Quarantined { .. } => ErrorCode::Quarantined,
            Self::TooDeep(_) => ErrorCode::LoopDetected,
            Self::Unavailable(_) => ErrorCode::ArtifactUnavailable,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// Whether the function, rather than the platform or its load, is at fault.
    pub(crate) fn is_guests_fault(&self) -> bool {
        match self {
            Self::Trap(_)
            | Self::NoResponse
            | Self::Exit(_)
            | Self::BadResponse(_)
            | Self::CpuTime { .. }
            | Self::WallTime { .. } => true,
            Self::Overloaded { .. }
            | Self::PoolExhausted(_)
            | Self::NodeOutOfMemory
            | Self::Concurrency { .. }
            | Self::AppConcurrency { .. }
            | Self::Quarantined { .. }
            | Self::TooDeep(_)
            | Self::Unavailable(_)
            | Self::Internal(_) => false,
        }
    }
}
