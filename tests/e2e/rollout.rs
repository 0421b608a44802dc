//! Versions come and go under load, and nobody notices but by their content.

use faas_tests::{
    Node, Project, Request,
    artifacts::{Guest, says},
    eventually,
    load::{Load, Outcome},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const RATE: u32 = 200;

fn project() -> Project {
    Project::new(
        "app.name = 'shop'\n[functions.web]\nsource = 'web.wasm'\n[functions.api]\n\
         source = 'api.wasm'\nroutes = ['/api/*']\nstrip_prefix = true\n[functions.more]\n\
         source = 'more.wasm'\nroutes = ['/more']\n",
    )
    .file("api.wasm", Guest::Http03.wasm())
    .file("more.wasm", Guest::Cgi01.wasm())
}

fn deploy(node: &Node, project: &Project, text: &str, more: &[&str]) -> String {
    project.write("web.wasm", says(text));
    project.deploy(node, more)["version"].as_str().unwrap().to_owned()
}

/// Waits until so many more requests were answered.
fn more(load: &Load, count: usize) {
    let wanted = load.so_far() + count;
    eventually("more answers", PATIENCE, || (load.so_far() >= wanted).then_some(()));
}

/// What was live when, as far as the administrator was told.
struct Told {
    /// Versions that may answer from this time on,
    from: Instant,
    /// until this one.
    versions: Vec<&'static str>,
}

fn traffic(node: &Node) -> Value {
    let app = node.api(Request::get("/v1/apps/shop")).expect(200);
    serde_json::from_slice::<Value>(&app.body).unwrap()["traffic"].clone()
}

#[test]
fn no_request_is_lost_while_versions_change() {
    let node = Node::start();
    let project = project();
    assert_eq!(deploy(&node, &project, "one", &[]), "v1");
    let load = Load::start(node.ingress(), RATE, &["/shop/", "/shop/api/hello", "/shop/more"]);
    let mut told = vec![Told { from: Instant::now(), versions: vec!["v1"] }];
    let mut step = |versions: &[&'static str], act: &dyn Fn()| {
        // While it happens both what was and what will be may answer.
        let before = told.last().unwrap().versions.clone();
        let both = before.iter().chain(versions).copied().collect();
        told.push(Told { from: Instant::now(), versions: both });
        act();
        told.push(Told { from: Instant::now(), versions: versions.to_vec() });
        more(&load, 400);
    };
    more(&load, 200);
    step(&["v1", "v2"], &|| {
        assert_eq!(deploy(&node, &project, "two", &["--canary", "10%"]), "v2");
    });
    // Enough for the split to show.
    more(&load, 1500);
    step(&["v2"], &|| drop(node.cli(["promote", "shop", "v2"]).run().expect(0)));
    step(&["v3"], &|| assert_eq!(deploy(&node, &project, "three", &[]), "v3"));
    step(&["v2"], &|| drop(node.cli(["rollback", "shop"]).run().expect(0)));
    step(&["v1"], &|| drop(node.cli(["rollback", "shop", "v1"]).run().expect(0)));
    step(&["v1"], &|| {
        assert_eq!(deploy(&node, &project, "four", &["--no-activate"]), "v4");
        assert_eq!(node.get("/shop@v4/").expect(200).text().trim(), "four");
    });
    let outcomes = load.stop();
    assert!(outcomes.len() > 4000, "{}", outcomes.len());
    for outcome in &outcomes {
        consistent(outcome, &told);
    }
    // 10 % of what came while the split was all that was told; six standard deviations.
    let (start, end) = (told[2].from, told[3].from);
    let within = |outcome: &&Outcome| outcome.started > start && outcome.ended < end;
    let split: Vec<&Outcome> = outcomes.iter().filter(within).collect();
    let canary = split.iter().filter(|outcome| outcome.version() == "v2").count();
    let (all, got) = (split.len() as f64, canary as f64);
    let deviation = (all * 0.1 * 0.9).sqrt();
    assert!(all > 1000.0 && (got - all * 0.1).abs() < 6.0 * deviation, "{got} of {all}");
}

/// Every request is answered, by a version that could be live then, and by nothing else.
fn consistent(outcome: &Outcome, told: &[Told]) {
    assert_eq!(outcome.status, Ok(200), "{outcome:?}");
    let during = |pair: &[&Told]| match pair {
        [now, next] => outcome.ended > now.from && outcome.started < next.from,
        _ => false,
    };
    let all: Vec<&Told> = told.iter().collect();
    let mut possible: Vec<&str> = all
        .windows(2)
        .filter(|pair| during(pair))
        .flat_map(|pair| pair[0].versions.clone())
        .collect();
    let last = told.last().unwrap();
    if outcome.ended > last.from {
        possible.extend(&last.versions);
    }
    assert!(possible.contains(&outcome.version()), "{} of {possible:?}", outcome.version());
    let text = match outcome.version() {
        "v1" => "one",
        "v2" => "two",
        "v3" => "three",
        other => panic!("{other} was never live"),
    };
    let body = outcome.body.trim();
    assert!(body == text || body.starts_with("hello") || body.starts_with("not found"), "{body}");
}

#[test]
fn a_client_stays_with_its_version() {
    let node = Node::start();
    let project = project();
    deploy(&node, &project, "one", &[]);
    deploy(&node, &project, "two", &["--canary", "50%", "--sticky", "cookie"]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let first = node.get("/shop/").expect(200);
        let cookie = first.header("set-cookie").unwrap().to_owned();
        assert!(cookie.ends_with("; Path=/shop; HttpOnly; SameSite=Lax"), "{cookie}");
        let pair = cookie.split(';').next().unwrap().to_owned();
        let version = first.header("x-faas-version").unwrap().to_owned();
        for _ in 0..5 {
            let again = node.send(&Request::get("/shop/api/hello").header("cookie", &pair));
            let again = again.expect(200);
            assert_eq!(again.header("x-faas-version"), Some(version.as_str()));
            assert_eq!(again.header("set-cookie"), None);
        }
        seen.insert(version);
    }
    assert_eq!(seen.len(), 2, "both versions have clients");
    // By a header: who got the new version keeps it when its share grows.
    let by_header = ["promote", "shop", "v2", "--percent", "20", "--sticky", "header:x-user"];
    node.cli(by_header).run().expect(0);
    let version = |user: usize| {
        let request = Request::get("/shop/").header("x-user", &format!("user-{user}"));
        let answer = node.send(&request).expect(200);
        answer.header("x-faas-version").unwrap().to_owned()
    };
    let before: Vec<String> = (0..100).map(version).collect();
    assert_eq!((0..100).map(version).collect::<Vec<_>>(), before);
    node.cli(["promote", "shop", "v2", "--percent", "60"]).run().expect(0);
    let after: Vec<String> = (0..100).map(version).collect();
    let count = |all: &[String]| all.iter().filter(|version| *version == "v2").count();
    assert!(count(&before) > 5 && count(&after) > count(&before) + 15, "{before:?} {after:?}");
    let left = before.iter().zip(&after).filter(|(was, is)| *was == "v2" && *is != "v2").count();
    assert_eq!(left, 0);
}

#[test]
fn a_canary_that_fails_loses_its_share_by_itself() {
    let node = Node::start();
    let project = project();
    deploy(&node, &project, "one", &[]);
    let bad = Project::new("app.name = 'shop'\n[functions.web]\nsource = 'web.wasm'\n")
        .file("web.wasm", Guest::Http02.wasm());
    let deployed = bad.deploy(&node, &["--canary", "50%"]);
    assert_eq!(deployed["traffic"]["canary"], json!({ "version": "v2", "abort_above_percent": 2 }));
    let load = Load::start(node.ingress(), RATE, &["/shop/trap"]);
    eventually("the canary is aborted", PATIENCE, || {
        (traffic(&node) == json!({ "shares": [{ "version": "v1", "percent": 100 }] })).then_some(())
    });
    load.stop();
    let app = node.api(Request::get("/v1/apps/shop")).expect(200);
    let app: Value = serde_json::from_slice(&app.body).unwrap();
    assert_eq!(app["aborted"]["version"], json!("v2"));
    assert!(app["aborted"]["failures"].as_u64().unwrap() > 0, "{app}");
    assert!(node.log().contains("the canary failed and was aborted"));
    let described = node.cli(["describe", "shop"]).run().expect(0).stdout;
    assert!(described.contains("v2") && described.contains("aborted"), "{described}");
    // A canary that does well stays.
    deploy(&node, &project, "three", &["--canary", "50%"]);
    let load = Load::start(node.ingress(), RATE, &["/shop/"]);
    more(&load, 200);
    load.stop();
    assert_eq!(traffic(&node)["canary"]["version"], json!("v3"));
}

#[test]
fn deploys_at_once_are_all_kept() {
    let node = Node::start();
    let projects: Vec<Project> = (0..6)
        .map(|number| {
            let project = project();
            project.write("web.wasm", says(&format!("p{number}")));
            project
        })
        .collect();
    let running: Vec<_> = projects
        .iter()
        .map(|project| project.cli(&node, ["deploy", "-o", "json"]).spawn())
        .collect();
    let mut versions = Vec::new();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        versions.push(document["data"]["version"].as_str().unwrap().to_owned());
    }
    versions.sort();
    assert_eq!(versions, ["v1", "v2", "v3", "v4", "v5", "v6"]);
    // Each kept its own content.
    let texts: std::collections::BTreeSet<String> = versions
        .iter()
        .map(|version| node.get(&format!("/shop@{version}/")).expect(200).text().trim().to_owned())
        .collect();
    assert_eq!(texts.len(), 6);
}

