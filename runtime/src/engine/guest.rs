//! A running guest: one future that owns the store, polled by whoever wants the response.

use super::{Call, InvokeError, Program, program::Running};
use crate::{
    clock,
    host::{CpuExhausted, Meter},
};
use faas_api::LogSource;
use http::Response;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiBody;

/// The future of a guest. It ends when the guest has nothing left to do.
pub(super) type GuestFuture = Pin<Box<dyn Future<Output = Result<(), InvokeError>> + Send>>;

/// Where a guest leaves the head of its response. Guest and reader run in one task, so looking
/// after each poll is enough and nobody needs waking.
#[derive(Clone, Default)]
pub(super) struct HeadSlot(Arc<Mutex<Option<Head>>>);

/// The head of a response with a body to come, or why there is none.
type Head = Result<Response<WasiBody>, InvokeError>;

impl HeadSlot {
    /// Leaves the head.
    pub(super) fn set(&self, head: Head) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
    }

    /// Takes the head, if it is there.
    pub(super) fn take(&self) -> Option<Head> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A guest at work, held to its limits from outside of its store.
pub(super) struct Guest {
    future: GuestFuture,
    program: Arc<Program>,
    call: Call,
    started: Instant,
    head_sent: bool,
    /// Made when the guest first waits: most never do.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Left when this is dropped.
    _running: Running,
}

impl Guest {
    /// A guest that has not run yet.
    pub(super) fn new(
        future: GuestFuture,
        program: Arc<Program>,
        call: Call,
        running: Running,
    ) -> Self {
        let started = call.meter.started().into();
        Self { future, program, call, started, head_sent: false, deadline: None, _running: running }
    }

    /// Runs the guest until it waits or ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), InvokeError>> {
        let meter: &Meter = &self.call.meter;
        let future = &mut self.future;
        if let Poll::Ready(outcome) = meter.count(|| future.as_mut().poll(cx)) {
            return Poll::Ready(outcome);
        }
        let until = self.started + self.limit();
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(until)));
        match deadline.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(InvokeError::WallTime {
                name: if self.head_sent { "wall_ms" } else { "first_byte_ms" },
                limit: self.limit(),
                awaited: if self.head_sent { "an end" } else { "a response" },
            })),
        }
    }

    /// From now on the limit is that of the whole call.
    pub(super) fn head_sent(&mut self) {
        self.head_sent = true;
        let until = self.started + self.limit();
        if let Some(deadline) = &mut self.deadline {
            deadline.as_mut().reset(until);
        }
    }

    /// Lets the guest finish what it does after its response, within its limits.
    pub(super) fn finish_in_background(mut self) {
        tokio::spawn(async move {
            if let Err(error) = poll_fn(|cx| self.poll(cx)).await {
                self.program.metrics().failure(error.code().as_str());
                let message = format!("after its response: {error}");
                self.program.log().push(
                    self.program.origin(),
                    self.call.id,
                    clock::now(),
                    LogSource::Failure { message },
                );
            }
        });
    }

    fn limit(&self) -> Duration {
        let limits = self.program.limits();
        let whole = Duration::from_millis(limits.wall_ms);
        if self.head_sent { whole } else { Duration::from_millis(limits.first_byte_ms).min(whole) }
    }
}

/// Sorts an error of the engine by who is to blame. `refused` is the last growth that was denied.
pub(super) fn guest_error(error: &wasmtime::Error, refused: Option<&str>) -> InvokeError {
    if let Some(CpuExhausted { limit, used }) = error.downcast_ref() {
        return InvokeError::CpuTime { limit: *limit, used: *used };
    }
    // It waits for something that nobody will do: the same as an end without an answer.
    if error.downcast_ref() == Some(&Trap::AsyncDeadlock) {
        return InvokeError::NoResponse;
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return InvokeError::Exit(*status);
    }
    let mut text = error.root_cause().to_string();
    if let Some(refused) = refused {
        text = format!("{text} ({refused})");
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        for (index, frame) in backtrace.frames().iter().enumerate() {
            let name =
                frame.func_name().map(|name| format!("{:#}", rustc_demangle::demangle(name)));
            let name = name.unwrap_or_else(|| format!("function {}", frame.func_index()));
            text.push_str(&format!("\n    {index}  {name}"));
        }
    }
    InvokeError::Trap(text)
}

/// Sorts an error of a response body.
pub(super) fn body_error(error: &wasmtime_wasi_http::Error) -> InvokeError {
    use wasmtime_wasi_http::Error;
    match error {
        Error::HttpResponseBodySize(written) => InvokeError::BadResponse(match written {
            Some(written) => format!("its body of {written} bytes is not as long as it said"),
            None => "its body is not as long as it said".to_owned(),
        }),
        other => InvokeError::BadResponse(format!("its body broke off: {other:?}")),
    }
}
