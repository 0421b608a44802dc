//! Watches versions on trial: one that fails too often loses its share by itself.

use super::{Functions, snapshot::LiveApp};
use crate::clock;
use faas_api::{Aborted, AppName, VersionId};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(250);
/// Answers before anything is concluded: one failure of three says nothing.
const ENOUGH: u64 = 20;

/// What had been counted when a trial began.
type Baselines = HashMap<(AppName, VersionId), (u64, u64)>;

/// Aborts canaries until it is dropped.
pub(crate) async fn watch(functions: &Functions) {
    let mut baselines = Baselines::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let snapshot = functions.snapshot().load_full();
        let on_trial: Vec<&Arc<LiveApp>> =
            snapshot.apps().filter(|app| app.canary.is_some()).collect();
        for aborted in look(&on_trial, &mut baselines) {
            abort(functions, aborted).await;
        }
    }
}

/// The apps whose version on trial has failed too often.
fn look(on_trial: &[&Arc<LiveApp>], baselines: &mut Baselines) -> Vec<(AppName, Aborted)> {
    let mut failed = Vec::new();
    let mut seen = Baselines::new();
    for app in on_trial {
        let Some(canary) = app.canary else {
            continue;
        };
        let Some(version) = app.version(canary.version) else {
            continue;
        };
        let (answers, failures) = version.trial().counts();
        let key = (app.name.clone(), canary.version);
        let (answers_then, failures_then) =
            baselines.get(&key).copied().unwrap_or((answers, failures));
        seen.insert(key, (answers_then, failures_then));
        let (requests, failures) = (answers - answers_then, failures - failures_then);
        if is_too_much(requests, failures, canary.abort_above_percent) {
            let (version, at) = (canary.version, clock::now());
            failed.push((app.name.clone(), Aborted { version, at, requests, failures }));
        }
    }
    // A trial that ended begins anew when the same version is tried again.
    *baselines = seen;
    failed
}

fn is_too_much(requests: u64, failures: u64, percent: u8) -> bool {
    requests >= ENOUGH && failures * 100 > requests * u64::from(percent)
}

async fn abort(functions: &Functions, (app, aborted): (AppName, Aborted)) {
    let Aborted { version, requests, failures, .. } = aborted;
    match functions.abort(&app, aborted).await {
        Ok(true) => {
            tracing::warn!(%app, %version, requests, failures, "the canary failed and was aborted");
        }
        Ok(false) => {}
        Err(error) => tracing::error!(%app, %version, %error, "a canary could not be aborted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_answers_say_nothing() {
        assert!(!is_too_much(19, 19, 2));
        assert!(is_too_much(20, 1, 2));
        assert!(!is_too_much(50, 1, 2));
        assert!(is_too_much(50, 2, 2));
        assert!(!is_too_much(1000, 1000, 100));
    }
}
