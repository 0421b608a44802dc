//! Archives of small data directories: whole ones, damaged ones, and such as nobody meant well.

use super::{
    archive::{self, Writer},
    restore::{Place, RestoreError, Temp, restore},
    save::testing::archive_of,
};
use crate::{
    clock,
    functions::record::{AppRecord, GoLive, NewVersion},
    storage::{
        Blobs, DocKey, Expect, Registry, UsageKey, UsageQuery, UsageStore, Used,
        data_dir::DataDir,
        embedded::{self, EmbeddedBlobs, EmbeddedRegistry, testing},
    },
};
use faas_api::{Digest, Function, Kind, Settings, UsageBy, UsageGroup, VersionId};
use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Read},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};
use tar::{EntryType, Header};
use tempfile::TempDir;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// An open data directory with an app of two versions.
struct Home {
    dir: TempDir,
    registry: EmbeddedRegistry,
    blobs: EmbeddedBlobs,
    _data_dir: DataDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let home = block_on(async {
            let (registry, blobs) = embedded::open(dir.path()).await.unwrap();
            Self { dir, registry, blobs, _data_dir: data_dir }
        });
        home.deploy("hello", &[b"one", b"two"]);
        home
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Stores an app whose versions have these artifacts.
    fn deploy(&self, app: &str, artifacts: &[&[u8]]) {
        block_on(async {
            let mut record = AppRecord::new(clock::now());
            for bytes in artifacts {
                let function = function_of(self.store(bytes).await);
                record.add(version_of(vec![function], None), 20, clock::now());
            }
            self.write(app, &record).await;
        });
    }

    /// Stores an app whose version has its functions in a blob, as one of very many functions has.
    fn deploy_large(&self, app: &str, artifact: &[u8]) {
        block_on(async {
            let function = function_of(self.store(artifact).await);
            let functions = self.store(&serde_json::to_vec(&[function]).unwrap()).await;
            let mut record = AppRecord::new(clock::now());
            record.add(version_of(vec![], Some(functions)), 20, clock::now());
            self.write(app, &record).await;
        });
    }

    async fn store(&self, bytes: &[u8]) -> Digest {
        let mut writer = self.blobs.create().await.unwrap();
        writer.write(bytes).await.unwrap();
        writer.finish().await.unwrap().0
    }

    async fn write(&self, app: &str, record: &AppRecord) {
        let body = serde_json::to_vec(record).unwrap().into();
        let key = DocKey::new(&["apps", app]);
        self.registry.put(&key, body, Expect::Any).await.unwrap();
    }

    /// Everything but what is made anew: paths, and what is in them.
    fn state(&self) -> State {
        block_on(state_of(&self.registry, &self.blobs))
    }
}

fn function_of(digest: Digest) -> Function {
    Function {
        name: "main".parse().unwrap(),
        kind: Kind::Cgi01,
        digest,
        size: 3,
        route: "/*".into(),
        reuse: None,
        settings: Settings::default(),
    }
}

fn version_of(functions: Vec<Function>, functions_at: Option<Digest>) -> NewVersion {
    NewVersion {
        created_by: "test".into(),
        message: None,
        functions,
        functions_at,
        domains: vec![],
        health: None,
        deploy: None,
        go_live: GoLive::All,
    }
}

type State = (Vec<(DocKey, crate::storage::Doc)>, BTreeMap<Digest, Vec<u8>>, u64);

async fn state_of(registry: &EmbeddedRegistry, blobs: &EmbeddedBlobs) -> State {
    let (docs, _) = registry.list("").await.unwrap();
    let mut contents = BTreeMap::new();
    for digest in blobs.list().await.unwrap() {
        contents.insert(digest, blobs.get(&digest).await.unwrap().unwrap().to_vec());
    }
    let (by, group) = (UsageBy::Total, UsageGroup::App);
    let query = UsageQuery { hours: 0..i64::MAX, app: None, by, group, most: 10 };
    let used = registry.sum(query).await.unwrap().unwrap();
    (docs, contents, used.iter().map(|(_, used)| used.requests).sum())
}

/// Restores into a folder of its own, in which nothing else may appear.
fn try_restore(archive: &[u8]) -> Result<(TempDir, PathBuf), RestoreError> {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("data");
    let from = Box::new(Cursor::new(archive.to_vec()));
    match block_on(restore(from, target.clone())) {
        Ok(restored) => {
            assert_eq!(restored.data_dir, target);
            assert_eq!(names(parent.path()), ["data"]);
            Ok((parent, target))
        }
        Err(error) => {
            assert_eq!(names(parent.path()), Vec::<String>::new(), "{error}");
            Err(error)
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn opened(data_dir: &Path) -> State {
    block_on(async {
        let (registry, blobs) = embedded::open(data_dir).await.unwrap();
        state_of(&registry, &blobs).await
    })
}

/// The members of an archive.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, content)
    });
    entries.collect()
}

