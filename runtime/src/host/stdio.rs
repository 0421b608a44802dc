//! Guests' standard output and error as log lines.

use crate::{
    request_id::RequestId,
    telemetry::guest_logs::{AppLog, GuestOutput, LogBudget, Origin, OutputStream as Kind},
};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Bytes that one write may carry.
const WRITE_BYTES: usize = 64 << 10;

/// Where the output of one call goes.
#[derive(Clone)]
pub(crate) struct LogStream(Arc<CallLog>);

/// The log of one call.
pub(crate) struct CallLog {
    /// The app's log.
    pub(crate) log: Arc<AppLog>,
    /// Whose output it is.
    pub(crate) origin: Arc<Origin>,
    /// Of which request.
    pub(crate) request_id: RequestId,
    /// What the call may write, both streams together.
    pub(crate) budget: Arc<LogBudget>,
}

impl LogStream {
    /// Output of one call.
    pub(crate) fn new(log: CallLog) -> Self {
        Self(Arc::new(log))
    }

    /// The standard output.
    pub(super) fn stdout(&self) -> LogOutput {
        self.output(Kind::Stdout)
    }

    /// The standard error.
    pub(super) fn stderr(&self) -> LogOutput {
        self.output(Kind::Stderr)
    }

    fn output(&self, kind: Kind) -> LogOutput {
        LogOutput { kind, lines: Arc::default(), stream: self.clone() }
    }
}

/// One of the two streams. Most guests never open it, so it is made when they do; handles of one
/// stream share it, so that lines do not mix.
pub(super) struct LogOutput {
    kind: Kind,
    lines: Arc<Mutex<Option<GuestOutput>>>,
    stream: LogStream,
}

impl LogOutput {
    fn handle(&self) -> LogHandle {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let CallLog { log, origin, request_id, budget } = &*self.stream.0;
        lines.get_or_insert_with(|| {
            GuestOutput::new(log.clone(), origin.clone(), *request_id, self.kind, budget.clone())
        });
        LogHandle(self.lines.clone())
    }
}

impl IsTerminal for LogOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.handle())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.handle())
    }
}

/// A guest's handle of a stream. Never blocks: what is over the budget is dropped and counted.
struct LogHandle(Arc<Mutex<Option<GuestOutput>>>);

impl LogHandle {
    fn append(&self, bytes: &[u8]) {
        if let Some(lines) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            lines.write(bytes);
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogHandle {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for LogHandle {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for LogHandle {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
