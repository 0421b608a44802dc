//! Databases that are not ours, for tests elsewhere.

use rusqlite::Connection;
use std::{any::Any, path::Path};

/// Runs statements on a database, and keeps it open for as long as the result lives.
pub(crate) fn execute(path: &Path, sql: &str) -> Box<dyn Any> {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
    Box::new(connection)
}

/// The one number that a query gives.
pub(crate) fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}
