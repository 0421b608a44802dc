//! Who gets in when there is no room: per function, in the pool, in the queue before it.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Node, Request,
    artifacts::{self, Guest},
    eventually,
};
use std::{
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Occupies instances of a function until this is dropped.
fn occupy(node: &Node, guest: Guest, instances: usize) -> Vec<Connection> {
    let request = Request::get(&format!("/{}/slow?pieces=100000&ms=20", guest.app()));
    let occupied = (0..instances).map(|_| {
        let mut connection = Connection::open(node.ingress());
        connection.start(&request);
        connection.read_head(false).unwrap();
        connection
    });
    occupied.collect()
}

#[test]
fn calls_of_one_function_at_once() {
    let node = Node::with_guests("[limits]\nconcurrency = 2\n");
    for guest in Guest::ALL {
        let app = guest.app();
        let mut busy = occupy(&node, guest, 2);
        let answer = node.get(&format!("/{app}/hello"));
        answer.failure(ErrorCode::Concurrency);
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.header("x-faas-version"), Some("v1"));
        let labels = [("app", app), ("reason", "concurrency")];
        assert_eq!(node.metrics().sum("faas_rejected_total", &labels), 1.0, "{guest:?}");
        // Others have places of their own.
        for other in Guest::ALL.into_iter().filter(|other| *other != guest) {
            node.get(&format!("/{}/hello", other.app())).expect(200);
        }
        busy.pop();
        eventually("a place is free", PATIENCE, || {
            (node.get(&format!("/{app}/hello")).status == 200).then_some(())
        });
    }
    node.idle();
}

#[test]
fn a_pool_that_is_full() {
    let node = Node::with_guests("[engine]\npool_size = 2\nqueue = 2\nqueue_timeout_ms = 300\n");
    for guest in Guest::ALL {
        let busy = occupy(&node, guest, 2);
        let started = Instant::now();
        let answer = node.get("/http02/hello");
        answer.failure(ErrorCode::Overloaded);
        assert!(answer.header("retry-after").is_some());
        assert!(started.elapsed() >= Duration::from_millis(300), "it waited in the queue");
        // Whoever finds the queue full does not wait at all.
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| node.get("/http02/hello").failure(ErrorCode::Overloaded));
            }
        });
        // The administrator needs no instance.
        assert_eq!(node.api(Request::get("/readyz")).status, 200);
        drop(busy);
        eventually("a place is free", PATIENCE, || {
            (node.get("/http02/hello").status == 200).then_some(())
        });
    }
    let labels = [("reason", "overloaded")];
    assert!(node.metrics().sum("faas_rejected_total", &labels) >= 44.0);
    node.idle();
}

/// More at once than there are places is a short wait and nothing else.
#[test]
fn a_burst_waits_its_turn() {
    let node = Node::with_guests("[engine]\npool_size = 2\nqueue_timeout_ms = 20000\n");
    thread::scope(|scope| {
        for number in 0..40 {
            let node = &node;
            let path = format!("/{}/sleep?ms=20", Guest::ALL[number % 4].app());
            scope.spawn(move || node.get(&path).expect(200));
        }
    });
    node.idle();
}

/// A client that gives up while it waits leaves its place in the queue to others.
#[test]
fn nobody_waits_for_who_has_left() {
    let node = Node::with_guests("[engine]\npool_size = 1\nqueue = 4\nqueue_timeout_ms = 60000\n");
    let busy = occupy(&node, Guest::Http03, 1);
    for _ in 0..20 {
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get("/http02/hello"));
        connection.reset();
    }
    thread::scope(|scope| {
        // There is room for this one, so it waits instead of being refused.
        let waits = scope.spawn(|| {
            eventually("a place in the queue", PATIENCE, || {
                let answer = node.get("/http02/hello");
                (answer.status == 200).then_some(())
            });
        });
        thread::sleep(Duration::from_millis(200));
        drop(busy);
        waits.join().unwrap();
    });
    node.idle();
}

