//! Certificates from an authority (RFC 8555): asked for, kept, renewed.
//!
//! Each domain has a certificate of its own, so that one that no longer leads here costs the others
//! nothing. What goes wrong is told to the log and tried again, ever more seldom; until then the
//! certificate before it stays.

mod authority;
mod store;

use self::{authority::Authority, store::Store};
use super::{certificates::Certificates, files::Pair, settings::AcmeConfig};
use crate::clock;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long getting one certificate may take.
const ORDER_TIME: Duration = Duration::from_secs(300);
/// How long after a failure it is tried again; every further time is four times as long, up to the
/// second. The great authorities permit five failures an hour.
const RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(15), SignedDuration::from_hours(12));
/// The longest nap. The clock of the wall may be set meanwhile.
const NAP: Duration = Duration::from_secs(3600);

/// The domains that an authority is asked for. Whoever has this may change them at any time.
#[derive(Debug, Clone)]
pub(crate) struct Domains(watch::Sender<BTreeSet<String>>);

impl Domains {
    /// From now on it is these, in lower case. What no certificate can be for is left out.
    pub(crate) fn set(&self, mut domains: BTreeSet<String>) {
        domains.retain(|domain| super::settings::is_domain(domain));
        self.0.send_if_modified(|current| {
            let changed = *current != domains;
            *current = domains;
            changed
        });
    }
}

/// What keeps the certificates of an authority fresh.
pub(super) struct Acme {
    authority: Authority,
    store: Store,
    certificates: Arc<Certificates>,
    domains: Domains,
    held: BTreeMap<String, Held>,
}

/// A domain's certificate.
struct Held {
    /// None when there was none yet.
    pair: Option<Pair>,
    /// When to ask for the next one.
    due: Timestamp,
    /// How often that failed.
    failures: u32,
}

impl Held {
    fn of(pair: Option<Pair>) -> Self {
        let due = pair.as_ref().map_or(Timestamp::MIN, renewal);
        Self { pair, due, failures: 0 }
    }
}

impl Acme {
    /// Asks nobody yet.
    pub(super) fn new(
        config: &AcmeConfig,
        data_dir: &Path,
        certificates: Arc<Certificates>,
    ) -> Self {
        Self {
            authority: Authority::new(config),
            store: Store::new(data_dir, &config.directory),
            certificates,
            domains: Domains(watch::Sender::default()),
            held: BTreeMap::new(),
        }
    }

    pub(super) fn domains(&self) -> &Domains {
        &self.domains
    }

    /// Shows what was got for the domains before. Blocks.
    pub(super) fn recall(&mut self) -> io::Result<()> {
        self.store.create()?;
        let domains = self.domains.0.borrow().clone();
        self.held.retain(|domain, _| domains.contains(domain));
        for domain in domains {
            if !self.held.contains_key(&domain) {
                let pair = self.store.load(&domain).unwrap_or_else(|problem| {
                    tracing::warn!(%domain, %problem, "a kept certificate cannot be used");
                    None
                });
                if let Some(pair) = &pair {
                    pair.about.log(clock::now(), "a certificate of the authority is in use");
                }
                self.held.insert(domain, Held::of(pair));
            }
        }
        self.show();
        Ok(())
    }

    /// Asks for what is missing and for what comes to its end, for ever.
    pub(super) async fn tend(mut self) {
        let mut changes = self.domains.0.subscribe();
        loop {
            changes.mark_unchanged();
            self = match tokio::task::spawn_blocking(move || {
                if let Err(error) = self.recall() {
                    tracing::error!(%error, "certificates cannot be kept");
                }
                self
            })
            .await
            {
                Ok(this) => this,
                Err(_) => return,
            };
            let now = clock::now();
            let next = self.held.iter().min_by_key(|(_, held)| held.due);
            let next = next.map(|(domain, held)| (domain.clone(), held.due));
            let nap = match next {
                Some((domain, due)) if due <= now => {
                    self.get(&domain).await;
                    continue;
                }
                Some((_, due)) => Duration::try_from(due.duration_since(now)).unwrap_or_default(),
                None => NAP,
            };
            tokio::select! {
                () = sleep(nap.min(NAP)) => {}
                // There is always a sender: this has one itself.
                _ = changes.changed() => {}
            }
        }
    }

    /// Gets a certificate for one domain, or notes when to try again.
    async fn get(&mut self, domain: &str) {
        tracing::info!(%domain, "asking the authority for a certificate");
        let got = self.authority.certificate(&self.store, &self.certificates, domain);
        let got = match timeout(ORDER_TIME, got).await {
            Ok(got) => got,
            Err(_) => Err(format!("no certificate within {} s", ORDER_TIME.as_secs())),
        };
        let now = clock::now();
        let Some(held) = self.held.get_mut(domain) else {
            return;
        };
        match got {
            Ok(pair) => {
                pair.about.log(now, "a new certificate of the authority is in use");
                // A certificate that has ended already shall not be asked for without a pause.
                let due = renewal(&pair).max(now + RETRY.0);
                *held = Held { pair: Some(pair), due, failures: 0 };
                self.show();
            }
            Err(problem) => {
                let pause = RETRY.0.saturating_mul(4i32.saturating_pow(held.failures));
                held.failures = held.failures.saturating_add(1);
                held.due = now + pause.min(RETRY.1);
                let until = held.pair.as_ref().map(|pair| pair.about.ends.to_string());
                let until = until.unwrap_or_else(|| "there is none".to_owned());
                tracing::error!(
                    %domain, %problem, again = %held.due, %until,
                    "no certificate from the authority; the one before it stays in use"
                );
            }
        }
    }

    fn show(&self) {
        let named = self.held.iter();
        let named = named
            .filter_map(|(domain, held)| Some((domain.clone(), held.pair.as_ref()?.key.clone())));
        self.certificates.show_named(named.collect());
    }
}

/// When two thirds of a certificate's time are over.
fn renewal(pair: &Pair) -> Timestamp {
    let time = pair.about.ends.duration_since(pair.about.begins);
    pair.about.ends.checked_sub(time / 3).unwrap_or(pair.about.ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_that_cannot_be_names_of_files_are_left_out() {
        let domains = Domains(watch::Sender::default());
        let set = |names: &[&str]| domains.set(names.iter().map(|&name| name.into()).collect());
        set(&["a.test", "../../etc/passwd", "", "a..b", "*.a.test", "127.0.0.1"]);
        assert_eq!(*domains.0.borrow(), BTreeSet::from(["a.test".to_owned()]));
        let mut watched = domains.0.subscribe();
        set(&["a.test"]);
        assert!(!watched.has_changed().unwrap());
        set(&["b.test"]);
        assert!(watched.has_changed().unwrap());
        assert!(watched.borrow_and_update().contains("b.test"));
    }
}
