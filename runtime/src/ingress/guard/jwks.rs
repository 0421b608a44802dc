//! The keys of issuers (RFC 7517), kept on this node.
//!
//! | age of the keys | what a request does |
//! |---|---|
//! | young | uses them |
//! | near their end, or a little over it | uses them, and has them fetched meanwhile |
//! | over their end | waits for those who fetch them; if that fails, uses them for a day |
//! | none | waits; if that fails, it cannot be answered |
//!
//! A fetch is made once for all who wait, on threads that serve no connection, and not sooner after
//! the last one than the settings say: a stranger with made-up tokens cannot make the node ask more
//! often.

use super::{AuthConfig, fetch::Fetch, jwt::IssuerKey};
use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::watch};

/// The longest that an issuer may ask its keys to be kept.
const MAX_AGE: Duration = Duration::from_secs(86_400);
/// How long keys are used after their end while new ones are on their way.
const GRACE: Duration = Duration::from_secs(600);
/// An issuer that nobody asked for this long is forgotten.
const IDLE: Duration = Duration::from_secs(2 * 86_400);

/// An issuer's keys, as they were at one time.
pub(super) struct KeySet {
    pub(super) keys: Vec<IssuerKey>,
    /// From then on they are fetched anew, without anybody waiting.
    refresh_at: Instant,
    /// From then on requests wait for new ones,
    ends_at: Instant,
    /// and from then on they are no keys any more.
    stale_at: Instant,
}

impl KeySet {
    fn new(keys: Vec<IssuerKey>, age: Duration, stale: Duration) -> Self {
        let now = Instant::now();
        Self {
            keys,
            refresh_at: now + age / 5 * 4,
            ends_at: now + age,
            stale_at: now + age + stale,
        }
    }

    /// Keys that do not end, for tests.
    #[cfg(test)]
    pub(super) fn of(keys: Vec<IssuerKey>) -> Self {
        Self::new(keys, MAX_AGE, MAX_AGE)
    }
}

/// The issuers whose keys were needed.
pub(super) struct Issuers {
    known: DashMap<Box<str>, Arc<Issuer>>,
    common: Arc<Common>,
}

struct Common {
    fetch: Fetch,
    runtime: Handle,
    age: Duration,
    stale: Duration,
    pause: Duration,
    epoch: Instant,
}

struct Issuer {
    url: Box<str>,
    keys: ArcSwapOption<KeySet>,
    /// When it was last asked for, in seconds since the epoch of all.
    used: AtomicU64,
    fetching: Mutex<Fetching>,
    /// Counts fetches that ended.
    ended: watch::Sender<u64>,
}

/// What is known of fetches.
#[derive(Default)]
struct Fetching {
    under_way: bool,
    last: Option<Instant>,
    /// Why the last one failed, if it did.
    failure: Option<String>,
}

impl Issuers {
    pub(super) fn new(config: &AuthConfig, fetch: Fetch, runtime: Handle) -> Self {
        let seconds = Duration::from_secs;
        let common = Common {
            fetch,
            runtime,
            age: seconds(config.jwks_max_age_s),
            stale: seconds(config.jwks_stale_s),
            pause: seconds(config.jwks_pause_s),
            epoch: Instant::now(),
        };
        Self { known: DashMap::new(), common: Arc::new(common) }
    }

    /// The keys at this address; or, if there are none, why.
    pub(super) async fn keys(&self, url: &str) -> Result<Arc<KeySet>, String> {
        let issuer = self.issuer(url);
        let now = Instant::now();
        match issuer.keys.load_full() {
            Some(keys) if now < keys.refresh_at => return Ok(keys),
            Some(keys) if now < keys.ends_at + GRACE.min(self.common.stale) => {
                issuer.fetch(&self.common);
                return Ok(keys);
            }
            // The last attempt failed: nobody waits for the next one.
            Some(keys) if now < keys.stale_at && issuer.has_failed() => {
                issuer.fetch(&self.common);
                return Ok(keys);
            }
            _ => issuer.fetched(&self.common).await,
        }
        let keys = issuer.keys.load_full().filter(|keys| Instant::now() < keys.stale_at);
        keys.ok_or_else(|| issuer.failure())
    }

