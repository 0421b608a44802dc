//! An app as it is stored: one document, so that every change of an app is one write.

use faas_api::{AppName, Digest, Function, Traffic, VersionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// The kept versions, oldest first.
    pub(crate) versions: Vec<VersionRecord>,
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
    pub(crate) functions: Vec<Function>,
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
    /// Whether it becomes live at once.
    pub(crate) activate: bool,
}

impl AppRecord {
    /// An app without versions.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            created_at: now,
            updated_at: now,
            next_version: 1,
            traffic: Traffic { shares: Vec::new() },
            versions: Vec::new(),
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

    /// Adds a version, makes it live if asked, and drops the oldest that are not live beyond
    /// `keep`. Returns its number.
    pub(crate) fn add(&mut self, new: NewVersion, keep: usize, now: Timestamp) -> VersionId {
        let id = VersionId::new(self.next_version);
        self.next_version += 1;
        self.updated_at = now;
        if new.activate {
            self.traffic = Traffic::all_to(id);
        }
        self.versions.push(VersionRecord {
            id,
            created_at: now,
            created_by: new.created_by,
            message: new.message,
            functions: new.functions,
        });
        let mut surplus = self.versions.len().saturating_sub(keep.max(1));
        let traffic = &self.traffic;
        self.versions.retain(|version| {
            let removable = version.id != id && traffic.percent_of(version.id) == 0;
            let remove = removable && surplus > 0;
            surplus -= usize::from(remove);
            !remove
        });
        id
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
        if sum == 100 { Ok(()) } else { Err(TrafficError::BadShares) }
    }

    /// Every artifact it refers to.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.versions.iter().flat_map(|version| version.functions.iter().map(|f| f.digest))
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
}

/// An app with its name, as listings have it.
pub(crate) type NamedRecord = (AppName, AppRecord);

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::{Kind, TrafficShare};

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
            }],
            activate,
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
        assert_eq!(numbers(&record), [5, 6, 7]);
        assert_eq!(record.next_version, 8);
    }

    #[test]
    fn traffic_rules() {
        let now = Timestamp::now();
        let mut record = AppRecord::new(now);
        record.add(new_version(true), 20, now);
        record.add(new_version(true), 20, now);
        let share = |version, percent| TrafficShare { version: VersionId::new(version), percent };
        let check =
            |shares: &[TrafficShare]| record.check_traffic(&Traffic { shares: shares.to_vec() });
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
    }
}
