//! Programs that the engine is not built for, and native code on disk that is not what it was.

use faas_api::{Digest, ErrorCode};
use faas_tests::{
    Node,
    artifacts::{Guest, assemble, says},
};
use rustix::process::Signal;
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

/// What a function gains nothing by, and a sandbox has to carry: refused when it is deployed, and the
/// reason is told.
#[test]
fn parts_of_webassembly_that_are_left_out() {
    let node = Node::start();
    let start = r#"(func (export "_start"))"#;
    let component = |core: &str| {
        format!(
            r#"(component
                (core module $m {core} (func (export "run") (result i32) (i32.const 0)))
                (core instance $i (instantiate $m))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $run (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $run)))"#
        )
    };
    for (part, core) in [
        ("gc", "(type (struct (field i32)))"),
        ("gc", "(type (array (mut i8)))"),
        ("gc", "(table 1 externref)"),
        ("shared memory", "(memory 1 1 shared)"),
        ("memory64", "(memory i64 1) (memory i64 1)"),
    ] {
        let module = format!("(module {core} {start})");
        let shared = matches!(part, "memory64");
        for text in [module, component(core)] {
            let answer = node.try_deploy("odd", &assemble(&text));
            if shared {
                // Nothing speaks against a second, or a large, memory within the limits.
                assert!(matches!(answer.status, 201 | 422), "{text}: {answer:?}");
                continue;
            }
            let error = answer.failure(ErrorCode::CompileFailed);
            assert!(error.detail.is_some_and(|detail| detail.len() > 10), "{text}: {answer:?}");
        }
    }
    // The control: without them it is a program.
    node.deploy("plain", &assemble(&component("(memory 1)")));
    node.deploy("module", &assemble(&format!("(module (memory 1) {start})")));
}

/// What was done to a file of native code.
type Harm = (&'static str, fn(&Path, &Path));

fn flip(file: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(file).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

const HARMS: [Harm; 8] = [
    ("a bit in the middle", |file, _| flip(file, |length| length / 2)),
    ("the first bit", |file, _| flip(file, |_| 0)),
    ("the last bit", |file, _| flip(file, |length| length - 1)),
    ("cut off", |file, _| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("empty", |file, _| fs::write(file, b"").unwrap()),
    // Good code, of another function; in one case of the other engine, for WASI 0.3.
    ("another function's", |file, other| {
        fs::copy(other, file).unwrap();
    }),
    ("a link", |file, other| {
        fs::remove_file(file).unwrap();
        symlink(other, file).unwrap();
    }),
    ("writable for everybody", |file, _| {
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    }),
];

#[test]
fn native_code_that_was_tampered_with_is_never_loaded() {
    let mut node = Node::with_guests("");
    let apps: Vec<(String, String)> =
        (0..HARMS.len()).map(|at| (format!("app{at}"), format!("text {at}"))).collect();
    for (app, text) in &apps {
        node.deploy(app, &says(text));
    }
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    let code = |wasm: &[u8]| {
        let name = format!("{}.cwasm", Digest::of(wasm));
        let files = node.files("cache");
        files.into_iter().find(|file| file.ends_with(&name)).unwrap()
    };
    // Elsewhere, so that a link leads out of the folder, and a copy is of what was good.
    let other = node.home().join("other.cwasm");
    fs::copy(code(&says(&apps[0].1)), &other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    // The first is harmed last, by a bit.
    for ((_, text), (_, harm)) in apps.iter().zip(HARMS).rev() {
        harm(&code(&says(text)), &other);
    }
    // The code of the other engine.
    let (two, three) = (code(&Guest::Http02.wasm()), code(&Guest::Http03.wasm()));
    fs::rename(&two, node.home().join("two.cwasm")).unwrap();
    fs::copy(&three, &two).unwrap();
    fs::copy(node.home().join("two.cwasm"), &three).unwrap();
    node.launch();
    for ((app, text), (what, _)) in apps.iter().zip(HARMS) {
        let answer = node.get(&format!("/{app}/"));
        assert_eq!((answer.status, answer.text().trim()), (200, &**text), "{what}");
    }
    for guest in [Guest::Http02, Guest::Http03] {
        let answer = node.get(&format!("/{}/count", guest.app()));
        assert_eq!((answer.status, answer.text().trim()), (200, "1"), "{guest:?}");
    }
    let rejected = node.metrics().sum("faas_cache_rejected_total", &[]);
    assert_eq!(rejected, HARMS.len() as f64 + 2.0);
    // All of it was made anew, and is good.
    assert!(node.files("cache").iter().all(|file| !file.is_symlink()));
    node.restart();
    for (app, text) in &apps {
        assert_eq!(node.get(&format!("/{app}/")).expect(200).text().trim(), text);
    }
    assert_eq!(node.metrics().sum("faas_cache_rejected_total", &[]), 0.0);
}
