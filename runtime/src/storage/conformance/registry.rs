//! K: documents, revisions and preconditions.

use super::{Subject, doc, key};
use crate::storage::{DocKey, Expect, StorageError, registry::MAX_DOC_BYTES};
use bytes::Bytes;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(super) async fn k1_a_write_happens_only_as_expected(subject: Subject) {
    let registry = &subject.registry;
    let k = key("apps/a");
    let put = |body: &'static str, expect| registry.put(&k, body.into(), expect);
    let conflict = Err(StorageError::Conflict);

    assert_eq!(put("no", Expect::Rev(0)).await, conflict);
    assert_eq!(put("no", Expect::Rev(1)).await, conflict);
    assert_eq!(registry.delete(&k, Expect::Absent).await, conflict);
    assert_eq!(registry.delete(&k, Expect::Rev(0)).await, conflict);
    assert_eq!(registry.get(&k).await, Ok(None));
    assert_eq!(registry.delete(&k, Expect::Any).await, Ok(0), "nothing happened yet");

    let first = put("1", Expect::Absent).await.unwrap();
    assert_eq!(put("no", Expect::Absent).await, conflict);
    assert_eq!(put("no", Expect::Rev(first + 1)).await, conflict);
    assert_eq!(registry.delete(&k, Expect::Absent).await, conflict);
    assert_eq!(registry.delete(&k, Expect::Rev(first + 1)).await, conflict);
    assert_eq!(registry.get(&k).await, Ok(Some(doc("1", first))));

    let second = put("2", Expect::Rev(first)).await.unwrap();
    assert_eq!(put("no", Expect::Rev(first)).await, conflict);
    let third = put("3", Expect::Any).await.unwrap();
    assert_eq!(registry.get(&k).await, Ok(Some(doc("3", third))));
    assert_eq!(registry.delete(&k, Expect::Rev(second)).await, conflict);

    let gone = registry.delete(&k, Expect::Rev(third)).await.unwrap();
    assert_eq!(registry.get(&k).await, Ok(None));
    assert_eq!(put("no", Expect::Rev(third)).await, conflict);
    assert_eq!(put("no", Expect::Rev(gone)).await, conflict);
    assert_eq!(registry.delete(&k, Expect::Any).await, Ok(gone), "nothing changed");
    put("4", Expect::Any).await.unwrap();
    registry.delete(&k, Expect::Any).await.unwrap();
    assert_eq!(registry.get(&k).await, Ok(None));
}

pub(super) async fn k2_revisions_grow_and_are_never_used_again(subject: Subject) {
    let registry = &subject.registry;
    let (a, b) = (key("a"), key("b"));
    let mut last = 0;
    for _ in 0..3 {
        let revs = [
            registry.put(&a, "same".into(), Expect::Any).await.unwrap(),
            registry.put(&a, "same".into(), Expect::Any).await.unwrap(),
            registry.put(&b, "same".into(), Expect::Any).await.unwrap(),
            registry.delete(&a, Expect::Any).await.unwrap(),
            registry.delete(&b, Expect::Any).await.unwrap(),
        ];
        for rev in revs {
            assert!(rev > last, "{rev} after {last}");
            last = rev;
        }
        assert_eq!(registry.list("").await, Ok((vec![], last)));
    }
}

pub(super) async fn k3_a_list_is_in_byte_order_and_exact(subject: Subject) {
    let registry = &subject.registry;
    assert_eq!(registry.list("").await, Ok((vec![], 0)));
    let mut rev = 0;
    for k in ["b", "apps/b", "apps/a-b", "apps/a.b", "apps/a", "apps/a/v2", "apps/a/v10", "app"] {
        rev = registry.put(&key(k), k.into(), Expect::Absent).await.unwrap();
    }
    for (prefix, expected) in [
        ("apps/a", &["apps/a", "apps/a-b", "apps/a.b", "apps/a/v10", "apps/a/v2"][..]),
        ("apps/a/", &["apps/a/v10", "apps/a/v2"]),
        ("apps/a/v2", &["apps/a/v2"]),
        ("apps/a/v20", &[]),
        ("c", &[]),
        ("%", &[]),
        ("b", &["b"]),
    ] {
        let (docs, at) = registry.list(prefix).await.unwrap();
        let keys: Vec<_> = docs.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!((keys.as_slice(), at), (expected, rev), "{prefix}");
        assert!(docs.iter().all(|(key, doc)| doc.body == key.as_str()));
    }
    assert_eq!(registry.list("").await.unwrap().0.len(), 8);
}

