//! What takes its time: uploads, deploys, downloads and logs that are followed.

use super::{Client, IDLE_TIMEOUT, Problem};
use crate::{
    error::{CliError, Exit, Result},
    ndjson::Lines,
};
use bytes::Bytes;
use faas_api::DeployEvent;
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

const UPLOAD_CHUNK: usize = 64 * 1024;

/// A deploy that is under way.
pub(crate) struct Deploying<'a> {
    pub(super) client: &'a Client,
    pub(super) lines: Lines,
}

impl Deploying<'_> {
    /// The next step. The last one is `Done` or `Planned`; a failure is an error.
    pub(crate) async fn next(&mut self) -> Result<DeployEvent> {
        loop {
            let line = self.lines.next().await.map_err(|broken| self.client.cut(broken))?;
            let Some(line) = line else {
                let message = "the server broke off before the deploy was done";
                return Err(CliError::new(Exit::Unreachable, "broken_off", message)
                    .hint("`faas versions APP` shows whether it went live"));
            };
            match line.get("event").and_then(Value::as_str) {
                Some("failed") => {
                    let problem: Problem = read(self.client, line)?;
                    return Err(self.client.refused(problem.status, problem));
                }
                Some("received" | "compiling" | "compiled" | "healthy" | "planned" | "done") => {
                    return read(self.client, line);
                }
                // A step that only a newer `faas` knows.
                Some(_) => {}
                None => return Err(self.client.unexpected("no step of a deploy")),
            }
        }
    }
}

fn read<T: DeserializeOwned>(client: &Client, line: Value) -> Result<T> {
    serde_json::from_value(line).map_err(|error| client.unexpected(&error.to_string()))
}

/// Bytes that a server sends.
pub(crate) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) response: Response,
}

impl Download<'_> {
    /// The next bytes; nothing once the server has said all.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(IDLE_TIMEOUT, self.response.chunk()).await;
        let next = next.map_err(|_elapsed| self.client.silent(IDLE_TIMEOUT))?;
        next.map_err(|error| self.client.broken(&error))
    }
}

/// Lines of a log.
pub(crate) struct LogStream<'a> {
    pub(super) client: &'a Client,
    pub(super) lines: Lines,
}

impl LogStream<'_> {
    /// The next line; nothing once the server has said all. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        self.lines.next().await.map_err(|broken| self.client.cut(broken))
    }
}

/// The artifact as a stream, so that its progress can be seen.
pub(super) fn upload(artifact: Vec<u8>, activity: Activity) -> reqwest::Body {
    let mut rest = Bytes::from(artifact);
    let chunks = std::iter::from_fn(move || {
        activity.mark();
        let chunk = rest.split_to(rest.len().min(UPLOAD_CHUNK));
        (!chunk.is_empty()).then_some(Ok::<_, std::io::Error>(chunk))
    });
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}

/// When something last moved.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<Instant>>);

/// Nothing has moved for too long.
pub(super) struct Idle;

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Activity {
    fn mark(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a future as long as something moves.
    pub(super) async fn guard<F: Future>(&self, future: F) -> std::result::Result<F::Output, Idle> {
        let mut future = std::pin::pin!(future);
        loop {
            let deadline = self.last() + IDLE_TIMEOUT;
            tokio::select! {
                output = &mut future => return Ok(output),
                () = tokio::time::sleep_until(deadline.into()) => {
                    if self.last() + IDLE_TIMEOUT <= Instant::now() {
                        return Err(Idle);
                    }
                }
            }
        }
    }
}
