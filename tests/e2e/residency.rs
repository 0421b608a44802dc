//! More functions than there is room for in memory.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Node, Request,
    artifacts::{self, Guest},
    eventually,
};
use std::{fs, thread, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

fn loaded(node: &Node) -> f64 {
    node.metrics().sum("faas_functions_loaded", &[])
}

#[test]
fn functions_come_and_go_and_all_of_them_answer() {
    let mut node = Node::with("[engine]\nloaded_functions = 5\n");
    let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
    for name in &names {
        node.deploy(name, &artifacts::says(name));
    }
    let compiled = node.metrics().sum("faas_compile_seconds_count", &[]);
    for _ in 0..3 {
        for name in &names {
            assert_eq!(node.get(&format!("/{name}/")).expect(200).text().trim(), name);
        }
        eventually("there are no more than there is room for", PATIENCE, || {
            (loaded(&node) <= 5.0).then_some(())
        });
    }
    // Everybody came back twice, from the disk.
    assert_eq!(node.metrics().sum("faas_cold_starts_total", &[]), 60.0);
    assert_eq!(node.metrics().sum("faas_compile_seconds_count", &[]), compiled);
    // What is called all the time stays.
    let cold = |name: &str| node.metrics().sum("faas_cold_starts_total", &[("app", name)]);
    for name in &names {
        node.get("/f0/").expect(200);
        node.get(&format!("/{name}/")).expect(200);
    }
    assert_eq!(cold("f0"), 4.0);
    node.restart();
    assert_eq!(node.get("/f7/").expect(200).text().trim(), "f7");
}

#[test]
fn room_is_counted_in_bytes_too() {
    let node = Node::with("[engine]\nloaded_code_bytes = 1\n");
    for name in ["a", "b", "c"] {
        node.deploy(name, &artifacts::says(name));
    }
    for name in ["a", "b", "c", "a", "b", "c"] {
        assert_eq!(node.get(&format!("/{name}/")).expect(200).text().trim(), name);
        eventually("only the last one is there", PATIENCE, || (loaded(&node) <= 1.0).then_some(()));
    }
}

#[test]
fn a_call_keeps_what_it_runs() {
    let node = Node::with_guests("[engine]\nloaded_functions = 1\n");
    for guest in Guest::ALL {
        let mut busy = Connection::open(node.ingress());
        busy.start(&Request::get(&format!("/{}/slow?pieces=20&ms=20", guest.app())));
        busy.read_head(false).unwrap();
        for other in Guest::ALL.into_iter().filter(|other| *other != guest) {
            node.get(&format!("/{}/hello", other.app())).expect(200);
        }
        let mut body = Vec::new();
        let mut piece = [0; 64];
        while let length @ 1.. = busy.read_body(&mut piece).unwrap() {
            body.extend_from_slice(&piece[..length]);
        }
        assert_eq!(body.len(), 200, "{guest:?}");
    }
    node.idle();
}

#[test]
fn many_that_wait_for_one_function_load_it_once() {
    let node = Node::start();
    node.deploy("one", &artifacts::says("one"));
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| assert_eq!(node.get("/one/").expect(200).text().trim(), "one"));
        }
    });
    assert_eq!(node.metrics().sum("faas_cold_starts_total", &[]), 1.0);
}

/// After an upgrade of the engine, as far as the files show it.
#[test]
fn native_code_is_made_anew_in_the_background() {
    let mut node = Node::start();
    for name in ["a", "b", "c"] {
        node.deploy(name, &artifacts::says(name));
    }
    let code = |node: &Node| {
        let files = node.files("cache");
        files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "cwasm")).count()
    };
    assert_eq!(code(&node), 3);
    node.signal(rustix::process::Signal::TERM);
    assert!(node.wait().success());
    // What another engine left, and nothing of this one.
    let cache = node.data_dir().join("cache");
    for entry in std::fs::read_dir(&cache).unwrap() {
        let path = entry.unwrap().path();
        if std::fs::read_dir(&path).unwrap().count() > 0 {
            std::fs::rename(&path, cache.join("0123456789abcdef")).unwrap();
        }
    }
    node.launch();
    // Nobody waits for all of it.
    assert_eq!(node.get("/b/").expect(200).text().trim(), "b");
    eventually("there is code for all, and the old is gone", PATIENCE, || {
        let old = cache.join("0123456789abcdef").exists();
        (!old && code(&node) == 3).then_some(())
    });
    for name in ["a", "b", "c"] {
        assert_eq!(node.get(&format!("/{name}/")).expect(200).text().trim(), name);
    }
    assert_eq!(node.metrics().sum("faas_compile_seconds_count", &[]), 3.0);
}

/// Takes the native code of everything away.
fn forget_code(node: &Node) {
    let files = node.files("cache");
    let code = files.iter().filter(|file| file.extension().is_some_and(|e| e == "cwasm"));
    code.for_each(|file| fs::remove_file(file).unwrap());
}

/// Clients with little patience cannot keep a function from being compiled.
#[test]
fn compiling_goes_on_when_the_client_leaves() {
    let node = Node::with("[engine]\nloaded_functions = 1\n");
    let large = fs::read(artifacts::example("json-api")).unwrap();
    node.deploy("large", &large);
    node.deploy("other", &artifacts::says("other"));
    let compiled = || node.metrics().sum("faas_compile_seconds_count", &[]);
    assert_eq!(compiled(), 2.0);
    forget_code(&node);
    let mut client = Connection::open(node.ingress());
    client.start(&Request::get("/large/"));
    eventually("a compile process", PATIENCE, || working(&node).then_some(()));
    drop(client);
    eventually("its end", PATIENCE, || (compiled() == 3.0).then_some(()));
    node.idle();
}

/// Whether the node has a child: a compile process.
fn working(node: &Node) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
    let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children"));
    tasks.flatten().any(|task| children(task).is_ok_and(|pids| !pids.trim().is_empty()))
}

/// A disk that has other bytes than it was given: they never run.
#[test]
fn a_damaged_artifact_is_not_compiled() {
    let mut node = Node::start();
    node.deploy("hello", &artifacts::says("hello"));
    node.signal(rustix::process::Signal::TERM);
    assert!(node.wait().success());
    forget_code(&node);
    // It is good WebAssembly still, and says something else.
    for file in node.files("blobs/sha256") {
        let bytes = fs::read(&file).unwrap();
        let place = bytes.windows(5).position(|five| five == b"hello").unwrap();
        let other = [&bytes[..place], b"hallo", &bytes[place + 5..]].concat();
        fs::write(&file, other).unwrap();
    }
    node.launch();
    node.get("/hello/").failure(ErrorCode::ArtifactUnavailable);
    assert!(node.log().contains("does not match its digest"), "{}", node.log());
    // The same file again heals it.
    node.deploy("hello", &artifacts::says("hello"));
    assert_eq!(node.get("/hello/").expect(200).text().trim(), "hello");
}
