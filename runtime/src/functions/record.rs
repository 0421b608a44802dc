//! An app as it is stored: one document, so that every change of an app is one write.

use crate::storage::record::Rest;
use faas_api::{Aborted, AppName, Canary, Digest, Domain, Function, Sticky, Traffic, VersionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// An app, its kept versions and its traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppRecord {
    /// When it was first deployed.
    pub(crate) created_at: Timestamp,
    /// When it last changed.
    pub(crate) updated_at: Timestamp,
    /// The number of the next version; numbers are never used again.
    pub(crate) next_version: u32,
    /// What is live.
    pub(crate) traffic: Traffic,
    /// The kept versions that had all of the traffic, in the order in which they got it: the last
    /// one has it, or had it before it was split. Going back to one takes those after it away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) history: Vec<VersionId>,
    /// The kept versions, oldest first.
    pub(crate) versions: Vec<VersionRecord>,
    /// Versions that are kept however many newer ones there are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) pinned: BTreeSet<VersionId>,
    /// The last canary that was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aborted: Option<Aborted>,
    /// What a newer server added.
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

/// A version; it never changes once it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    /// Its number.
    pub(crate) id: VersionId,
    /// When it was deployed.
    pub(crate) created_at: Timestamp,
    /// The name of the token that deployed it.
    pub(crate) created_by: String,
    /// What the deployer said of it.
    pub(crate) message: Option<String>,
    /// Its functions.
    #[serde(default)]
    pub(crate) functions: Vec<Function>,
    /// Where they are stored when they are too many for the app's document: a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) functions_at: Option<Digest>,
    /// The domains it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) domains: Vec<Domain>,
    /// The path of its health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<String>,
    /// The deploy that made it, so that the same one sent again makes no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deploy: Option<DeployKey>,
    /// What a newer server added.
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

/// What tells one deploy from another, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeployKey {
    /// The `idempotency-key` that the client chose.
    pub(crate) key: String,
    /// A digest of what was deployed, so that a key is not used for two things.
    pub(crate) of: Digest,
}

/// What a deploy wants stored.
#[derive(Debug, Clone)]
pub(crate) struct NewVersion {
    /// The name of the token that deploys.
    pub(crate) created_by: String,
    /// What the deployer says of it.
    pub(crate) message: Option<String>,
    /// Its functions.
    pub(crate) functions: Vec<Function>,
    /// The blob that has them, when they are too many for the app's document.
    pub(crate) functions_at: Option<Digest>,
    /// The domains it names.
    pub(crate) domains: Vec<Domain>,
    /// The path of its health check.
    pub(crate) health: Option<String>,
    /// What makes it the same deploy when it is sent again.
    pub(crate) deploy: Option<DeployKey>,
    /// What becomes of the traffic.
    pub(crate) go_live: GoLive,
}

/// What a deploy does with the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GoLive {
    /// Nothing.
    No,
    /// All of it goes to the new version.
    All,
    /// A part of it, for as long as the version does well.
    Canary {
        /// From 1 to 99.
        percent: u8,
        /// How clients stay with a version.
        sticky: Option<Sticky>,
        /// Failures, in percent, above which it loses its share.
        abort_above_percent: u8,
    },
}

