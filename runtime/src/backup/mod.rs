//! A whole node in one archive, taken while it serves, and a data directory made of one.
//!
//! | part | what it does |
//! |---|---|
//! | [`archive`] | the format: a tar with a head, members and a manifest |
//! | [`save`] | what of a data directory is in it, consistent |
//! | [`restore()`] | a data directory from it, whole or not at all |
//!
//! What a backup holds belongs together: the databases are copied first, each as it is at one
//! moment, and no artifact is removed until the archive is written, so that every version that is
//! named has its artifacts. The node's secrets are in it, in clear text.

mod archive;
mod restore;
mod save;
#[cfg(test)]
mod tests;

pub use restore::{RestoreError, Restored, restore};
pub(crate) use save::{Backup, BackupError, Pieces};

use std::path::{Component, Path};

/// The name of the records' database, which every data directory has.
const STATE: &str = "state.db";
/// Files without which there is no node.
const NEEDED: [&str; 3] = [STATE, "admin.token", "node.key"];
/// Where copies lie while they are sent, in the data directory.
const COPIES: &str = "backup.tmp";
/// Folders and files at the top of a data directory that can be made again, belong to a process, or
/// come and go while they are read: what functions wrote to their logs.
const LEFT_OUT: [&str; 4] = ["cache", "lock", "logs", COPIES];
/// What a finished file is never called.
const UNFINISHED: &str = ".tmp";

/// Whether a backup has this file or folder of a data directory, by its path inside of it.
fn is_saved(path: &Path) -> bool {
    let mut parts = path.components();
    let top = parts.next();
    let is_top = |name: &str| top == Some(Component::Normal(name.as_ref()));
    if LEFT_OUT.iter().any(|name| is_top(name)) {
        return false;
    }
    let unfinished_blobs = is_top("blobs") && path.starts_with("blobs/tmp");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !unfinished_blobs && !name.ends_with(UNFINISHED)
}
