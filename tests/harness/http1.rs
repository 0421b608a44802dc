//! HTTP/1.1 byte by byte, over a plain socket: what is sent is exactly what a test says.

use faas_api::{ErrorBody, ErrorCode};
use serde_json::Value;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request to write.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// A `GET`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A `POST` with a body.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    /// Adds a header. `host` replaces the one that is sent otherwise.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a body, with its `content-length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// What goes over the wire.
    pub fn to_bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if !self.headers.iter().any(|(name, _)| name == "host") {
            bytes.extend(format!("host: {host}\r\n").bytes());
        }
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        if let Some(body) = &self.body {
            bytes.extend(format!("content-length: {}\r\n", body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

/// A whole answer.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.body.len().min(2000);
        let body = String::from_utf8_lossy(&self.body[..end]);
        write!(f, "{} {:?} {body}", self.status, self.headers)
    }
}

impl Answer {
    /// The same, if it has this status.
    ///
    /// # Panics
    /// When it has another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A header that may stand there once at most.
    ///
    /// # Panics
    /// When it stands there twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "`{name}` twice: {self:?}");
        first
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON: {error}: {self:?}"))
    }

    /// Checks that this is the platform's own failure, as the API's contract writes it.
    ///
    /// # Panics
    /// When anything of that is not so.
    #[track_caller]
    pub fn failure(&self, code: ErrorCode) -> ErrorBody {
        assert_eq!(self.status, code.status(), "{self:?}");
        assert_eq!(self.header("x-faas-error"), Some(code.as_str()), "{self:?}");
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{self:?}");
        let body: ErrorBody = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no problem document: {error}: {self:?}"));
        assert_eq!(body.code, code, "{self:?}");
        assert_eq!(body.status, self.status, "{self:?}");
        assert!(!body.title.is_empty() && !body.kind.is_empty(), "{self:?}");
        assert_eq!(body.request_id.as_deref(), self.header("x-request-id"), "{self:?}");
        assert!(body.request_id.is_some(), "{self:?}");
        body
    }
}

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    /// Bytes of this chunk, then more chunks.
    Chunk(u64),
    UntilClose,
    Nothing,
}

/// A connection to write anything to, and to read answers from.
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    buffer: Vec<u8>,
    left: Left,
    trailers: Vec<(String, String)>,
}

impl Connection {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn open(peer: SocketAddr) -> Self {
        Self::try_open(peer).expect("somebody should listen")
    }