/// A component of this many core modules with a memory each, which computes without an end.
fn with_memories(count: usize) -> Vec<u8> {
    let others = "(core instance (instantiate $memory))".repeat(count - 1);
    artifacts::assemble(&format!(
        r#"(component
            (core module $memory (memory (export "memory") 1))
            {others}
            (core module $program
                (memory 1)
                (func (export "run") (result i32) (loop $again (br $again)) (unreachable)))
            (core instance $instance (instantiate $program))
            (func $run (result (result)) (canon lift (core func $instance "run")))
            (instance $runner (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $runner)))"#
    ))
}

/// An instance takes a place for each of its memories, so that others find what their place promises.
/// One with more than there are runs alone.
#[test]
fn instances_with_many_memories() {
    let node = Node::with_guests("[engine]\npool_size = 8\n[limits]\ncpu_ms = 60000\n");
    node.deploy("wide", &with_memories(5));
    let mut busy = Connection::open(node.ingress());
    busy.start(&Request::get("/wide/"));
    let active = || node.metrics().sum("faas_instances_active", &[]);
    eventually("one computes", PATIENCE, || (active() == 1.0).then_some(()));
    let answer = node.get("/wide/");
    answer.failure(ErrorCode::Overloaded);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    // Eight places, six of them taken.
    node.get("/http02/hello").expect(200);
    busy.reset();
    node.idle();
    node.deploy("wide", &with_memories(12));
    let mut busy = Connection::open(node.ingress());
    busy.start(&Request::get("/wide/"));
    eventually("one computes", PATIENCE, || (active() == 1.0).then_some(()));
    node.get("/http02/hello").failure(ErrorCode::Overloaded);
    busy.reset();
    node.idle();
    node.get("/http02/hello").expect(200);
}

/// A program that sets up a table of so many elements and lets it grow by so many.
fn with_table(elements: u32, more: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (table $table {elements} funcref)
            (data (i32.const 0) "\10\00\00\00\06\00\00\00")
            (data (i32.const 16) "A:b\0a\0a-")
            (func (export "_start")
                (if (i32.ge_s (table.grow $table (ref.null func) (i32.const {more})) (i32.const 0))
                    (then (i32.store8 (i32.const 21) (i32.const 43))))
                (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    artifacts::assemble(&text)
}

#[test]
fn a_table_that_grows() {
    let node = Node::with("[limits]\ntable_elements = 1000\n");
    node.deploy("small", &with_table(10, 900));
    assert_eq!(node.get("/small/").expect(200).text(), "+");
    node.deploy("grows", &with_table(10, 2_000_000));
    assert_eq!(node.get("/grows/").expect(200).text(), "-");
    // More than there can be from the start is refused now or then, and hurts nobody.
    for elements in [2000, 10_000_000, u32::MAX] {
        let answer = node.try_deploy("large", &with_table(elements, 0));
        if answer.status == 201 {
            assert!(node.get("/large/").status >= 500);
        } else {
            assert_eq!(answer.status, 422, "{answer:?}");
        }
    }
    assert_eq!(node.get("/small/").expect(200).text(), "+");
}

/// A program whose memory starts with so many pages.
fn with_memory(pages: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") {pages})
            (data (i32.const 0) "\10\00\00\00\06\00\00\00")
            (data (i32.const 16) "A:b\0a\0a+")
            (func (export "_start")
                (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    artifacts::assemble(&text)
}

#[test]
fn a_memory_that_starts_too_large() {
    let node = Node::with("[limits]\nmemory_bytes = 16777216\n");
    node.deploy("fits", &with_memory(256));
    assert_eq!(node.get("/fits/").expect(200).text(), "+");
    for pages in [257, 4096, 65_536] {
        let answer = node.try_deploy("large", &with_memory(pages));
        if answer.status == 201 {
            assert_eq!(node.get("/large/").status, 500);
        } else {
            assert_eq!(answer.status, 422, "{answer:?}");
            let text = answer.text();
            assert!(text.contains("memory"), "it says what is too much: {text}");
        }
    }
    assert_eq!(node.get("/fits/").expect(200).text(), "+");
}
