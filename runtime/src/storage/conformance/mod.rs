//! The one suite every implementation passes. Each test is an invariant with a number, so that a
//! failing one says what is broken and in which implementation.

mod blobs;
mod journal;
mod model;
mod registry;
mod usage;
mod watch;

use super::{
    Blobs, Change, Doc, DocKey, Journal, Registry, Rev, UsageStore,
    memory::{MemoryBlobs, MemoryJournal, MemoryRegistry, MemoryUsage},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{sync::mpsc::Receiver, time::timeout};

/// Long enough for any machine; a test that works never waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// An empty implementation to be tested.
struct Subject {
    registry: Arc<dyn Registry>,
    blobs: Arc<dyn Blobs>,
    usage: Arc<dyn UsageStore>,
    journal: Arc<dyn Journal>,
    /// Removed at the end.
    _dir: Option<TempDir>,
}

impl Subject {
    async fn memory() -> Self {
        let (registry, blobs) = (MemoryRegistry::default(), MemoryBlobs::default());
        Self {
            registry: Arc::new(registry),
            blobs: Arc::new(blobs),
            usage: Arc::new(MemoryUsage::default()),
            journal: Arc::new(MemoryJournal::default()),
            _dir: None,
        }
    }

    async fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (registry, blobs) = super::embedded::open(dir.path()).await.unwrap();
        let registry = Arc::new(registry);
        Self {
            registry: registry.clone(),
            blobs: Arc::new(blobs),
            usage: registry.clone(),
            journal: registry,
            _dir: Some(dir),
        }
    }
}

/// Runs each invariant on each implementation.
macro_rules! suite {
    ($($implementation:ident)+; $invariants:tt) => {
        $(mod $implementation { suite!(@one $implementation $invariants); })+
    };
    (@one $implementation:ident { $($part:ident: $($invariant:ident)+;)+ }) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $invariant() {
                super::$part::$invariant(super::Subject::$implementation().await).await;
            }
        )+)+
    };
}

suite!(memory embedded; {
    registry:
        k1_a_write_happens_only_as_expected
        k2_revisions_grow_and_are_never_used_again
        k3_a_list_is_in_byte_order_and_exact
        k4_a_document_has_a_largest_size
        k5_concurrent_increments_are_all_counted
        k6_of_concurrent_creations_one_wins
        k7_a_write_that_returned_is_read
        k8_a_list_and_its_revision_belong_together;
    watch:
        w1_a_watcher_sees_every_later_state
        w2_changes_come_in_order_and_below_the_prefix
        w3_what_did_not_happen_is_not_told
        w4_a_slow_watcher_lists_again_and_misses_nothing
        w5_an_unknown_revision_begins_with_a_list
        w6_what_is_told_can_be_read
        w7_a_watch_ends_with_the_registry;
    blobs:
        b1_a_blob_is_known_by_its_digest
        b2_of_equal_blobs_one_is_new
        b3_an_unfinished_blob_leaves_nothing
        b4_removing_is_idempotent
        b5_a_blob_can_be_read_by_name;
    usage:
        u1_what_is_added_is_summed
        u2_sums_divide_as_asked
        u3_hours_and_apps_are_chosen
        u4_too_many_sums_are_none
        u5_the_old_is_forgotten
        u6_nothing_wraps
        u7_concurrent_additions_all_count;
    journal:
        j1_records_come_newest_first_and_whole
        j2_a_query_gets_what_it_asks_for
        j3_what_is_old_is_dropped_and_no_place_is_used_twice
        j4_a_record_has_a_largest_size
        j5_concurrent_records_are_all_kept;
});

fn key(text: &str) -> DocKey {
    DocKey::new(&[text])
}

fn doc(body: &'static str, rev: Rev) -> Doc {
    Doc { body: Bytes::from_static(body.as_bytes()), rev }
}

/// The next change; a test that gets none fails rather than hangs.
pub(super) async fn next(changes: &mut Receiver<Change>) -> Change {
    timeout(PATIENCE, changes.recv()).await.expect("a change in time").expect("a change")
}
