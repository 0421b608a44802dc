//! CGI (RFC 3875): meta-variables in the environment, the request's body on standard input, the
//! header block and the body of the response on standard output.

use super::{InvokeError, guest::HeadSlot};
use crate::host::{CgiStreams, Environment, stdio::LogStream};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdinStream, StdoutStream},
    p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult},
};
use wasmtime_wasi_http::{Error, WasiBody};

/// Bytes of a header block.
const MAX_HEADER_BLOCK: usize = 64 << 10;
/// Bytes of one write.
const WRITE_BYTES: usize = 64 << 10;
/// Writes that are held until the client has taken earlier ones.
const CHUNKS: usize = 16;

/// Makes what a CGI program gets from a request, and what becomes of its output.
pub(super) fn streams<B>(
    request: Request<B>,
    environment: Option<Arc<Environment>>,
    log: LogStream,
    head: HeadSlot,
) -> Result<(CgiStreams, Output), InvokeError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (parts, body) = request.into_parts();
    let variables = meta_variables(&parts);
    let body = body.map_err(|error| io::Error::other(error.to_string())).boxed_unsync();
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let writer = Arc::new(Mutex::new(Writer {
        slot: head.clone(),
        block: BytesMut::new(),
        body: Some((head, receiver)),
        sender: Some(sender),
        error: None,
    }));
    let streams = CgiStreams {
        variables,
        environment,
        stdin: Box::new(Stdin(Arc::new(Mutex::new(Reader {
            body,
            rest: Bytes::new(),
            done: false,
            error: None,
        })))),
        stdout: Box::new(Output(writer.clone())),
        log,
    };
    Ok((streams, Output(writer)))
}

/// RFC 3875 §4.1. The host's own words come first, so that no header of a client can replace one:
/// those all begin with `HTTP_`.
fn meta_variables(parts: &http::request::Parts) -> Vec<(String, String)> {
    let header = |name: &str| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let authority = match parts.uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => header("host"),
    };
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
        _ => (authority.as_str(), "80"),
    };
    let forwarded_for = header("x-forwarded-for");
    let peer = forwarded_for.rsplit(',').next().unwrap_or_default().trim().to_owned();
    let uri = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut variables: Vec<(String, String)> = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", protocol(parts.version)),
        ("SERVER_SOFTWARE", concat!("faas/", env!("CARGO_PKG_VERSION"))),
        ("SERVER_NAME", name),
        ("SERVER_PORT", port),
        ("REQUEST_METHOD", parts.method.as_str()),
        ("REQUEST_URI", uri),
        ("SCRIPT_NAME", &header("x-forwarded-prefix")),
        ("PATH_INFO", &percent_decode(parts.uri.path())),
        ("QUERY_STRING", parts.uri.query().unwrap_or_default()),
        ("REMOTE_ADDR", &peer),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for (name, variable) in
        [(header::CONTENT_LENGTH, "CONTENT_LENGTH"), (header::CONTENT_TYPE, "CONTENT_TYPE")]
    {
        if let Some(value) = parts.headers.get(name).and_then(|value| value.to_str().ok()) {
            variables.push((variable.to_owned(), value.to_owned()));
        }
    }
    for name in parts.headers.keys() {
        // `HTTP_PROXY` would be taken for a setting by many a library ("httpoxy"), and `X_Real_IP`
        // would pass for `X-Real-IP`.
        let ambiguous = name == "proxy" || name.as_str().contains('_');
        if ambiguous || *name == header::CONTENT_LENGTH || *name == header::CONTENT_TYPE {
            continue;
        }
        let mut values = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let mut joined = values.next().unwrap_or_default().to_owned();
        let separator = if *name == header::COOKIE { "; " } else { ", " };
        for value in values {
            joined.push_str(separator);
            joined.push_str(value);
        }
        let name = name.as_str().to_ascii_uppercase().replace('-', "_");
        variables.push((format!("HTTP_{name}"), joined));
    }
    // The environment is a list of C strings.
    variables.retain(|(name, value)| !name.contains('\0') && !value.contains('\0'));
    variables
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// RFC 3875 §4.1.5: the path is decoded, unlike the query. What is not an escape stays.
fn percent_decode(path: &str) -> String {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                hex(*high).zip(hex(*low)).map(|(h, l)| (h << 4 | l, after))
            }
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*first, tail));
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The request's body as standard input. Handles share one position.
struct Stdin(Arc<Mutex<Reader>>);

struct Reader {
    body: UnsyncBoxBody<Bytes, io::Error>,
    rest: Bytes,
    done: bool,
    /// Why it ended early; told by the next read, so that half a body never looks whole.
    error: Option<io::Error>,
}

impl Reader {
    /// Ready when there is data, or no more will come. Trailers have no place in CGI.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.rest.is_empty() && !self.done {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.done = true;
                    self.error = Some(error);
                }
                None => self.done = true,
            }
        }
        Poll::Ready(())
    }

    /// What there is, up to `size` bytes.
    fn take(&mut self, size: usize) -> io::Result<Bytes> {
        match self.error.take() {
            Some(error) if self.rest.is_empty() => Err(error),
            error => {
                self.error = error;
                Ok(self.rest.split_to(size.min(self.rest.len())))
            }
        }
    }
}

