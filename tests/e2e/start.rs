//! What keeps a node from starting: a clear message, an exit code, and never silent emptiness.

use faas_tests::{Cli, Connection, Node, Output, Request, artifacts::says, eventually};
use rustix::process::Signal;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

/// Starts a node that must refuse to, and returns what it says.
#[track_caller]
fn refused(node: &Node, args: &[String], code: i32) -> String {
    let said = refused_with(&Cli::new(node.home(), args).run(), code);
    let json = [args, &["-o".to_owned(), "json".to_owned()]].concat();
    let document = Cli::new(node.home(), json).run().expect(code).json();
    assert!(document["error"]["message"].is_string(), "{document}");
    said
}

#[track_caller]
fn refused_with(output: &Output, code: i32) -> String {
    assert_eq!(output.code, code, "{}{}", output.stdout, output.stderr);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.starts_with("error: "), "{}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    output.stderr.clone()
}

/// The usual arguments with others in their place.
fn with(node: &Node, changes: &[(&str, &str)]) -> Vec<String> {
    let mut args = node.serve_arguments();
    for (flag, value) in changes {
        let at = args.iter().position(|arg| arg == flag).unwrap();
        args[at + 1] = (*value).to_owned();
    }
    args
}

/// A node that ran, has one app, and was stopped.
fn used() -> Node {
    let mut node = Node::start();
    node.deploy("good", &says("good"));
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    node
}

/// Starts a node whose state is not damaged, and looks at its app.
fn is_whole(node: &mut Node) {
    node.launch();
    assert_eq!(node.get("/good/").expect(200).text().trim(), "good");
    assert_eq!(node.get("/good/").header("x-faas-version"), Some("v1"));
}

#[test]
fn a_second_server_on_one_directory() {
    let node = Node::start();
    node.deploy("good", &says("good"));
    let said = refused(&node, &node.serve_arguments(), 5);
    let dir = node.data_dir().display().to_string();
    assert!(said.contains(&dir) && said.contains("another server"), "{said}");
    assert!(said.contains("--data-dir"), "it says what to do: {said}");
    // By another way to the same place, too.
    let link = node.home().join("link");
    std::os::unix::fs::symlink(node.data_dir(), &link).unwrap();
    refused(&node, &with(&node, &[("--data-dir", link.to_str().unwrap())]), 5);
    assert_eq!(node.get("/good/").expect(200).text().trim(), "good");
    node.deploy("good", &says("better"));
    assert_eq!(node.get("/good/").expect(200).text().trim(), "better");
}

#[test]
fn a_killed_server_leaves_no_lock() {
    let mut node = Node::start();
    node.deploy("good", &says("good"));
    node.kill();
    is_whole(&mut node);
}

#[test]
fn a_taken_port() {
    let node = Node::unstarted("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, name) in [("--listen", "ingress"), ("--admin-listen", "admin")] {
        let said = refused(&node, &with(&node, &[(flag, &address)]), 5);
        assert!(said.contains(&address) && said.contains(name), "{said}");
        assert!(said.contains("taken"), "{said}");
        assert!(!node.data_dir().exists(), "nothing was touched");
    }
    let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let said = refused(&node, &with(&node, &[("--listen", &own), ("--admin-listen", &own)]), 5);
    assert!(said.contains("admin") && said.contains(&own), "{said}");
}

#[test]
fn a_directory_that_is_none() {
    let node = Node::unstarted("");
    fs::write(node.data_dir(), "mine").unwrap();
    let said = refused(&node, &node.serve_arguments(), 1);
    assert!(said.contains("is not a directory"), "{said}");
    assert_eq!(fs::read_to_string(node.data_dir()).unwrap(), "mine");
    // One that cannot be made, even by an administrator.
    for dir in [node.data_dir().join("below"), "/proc/faas".into(), "/proc/self".into()] {
        let dir = dir.to_str().unwrap();
        let said = refused(&node, &with(&node, &[("--data-dir", dir)]), 1);
        assert!(said.contains(dir) && said.contains("--data-dir"), "{said}");
    }
}

