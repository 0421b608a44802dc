//! Notices that the files of a project change.
//!
//! The system's events only say that it is time to look; what counts is whether a file's content
//! differs from what it was. So an editor that writes a file twice, or a build that touches its own
//! sources, asks for one more build at most.

use crate::{
    dotenv,
    error::{CliError, Result},
    project::{MANIFEST, Project},
};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::mpsc;

/// Quiet for so long, a change is complete.
const QUIET: Duration = Duration::from_millis(100);
/// Larger files are compared by size and time, not by content.
const READ_AT_MOST: u64 = 1024 * 1024;
/// Folders that builds write to.
const IGNORED: [&str; 4] = ["target", "node_modules", "dist", "__pycache__"];

/// Watches a project until the receiver is dropped. Each message is a file that changed.
pub(crate) fn changes(project: &Project) -> Result<mpsc::UnboundedReceiver<PathBuf>> {
    let (wake, woken) = mpsc::unbounded_channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too, and we read.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            // Nobody listens any more: the watch is about to end.
            let _ = wake.send(());
        }
    });
    let watcher = watcher
        .map_err(|error| CliError::failed(format!("cannot watch the project's files: {error}")))?;
    let mut watch = Watch {
        files: Files::of(project),
        watcher,
        watched: BTreeSet::new(),
        seen: BTreeMap::new(),
    };
    watch.seen = watch.look();
    let (report, changes) = mpsc::unbounded_channel();
    tokio::spawn(watch.run(woken, report));
    Ok(changes)
}

struct Watch {
    files: Files,
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    seen: BTreeMap<PathBuf, u64>,
}

impl Watch {
    async fn run(
        mut self,
        mut woken: mpsc::UnboundedReceiver<()>,
        report: mpsc::UnboundedSender<PathBuf>,
    ) {
        loop {
            tokio::select! {
                event = woken.recv() => if event.is_none() { return },
                () = report.closed() => return,
            }
            while let Ok(Some(())) = tokio::time::timeout(QUIET, woken.recv()).await {}
            let now = self.look();
            if let Some(path) = difference(&self.seen, &now)
                && report.send(path).is_err()
            {
                return;
            }
            self.seen = now;
        }
    }

    /// The files as they are, after making sure that every folder of theirs is watched.
    fn look(&mut self) -> BTreeMap<PathBuf, u64> {
        let (folders, files) = self.files.walk();
        for folder in folders.difference(&self.watched) {
            // A folder that has just gone, or one too many for the system: the rest still counts.
            let _ = self.watcher.watch(folder, RecursiveMode::NonRecursive);
        }
        self.watched = folders;
        files
    }
}

/// Which files of a project count.
struct Files {
    dir: PathBuf,
    roots: Vec<PathBuf>,
    /// What the build makes, which is no reason to build unless it is named as one.
    made: Vec<PathBuf>,
}

impl Files {
    fn of(project: &Project) -> Self {
        let mut roots = project.watch.clone();
        roots.push(project.dir.join(MANIFEST));
        roots.extend(dotenv::dev::files(&project.dir));
        let sources = project.functions.iter().map(|function| function.source.clone());
        let mut made: Vec<PathBuf> = Vec::new();
        match project.build_command {
            Some(_) => made.extend(sources.filter(|made| !roots.contains(made))),
            None => roots.extend(sources),
        }
        Self { dir: project.dir.clone(), roots, made }
    }

    /// The folders to watch, and what is in each file.
    fn walk(&self) -> (BTreeSet<PathBuf>, BTreeMap<PathBuf, u64>) {
        let mut folders = BTreeSet::from([self.dir.clone()]);
        let mut files = BTreeMap::new();
        let mut rest = self.roots.clone();
        while let Some(path) = rest.pop() {
            if self.made.contains(&path) {
                continue;
            }
            // Links to folders are not followed, so there is no way to walk in a circle.
            let followed = std::fs::symlink_metadata(&path)
                .and_then(|link| if link.is_dir() { Ok(link) } else { std::fs::metadata(&path) });
            match followed {
                Ok(found) if found.is_file() => {
                    folders.extend(path.parent().map(Path::to_owned));
                    files.insert(path.clone(), print_of(&path, &found));
                }
                Ok(found) if found.is_dir() && !path.is_symlink() => {
                    rest.extend(entries(&path));
                    folders.insert(path);
                }
                _ => {}
            }
        }
        (folders, files)
    }
}

/// What is in a folder, except what tools and editors keep there for themselves.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        !name.starts_with('.') && !name.ends_with('~') && !IGNORED.contains(&name.as_ref())
    });
    ours.map(|entry| entry.path()).collect()
}

fn print_of(path: &Path, found: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    match std::fs::read(path) {
        Ok(content) if found.len() <= READ_AT_MOST => content.hash(&mut hasher),
        _ => (found.len(), found.modified().ok()).hash(&mut hasher),
    }
    hasher.finish()
}

/// A file that is in one only, or not the same in both.
fn difference(before: &BTreeMap<PathBuf, u64>, now: &BTreeMap<PathBuf, u64>) -> Option<PathBuf> {
    let changed = now.iter().find(|(path, print)| before.get(*path) != Some(*print));
    let gone = || before.keys().find(|path| !now.contains_key(*path));
    changed.map(|(path, _)| path).or_else(gone).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::ProjectFunction;

    fn project(dir: &Path, command: Option<&str>) -> Project {
        Project {
            dir: dir.to_owned(),
            app: "a".parse().unwrap(),
            environment: None,
            build_command: command.map(str::to_owned),
            watch: vec![dir.to_owned()],
            domains: Vec::new(),
            health: None,
            functions: vec![ProjectFunction {
                name: "main".parse().unwrap(),
                source: dir.join("a.wasm"),
                reuse: None,
                settings: faas_api::Settings::default(),
            }],
        }
    }

    fn write(dir: &Path, file: &str, text: &str) {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn what_counts() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        for file in ["faas.toml", "a.wasm", "src/lib.rs", "target/x", ".git/x", "src/.lib.rs.swp"] {
            write(dir, file, "1");
        }
        let names = |project: &Project| {
            let (_, files) = Files::of(project).walk();
            let names = files.keys().map(|path| path.strip_prefix(dir).unwrap().to_owned());
            names.map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&project(dir, Some("make"))), ["faas.toml", "src/lib.rs"]);
        assert_eq!(names(&project(dir, None)), ["a.wasm", "faas.toml", "src/lib.rs"]);
    }

    #[tokio::test]
    async fn a_change_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        write(dir, "faas.toml", "1");
        write(dir, "src/lib.rs", "1");
        let mut changes = changes(&project(dir, Some("make"))).unwrap();
        write(dir, "src/lib.rs", "1");
        write(dir, "src/deep/new.rs", "1");
        assert_eq!(changes.recv().await.unwrap(), dir.join("src/deep/new.rs"));
        write(dir, "src/deep/new.rs", "2");
        assert_eq!(changes.recv().await.unwrap(), dir.join("src/deep/new.rs"));
        std::fs::remove_file(dir.join("src/lib.rs")).unwrap();
        assert_eq!(changes.recv().await.unwrap(), dir.join("src/lib.rs"));
        assert!(changes.try_recv().is_err());
    }
}
