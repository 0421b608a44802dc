//! Certificates of an authority of the tests' own, and clients that trust it.

use crate::block_on;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// One that nobody trusts yet.
    ///
    /// # Panics
    /// Never, as long as there are random numbers.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a certificate for these names and addresses.
    ///
    /// # Panics
    /// When they are none.
    pub fn issue(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a server of the tests");
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// What trusts it and nobody else.
    pub fn trust(&self) -> Trust {
        Trust::of(&self.pem())
    }
}

impl Issued {
    /// Writes `cert.pem` and `key.pem` into a folder, the key for its owner only. What was there is
    /// replaced whole, as `mv` does.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn write(&self, folder: &Path) {
        for (name, text, mode) in [("key.pem", &self.key, 0o600), ("cert.pem", &self.cert, 0o644)] {
            let temp = folder.join(format!("{name}.new"));
            fs::write(&temp, text).unwrap();
            fs::set_permissions(&temp, fs::Permissions::from_mode(mode)).unwrap();
            fs::rename(temp, folder.join(name)).unwrap();
        }
    }
}

/// The certificates in a text, PEM, as they travel.
///
/// # Panics
/// When the text is broken.
pub fn certificates(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|cert| cert.unwrap().to_vec()).collect()
}

/// The certificate that whoever asks for this name is shown, trusted or not.
///
/// # Panics
/// When nobody listens.
pub fn presented(peer: SocketAddr, name: &str) -> Option<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Credulous));
    let config = config.with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    block_on(async {
        let stream = TcpStream::connect(peer).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
    })
}

/// Takes every certificate.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whom a client trusts.
#[derive(Clone)]
pub struct Trust(RootCertStore);

impl Trust {
    /// The authorities in a text, PEM.
    ///
    /// # Panics
    /// When there are none.
    pub fn of(pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(cert.unwrap()).unwrap();
        }
        assert!(!roots.is_empty(), "no authority: {pem}");
        Self(roots)
    }

    /// Those of the other, too.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.extend(other.0.roots.iter().cloned());
        self
    }

    /// Shakes hands with whoever answers for this name at this address.
    ///
    /// # Errors
    /// When nobody does, or somebody who is not trusted.
    ///
    /// # Panics
    /// When the name is none.
    pub async fn connect(
        &self,
        peer: SocketAddr,
        name: &str,
        offers: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(peer).await?;
        stream.set_nodelay(true)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(self.0.clone()).with_no_client_auth();
        config.alpn_protocols = offers.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}
