//! An issuer of tokens on loopback, as the functions' users have one.

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// What stands before the 32 secret bytes of an Ed25519 key (RFC 8410 §7).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// An issuer: it signs with its newest key and publishes it at `/.well-known/jwks.json`. It stops
/// answering when it is told to.
pub struct Issuer {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Which key is the newest; each has another secret.
    key: Mutex<Option<u8>>,
    current: Mutex<u8>,
    asked: AtomicUsize,
}

impl Issuer {
    /// An issuer with one key.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            key: Mutex::new(Some(1)),
            current: Mutex::new(1),
            asked: AtomicUsize::new(0),
        });
        let serves = state.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serves.asked.fetch_add(1, SeqCst);
                let published = *lock(&serves.key);
                // A client that went away has its reasons.
                let _ = answer(client, published);
            }
        });
        Self { address, state }
    }

    /// What its tokens have as `iss`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Signs with another key from now on, and publishes only that one.
    pub fn rotate(&self) {
        let mut current = lock(&self.state.current);
        *current += 1;
        *lock(&self.state.key) = Some(*current);
    }

    /// Publishes nothing any more.
    pub fn fail(&self) {
        *lock(&self.state.key) = None;
    }

    /// How often it was asked for its keys.
    pub fn asked(&self) -> usize {
        self.state.asked.load(SeqCst)
    }

    /// A token that names somebody and ends in five minutes, with these claims besides.
    ///
    /// # Panics
    /// When they are no object.
    pub fn token(&self, subject: &str, more: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({ "iss": self.url(), "sub": subject, "exp": now + 300 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let number = *lock(&self.state.current);
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(number.to_string());
        jsonwebtoken::encode(&header, &claims, &secret(number)).unwrap()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn secret(number: u8) -> EncodingKey {
    EncodingKey::from_ed_der(&[&PKCS8[..], &[number; 32]].concat())
}

fn answer(client: TcpStream, published: Option<u8>) -> std::io::Result<()> {
    let mut lines = BufReader::new(&client).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while !lines.next().transpose()?.unwrap_or_default().is_empty() {}
    let (status, body) = match published {
        Some(number) if first.starts_with("GET /.well-known/jwks.json ") => {
            let mut jwk = Jwk::from_encoding_key(&secret(number), Algorithm::EdDSA).unwrap();
            jwk.common.key_id = Some(number.to_string());
            ("200 OK", json!({ "keys": [jwk] }).to_string())
        }
        Some(_) => ("404 Not Found", String::new()),
        None => ("503 Service Unavailable", String::new()),
    };
    let length = body.len();
    write!(
        &client,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}
