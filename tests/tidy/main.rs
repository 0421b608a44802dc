//! Rules of this repository that no compiler checks: sizes, who may name whom, and documents that
//! tell the truth.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program; its helpers stand outside of `#[test]` functions"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Lines of a source file, without its tests. See ARCHITECTURE.md and `.clippy.toml` for more.
const MAX_FILE_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What git tracks below a folder, as paths from the root with their text.
fn tracked(folder: &str, ending: &str) -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", folder])
        .current_dir(root())
        .output()
        .expect("git lists the files of this repository");
    assert!(listed.status.success(), "git ls-files failed");
    let names = String::from_utf8(listed.stdout).unwrap();
    names
        .lines()
        .filter(|name| name.ends_with(ending))
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?)))
        .collect()
}

/// The part of a source file that is not its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.contains("/conformance/")
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let offences: Vec<String> = tracked(".", ".rs")
        .iter()
        .map(|(name, text)| (name, without_tests(text).lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    report(&format!("a file has at most {MAX_FILE_LINES} lines besides its tests"), &offences);
}

/// The modules of the runtime by level: each may use its own level and those below.
const LEVELS: [&[&str]; 6] = [
    &["storage", "telemetry", "shutdown", "clock", "request_id"],
    &["host", "tls"],
    &["engine", "functions", "tokens", "configuration"],
    &["deploy", "backup"],
    &["ingress", "admin"],
    &["node", "listeners", "config", "lib"],
];

fn level(module: &str) -> usize {
    let level = LEVELS.iter().position(|modules| modules.contains(&module));
    level.unwrap_or_else(|| panic!("module `{module}` of the runtime has no level; give it one"))
}

/// The modules of the crate that a `use crate::…` names, wherever in the braces.
fn used_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let first = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => used.push(first(&std::mem::take(&mut item))),
                    _ => {}
                }
                if !(c == ',' && depth == 0) {
                    item.push(c);
                }
            }
            used.push(first(&item));
        } else {
            used.push(first(rest));
        }
    }
    used.retain(|module| module.chars().next().is_some_and(char::is_lowercase));
    used
}

#[test]
fn modules_look_down_only() {
    let mut offences = Vec::new();
    for (name, text) in tracked("runtime/src", ".rs") {
        let inside = name.strip_prefix("runtime/src/").unwrap();
        let module = inside.split(['/', '.']).next().unwrap();
        for used in used_modules(without_tests(&text)) {
            // Modules own their settings, and the errors about them are one type.
            let settings = matches!(used.as_str(), "config" | "run");
            if !is_test(&name) && !settings && level(&used) > level(module) {
                offences.push(format!("{name}: `{module}` uses `{used}`, which is above it"));
            }
        }
    }
    report("a module uses its own level and those below", &offences);
}

#[test]
fn libraries_stay_in_their_rooms() {
    let rooms: [(&str, &[&str]); 5] = [
        ("wasmtime", &["engine/", "host/"]),
        ("hickory_resolver", &["host/outbound/"]),
        ("hyper", &["ingress/", "admin/", "host/outbound/"]),
        ("rusqlite", &["storage/"]),
        ("rustls", &["tls/", "host/outbound/"]),
    ];
    let mut offences = Vec::new();
    for (name, text) in tracked("runtime/src", ".rs") {
        let inside = name.strip_prefix("runtime/src/").unwrap();
        for (library, rooms) in rooms {
            let named = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("{library}::")) || code.contains(&format!("use {library}"))
            });
            if named && !rooms.iter().any(|room| inside.starts_with(room)) {
                offences.push(format!("{name} names `{library}`"));
            }
        }
    }
    report("a library is named only in the rooms that are its business", &offences);
}

#[test]
fn the_shipped_configuration_is_the_default() {
    let text = fs::read_to_string(root().join("config.toml")).unwrap();
    let shipped: faas_runtime::Config = toml::from_str(&text).unwrap();
    assert_eq!(shipped, faas_runtime::Config::default());
    let defaults = toml::Table::try_from(faas_runtime::Config::default()).unwrap();
    let named: toml::Table = text.parse().unwrap();
    assert_eq!(named, defaults, "config.toml names every setting");
    for (index, line) in text.lines().enumerate() {
        if line.contains(" = ") && !line.starts_with('#') {
            let before = text.lines().nth(index - 1).unwrap();
            assert!(before.starts_with('#'), "config.toml: `{line}` has no comment above it");
        }
    }
}

#[test]
fn the_engines_release_is_the_one_that_is_locked() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let after = lock.split("name = \"wasmtime\"\nversion = \"").nth(1).unwrap();
    let locked = after.split('"').next().unwrap();
    let pool = fs::read_to_string(root().join("runtime/src/engine/pool.rs")).unwrap();
    assert!(
        pool.contains(&format!("ENGINE_RELEASE: &str = \"{locked}\"")),
        "runtime/src/engine/pool.rs: ENGINE_RELEASE is not {locked}"
    );
}

#[test]
fn every_error_code_is_documented() {
    let page = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    for code in faas_api::ErrorCode::ALL {
        let row = format!("| `{code}` | {} |", code.status());
        assert!(page.contains(&row), "docs/errors.md lacks a row that begins `{row}`");
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut offences = Vec::new();
    for (name, text) in tracked(".", ".md") {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let outside = file.contains("://") || file.is_empty();
            let folder = root().join(&name).parent().unwrap().to_owned();
            if !outside && !folder.join(file).exists() {
                offences.push(format!("{name}: {link}"));
            }
        }
    }
    report("a link leads to a file that is there", &offences);
}

#[test]
fn nothing_tells_where_it_was_written() {
    // In pieces, so that this file does not offend itself.
    let words = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("index.crates", ".io"),
        concat!("static.crates", ".io"),
        concat!("registry.npmjs", ".org"),
        concat!("files.pythonhosted", ".org"),
        concat!("deb.debian", ".org"),
    ];
    let mut offences = Vec::new();
    for (name, text) in tracked(".", "") {
        for word in words.iter().filter(|word| text.contains(**word)) {
            offences.push(format!("{name} contains `{word}`"));
        }
    }
    report("no file names a home directory or a registry's host", &offences);
}
