//! Guests' standard output and error as log lines, and what they write through `wasi:logging`.

use crate::{
    request_id::RequestId,
    telemetry::guest_logs::{AppLog, Author, GuestOutput, LogBudget, Origin, OutputStream as Kind},
};
use bytes::Bytes;
use faas_api::LogLevel;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
        *self.lock() = State { request, budget: None, stdout: None, stderr: None };
    }

    /// Nothing more comes for now: unfinished lines end.
    pub(crate) fn rest(&self) {
        let mut state = self.lock();
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

    /// An entry of `wasi:logging`.
    pub(super) fn entry(&self, level: LogLevel, context: &str, message: &str) {
        self.lock().author(&self.0).entry(level, context, message);
    }

    fn append(&self, kind: Kind, bytes: &[u8]) {
        let mut state = self.lock();
        let output = match kind {
            Kind::Stdout => &mut state.stdout,
            Kind::Stderr => &mut state.stderr,
        };
        if let Some(output) = output {
            return output.write(bytes);
        }
        let mut output = GuestOutput::new(state.author(&self.0), kind);
        output.write(bytes);
        match kind {
            Kind::Stdout => state.stdout = Some(output),
            Kind::Stderr => state.stderr = Some(output),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who writes: whoever is served, within the budget of the call.
    fn author(&mut self, streams: &Streams) -> Author {
        let budget = self.budget.get_or_insert_with(|| LogBudget::new(streams.limit));
        Author {
            log: streams.log.clone(),
            origin: streams.origin.clone(),
            request_id: self.request,
            budget: budget.clone(),
        }
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