impl AppRecord {
    /// An app without versions.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            created_at: now,
            updated_at: now,
            next_version: 1,
            traffic: Traffic::of(Vec::new()),
            history: Vec::new(),
            versions: Vec::new(),
            pinned: BTreeSet::new(),
            aborted: None,
            rest: Rest::new(),
        }
    }

    /// The version of this number.
    pub(crate) fn version(&self, id: VersionId) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// The version with the largest share.
    pub(crate) fn live(&self) -> Option<&VersionRecord> {
        let share = self.traffic.shares.iter().max_by_key(|share| share.percent)?;
        self.version(share.version)
    }

    /// Moves the traffic, and returns what it was.
    pub(crate) fn go_to(&mut self, traffic: Traffic) -> Traffic {
        if self.history.is_empty() {
            self.history.extend(self.traffic.only());
        }
        if let Some(version) = traffic.only() {
            match self.history.iter().position(|known| *known == version) {
                Some(at) => self.history.truncate(at + 1),
                None => self.history.push(version),
            }
        }
        std::mem::replace(&mut self.traffic, traffic)
    }

    /// The version that had all of the traffic before, for a rollback.
    pub(crate) fn before(&self) -> Option<VersionId> {
        let mut newest_first = self.history.iter().rev().copied();
        newest_first.find(|version| self.traffic.only() != Some(*version))
    }

    /// The version that an earlier sending of this deploy made.
    ///
    /// # Errors
    /// When the key was used for something else.
    pub(crate) fn made_by(&self, deploy: &DeployKey) -> Result<Option<&VersionRecord>, KeyReused> {
        let known = |version: &&VersionRecord| {
            version.deploy.as_ref().is_some_and(|known| known.key == deploy.key)
        };
        match self.versions.iter().find(known) {
            Some(version) if version.deploy.as_ref() != Some(deploy) => Err(KeyReused(version.id)),
            found => Ok(found),
        }
    }

    /// Adds a version, makes it live if asked, and drops the oldest that are neither live nor
    /// pinned beyond `keep`. Returns its number.
    pub(crate) fn add(&mut self, new: NewVersion, keep: usize, now: Timestamp) -> VersionId {
        let id = VersionId::new(self.next_version);
        self.next_version += 1;
        self.updated_at = now;
        match new.go_live {
            GoLive::No => {}
            GoLive::All => {
                self.go_to(Traffic::all_to(id));
            }
            GoLive::Canary { percent, sticky, abort_above_percent } => {
                let canary = Canary { version: id, abort_above_percent };
                self.go_to(self.traffic.with_canary(canary, percent, sticky));
            }
        }
        self.versions.push(VersionRecord {
            id,
            created_at: now,
            created_by: new.created_by,
            message: new.message,
            functions: new.functions,
            functions_at: new.functions_at,
            domains: new.domains,
            health: new.health,
            deploy: new.deploy,
            rest: Rest::new(),
        });
        while self.versions.len() > keep.max(1) && self.drop_oldest(keep > 1) {}
        id
    }

    /// Drops the oldest version that is not the newest, not live and not pinned; nor, with
    /// `spares_before`, what a rollback would go back to. Returns whether there was one.
    pub(crate) fn drop_oldest(&mut self, spares_before: bool) -> bool {
        let before = self.before().filter(|_| spares_before);
        let others = self.versions.len().saturating_sub(1);
        let oldest = self.versions.iter().take(others).position(|version| {
            before != Some(version.id)
                && self.traffic.percent_of(version.id) == 0
                && !self.pinned.contains(&version.id)
        });
        let Some(oldest) = oldest else {
            return false;
        };
        let dropped = self.versions.remove(oldest);
        self.history.retain(|version| *version != dropped.id);
        true
    }

    /// Every domain that a kept version names.
    pub(crate) fn domains(&self) -> BTreeSet<&Domain> {
        self.versions.iter().flat_map(|version| &version.domains).collect()
    }

    /// Whether these shares can be this app's traffic; the text says why not.
    pub(crate) fn check_traffic(&self, traffic: &Traffic) -> Result<(), TrafficError> {
        for (index, share) in traffic.shares.iter().enumerate() {
            if self.version(share.version).is_none() {
                return Err(TrafficError::NoSuchVersion(share.version));
            }
            if share.percent == 0 || share.percent > 100 {
                return Err(TrafficError::BadShares);
            }
            if traffic.shares.iter().take(index).any(|other| other.version == share.version) {
                return Err(TrafficError::BadShares);
            }
        }
        let sum: u32 = traffic.shares.iter().map(|share| u32::from(share.percent)).sum();
        if sum != 100 {
            return Err(TrafficError::BadShares);
        }
        if let Some(Err(why)) = traffic.sticky.as_ref().map(Sticky::check) {
            return Err(TrafficError::BadSticky(why));
        }
        let Some(canary) = &traffic.canary else {
            return Ok(());
        };
        let on_trial = (1..100).contains(&traffic.percent_of(canary.version));
        let sensible = (1..=100).contains(&canary.abort_above_percent);
        if on_trial && sensible { Ok(()) } else { Err(TrafficError::BadCanary(canary.version)) }
    }

    /// Every blob it refers to.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.versions.iter().flat_map(|version| {
            version.functions.iter().map(|f| f.digest).chain(version.functions_at)
        })
    }
}

