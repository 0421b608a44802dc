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

/// Where the output of an instance goes: to its app's log, in the name of the request it serves.
#[derive(Clone)]
pub(crate) struct LogStream(Arc<Streams>);

struct Streams {
    log: Arc<AppLog>,
    origin: Arc<Origin>,
    /// What one call may write, both streams together, in bytes.
    limit: usize,
    state: Mutex<State>,
}

/// The request at hand, and its streams. Most guests never open one, so they are made when they
/// do; handles of one stream share it, so that lines do not mix.
struct State {
    request: RequestId,
    budget: Option<Arc<LogBudget>>,
    stdout: Option<GuestOutput>,
    stderr: Option<GuestOutput>,
}

impl LogStream {
    /// Output in the name of a request, of so many bytes.
    pub(crate) fn new(
        log: Arc<AppLog>,
        origin: Arc<Origin>,
        limit: usize,
        request: RequestId,
    ) -> Self {
        let state = State { request, budget: None, stdout: None, stderr: None };
        Self(Arc::new(Streams { log, origin, limit, state: Mutex::new(state) }))
    }

    /// From now on another request is served, with a budget of its own. Unfinished lines of the
    /// one before end.
    pub(crate) fn serve(&self, request: RequestId) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { request, budget: None, stdout: None, stderr: None };
    }

    /// Nothing more comes for now: unfinished lines end.
    pub(crate) fn rest(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.stdout, state.stderr) = (None, None);
    }

    /// The standard output.
    pub(super) fn stdout(&self) -> LogOutput {
        LogOutput { kind: Kind::Stdout, stream: self.clone() }
    }

    /// The standard error.
    pub(super) fn stderr(&self) -> LogOutput {
        LogOutput { kind: Kind::Stderr, stream: self.clone() }
    }

    fn append(&self, kind: Kind, bytes: &[u8]) {
        let Streams { log, origin, limit, state } = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { request, budget, stdout, stderr } = &mut *state;
        let output = match kind {
            Kind::Stdout => stdout,
            Kind::Stderr => stderr,
        };
        let output = output.get_or_insert_with(|| {
            let budget = budget.get_or_insert_with(|| LogBudget::new(*limit)).clone();
            GuestOutput::new(log.clone(), origin.clone(), *request, kind, budget)
        });
        output.write(bytes);
    }
}

/// One of the two streams, and a guest's handle of it. Never blocks: what is over the budget is
/// dropped and counted.
#[derive(Clone)]
pub(super) struct LogOutput {
    kind: Kind,
    stream: LogStream,
}

impl LogOutput {
    fn append(&self, bytes: &[u8]) {
        self.stream.append(self.kind, bytes);
    }
}

impl IsTerminal for LogOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogOutput {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for LogOutput {
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

impl AsyncWrite for LogOutput {
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
