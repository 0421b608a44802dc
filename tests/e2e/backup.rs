//! A node's backup: taken while it works, and another node made of it.

use faas_api::{UsageReport, VersionList};
use faas_tests::{
    Cli, Connection, Node, Output, Request,
    artifacts::{Guest, says},
    eventually,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[track_caller]
fn save(node: &Node, name: &str) -> PathBuf {
    let file = node.home().join(name);
    let saved = node.cli(["backup", file.to_str().unwrap()]).run();
    assert_eq!(
        (saved.code, saved.stdout),
        (0, format!("{}\n", file.display())),
        "{}",
        saved.stderr
    );
    file
}

fn restore(file: &Path, data_dir: &Path) -> Output {
    let home = file.parent().unwrap();
    let args = ["restore".as_ref(), file, "--data-dir".as_ref(), data_dir];
    Cli::new(home, args).run()
}

/// A node that does not run yet, made of a backup.
#[track_caller]
fn restored(file: &Path) -> Node {
    let node = Node::unstarted("");
    let output = restore(file, &node.data_dir());
    assert_eq!(output.code, 0, "{}", output.stderr);
    node
}

fn versions(node: &Node, app: &str) -> VersionList {
    let answer = node.api(Request::get(&format!("/v1/apps/{app}/versions"))).expect(200);
    serde_json::from_slice(&answer.body).unwrap()
}

fn used(node: &Node) -> u64 {
    let answer = node.api(Request::get("/v1/usage")).expect(200);
    serde_json::from_slice::<UsageReport>(&answer.body).unwrap().total.requests
}

/// What `list -o json` says, without the addresses, which are this node's own.
fn apps(node: &Node) -> Vec<serde_json::Value> {
    let list = node.cli(["list", "-o", "json"]).run().json();
    let mut apps = list["data"]["apps"].as_array().unwrap().clone();
    for app in &mut apps {
        app.as_object_mut().unwrap().remove("url").unwrap();
    }
    apps
}

#[test]
fn a_node_is_restored_as_it_was() {
    let mut node = Node::with_guests("");
    node.deploy("shop", &says("one"));
    node.deploy("shop", &says("two"));
    let split = r#"{"shares":[{"version":"v1","percent":30},{"version":"v2","percent":70}]}"#;
    node.api(
        Request::new("PUT", "/v1/apps/shop/traffic")
            .header("content-type", "application/json")
            .body(split),
    )
    .expect(200);
    // Under load, which it does not disturb.
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let file = thread::scope(|scope| {
        for guest in Guest::ALL {
            let (ingress, stop, sent) = (node.ingress(), &stop, &sent);
            scope.spawn(move || {
                let mut connection = Connection::open(ingress);
                while !stop.load(Ordering::Relaxed) {
                    connection.ask(&Request::get(&format!("/{}/count", guest.app()))).expect(200);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("there is load", PATIENCE, || (sent.load(Ordering::Relaxed) > 50).then_some(()));
        used(&node);
        let file = save(&node, "node.tar");
        stop.store(true, Ordering::Relaxed);
        file
    });
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (before, listed) = (apps(&node), versions(&node, "shop"));
    let token = node.token();
    node.kill();

    let mut other = restored(&file);
    other.launch();
    assert_eq!(other.token(), token);
    assert_eq!(apps(&other), before);
    let mut found = versions(&other, "shop");
    for (version, was) in found.versions.iter_mut().zip(&listed.versions) {
        version.preview_url.clone_from(&was.preview_url);
    }
    assert_eq!(found, listed);
    for guest in Guest::ALL {
        let answer = other.get(&format!("/{}/count", guest.app())).expect(200);
        assert_eq!((answer.text().trim(), answer.header("x-faas-version")), ("1", Some("v1")));
    }
    assert_eq!(other.get("/shop@v1/").expect(200).text().trim(), "one");
    assert_eq!(other.get("/shop@v2/").expect(200).text().trim(), "two");
    // What was billed is billed, and goes on.
    assert!(used(&other) > 50);
    // It is a node like any other: it takes deploys, and a backup of itself.
    other.deploy("shop", &says("three"));
    assert_eq!(other.get("/shop/").expect(200).text().trim(), "three");
    other.restart();
    let again = save(&other, "again.tar");
    let mut third = restored(&again);
    third.launch();
    assert_eq!(third.get("/shop/").expect(200).text().trim(), "three");
}

#[test]
fn what_is_deployed_meanwhile_is_there_whole_or_not_at_all() {
    const BACKUPS: usize = 6;
    let node = Node::with("[deploy]\nkeep_versions = 2\n");
    node.deploy("kept", &says("kept"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Versions come and go, and artifacts with them; large ones take a while to send.
        for number in 0..2 {
            let (node, stop) = (&node, &stop);
            scope.spawn(move || {
                let app = format!("app-{number}");
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut wasm = says(&format!("{app} {round}"));
                    wasm.extend([0, 0x80, 0x80, 0x80, 0x01, 0]);
                    wasm.resize(wasm.len() + (2 << 20) - 1, b'x');
                    node.deploy(&app, &wasm);
                    if round % 3 == 2 {
                        node.api(Request::new("DELETE", &format!("/v1/apps/{app}"))).expect(204);
                    }
                    round += 1;
                }
            });
        }
        for number in 0..BACKUPS {
            let file = save(&node, &format!("{number}.tar"));
            // It proves that every version has its artifacts.
            let other = restored(&file);
            assert!(other.data_dir().join("state.db").is_file());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut other = restored(&node.home().join(format!("{}.tar", BACKUPS - 1)));
    other.launch();
    assert_eq!(other.get("/kept/").expect(200).text().trim(), "kept");
    for app in apps(&other) {
        let name = app["name"].as_str().unwrap();
        for version in versions(&other, name).versions {
            other.get(&format!("/{name}@{}/", version.version)).expect(200);
        }
    }
    // Sweeps were put off, not forgotten.
    let artifacts = || node.files("blobs/sha256").len();
    let named = |node: &Node| -> usize {
        apps(node).iter().map(|app| app["versions"].as_u64().unwrap() as usize).sum()
    };
    eventually("unused artifacts are gone", PATIENCE, || {
        (artifacts() == named(&node)).then_some(())
    });
    assert!(!node.data_dir().join("backup.tmp").exists());
}

#[test]
fn it_goes_through_pipes() {
    let node = Node::start();
    node.deploy("app", &says("piped"));
    let home = node.home().display();
    let line = format!("{home}/faas backup - | {home}/faas restore - --data-dir {home}/other");
    std::os::unix::fs::symlink(faas_tests::faas_binary(), node.home().join("faas")).unwrap();
    let piped = std::process::Command::new("sh")
        .args(["-c", &line])
        .env("FAAS_SERVER", format!("http://{}", node.admin()))
        .env("FAAS_TOKEN", node.token())
        .output()
        .unwrap();
    assert!(piped.status.success(), "{piped:?}");
    assert_eq!(String::from_utf8_lossy(&piped.stdout), format!("{home}/other\n"));
    assert!(String::from_utf8_lossy(&piped.stderr).contains("1 app, "), "{piped:?}");
    assert!(node.home().join("other/state.db").is_file());
    assert_eq!(node.cli(["backup", "-", "-o", "json"]).run().code, 2);
}

#[test]
fn what_stands_in_the_way_stays() {
    let node = Node::start();
    node.deploy("app", &says("hello"));
    let file = save(&node, "node.tar");
    let bytes = fs::read(&file).unwrap();
    // No backup is overwritten, and none is half there.
    let again = node.cli(["backup", file.to_str().unwrap(), "-o", "json"]).run();
    assert_eq!((again.code, again.json()["error"]["code"].as_str()), (5, Some("in_the_way")));
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let nowhere = node.cli(["backup", "no/such/folder/x.tar"]).run();
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    let stranger = node.cli(["backup", "x.tar", "--token", "wrong"]).run();
    assert_eq!(stranger.code, 3, "{stranger:?}");
    let tars = |node: &Node| {
        let names = fs::read_dir(node.home()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains(".tar")).count()
    };
    assert_eq!(tars(&node), 1);
    // A directory in use is one with something in it.
    let refused = restore(&file, &node.data_dir());
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("is not empty"), "{refused:?}");
    node.get("/app/").expect(200);
}

#[test]
fn what_is_damaged_is_refused() {
    let node = Node::start();
    node.deploy("app", &says("hello"));
    let file = save(&node, "node.tar");
    let whole = fs::read(&file).unwrap();
    let target = node.home().join("other");
    let cut = &whole[..whole.len() / 2];
    let mut changed = whole.clone();
    let artifact = whole.windows(7).position(|bytes| bytes == b"\0asm\x01\0\0").unwrap();
    changed[artifact + 20] ^= 1;
    for (name, bytes, code, part) in [
        ("cut", cut, "damaged", "cut off"),
        ("changed", &changed, "damaged", "not as it was written"),
        ("foreign", b"hello", "not_a_backup", "not a backup"),
    ] {
        let file = node.home().join(name);
        fs::write(&file, bytes).unwrap();
        let refused = restore(&file, &target);
        assert_eq!(refused.code, 8, "{name}: {refused:?}");
        assert!(refused.stderr.contains(part), "{name}: {refused:?}");
        assert!(!target.exists(), "{name}");
        let args = ["restore", name, "--data-dir", "other", "-o", "json"];
        let document = Cli::new(node.home(), args).run().json();
        assert_eq!(document["error"]["code"], code, "{name}");
    }
    assert_eq!(restore(&node.home().join("missing.tar"), &target).code, 2);
}
