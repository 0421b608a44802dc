//! What is deployed, as a request sees it: immutable, swapped whole when something changes.

use super::{
    environments::{Environments, Given},
    guard::Guard,
    record::{AppRecord, VersionRecord},
    routing::{Matched, Routes, Unmatched},
};
use crate::{
    engine::{Engine, Family, Limits, Maxima, Program, ProgramSpec},
    storage::Rev,
    telemetry::{
        guest_logs::{GuestLogs, Origin},
        metrics::Metrics,
    },
};
use faas_api::{
    AppName, Canary, Digest, Domain, FunctionName, Kind, Settings, Sticky, VersionId,
    manifest::LimitWishes,
};
use http::{HeaderName, HeaderValue};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Every app that can be routed to.
#[derive(Default)]
pub(crate) struct Snapshot {
    apps: HashMap<AppName, Arc<LiveApp>>,
    /// Apps by the domains that their live versions name.
    domains: HashMap<Domain, Arc<LiveApp>>,
}

impl Snapshot {
    /// The app of this name. Takes text from a request: what is no name is simply not there.
    pub(crate) fn app(&self, name: &str) -> Option<&Arc<LiveApp>> {
        self.apps.get(name)
    }

    /// The app that answers on this domain, which is in lower case and has no port.
    pub(crate) fn domain(&self, domain: &str) -> Option<&Arc<LiveApp>> {
        self.domains.get(domain)
    }

    /// Every domain that a live version names.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.keys()
    }

    /// Every app.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &Arc<LiveApp>> {
        self.apps.values()
    }

    /// Puts an app in its place, with its domains.
    fn put(&mut self, app: Arc<LiveApp>) {
        self.take(&app.name);
        let named = app.traffic.iter().flat_map(|(_, version)| version.domains.iter());
        for domain in named {
            self.domains.insert(domain.clone(), app.clone());
        }
        self.apps.insert(app.name.clone(), app);
    }

    /// Takes an app away, with its domains.
    fn take(&mut self, app: &AppName) {
        if self.apps.remove(app).is_some() && !self.domains.is_empty() {
            self.domains.retain(|_, owner| owner.name != *app);
        }
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
#[derive(Clone)]
pub(crate) struct LiveApp {
    /// Its name.
    pub(crate) name: AppName,
    rev: Rev,
    /// The live versions with their cumulative shares; the last one ends at 100.
    traffic: Vec<(u8, Arc<LiveVersion>)>,
    /// Every version that is kept, by number.
    versions: Vec<Arc<LiveVersion>>,
    /// How clients stay with a version while traffic is split.
    pub(crate) sticky: Option<StickyBy>,
    /// The version on trial.
    pub(crate) canary: Option<Canary>,
}

/// How clients stay with a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StickyBy {
    /// By the cookie that the node sets.
    Cookie,
    /// By this header of theirs.
    Header(HeaderName),
}

impl StickyBy {
    fn new(sticky: &Sticky) -> Option<Self> {
        match sticky {
            Sticky::Cookie => Some(Self::Cookie),
            Sticky::Header { name } => name.parse().ok().map(Self::Header),
        }
    }
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
#[derive(Clone)]
pub(crate) struct LiveVersion {
    /// Its number.
    pub(crate) id: VersionId,
    /// Its number as `x-faas-version` carries it.
    pub(crate) header: HeaderValue,
    /// Its functions. A single-file deploy has one, on `/*`.
    pub(crate) functions: Vec<LiveFunction>,
    routes: Arc<Routes>,
    domains: Box<[Domain]>,
    /// Counted while it is on trial.
    trial: Arc<Trial>,
}

/// What became of the requests of a version on trial.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    answers: AtomicU64,
    failures: AtomicU64,
}

impl Trial {
    /// Counts an answer with this status.
    pub(crate) fn count(&self, status: u16) {
        self.answers.fetch_add(1, Relaxed);
        if status >= 500 {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// The trial begins.
    fn begin(&self) {
        self.answers.store(0, Relaxed);
        self.failures.store(0, Relaxed);
    }

    /// Answers and failures since the trial began, or the node started.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.answers.load(Relaxed), self.failures.load(Relaxed))
    }
}

impl LiveVersion {
    /// The function that answers, and how much of the path inside the app it does not see. `host`
    /// is in lower case and has no port.
    pub(crate) fn function(
        &self,
        host: &str,
        method: &str,
        path: &str,
    ) -> Result<(&LiveFunction, usize), Unmatched> {
        let Matched { function, strip } = self.routes.find(host, method, path)?;
        let function = self.functions.get(function).ok_or(Unmatched::Path)?;
        Ok((function, strip))
    }

