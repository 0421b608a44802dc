//! One app that wants everything leaves the others what they need: places in the pool, places in the
//! queue before it, memory.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Node, Request,
    artifacts::Guest,
    eventually,
    process::{peak_bytes, resident_bytes},
};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Ends what runs beside a test, also when the test fails.
#[derive(Default)]
struct Stop(AtomicBool);

impl Stop {
    fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Sets it when this is dropped.
    fn at_end(&self) -> impl Drop + '_ {
        struct AtEnd<'a>(&'a Stop);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.0.store(true, Relaxed);
            }
        }
        AtEnd(self)
    }
}

/// Calls of an app that hold an instance until this is dropped; asked for one after the other, until
/// one of them gets none.
fn take_all(node: &Node, app: &str, most: usize) -> Vec<Connection> {
    let mut held = Vec::new();
    while held.len() < most {
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&format!("/{app}/slow?pieces=100000&ms=20")));
        if connection.read_head(false).unwrap().status != 200 {
            break;
        }
        held.push(connection);
    }
    held
}

#[test]
fn an_app_that_takes_every_place_leaves_some() {
    let node = Node::with_guests("[engine]\npool_size = 32\nqueue_timeout_ms = 50\n");
    let greedy = take_all(&node, "http02", 32);
    assert_eq!(greedy.len(), 30);
    // Each of the others is as if it were alone.
    for guest in [Guest::Http03, Guest::Cgi01, Guest::Cgi02] {
        for _ in 0..20 {
            node.get(&format!("/{}/hello", guest.app())).expect(200);
        }
    }
    let answer = node.get("/http02/hello");
    answer.failure(ErrorCode::Overloaded);
    assert!(answer.header("retry-after").is_some());
    let refused = |app: &str| {
        let labels = [("app", app), ("reason", "overloaded")];
        node.metrics().sum("faas_rejected_total", &labels)
    };
    assert!(refused("http02") >= 1.0);
    assert_eq!(refused("http03") + refused("cgi01") + refused("cgi02"), 0.0);
    drop(greedy);
    node.idle();
}

/// What an operator allows an app is all it gets, all its functions and versions together.
#[test]
fn a_share_that_is_set() {
    let node =
        Node::with_guests("[engine]\npool_size = 16\napp_instances = 3\nqueue_timeout_ms = 50\n");
    let held = take_all(&node, "http03", 16);
    assert_eq!(held.len(), 3);
    let answer = node.get("/http03/hello");
    answer.failure(ErrorCode::Concurrency);
    assert!(answer.header("retry-after").is_some());
    node.deploy("http03", &Guest::Http03.wasm());
    node.get("/http03/hello").failure(ErrorCode::Concurrency);
    let log = node.cli(["logs", "http03"]).run().expect(0).stdout;
    assert!(log.contains("engine.app_instances"), "{log}");
    node.get("/http02/hello").expect(200);
    drop(held);
    node.idle();
    node.get("/http03/hello").expect(200);
}

/// A flood that fills the queue costs those who make it.
#[test]
fn a_flood_of_one_app_does_not_push_others_out() {
    let config = "[engine]\npool_size = 4\nqueue = 8\nqueue_timeout_ms = 20000\n";
    let node = Node::with_guests(config);
    let stop = Stop::default();
    thread::scope(|scope| {
        let _stop = stop.at_end();
        for _ in 0..32 {
            scope.spawn(|| {
                while !stop.is_set() {
                    let answer = node.get("/http02/slow?pieces=2&ms=5");
                    assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
                }
            });
        }
        let refused = || {
            let labels = [("app", "http02"), ("reason", "overloaded")];
            node.metrics().sum("faas_rejected_total", &labels) > 0.0
        };
        eventually("the queue is full", PATIENCE, || refused().then_some(()));
        for _ in 0..10 {
            for guest in [Guest::Http03, Guest::Cgi01, Guest::Cgi02] {
                node.get(&format!("/{}/hello", guest.app())).expect(200);
            }
        }
    });
    node.idle();
}

/// Every guest takes all the memory it gets, as many at once as there are places: the node stays
/// within what it computed, and others have memory.
#[test]
fn memory_bombs_in_every_place() {
    let config = "[engine]\nnode_memory_bytes = 1073741824\nqueue_timeout_ms = 20000\n\
                  quarantine_after = 0\n[limits]\ncpu_ms = 20000\n";
    let node = Node::with_guests(config);
    let calm = resident_bytes(node.pid());
    let stop = Stop::default();
    thread::scope(|scope| {
        let _stop = stop.at_end();
        for index in 0..48 {
            let (node, stop) = (&node, &stop);
            scope.spawn(move || {
                let app = [Guest::Http02, Guest::Http03, Guest::Cgi01][index % 3].app();
                let target = match index % 4 {
                    0 => format!("/{app}/hog"),
                    1 if app != "cgi01" => format!("/{app}/hoard?what=fields"),
                    _ => format!("/{app}/grow?mib=120"),
                };
                while !stop.is_set() {
                    let answer = node.get(&target);
                    let expected = [200, 500, 503, 504];
                    assert!(expected.contains(&answer.status), "{target}: {answer:?}");
                }
            });
        }
        // Memory of its own, too, and every call answered.
        for _ in 0..40 {
            let text = node.get("/cgi02/grow?mib=12").expect(200).text();
            assert_eq!(text, "grown 12 MiB\n");
        }
    });
    let peak = peak_bytes(node.pid());
    assert!(peak < 1 << 30, "{} MiB at most, {} MiB calm", peak >> 20, calm >> 20);
    node.idle();
    node.get("/http02/hello").expect(200);
}
