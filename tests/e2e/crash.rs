//! `kill -9` in the middle of deploys: each is there whole or not at all, and what was acknowledged
//! is there.

use faas_api::{Deployed, Digest, VersionId, VersionList};
use faas_tests::{
    Connection, Node, Request,
    artifacts::{Guest, says},
    eventually, process,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

const DEPLOYS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(20);

/// What was sent, and what is known of it.
struct Ledger {
    node: Node,
    /// The text that each artifact answers.
    texts: BTreeMap<Digest, String>,
    acknowledged: BTreeMap<VersionId, Digest>,
    /// What every list of versions has shown so far.
    seen: BTreeMap<VersionId, Digest>,
    live: Digest,
}

/// A small program, or one that takes a while to send and to write.
fn artifact(number: usize) -> (String, Vec<u8>) {
    let text = format!("deploy {number}");
    let mut wasm = says(&text);
    if number.is_multiple_of(3) {
        // A custom section of 4 MiB: its size, the length of its name, its content.
        wasm.extend([0, 0x80, 0x80, 0x80, 0x02, 0]);
        wasm.resize(wasm.len() + (4 << 20) - 1, b'x');
    }
    (text, wasm)
}

/// Tells where to look next in a sequence without a pattern.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

impl Ledger {
    fn new() -> Self {
        let node = Node::with("[deploy]\nkeep_versions = 200\n");
        let mut ledger = Self {
            node,
            texts: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            live: Digest::of(b""),
        };
        for number in 0..2 {
            let (text, wasm) = artifact(number);
            let deployed = ledger.node.deploy("app", &wasm);
            ledger.live = Digest::of(&wasm);
            ledger.texts.insert(ledger.live, text);
            ledger.acknowledged.insert(deployed.version, ledger.live);
        }
        ledger
    }

    /// Deploys, and kills the node after this time. Says whether it answered before.
    fn deploy_and_kill(&mut self, wasm: &[u8], after: Duration) -> Option<Deployed> {
        let (admin, token) = (self.node.admin(), self.node.token());
        let request =
            Node::deploy_request("app", wasm).header("authorization", &format!("Bearer {token}"));
        thread::scope(|scope| {
            let answer = scope.spawn(move || {
                // It may be killed before this, or while it reads, or before it answers.
                let mut connection = Connection::try_open(admin).ok()?;
                connection.write(&request.to_bytes(admin)).ok()?;
                let answer = connection.read_answer(false).ok()?;
                assert_eq!(answer.status, 201, "{answer:?}");
                serde_json::from_slice(&answer.body).ok()
            });
            thread::sleep(after);
            self.node.kill();
            answer.join().unwrap()
        })
    }

    /// What there is after a restart is the old or the new, whole.
    fn check(&mut self, round: usize, (attempted, answered): (Digest, Option<Deployed>)) {
        if let Some(deployed) = &answered {
            assert_eq!(deployed.digest, attempted);
            self.acknowledged.insert(deployed.version, attempted);
        }
        let listed = self.node.api(Request::get("/v1/apps/app/versions")).expect(200);
        let listed: VersionList = serde_json::from_slice(&listed.body).unwrap();
        let digests = listed.versions.iter().map(|v| (v.version, v.functions[0].digest));
        let versions: BTreeMap<VersionId, Digest> = digests.collect();
        assert_eq!(versions.len(), listed.versions.len(), "round {round}: a number twice");
        for (version, digest) in self.acknowledged.iter().chain(&self.seen) {
            assert_eq!(versions.get(version), Some(digest), "round {round}: {version} is lost");
        }
        for (version, digest) in &versions {
            let new = *digest == attempted && !self.seen.contains_key(version);
            let known = new || self.seen.get(version) == Some(digest);
            assert!(known || self.acknowledged.contains_key(version), "round {round}: {version}");
        }
        let live: Vec<_> = listed.versions.iter().filter(|v| v.live_percent > 0).collect();
        assert_eq!(live.len(), 1, "round {round}: {live:?}");
        assert_eq!(live[0].live_percent, 100);
        let digest = live[0].functions[0].digest;
        let may_be = answered.is_none().then_some(self.live);
        assert!(
            digest == attempted || Some(digest) == may_be,
            "round {round}: {}",
            live[0].version
        );
        let answer = self.node.get("/app/").expect(200);
        assert_eq!(answer.text().trim(), self.texts[&digest], "round {round}");
        assert_eq!(answer.header("x-faas-version"), Some(&*live[0].version.to_string()));
        // Its version and its traffic are one write: the newest version is the live one.
        assert_eq!(Some(&live[0].version), versions.keys().next_back(), "round {round}");
        (self.live, self.seen) = (digest, versions);
    }

    /// Nothing is left of deploys that did not come to their end.
    fn tidy(&self, round: usize) {
        let named: BTreeSet<Digest> = self.seen.values().copied().collect();
        only(&self.node, &named, &format!("round {round}"));
    }
}

/// Waits until there is what belongs to these artifacts, and nothing else.
#[track_caller]
fn only(node: &Node, named: &BTreeSet<Digest>, when: &str) {
    let kept = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap();
        let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
        let digest = stem.parse().ok();
        digest.is_some_and(|digest| named.contains(&digest))
            && matches!(extension, "" | "cwasm" | "mac")
    };
    let mut files = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        files = [node.files("blobs"), node.files("cache")].concat();
        if files.iter().all(kept) {
            assert_eq!(node.files("blobs/sha256").len(), named.len(), "{when}: one is missing");
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    files.retain(|path| !kept(path));
    panic!("{when}: left behind for good: {files:?}");
}

#[test]
fn a_kill_leaves_a_deploy_whole_or_undone() {
    let mut ledger = Ledger::new();
    let mut random = 0x9e37_79b9_7f4a_7c15;
    // How long a deploy takes here and now, of either size.
    let mut times = [Duration::ZERO; 2];
    for (number, time) in [(1000, 0), (1002, 1)] {
        let (text, wasm) = artifact(number);
        let started = Instant::now();
        let deployed = ledger.node.deploy("app", &wasm);
        times[time] = started.elapsed();
        ledger.live = Digest::of(&wasm);
        ledger.texts.insert(ledger.live, text);
        ledger.acknowledged.insert(deployed.version, ledger.live);
    }
    let mut answers = 0;
    for round in 2..2 + DEPLOYS {
        let (text, wasm) = artifact(round);
        let attempted = Digest::of(&wasm);
        ledger.texts.insert(attempted, text);
        let most = times[usize::from(round.is_multiple_of(3))].as_micros() as u64 * 5 / 4;
        let after = Duration::from_micros(next(&mut random) % most);
        let answered = ledger.deploy_and_kill(&wasm, after);
        answers += usize::from(answered.is_some());
        ledger.node.launch();
        ledger.check(round, (attempted, answered));
        ledger.tidy(round);
    }
    let stored = ledger.seen.len() - 4;
    assert!(answers <= stored && stored <= DEPLOYS, "{answers} {stored}");
    // Both kinds were met: otherwise the points in time were not well chosen.
    assert!((1..DEPLOYS).contains(&answers), "{answers} of {DEPLOYS} were acknowledged");
    for (version, digest) in &ledger.seen {
        let answer = ledger.node.get(&format!("/app@{version}/")).expect(200);
        assert_eq!(answer.text().trim(), ledger.texts[digest]);
    }
}

/// The compile process may outlive the node that started it.
#[test]
fn a_kill_while_it_compiles() {
    let mut node = Node::start();
    node.deploy("old", &says("old"));
    let kept = BTreeSet::from([Digest::of(&says("old"))]);
    let wasm = Guest::Http03.wasm();
    for _ in 0..3 {
        let mut connection = Connection::open(node.admin());
        let bearer = format!("Bearer {}", node.token());
        connection.start(&Node::deploy_request("new", &wasm).header("authorization", &bearer));
        let compiles = || {
            let child = process::children(node.pid()).first().copied()?;
            let arguments = std::fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
            // Before that it is still a copy of the node.
            arguments.contains("compile-worker").then_some(child)
        };
        let compiler = eventually("a compile process", PATIENCE, compiles);
        node.kill();
        node.launch();
        node.get("/new/").failure(faas_api::ErrorCode::NotFound);
        assert_eq!(node.get("/old/").expect(200).text().trim(), "old");
        let process = PathBuf::from(format!("/proc/{compiler}"));
        eventually("its end", PATIENCE, || (!process.exists()).then_some(()));
        only(&node, &kept, "after the end of the compile process");
    }
    node.deploy("new", &wasm);
    assert_eq!(node.get("/new/hello").expect(200).text(), "hello\n");
}

/// Many at once, so that several writes share a commit.
#[test]
fn deploys_at_once_survive_once_acknowledged() {
    let mut node = Node::with("[deploy]\ncompile_concurrency = 2\nkeep_versions = 1000\n");
    // Compiled before, so that much is written in little time.
    for number in 0..4 {
        node.deploy(&format!("app-{number}"), &says("first"));
    }
    let mut random = 0x1234_5678_9abc_def1;
    for round in 0..5 {
        let (admin, token) = (node.admin(), node.token());
        let after = Duration::from_millis(20 + next(&mut random) % 300);
        let acknowledged: Vec<Vec<VersionId>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|number| {
                    let token = &token;
                    scope.spawn(move || {
                        let request =
                            Node::deploy_request(&format!("app-{number}"), &says("first"))
                                .header("authorization", &format!("Bearer {token}"));
                        let mut answered = Vec::new();
                        let Ok(mut connection) = Connection::try_open(admin) else {
                            return answered;
                        };
                        while connection.write(&request.to_bytes(admin)).is_ok()
                            && let Ok(answer) = connection.read_answer(false)
                        {
                            let answer = answer.expect(201);
                            let deployed: Deployed = serde_json::from_slice(&answer.body).unwrap();
                            answered.push(deployed.version);
                        }
                        answered
                    })
                })
                .collect();
            thread::sleep(after);
            node.kill();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        node.launch();
        for (number, acknowledged) in acknowledged.iter().enumerate() {
            let path = format!("/v1/apps/app-{number}/versions");
            let listed = node.api(Request::get(&path)).expect(200);
            let listed: VersionList = serde_json::from_slice(&listed.body).unwrap();
            let listed: Vec<VersionId> = listed.versions.iter().map(|v| v.version).collect();
            for version in acknowledged {
                assert!(listed.contains(version), "round {round}: {version} of app {number}");
            }
            let answer = node.get(&format!("/app-{number}/")).expect(200);
            assert_eq!(answer.text().trim(), "first");
            let live = answer.header("x-faas-version").unwrap().to_owned();
            assert_eq!(live, listed[0].to_string(), "round {round}");
        }
    }
}
