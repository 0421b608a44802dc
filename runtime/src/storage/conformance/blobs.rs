//! B: blobs.

use super::Subject;
use crate::storage::{Blobs, StorageError};
use bytes::Bytes;
use faas_api::Digest;
use std::{fs, sync::Arc};
use tokio::task::JoinSet;

/// Writes a blob in pieces of the given size.
async fn put(
    blobs: &dyn Blobs,
    bytes: &[u8],
    piece: usize,
) -> Result<(Digest, bool), StorageError> {
    let mut writer = blobs.create().await?;
    for piece in bytes.chunks(piece) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

/// Bytes without a pattern that chunks could hide behind.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(super) async fn b1_a_blob_is_known_by_its_digest(subject: Subject) {
    let blobs = &*subject.blobs;
    let none = Digest::of(b"none");
    assert_eq!(blobs.get(&none).await, Ok(None));
    assert_eq!(blobs.list().await, Ok(vec![]));
    let mut digests = Vec::new();
    for (len, piece) in [
        (0, 1),
        (1, 1),
        (262_144, 262_144),
        (262_143, 1000),
        (1_000_000, 999),
        (3_000_000, 3_000_000),
    ] {
        let written = bytes(len);
        let (digest, new) = put(blobs, &written, piece).await.unwrap();
        assert_eq!((digest, new), (Digest::of(&written), true), "{len}");
        assert_eq!(blobs.get(&digest).await, Ok(Some(Bytes::from(written))));
        digests.push(digest);
    }
    let mut listed = blobs.list().await.unwrap();
    listed.sort_unstable();
    digests.sort_unstable();
    assert_eq!(listed, digests);
}

pub(super) async fn b2_of_equal_blobs_one_is_new(subject: Subject) {
    let mut digests = Vec::new();
    for len in (0..20).chain([600_000]) {
        let written = Bytes::from(bytes(len));
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (blobs, written) = (Arc::clone(&subject.blobs), written.clone());
            tasks.spawn(async move { put(&*blobs, &written, 50_000 + task).await.unwrap() });
        }
        let results = tasks.join_all().await;
        let digest = Digest::of(&written);
        assert!(results.iter().all(|(found, _)| *found == digest));
        assert_eq!(results.iter().filter(|(_, new)| *new).count(), 1, "{len}");
        assert_eq!(put(&*subject.blobs, &written, 7_000).await, Ok((digest, false)));
        assert_eq!(subject.blobs.get(&digest).await, Ok(Some(written)));
        digests.push(digest);
    }
    let mut listed = subject.blobs.list().await.unwrap();
    listed.sort_unstable();
    digests.sort_unstable();
    assert_eq!(listed, digests);
}

pub(super) async fn b3_an_unfinished_blob_leaves_nothing(subject: Subject) {
    let written = bytes(600_000);
    let mut writer = subject.blobs.create().await.unwrap();
    writer.write(&written).await.unwrap();
    assert_eq!(subject.blobs.list().await, Ok(vec![]));
    assert_eq!(subject.blobs.get(&Digest::of(&written)).await, Ok(None));
    drop(writer);
    drop(subject.blobs.create().await.unwrap());
    assert_eq!(subject.blobs.list().await, Ok(vec![]));
    if let Some(dir) = &subject._dir {
        assert_eq!(fs::read_dir(dir.path().join("blobs/tmp")).unwrap().count(), 0);
    }
}

pub(super) async fn b4_removing_is_idempotent(subject: Subject) {
    let blobs = &*subject.blobs;
    let (one, two) =
        (put(blobs, b"one", 9).await.unwrap().0, put(blobs, b"two", 9).await.unwrap().0);
    for _ in 0..2 {
        assert_eq!(blobs.delete(&one).await, Ok(()));
        assert_eq!(blobs.get(&one).await, Ok(None));
        assert_eq!(blobs.file(&one).await, Ok(None));
        assert_eq!(blobs.list().await, Ok(vec![two]));
    }
    assert_eq!(put(blobs, b"one", 9).await, Ok((one, true)));
}

pub(super) async fn b5_a_blob_can_be_read_by_name(subject: Subject) {
    let blobs = &*subject.blobs;
    let written = bytes(300_000);
    let (digest, _) = put(blobs, &written, 300_000).await.unwrap();
    for _ in 0..2 {
        let path = blobs.file(&digest).await.unwrap().unwrap();
        assert!(path.is_absolute());
        assert_eq!(fs::read(path).unwrap(), written);
    }
    assert_eq!(blobs.file(&Digest::of(b"none")).await, Ok(None));
}
