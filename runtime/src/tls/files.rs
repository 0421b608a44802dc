//! A certificate and its key as files: read, checked, watched.

use super::certificates::Certificates;
use jiff::Timestamp;
use rustls::{
    InconsistentKeys,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// No certificate or key is longer; anything else is the wrong file.
const MAX_BYTES: u64 = 1 << 20;

/// A certificate with its key, ready to be shown.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) about: About,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    /// The names and addresses it is for.
    pub(super) names: Vec<String>,
    pub(super) begins: Timestamp,
    pub(super) ends: Timestamp,
}

/// Which of the two files is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Certificate,
    Key,
}

/// What is wrong with a file, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) part: Part,
    pub(super) text: String,
}

impl Problem {
    fn new(part: Part, text: impl Into<String>) -> Self {
        Self { part, text: text.into() }
    }
}

impl Pair {
    /// Puts the two together, from PEM.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together. The text does not name a file.
    pub(super) fn of_pem(cert: &[u8], key: &[u8]) -> Result<Self, Problem> {
        let wrong_cert = |text: &str| Problem::new(Part::Certificate, text);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let chain = chain.map_err(|_| wrong_cert("is not PEM"))?;
        let Some(leaf) = chain.first() else {
            return Err(wrong_cert("holds no certificate (PEM, `BEGIN CERTIFICATE`)"));
        };
        let about =
            About::of(leaf).ok_or_else(|| wrong_cert("holds a certificate that is none"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            Problem::new(
                Part::Key,
                "holds no private key that can be read (PEM, without a passphrase)",
            )
        })?;
        let key = default_provider().key_provider.load_private_key(key).map_err(|_| {
            Problem::new(Part::Key, "holds a key of a kind that is not known (RSA, ECDSA, Ed25519)")
        })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(Problem::new(Part::Key, "is not the certificate's key"));
            }
            Err(error) => {
                let text = format!("holds a certificate that no client would take: {error}");
                return Err(Problem::new(Part::Certificate, text));
            }
        }
        Ok(Self { key: key.into(), about })
    }

    fn read(cert: &Path, key: &Path) -> Result<Self, Problem> {
        let named = |part, text: String| {
            let path = match part {
                Part::Certificate => cert,
                Part::Key => key,
            };
            Problem::new(part, format!("`{}` {text}", path.display()))
        };
        let cert_bytes = read(cert, |_| Ok(())).map_err(|text| named(Part::Certificate, text))?;
        let key_bytes = read(key, check_private).map_err(|text| named(Part::Key, text))?;
        let pair = Self::of_pem(&cert_bytes, &key_bytes);
        pair.map_err(|problem| named(problem.part, problem.text))
    }
}

impl About {
    fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, leaf) = parse_x509_certificate(leaf).ok()?;
        let names = leaf.subject_alternative_name().ok()?;
        let names = names.into_iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => Some(address(bytes)?.to_string()),
            _ => None,
        });
        let time = |seconds| Timestamp::from_second(seconds).ok();
        Some(Self {
            names: names.collect(),
            begins: time(leaf.validity().not_before.timestamp())?,
            ends: time(leaf.validity().not_after.timestamp())?,
        })
    }

    /// Tells the log what is shown from now on.
    pub(super) fn log(&self, now: Timestamp, news: &str) {
        let (names, until) = (self.names.join(", "), self.ends);
        if self.ends <= now {
            tracing::warn!(%names, %until, "{news}; it has expired");
        } else if self.begins > now {
            tracing::warn!(%names, from = %self.begins, "{news}; it is not valid yet");
        } else {
            tracing::info!(%names, %until, "{news}");
        }
    }
}

/// Makes sure that a file holds an authority's certificate.
///
/// # Errors
/// When it does not; the text names the file.
pub(super) fn read_authority(path: &Path) -> Result<(), String> {
    let named = |text: &str| format!("`{}` {text}", path.display());
    let bytes = read(path, |_| Ok(())).map_err(|text| named(&text))?;
    match CertificateDer::from_pem_slice(&bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(named("holds no certificate (PEM, `BEGIN CERTIFICATE`)")),
    }
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(Into::into);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(Into::into)).ok()
}

/// Reads a file after a look at what it is. The text of an error goes behind the file's name.
fn read(path: &Path, check: impl Fn(&Metadata) -> Result<(), String>) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    check(&metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// A key is its owner's. Where that is the administrator, a group of his may have it, too: that is
/// how systems share keys among their servers.
fn check_private(metadata: &Metadata) -> Result<(), String> {
    let mode = metadata.mode() & 0o777;
    let shared = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    match mode & shared {
        0 => Ok(()),
        _ => Err(format!(
            "can be read or changed by others (mode {mode:03o}): if nobody has, `chmod 600` it; \
             else have a new one made"
        )),
    }
}

/// What tells one state of a file from another. Replacing, rewriting and exchanging a link behind
/// the name all show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trace {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Trace {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The two files, as they were when they were read last.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    cert: PathBuf,
    key: PathBuf,
    traces: [Option<Trace>; 2],
    pair: Pair,
}

/// What a look at the files has found.
enum Seen {
    Same,
    New(Pair),
    Broken(Problem),
}

impl Watched {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be used; the text names it.
    pub(super) fn open(cert: &Path, key: &Path) -> Result<Self, Problem> {
        let traces = [Trace::of(cert), Trace::of(key)];
        let pair = Pair::read(cert, key)?;
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), traces, pair })
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Shows what the files hold whenever that changes, for ever. What cannot be used is told to
    /// the log, and the certificate before it stays.
    pub(super) async fn follow(mut self, certificates: &Certificates) {
        self.pair.about.log(crate::clock::now(), "a certificate is in use");
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let asked = tokio::select! {
                () = sleep(LOOK_EVERY) => false,
                () = received(hangup.as_mut()) => true,
            };
            let looked = tokio::task::spawn_blocking(move || {
                let seen = self.look(asked);
                (self, seen)
            });
            let Ok((this, seen)) = looked.await else {
                return;
            };
            self = this;
            match seen {
                Seen::Same => {}
                Seen::New(pair) => {
                    certificates.show_files(&pair);
                    pair.about.log(crate::clock::now(), "a new certificate is in use");
                }
                Seen::Broken(Problem { text: problem, .. }) => tracing::error!(
                    %problem,
                    "the new certificate cannot be used; the one before it stays in use"
                ),
            }
        }
    }

    /// Looks at the files, and into them if they are not as they were or that is `asked` for.
    fn look(&mut self, asked: bool) -> Seen {
        let traces = [Trace::of(&self.cert), Trace::of(&self.key)];
        if traces == self.traces && !asked {
            return Seen::Same;
        }
        // From before they were read: a change in between shows the next time.
        self.traces = traces;
        match Pair::read(&self.cert, &self.key) {
            Ok(pair) => {
                self.pair = pair.clone();
                Seen::New(pair)
            }
            Err(problem) => Seen::Broken(problem),
        }
    }
}

/// Waits for a signal; for ever where none can come.
async fn received(signal: Option<&mut Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
