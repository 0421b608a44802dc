//! `Journal` over `state.db`: the statements on its table, and their checksums.

use super::{database::Fault, registry::EmbeddedRegistry, writer::JournalAction};
use crate::storage::{
    Journal, JournalQuery, JournalRecord, Seq, StorageError, journal::check_size,
};
use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use sha2::{Digest as _, Sha256};

#[async_trait]
impl Journal for EmbeddedRegistry {
    async fn append(&self, record: JournalRecord) -> Result<Seq, StorageError> {
        check_size(&record)?;
        self.write_journal(JournalAction::Append(record)).await
    }

    async fn read(&self, query: JournalQuery) -> Result<Vec<(Seq, JournalRecord)>, StorageError> {
        self.read_with(move |connection| select(connection, &query)).await
    }

    async fn trim(&self, before: Timestamp) -> Result<u64, StorageError> {
        self.write_journal(JournalAction::Trim(before)).await
    }
}

/// Adds a record and returns its place.
pub(super) fn append(connection: &Connection, record: &JournalRecord) -> Result<Seq, Fault> {
    let mut insert = connection
        .prepare_cached("INSERT INTO journal (time, subject, sum, body) VALUES (?1, ?2, ?3, ?4)")?;
    let time = record.time.as_millisecond();
    let subject = record.subject.as_deref();
    let sum = checksum(time, subject, &record.body);
    let seq = insert.insert(params![time, subject, sum, &record.body[..]])?;
    to_seq(seq)
}

/// Drops what happened before a time.
pub(super) fn trim(connection: &Connection, before: Timestamp) -> Result<u64, Fault> {
    let mut delete = connection.prepare_cached("DELETE FROM journal WHERE time < ?1")?;
    Ok(delete.execute([before.as_millisecond()])? as u64)
}

fn select(
    connection: &Connection,
    query: &JournalQuery,
) -> Result<Vec<(Seq, JournalRecord)>, Fault> {
    let about = match query.subjects {
        Some(_) => "subject IN (SELECT value FROM json_each(?1))",
        None => "?1 IS NULL",
    };
    let mut select = connection.prepare_cached(&format!(
        "SELECT seq, time, subject, sum, body FROM journal \
         WHERE {about} AND time >= ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4",
    ))?;
    let subjects = query.subjects.as_ref().map(|names| serde_json::json!(names).to_string());
    let since = query.since.map_or(i64::MIN, ceil_millisecond);
    let before = query.before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut rows = select.query(params![subjects, since, before, limit])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(verified(row)?);
    }
    Ok(records)
}

/// A time that is between two milliseconds is not reached before the second.
fn ceil_millisecond(time: Timestamp) -> i64 {
    let floor = time.as_millisecond();
    match Timestamp::from_millisecond(floor) {
        Ok(whole) if whole < time => floor.saturating_add(1),
        _ => floor,
    }
}

/// The record in a row of `seq, time, subject, sum, body`.
fn verified(row: &Row<'_>) -> Result<(Seq, JournalRecord), Fault> {
    let seq = to_seq(row.get(0)?)?;
    let time: i64 = row.get(1)?;
    let subject: Option<String> = row.get(2)?;
    let sum: i64 = row.get(3)?;
    let body: Vec<u8> = row.get(4)?;
    if sum != checksum(time, subject.as_deref(), &body) {
        return Err(Fault::Content(format!("record {seq} does not match its checksum")));
    }
    let time = Timestamp::from_millisecond(time)
        .map_err(|_| Fault::Content(format!("record {seq} is from no time")))?;
    Ok((seq, JournalRecord { time, subject, body: body.into() }))
}

/// The first eight bytes of a SHA-256: against accidents, not against people.
fn checksum(time: i64, subject: Option<&str>, body: &[u8]) -> i64 {
    let subject = subject.unwrap_or_default();
    let mut hasher = Sha256::new();
    hasher.update(time.to_le_bytes());
    hasher.update((subject.len() as u64).to_le_bytes());
    hasher.update(subject);
    hasher.update(body);
    hasher.finalize().first_chunk().map_or(0, |first| i64::from_le_bytes(*first))
}

fn to_seq(stored: i64) -> Result<Seq, Fault> {
    Seq::try_from(stored).map_err(|_| Fault::Content(format!("place {stored}")))
}