pub(super) async fn k4_a_document_has_a_largest_size(subject: Subject) {
    let registry = &subject.registry;
    for size in [0, 1, MAX_DOC_BYTES] {
        let body = Bytes::from(vec![0xfe; size]);
        let rev = registry.put(&key("a"), body.clone(), Expect::Any).await.unwrap();
        let found = registry.get(&key("a")).await.unwrap().unwrap();
        assert_eq!((found.body, found.rev), (body, rev));
    }
    let before = registry.list("").await.unwrap();
    let body = Bytes::from(vec![0; MAX_DOC_BYTES + 1]);
    let error = registry.put(&key("a"), body, Expect::Any).await.unwrap_err();
    assert!(matches!(&error, StorageError::Failed(text) if text.contains("262145")), "{error}");
    assert_eq!(registry.list("").await.unwrap(), before);
}

pub(super) async fn k5_concurrent_increments_are_all_counted(subject: Subject) {
    const TASKS: u64 = 64;
    const EACH: u64 = 4;
    let k = key("counter");
    subject.registry.put(&k, "0".into(), Expect::Absent).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (registry, k) = (Arc::clone(&subject.registry), k.clone());
        tasks.spawn(async move {
            let mut left = EACH;
            while left > 0 {
                let found = registry.get(&k).await.unwrap().unwrap();
                let next = number(&found.body) + 1;
                match registry.put(&k, next.to_string().into(), Expect::Rev(found.rev)).await {
                    Ok(_) => left -= 1,
                    Err(StorageError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    let found = subject.registry.get(&k).await.unwrap().unwrap();
    assert_eq!((number(&found.body), found.rev), (TASKS * EACH, TASKS * EACH + 1));
}

pub(super) async fn k6_of_concurrent_creations_one_wins(subject: Subject) {
    let k = key("apps/a");
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let (registry, k) = (Arc::clone(&subject.registry), k.clone());
        tasks.spawn(async move {
            let result = registry.put(&k, task.to_string().into(), Expect::Absent).await;
            result.map(|rev| (task, rev))
        });
    }
    let mut winners = Vec::new();
    for result in tasks.join_all().await {
        match result {
            Ok(winner) => winners.push(winner),
            Err(error) => assert_eq!(error, StorageError::Conflict),
        }
    }
    let [(task, rev)] = winners[..] else { panic!("{winners:?}") };
    let found = subject.registry.get(&k).await.unwrap().unwrap();
    assert_eq!((number(&found.body), found.rev), (task, rev));
}

pub(super) async fn k7_a_write_that_returned_is_read(subject: Subject) {
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let registry = Arc::clone(&subject.registry);
        tasks.spawn(async move {
            let k = DocKey::new(&["k", &task.to_string()]);
            for round in 0..8 {
                let rev = registry.put(&k, round.to_string().into(), Expect::Any).await.unwrap();
                let found = registry.get(&k).await.unwrap().unwrap();
                assert_eq!((number(&found.body), found.rev), (round, rev));
                let (docs, at) = registry.list(k.as_str()).await.unwrap();
                assert!(at >= rev && docs.iter().any(|(key, doc)| *key == k && doc.rev == rev));
            }
            registry.delete(&k, Expect::Any).await.unwrap();
            assert_eq!(registry.get(&k).await, Ok(None));
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

pub(super) async fn k8_a_list_and_its_revision_belong_together(subject: Subject) {
    let registry = Arc::clone(&subject.registry);
    let writer = tokio::spawn(async move {
        for _ in 0..300 {
            registry.put(&key("only"), "".into(), Expect::Any).await.unwrap();
        }
    });
    let mut seen = 0;
    while seen < 300 {
        let (docs, at) = subject.registry.list("").await.unwrap();
        // Every revision is one of this document, so the latest is that of its latest state.
        assert_eq!(docs.last().map_or(0, |(_, doc)| doc.rev), at);
        seen = at;
    }
    writer.await.unwrap();
}

fn number(body: &[u8]) -> u64 {
    str::from_utf8(body).unwrap().parse().unwrap()
}
