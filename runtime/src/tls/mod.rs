//! TLS for the listeners: certificates from files or from an ACME authority, exchanged while
//! connections go on.
//!
//! | part | what it holds |
//! |---|---|
//! | `settings` | what an operator writes: files, and an authority to ask |
//! | [`Tls`] | the TLS of one listener: what shakes hands, and what keeps its certificates fresh |
//! | `acceptor` | the handshake, and what was agreed on in it |
//! | `certificates` | which certificate a client is shown |
//! | `files` | a certificate and its key as files: read, checked, watched |
//! | `acme` | certificates from an authority (RFC 8555): asked for, kept, renewed |

mod acceptor;
mod acme;
mod certificates;
mod files;
mod settings;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use acceptor::{Acceptor, Spoken};
pub(crate) use acme::Domains;
pub use settings::{AcmeConfig, IngressTls, TlsFiles};
pub(crate) use tokio_rustls::server::TlsStream;

use self::{acme::Acme, certificates::Certificates, files::Watched};
use crate::config::ConfigError;
use std::{path::Path, sync::Arc};

/// The TLS of one listener.
pub(crate) struct Tls {
    acceptor: Acceptor,
    certificates: Arc<Certificates>,
    files: Option<Watched>,
    acme: Option<Acme>,
}

impl Tls {
    /// The TLS of the API's listener, if it has any. Reads its files.
    ///
    /// # Errors
    /// When a file cannot be used; the text says which and why.
    pub(crate) fn admin(config: &TlsFiles) -> Result<Option<Self>, ConfigError> {
        if !config.is_on() {
            return Ok(None);
        }
        let files = Watched::open(&config.cert, &config.key);
        let files = files.map_err(|problem| settings::ADMIN.error(problem))?;
        let certificates = Arc::new(Certificates::default());
        let acceptor = Acceptor::for_api(certificates.clone());
        let acceptor = acceptor.map_err(|error| settings::ADMIN.unusable(&error))?;
        Ok(Some(Self { acceptor, certificates, files: Some(files), acme: None }.shown()))
    }

    /// The TLS of the ingress, if it has any. Reads its files; what an authority gives out will be
    /// kept in the data directory.
    ///
    /// # Errors
    /// When a file cannot be used; the text says which and why.
    pub(crate) fn ingress(
        config: &IngressTls,
        data_dir: &Path,
    ) -> Result<Option<Self>, ConfigError> {
        if !config.is_on() {
            return Ok(None);
        }
        let files = match config.has_files() {
            true => Some(Watched::open(&config.cert, &config.key)),
            false => None,
        };
        let files = files.transpose().map_err(|problem| settings::INGRESS.error(problem))?;
        let certificates = Arc::new(Certificates::default());
        let acceptor = Acceptor::for_requests(certificates.clone());
        let acceptor = acceptor.map_err(|error| settings::INGRESS.unusable(&error))?;
        let acme = match config.acme.is_on() {
            true => {
                config.acme.check_ca()?;
                Some(Acme::new(&config.acme, data_dir, certificates.clone()))
            }
            false => None,
        };
        Ok(Some(Self { acceptor, certificates, files, acme }.shown()))
    }

    /// What shakes hands with clients.
    pub(crate) fn acceptor(&self) -> Acceptor {
        self.acceptor.clone()
    }

    /// Takes up the certificates that an authority has given out before, so that they are shown
    /// from the first connection on. Blocks.
    ///
    /// # Errors
    /// When the folder for them cannot be used.
    pub(crate) fn recall(&mut self) -> std::io::Result<()> {
        match &mut self.acme {
            Some(acme) => acme.recall(),
            None => Ok(()),
        }
    }

    /// Whose certificates an authority is asked for; `None` where there is no authority.
    pub(crate) fn domains(&self) -> Option<&Domains> {
        self.acme.as_ref().map(Acme::domains)
    }

    /// Keeps the certificates fresh, for ever.
    pub(crate) async fn tend(self) {
        let Self { certificates, files, acme, .. } = self;
        let files = async {
            match files {
                Some(files) => files.follow(&certificates).await,
                None => std::future::pending().await,
            }
        };
        let acme = async {
            match acme {
                Some(acme) => acme.tend().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(files, acme);
    }

    fn shown(self) -> Self {
        if let Some(files) = &self.files {
            self.certificates.show_files(files.pair());
        }
        self
    }
}