#[test]
fn pinned_versions_outlive_retention() {
    let node = Node::with("[deploy]\nkeep_versions = 3\n");
    for number in 1..=3 {
        node.deploy("a", &says(&format!("text {number}")));
    }
    node.cli(["pin", "a", "v1"]).run().expect(0);
    for number in 4..=8 {
        node.deploy("a", &says(&format!("text {number}")));
    }
    assert_eq!(node.get("/a@v1/").expect(200).text().trim(), "text 1");
    assert_eq!(node.get("/a@v2/").status, 404);
    let listed = node.cli(["versions", "a"]).run().expect(0).stdout;
    assert!(listed.contains("pinned"), "{listed}");
    node.cli(["rollback", "a", "v1"]).run().expect(0);
    node.cli(["rollback", "a", "v8"]).run().expect(0);
    node.cli(["unpin", "a", "v1"]).run().expect(0);
    node.deploy("a", &says("text 9"));
    assert_eq!(node.get("/a@v1/").status, 404);
    node.cli(["pin", "a", "v1"]).run().expect(4);
    node.cli(["promote", "a", "v1"]).run().expect(4);
}

#[test]
fn a_deploy_that_is_cut_off_leaves_nothing_half_done() {
    let mut node = Node::start();
    let project = project();
    deploy(&node, &project, "one", &[]);
    for round in 0..5 {
        project.write("web.wasm", says(&format!("cut {round}")));
        let mut child = project.cli(&node, ["deploy", "--timeout", "0"]).spawn();
        std::thread::sleep(Duration::from_millis(15 * round));
        node.kill();
        child.wait().unwrap();
        node.launch();
        // Either all of it is there, or nothing.
        let live = node.get("/shop/").expect(200).text();
        let version = node.get("/shop/").header("x-faas-version").unwrap().to_owned();
        let count = node.api(Request::get("/v1/apps/shop/versions")).expect(200).text();
        let list: Value = serde_json::from_str(&count).unwrap();
        let newest = list["versions"][0]["version"].as_str().unwrap();
        assert_eq!(newest, version, "{live}");
        assert_eq!(node.get("/shop/api/hello").expect(200).text(), "hello\n");
    }
}
