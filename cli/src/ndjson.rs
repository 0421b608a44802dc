//! Bodies of JSON lines, as they arrive.

use bytes::Bytes;
use reqwest::Response;
use serde_json::Value;
use std::time::Duration;

/// No line of a stream is longer; a server that sends one is not ours.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// A body of JSON lines.
pub(crate) struct Lines {
    response: Response,
    pending: Vec<u8>,
    /// How much of `pending` holds no newline.
    searched: usize,
    idle: Option<Duration>,
}

/// Why there is no next line.
pub(crate) enum Broken {
    Connection(reqwest::Error),
    Idle(Duration),
    Unreadable(String),
}

impl Lines {
    pub(crate) fn new(response: Response, idle: Option<Duration>) -> Self {
        Self { response, pending: Vec::new(), searched: 0, idle }
    }

    /// The next line; nothing at the end of the body. Safe to cancel.
    pub(crate) async fn next(&mut self) -> std::result::Result<Option<Value>, Broken> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let value = serde_json::from_slice(&line);
                return value.map(Some).map_err(|error| Broken::Unreadable(error.to_string()));
            }
            if self.pending.len() > MAX_LINE {
                return Err(Broken::Unreadable("a line is too long".to_owned()));
            }
            match self.chunk().await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None if self.pending.is_empty() => return Ok(None),
                None => self.pending.push(b'\n'),
            }
        }
    }

    async fn chunk(&mut self) -> std::result::Result<Option<Bytes>, Broken> {
        let chunk = self.response.chunk();
        let chunk = match self.idle {
            None => chunk.await,
            Some(limit) => {
                tokio::time::timeout(limit, chunk).await.map_err(|_elapsed| Broken::Idle(limit))?
            }
        };
        chunk.map_err(Broken::Connection)
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let fresh = self.pending.get(self.searched..)?;
        let Some(place) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.pending.len();
            return None;
        };
        let rest = self.pending.split_off(self.searched + place + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.pending, rest))
    }
}
