//! The statements on documents. Each document carries a checksum over its key, revision and body,
//! which is verified whenever it is read.

use super::database::Fault;
use crate::storage::{Doc, DocKey, Rev};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use sha2::{Digest as _, Sha256};

/// The document, if there is one.
pub(super) fn get(connection: &Connection, key: &DocKey) -> Result<Option<Doc>, Fault> {
    let mut select =
        connection.prepare_cached("SELECT key, rev, sum, body FROM doc WHERE key = ?1")?;
    let mut rows = select.query([key.as_str()])?;
    rows.next()?.map(|row| Ok(verified(row)?.1)).transpose()
}

/// The revision of a document, if there is one.
pub(super) fn rev(connection: &Connection, key: &DocKey) -> Result<Option<Rev>, Fault> {
    let mut select = connection.prepare_cached("SELECT rev FROM doc WHERE key = ?1")?;
    let rev = select.query_row([key.as_str()], |row| row.get(0)).optional()?;
    rev.map(to_rev).transpose()
}

/// Every document whose key starts with `prefix`, in byte order.
pub(super) fn list(connection: &Connection, prefix: &str) -> Result<Vec<(DocKey, Doc)>, Fault> {
    let mut select = from(connection)?;
    let mut rows = select.query([prefix])?;
    let mut docs = Vec::new();
    while let Some(row) = rows.next()? {
        // Also the one behind the last: a damaged key must not end the list early.
        let (key, doc) = verified(row)?;
        if !key.as_str().starts_with(prefix) {
            break;
        }
        docs.push((key, doc));
    }
    Ok(docs)
}

/// Writes a document whole.
pub(super) fn put(connection: &Connection, key: &DocKey, doc: &Doc) -> Result<(), Fault> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO doc (key, rev, sum, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) \
         DO UPDATE SET rev = excluded.rev, sum = excluded.sum, body = excluded.body",
    )?;
    let sum = checksum(key.as_str(), doc.rev, &doc.body);
    upsert.execute(params![key.as_str(), from_rev(doc.rev)?, sum, &doc.body[..]])?;
    Ok(())
}

/// Removes a document.
pub(super) fn delete(connection: &Connection, key: &DocKey) -> Result<(), Fault> {
    connection.prepare_cached("DELETE FROM doc WHERE key = ?1")?.execute([key.as_str()])?;
    Ok(())
}

/// The latest revision. It is kept apart from the documents, because the latest change may have
/// been a removal, and a revision is never used again.
pub(super) fn head(connection: &Connection) -> Result<Rev, Fault> {
    let mut select = connection.prepare_cached("SELECT rev FROM head WHERE id = 1")?;
    to_rev(select.query_row(params![], |row| row.get(0))?)
}

/// Moves the latest revision forward.
pub(super) fn set_head(connection: &Connection, head: Rev) -> Result<(), Fault> {
    let mut update = connection.prepare_cached("UPDATE head SET rev = ?1 WHERE id = 1")?;
    update.execute([from_rev(head)?])?;
    Ok(())
}

/// Reads everything once, to find damage at the start rather than in the middle of a request.
/// Returns the latest revision.
pub(super) fn verify(connection: &Connection) -> Result<Rev, Fault> {
    let head = head(connection)?;
    let mut select = from(connection)?;
    let mut rows = select.query([""])?;
    while let Some(row) = rows.next()? {
        let (key, doc) = verified(row)?;
        if doc.rev > head {
            return Err(Fault::Content(format!("`{key}` is newer than the latest revision")));
        }
    }
    Ok(head)
}

fn from(connection: &Connection) -> Result<CachedStatement<'_>, Fault> {
    let sql = "SELECT key, rev, sum, body FROM doc WHERE key >= ?1 ORDER BY key";
    Ok(connection.prepare_cached(sql)?)
}

/// The document in a row of `key, rev, sum, body`.
fn verified(row: &Row<'_>) -> Result<(DocKey, Doc), Fault> {
    let key: String = row.get(0)?;
    let rev = to_rev(row.get(1)?)?;
    let sum: i64 = row.get(2)?;
    let body: Vec<u8> = row.get(3)?;
    if sum != checksum(&key, rev, &body) {
        return Err(Fault::Content(format!("`{key}` does not match its checksum")));
    }
    Ok((DocKey::new(&[&key]), Doc { body: body.into(), rev }))
}

/// The first eight bytes of a SHA-256: against accidents, not against people.
fn checksum(key: &str, rev: Rev, body: &[u8]) -> i64 {
    let mut hasher = Sha256::new();
    hasher.update(rev.to_le_bytes());
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(body);
    hasher.finalize().first_chunk().map_or(0, |first| i64::from_le_bytes(*first))
}

/// SQLite's integers are signed.
fn to_rev(stored: i64) -> Result<Rev, Fault> {
    Rev::try_from(stored).map_err(|_| Fault::Content(format!("revision {stored}")))
}

fn from_rev(rev: Rev) -> Result<i64, Fault> {
    i64::try_from(rev).map_err(|_| Fault::Content(format!("revision {rev}")))
}
