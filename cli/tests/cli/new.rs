//! `faas new`

use crate::command::Faas;
use serde_json::json;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

#[test]
fn every_language() {
    for lang in ["rust", "js", "python", "c"] {
        let faas = Faas::new();
        let output = faas.run(&["new", "--lang", lang, "my-app"]).exits(0);
        assert_eq!(output.stdout, "");
        assert!(output.stderr.starts_with("   created my-app/  (faas.toml, "), "{output:?}");
        assert!(output.stderr.ends_with("   next: cd my-app && faas dev\n"), "{output:?}");
        let project = faas.dir().join("my-app");
        assert!(project.join(".gitignore").is_file());
        for file in files(&project) {
            let text = std::fs::read_to_string(project.join(&file)).unwrap();
            assert!(!text.contains("{{"), "{lang}: {}", file.display());
            assert_ne!(file.extension().unwrap_or_default(), "tmpl");
        }
        // The manifest is one we can read: what is missing is only what the build would make.
        let output = faas.run(&["-C", "my-app", "deploy", "--skip-build"]).exits(2);
        assert!(output.stderr.contains(".wasm`: no such file"), "{output:?}");
    }
}

/// Every file that is stored for a language is also written.
#[test]
fn templates_are_complete() {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    for (lang, shared) in [("rust", false), ("js", true), ("python", true), ("c", false)] {
        let faas = Faas::new();
        faas.run(&["new", "--lang", lang, "my-app"]).exits(0);
        let mut expected = files(&templates.join(lang));
        if shared {
            let deps = files(&templates.join("wit"));
            expected.extend(deps.iter().map(|file| Path::new("wit/deps").join(file)));
        }
        let expected: BTreeSet<PathBuf> = expected.iter().map(|file| installed(file)).collect();
        assert_eq!(files(&faas.dir().join("my-app")), expected, "{lang}");
    }
}

#[test]
fn rust_is_the_default_and_finds_the_sdk() {
    let faas = Faas::new();
    let data = &faas.run(&["new", "sub/my-app", "-o", "json"]).exits(0).json()["data"];
    assert_eq!(data["app"], json!("my-app"));
    assert_eq!(data["path"], json!("sub/my-app"));
    assert!(data["files"].as_array().unwrap().contains(&json!(".gitignore")));
    let read = |file: &str| std::fs::read_to_string(faas.dir().join("sub/my-app").join(file));
    assert!(read("faas.toml").unwrap().contains("release/my_app.wasm"));
    // This binary was built in the repository, so the SDK is the one beside it.
    assert!(read("Cargo.toml").unwrap().contains("faas-sdk = { path = \"/"));
}

#[test]
fn nothing_is_overwritten() {
    let faas = Faas::new().file("taken/file", "mine");
    let output = faas.run(&["new", "taken"]).exits(5);
    assert!(output.stderr.contains("not empty"), "{output:?}");
    assert_eq!(files(&faas.dir().join("taken")), BTreeSet::from([PathBuf::from("file")]));
    std::fs::create_dir(faas.dir().join("empty")).unwrap();
    faas.run(&["new", "empty"]).exits(0);
}

#[test]
fn the_folder_names_the_app() {
    let faas = Faas::new();
    for name in ["My_App", "www", "..", "a--b"] {
        let output = faas.run(&["new", name]).exits(2);
        assert!(output.stderr.contains("cannot name an app"), "{output:?}");
    }
    assert_eq!(files(&faas.dir()), BTreeSet::new());
}

fn installed(stored: &Path) -> PathBuf {
    match stored.to_str().unwrap() {
        "gitignore.tmpl" => PathBuf::from(".gitignore"),
        path => PathBuf::from(path.strip_suffix(".tmpl").unwrap_or(path)),
    }
}

/// The files below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut rest = vec![folder.to_owned()];
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            rest.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.insert(path.strip_prefix(folder).unwrap().to_owned());
        }
    }
    files
}