    /// Connects, if somebody listens.
    ///
    /// # Errors
    /// What the system says when it cannot.
    pub fn try_open(peer: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(peer)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream, peer))
    }

    /// A connection that stands already.
    ///
    /// # Panics
    /// When it does not stand any more.
    pub fn of(stream: TcpStream) -> Self {
        let peer = stream.peer_addr().expect("it stands");
        Self::over(stream, peer)
    }

    fn over(stream: TcpStream, peer: SocketAddr) -> Self {
        Self { stream, peer, buffer: Vec::new(), left: Left::Nothing, trailers: Vec::new() }
    }

    /// The same connection, to write to it from another thread.
    ///
    /// # Panics
    /// When the system has no more descriptors.
    pub fn second_handle(&self) -> Self {
        Self::over(self.stream.try_clone().expect("a descriptor"), self.peer)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Panics
    /// When there is no whole answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        // A server may answer, and close, before it has read everything.
        let sent = self.write(&request.to_bytes(self.peer));
        let answer = self.read_answer(request.method == "HEAD");
        answer.unwrap_or_else(|error| {
            panic!(
                "no answer to {} {}: {error} (sending: {sent:?})",
                request.method, request.target
            )
        })
    }

    /// Writes these bytes and nothing else.
    ///
    /// # Errors
    /// When the other end has closed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Writes a request, and does not wait for its answer.
    ///
    /// # Panics
    /// When the other end has closed.
    #[track_caller]
    pub fn start(&mut self, request: &Request) {
        self.write(&request.to_bytes(self.peer)).expect("it should be read");
    }

    /// Says that nothing more will be sent.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with a reset, as a process that was killed may.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn reset(self) {
        reset(self.stream);
    }

    /// How long a read may take.
    ///
    /// # Panics
    /// When it is zero.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Reads a whole answer. That to a `HEAD` request has no body whatever it says.
    ///
    /// # Errors
    /// When it is not HTTP, or breaks off.
    pub fn read_answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let mut answer = self.read_head(to_head)?;
        let mut piece = vec![0; 64 << 10];
        loop {
            match self.read_body(&mut piece)? {
                0 => break,
                length => answer.body.extend_from_slice(&piece[..length]),
            }
        }
        answer.trailers = std::mem::take(&mut self.trailers);
        Ok(answer)
    }

    /// Reads the head of an answer; its body is read with [`Self::read_body`].
    ///
    /// # Errors
    /// When it is not HTTP, or breaks off.
    pub fn read_head(&mut self, to_head: bool) -> io::Result<Answer> {
        let line = self.read_line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| invalid(&format!("no status line: `{line}`")))?;
        let headers = self.read_fields()?;
        let get = |name: &str| {
            let mut values = headers.iter().filter(|(n, _)| n == name);
            values.next().map(|(_, value)| value.to_ascii_lowercase())
        };
        self.left = match (get("transfer-encoding"), get("content-length")) {
            _ if to_head || status < 200 || status == 204 || status == 304 => Left::Nothing,
            (Some(_), Some(_)) => return Err(invalid("both ways to frame a body at once")),
            (Some(coding), None) if coding == "chunked" => Left::Chunk(0),
            (Some(coding), None) => return Err(invalid(&format!("coding `{coding}`"))),
            (None, Some(length)) => {
                let length = length.parse().map_err(|_| invalid("content-length"))?;
                Left::Bytes(length)
            }
            (None, None) => Left::UntilClose,
        };
        self.trailers.clear();
        if self.left == Left::Chunk(0) {
            self.next_chunk()?;
        }
        Ok(Answer { status, headers, body: Vec::new(), trailers: Vec::new() })
    }

    /// Reads a piece of the body; 0 is its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub fn read_body(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let most = match self.left {
            Left::Nothing | Left::Bytes(0) => return Ok(0),
            Left::Bytes(left) | Left::Chunk(left) => left,
            Left::UntilClose => u64::MAX,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(piece.len());
        let length = self.read_some(&mut piece[..most])?;
        let taken = length as u64;
        match &mut self.left {
            Left::Bytes(left) if length > 0 => *left -= taken,
            Left::Chunk(left) if length > 0 => {
                *left -= taken;
                if *left == 0 {
                    self.expect_line_end()?;
                    self.next_chunk()?;
                }
            }
            Left::UntilClose => {}
            _ => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(length)
    }

    /// Whether the other end has closed, or does so within the patience that is set.
    pub fn is_closed(&mut self) -> bool {
        match self.read_some(&mut [0; 1]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let line = self.read_line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
        if size > 0 {
            self.left = Left::Chunk(size);
        } else {
            self.trailers = self.read_fields()?;
            self.left = Left::Nothing;
        }
        Ok(())
    }

    fn expect_line_end(&mut self) -> io::Result<()> {
        match self.read_line()?.is_empty() {
            true => Ok(()),
            false => Err(invalid("no line end after a chunk")),
        }
    }

    fn read_fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n");
                let line = line.ok_or_else(|| invalid("a line without CRLF"))?;
                return String::from_utf8(line.to_vec()).map_err(|_| invalid("not text"));
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_some(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            return self.stream.read(piece);
        }
        let length = piece.len().min(self.buffer.len());
        piece[..length].copy_from_slice(&self.buffer[..length]);
        self.buffer.drain(..length);
        Ok(length)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let length = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..length]);
        Ok(length)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// Ends a connection with a reset.
///
/// # Panics
/// When it is gone already.
pub fn reset(stream: TcpStream) {
    stream.set_nonblocking(true).unwrap();
    crate::block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        stream.set_zero_linger().unwrap();
    });
}
