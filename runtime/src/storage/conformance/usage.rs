//! U: hourly rows of usage, and their sums.

use super::Subject;
use crate::storage::{
    UsageKey, UsageQuery, Used,
    usage::{Hour, SumKey},
};
use faas_api::{UsageBy, UsageGroup, VersionId};
use std::sync::Arc;
use tokio::task::JoinSet;

fn key(hour: Hour, app: &str, function: &str, version: u32) -> UsageKey {
    let (app, function) = (app.parse().unwrap(), function.parse().unwrap());
    UsageKey { hour, app, function, version: VersionId::new(version) }
}

fn requests(requests: u64) -> Used {
    Used { requests, ..Used::default() }
}

/// Every number is another one.
fn used(first: u64) -> Used {
    Used {
        requests: first,
        failures: first + 1,
        cpu_ns: first + 2,
        memory_mib_ns: first + 3,
        bytes_in: first + 4,
        bytes_out: first + 5,
        outbound: first + 6,
    }
}

fn query(by: UsageBy, group: UsageGroup) -> UsageQuery {
    UsageQuery { hours: Hour::MIN..Hour::MAX, app: None, by, group, most: 1000 }
}

async fn sums(subject: &Subject, query: UsageQuery) -> Vec<(SumKey, Used)> {
    subject.usage.sum(query).await.unwrap().unwrap()
}

/// Sums as text: `hour app function version requests`, without what is not divided by.
async fn told(subject: &Subject, query: UsageQuery) -> Vec<String> {
    let told = |((hour, app, function, version), used): (SumKey, Used)| {
        let parts = [
            hour.map(|hour| hour.to_string()),
            Some(app.to_string()),
            function.map(|function| function.to_string()),
            version.map(|version| version.to_string()),
            Some(used.requests.to_string()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    sums(subject, query).await.into_iter().map(told).collect()
}

/// Three apps, one of which has two functions, in four hours of two days.
async fn fill(subject: &Subject) {
    let rows = [
        (key(47, "a", "main", 1), 1),
        (key(48, "a", "main", 1), 2),
        (key(48, "a", "main", 2), 4),
        (key(48, "a", "other", 10), 8),
        (key(48, "b", "main", 9), 16),
        (key(71, "b", "main", 10), 32),
        (key(72, "a-b", "main", 1), 64),
    ];
    let rows = rows.into_iter().map(|(key, number)| (key, requests(number))).collect();
    subject.usage.add(rows).await.unwrap();
}

pub(super) async fn u1_what_is_added_is_summed(subject: Subject) {
    let everything = || query(UsageBy::Hour, UsageGroup::Version);
    assert_eq!(sums(&subject, everything()).await, []);
    subject.usage.add(vec![]).await.unwrap();
    let row = || key(5, "a", "main", 1);
    // The same row twice in one call, too.
    subject.usage.add(vec![(row(), used(10)), (row(), used(100))]).await.unwrap();
    subject.usage.add(vec![(row(), used(1000))]).await.unwrap();
    let mut sum = used(10);
    sum.add(&used(100));
    sum.add(&used(1000));
    let found = sums(&subject, everything()).await;
    let UsageKey { hour, app, function, version } = row();
    assert_eq!(found, [((Some(hour), app, Some(function), Some(version)), sum)]);
}

pub(super) async fn u2_sums_divide_as_asked(subject: Subject) {
    fill(&subject).await;
    for (by, group, expected) in [
        (UsageBy::Total, UsageGroup::App, &["a 15", "a-b 64", "b 48"][..]),
        (
            UsageBy::Total,
            UsageGroup::Function,
            &["a main 7", "a other 8", "a-b main 64", "b main 48"],
        ),
        (
            UsageBy::Total,
            UsageGroup::Version,
            &[
                "a main v1 3",
                "a main v2 4",
                "a other v10 8",
                "a-b main v1 64",
                "b main v9 16",
                "b main v10 32",
            ],
        ),
        (UsageBy::Day, UsageGroup::App, &["24 a 1", "48 a 14", "48 b 48", "72 a-b 64"]),
        (UsageBy::Hour, UsageGroup::App, &["47 a 1", "48 a 14", "48 b 16", "71 b 32", "72 a-b 64"]),
    ] {
        assert_eq!(told(&subject, query(by, group)).await, expected, "{by:?} {group:?}");
    }
}

pub(super) async fn u3_hours_and_apps_are_chosen(subject: Subject) {
    fill(&subject).await;
    for (hours, app, expected) in [
        (48..72, None, &["a 14", "b 48"][..]),
        (48..72, Some("b"), &["b 48"]),
        (48..71, Some("b"), &["b 16"]),
        (49..71, None, &[]),
        (48..48, None, &[]),
        (Hour::MIN..Hour::MAX, Some("nobody"), &[]),
        (Hour::MIN..Hour::MAX, Some("a"), &["a 15"]),
    ] {
        let app = app.map(|app: &str| app.parse().unwrap());
        let query = UsageQuery { hours, app, ..query(UsageBy::Total, UsageGroup::App) };
        assert_eq!(told(&subject, query.clone()).await, expected, "{query:?}");
    }
}

pub(super) async fn u4_too_many_sums_are_none(subject: Subject) {
    fill(&subject).await;
    for (most, fits) in [(6, true), (5, false), (0, false)] {
        let query = UsageQuery { most, ..query(UsageBy::Total, UsageGroup::Version) };
        assert_eq!(subject.usage.sum(query).await.unwrap().is_some(), fits, "{most}");
    }
}

pub(super) async fn u5_the_old_is_forgotten(subject: Subject) {
    fill(&subject).await;
    assert_eq!(subject.usage.forget(47).await, Ok(0));
    assert_eq!(subject.usage.forget(71).await, Ok(5));
    assert_eq!(subject.usage.forget(71).await, Ok(0));
    let left = told(&subject, query(UsageBy::Hour, UsageGroup::App)).await;
    assert_eq!(left, ["71 b 32", "72 a-b 64"]);
}

pub(super) async fn u6_nothing_wraps(subject: Subject) {
    // What SQLite's integers can say, and more than that.
    let largest = u64::try_from(i64::MAX).unwrap();
    for (hour, number) in [(1, largest), (1, largest), (2, u64::MAX), (2, 1)] {
        subject.usage.add(vec![(key(hour, "a", "main", 1), requests(number))]).await.unwrap();
    }
    for (_, used) in sums(&subject, query(UsageBy::Hour, UsageGroup::App)).await {
        assert!(used.requests >= largest, "{used:?}");
    }
    let total = sums(&subject, query(UsageBy::Total, UsageGroup::App)).await;
    assert!(total[0].1.requests > largest, "{total:?}");
}

pub(super) async fn u7_concurrent_additions_all_count(subject: Subject) {
    let mut tasks = JoinSet::new();
    for task in 0..16_u32 {
        let usage = Arc::clone(&subject.usage);
        tasks.spawn(async move {
            for _ in 0..8 {
                let rows = vec![
                    (key(1, "shared", "main", 1), requests(1)),
                    (key(1, "own", "main", task + 1), requests(1)),
                ];
                usage.add(rows).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let told = told(&subject, query(UsageBy::Total, UsageGroup::App)).await;
    assert_eq!(told, ["own 128", "shared 128"]);
}
