//! A server that functions send requests to: it remembers what it got, and answers as told.

use crate::eventually;
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// A request, as the server got it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The first line.
    pub line: String,
    /// The other lines of the head, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Received {
    /// The target.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of a field, joined.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .fields
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// Where an answer is written.
pub trait Peer: Read + Write {}
impl<T: Read + Write> Peer for T {}

/// A server on loopback, with a thread per connection, until the process ends.
pub struct Upstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Upstream {
    /// A server that answers each request by this; an error closes the connection.
    ///
    /// # Panics
    /// When the machine has no port.
    pub fn start<F>(answer: F) -> Self
    where
        F: Fn(&Received, &mut dyn Peer) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::serve("127.0.0.1:0", answer, None)
    }

    /// The same at this address.
    ///
    /// # Panics
    /// When it is taken.
    pub fn at<F>(address: &str, answer: F) -> Self
    where
        F: Fn(&Received, &mut dyn Peer) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::serve(address, answer, None)
    }

    /// The same over TLS, for `localhost`. Also the file of the certificate that signed its own.
    ///
    /// # Panics
    /// When the machine has no port.
    pub fn with_tls<F>(folder: &Path, answer: F) -> (Self, PathBuf)
    where
        F: Fn(&Received, &mut dyn Peer) -> io::Result<()> + Send + Sync + 'static,
    {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let file = folder.join("ca.pem");
        std::fs::write(&file, ca.pem()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let own = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![own.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        (Self::serve("127.0.0.1:0", answer, Some(Arc::new(config))), file)
    }

    fn serve<F>(address: &str, answer: F, tls: Option<Arc<ServerConfig>>) -> Self
    where
        F: Fn(&Received, &mut dyn Peer) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(address).unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            accepted: Arc::default(),
            open: Arc::default(),
        };
        let (received, answer) = (upstream.received.clone(), Arc::new(answer));
        let (accepted, open) = (upstream.accepted.clone(), upstream.open.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, SeqCst);
                open.fetch_add(1, SeqCst);
                let (received, answer, open) = (received.clone(), answer.clone(), open.clone());
                let tls = tls.clone();
                thread::spawn(move || {
                    // How a connection ends is for the other side to judge.
                    let _ = match tls {
                        None => visit(stream, &received, &*answer),
                        Some(config) => {
                            ServerConnection::new(config).map_err(io::Error::other).and_then(
                                |tls| visit(StreamOwned::new(tls, stream), &received, &*answer),
                            )
                        }
                    };
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        upstream
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it got so far.
    ///
    /// # Panics
    /// When a thread of it did.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }
}

/// A listener on every address of the machine, which no connection escapes. It answers with nothing.
pub struct Canary {
    port: u16,
    /// Where each went, and where it came from.
    seen: Arc<Mutex<Vec<(IpAddr, SocketAddr)>>>,
}

impl Canary {
    /// One at a free port.
    ///
    /// # Panics
    /// When the machine has no port.
    pub fn start() -> Self {
        Self::at(0)
    }

    /// One at this port.
    ///
    /// # Panics
    /// When it is taken.
    pub fn at(port: u16) -> Self {
        // Of both families, where there are both.
        let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let listener = both.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let canary = Self { port, seen: Arc::default() };
        let seen = canary.seen.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let addresses = stream.local_addr().and_then(|to| Ok((to, stream.peer_addr()?)));
                if let Ok((to, from)) = addresses {
                    seen.lock().unwrap().push((to.ip().to_canonical(), from));
                }
                thread::spawn(move || {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(b"HTTP/1.1 204 Seen\r\nconnection: close\r\n\r\n");
                });
            }
        });
        canary
    }

    /// Its port, at every address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The addresses that somebody has connected to until now.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn seen(&self) -> Vec<IpAddr> {
        // Connections are seen in their order: with this one, all before it are.
        let own = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let own = own.local_addr().unwrap();
        let mut seen = eventually("it sees all", Duration::from_secs(30), || {
            let seen = self.seen.lock().unwrap().clone();
            seen.iter().any(|(_, from)| from.port() == own.port()).then_some(seen)
        });
        let mut all = self.seen.lock().unwrap();
        all.retain(|(_, from)| from.port() != own.port());
        drop(all);
        seen.retain(|(_, from)| from.port() != own.port());
        seen.into_iter().map(|(to, _)| to).collect()
    }
}

/// A plain answer.
///
/// # Errors
/// When nobody reads it.
pub fn answer(peer: &mut dyn Peer, status: u16, body: &[u8]) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n\r\n", body.len());
    peer.write_all(&[head.as_bytes(), body].concat())?;
    peer.flush()
}

/// One connection, request after request.
fn visit<S: Read + Write>(
    stream: S,
    received: &Mutex<Vec<Received>>,
    answer: &dyn Fn(&Received, &mut dyn Peer) -> io::Result<()>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream)? {
        received.lock().unwrap().push(request.clone());
        answer(&request, stream.get_mut())?;
    }
    Ok(())
}

fn read(stream: &mut impl BufRead) -> io::Result<Option<Received>> {
    let line = |stream: &mut dyn BufRead| {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        io::Result::Ok(line.trim_end().to_owned())
    };
    let first = line(stream)?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut received = Received { line: first, fields: Vec::new(), body: Vec::new() };
    loop {
        let field = line(stream)?;
        let Some((name, value)) = field.split_once(':') else { break };
        received.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if let Some(length) = received.field("content-length") {
        received.body = vec![0; length.parse().map_err(io::Error::other)?];
        stream.read_exact(&mut received.body)?;
    } else if received.field("transfer-encoding").is_some() {
        loop {
            let size = line(stream)?;
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            let mut piece = vec![0; size + 2];
            stream.read_exact(&mut piece)?;
            received.body.extend(&piece[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some(received))
}

/// A port that nobody listens on any more.
///
/// # Panics
/// When the machine has none.
pub fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until the other side of a connection is gone.
pub fn wait_for_end(peer: &mut dyn Peer) {
    let mut byte = [0];
    while matches!(peer.read(&mut byte), Ok(1..)) {}
}
