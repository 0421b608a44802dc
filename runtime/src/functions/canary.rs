//! Watches versions on trial: one that fails too often loses its share by itself.

use super::{Functions, snapshot::LiveApp};
use crate::clock;
use faas_api::{Aborted, AppName};
use std::{sync::Arc, time::Duration};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(250);
/// Answers before anything is concluded: one failure of three says nothing.
const ENOUGH: u64 = 20;

/// Aborts canaries until it is dropped.
pub(crate) async fn watch(functions: &Functions) {
    loop {
        tokio::time::sleep(EVERY).await;
        let snapshot = functions.snapshot().load_full();
        let on_trial: Vec<&Arc<LiveApp>> =
            snapshot.apps().filter(|app| app.canary.is_some()).collect();
        for aborted in look(&on_trial) {
            abort(functions, aborted).await;
        }
    }
}

/// The apps whose version on trial has failed too often.
fn look(on_trial: &[&Arc<LiveApp>]) -> Vec<(AppName, Aborted)> {
    let failed = on_trial.iter().filter_map(|app| {
        let canary = app.canary?;
        let (requests, failures) = app.version(canary.version)?.trial().counts();
        is_too_much(requests, failures, canary.abort_above_percent).then(|| {
            let (version, at) = (canary.version, clock::now());
            (app.name.clone(), Aborted { version, at, requests, failures })
        })
    });
    failed.collect()
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
