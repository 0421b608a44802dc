//! A node whose sockets somebody else holds can be restarted, and no client notices.
//!
//! `FAAS_TEST_FULL=1` makes the long tests as long as they are meant to be.

use faas_tests::{
    Connection, Node, Parent, Request,
    artifacts::says,
    eventually, faas_binary, full,
    load::{Load, Outcome},
    parent::{Passed, no_socket, spawn_with},
};
use rustix::{
    net::{AddressFamily, SocketType, bind, socket},
    process::Signal,
};
use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node on which the test guests are deployed, and which does not run.
fn with_guests(config: &str) -> Node {
    let mut node = Node::with_guests(config);
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    node
}

/// Clients of both kinds, for as long as it lives.
struct Clients(Vec<Load>);

impl Clients {
    fn of(peer: SocketAddr, per_second: usize, target: &str) -> Self {
        let each = u32::try_from(per_second).unwrap();
        Self(vec![Load::start(peer, each, &[target]), Load::kept(peer, each, &[target])])
    }

    /// Waits until each kind got so many more answers.
    fn more(&self, count: usize) {
        for load in &self.0 {
            let wanted = load.so_far() + count;
            eventually("more answers", PATIENCE, || (load.so_far() >= wanted).then_some(()));
        }
    }

    /// Every one of them got an answer, each time.
    #[track_caller]
    fn stop(self) -> Vec<Outcome> {
        let outcomes: Vec<Outcome> = self.0.into_iter().flat_map(Load::stop).collect();
        let failed: Vec<&Outcome> = outcomes.iter().filter(|o| o.status != Ok(200)).collect();
        let (count, first) = (failed.len(), failed.first());
        assert!(failed.is_empty(), "{count} of {} failed: {first:?}", outcomes.len());
        assert!(outcomes.iter().any(|outcome| outcome.kept), "none was kept");
        outcomes
    }
}

#[test]
fn no_client_notices_changes_and_restarts() {
    let mut node = Node::unstarted("");
    let parent = Parent::new(&node);
    parent.launch(&mut node);
    node.deploy("shop", &says("one"));
    node.deploy("other", &says("other"));
    let clients = Clients::of(parent.ingress(), full(40, 200), "/shop/");
    let rest = || clients.more(20);
    rest();
    node.deploy("shop", &says("two"));
    rest();
    node.cli(["rollback", "shop"]).run().expect(0);
    rest();
    node.cli(["delete", "other", "--yes"]).run().expect(0);
    node.cli(["env", "set", "A=1", "--app", "shop"]).run().expect(0);
    node.cli(["secret", "put", "KEY", "--app", "shop"]).stdin("secret").run().expect(0);
    rest();
    // The next one is there before the one before ends, or after.
    for number in 0..full(3, 30) {
        match number % 3 {
            2 => parent.restart(&mut node),
            _ => parent.hand_over(&mut node),
        }
        rest();
    }
    node.deploy("shop", &says("three"));
    assert_eq!(node.get("/shop/").expect(200).text().trim(), "three");
    rest();
    let outcomes = clients.stop();
    let slowest = outcomes.iter().map(|outcome| outcome.ended - outcome.started).max();
    let said = outcomes.iter().filter(|o| o.headers.contains_key("connection")).count();
    faas_tests::figure(&format!(
        "{} requests, {said} last ones, the slowest {slowest:?}",
        outcomes.len()
    ));
    assert!(said > 0, "answers say that their connections end");
}