    /// Keys at this address that are newer than those; none if they cannot be had, or not so soon.
    pub(super) async fn newer(&self, url: &str, than: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let issuer = self.issuer(url);
        let is_newer = |keys: &Arc<KeySet>| !Arc::ptr_eq(keys, than);
        if let Some(keys) = issuer.keys.load_full().filter(is_newer) {
            return Some(keys);
        }
        issuer.fetched(&self.common).await;
        issuer.keys.load_full().filter(is_newer)
    }

    /// Forgets issuers that nobody asks for any more.
    pub(super) fn forget_idle(&self) {
        let now = self.common.seconds();
        self.known.retain(|_, issuer| now - issuer.used.load(Relaxed).min(now) < IDLE.as_secs());
    }

    fn issuer(&self, url: &str) -> Arc<Issuer> {
        let known = self.known.get(url).map(|issuer| issuer.clone());
        let issuer = known.unwrap_or_else(|| {
            self.known.entry(url.into()).or_insert_with(|| Arc::new(Issuer::new(url))).clone()
        });
        issuer.used.store(self.common.seconds(), Relaxed);
        issuer
    }
}

impl Common {
    fn seconds(&self) -> u64 {
        self.epoch.elapsed().as_secs()
    }
}

impl Issuer {
    fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            keys: ArcSwapOption::empty(),
            used: AtomicU64::new(0),
            fetching: Mutex::default(),
            ended: watch::Sender::new(0),
        }
    }

    fn has_failed(&self) -> bool {
        self.state(|state| state.failure.is_some())
    }

    fn failure(&self) -> String {
        let why = self.state(|state| state.failure.clone());
        let why = why.unwrap_or_else(|| "they were asked for only just now".to_owned());
        format!("the keys at {} cannot be had: {why}", self.url)
    }

    /// Waits until a fetch has ended, if one can be made.
    async fn fetched(self: &Arc<Self>, common: &Arc<Common>) {
        if let Some(mut ended) = self.fetch(common) {
            // The sender is part of this issuer.
            let _ = ended.changed().await;
        }
    }

    /// Starts a fetch, unless there is one under way, or was only just now. The end can be waited
    /// for.
    fn fetch(self: &Arc<Self>, common: &Arc<Common>) -> Option<watch::Receiver<u64>> {
        let begins = self.state(|state| {
            let rests = state.last.is_some_and(|last| last.elapsed() < common.pause);
            if !state.under_way && rests {
                return None;
            }
            let begins = !std::mem::replace(&mut state.under_way, true);
            // Before the lock is given back: an end that comes at once is not missed.
            Some((begins, self.ended.subscribe()))
        });
        let (begins, ended) = begins?;
        if begins {
            let end = End(self.clone());
            let common = common.clone();
            common.runtime.clone().spawn(async move {
                let end = end;
                end.0.fetch_now(&common).await;
            });
        }
        Some(ended)
    }

    async fn fetch_now(&self, common: &Common) {
        let failure = match common.fetch.fetch(&self.url).await {
            Ok(fetched) => {
                let age = fetched.max_age.unwrap_or(common.age).min(MAX_AGE).max(common.pause);
                let keys = KeySet::new(fetched.keys, age, common.stale);
                tracing::debug!(url = &*self.url, keys = keys.keys.len(), ?age, "fetched keys");
                self.keys.store(Some(Arc::new(keys)));
                None
            }
            Err(error) => {
                let why = error.to_string();
                let left =
                    self.keys.load().as_ref().map(|keys| {
                        keys.stale_at.saturating_duration_since(Instant::now()).as_secs()
                    });
                match left {
                    Some(left_s @ 1..) => tracing::warn!(
                        url = &*self.url, %error, left_s,
                        "an issuer's keys could not be fetched; those that are here are used"
                    ),
                    _ => tracing::warn!(
                        url = &*self.url, %error,
                        "an issuer's keys could not be fetched; its tokens cannot be checked"
                    ),
                }
                Some(why)
            }
        };
        self.state(|state| state.failure = failure);
    }

    fn state<T>(&self, look: impl FnOnce(&mut Fetching) -> T) -> T {
        look(&mut self.fetching.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells those who wait that a fetch has ended, however it did.
struct End(Arc<Issuer>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.state(|state| {
            state.under_way = false;
            state.last = Some(Instant::now());
        });
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}
