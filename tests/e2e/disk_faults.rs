//! A disk that is full, that fails, or that has other bytes than it was given; and a compile process
//! that somebody kills: clear answers, nothing half done, and no restart to recover.

use faas_api::{Digest, ErrorCode};
use faas_tests::{
    Answer, Cli, Connection, Node, Request,
    artifacts::{Guest, says},
    disk::{BadSync, SmallDisk},
    eventually, process,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn text(path: &str, value: &str) -> Request {
    Request::new("PUT", path).header("content-type", "text/plain").body(value)
}

fn new_token(name: &str) -> Request {
    let body = json!({"name": name, "scope": {"can": ["read"]}}).to_string();
    Request::post("/v1/tokens", body).header("content-type", "application/json")
}

fn put_blob(wasm: &[u8]) -> Request {
    let path = format!("/v1/blobs/{}", Digest::of(wasm));
    Request::new("PUT", &path).header("content-type", "application/wasm").body(wasm)
}

/// The deploy of an app of one function, whose artifact is there.
fn version(app: &str, wasm: &[u8]) -> Request {
    let function = json!({"name": "main", "digest": Digest::of(wasm).to_string()});
    let body = json!({"manifest": {"functions": [function]}}).to_string();
    let path = format!("/v1/apps/{app}/versions");
    Request::post(&path, body).header("content-type", "application/json")
}

/// A program with so many bytes that mean nothing.
fn padded(text: &str, bytes: u32) -> Vec<u8> {
    let mut wasm = says(text);
    // A custom section: its size, as five bytes whatever it is, the length of its name, its content.
    let size = bytes + 1;
    wasm.push(0);
    wasm.extend((0..5).map(|at| (size >> (7 * at)) as u8 & 0x7f | if at < 4 { 0x80 } else { 0 }));
    wasm.push(0);
    wasm.resize(wasm.len() + bytes as usize, b'x');
    wasm
}

fn apps(node: &Node) -> Vec<String> {
    let list = node.api(Request::get("/v1/apps")).expect(200).json();
    let names = list["apps"].as_array().unwrap().iter().map(|app| app["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

fn is_good(node: &Node) {
    assert_eq!(node.get("/good/").expect(200).text().trim(), "good");
}

/// No upload and no native code is there in part.
fn nothing_half_done(node: &Node) {
    let half = || {
        let cache = node.files("cache").into_iter();
        let mut half: Vec<PathBuf> =
            cache.filter(|path| path.extension().is_some_and(|end| end == "tmp")).collect();
        half.extend(node.files("blobs/tmp"));
        half
    };
    eventually("nothing is half done", PATIENCE, || half().is_empty().then_some(()));
}

/// Everything that writes, but for deploys.
fn small_writes(node: &Node, number: u32) -> Vec<Answer> {
    vec![
        node.api(new_token(&format!("t{number}"))),
        node.api(text(&format!("/v1/apps/good/env/V{number}"), &"v".repeat(5000))),
        node.api(text(&format!("/v1/apps/good/secrets/S{number}"), &"s".repeat(5000))),
    ]
}

#[test]
fn a_full_disk_stops_writes_and_nothing_else() {
    let mut node = Node::unstarted("[log]\ndisk_bytes = 4194304\nsegment_bytes = 1048576\n");
    let disk = SmallDisk::mount(&node.data_dir(), 64);
    node.launch();
    node.deploy("good", &says("good"));
    node.deploy("logs", &Guest::Http02.wasm());
    let call = || node.get("/logs/log?lines=50").expect(200);
    call();
    disk.fill(0);

    for wasm in [padded("large", 4 << 20), says("small")] {
        node.try_deploy("bad", &wasm).failure(ErrorCode::StorageFull);
        node.api(put_blob(&wasm)).failure(ErrorCode::StorageFull);
    }
    // SQLite may have some room left in its files.
    let refused = |number: &u32| {
        let answers = small_writes(&node, *number);
        answers.iter().for_each(|answer| assert!(matches!(answer.status, 200 | 201 | 507)));
        answers.iter().all(|answer| answer.status == 507)
    };
    let refused = (0..100).find(refused).expect("no room for records at last");
    for answer in small_writes(&node, refused) {
        answer.failure(ErrorCode::StorageFull);
    }
    let backup = node.api(Request::get("/v1/backup"));
    assert_eq!(backup.status, 507, "{backup:?}");

    // Whoever only reads, or calls, sees nothing of it.
    for _ in 0..20 {
        is_good(&node);
        call();
    }
    assert_eq!(apps(&node), ["good", "logs"]);
    node.get("/bad/").failure(ErrorCode::NotFound);
    nothing_half_done(&node);
    assert!(node.log().contains("the disk is full"), "{}", node.log());

    // Room for the artifact, and none for its native code.
    disk.make_room();
    disk.fill(8 << 10);
    node.try_deploy("bad", &Guest::Cgi01.wasm()).failure(ErrorCode::StorageFull);
    let wasm = says("no room for code");
    node.try_deploy("bad", &wasm).failure(ErrorCode::StorageFull);
    nothing_half_done(&node);

    // Without a restart everything works again.
    disk.make_room();
    for answer in small_writes(&node, 1000) {
        assert!(answer.status < 300, "{answer:?}");
    }
    node.deploy("bad", &wasm);
    assert_eq!(node.get("/bad/").expect(200).text().trim(), "no room for code");
    node.api(Request::get("/v1/backup")).expect(200);
    let last = call();
    let id = last.header("x-request-id").unwrap();
    let is_on_disk = || {
        let mut files = node.files("logs").into_iter();
        files.any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(id)))
    };
    eventually("logs are written again", PATIENCE, || is_on_disk().then_some(()));
    node.kill();
    node.launch();
    assert_eq!(apps(&node), ["bad", "good", "logs"]);
    is_good(&node);
    // What was refused did not come back.
    let tokens = node.api(Request::get("/v1/tokens")).expect(200).text();
    assert!(tokens.contains("\"t1000\"") && !tokens.contains(&format!("\"t{refused}\"")));
}

#[test]
fn a_disk_that_fails_to_sync_is_believed_once() {
    let mut node = Node::unstarted("");
    let sync = BadSync::build(node.home());
    for (name, value) in sync.env() {
        node.set_env(name, value);
    }
    node.launch();
    node.deploy("good", &says("good"));
    let blobs = node.files("blobs");

    // The records.
    sync.fail("state.db-wal");
    for round in 0..2 {
        node.try_deploy("bad", &says(&format!("bad {round}"))).failure(ErrorCode::Internal);
        for answer in small_writes(&node, round) {
            answer.failure(ErrorCode::Internal);
        }
        is_good(&node);
        assert_eq!(apps(&node), ["good"]);
    }
    sync.mend();
    let works = || (node.api(new_token("after")).status == 201).then_some(());
    eventually("it takes writes again", PATIENCE, works);
    node.deploy("next", &says("next"));
    assert!(node.log().contains("opened anew"), "{}", node.log());

    // The artifacts, their names, and the names of their folders.
    for word in ["/blobs/tmp", "/blobs/sha256"] {
        sync.fail(word);
        node.try_deploy("bad", &says(word)).failure(ErrorCode::Internal);
        node.api(put_blob(&says(word))).failure(ErrorCode::Internal);
        is_good(&node);
        sync.mend();
        nothing_half_done(&node);
        node.deploy("next", &says(word));
    }

    // Nothing that was refused is there after a restart, and everything else is.
    node.kill();
    node.launch();
    assert_eq!(apps(&node), ["good", "next"]);
    assert_eq!(node.get("/next/").expect(200).text().trim(), "/blobs/sha256");
    is_good(&node);
    let tokens = node.api(Request::get("/v1/tokens")).expect(200).json();
    let names: Vec<&str> = tokens["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["name"].as_str().unwrap())
        .collect();
    assert!(!names.is_empty() && names.iter().all(|name| *name == "after"), "{names:?}");
    assert!(blobs.iter().all(|blob| blob.exists()));
}

/// The files of an artifact's native code: the code, and what proves it.
fn native(node: &Node, wasm: &[u8]) -> [PathBuf; 2] {
    let digest = Digest::of(wasm).to_string();
    ["cwasm", "mac"].map(|end| {
        let name = format!("{digest}.{end}");
        let mut files = node.files("cache").into_iter();
        files.find(|file| file.file_name().is_some_and(|file| file == name.as_str())).unwrap()
    })
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// What the disk made of an artifact is not compiled; the same bytes, sent again, heal it.
#[test]
fn a_damaged_artifact_is_not_compiled_and_heals() {
    let mut node = Node::start();
    node.deploy("good", &says("good"));
    let wasm = says("fragile");
    node.deploy("fragile", &wasm);
    let digest = Digest::of(&wasm).to_string();
    let blob = node.data_dir().join("blobs/sha256").join(&digest[..2]).join(&digest);
    let lose_code = |node: &Node| native(node, &wasm).map(|file| fs::remove_file(file).unwrap());
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    flip(&blob);
    lose_code(&node);
    node.launch();
    for _ in 0..3 {
        node.get("/fragile/").failure(ErrorCode::ArtifactUnavailable);
        is_good(&node);
    }
    assert!(node.log().contains("does not match its digest"), "{}", node.log());
    node.deploy("fragile", &wasm);
    assert_eq!(node.get("/fragile/").expect(200).text().trim(), "fragile");
    assert_eq!(node.get("/fragile@v1/").expect(200).text().trim(), "fragile");

    // As `faas deploy` does it: what is asked for is sent.
    flip(&blob);
    let planned = node.api(version("fragile", &wasm)).expect(200).json();
    assert_eq!(planned["missing"], json!([digest]), "{planned}");
    node.api(put_blob(&wasm));
    node.api(version("fragile", &wasm)).expect(201);
    assert_eq!(fs::read(&blob).unwrap(), wasm);
    assert_eq!(node.get("/fragile/").expect(200).text().trim(), "fragile");
}

/// Whoever kills the compile process, or the system for want of memory: that is not the artifact's
/// fault, and it may be tried again.
#[test]
fn a_killed_compile_process_is_nobodys_fault() {
    let node = Node::start();
    node.deploy("good", &says("good"));
    let wasm = Guest::Http03.wasm();
    let mut connection = Connection::open(node.admin());
    let bearer = format!("Bearer {}", node.token());
    connection.start(&Node::deploy_request("new", &wasm).header("authorization", &bearer));
    let compiles = || {
        let child = process::children(node.pid()).first().copied()?;
        let arguments = fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
        arguments.contains("compile-worker").then_some(child)
    };
    let compiler = eventually("a compile process", PATIENCE, compiles);
    process::signal(compiler, Signal::KILL);
    let answer = connection.read_answer(false).unwrap();
    let body = answer.failure(ErrorCode::Overloaded);
    assert!(body.hint.unwrap().contains("try again"));
    assert!(answer.header("retry-after").is_some());
    is_good(&node);
    node.get("/new/").failure(ErrorCode::NotFound);
    nothing_half_done(&node);
    assert_eq!(node.files("blobs/sha256").len(), 1, "its artifact is swept");
    node.deploy("new", &wasm);
    assert_eq!(node.get("/new/hello").expect(200).text(), "hello\n");
}

/// One token cannot have all places, and nobody waits for ever.
#[test]
fn deploys_at_once_are_counted() {
    let node = Node::with("[deploy]\nmax_at_once = 2\n");
    let bearer = format!("Bearer {}", node.token());
    let wasm = says("slow");
    let mut slow = Connection::open(node.admin());
    let request = Node::deploy_request("slow", &wasm).header("authorization", &bearer);
    let bytes = request.to_bytes(node.admin());
    slow.write(&bytes[..bytes.len() - 10]).unwrap();
    let refused = || {
        let answer = node.try_deploy("next", &says("next"));
        (answer.status == 503).then_some(answer)
    };
    let answer = eventually("the other one is under way", PATIENCE, refused);
    answer.failure(ErrorCode::Overloaded);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    node.api(put_blob(&wasm)).failure(ErrorCode::Overloaded);
    node.api(version("next", &wasm)).failure(ErrorCode::Overloaded);
    slow.write(&bytes[bytes.len() - 10..]).unwrap();
    slow.read_answer(false).unwrap().expect(201);
    node.deploy("next", &says("next"));
}

/// Uploads that no deploy names do not fill the disk.
#[test]
fn uploads_that_wait_are_bounded() {
    let node = Node::with("[deploy]\nmax_pending_bytes = 1048576\n");
    let wasm = |number: u32| padded(&format!("n{number}"), 600_000);
    node.api(put_blob(&wasm(0))).expect(201);
    node.api(put_blob(&wasm(0))).expect(200);
    let answer = node.api(put_blob(&wasm(1)));
    let body = answer.failure(ErrorCode::UploadQuota);
    assert!(body.detail.unwrap().contains("deploy.max_pending_bytes"));
    assert!(answer.header("retry-after").is_some());
    nothing_half_done(&node);
    assert_eq!(node.files("blobs/sha256").len(), 1);
    // Another token has a share of its own.
    let other = json!({"name": "other", "scope": {"can": ["deploy"]}}).to_string();
    let other = Request::post("/v1/tokens", other).header("content-type", "application/json");
    let other: Value = node.api(other).expect(201).json();
    let bearer = format!("Bearer {}", other["secret"].as_str().unwrap());
    let sent = put_blob(&wasm(2)).header("authorization", &bearer);
    Connection::open(node.admin()).ask(&sent).expect(201);
    // What was deployed waits no more.
    node.api(version("app", &wasm(0))).expect(201);
    node.api(put_blob(&wasm(1))).expect(201);
    node.deploy("large", &padded("one at a time", 1_000_000));
}

/// What others can write to, or have put there, is not used.
#[test]
fn a_data_directory_that_is_not_its_own() {
    let mut node = Node::start();
    node.deploy("good", &says("good"));
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    let data = node.data_dir();
    let refused = |word: &str| {
        let output = Cli::new(node.home(), node.serve_arguments()).run();
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(output.stderr.contains(word), "{word}: {}", output.stderr);
    };
    for (name, mode, before) in [
        ("", 0o777, 0o700),
        ("", 0o770, 0o700),
        ("cache", 0o722, 0o700),
        ("state.db", 0o620, 0o600),
    ] {
        let set = |mode| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(data.join(name), mode).unwrap();
        };
        set(mode);
        refused("chmod go-w");
        set(before);
    }
    let elsewhere = node.home().join("elsewhere");
    for name in ["blobs", "cache"] {
        fs::rename(data.join(name), &elsewhere).unwrap();
        symlink(&elsewhere, data.join(name)).unwrap();
        refused("is a link");
        fs::remove_file(data.join(name)).unwrap();
        fs::rename(&elsewhere, data.join(name)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        for name in ["", "admin.token", "node.key", "blobs"] {
            chown(data.join(name), Some(65534), None).unwrap();
            refused("belongs to user 65534");
            chown(data.join(name), Some(0), None).unwrap();
        }
    }
    node.launch();
    is_good(&node);
}
