//! Whose certificates are trusted, and what is said when one is not.

use crate::{
    artifact::io_text,
    error::{CliError, Exit, Result},
};
use reqwest::{Certificate, ClientBuilder};
use rustls::{CertificateError, Error as TlsError};
use std::{error::Error, io, path::Path};

/// Whose certificates are trusted besides those that this machine trusts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Vec<Certificate>);

impl Trust {
    /// The authorities in a file, PEM, if one was given.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
            return Ok(Self::default());
        };
        let wrong = |why: &str| {
            let message = format!("`{}` cannot be used as --cacert: {why}", file.display());
            CliError::usage(message).hint("it holds certificates as PEM, `BEGIN CERTIFICATE`")
        };
        let bytes = std::fs::read(file).map_err(|error| wrong(&io_text(&error)))?;
        match Certificate::from_pem_bundle(&bytes) {
            Ok(certificates) if !certificates.is_empty() => Ok(Self(certificates)),
            _ => Err(wrong("it holds no certificate")),
        }
    }

    /// A client that trusts them, too.
    pub(crate) fn of(&self, builder: ClientBuilder) -> ClientBuilder {
        match self.0.is_empty() {
            true => builder,
            false => builder.tls_certs_merge(self.0.iter().cloned()),
        }
    }
}

/// What is wrong about TLS, if that is why there was no answer.
pub(crate) fn complaint(to: &str, error: &(dyn Error + 'static)) -> Option<CliError> {
    let new = |code: &'static str, message| CliError::new(Exit::Unreachable, code, message);
    match tls_error(error)? {
        TlsError::InvalidCertificate(problem) => {
            let (why, hint) = explain(problem);
            let message = format!("the certificate of {to} is not trusted: {why}");
            Some(new("untrusted_certificate", message).hint(hint))
        }
        TlsError::InvalidMessage(_) => Some(
            new("no_tls", format!("{to} does not speak TLS"))
                .hint("if that is meant to be so, begin its address with http://"),
        ),
        other => {
            let message = format!("no TLS connection to {to}: {other}");
            Some(new("tls_failed", message).hint("the server's log may say more"))
        }
    }
}

fn explain(problem: &CertificateError) -> (String, &'static str) {
    use CertificateError as Problem;
    const CLOCK: &str = "if it is in order, look at this machine's clock";
    match problem {
        // The last two: somebody of the same name is trusted, and has not signed it.
        Problem::UnknownIssuer
        | Problem::BadSignature
        | Problem::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            "nobody whom this machine trusts has signed it".to_owned(),
            "for an authority of your own give its certificate: --cacert FILE, or FAAS_CACERT",
        ),
        Problem::NotValidForNameContext { presented, .. } if !presented.is_empty() => (
            format!("it is for {}", names(presented)),
            "use one of these names as the server's address",
        ),
        Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
            ("it is for another name".to_owned(), "use the name it is for as the server's address")
        }
        Problem::Expired | Problem::ExpiredContext { .. } => ("it has expired".to_owned(), CLOCK),
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => {
            ("it is not valid yet".to_owned(), CLOCK)
        }
        // What `openssl req -x509` makes unless it is told otherwise; there is no name for it.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => (
            "it is an authority's own, and not a server's".to_owned(),
            "a server's certificate says basicConstraints=CA:FALSE; see docs/tls.md",
        ),
        other => (other.to_string(), "the server needs another certificate"),
    }
}

/// Names as a certificate has them, without what the library says about their kind.
fn names(presented: &[String]) -> String {
    let bare = presented.iter().map(|name| {
        let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        format!("`{}`", inside.unwrap_or(name).trim_matches('"'))
    });
    bare.collect::<Vec<_>>().join(", ")
}

/// The library's own error, wherever in the chain. An I/O error hides what it carries.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_librarys_error_is_found_wherever_it_is() {
        let within = |error| io::Error::other(io::Error::other(error));
        let untrusted = within(TlsError::InvalidCertificate(CertificateError::UnknownIssuer));
        let said = complaint("https://a.test", &untrusted).unwrap();
        assert_eq!((said.exit, &*said.code), (Exit::Unreachable, "untrusted_certificate"));
        assert!(said.hint.unwrap().contains("--cacert"));
        let said = complaint("https://a.test", &within(TlsError::DecryptError)).unwrap();
        assert_eq!(said.code, "tls_failed");
        assert!(complaint("https://a.test", &io::Error::other("else")).is_none());
    }

    #[test]
    fn names_are_told_without_their_kind() {
        let presented = ["DnsName(\"a.test\")".to_owned(), "IpAddress(127.0.0.1)".to_owned()];
        assert_eq!(names(&presented), "`a.test`, `127.0.0.1`");
    }
}