impl Stdin {
    fn with<R>(&self, use_it: impl FnOnce(&mut Reader) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Self(self.0.clone()))
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Self(self.0.clone()))
    }
}

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.with(|reader| reader.poll_fill(cx))).await;
    }
}

#[async_trait]
impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.with(|reader| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = reader.poll_fill(&mut cx);
            let ended = reader.done && reader.rest.is_empty() && reader.error.is_none();
            if ended {
                return Err(StreamError::Closed);
            }
            reader.take(size).map_err(|error| StreamError::LastOperationFailed(error.into()))
        })
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|reader| {
            ready!(reader.poll_fill(cx));
            buffer.put_slice(&reader.take(buffer.remaining())?);
            Poll::Ready(Ok(()))
        })
    }
}

/// Standard output as a response. Handles share it.
pub(super) struct Output(Arc<Mutex<Writer>>);

struct Writer {
    slot: HeadSlot,
    /// What came before the end of the header block.
    block: BytesMut,
    /// Where the response goes once its head is complete; taken then.
    body: Option<(HeadSlot, mpsc::Receiver<Bytes>)>,
    sender: Option<mpsc::Sender<Bytes>>,
    /// Why the header block is no good.
    error: Option<InvokeError>,
}

impl Output {
    fn with<R>(&self, use_it: impl FnOnce(&mut Writer) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The program ended: what that means for a response that may not have begun.
    pub(super) fn end(self, outcome: Result<(), InvokeError>) -> Result<(), InvokeError> {
        self.with(|writer| {
            writer.slot.ends();
            writer.sender = None;
            if let Some(error) = writer.error.take() {
                return Err(error);
            }
            let unfinished = writer.body.is_some() && !writer.block.is_empty();
            match outcome {
                // `exit(0)` is an end like any other.
                Ok(()) | Err(InvokeError::Exit(0)) if unfinished => {
                    Err(InvokeError::BadResponse("its header block has no end".to_owned()))
                }
                Err(InvokeError::Exit(0)) => Ok(()),
                other => other,
            }
        })
    }
}

impl Writer {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        if self.body.is_none() {
            return match &self.sender {
                Some(sender) if !bytes.is_empty() => {
                    sender.try_send(bytes).map_err(|_| StreamError::Closed)
                }
                _ => Ok(()),
            };
        }
        self.block.extend_from_slice(&bytes);
        match parse_block(&self.block) {
            Ok(None) if self.block.len() > MAX_HEADER_BLOCK => {
                Err(self.reject("its header block is over 64 KiB"))
            }
            Ok(None) => Ok(()),
            Ok(Some((_, length))) if length > MAX_HEADER_BLOCK => {
                Err(self.reject("its header block is over 64 KiB"))
            }
            Ok(Some((response, length))) => {
                self.block.advance(length);
                let start = std::mem::take(&mut self.block).freeze();
                if let (Some((head, receiver)), Some(sender)) = (self.body.take(), &self.sender) {
                    if !start.is_empty() {
                        // An empty channel takes one piece.
                        let _ = sender.try_send(start);
                    }
                    let body: WasiBody = BodyExt::boxed_unsync(Pipe(receiver));
                    head.set(Ok(response.map(|()| body)));
                }
                Ok(())
            }
            Err(problem) => Err(self.reject(&problem)),
        }
    }

    fn reject(&mut self, problem: &str) -> StreamError {
        self.error = Some(InvokeError::BadResponse(problem.to_owned()));
        self.sender = None;
        StreamError::trap("the header block of the response is not valid")
    }

    /// Bytes that may be written now; 0 while the client has to catch up.
    fn room(&self) -> StreamResult<usize> {
        match &self.sender {
            // Until the head is known nothing has anywhere to go.
            Some(_) if self.body.is_some() => Ok(WRITE_BYTES),
            Some(sender) if sender.is_closed() => Err(StreamError::Closed),
            Some(sender) if sender.capacity() == 0 => Ok(0),
            Some(_) => Ok(WRITE_BYTES),
            None => Err(StreamError::Closed),
        }
    }

    /// A handle that can wait for room without holding the writer.
    fn full_channel(&self) -> Option<mpsc::Sender<Bytes>> {
        self.sender.clone().filter(|sender| self.body.is_none() && sender.capacity() == 0)
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self(self.0.clone()))
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self(self.0.clone()))
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if let Some(sender) = self.with(|writer| writer.full_channel()) {
            // Whether there is room or nobody reads any more, `check_write` tells.
            let _ = sender.reserve().await;
        }
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // More than was ever offered: the channel counts pieces, not bytes.
        if bytes.len() > WRITE_BYTES {
            return Err(StreamError::trap("a write of more than `check-write` allows"));
        }
        self.with(|writer| writer.write(bytes))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.with(|writer| writer.room())
    }
}