#[test]
fn a_directory_without_permission() {
    let node = Node::unstarted("");
    fs::create_dir(node.data_dir()).unwrap();
    fs::set_permissions(node.data_dir(), fs::Permissions::from_mode(0o555)).unwrap();
    let output = Cli::unprivileged(node.home(), node.serve_arguments()).run();
    let said = refused_with(&output, 1);
    assert!(said.contains("takes no files"), "{said}");
    assert!(said.contains(node.data_dir().to_str().unwrap()), "{said}");
}

#[test]
fn secrets_that_others_can_read() {
    let mut node = used();
    for (file, mode) in [("admin.token", 0o644), ("admin.token", 0o660), ("node.key", 0o604)] {
        let path = node.data_dir().join(file);
        let before = fs::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let said = refused(&node, &node.serve_arguments(), 1);
        assert!(said.contains(path.to_str().unwrap()), "{said}");
        assert!(said.contains("can be read by others") && said.contains("chmod 600"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), before, "nobody replaced it");
        assert!(!said.contains(String::from_utf8_lossy(&before).trim()), "it is still a secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(node.data_dir().join("admin.token"), "\n").unwrap();
    let said = refused(&node, &node.serve_arguments(), 1);
    assert!(said.contains("admin.token") && said.contains("is empty"), "{said}");
    fs::remove_file(node.data_dir().join("admin.token")).unwrap();
    is_whole(&mut node);
}

#[test]
fn settings_that_make_no_sense() {
    let node = Node::unstarted("");
    let file = node.home().join("config.toml");
    for (config, words) in [
        ("[ingress]\nlisen = \"127.0.0.1:0\"\n", &["config.toml", "line 2", "lisen"][..]),
        ("\n\n[ingres]\n", &["config.toml", "line 3", "ingres"]),
        ("[limits]\n\ncpu_ms = \"many\"\n", &["config.toml", "line 3", "cpu_ms"]),
        ("[limits]\ncpu_ms = -1\n", &["config.toml", "line 2"]),
        ("[limits\n", &["config.toml", "line 1"]),
        ("[limits]\nmemory_bytes = 1\n", &["limits.memory_bytes", "65536"]),
        ("[limits]\ncpu_ms = 0\n", &["limits", "cpu_ms"]),
        ("[deploy]\nkeep_versions = 0\n", &["deploy.keep_versions"]),
        ("[engine]\nisolation = \"none\"\n", &["line 2", "fast", "strict"]),
        ("[log]\nfilter = \"nonsense=nonsense\"\n", &["log.filter"]),
    ] {
        fs::write(&file, config).unwrap();
        let said = refused(&node, &node.serve_arguments(), 2);
        for word in words {
            assert!(said.contains(word), "{config:?}: no `{word}` in {said}");
        }
    }
    fs::write(&file, "").unwrap();
    let said = refused(&node, &with(&node, &[("--admin-listen", "0.0.0.0:0")]), 2);
    assert!(said.contains("admin.insecure"), "{said}");
    let nowhere = node.home().join("nowhere.toml").display().to_string();
    let said = refused(&node, &with(&node, &[("--config", &nowhere)]), 2);
    assert!(said.contains(&nowhere), "{said}");
    assert!(!node.data_dir().exists(), "nothing was touched");
}

/// Damage that nobody can overlook.
#[test]
fn a_database_that_is_none() {
    let mut node = used();
    let file = node.data_dir().join("state.db");
    let good = fs::read(&file).unwrap();
    let logs: Vec<_> = ["state.db-wal", "state.db-shm"]
        .into_iter()
        .map(|name| node.data_dir().join(name))
        .filter(|path| path.exists())
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    let text = b"this is no database, but a text that somebody put here".repeat(100);
    for (what, bytes) in [
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("a text", Some(text)),
        ("half of it", Some(good[..good.len() / 2].to_vec())),
        ("its first bytes", Some(good[..100].to_vec())),
        ("zeros", Some(vec![0; good.len()])),
        ("zeros but for its head", Some([&good[..100], &vec![0; good.len() - 100]].concat())),
    ] {
        for (_, log) in &logs {
            let _ = fs::remove_file(log);
        }
        match &bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let said = refused(&node, &node.serve_arguments(), 1);
        assert!(said.contains("state.db"), "{what}: {said}");
        assert!(said.contains("backup"), "{what}: it says what to do: {said}");
        // Whoever can mend it finds it as it was.
        assert_eq!(fs::read(&file).ok(), bytes, "{what}");
    }
    fs::write(&file, good).unwrap();
    for (bytes, log) in logs {
        fs::write(log, bytes).unwrap();
    }
    is_whole(&mut node);
}

/// Wherever a byte changes: the node says so, or nothing is lost.
#[test]
fn a_database_with_a_changed_byte() {
    let node = used();
    let saved = Saved::of(&node);
    let good = fs::read(node.data_dir().join("state.db")).unwrap();
    // Most of the file is nothing but zeros.
    let filled: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut noticed = 0;
    for round in 0..24 {
        let at = filled[round * filled.len() / 24];
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (round % 8);
        saved.restore();
        fs::write(node.data_dir().join("state.db"), bytes).unwrap();
        noticed += u32::from(is_noticed_or_harmless(&node, at));
    }
    assert!(noticed > 0, "not one of 24 changes was noticed");
}

/// The same for the log beside it, which holds what was acknowledged last: here the change is in
/// the first of three deploys, so that it cannot be the end of a write that broke off.
#[test]
fn a_log_with_a_changed_byte() {
    let mut node = Node::start();
    for app in ["good", "second", "third"] {
        node.deploy(app, &says("good"));
    }
    node.kill();
    let saved = Saved::of(&node);
    let log = node.data_dir().join("state.db-wal");
    let good = fs::read(&log).expect("a node that was killed leaves its log");
    for round in 0..6 {
        let at = good.len() / 8 + round * good.len() / 16;
        let mut bytes = good.clone();
        bytes[at] ^= 1 << round;
        saved.restore();
        fs::write(&log, bytes).unwrap();
        is_noticed_or_harmless(&node, at);
    }
}

/// The database and what stands beside it, to be put back.
struct Saved(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Saved {
    fn of(node: &Node) -> Self {
        let names = ["state.db", "state.db-wal", "state.db-shm"];
        let files = names.map(|name| node.data_dir().join(name));
        Self(files.map(|file| (file.clone(), fs::read(&file).ok())).into())
    }

    fn restore(&self) {
        for (file, bytes) in &self.0 {
            match bytes {
                Some(bytes) => fs::write(file, bytes).unwrap(),
                // It may not be there now either.
                None => drop(fs::remove_file(file)),
            }
        }
    }
}

/// Starts a node: it refuses and says why, which is `true`, or it has its app.
fn is_noticed_or_harmless(node: &Node, at: usize) -> bool {
    match Started::of(node) {
        Started::Runs(mut child, ingress) => {
            let answer = Connection::open(ingress).ask(&Request::get("/good/"));
            end(&mut child);
            assert_eq!(answer.text().trim(), "good", "lost without a word, byte {at}: {answer:?}");
            false
        }
        Started::Refused(code, said) => {
            assert_eq!(code, Some(1), "byte {at}: {said}");
            assert!(said.contains("state.db"), "byte {at}: {said}");
            true
        }
    }
}

/// How a start ended.
enum Started {
    Runs(Child, std::net::SocketAddr),
    Refused(Option<i32>, String),
}

impl Started {
    fn of(node: &Node) -> Self {
        let mut child = Cli::new(node.home(), node.serve_arguments()).spawn();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if let Some(address) = line.trim().strip_prefix("ingress http://") {
            // Whoever writes to a pipe that nobody reads may wait for ever.
            let mut stderr = child.stderr.take().unwrap();
            std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
            return Self::Runs(child, address.parse().unwrap());
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        Self::Refused(child.wait().unwrap().code(), said)
    }
}

fn end(child: &mut Child) {
    faas_tests::process::signal(child.id(), Signal::TERM);
    let patience = Duration::from_secs(20);
    eventually("the node has ended", patience, || child.try_wait().unwrap());
}

/// Files of the node's own are nobody else's to read.
#[test]
fn what_a_new_directory_looks_like() {
    let node = Node::start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&node.data_dir()), 0o700);
    for file in ["admin.token", "node.key", "state.db"] {
        assert_eq!(mode(&node.data_dir().join(file)), 0o600, "{file}");
    }
    let token = node.token();
    assert!(token.len() >= 64, "256 random bits");
    assert!(!node.log().contains(&token), "the token is in the log");
}
