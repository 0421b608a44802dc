//! More work than a node can do, for a while: it goes on doing what it can, says no to the rest at
//! once, and is as before when that is over.
//!
//! What it can do is set by the number of places, not by the machine: calls that sleep.

use faas_tests::{
    Node, figure, full,
    load::{Load, Outcome},
};
use std::{
    thread,
    time::{Duration, Instant},
};

const PLACES: u32 = 8;
/// How long a call holds its place, in milliseconds.
const CALL_MS: u32 = 100;
/// What the places are good for, in calls a second.
const CAPACITY: u32 = PLACES * 1000 / CALL_MS;

/// Those that were served; every other one was refused as it should be.
#[track_caller]
fn served(outcomes: &[Outcome]) -> Vec<&Outcome> {
    for outcome in outcomes {
        match &outcome.status {
            Ok(200) => {}
            Ok(429 | 503) => {
                let after = outcome.headers.get("retry-after");
                let after = after.and_then(|after| after.to_str().ok()?.parse::<u64>().ok());
                assert!(after.is_some_and(|after| after > 0), "{outcome:?}");
            }
            _ => panic!("{outcome:?}"),
        }
    }
    outcomes.iter().filter(|outcome| outcome.status == Ok(200)).collect()
}

/// How long the slowest of them took.
fn slowest<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Duration {
    outcomes.map(|outcome| outcome.ended - outcome.started).max().unwrap_or_default()
}

#[test]
fn five_times_what_a_node_can_do() {
    let time = Duration::from_secs(full(4, 60) as u64);
    let node = Node::with_guests(&format!(
        "[ingress]\naccess_log = \"off\"\n[engine]\npool_size = {PLACES}\nqueue = 16\n"
    ));
    let floods = ["http02", "cgi01"].map(|app| format!("/{app}/sleep?ms={CALL_MS}"));
    let calm = Load::start(node.ingress(), 20, &["/http03/hello"]);
    let loads: Vec<Load> = floods
        .iter()
        .map(|target| Load::start(node.ingress(), 5 * CAPACITY / 2, &[target]))
        .collect();
    let since = Instant::now();
    // That it lasts is what this is about.
    thread::sleep(time);
    let outcomes: Vec<Vec<Outcome>> = loads.into_iter().map(Load::stop).collect();
    let took = since.elapsed();
    let recovery = Instant::now();
    // Nothing of it is left: everybody is served at once.
    for target in &floods {
        for _ in 0..5 {
            node.get(target).expect(200);
        }
    }
    let recovery = recovery.elapsed();
    node.get("/http03/hello").expect(200);
    let calm = calm.stop();
    let failed: Vec<_> = calm.iter().filter(|outcome| outcome.status != Ok(200)).collect();
    assert!(failed.is_empty(), "{failed:?} of {}", calm.len());
    assert!(!calm.is_empty());

    let all: usize = outcomes.iter().map(Vec::len).sum();
    let goodput: Vec<Vec<&Outcome>> = outcomes.iter().map(|outcomes| served(outcomes)).collect();
    let good: usize = goodput.iter().map(Vec::len).sum();
    let refused = outcomes.iter().flatten().filter(|outcome| outcome.status != Ok(200));
    figure(&format!(
        "{all} calls in {took:?}, {good} served ({:?}): {:.0} % of {CAPACITY} a second; the slowest \
         refusal in {:?}; {} others, the slowest in {:?}; ten calls after it in {recovery:?}",
        goodput.iter().map(Vec::len).collect::<Vec<_>>(),
        100.0 * good as f64 / took.as_secs_f64() / f64::from(CAPACITY),
        slowest(refused),
        calm.len(),
        slowest(calm.iter()),
    ));
    assert!(good < all, "it was no overload");
    // It never stopped, for neither of the two.
    for served in goodput {
        for part in 0..4 {
            let (from, to) = (since + time / 4 * part, since + time / 4 * (part + 1));
            let within = |outcome: &&&Outcome| (from..to).contains(&outcome.ended);
            assert!(served.iter().filter(within).count() > 0, "none in part {part}");
        }
    }
    node.idle();
}