    /// What became of its requests while it was on trial.
    pub(crate) fn trial(&self) -> &Trial {
        &self.trial
    }
}

/// A function that can be called.
#[derive(Clone)]
pub(crate) struct LiveFunction {
    /// Its name.
    pub(crate) name: FunctionName,
    /// What the engine runs.
    pub(crate) program: Arc<Program>,
    /// What stands before it; hardly any function has one.
    pub(crate) guard: Option<Arc<Guard>>,
}

/// Makes snapshots from records. What two snapshots share – a version never changes – is kept, so
/// loaded code and running calls carry over.
pub(crate) struct SnapshotBuilder {
    /// Where programs come from.
    pub(crate) engine: Arc<Engine>,
    /// What a call may use when its function says nothing.
    pub(crate) limits: Arc<Limits>,
    /// What a function may ask for at most.
    pub(crate) maxima: Maxima,
    /// The node's metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The apps' logs.
    pub(crate) logs: Arc<GuestLogs>,
    /// The newest revision that was seen of each app that is gone, so that a late word of its
    /// earlier life does not bring it back.
    pub(crate) buried: HashMap<AppName, Rev>,
    /// What the apps were given besides their versions.
    pub(crate) environments: Environments,
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
        let mut next = Snapshot { apps: current.apps.clone(), domains: current.domains.clone() };
        match record {
            Some(record) => {
                self.buried.remove(app);
                next.put(self.live_app(app, record, rev, known));
            }
            None => {
                self.buried.insert(app.clone(), rev);
                next.take(app);
                if let Some(live) = known {
                    self.forget(live, &[]);
                }
                self.logs.remove(app);
            }
        }
        Some(next)
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
        let mut next = Snapshot::default();
        for record in records {
            let (app, record, rev) = record?;
            let known = current.apps.get(&app);
            next.put(match known.filter(|live| live.rev >= rev) {
                Some(live) => live.clone(),
                None => self.live_app(&app, &record, rev, known),
            });
        }
        Ok(next)
    }

    /// The next snapshot after an app was given something else; `None` when no function sees it.
    /// Functions that do are other programs from then on, with instances of their own.
    pub(super) fn give(
        &mut self,
        current: &Snapshot,
        app: &AppName,
        given: Option<Given>,
        rev: Rev,
    ) -> Option<Snapshot> {
        if !self.environments.set(app, rev, given) {
            return None;
        }
        let known = current.apps.get(app)?;
        let renewed = |version: &Arc<LiveVersion>| self.renewed(app, version);
        let changed: Vec<Option<Arc<LiveVersion>>> = known.versions.iter().map(renewed).collect();
        if changed.iter().all(Option::is_none) {
            return None;
        }
        let pairs = changed.into_iter().zip(&known.versions);
        let versions: Vec<Arc<LiveVersion>> =
            pairs.map(|(next, version)| next.unwrap_or_else(|| version.clone())).collect();
        let in_place = |version: &Arc<LiveVersion>| {
            let next = versions.iter().find(|next| next.id == version.id);
            next.unwrap_or(version).clone()
        };
        let traffic =
            known.traffic.iter().map(|(upto, version)| (*upto, in_place(version))).collect();
        let mut next = Snapshot { apps: current.apps.clone(), domains: current.domains.clone() };
        next.put(Arc::new(LiveApp { traffic, versions, ..LiveApp::clone(known) }));
        Some(next)
    }

    /// A version whose functions see something else than before, if any does.
    fn renewed(&self, app: &AppName, version: &LiveVersion) -> Option<Arc<LiveVersion>> {
        let mut changed = false;
        let functions = version.functions.iter().map(|function| {
            let environment = self.environments.renewed(app, function.program.environment());
            let Some(environment) = environment else {
                return function.clone();
            };
            changed = true;
            let program = self.engine.reprogram(&function.program, environment);
            LiveFunction { program, ..function.clone() }
        });
        let functions: Vec<LiveFunction> = functions.collect();
        if !changed {
            return None;
        }
        if let Some(first) = functions.first() {
            let family = first.program.family();
            family.settle(functions.iter().map(|function| &function.program));
        }
        Some(Arc::new(LiveVersion { functions, ..version.clone() }))
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
        let sticky = record.traffic.sticky.as_ref().and_then(StickyBy::new);
        let canary = record.traffic.canary;
        let of = |canary: Canary| canary.version;
        let on_trial = versions.iter().find(|version| canary.map(of) == Some(version.id));
        if let Some(version) = on_trial
            && known.and_then(|live| live.canary).map(of) != Some(version.id)
        {
            version.trial.begin();
        }
        Arc::new(LiveApp { name: app.clone(), rev, traffic, versions, sticky, canary })
    }

    pub(super) fn live_version(&self, app: &AppName, version: &VersionRecord) -> LiveVersion {
        let routes = Routes::new(version.functions.iter().map(|function| &function.settings));
        let routes = Arc::new(routes);
        let family = Family::new(&self.engine, routes.clone());
        let functions = version.functions.iter().map(|function| {
            let origin = Origin { function: function.name.clone(), version: version.id };
            LiveFunction {
                name: function.name.clone(),
                program: self.engine.program(ProgramSpec {
                    digest: function.digest,
                    kind: function.kind,
                    limits: self.limits_of(&function.settings),
                    environment: self.environments.of(app, &function.settings),
                    reuse: function.reuse,
                    grants: function.settings.grants.outbound.as_slice().into(),
                    family: family.clone(),
                    app: app.clone(),
                    log: self.logs.app(app),
                    origin: Arc::new(origin),
                }),
                guard: Guard::of(app, &function.name, &function.settings),
            }
        });
        let functions: Vec<LiveFunction> = functions.collect();
        family.settle(functions.iter().map(|function| &function.program));
        LiveVersion {
            id: version.id,
            header: HeaderValue::from_str(&version.id.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            functions,
            routes,
            domains: version.domains.clone().into(),
            trial: Arc::default(),
        }
    }

    /// The node's limits, but for what the function wants otherwise.
    fn limits_of(&self, settings: &Settings) -> Arc<Limits> {
        match settings.limits == LimitWishes::default() {
            true => self.limits.clone(),
            false => Arc::new(self.limits.with(&settings.limits, &self.maxima)),
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
