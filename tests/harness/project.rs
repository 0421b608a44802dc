//! Projects on disk: a manifest and artifacts, deployed by the command line.

use crate::{Cli, Node, Output};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A folder with a `faas.toml`.
pub struct Project {
    folder: TempDir,
}

impl Project {
    /// A project with this manifest.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn new(manifest: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.file("faas.toml", manifest)
    }

    /// With a file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(name, content);
        self
    }

    /// Writes a file anew.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The manifest.
    pub fn manifest(&self) -> PathBuf {
        self.folder.path().join("faas.toml")
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// `faas` in this folder.
    pub fn cli<'a>(&self, node: &Node, args: impl IntoIterator<Item = &'a str>) -> Cli {
        node.cli(args).dir(self.dir())
    }

    /// Runs `faas` in this folder.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn run<'a>(&self, node: &Node, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.cli(node, args).run()
    }

    /// Deploys it; the data of the answer.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn deploy(&self, node: &Node, more: &[&str]) -> Value {
        let args = ["deploy", "-o", "json"].into_iter().chain(more.iter().copied());
        self.run(node, args).expect(0).json()["data"].clone()
    }
}
