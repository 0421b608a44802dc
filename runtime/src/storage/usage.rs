//! What functions used, hour by hour: rows that are added to and summed, and outlive their app.

use super::StorageError;
use async_trait::async_trait;
use faas_api::{AppName, FunctionName, UsageBy, UsageGroup, VersionId};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
};

/// An hour of the clock (UTC), counted from the beginning of 1970.
pub(crate) type Hour = i64;

/// Hours of a day.
const DAY: Hour = 24;

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UsageKey {
    /// When.
    pub(crate) hour: Hour,
    /// Whose.
    pub(crate) app: AppName,
    /// Which function.
    pub(crate) function: FunctionName,
    /// Of which version.
    pub(crate) version: VersionId,
}

/// What was used. No sum wraps: at its end a number stays where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Requests that a function ran for.
    pub(crate) requests: u64,
    /// Those that failed by the function's fault.
    pub(crate) failures: u64,
    /// CPU time, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Memory times time, in MiB-nanoseconds: an hour of a machine's memory fits.
    pub(crate) memory_mib_ns: u64,
    /// Bytes of request bodies.
    pub(crate) bytes_in: u64,
    /// Bytes of response bodies.
    pub(crate) bytes_out: u64,
    /// Requests that functions sent.
    pub(crate) outbound: u64,
}

impl Used {
    /// Adds what was used besides.
    pub(crate) fn add(&mut self, other: &Self) {
        let sum = |left: &mut u64, right: u64| *left = left.saturating_add(right);
        sum(&mut self.requests, other.requests);
        sum(&mut self.failures, other.failures);
        sum(&mut self.cpu_ns, other.cpu_ns);
        sum(&mut self.memory_mib_ns, other.memory_mib_ns);
        sum(&mut self.bytes_in, other.bytes_in);
        sum(&mut self.bytes_out, other.bytes_out);
        sum(&mut self.outbound, other.outbound);
    }
}

/// Which rows are summed, and how far.
#[derive(Debug, Clone)]
pub(crate) struct UsageQuery {
    /// From the first of these hours up to the last one's end.
    pub(crate) hours: Range<Hour>,
    /// Of this app alone.
    pub(crate) app: Option<AppName>,
    /// How sums divide time.
    pub(crate) by: UsageBy,
    /// How sums divide what was called.
    pub(crate) group: UsageGroup,
    /// How many sums there may be.
    pub(crate) most: usize,
}

/// What a sum is about: the first hour of its time, the app, and what else divides.
pub(crate) type SumKey = (Option<Hour>, AppName, Option<FunctionName>, Option<VersionId>);

/// Hourly rows of usage.
///
/// What was added survives the process and, where the implementation has a disk, the machine.
#[async_trait]
pub(crate) trait UsageStore: Send + Sync {
    /// Adds to rows; those that are not there begin at zero. All of them, or none.
    async fn add(&self, rows: Vec<(UsageKey, Used)>) -> Result<(), StorageError>;

    /// Sums in the order of their keys; none when there would be more than the query allows.
    async fn sum(&self, query: UsageQuery) -> Result<Option<Vec<(SumKey, Used)>>, StorageError>;

    /// Removes the rows of hours before this one, and says how many there were.
    async fn forget(&self, before: Hour) -> Result<u64, StorageError>;
}

/// Sums that are being made, row by row.
pub(super) struct Sums<'a> {
    query: &'a UsageQuery,
    sums: BTreeMap<SumKey, Used>,
}

impl<'a> Sums<'a> {
    /// No rows yet.
    pub(super) fn new(query: &'a UsageQuery) -> Self {
        Self { query, sums: BTreeMap::new() }
    }

    /// Takes a row that the query asks for. Says whether there is room for it.
    pub(super) fn take(&mut self, key: UsageKey, used: &Used) -> bool {
        let UsageKey { hour, app, function, version } = key;
        let start = match self.query.by {
            UsageBy::Hour => Some(hour),
            UsageBy::Day => Some(hour.div_euclid(DAY) * DAY),
            UsageBy::Total => None,
        };
        let key = match self.query.group {
            UsageGroup::App => (start, app, None, None),
            UsageGroup::Function => (start, app, Some(function), None),
            UsageGroup::Version => (start, app, Some(function), Some(version)),
        };
        let count = self.sums.len();
        match self.sums.entry(key) {
            Entry::Occupied(mut sum) => sum.get_mut().add(used),
            Entry::Vacant(_) if count >= self.query.most => return false,
            Entry::Vacant(sum) => {
                sum.insert(*used);
            }
        }
        true
    }

    /// The sums.
    pub(super) fn done(self) -> Vec<(SumKey, Used)> {
        self.sums.into_iter().collect()
    }
}
