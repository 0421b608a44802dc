//! HTTP/1.1 and HTTP/2 through hyper, for what is not about single bytes.

use crate::tls::Trust;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, io, net::SocketAddr};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// The body of a request.
pub type Body = BoxBody<Bytes, Infallible>;

/// Which version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
}

impl Protocol {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Http1, Self::Http2];
}

/// One connection.
pub enum Client {
    /// Takes one request at a time.
    Http1(http1::SendRequest<Body>),
    /// Takes many.
    Http2(http2::SendRequest<Body>),
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens, or the other end does not speak this protocol.
    pub async fn open(peer: SocketAddr, protocol: Protocol) -> hyper::Result<Self> {
        let stream = TcpStream::connect(peer).await;
        let stream = stream.unwrap_or_else(|error| panic!("nobody listens: {error}"));
        stream.set_nodelay(true).unwrap();
        Self::over(stream, protocol).await
    }

    /// Connects with TLS to whoever is `localhost` there, and speaks what it agrees to.
    ///
    /// # Errors
    /// When nobody listens, or somebody who is not trusted.
    ///
    /// # Panics
    /// When it does not agree to speak this.
    pub async fn open_tls(peer: SocketAddr, protocol: Protocol, trust: &Trust) -> io::Result<Self> {
        Self::open_tls_for("localhost", peer, protocol, trust).await
    }

    /// The same, for a server of this name.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When it does not agree to speak this.
    pub async fn open_tls_for(
        name: &str,
        peer: SocketAddr,
        protocol: Protocol,
        trust: &Trust,
    ) -> io::Result<Self> {
        let offer = match protocol {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
        };
        let stream = trust.connect(peer, name, &[offer]).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(offer.as_bytes()));
        Self::over(stream, protocol).await.map_err(io::Error::other)
    }

    async fn over<S>(stream: S, protocol: Protocol) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        // The connection's own error shows at the request that it hits.
        Ok(match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Self::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        })
    }

    /// Whether the connection is known to be closed.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends a request; the answer's body is still on its way.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// A request to this authority, as this protocol writes it.
    ///
    /// # Panics
    /// When the target is none.
    pub fn request(
        &self,
        method: &str,
        authority: &str,
        target: &str,
        body: Body,
    ) -> Request<Body> {
        let request = Request::builder().method(method);
        let request = match self {
            Self::Http1(_) => request.uri(target).header("host", authority),
            Self::Http2(_) => {
                let uri = format!("http://{authority}{target}");
                request.uri(uri.parse::<Uri>().unwrap())
            }
        };
        request.body(body).unwrap()
    }

    /// Gets a whole answer: status, headers and body.
    ///
    /// # Errors
    /// When there is none, or it breaks off.
    pub async fn get(&mut self, authority: &str, target: &str) -> hyper::Result<Response<Bytes>> {
        let request = self.request("GET", authority, target, empty());
        let response = self.send(request).await?;
        collect(response).await
    }
}

/// Reads the whole body of an answer.
///
/// # Errors
/// When it breaks off.
pub async fn collect(response: Response<Incoming>) -> hyper::Result<Response<Bytes>> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

/// No body.
pub fn empty() -> Body {
    Empty::new().boxed()
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}
