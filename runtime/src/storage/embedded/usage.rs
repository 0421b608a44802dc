//! `UsageStore` over the table `usage` of `state.db`.

use super::{database::Fault, registry::EmbeddedRegistry, writer::UsageWork};
use crate::storage::{
    StorageError,
    usage::{Hour, SumKey, Sums, UsageKey, UsageQuery, UsageStore, Used},
};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::str::FromStr;

#[async_trait]
impl UsageStore for EmbeddedRegistry {
    async fn add(&self, rows: Vec<(UsageKey, Used)>) -> Result<(), StorageError> {
        self.write_usage(UsageWork::Add(rows)).await.map(drop)
    }

    async fn sum(&self, query: UsageQuery) -> Result<Option<Vec<(SumKey, Used)>>, StorageError> {
        self.read_with(move |connection| sum(connection, &query)).await
    }

    async fn forget(&self, before: Hour) -> Result<u64, StorageError> {
        self.write_usage(UsageWork::Forget(before)).await
    }
}

/// Does what was asked for, inside a transaction of the writer's. Returns how many rows it met.
pub(super) fn work(connection: &Connection, work: &UsageWork) -> Result<u64, Fault> {
    match work {
        UsageWork::Add(rows) => {
            for (key, used) in rows {
                add(connection, key, used)?;
            }
            Ok(rows.len() as u64)
        }
        UsageWork::Forget(before) => {
            let mut delete = connection.prepare_cached("DELETE FROM usage WHERE hour < ?1")?;
            Ok(delete.execute([before])? as u64)
        }
    }
}

/// Reads and writes, and does not let SQLite add: its sums become inexact, or errors, where ours
/// stay at the end.
fn add(connection: &Connection, key: &UsageKey, used: &Used) -> Result<(), Fault> {
    let UsageKey { hour, app, function, version } = key;
    let version = version.number();
    let mut select = connection.prepare_cached(
        "SELECT requests, failures, cpu_ns, memory_mib_ns, bytes_in, bytes_out, outbound \
         FROM usage WHERE hour = ?1 AND app = ?2 AND function = ?3 AND version = ?4",
    )?;
    let found = select
        .query_row(params![hour, app.as_str(), function.as_str(), version], |row| used_at(row, 0))
        .optional()?;
    let mut sum = found.unwrap_or_default();
    sum.add(used);
    let mut upsert = connection.prepare_cached(
        "INSERT OR REPLACE INTO usage (hour, app, function, version, requests, failures, cpu_ns, \
         memory_mib_ns, bytes_in, bytes_out, outbound) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    // SQLite's integers are signed.
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    upsert.execute(params![
        hour,
        app.as_str(),
        function.as_str(),
        version,
        number(sum.requests),
        number(sum.failures),
        number(sum.cpu_ns),
        number(sum.memory_mib_ns),
        number(sum.bytes_in),
        number(sum.bytes_out),
        number(sum.outbound),
    ])?;
    Ok(())
}

fn sum(
    connection: &mut Connection,
    query: &UsageQuery,
) -> Result<Option<Vec<(SumKey, Used)>>, Fault> {
    let mut select = connection.prepare_cached(
        "SELECT hour, app, function, version, requests, failures, cpu_ns, memory_mib_ns, \
         bytes_in, bytes_out, outbound FROM usage \
         WHERE hour >= ?1 AND hour < ?2 AND (?3 IS NULL OR app = ?3)",
    )?;
    let app = query.app.as_ref().map(|app| app.as_str());
    let mut rows = select.query(params![query.hours.start, query.hours.end, app])?;
    let mut sums = Sums::new(query);
    while let Some(row) = rows.next()? {
        let version: u32 = row.get(3)?;
        let key = UsageKey {
            hour: row.get(0)?,
            app: name(row, 1)?,
            function: name(row, 2)?,
            version: faas_api::VersionId::new(version),
        };
        if !sums.take(key, &used_at(row, 4)?) {
            return Ok(None);
        }
    }
    Ok(Some(sums.done()))
}

fn name<T: FromStr>(row: &Row<'_>, column: usize) -> Result<T, Fault> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| Fault::Content(format!("usage of `{text}`, which is no name")))
}

/// The numbers from this column on.
fn used_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Used> {
    let number = |column: usize| -> rusqlite::Result<u64> {
        Ok(u64::try_from(row.get::<_, i64>(first + column)?).unwrap_or(0))
    };
    Ok(Used {
        requests: number(0)?,
        failures: number(1)?,
        cpu_ns: number(2)?,
        memory_mib_ns: number(3)?,
        bytes_in: number(4)?,
        bytes_out: number(5)?,
        outbound: number(6)?,
    })
}