/// An answer that has begun is finished by the node that began it; requests that come while nobody
/// accepts wait for the next one.
#[test]
fn what_is_in_flight_stays_and_what_is_new_waits() {
    let mut node = with_guests("");
    let parent = Parent::new(&node);
    parent.launch(&mut node);
    let mut stream = Connection::open(parent.ingress());
    stream.start(&Request::get("/http03/slow?pieces=30&ms=100&bytes=10"));
    assert_eq!(stream.read_head(false).unwrap().status, 200);
    let mut half = Connection::open(parent.ingress());
    half.write(b"GET /http03/hello HTTP/1.1\r\nhost: a\r\n").unwrap();
    let mut kept = Connection::open(parent.ingress());
    kept.ask(&Request::get("/http02/hello")).expect(200);
    let old = node.pid();
    node.signal(Signal::TERM);
    parent.stopping();
    // In use all the time, so it is told rather than closed.
    eventually("the last answer", PATIENCE, || {
        kept.start(&Request::get("/http02/hello"));
        let answer = kept.read_answer(false).unwrap().expect(200);
        (answer.header("connection") == Some("close")).then_some(())
    });
    assert!(kept.is_closed());
    // Nobody is refused, whoever answers.
    let begun = Instant::now();
    let waiting: Vec<Connection> = (0..50)
        .map(|_| {
            let mut connection = Connection::open(parent.ingress());
            connection.start(&Request::get("/http03/hello"));
            connection
        })
        .collect();
    half.write(b"\r\n").unwrap();
    let answer = half.read_answer(false).unwrap().expect(200);
    assert_eq!(answer.header("connection"), Some("close"));
    let mut body = Vec::new();
    let mut piece = [0; 100];
    while let length @ 1.. = stream.read_body(&mut piece).unwrap() {
        body.extend_from_slice(&piece[..length]);
    }
    assert_eq!(body.len(), 300, "after {:?}", begun.elapsed());
    assert!(stream.is_closed());
    assert!(node.wait().success());
    let late = Connection::open(parent.ingress());
    parent.launch(&mut node);
    assert_ne!(node.pid(), old);
    for mut connection in waiting {
        assert_eq!(connection.read_answer(false).unwrap().expect(200).text(), "hello\n");
    }
    let mut late = late;
    late.ask(&Request::get("/http03/hello")).expect(200);
}

#[test]
fn it_uses_its_sockets_and_tells_its_state() {
    for named in [true, false] {
        // Addresses that nobody can have: they are not used.
        let config = "[ingress]\nlisten = \"192.0.2.1:1\"\n[admin]\nlisten = \"127.0.0.1:1\"\n";
        let mut node = Node::unstarted(config);
        let parent = if named { Parent::new(&node) } else { Parent::nameless(&node) };
        parent.launch(&mut node);
        let log = node.log();
        let address = parent.ingress();
        assert!(log.contains(&format!("ingress {address} instead of 127.0.0.1:0")), "{log}");
        let out = fs::read_to_string(node.home().join("node.out")).unwrap();
        let (ingress, admin) = (node.ingress(), node.admin());
        assert_eq!(out, format!("ingress http://{ingress}\nadmin http://{admin}\n"));
        // Nothing that it starts can inherit them.
        for file in [3, 4] {
            let info = fs::read_to_string(format!("/proc/{}/fdinfo/{file}", node.pid())).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
            assert_ne!(flags & 0o2_000_000, 0, "{file} is closed by `exec`: {info}");
        }
        node.deploy("hello", &says("hello"));
        assert_eq!(node.get("/hello/").expect(200).text().trim(), "hello");
        assert_eq!(parent.told_already(), None);
        node.signal(Signal::TERM);
        parent.stopping();
        assert!(node.wait().success());
        assert_eq!(parent.told_already(), None);
    }
}

