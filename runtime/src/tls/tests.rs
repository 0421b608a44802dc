//! Certificates made here, clients that trust them, and handshakes over real sockets.

use super::{certificates::Certificates, files::Pair, *};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use std::{
    collections::HashMap, fs, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// A client's end of a connection.
pub(crate) type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// A certificate for these names and its key, both PEM. It is its own authority.
pub(crate) fn made_for(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Shakes hands with a certificate for `localhost`, and the client that trusts it.
pub(crate) fn for_localhost() -> (Acceptor, Trust) {
    let (cert, key) = made_for(&["localhost"]);
    let certificates = Arc::new(Certificates::default());
    certificates.show_files(&Pair::of_pem(cert.as_bytes(), key.as_bytes()).unwrap());
    (Acceptor::for_requests(certificates).unwrap(), Trust::new(&cert))
}

/// What a client trusts.
#[derive(Clone)]
pub(crate) struct Trust(RootCertStore);

impl Trust {
    pub(crate) fn new(cert: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
        Self(roots)
    }

    /// Connects to this name and offers to speak these.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        offers: &[&str],
    ) -> io::Result<ClientStream> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(self.0.clone()).with_no_client_auth();
        config.alpn_protocols = offers.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// Shakes hands once and tells the leaf certificate the client was shown.
async fn shown(certificates: &Arc<Certificates>, name: &str, offers: &[&str]) -> Option<Vec<u8>> {
    let acceptor = Acceptor::for_requests(certificates.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let looker = Looker::default();
    let client = looker.look(address, name, offers);
    let (served, ()) = tokio::join!(serving, client);
    let seen = looker.seen.lock().unwrap().clone();
    match served {
        Ok(_) => seen,
        Err(_) => None,
    }
}

/// A client that takes every certificate and remembers it.
#[derive(Debug, Default, Clone)]
struct Looker {
    seen: Arc<std::sync::Mutex<Option<Vec<u8>>>>,
}

impl Looker {
    async fn look(&self, address: SocketAddr, name: &str, offers: &[&str]) {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(self.clone()));
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = offers.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let _ = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    }
}

impl rustls::client::danger::ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap() = Some(end_entity.to_vec());
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn pair(names: &[&str]) -> (Pair, Vec<u8>) {
    let (cert, key) = made_for(names);
    let pair = Pair::of_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let leaf = pair.key.cert.first().unwrap().to_vec();
    (pair, leaf)
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let certificates = Arc::new(Certificates::default());
    assert_eq!(shown(&certificates, "a.test", &[]).await, None);
    let (a, of_a) = pair(&["a.test"]);
    let (b, of_b) = pair(&["b.test"]);
    let named = |pairs: &[(&str, &Pair)]| -> HashMap<_, _> {
        pairs.iter().map(|(name, pair)| ((*name).to_owned(), pair.key.clone())).collect()
    };
    certificates.show_named(named(&[("a.test", &a), ("b.test", &b)]));
    assert_eq!(shown(&certificates, "a.test", &["h2"]).await, Some(of_a.clone()));
    assert_eq!(shown(&certificates, "B.Test", &["h2"]).await, Some(of_b.clone()));
    assert_eq!(shown(&certificates, "c.test", &["h2"]).await, None);
    // A client that knows an address only names nothing.
    assert_eq!(shown(&certificates, "127.0.0.1", &[]).await, Some(of_a.clone()));
    let (files, of_files) = pair(&["c.test"]);
    certificates.show_files(&files);
    assert_eq!(shown(&certificates, "c.test", &[]).await, Some(of_files.clone()));
    assert_eq!(shown(&certificates, "127.0.0.1", &[]).await, Some(of_files.clone()));
    assert_eq!(shown(&certificates, "a.test", &[]).await, Some(of_a));
    certificates.show_named(HashMap::new());
    assert_eq!(shown(&certificates, "a.test", &[]).await, Some(of_files));
}

#[tokio::test]
async fn a_challenge_is_answered_to_an_authority_only_and_only_for_a_while() {
    let certificates = Arc::new(Certificates::default());
    let (files, of_files) = pair(&["a.test"]);
    certificates.show_files(&files);
    let (answer, of_answer) = pair(&["a.test"]);
    let challenged = certificates.challenge("a.test", answer.key.as_ref().clone());
    assert_eq!(shown(&certificates, "a.test", &["acme-tls/1"]).await, Some(of_answer));
    assert_eq!(shown(&certificates, "b.test", &["acme-tls/1"]).await, None);
    let both = shown(&certificates, "a.test", &["acme-tls/1", "h2"]).await;
    assert_eq!(both, Some(of_files.clone()));
    assert_eq!(shown(&certificates, "a.test", &["h2"]).await, Some(of_files));
    drop(challenged);
    assert_eq!(shown(&certificates, "a.test", &["acme-tls/1"]).await, None);
}

#[tokio::test]
async fn what_is_spoken_is_agreed_on() {
    let (acceptor, trust) = for_localhost();
    for (offers, spoken) in [
        (&["h2", "http/1.1"][..], Some(Spoken::Http2)),
        (&["http/1.1", "h2"], Some(Spoken::Http2)),
        (&["http/1.1"], Some(Spoken::Http1)),
        (&[], Some(Spoken::Whatever)),
        (&["spdy/1"], None),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async { acceptor.accept(listener.accept().await.unwrap().0).await };
        let client = trust.connect(address, "localhost", offers);
        let (served, client) = tokio::join!(serving, client);
        assert_eq!(served.ok().map(|stream| Acceptor::spoken(&stream)), spoken, "{offers:?}");
        assert_eq!(client.is_ok(), spoken.is_some(), "{offers:?}");
    }
}

/// Files in a folder of their own.
struct Files {
    _temp: tempfile::TempDir,
    config: TlsFiles,
}

impl Files {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let config =
            TlsFiles { cert: temp.path().join("cert.pem"), key: temp.path().join("key.pem") };
        let files = Self { _temp: temp, config };
        let (cert, key) = made_for(&["a.test"]);
        files.write(&cert, &key);
        files
    }

    fn write(&self, cert: &str, key: &str) {
        fs::write(&self.config.cert, cert).unwrap();
        fs::write(&self.config.key, key).unwrap();
        fs::set_permissions(&self.config.key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn refusal(&self) -> String {
        match Tls::admin(&self.config) {
            Ok(_) => panic!("they are taken"),
            Err(error) => error.to_string(),
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name() {
    let files = Files::new();
    assert!(Tls::admin(&files.config).unwrap().is_some());
    assert!(Tls::admin(&TlsFiles::default()).unwrap().is_none());
    let (cert, key) = made_for(&["a.test"]);
    let (_, other) = made_for(&["a.test"]);
    for (cert, key, setting, part) in [
        ("", key.as_str(), "admin.tls.cert", "holds no certificate"),
        (&*key, &*key, "admin.tls.cert", "holds no certificate"),
        (&cert[..90], &*key, "admin.tls.cert", "is not PEM"),
        (&*cert, "", "admin.tls.key", "holds no private key"),
        (&*cert, &*cert, "admin.tls.key", "holds no private key"),
        (&*cert, &*other, "admin.tls.key", "is not the certificate's key"),
    ] {
        files.write(cert, key);
        let said = files.refusal();
        assert!(said.starts_with(setting) && said.contains(part), "{said}");
        assert!(said.contains(".pem`"), "{said}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    files.write(broken, &key);
    assert!(files.refusal().contains("holds a certificate that is none"));
    fs::remove_file(&files.config.key).unwrap();
    files.write(&cert, &key);
    fs::remove_file(&files.config.cert).unwrap();
    assert!(files.refusal().contains("cannot be read"), "{}", files.refusal());
}

#[test]
fn a_key_is_its_owners() {
    let files = Files::new();
    for (mode, refused) in [(0o600, false), (0o400, false), (0o644, true), (0o604, true)] {
        fs::set_permissions(&files.config.key, fs::Permissions::from_mode(mode)).unwrap();
        match Tls::admin(&files.config) {
            Ok(_) => assert!(!refused, "{mode:o}"),
            Err(error) => {
                assert!(refused, "{mode:o}");
                let said = error.to_string();
                assert!(said.contains("by others") && said.contains("chmod 600"), "{said}");
            }
        }
    }
    // An administrator's key may be shared with a group, to read.
    let by_root = rustix::process::geteuid().is_root();
    for (mode, refused) in [(0o640, !by_root), (0o660, true)] {
        fs::set_permissions(&files.config.key, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Tls::admin(&files.config).is_err(), refused, "{mode:o}");
    }
}

#[test]
fn settings_that_do_not_fit_together_are_refused() {
    type Change = fn(&mut AcmeConfig);
    let acme = |change: Change| {
        let mut config = IngressTls::default();
        config.acme.directory = "https://ca.test/directory".to_owned();
        change(&mut config.acme);
        config.validate().map_err(|error| error.to_string())
    };
    acme(|_| {}).unwrap();
    acme(|acme| acme.domains = vec!["a.test".into(), "B.Test".into(), "localhost".into()]).unwrap();
    acme(|acme| acme.contact = vec!["ada@a.test".into(), "mailto:ada@a.test".into()]).unwrap();
    let refused: [(Change, &str); 8] = [
        (|acme| acme.directory = "http://ca.test/".into(), "directory"),
        (|acme| acme.directory = "ca.test".into(), "directory"),
        (|acme| acme.domains = vec!["*.a.test".into()], "domains"),
        (|acme| acme.domains = vec!["127.0.0.1".into()], "domains"),
        (|acme| acme.domains = vec!["../a".into()], "domains"),
        (|acme| acme.domains = vec!["a..b".into()], "domains"),
        (|acme| acme.contact = vec!["nobody".into()], "contact"),
        (
            |acme| {
                acme.directory.clear();
                acme.domains = vec!["a.test".into()];
            },
            "directory",
        ),
    ];
    for (change, key) in refused {
        let said = acme(change).unwrap_err();
        assert!(said.starts_with(&format!("ingress.tls.acme.{key}: ")), "{said}");
    }
    let half = TlsFiles { cert: "cert.pem".into(), key: PathBuf::new() };
    assert!(half.validate().unwrap_err().to_string().starts_with("admin.tls.key: is missing"));
    let half = IngressTls { key: "key.pem".into(), ..IngressTls::default() };
    assert!(half.validate().unwrap_err().to_string().starts_with("ingress.tls.cert: is missing"));
}

#[test]
fn a_chain_is_shown_whole_and_says_until_when() {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(["a.test".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2026, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2026, 4, 1);
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let chain = leaf.pem() + &ca.pem();
    let pair = Pair::of_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    assert_eq!(pair.key.cert.len(), 2);
    assert_eq!(pair.about.names, ["a.test", "127.0.0.1"]);
    assert_eq!(pair.about.ends.to_string(), "2026-04-01T00:00:00Z");
}
