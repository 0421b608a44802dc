//! A node that starts again has everything it had, and compiles none of it anew.

use faas_tests::{
    Node, Request,
    artifacts::{Guest, says},
    eventually,
};
use std::{collections::BTreeSet, time::Duration};

const FUNCTIONS: usize = 100;

/// A function of the hundred: what it is, and the request that tells it from the others.
struct Deployed {
    app: String,
    wasm: Vec<u8>,
    path: String,
    answer: String,
}

impl Deployed {
    /// Most are small, some are of every kind.
    fn new(number: usize) -> Self {
        let app = format!("app-{number}");
        if !number.is_multiple_of(12) {
            let answer = format!("I am {number}");
            let path = format!("/{app}/");
            return Self { wasm: says(&answer), app, path, answer };
        }
        let guest = Guest::ALL[number / 12 % Guest::ALL.len()];
        Self {
            wasm: with_custom_section(guest.wasm(), number),
            path: format!("/{app}/count"),
            answer: "1".to_owned(),
            app,
        }
    }

    #[track_caller]
    fn check(&self, node: &Node) {
        let answer = node.get(&self.path).expect(200);
        assert_eq!(answer.text().trim(), self.answer, "{}", self.app);
        assert_eq!(answer.header("x-faas-version"), Some("v1"));
    }
}

/// The same program as another artifact: modules and components may end with sections that mean
/// nothing.
fn with_custom_section(mut wasm: Vec<u8>, number: usize) -> Vec<u8> {
    let content = format!("{number:03}");
    // Section 0; its size; the length of its name; its name; its content.
    wasm.extend([0, 5, 1, b'n']);
    wasm.extend(content.bytes());
    wasm
}

fn compiled(node: &Node) -> f64 {
    node.metrics().sum("faas_compile_seconds_count", &[])
}

/// Everything is there, right from the first request on, and nothing was compiled for it.
fn check(node: &Node, functions: &[Deployed]) {
    assert!(node.metrics().has("faas_compile_seconds_count"));
    assert_eq!(compiled(node), 0.0, "before the first request");
    let apps = node.api(Request::get("/v1/apps")).expect(200).json();
    let apps = apps["apps"].as_array().unwrap().iter().map(|app| app["name"].as_str().unwrap());
    let expected = functions.iter().map(|function| function.app.as_str());
    assert_eq!(apps.collect::<BTreeSet<_>>(), expected.collect());
    for function in functions {
        function.check(node);
    }
    assert_eq!(compiled(node), 0.0, "after a request to each");
    let metrics = node.metrics();
    assert_eq!(metrics.sum("faas_functions_loaded", &[]), functions.len() as f64);
    assert_eq!(metrics.sum("faas_cold_starts_total", &[]), functions.len() as f64);
}

#[test]
fn a_hundred_functions_come_back_without_compiling() {
    let mut node = Node::with("[deploy]\ncompile_concurrency = 2\n");
    let functions: Vec<Deployed> = (0..FUNCTIONS).map(Deployed::new).collect();
    for function in &functions {
        node.deploy(&function.app, &function.wasm);
    }
    assert_eq!(compiled(&node), FUNCTIONS as f64, "their digests differ");
    assert_eq!(node.files("blobs/sha256").len(), FUNCTIONS);
    node.restart();
    check(&node, &functions);
    node.kill();
    node.launch();
    check(&node, &functions);
}

/// Native code is rebuilt where it is missing, and only there: by the first request or in the
/// background, whichever comes first, and once.
#[test]
fn what_is_missing_is_made_anew() {
    let mut node = Node::start();
    node.deploy("one", &says("one"));
    node.deploy("two", &says("two"));
    let digest = faas_api::Digest::of(&says("one")).to_string();
    node.signal(rustix::process::Signal::TERM);
    assert!(node.wait().success());
    for file in node.files("cache") {
        if file.display().to_string().contains(&digest) {
            std::fs::remove_file(file).unwrap();
        }
    }
    node.launch();
    assert_eq!(node.get("/two/").expect(200).text().trim(), "two");
    assert_eq!(node.get("/one/").expect(200).text().trim(), "one");
    eventually("it is counted", Duration::from_secs(20), || (compiled(&node) >= 1.0).then_some(()));
    assert_eq!(compiled(&node), 1.0);
}

#[test]
fn versions_and_traffic_come_back() {
    let mut node = Node::start();
    for version in ["one", "two", "three"] {
        node.deploy("hello", &says(version));
    }
    node.deploy("gone", &says("gone"));
    node.cli(["rollback", "hello", "v2"]).run().expect(0);
    node.cli(["delete", "gone", "-y"]).run().expect(0);
    let state = |node: &Node| {
        let get = |path: &str| node.api(Request::get(path)).expect(200).json();
        let (app, versions) = (get("/v1/apps/hello"), get("/v1/apps/hello/versions"));
        let numbers = versions["versions"].as_array().unwrap().iter();
        let rest = ["version", "created_at", "created_by", "live_percent", "size"];
        let numbers = numbers.map(|version| rest.map(|name| version[name].clone()));
        (app["traffic"].clone(), app["functions"].clone(), numbers.collect::<Vec<_>>())
    };
    let (before, token) = (state(&node), node.token());
    for _ in 0..2 {
        node.restart();
        assert_eq!(state(&node), before);
        assert_eq!(node.token(), token);
        assert_eq!(node.get("/hello/").expect(200).text().trim(), "two");
        assert_eq!(node.get("/hello@v3/").expect(200).text().trim(), "three");
        node.get("/gone/").failure(faas_api::ErrorCode::NotFound);
    }
    // Numbers are never used twice.
    assert_eq!(node.deploy("hello", &says("four")).version.to_string(), "v4");
}