/// An archive of these, with a manifest that fits.
fn archive_with(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), clock::now()).unwrap();
    for (path, content) in members {
        writer.add(path, content.len() as u64, &content[..]).unwrap();
    }
    writer.end().unwrap()
}

/// What an archive of a home has, apart from head and manifest.
fn inner(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = members(archive);
    members.pop().unwrap();
    members.remove(0);
    members
}

#[test]
fn what_is_saved_while_it_is_used_is_restored() {
    let home = Home::new();
    block_on(async {
        let key = UsageKey {
            hour: 7,
            app: "gone".parse().unwrap(),
            function: "main".parse().unwrap(),
            version: VersionId::new(1),
        };
        let used = Used { requests: 42, ..Used::default() };
        home.registry.add(vec![(key, used)]).await.unwrap();
    });
    fs::create_dir(home.path().join("sql")).unwrap();
    let notes = "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (7)";
    let _guests = testing::execute(&home.path().join("sql/notes.db"), notes);
    fs::write(home.path().join("cache/native"), "code").unwrap();
    fs::write(home.path().join("node.key.tmp"), "half").unwrap();
    fs::create_dir(home.path().join("logs")).unwrap();
    fs::write(home.path().join("logs/hello"), "lines").unwrap();
    fs::write(home.path().join("blobs/tmp/1"), "half").unwrap();
    assert!(home.path().join("state.db-wal").metadata().unwrap().len() > 0);

    let archive = archive_of(home.path());
    let paths: Vec<String> = members(&archive).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths[..3], ["faas-backup.json", "sql/notes.db", "state.db"]);
    assert_eq!(
        paths[3..5],
        [
            "admin.token",
            "blobs/sha256/3f/3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
        ]
    );
    assert_eq!(paths[6..], ["node.key", "manifest.json"], "{paths:?}");
    assert!(!home.path().join("backup.tmp").exists());

    let (_parent, restored) = try_restore(&archive).unwrap();
    assert_eq!(opened(&restored), home.state());
    assert_eq!(home.state().2, 42);
    for secret in ["admin.token", "node.key"] {
        let read = |dir: &Path| fs::read(dir.join(secret)).unwrap();
        assert_eq!(read(&restored), read(home.path()));
    }
    assert_eq!(testing::number(&restored.join("sql/notes.db"), "SELECT x FROM t"), 7);
    let mode = |path: &str| restored.join(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(["", "blobs", "blobs/sha256", "sql"].map(mode), [0o700; 4]);
    assert_eq!(["state.db", "admin.token", "node.key", "sql/notes.db"].map(mode), [0o600; 4]);
}

#[test]
fn an_artifact_is_sent_as_it_is_whatever_it_is() {
    let home = Home::new();
    // A site may have a database among its files, and one that is called as if it were a log.
    let database = home.path().join("database");
    let sql = "CREATE TABLE t (x); INSERT INTO t VALUES (1); DELETE FROM t";
    drop(testing::execute(&database, sql));
    let bytes = fs::read(&database).unwrap();
    fs::remove_file(database).unwrap();
    home.deploy("site", &[&bytes]);
    let (_parent, restored) = try_restore(&archive_of(home.path())).unwrap();
    assert_eq!(opened(&restored), home.state());
}

#[test]
fn a_changed_bit_is_noticed_or_harmless() {
    let home = Home::new();
    let archive = archive_of(home.path());
    let (mut noticed, mut harmless) = (0, 0);
    for at in (0..archive.len()).step_by(331) {
        let mut changed = archive.clone();
        changed[at] ^= 1 << (at % 8);
        match try_restore(&changed) {
            Err(RestoreError::Damaged(_) | RestoreError::NotABackup(_)) => noticed += 1,
            Err(error) => panic!("byte {at}: {error}"),
            Ok((_parent, restored)) => {
                assert_eq!(opened(&restored), home.state(), "byte {at}");
                harmless += 1;
            }
        }
    }
    // What fills the last block of a member means nothing.
    assert!(noticed > 3 * harmless, "{noticed} noticed, {harmless} harmless");
}