/// Why traffic cannot be what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrafficError {
    /// The version is not kept, or never was.
    #[error("there is no version {0}")]
    NoSuchVersion(VersionId),
    /// Shares are from 1 to 100, one per version, and sum to 100.
    #[error("shares are from 1 to 100 percent, one per version, and sum to 100")]
    BadShares,
    /// A canary has a share, others have the rest, and its threshold is a percentage.
    #[error(
        "a canary has a part of the traffic and a threshold from 1 to 100 percent; {0} has not"
    )]
    BadCanary(VersionId),
    /// No client could send such a header.
    #[error("`sticky`: {0}")]
    BadSticky(String),
}

/// An `idempotency-key` that has made this version already, of something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the idempotency key was used for another deploy, which became {0}")]
pub(crate) struct KeyReused(pub(crate) VersionId);

/// An app with its name, as listings have it.
pub(crate) type NamedRecord = (AppName, AppRecord);

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::{Kind, Settings, TrafficShare};

    fn new_version(activate: bool) -> NewVersion {
        NewVersion {
            created_by: "test".into(),
            message: None,
            functions: vec![Function {
                name: "main".parse().unwrap(),
                kind: Kind::Cgi01,
                digest: Digest::of(b"x"),
                size: 1,
                route: "/*".into(),
                reuse: None,
                settings: Settings::default(),
            }],
            functions_at: None,
            domains: vec![],
            health: None,
            deploy: None,
            go_live: if activate { GoLive::All } else { GoLive::No },
        }
    }

    fn numbers(record: &AppRecord) -> Vec<u32> {
        record.versions.iter().map(|version| version.id.number()).collect()
    }

    #[test]
    fn retention_never_drops_what_is_live() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        record.add(new_version(true), 3, now);
        for _ in 0..5 {
            record.add(new_version(false), 3, now);
        }
        assert_eq!(numbers(&record), [1, 5, 6]);
        assert_eq!(record.live().unwrap().id.number(), 1);
        record.add(new_version(true), 3, now);
        // Nor what a rollback would go back to.
        assert_eq!(numbers(&record), [1, 6, 7]);
        assert_eq!(record.next_version, 8);
        record.add(new_version(true), 3, now);
        assert_eq!(numbers(&record), [6, 7, 8]);
    }

    #[test]
    fn a_rollback_goes_where_all_of_the_traffic_was_before() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        let deploy = |record: &mut AppRecord, live| record.add(new_version(live), 20, now);
        let back = |record: &mut AppRecord| {
            let before = record.before().unwrap();
            record.go_to(Traffic::all_to(before));
            before.number()
        };
        deploy(&mut record, true);
        assert_eq!(record.before(), None);
        // v2 was never live.
        deploy(&mut record, false);
        deploy(&mut record, true);
        deploy(&mut record, true);
        assert_eq!(back(&mut record), 3);
        assert_eq!(back(&mut record), 1);
        assert_eq!(record.before(), None);
        // What was rolled back is nothing to go back to.
        deploy(&mut record, true);
        assert_eq!(back(&mut record), 1);
        // A canary has part of the traffic: it goes, and what had all of it is back.
        let canary = Canary { version: VersionId::new(5), abort_above_percent: 2 };
        record.go_to(record.traffic.with_canary(canary, 5, None));
        assert_eq!(back(&mut record), 1);
        // A record of an earlier release has no history.
        record.history.clear();
        deploy(&mut record, true);
        assert_eq!(back(&mut record), 1);
    }

    #[test]
    fn what_a_newer_server_added_is_kept() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        record.add(new_version(true), 3, now);
        let mut stored = serde_json::to_value(&record).unwrap();
        stored["colour"] = "red".into();
        stored["versions"][0]["region"] = serde_json::json!({"near": ["eu"]});
        let mut read: AppRecord = serde_json::from_value(stored).unwrap();
        read.add(new_version(true), 3, now);
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written["colour"], "red");
        assert_eq!(written["versions"][0]["region"]["near"][0], "eu");
        assert!(written["versions"][1].get("region").is_none());
        // What it does not know about who may call a function it does not overlook.
        let mut stored = serde_json::to_value(&record).unwrap();
        stored["versions"][0]["functions"][0]["settings"]["only_from"] = "10.0.0.0/8".into();
        let error = serde_json::from_value::<AppRecord>(stored).unwrap_err();
        assert!(error.to_string().contains("only_from"), "{error}");
    }

    #[test]
    fn traffic_rules() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        record.add(new_version(true), 20, now);
        record.add(new_version(true), 20, now);
        let share = |version, percent| TrafficShare { version: VersionId::new(version), percent };
        let check = |shares: &[TrafficShare]| record.check_traffic(&Traffic::of(shares.to_vec()));
        assert_eq!(check(&[share(1, 100)]), Ok(()));
        assert_eq!(check(&[share(1, 10), share(2, 90)]), Ok(()));
        assert_eq!(check(&[share(3, 100)]), Err(TrafficError::NoSuchVersion(VersionId::new(3))));
        for bad in [
            &[][..],
            &[share(1, 99)],
            &[share(1, 0), share(2, 100)],
            &[share(1, 50), share(1, 50)],
            &[share(1, 200)],
        ] {
            assert_eq!(check(bad), Err(TrafficError::BadShares));
        }
        let canary = |version, shares: &[TrafficShare]| {
            let canary = Canary { version: VersionId::new(version), abort_above_percent: 2 };
            let traffic = Traffic { canary: Some(canary), ..Traffic::of(shares.to_vec()) };
            record.check_traffic(&traffic)
        };
        assert_eq!(canary(2, &[share(1, 95), share(2, 5)]), Ok(()));
        let alone = Err(TrafficError::BadCanary(VersionId::new(2)));
        assert_eq!(canary(2, &[share(2, 100)]), alone);
        assert_eq!(canary(2, &[share(1, 100)]), alone);
        for (name, good) in [("x-user-id", true), ("", false), ("X-User", false), ("x user", false)]
        {
            let sticky = Some(Sticky::Header { name: name.to_owned() });
            let traffic = Traffic { sticky, ..Traffic::of(vec![share(1, 100)]) };
            assert_eq!(record.check_traffic(&traffic).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn a_pinned_version_is_kept() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        record.add(new_version(true), 2, now);
        record.pinned.insert(VersionId::new(1));
        for _ in 0..3 {
            record.add(new_version(true), 2, now);
        }
        // What a rollback goes back to is kept too.
        assert_eq!(numbers(&record), [1, 3, 4]);
    }

    #[test]
    fn a_canary_takes_its_share_from_what_is_live() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        let canary = |percent| NewVersion {
            go_live: GoLive::Canary { percent, sticky: None, abort_above_percent: 2 },
            ..new_version(false)
        };
        // With nothing to compare it with it is no canary.
        record.add(canary(5), 20, now);
        assert_eq!(record.traffic, Traffic::all_to(VersionId::new(1)));
        record.add(canary(5), 20, now);
        assert_eq!(record.traffic.to_string(), "v1 95 %, v2 5 %");
        assert_eq!(record.traffic.canary.map(|canary| canary.version), Some(VersionId::new(2)));
        // The next one takes the place of the one on trial.
        record.add(canary(10), 20, now);
        assert_eq!(record.traffic.to_string(), "v1 90 %, v3 10 %");
        assert_eq!(record.traffic.without_canary().to_string(), "v1");
    }

    #[test]
    fn the_same_deploy_makes_one_version() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        let key = |key: &str, of: &[u8]| DeployKey { key: key.into(), of: Digest::of(of) };
        let new = NewVersion { deploy: Some(key("a", b"x")), ..new_version(true) };
        let id = record.add(new, 20, now);
        assert_eq!(record.made_by(&key("a", b"x")).unwrap().map(|version| version.id), Some(id));
        assert_eq!(record.made_by(&key("b", b"x")), Ok(None));
        assert_eq!(record.made_by(&key("a", b"y")), Err(KeyReused(id)));
    }
}
