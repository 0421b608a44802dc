//! J: the journal.

use super::Subject;
use crate::storage::{
    Journal, JournalQuery, JournalRecord, Seq, StorageError, journal::MAX_RECORD_BYTES,
};
use jiff::Timestamp;
use std::sync::Arc;
use tokio::task::JoinSet;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn record(second: i64, subject: Option<&str>, body: &'static str) -> JournalRecord {
    JournalRecord { time: at(second), subject: subject.map(str::to_owned), body: body.into() }
}

fn everything() -> JournalQuery {
    JournalQuery { subjects: None, since: None, before: None, limit: usize::MAX }
}

async fn read(journal: &dyn Journal, query: JournalQuery) -> Vec<Seq> {
    let records = journal.read(query).await.unwrap();
    records.into_iter().map(|(seq, _)| seq).collect()
}

pub(super) async fn j1_records_come_newest_first_and_whole(subject: Subject) {
    let journal = &*subject.journal;
    assert_eq!(journal.read(everything()).await, Ok(vec![]));
    // Their order is that of their places: clocks may go back.
    let records =
        [record(10, Some("shop"), "one"), record(30, None, ""), record(20, Some("ü/%"), "3")];
    let mut expected = Vec::new();
    for record in records {
        let seq = journal.append(record.clone()).await.unwrap();
        assert!(expected.iter().all(|(earlier, _)| *earlier < seq));
        expected.insert(0, (seq, record));
    }
    assert_eq!(journal.read(everything()).await, Ok(expected));
    // Kept to the millisecond.
    let mut fine = record(40, None, "fine");
    fine.time = Timestamp::from_microsecond(40_000_999).unwrap();
    journal.append(fine).await.unwrap();
    let (_, kept) = journal.read(everything()).await.unwrap().remove(0);
    assert_eq!(kept.time, at(40));
}

pub(super) async fn j2_a_query_gets_what_it_asks_for(subject: Subject) {
    let journal = &*subject.journal;
    for (second, app) in [(10, Some("a")), (20, Some("b")), (30, None), (40, Some("a"))] {
        journal.append(record(second, app, "x")).await.unwrap();
    }
    let all = read(journal, everything()).await;
    let [fourth, third, second, first] = all[..] else { panic!("{all:?}") };
    let about = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        JournalQuery { subjects: Some(names), ..everything() }
    };
    assert_eq!(read(journal, about(&["a"])).await, [fourth, first]);
    assert_eq!(read(journal, about(&["b", "a", "none"])).await, [fourth, second, first]);
    assert_eq!(read(journal, about(&[])).await, [0; 0]);
    assert_eq!(read(journal, about(&["a' OR '1'='1", "\"", "a%"])).await, [0; 0]);
    let since = |since| JournalQuery { since: Some(since), ..everything() };
    assert_eq!(read(journal, since(at(30))).await, [fourth, third]);
    let a_little_later = Timestamp::from_microsecond(30_000_001).unwrap();
    assert_eq!(read(journal, since(a_little_later)).await, [fourth]);
    assert_eq!(read(journal, since(Timestamp::MIN)).await, all);
    assert_eq!(read(journal, since(Timestamp::MAX)).await, [0; 0]);
    let before = |seq| JournalQuery { before: Some(seq), ..everything() };
    assert_eq!(read(journal, before(third)).await, [second, first]);
    assert_eq!(read(journal, before(0)).await, [0; 0]);
    assert_eq!(read(journal, before(Seq::MAX)).await, all);
    let limit = |limit| JournalQuery { limit, ..everything() };
    assert_eq!(read(journal, limit(3)).await, [fourth, third, second]);
    assert_eq!(read(journal, limit(0)).await, [0; 0]);
    let mixed = JournalQuery { before: Some(fourth), limit: 1, ..about(&["a", "b"]) };
    assert_eq!(read(journal, mixed).await, [second]);
}

pub(super) async fn j3_what_is_old_is_dropped_and_no_place_is_used_twice(subject: Subject) {
    let journal = &*subject.journal;
    assert_eq!(journal.trim(Timestamp::MAX).await, Ok(0));
    for second in [10, 30, 20] {
        journal.append(record(second, None, "x")).await.unwrap();
    }
    assert_eq!(journal.trim(at(10)).await, Ok(0), "its own time is not before it");
    assert_eq!(journal.trim(at(21)).await, Ok(2));
    let left = journal.read(everything()).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1.time, at(30));
    assert_eq!(journal.trim(Timestamp::MAX).await, Ok(1));
    assert_eq!(journal.read(everything()).await, Ok(vec![]));
    assert!(journal.append(record(40, None, "x")).await.unwrap() > 3);
}

pub(super) async fn j4_a_record_has_a_largest_size(subject: Subject) {
    let mut record = record(10, None, "");
    record.body = vec![b'x'; MAX_RECORD_BYTES].into();
    subject.journal.append(record.clone()).await.unwrap();
    record.body = vec![b'x'; MAX_RECORD_BYTES + 1].into();
    let refused = subject.journal.append(record).await;
    assert!(matches!(refused, Err(StorageError::Failed(_))), "{refused:?}");
    assert_eq!(read(&*subject.journal, everything()).await.len(), 1);
}

pub(super) async fn j5_concurrent_records_are_all_kept(subject: Subject) {
    let mut tasks = JoinSet::new();
    for n in 0..100 {
        let journal = Arc::clone(&subject.journal);
        tasks.spawn(async move { journal.append(record(n, None, "x")).await.unwrap() });
    }
    let mut places = tasks.join_all().await;
    places.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(read(&*subject.journal, everything()).await, places);
    places.dedup();
    assert_eq!(places.len(), 100);
}
