//! Guests' standard output and error as log lines.

use crate::{
    request_id::RequestId,
    telemetry::guest_logs::{AppLog, GuestOutput, Origin, OutputStream as Kind},
};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
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
pub(crate) struct LogStream {
    log: Arc<AppLog>,
    origin: Arc<Origin>,
    request_id: RequestId,
    /// Bytes the call may still write, both streams together.
    budget: Arc<AtomicUsize>,
}

impl LogStream {
    /// Output of one call, of at most `limit` bytes.
    pub(crate) fn new(
        log: &Arc<AppLog>,
        origin: &Arc<Origin>,
        request_id: RequestId,
        limit: usize,
    ) -> Self {
        Self {
            log: log.clone(),
            origin: origin.clone(),
            request_id,
            budget: Arc::new(AtomicUsize::new(limit)),
        }
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
        LogOutput {
            stream: self.clone(),
            kind,
            lines: Arc::default(),
        }
    }
}

/// One of the two streams. Most guests never open it, so it is made when they do; handles of one
/// stream share it, so that lines do not mix.
pub(super) struct LogOutput {
    stream: LogStream,
    kind: Kind,
    lines: Arc<Mutex<Option<GuestOutput>>>,
}

impl LogOutput {
    fn handle(&self) -> LogHandle {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get_or_insert_with(|| {
            let LogStream {
                log,
                origin,
                request_id,
                budget,
            } = self.stream.clone();
            GuestOutput::new(log, origin, request_id, self.kind, budget)
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
