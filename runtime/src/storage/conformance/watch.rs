//! W: what watchers are told.

use super::{PATIENCE, Subject, doc, key, next};
use crate::storage::{
    Change, Doc, DocKey, Expect, Registry, Rev, StorageError,
    feed::{CHANNEL_CHANGES, LOG_CHANGES},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{task::JoinSet, time::timeout};

/// What a watcher makes of the changes, as every user of the trait does it.
#[derive(Default)]
struct View {
    docs: BTreeMap<DocKey, Doc>,
    rev: Rev,
    resyncs: usize,
}

impl View {
    async fn list(&mut self, registry: &dyn Registry) {
        let (docs, rev) = registry.list("").await.unwrap();
        self.docs = docs.into_iter().collect();
        self.rev = rev;
    }

    async fn take(&mut self, change: Change, registry: &dyn Registry) {
        match change {
            Change::Put(_, Doc { rev, .. }) | Change::Deleted(_, rev) if rev <= self.rev => {}
            Change::Put(key, doc) => {
                self.rev = doc.rev;
                self.docs.insert(key, doc);
            }
            Change::Deleted(key, rev) => {
                self.rev = rev;
                self.docs.remove(&key);
            }
            Change::Resync => {
                self.resyncs += 1;
                self.list(registry).await;
            }
        }
    }
}

/// Writes `rounds` times from each of 16 tasks: puts and removals of a few documents.
async fn churn(registry: &Arc<dyn Registry>, rounds: u64) {
    let mut tasks = JoinSet::new();
    for task in 0..16_u64 {
        let registry = Arc::clone(registry);
        tasks.spawn(async move {
            for round in 0..rounds {
                let k = DocKey::new(&["k", &((task + round) % 7).to_string()]);
                let written = match (task + round) % 5 {
                    0 => registry.delete(&k, Expect::Any).await,
                    _ => registry.put(&k, format!("{task}-{round}").into(), Expect::Any).await,
                };
                written.unwrap();
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

pub(super) async fn w1_a_watcher_sees_every_later_state(subject: Subject) {
    let registry = &subject.registry;
    churn(registry, 2).await;
    let mut view = View::default();
    view.list(&**registry).await;
    let mut changes = registry.watch("", view.rev).await.unwrap();
    let writers = tokio::spawn({
        let registry = Arc::clone(registry);
        async move {
            churn(&registry, 20).await;
            registry.put(&key("end"), "".into(), Expect::Any).await.unwrap()
        }
    });
    while !view.docs.contains_key(&key("end")) {
        let change = next(&mut changes).await;
        view.take(change, &**registry).await;
    }
    let last = writers.await.unwrap();
    let (docs, rev) = registry.list("").await.unwrap();
    assert_eq!((view.docs, view.rev), (docs.into_iter().collect(), rev));
    assert_eq!(rev, last);
}

pub(super) async fn w2_changes_come_in_order_and_below_the_prefix(subject: Subject) {
    let registry = &subject.registry;
    let (a, ab, b) = (key("apps/a"), key("apps/ab"), key("apps/b"));
    let one = registry.put(&a, "1".into(), Expect::Any).await.unwrap();
    registry.put(&b, "1".into(), Expect::Any).await.unwrap();
    let mut all = registry.watch("apps/a", 0).await.unwrap();
    let mut later = registry.watch("apps/a", one).await.unwrap();
    let two = registry.put(&a, "2".into(), Expect::Any).await.unwrap();
    registry.put(&b, "2".into(), Expect::Any).await.unwrap();
    let three = registry.put(&ab, "3".into(), Expect::Any).await.unwrap();
    let four = registry.delete(&a, Expect::Any).await.unwrap();

    assert_eq!(next(&mut all).await, Change::Put(a.clone(), doc("1", one)));
    for changes in [&mut all, &mut later] {
        assert_eq!(next(changes).await, Change::Put(a.clone(), doc("2", two)));
        assert_eq!(next(changes).await, Change::Put(ab.clone(), doc("3", three)));
        assert_eq!(next(changes).await, Change::Deleted(a.clone(), four));
    }
    drop(all);
    registry.put(&a, "5".into(), Expect::Any).await.unwrap();
    assert!(matches!(next(&mut later).await, Change::Put(k, _) if k == a));
}

pub(super) async fn w3_what_did_not_happen_is_not_told(subject: Subject) {
    let registry = &subject.registry;
    let k = key("a");
    let mut changes = registry.watch("", 0).await.unwrap();
    let conflict = Err(StorageError::Conflict);
    assert_eq!(registry.put(&k, "no".into(), Expect::Rev(1)).await, conflict);
    assert_eq!(registry.delete(&k, Expect::Rev(1)).await, conflict);
    registry.delete(&k, Expect::Any).await.unwrap();
    let rev = registry.put(&k, "yes".into(), Expect::Any).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Put(k, doc("yes", rev)));
    assert!(changes.is_empty());
}

pub(super) async fn w4_a_slow_watcher_lists_again_and_misses_nothing(subject: Subject) {
    let registry = &subject.registry;
    let mut view = View::default();
    let mut changes = registry.watch("", 0).await.unwrap();
    // More than the channel and the log hold together, while nobody listens.
    churn(registry, ((2 * LOG_CHANGES + CHANNEL_CHANGES) / 16) as u64).await;
    let end = registry.put(&key("end"), "".into(), Expect::Any).await.unwrap();
    while view.rev < end {
        let change = next(&mut changes).await;
        view.take(change, &**registry).await;
    }
    assert!(view.resyncs > 0, "the log is longer than it may be");
    let after = registry.put(&key("after"), "".into(), Expect::Any).await.unwrap();
    while view.rev < after {
        let change = next(&mut changes).await;
        view.take(change, &**registry).await;
    }
    let (docs, rev) = registry.list("").await.unwrap();
    assert_eq!((view.docs, view.rev), (docs.into_iter().collect(), rev));
}

pub(super) async fn w5_an_unknown_revision_begins_with_a_list(subject: Subject) {
    let registry = &subject.registry;
    let k = key("a");
    registry.put(&k, "1".into(), Expect::Any).await.unwrap();
    let mut changes = registry.watch("", 1000).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Resync);
    let rev = registry.put(&k, "2".into(), Expect::Any).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Put(k, doc("2", rev)));
}

pub(super) async fn w6_what_is_told_can_be_read(subject: Subject) {
    let registry = &subject.registry;
    let mut changes = registry.watch("", 0).await.unwrap();
    let writers = tokio::spawn({
        let registry = Arc::clone(registry);
        async move {
            churn(&registry, 8).await;
            registry.put(&key("end"), "".into(), Expect::Any).await.unwrap();
        }
    });
    loop {
        let (told, rev) = match next(&mut changes).await {
            Change::Put(key, doc) => (key, doc.rev),
            Change::Deleted(key, rev) => (key, rev),
            // It does not happen with so few changes.
            Change::Resync => panic!("a watcher that listens has to list again"),
        };
        let (_, at) = registry.list("none").await.unwrap();
        assert!(at >= rev, "told of {rev} while {at} was the latest");
        let found = registry.get(&told).await.unwrap();
        assert!(found.is_none_or(|doc| doc.rev >= rev), "told of {rev} of `{told}`");
        if told == key("end") {
            break;
        }
    }
    writers.await.unwrap();
}

pub(super) async fn w7_a_watch_ends_with_the_registry(subject: Subject) {
    let Subject { registry, blobs, usage, journal, _dir } = subject;
    // They may be other faces of it.
    drop((blobs, usage, journal));
    let mut changes = registry.watch("", 0).await.unwrap();
    let rev = registry.put(&key("a"), "1".into(), Expect::Any).await.unwrap();
    drop(registry);
    assert_eq!(next(&mut changes).await, Change::Put(key("a"), doc("1", rev)));
    assert_eq!(timeout(PATIENCE, changes.recv()).await, Ok(None));
}
