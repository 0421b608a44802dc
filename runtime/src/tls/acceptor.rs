//! The handshake.

use super::certificates::Certificates;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{Ticketer, default_provider},
};
use std::{fmt, io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";
/// What an authority speaks that wants to see whose a domain is (RFC 8737 §4).
pub(super) const CHALLENGE: &[u8] = b"acme-tls/1";

/// Shakes hands with the clients of one listener.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

/// What a client and the node have agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// The client did not say.
    Whatever,
    /// Nothing: an authority has seen what it wanted to see.
    Challenge,
}

impl Acceptor {
    /// For clients of functions.
    pub(super) fn for_requests(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        Self::new(certificates, &[HTTP2, HTTP1, CHALLENGE])
    }

    /// For clients of the API.
    pub(super) fn for_api(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        Self::new(certificates, &[HTTP1])
    }

    fn new(certificates: Arc<Certificates>, speaks: &[&[u8]]) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = speaks.iter().map(|name| name.to_vec()).collect();
        // A client that comes back is known without a place in memory for it.
        config.ticketer = Ticketer::new()?;
        Ok(Self(Arc::new(config).into()))
    }

    /// Shakes hands over a connection. There is no time limit.
    ///
    /// # Errors
    /// When the client does not speak TLS, or the two do not agree.
    pub(crate) async fn accept<T>(&self, transport: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(transport).await
    }

    /// The host that the client has asked for, in lower case.
    pub(crate) fn name<T>(stream: &TlsStream<T>) -> Option<&str> {
        stream.get_ref().1.server_name()
    }

    /// What was agreed on.
    pub(crate) fn spoken<T>(stream: &TlsStream<T>) -> Spoken {
        match stream.get_ref().1.alpn_protocol() {
            Some(HTTP1) => Spoken::Http1,
            Some(HTTP2) => Spoken::Http2,
            Some(CHALLENGE) => Spoken::Challenge,
            _ => Spoken::Whatever,
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}
