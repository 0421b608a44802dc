//! How watchers learn of changes: a bounded log of the latest ones, and one task per watcher that
//! reads it at the watcher's own pace.
//!
//! A writer never waits for a watcher. A watcher that is slower than the log is long gets
//! [`Change::Resync`] and goes on from there; so does one that asks for changes from before the
//! log began, which is the case after a restart.

use super::{Change, DocKey, Rev, files::lock};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};
use tokio::sync::{mpsc, watch};

/// How many changes the log holds at most.
pub(super) const LOG_CHANGES: usize = 1024;
/// How many bytes of documents the log holds at most.
const LOG_BYTES: usize = 16 * 1024 * 1024;
/// How many changes wait in a watcher's own channel.
pub(super) const CHANNEL_CHANGES: usize = 32;

/// Takes changes from one writer and hands them to any number of watchers. Dropping it ends the
/// watchers' channels, after they got what was published.
#[derive(Debug)]
pub(super) struct Feed {
    log: Arc<Mutex<Log>>,
    head: watch::Sender<Rev>,
}

impl Feed {
    /// A feed whose first change comes after `head`.
    pub(super) fn new(head: Rev) -> Self {
        let log = Log { changes: VecDeque::new(), bytes: 0, start: head, head };
        Self { log: Arc::new(Mutex::new(log)), head: watch::Sender::new(head) }
    }

    /// The revision of the last change.
    pub(super) fn head(&self) -> Rev {
        *self.head.borrow()
    }

    /// Tells the watchers of changes, which are durable by now, in the order of their revisions.
    pub(super) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let head = {
            let mut log = lock(&self.log);
            changes.into_iter().for_each(|change| log.push(change));
            log.head
        };
        self.head.send_replace(head);
    }

    /// The database was opened anew at this revision. If that is not where the feed was, every
    /// watcher reads everything again.
    pub(super) fn restart(&self, head: Rev) {
        if head == self.head() {
            return;
        }
        *lock(&self.log) = Log { changes: VecDeque::new(), bytes: 0, start: head, head };
        self.head.send_replace(head);
    }

    /// Changes of documents whose key starts with `prefix`, after the revision `after`; `None`
    /// stands for a revision this feed knows nothing of, so the watcher begins with a `Resync`.
    pub(super) fn watch(&self, prefix: &str, after: Option<Rev>) -> mpsc::Receiver<Change> {
        let (changes, receiver) = mpsc::channel(CHANNEL_CHANGES);
        let watcher = Watcher {
            prefix: prefix.to_owned(),
            cursor: after,
            log: Arc::clone(&self.log),
            head: self.head.subscribe(),
            changes,
        };
        tokio::spawn(watcher.run());
        receiver
    }
}

/// The latest changes: all those after `start`, up to `head`.
#[derive(Debug)]
struct Log {
    changes: VecDeque<(Rev, Change)>,
    bytes: usize,
    start: Rev,
    head: Rev,
}

impl Log {
    fn push(&mut self, change: Change) {
        let Some(rev) = rev_of(&change) else { return };
        self.head = rev;
        self.bytes += size_of_change(&change);
        self.changes.push_back((rev, change));
        while self.changes.len() > LOG_CHANGES || self.bytes > LOG_BYTES {
            let Some((rev, change)) = self.changes.pop_front() else {
                return;
            };
            self.bytes -= size_of_change(&change);
            self.start = rev;
        }
    }

    /// The next changes after `cursor`, a channel full at most, or `None` when the log no longer
    /// reaches back that far.
    fn after(&self, cursor: Rev) -> Option<Vec<(Rev, Change)>> {
        if cursor < self.start {
            return None;
        }
        let first = self.changes.partition_point(|(rev, _)| *rev <= cursor);
        Some(self.changes.iter().skip(first).take(CHANNEL_CHANGES).cloned().collect())
    }
}

/// One watcher's place in the log.
struct Watcher {
    prefix: String,
    /// The revision up to which the watcher knows everything.
    cursor: Option<Rev>,
    log: Arc<Mutex<Log>>,
    head: watch::Receiver<Rev>,
    changes: mpsc::Sender<Change>,
}

