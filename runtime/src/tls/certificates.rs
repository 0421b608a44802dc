//! Which certificate a client is shown.

use super::{acceptor::CHALLENGE, files::Pair};
use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{collections::HashMap, fmt, sync::Arc};

/// A listener's certificates. A handshake looks at them once; an exchange is for the next one.
#[derive(Default)]
pub(super) struct Certificates {
    shown: ArcSwap<Shown>,
    /// By domain, what an authority shall see there.
    challenges: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

#[derive(Default, Clone)]
struct Shown {
    /// The one in the operator's files.
    files: Option<Arc<CertifiedKey>>,
    /// Those of an authority, by domain.
    named: HashMap<String, Arc<CertifiedKey>>,
    /// The one of them for clients that name no domain.
    first: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// From now on the one in the operator's files is this.
    pub(super) fn show_files(&self, pair: &Pair) {
        self.shown.rcu(|shown| Shown { files: Some(pair.key.clone()), ..Shown::clone(shown) });
    }

    /// From now on those of an authority are these.
    pub(super) fn show_named(&self, named: HashMap<String, Arc<CertifiedKey>>) {
        let first = named.iter().min_by_key(|(domain, _)| *domain).map(|(_, key)| key.clone());
        self.shown.rcu(|shown| Shown {
            files: shown.files.clone(),
            named: named.clone(),
            first: first.clone(),
        });
    }

    /// Shows an authority what it wants to see at a domain, until the answer is dropped.
    pub(super) fn challenge(self: &Arc<Self>, domain: &str, key: CertifiedKey) -> Challenged {
        let key = Arc::new(key);
        self.challenges.rcu(|challenges| {
            let mut challenges = HashMap::clone(challenges);
            challenges.insert(domain.to_owned(), key.clone());
            challenges
        });
        Challenged { certificates: self.clone(), domain: domain.to_owned() }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown.load();
        let named = match name {
            // The library has put it in lower case.
            Some(name) => shown.named.get(name.strip_suffix('.').unwrap_or(name)),
            None => None,
        };
        let other = match name {
            Some(_) => None,
            None => shown.first.as_ref(),
        };
        named.or(shown.files.as_ref()).or(other).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737 §3: an authority offers this and nothing else.
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.next() == Some(CHALLENGE) && offered.next().is_none() {
            return self.challenges.load().get(hello.server_name()?).cloned();
        }
        self.find(hello.server_name())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// An answer to a challenge, for as long as it lives.
pub(super) struct Challenged {
    certificates: Arc<Certificates>,
    domain: String,
}

impl Drop for Challenged {
    fn drop(&mut self) {
        self.certificates.challenges.rcu(|challenges| {
            let mut challenges = HashMap::clone(challenges);
            challenges.remove(&self.domain);
            challenges
        });
    }
}