/// Starts a node with these, and expects that it does not start; returns what it says.
#[track_caller]
fn refused(config: &str, files: Vec<(Option<&'static str>, OwnedFd)>) -> String {
    let node = Node::unstarted(config);
    let mut command = vec![faas_binary().display().to_string()];
    command.extend(node.serve_arguments());
    let files = files.into_iter().map(|(name, file)| Passed { name, file }).collect();
    let mut child = spawn_with(&command, files, node.home(), "");
    let status = eventually("it ends", PATIENCE, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(2), "{}", node.log());
    assert!(!node.data_dir().exists(), "it has begun");
    node.log()
}

#[test]
fn a_wrong_socket_is_a_mistake_in_the_configuration() {
    let tcp = || -> OwnedFd { TcpListener::bind("127.0.0.1:0").unwrap().into() };
    let folder = tempfile::tempdir().unwrap();
    let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
    let ingress = Some("ingress");
    for (file, says) in [
        (no_socket(folder.path()), "given as `ingress` is none for TCP"),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "given as `ingress` is none for TCP"),
        (unix.into(), "given as `ingress` is none for TCP"),
        (bound, "given as `ingress` does not listen"),
    ] {
        let said = refused("", vec![(ingress, file)]);
        assert!(said.contains(says), "{said}");
    }
    let said = refused("", vec![(ingress, tcp()), (Some("metrics"), tcp())]);
    assert!(said.contains("`metrics` is not known"), "{said}");
    let said = refused("", vec![(ingress, tcp()), (ingress, tcp())]);
    assert!(said.contains("`ingress` is there twice"), "{said}");
    // What is forbidden for an address is forbidden for a socket.
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap().into();
    let said = refused("", vec![(Some("admin"), everywhere)]);
    assert!(said.contains("admin.listen: beyond loopback"), "{said}");
    let said = refused("", vec![(ingress, tcp()), (Some("redirect"), tcp())]);
    assert!(said.contains("ingress.http_redirect: leads nowhere"), "{said}");
}

/// Variables that were meant for another process say nothing to this one.
#[test]
fn sockets_of_another_process_are_not_its_own() {
    let node = Node::unstarted("");
    let mut child = Command::new(faas_binary())
        .args(node.serve_arguments())
        .env_clear()
        .envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "2"), ("NOTIFY_SOCKET", "/nowhere")])
        .stdin(Stdio::null())
        .stdout(fs::File::create(node.home().join("out")).unwrap())
        .stderr(fs::File::create(node.log_file()).unwrap())
        .spawn()
        .unwrap();
    let serves = || fs::read_to_string(node.home().join("out")).unwrap().contains("admin http");
    eventually("it serves", PATIENCE, || serves().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    // A manager that cannot be told is no reason to end.
    assert!(node.log().contains("NOTIFY_SOCKET"), "{}", node.log());
}

#[test]
fn a_node_that_is_killed_is_succeeded_at_once() {
    let mut node = with_guests("");
    let parent = Parent::new(&node);
    parent.launch(&mut node);
    let begin = || {
        let mut stream = Connection::open(parent.ingress());
        stream.start(&Request::get("/http03/slow?pieces=1000&ms=100"));
        assert_eq!(stream.read_head(false).unwrap().status, 200);
        stream
    };
    let waits = |node: &Node| node.log().matches("waits for the node before").count();
    // Two signals.
    let _stream = begin();
    let successor = parent.spawn(&node);
    eventually("it waits", PATIENCE, || (waits(&node) == 1).then_some(()));
    node.signal(Signal::TERM);
    parent.stopping();
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(130));
    parent.adopt(&mut node, successor);
    // And one that cannot be heard.
    let _stream = begin();
    let successor = parent.spawn(&node);
    eventually("it waits", PATIENCE, || (waits(&node) == 2).then_some(()));
    let mut waiting = Connection::open(parent.ingress());
    node.kill();
    parent.adopt(&mut node, successor);
    // The old one may have accepted it, and took it along.
    if let Ok(answer) = waiting
        .write(b"GET /http02/hello HTTP/1.1\r\nhost: a\r\n\r\n")
        .and_then(|()| waiting.read_answer(false))
    {
        answer.expect(200);
    }
    node.get("/http02/hello").expect(200);
}

#[test]
fn a_successor_that_waits_can_be_told_to_end() {
    let mut node = Node::unstarted("");
    let parent = Parent::new(&node);
    parent.launch(&mut node);
    let mut successor = parent.spawn(&node);
    let waits = || node.log().contains("waits for the node before to end");
    eventually("it waits", PATIENCE, || waits().then_some(()));
    faas_tests::process::signal(successor.id(), Signal::TERM);
    let status = eventually("it ends", PATIENCE, || successor.try_wait().unwrap());
    assert!(status.success(), "{status}");
    parent.stopping();
    node.deploy("hello", &says("hello"));
    node.get("/hello/").expect(200);
    assert_eq!(parent.told_already(), None);
}