impl Watcher {
    /// Hands over changes until the watcher or the feed is gone.
    async fn run(mut self) {
        loop {
            // Marked as seen before the log is read, so a change in between wakes us again.
            self.head.borrow_and_update();
            if !self.catch_up().await {
                return;
            }
            tokio::select! {
                changed = self.head.changed() => if changed.is_err() {
                    // The feed is gone; what it published last may still be in the log.
                    self.catch_up().await;
                    return;
                },
                () = self.changes.closed() => return,
            }
        }
    }

    /// Sends everything there is after the cursor; `false` when nobody listens any more.
    async fn catch_up(&mut self) -> bool {
        loop {
            let (batch, head) = {
                let log = lock(&self.log);
                (self.cursor.and_then(|cursor| log.after(cursor)), log.head)
            };
            let Some(batch) = batch else {
                // The watcher lists only after it has got this, so it sees at least `head`.
                self.cursor = Some(head);
                if self.changes.send(Change::Resync).await.is_err() {
                    return false;
                }
                continue;
            };
            if batch.is_empty() {
                return true;
            }
            for (rev, change) in batch {
                self.cursor = Some(rev);
                if is_below(&change, &self.prefix) && self.changes.send(change).await.is_err() {
                    return false;
                }
            }
        }
    }
}

fn rev_of(change: &Change) -> Option<Rev> {
    match change {
        Change::Put(_, doc) => Some(doc.rev),
        Change::Deleted(_, rev) => Some(*rev),
        Change::Resync => None,
    }
}

fn key_of(change: &Change) -> Option<&DocKey> {
    match change {
        Change::Put(key, _) | Change::Deleted(key, _) => Some(key),
        Change::Resync => None,
    }
}

fn is_below(change: &Change, prefix: &str) -> bool {
    key_of(change).is_none_or(|key| key.as_str().starts_with(prefix))
}

fn size_of_change(change: &Change) -> usize {
    let body = if let Change::Put(_, doc) = change { doc.body.len() } else { 0 };
    key_of(change).map_or(0, |key| key.as_str().len()) + body
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Doc, conformance::next},
        *,
    };

    fn put(rev: Rev, bytes: usize) -> Change {
        Change::Put(DocKey::new(&["k"]), Doc { body: vec![0; bytes].into(), rev })
    }

    #[test]
    fn the_log_forgets_by_count_and_by_bytes() {
        let feed = Feed::new(7);
        feed.publish((8..8 + LOG_CHANGES as Rev + 10).map(|rev| put(rev, 1)));
        {
            let log = lock(&feed.log);
            assert_eq!(log.changes.len(), LOG_CHANGES);
            assert_eq!(log.start, 17);
            assert!(log.after(16).is_none());
            assert_eq!(log.after(17).unwrap().first().unwrap().0, 18);
            assert_eq!(log.after(log.head).unwrap(), []);
        }
        feed.publish((2000..2100).map(|rev| put(rev, 1024 * 1024)));
        let log = lock(&feed.log);
        assert!(log.bytes <= LOG_BYTES && log.changes.len() < 17, "{}", log.changes.len());
        assert_eq!(log.head, 2099);
    }

    #[tokio::test]
    async fn a_watcher_gets_the_rest_when_the_feed_ends() {
        let feed = Feed::new(0);
        let mut changes = feed.watch("", Some(0));
        feed.publish((1..=3).map(|rev| put(rev, 1)));
        drop(feed);
        for rev in 1..=3 {
            assert_eq!(next(&mut changes).await, put(rev, 1));
        }
        assert_eq!(changes.recv().await, None);
    }

    #[tokio::test]
    async fn a_task_ends_with_its_watcher() {
        let feed = Feed::new(0);
        let changes = feed.watch("", Some(0));
        tokio::task::yield_now().await;
        assert_eq!(feed.head.receiver_count(), 1);
        drop(changes);
        while feed.head.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_to_list_again() {
        let feed = Feed::new(0);
        let mut changes = feed.watch("", Some(0));
        feed.publish([put(1, 1)]);
        assert_eq!(next(&mut changes).await, put(1, 1));
        feed.publish((2..2 + 2 * LOG_CHANGES as Rev).map(|rev| put(rev, 1)));
        assert_eq!(next(&mut changes).await, Change::Resync);
        let last = Change::Deleted(DocKey::new(&["k"]), 9000);
        feed.publish([last.clone()]);
        assert_eq!(next(&mut changes).await, last);
    }
}