// Only WASI 0.3 asks for this form, and no program of WASI 0.3 is called as CGI; so it does not
// wait for room but says that there is none.
impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        let written = self.with(|writer| writer.write(Bytes::copy_from_slice(bytes)));
        Poll::Ready(written.map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the program writes after its header block.
struct Pipe(mpsc::Receiver<Bytes>);

impl Body for Pipe {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The response that a header block describes, and the block's length with its empty line; `None`
/// while the block has no end. Lines end with CRLF or LF (RFC 3875 §6.3).
pub(super) fn parse_block(block: &[u8]) -> Result<Option<(Response<()>, usize)>, String> {
    let mut headers = HeaderMap::new();
    let mut status = None;
    let mut offset = 0;
    loop {
        let rest = block.get(offset..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        offset += end + 1;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon
            .and_then(|colon| line.split_at_checked(colon))
            .ok_or_else(|| format!("a header line without a colon: `{}`", printable(line)))?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"status") {
            status = Some(parse_status(value)?);
            continue;
        }
        let bad = |_| format!("a header that HTTP does not allow: `{}`", printable(line));
        let name = HeaderName::from_bytes(name).map_err(|error| bad(error.to_string()))?;
        let value = HeaderValue::from_bytes(value).map_err(|error| bad(error.to_string()))?;
        let added = headers.try_append(name, value);
        added.map_err(|_| "its header block has too many fields".to_owned())?;
    }
    let redirect = headers.contains_key(header::LOCATION);
    if headers.is_empty() && status.is_none() {
        return Err("its header block is empty".to_owned());
    }
    let implied = if redirect { StatusCode::FOUND } else { StatusCode::OK };
    let mut response = Response::new(());
    *response.status_mut() = status.unwrap_or(implied);
    *response.headers_mut() = headers;
    Ok(Some((response, offset)))
}

/// `404 Not Found`: three digits, then words nobody needs.
fn parse_status(value: &[u8]) -> Result<StatusCode, String> {
    let digits = value.split(|byte| *byte == b' ').next().unwrap_or_default();
    StatusCode::from_bytes(digits)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or_else(|| format!("`Status: {}` is no status", printable(value)))
}

fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(64) {
        let _ = write!(text, "{}", byte.escape_ascii());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(block: &str) -> Result<Option<(u16, usize)>, String> {
        Ok(parse_block(block.as_bytes())?
            .map(|(response, length)| (response.status().as_u16(), length)))
    }

    #[test]
    fn header_blocks() {
        assert_eq!(parse("Content-Type: text/plain\r\n\r\nhello"), Ok(Some((200, 28))));
        assert_eq!(parse("Content-Type: text/plain\n\nhello"), Ok(Some((200, 26))));
        assert_eq!(parse("Status: 404 Not Found\n\n"), Ok(Some((404, 23))));
        assert_eq!(parse("Location: /elsewhere\n\n"), Ok(Some((302, 22))));
        assert_eq!(parse("status: 201\nLocation: /x\n\n").unwrap().unwrap().0, 201);
        assert_eq!(parse("Content-Type: text/plain\n"), Ok(None));
        assert_eq!(parse(""), Ok(None));
        for bad in
            ["hello\n\n", "\n", "Status: 99\n\n", "Status: 100\n\n", "A b: c\n\n", "x: \u{1}\n\n"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_block_may_come_in_pieces() {
        let head = HeadSlot::default();
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let mut writer = Writer {
            slot: HeadSlot::default(),
            block: BytesMut::new(),
            body: Some((head.clone(), receiver)),
            sender: Some(sender),
            error: None,
        };
        for byte in b"Content-Type: text/plain\r\n\r\nhi" {
            writer.write(Bytes::copy_from_slice(&[*byte])).unwrap();
        }
        let response = head.take().unwrap().unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(writer.sender.unwrap().capacity(), CHUNKS - 2);
    }

    #[test]
    fn variables() {
        let request = Request::builder()
            .method("POST")
            .uri("/a%20b/%zz?x=%20")
            .header("host", "shop.localhost:8080")
            .header("x-forwarded-for", "10.0.0.1, 127.0.0.1")
            .header("x-forwarded-prefix", "/shop")
            .header("content-length", "3")
            .header("accept", "a/b")
            .header("accept", "c/d")
            .header("proxy", "http://evil")
            .header("content_length", "4")
            .body(())
            .unwrap();
        let variables = meta_variables(&request.into_parts().0);
        let get =
            |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(get("REQUEST_METHOD"), Some("POST"));
        assert_eq!(get("PATH_INFO"), Some("/a b/%zz"));
        assert_eq!(get("QUERY_STRING"), Some("x=%20"));
        assert_eq!(get("SCRIPT_NAME"), Some("/shop"));
        assert_eq!(get("SERVER_NAME"), Some("shop.localhost"));
        assert_eq!(get("SERVER_PORT"), Some("8080"));
        assert_eq!(get("REMOTE_ADDR"), Some("127.0.0.1"));
        assert_eq!(get("CONTENT_LENGTH"), Some("3"));
        assert_eq!(get("HTTP_ACCEPT"), Some("a/b, c/d"));
        assert_eq!(get("HTTP_PROXY"), None);
        assert_eq!(get("HTTP_CONTENT_LENGTH"), None);
    }
}