#[test]
fn a_deploy_under_way_is_there_afterwards() {
    let mut node = Node::unstarted("");
    let parent = Parent::new(&node);
    parent.launch(&mut node);
    let wasm = says("kept");
    let request = Node::deploy_request("kept", &wasm)
        .header("authorization", &format!("Bearer {}", node.token()));
    let bytes = request.to_bytes(node.admin());
    let mut upload = Connection::open(node.admin());
    let (first, last) = bytes.split_at(bytes.len() - 10);
    upload.write(first).unwrap();
    let begun = || (!node.files("blobs/tmp").is_empty()).then_some(());
    eventually("the node stores it", PATIENCE, begun);
    let successor = parent.spawn(&node);
    node.signal(Signal::TERM);
    parent.stopping();
    upload.write(last).unwrap();
    let answer = upload.read_answer(false).unwrap().expect(201);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(node.wait().success());
    parent.adopt(&mut node, successor);
    assert_eq!(node.get("/kept/").expect(200).text().trim(), "kept");
}

/// Who was told that a version is live sees that version, and nobody loses a request for it.
#[test]
fn to_and_fro_between_versions() {
    let node = Node::start();
    node.deploy("a", &says("one"));
    node.deploy("a", &says("two"));
    let clients = Clients::of(node.ingress(), full(50, 200), "/a/");
    clients.more(10);
    // From when on which one may answer.
    let mut told: Vec<(Instant, Vec<&str>)> = vec![(Instant::now(), vec!["v2"])];
    for number in 0..full(40, 500) {
        let version = ["v1", "v2"][number % 2];
        told.push((Instant::now(), vec!["v1", "v2"]));
        let activate = format!("/v1/apps/a/versions/{version}/activate");
        node.api(Request::new("POST", &activate)).expect(200);
        told.push((Instant::now(), vec![version]));
        assert_eq!(node.get("/a/").header("x-faas-version"), Some(version));
        thread::sleep(Duration::from_millis(20));
    }
    let outcomes = clients.stop();
    let mut certain = 0;
    for outcome in &outcomes {
        // Between two moments at which something was told only what was told may answer.
        let begun = told.iter().rposition(|(from, _)| *from < outcome.started);
        let ended = told.iter().rposition(|(from, _)| *from < outcome.ended);
        if let (Some(begun), Some(ended)) = (begun, ended)
            && begun == ended
        {
            certain += 1;
            assert!(told[begun].1.contains(&outcome.version()), "{outcome:?}");
        }
    }
    faas_tests::figure(&format!("{} requests, {certain} within one state", outcomes.len()));
    assert!(certain > 0);
}

#[test]
fn apps_come_and_go_beside_one_that_is_called() {
    let node = Node::start();
    node.deploy("shop", &says("shop"));
    let clients = Clients::of(node.ingress(), full(50, 200), "/shop/");
    clients.more(10);
    let apps: Vec<String> = (0..full(12, 64)).map(|number| format!("app-{number}")).collect();
    thread::scope(|scope| {
        for part in apps.chunks(apps.len() / 4) {
            let node = &node;
            scope.spawn(move || {
                for app in part {
                    node.deploy(app, &says(app));
                    assert_eq!(node.get(&format!("/{app}/")).expect(200).text().trim(), app);
                }
                for app in part {
                    let status =
                        node.api(Request::new("DELETE", &format!("/v1/apps/{app}"))).status;
                    assert!(status < 300, "{status}");
                    node.get(&format!("/{app}/")).expect(404);
                }
            });
        }
    });
    clients.more(10);
    faas_tests::figure(&format!("{} requests", clients.stop().len()));
}