#[test]
fn a_part_of_an_archive_is_none() {
    let archive = archive_of(Home::new().path());
    // The last two blocks are zeros and say nothing.
    let whole = archive.len() - 1024;
    for length in (0..whole).step_by(509).chain((0..whole).step_by(512)).chain([whole - 1]) {
        match try_restore(&archive[..length]).err() {
            Some(RestoreError::Damaged(_)) => {}
            Some(RestoreError::NotABackup(_)) if length < 2048 => {}
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    try_restore(&archive[..whole]).unwrap();
}

#[test]
fn what_is_something_else_is_refused() {
    let mut newer = archive_with(&[]);
    let format = newer.windows(11).position(|window| window == b"\"format\": 1").unwrap();
    newer[format + 10] = b'2';
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_size(1);
    tar.append_data(&mut header, "notes.txt", &b"x"[..]).unwrap();
    let other = tar.into_inner().unwrap();
    for (bytes, part) in [
        (&b""[..], "it is empty"),
        (&[0; 4096], "it is empty"),
        (b"not an archive, but long enough".repeat(99).leak(), "not a backup"),
        (&[0x1f, 0x8b, 8, 0], "not a backup"),
        (&other, "something else"),
        (&newer, "format 2"),
    ] {
        let Some(RestoreError::NotABackup(text)) = try_restore(bytes).err() else {
            panic!("{part}");
        };
        assert!(text.contains(part), "{text}");
    }
}

/// An archive with one more entry, as only somebody else would write it.
fn with_entry(kind: EntryType, path: &str, link: Option<&str>) -> Vec<u8> {
    let whole = archive_of(Home::new().path());
    let mut tar = tar::Builder::new(Vec::new());
    for (number, (name, content)) in members(&whole).iter().enumerate() {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, &content[..]).unwrap();
        if number == 1 {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            let bytes = &mut header.as_mut_bytes()[..path.len()];
            bytes.copy_from_slice(path.as_bytes());
            if let Some(link) = link {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_size(1);
            header.set_mode(0o777);
            header.set_cksum();
            tar.append(&header, &b"x"[..]).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

#[test]
fn nothing_is_written_elsewhere() {
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().join("evil");
    let absolute = absolute.to_str().unwrap();
    let file = EntryType::Regular;
    for (kind, path, link) in [
        (file, "../evil", None),
        (file, "blobs/../../evil", None),
        (file, "./evil", None),
        (file, "blobs//evil", None),
        (file, "evil/", None),
        (file, "..", None),
        (file, absolute, None),
        (file, "cache/evil", None),
        (file, "lock", None),
        (file, "blobs/tmp/evil", None),
        (file, "logs/evil", None),
        (EntryType::Symlink, "evil", Some(absolute)),
        (EntryType::Link, "evil", Some("../evil")),
        (EntryType::Directory, "evil", None),
        (EntryType::Fifo, "evil", None),
        (EntryType::Char, "evil", None),
        (EntryType::GNULongName, "evil", None),
        (EntryType::XHeader, "evil", None),
        // It is not in the manifest, or there twice.
        (file, "evil", None),
        (file, "state.db", None),
    ] {
        let refused = try_restore(&with_entry(kind, path, link)).err();
        assert!(matches!(refused, Some(RestoreError::Damaged(_))), "{kind:?} {path}: {refused:?}");
        assert_eq!(names(outside.path()), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn one_that_lacks_something_is_refused() {
    let whole = inner(&archive_of(Home::new().path()));
    try_restore(&archive_with(&whole)).unwrap();
    for lacking in ["state.db", "admin.token", "node.key", "blobs/"] {
        let rest: Vec<_> =
            whole.iter().filter(|(path, _)| !path.starts_with(lacking)).cloned().collect();
        let Some(RestoreError::Damaged(text)) = try_restore(&archive_with(&rest)).err() else {
            panic!("{lacking}");
        };
        assert!(text.contains("is missing"), "{text}");
    }
    // Artifacts are looked for that only a blob names, too.
    let home = Home::new();
    home.deploy_large("large", b"only there");
    let large = inner(&archive_of(home.path()));
    try_restore(&archive_with(&large)).unwrap();
    let lacking = Digest::of(b"only there").to_string();
    let rest: Vec<_> = large.into_iter().filter(|(path, _)| !path.contains(&lacking)).collect();
    let Some(RestoreError::Damaged(text)) = try_restore(&archive_with(&rest)).err() else {
        panic!();
    };
    assert!(text.contains(&lacking), "{text}");
    let mut other = whole;
    let blob = other.iter_mut().find(|(path, _)| path.starts_with("blobs/")).unwrap();
    blob.1 = b"another".to_vec();
    let Some(RestoreError::Damaged(text)) = try_restore(&archive_with(&other)).err() else {
        panic!();
    };
    assert!(text.contains("not what its name says"), "{text}");
}

#[test]
fn nothing_is_restored_over_something_else() {
    let archive = archive_of(Home::new().path());
    let parent = tempfile::tempdir().unwrap();
    let target = |name: &str| parent.path().join(name);
    let restore_to =
        |path: PathBuf| block_on(restore(Box::new(Cursor::new(archive.clone())), path));
    fs::create_dir(target("full")).unwrap();
    fs::write(target("full/note"), "mine").unwrap();
    let refused = restore_to(target("full")).unwrap_err();
    assert!(matches!(refused, RestoreError::InTheWay(_)), "{refused}");
    assert!(refused.to_string().contains("not empty"), "{refused}");
    assert_eq!(names(&target("full")), ["note"]);
    fs::write(target("file"), "mine").unwrap();
    symlink(target("nowhere"), target("dangling")).unwrap();
    for taken in ["file", "dangling"] {
        let refused = restore_to(target(taken)).unwrap_err();
        assert!(matches!(refused, RestoreError::Failed(_)), "{refused}");
    }
    assert_eq!(names(parent.path()), ["dangling", "file", "full"]);
    // Empty ones are filled, through links too, and missing ones are made.
    fs::create_dir(target("empty")).unwrap();
    fs::create_dir(target("real")).unwrap();
    symlink(target("real"), target("link")).unwrap();
    for free in ["empty", "link", "a/b/c"] {
        restore_to(target(free)).unwrap();
        assert_eq!(opened(&target(free)).1.len(), 2, "{free}");
    }
    assert!(fs::symlink_metadata(target("link")).unwrap().is_symlink());
}

#[test]
fn a_place_that_cannot_be_replaced_is_filled() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("mounted");
    let temp = target.join(".restore-1");
    fs::create_dir_all(temp.join("blobs/sha256")).unwrap();
    for file in ["state.db", "node.key", "blobs/sha256/x"] {
        fs::write(temp.join(file), file).unwrap();
    }
    let place = |temp: &Path| Place {
        target: target.clone(),
        temp: Temp { path: temp.to_owned() },
        is_inside: true,
    };
    assert_eq!(place(&temp).take().unwrap(), target);
    assert_eq!(names(&target), ["blobs", "node.key", "state.db"]);
    // When one of its parts cannot be moved, the others go back.
    let temp = target.join(".restore-2");
    fs::create_dir_all(temp.join("a")).unwrap();
    fs::create_dir_all(temp.join("node.key")).unwrap();
    place(&temp).take().unwrap_err();
    assert_eq!(names(&target), ["blobs", "node.key", "state.db"]);
}

#[test]
fn a_member_that_shrinks_breaks_the_archive_off() {
    let mut writer = Writer::begin(Vec::new(), clock::now()).unwrap();
    let error = writer.add("node.key", 5, &b"four"[..]).unwrap_err();
    assert!(error.to_string().contains("has 4 bytes, not 5"), "{error}");
    // One that grows is cut to what was announced.
    let mut writer = Writer::begin(Vec::new(), clock::now()).unwrap();
    writer.add("node.key", 5, &b"five and more"[..]).unwrap();
    let archive = writer.end().unwrap();
    assert_eq!(inner(&archive), [("node.key".to_owned(), b"five ".to_vec())]);
}

#[test]
fn paths_may_be_long() {
    let home = Home::new();
    // A certificate is a file named by its domain.
    let domain = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "example.com".into()].join(".");
    let path = format!("acme/0123456789abcdef/{domain}.pem");
    fs::create_dir_all(home.path().join("acme/0123456789abcdef")).unwrap();
    fs::write(home.path().join(&path), "certificate").unwrap();
    let archive = archive_of(home.path());
    let (_parent, restored) = try_restore(&archive).unwrap();
    assert_eq!(fs::read(restored.join(&path)).unwrap(), b"certificate");
    // Longer than any of ours, and as somebody else would write a short one.
    for (length, fits) in [(99, true), (101, true), (1024, true), (1025, false)] {
        let mut members = inner(&archive);
        let folders = "f/".repeat(length / 2 - 1);
        let name = format!("{folders}{}", "x".repeat(length - folders.len()));
        members.push((name, b"x".to_vec()));
        assert_eq!(try_restore(&archive_with(&members)).is_ok(), fits, "{length}");
    }
    let mut other = archive_with(&inner(&archive));
    let long = other.windows(13).position(|bytes| bytes == b"././@LongLink").unwrap() + 512;
    other[long + 20..long + 512].fill(0);
    assert!(matches!(try_restore(&other), Err(RestoreError::Damaged(_))));
}

/// A sink that keeps nothing.
struct Nowhere;

impl archive::Sink for Nowhere {
    fn take(&mut self, _path: &str, _content: &mut dyn Read) -> Result<(), RestoreError> {
        Ok(())
    }
}

#[test]
fn what_a_sink_does_not_read_is_not_taken_for_read() {
    let archive = archive_of(Home::new().path());
    assert!(matches!(archive::read(&archive[..], &mut Nowhere), Err(RestoreError::Damaged(_))));
}
