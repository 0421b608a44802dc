//! What carries a connection's bytes: the bare socket, or TLS on top of it.

use super::pulse::Pulse;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, tcp::ReadHalf},
};

/// Bytes in, bytes out. Its shutdown ends what lies on top of the socket and leaves the socket
/// alone.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// The socket. Notes here, below TLS, whether the client takes what is written.
pub(super) struct Socket<'a> {
    read: ReadHalf<'a>,
    stream: &'a TcpStream,
    pulse: &'a Pulse,
}

impl<'a> Socket<'a> {
    pub(super) fn new(read: ReadHalf<'a>, stream: &'a TcpStream, pulse: &'a Pulse) -> Self {
        Self { read, stream, pulse }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.pulse.write_waits();
                    return Poll::Pending;
                }
            }
            match write(self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.pulse.wrote();
                    return Poll::Ready(result);
                }
            }
        }
    }
}

/// Whether the first byte is one of HTTP without TLS, and none of a handshake (RFC 8446 §5.1).
pub(super) async fn speaks_plainly(raw: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match raw.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first.iter().all(u8::is_ascii_alphabetic)),
    }
}

impl AsyncRead for Socket<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write_vectored(bufs))
    }

    /// A head and its body leave in one system call, and a large body is not copied for it.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The connection shuts the socket down when nothing uses it any more.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
