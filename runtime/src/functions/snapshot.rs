//! What is deployed, as a request sees it: immutable, swapped whole when something changes.

use super::record::{AppRecord, VersionRecord};
use crate::{
    engine::{Engine, Limits, Program, ProgramSpec},
    storage::Rev,
    telemetry::{
        guest_logs::{GuestLogs, Origin},
        metrics::Metrics,
    },
};
use faas_api::{AppName, Digest, FunctionName, Kind, VersionId};
use http::HeaderValue;
use std::{collections::HashMap, sync::Arc};

/// Every app that can be routed to.
#[derive(Default)]
pub(crate) struct Snapshot {
    apps: HashMap<AppName, Arc<LiveApp>>,
}

impl Snapshot {
    /// The app of this name. Takes text from a request: what is no name is simply not there.
    pub(crate) fn app(&self, name: &str) -> Option<&Arc<LiveApp>> {
        self.apps.get(name)
    }

    /// Every artifact with its kind, those that are live first.
    pub(crate) fn artifacts(&self) -> impl Iterator<Item = (Digest, Kind)> + '_ {
        let live =
            self.apps.values().flat_map(|app| app.traffic.iter().map(|(_, version)| version));
        let kept = self.apps.values().flat_map(|app| app.versions.iter());
        let functions = live.chain(kept).flat_map(|version| &version.functions);
        functions.map(|function| (function.program.digest(), function.program.kind()))
    }

    /// How many apps there are.
    pub(crate) fn len(&self) -> usize {
        self.apps.len()
    }
}

/// An app and its versions.
pub(crate) struct LiveApp {
    /// Its name.
    pub(crate) name: AppName,
    rev: Rev,
    /// The live versions with their cumulative shares; the last one ends at 100.
    traffic: Vec<(u8, Arc<LiveVersion>)>,
    /// Every version that is kept, by number.
    versions: Vec<Arc<LiveVersion>>,
}

impl LiveApp {
    /// The version that answers a request which drew this lot, 0 to 99. Normally there is one.
    pub(crate) fn choose(&self, lot: u8) -> Option<&Arc<LiveVersion>> {
        self.traffic.iter().find(|(upto, _)| lot < *upto).map(|(_, version)| version)
    }

    /// Whether traffic is split, so that a lot must be drawn.
    pub(crate) fn is_split(&self) -> bool {
        self.traffic.len() > 1
    }

    /// The version of this number, for a preview.
    pub(crate) fn version(&self, id: VersionId) -> Option<&Arc<LiveVersion>> {
        self.versions.iter().find(|version| version.id == id)
    }
}

/// A version and its functions.
pub(crate) struct LiveVersion {
    /// Its number.
    pub(crate) id: VersionId,
    /// Its number as `x-faas-version` carries it.
    pub(crate) header: HeaderValue,
    /// Its functions. A single-file deploy has one, on `/*`.
    pub(crate) functions: Vec<LiveFunction>,
}

impl LiveVersion {
    /// The function that answers a path inside the app.
    pub(crate) fn function(&self, _path: &str) -> Option<&LiveFunction> {
        self.functions.first()
    }
}

/// A function that can be called.
pub(crate) struct LiveFunction {
    /// Its name.
    pub(crate) name: FunctionName,
    /// What the engine runs.
    pub(crate) program: Arc<Program>,
}

/// Makes snapshots from records. What two snapshots share – a version never changes – is kept, so
/// loaded code and running calls carry over.
pub(crate) struct SnapshotBuilder {
    /// Where programs come from.
    pub(crate) engine: Arc<Engine>,
    /// What a call may use.
    pub(crate) limits: Arc<Limits>,
    /// The node's metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The apps' logs.
    pub(crate) logs: Arc<GuestLogs>,
    /// The newest revision that was seen of each app that is gone, so that a late word of its
    /// earlier life does not bring it back.
    pub(crate) buried: HashMap<AppName, Rev>,
}

impl SnapshotBuilder {
    /// The next snapshot after a change of one app; `None` when this one has it already.
    pub(super) fn apply(
        &mut self,
        current: &Snapshot,
        app: &AppName,
        record: Option<&AppRecord>,
        rev: Rev,
    ) -> Option<Snapshot> {
        let known = current.apps.get(app);
        let newest = known.map(|live| live.rev).max(self.buried.get(app).copied());
        if newest.is_some_and(|newest| newest >= rev) {
            return None;
        }
        let mut apps = current.apps.clone();
        match record {
            Some(record) => {
                self.buried.remove(app);
                apps.insert(app.clone(), self.live_app(app, record, rev, known));
            }
            None => {
                self.buried.insert(app.clone(), rev);
                apps.remove(app);
                if let Some(live) = known {
                    self.forget(live, &[]);
                }
                self.logs.remove(app);
            }
        }
        Some(Snapshot { apps })
    }

    /// The snapshot of exactly these apps.
    ///
    /// # Errors
    /// The first one of the records.
    pub(super) fn rebuild<E>(
        &mut self,
        current: &Snapshot,
        records: impl Iterator<Item = Result<(AppName, AppRecord, Rev), E>>,
    ) -> Result<Snapshot, E> {
        let apps = records.map(|record| {
            let (app, record, rev) = record?;
            let known = current.apps.get(&app);
            let live = match known.filter(|live| live.rev >= rev) {
                Some(live) => live.clone(),
                None => self.live_app(&app, &record, rev, known),
            };
            Ok((app, live))
        });
        Ok(Snapshot { apps: apps.collect::<Result<_, E>>()? })
    }

    fn live_app(
        &self,
        app: &AppName,
        record: &AppRecord,
        rev: Rev,
        known: Option<&Arc<LiveApp>>,
    ) -> Arc<LiveApp> {
        let versions: Vec<Arc<LiveVersion>> = record
            .versions
            .iter()
            .map(|version| match known.and_then(|live| live.version(version.id)) {
                Some(live) => live.clone(),
                None => Arc::new(self.live_version(app, version)),
            })
            .collect();
        if let Some(live) = known {
            self.forget(live, &versions);
        }
        let mut upto = 0_u8;
        let mut traffic = Vec::with_capacity(record.traffic.shares.len());
        for share in &record.traffic.shares {
            upto = upto.saturating_add(share.percent);
            if let Some(version) = versions.iter().find(|version| version.id == share.version) {
                traffic.push((upto, version.clone()));
            }
        }
        Arc::new(LiveApp { name: app.clone(), rev, traffic, versions })
    }

    fn live_version(&self, app: &AppName, version: &VersionRecord) -> LiveVersion {
        let functions = version.functions.iter().map(|function| {
            let origin = Origin { function: function.name.clone(), version: version.id };
            LiveFunction {
                name: function.name.clone(),
                program: self.engine.program(ProgramSpec {
                    digest: function.digest,
                    kind: function.kind,
                    limits: self.limits.clone(),
                    reuse: function.reuse,
                    app: app.clone(),
                    log: self.logs.app(app),
                    origin: Arc::new(origin),
                }),
            }
        });
        LiveVersion {
            id: version.id,
            header: HeaderValue::from_str(&version.id.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            functions: functions.collect(),
        }
    }

    /// Drops the series of versions that are no longer kept.
    fn forget(&self, before: &LiveApp, kept: &[Arc<LiveVersion>]) {
        for version in &before.versions {
            if kept.iter().all(|other| other.id != version.id) {
                for function in &version.functions {
                    self.metrics.forget_version(&before.name, &function.name, version.id);
                }
            }
        }
    }
}
