//! Issuers' keys: when they are fetched, and what happens when they cannot be.

use super::{
    super::{fetch::Fetch, jwks::Issuers},
    *,
};
use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Semaphore,
};

/// An issuer on loopback.
struct Issuer {
    address: SocketAddr,
    answer: Mutex<(u16, String)>,
    asked: AtomicUsize,
    /// It answers when there is a permit.
    go: Semaphore,
}

impl Issuer {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            answer: Mutex::default(),
            asked: AtomicUsize::new(0),
            go: Semaphore::new(1000),
        });
        issuer.publishes(&[jwk(Algorithm::ES256, Some("a"))]);
        let serves = issuer.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = client.read(&mut head).await;
                serves.asked.fetch_add(1, SeqCst);
                serves.go.acquire().await.unwrap().forget();
                let (status, body) = serves.answer.lock().unwrap().clone();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\
                     content-length: {length}\r\n\r\n{body}"
                );
                let _ = client.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    fn publishes(&self, keys: &[Jwk]) {
        self.answers(200, json!({ "keys": keys }).to_string());
    }

    fn answers(&self, status: u16, body: impl Into<String>) {
        *self.answer.lock().unwrap() = (status, body.into());
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }
}

fn config() -> AuthConfig {
    AuthConfig { allow_private_issuers: true, ..AuthConfig::default() }
}

fn issuers(config: &AuthConfig) -> Arc<Issuers> {
    Arc::new(Issuers::new(config, Fetch::new(config), Handle::current()))
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_who_wait() {
    let issuer = Issuer::start().await;
    issuer.go.forget_permits(1000);
    let issuers = issuers(&config());
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (issuers, url) = (issuers.clone(), issuer.url());
            tokio::spawn(async move { issuers.keys(&url).await.map(|keys| keys.keys.len()) })
        })
        .collect();
    issuer.go.add_permits(1);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Ok(1));
    }
    assert_eq!(issuers.keys(&issuer.url()).await.unwrap().keys.len(), 1);
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn unknown_keys_make_nobody_ask_too_often() {
    let issuer = Issuer::start().await;
    let issuers = issuers(&config());
    let keys = issuers.keys(&issuer.url()).await.unwrap();
    for _ in 0..10 {
        assert!(issuers.newer(&issuer.url(), &keys).await.is_none());
    }
    assert_eq!(issuer.asked(), 1, "ten seconds have not passed");
}

#[tokio::test]
async fn what_is_no_set_of_keys_is_none() {
    for (status, body) in [
        (200, String::new()),
        (200, r#"{"keys":[]}"#.to_owned()),
        (200, format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(300_000))),
        (404, "gone".to_owned()),
        // Nobody is followed to where the settings forbid to go.
        (302, String::new()),
    ] {
        let issuer = Issuer::start().await;
        issuer.answers(status, body);
        let issuers = issuers(&config());
        let why = issuers.keys(&issuer.url()).await.err().unwrap();
        assert!(why.contains(&issuer.url()), "{why}");
        // Nor is it asked again at once.
        assert_eq!(issuers.keys(&issuer.url()).await.err(), Some(why));
        assert_eq!(issuer.asked(), 1);
    }
}

#[tokio::test]
async fn private_addresses_are_not_asked() {
    let issuer = Issuer::start().await;
    let issuers = issuers(&AuthConfig::default());
    assert!(issuers.keys(&issuer.url()).await.is_err());
    let url = issuer.url().replace("http:", "https:");
    let why = issuers.keys(&url).await.err().unwrap();
    assert!(why.contains("allow_private_issuers"), "{why}");
    assert_eq!(issuer.asked(), 0);
}
