//! TLS towards servers: whom they must convince.

use super::{OutboundConfig, failure::Failure};
use crate::config::ConfigError;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use std::{net::IpAddr, sync::Arc};
use tokio::{net::TcpStream, sync::OnceCell};
use tokio_rustls::{TlsConnector, client::TlsStream};
use wasmtime_wasi_http::Error;

/// Makes connections secure. The system's certificates are read when the first one is made.
pub(super) struct Tls {
    extra: Vec<CertificateDer<'static>>,
    connector: OnceCell<TlsConnector>,
}

impl Tls {
    /// Trusts the system's certificates and those of `outbound.ca`.
    ///
    /// # Errors
    /// When that file cannot be used.
    pub(super) fn new(config: &OutboundConfig) -> Result<Self, ConfigError> {
        let extra = config.extra_roots()?;
        let mut roots = RootCertStore::empty();
        for root in &extra {
            roots.add(root.clone()).map_err(|error| ConfigError::Value {
                key: "outbound.ca",
                problem: format!("{}: {error}", config.ca.display()),
            })?;
        }
        Ok(Self { extra, connector: OnceCell::new() })
    }

    /// Makes a connection to a host secure.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let connector = self.connector.get_or_try_init(|| self.connector()).await?;
        let name = server_name(host).ok_or_else(|| {
            Failure::failed(Error::TlsCertificateError, "no certificate can have that name")
        })?;
        connector.connect(name, stream).await.map_err(|error| Failure::tls(&error))
    }

    async fn connector(&self) -> Result<TlsConnector, Failure> {
        let broken = |why: String| Failure::failed(Error::ConfigurationError, why);
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let found = found.map_err(|error| broken(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        let (good, _) = roots.add_parsable_certificates(found.certs);
        let (extra, _) = roots.add_parsable_certificates(self.extra.iter().cloned());
        if good + extra == 0 {
            tracing::warn!(
                "the system has no certificates that functions' requests over TLS could trust; \
                 install them, or set `outbound.ca`"
            );
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    if let Some(address) = host.strip_prefix('[') {
        let address: IpAddr = address.strip_suffix(']')?.parse().ok()?;
        return Some(ServerName::from(address));
    }
    ServerName::try_from(host.to_owned()).ok()
}
