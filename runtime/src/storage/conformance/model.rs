//! Random operations: whatever the memory implementation answers, the embedded one answers too.

use super::{PATIENCE, key};
use crate::storage::{
    Change, DocKey, Expect, Registry, Rev, StorageError, embedded, memory::MemoryRegistry,
};
use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseResult},
};
use std::{path::Path, sync::Arc};
use tokio::{runtime, sync::mpsc::Receiver, task::JoinSet, time::timeout};

const KEYS: [&str; 5] = ["apps/a", "apps/a/v1", "apps/ab", "apps/b", "tokens/a"];
const PREFIXES: [&str; 6] = ["", "apps/", "apps/a", "apps/a/", "t", "zzz"];

#[derive(Debug, Clone)]
struct Write {
    key: &'static str,
    /// `None` removes.
    body: Option<Vec<u8>>,
    expect: Wish,
}

/// An expectation, relative to what is there when the step begins.
#[derive(Debug, Clone)]
enum Wish {
    Any,
    Absent,
    Current,
    Stale,
    Exactly(Rev),
}

#[derive(Debug, Clone)]
enum Step {
    /// Asked for in this order, without waiting for the answers in between.
    Writes(Vec<Write>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wish = prop_oneof![
        3 => Just(Wish::Any),
        2 => Just(Wish::Absent),
        4 => Just(Wish::Current),
        1 => Just(Wish::Stale),
        1 => (0..20_u64).prop_map(Wish::Exactly),
    ];
    let body = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..64));
    let write = (prop::sample::select(&KEYS[..]), body, wish)
        .prop_map(|(key, body, expect)| Write { key, body, expect });
    let step = prop_oneof![
        8 => prop::collection::vec(write, 1..12).prop_map(Step::Writes),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..12)
}

impl Wish {
    async fn resolve(&self, registry: &dyn Registry, key: &DocKey) -> Expect {
        let found = registry.get(key).await.unwrap().map(|doc| doc.rev);
        match self {
            Self::Any => Expect::Any,
            Self::Absent => Expect::Absent,
            Self::Current => found.map_or(Expect::Absent, Expect::Rev),
            Self::Stale => Expect::Rev(found.unwrap_or(1) - 1),
            Self::Exactly(rev) => Expect::Rev(*rev),
        }
    }
}

type Resolved = (DocKey, Option<Bytes>, Expect);

async fn write(
    registry: &dyn Registry,
    (key, body, expect): Resolved,
) -> Result<Rev, StorageError> {
    match body {
        Some(body) => registry.put(&key, body, expect).await,
        None => registry.delete(&key, expect).await,
    }
}

async fn open(dir: &Path) -> Arc<dyn Registry> {
    Arc::new(embedded::open(dir).await.unwrap().0)
}

async fn compare(steps: Vec<Step>) -> TestCaseResult {
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryRegistry::default();
    let mut subject = open(dir.path()).await;
    let mut told = (memory.watch("", 0).await.unwrap(), subject.watch("", 0).await.unwrap());
    for step in steps {
        match step {
            Step::Writes(writes) => {
                let mut resolved = Vec::new();
                for Write { key: k, body, expect } in writes {
                    let expect = expect.resolve(&memory, &key(k)).await;
                    resolved.push((key(k), body.map(Bytes::from), expect));
                }
                compare_writes(&memory, &subject, resolved).await?;
            }
            Step::Reopen => {
                drop(subject);
                compare_told(&mut told).await?;
                subject = open(dir.path()).await;
                let (_, head) = memory.list("").await.unwrap();
                told.1 = subject.watch("", head).await.unwrap();
            }
        }
        for prefix in PREFIXES {
            prop_assert_eq!(subject.list(prefix).await, memory.list(prefix).await);
        }
        for k in KEYS {
            prop_assert_eq!(subject.get(&key(k)).await, memory.get(&key(k)).await);
        }
    }
    drop((subject, memory));
    compare_told(&mut told).await?;
    prop_assert_eq!(told.0.recv().await, None);
    Ok(())
}

async fn compare_writes(
    memory: &MemoryRegistry,
    subject: &Arc<dyn Registry>,
    writes: Vec<Resolved>,
) -> TestCaseResult {
    let mut asked = JoinSet::new();
    let mut expected = Vec::new();
    // On one thread tasks start in the order in which they were spawned.
    for (index, resolved) in writes.into_iter().enumerate() {
        expected.push((index, write(memory, resolved.clone()).await));
        let subject = Arc::clone(subject);
        asked.spawn(async move { (index, write(&*subject, resolved).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_unstable_by_key(|(index, _)| *index);
    prop_assert_eq!(answers, expected);
    Ok(())
}

/// Whatever the other implementation told until it was dropped, the memory one has told too.
async fn compare_told(told: &mut (Receiver<Change>, Receiver<Change>)) -> TestCaseResult {
    while let Some(change) = told.1.recv().await {
        prop_assert_eq!(timeout(PATIENCE, told.0.recv()).await, Ok(Some(change)));
    }
    Ok(())
}

#[test]
fn random_operations_have_the_same_results() {
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    proptest!(config, |(steps in steps())| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(steps))?;
    });
}
