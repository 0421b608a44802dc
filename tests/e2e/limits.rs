//! Every limit stops the call that is over it, has a code, and is named in the log; the client
//! learns no more than the code.

use faas_api::ErrorCode;
use faas_tests::{
    Answer, Connection, Node, Request,
    artifacts::{self, Guest},
    block_on, eventually,
    hyper_client::{Client, Protocol, collect, empty},
    process,
};
use serde_json::Value;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(10);

fn path(guest: Guest, path: &str) -> String {
    format!("/{}/{path}", guest.app())
}

/// The lines of a function's log that came from this source.
fn lines(node: &Node, guest: Guest, source: &str) -> Vec<Value> {
    let lines = node.cli(["logs", guest.app(), "-o", "json"]).run().expect(0).json_lines();
    lines.into_iter().filter(|line| line["source"] == source).collect()
}

/// Waits until the log says why the last call failed, in these words.
#[track_caller]
fn logged(node: &Node, guest: Guest, words: &[&str]) {
    let what = format!("{guest:?}: {words:?} in the log");
    eventually(&what, PATIENCE, || {
        let line = lines(node, guest, "failure").pop()?;
        let message = line["message"].as_str()?;
        words.iter().all(|word| message.contains(word)).then_some(())
    });
}

/// Nothing of what went on inside is told to the client.
#[track_caller]
fn discreet(answer: &Answer) {
    let text = format!("{answer:?}").to_lowercase();
    for word in ["unreachable", "xyzzy", "wasm", "panicked", ".rs", "_start", "memory", "backtrace"]
    {
        assert!(!text.contains(word), "`{word}` in {answer:?}");
    }
}

/// The failures of a function for this reason.
fn failures(node: &Node, guest: Guest, reason: &str) -> f64 {
    let labels = [("app", guest.app()), ("reason", reason)];
    node.metrics().sum("faas_guest_failures_total", &labels)
}

#[test]
fn cpu_time() {
    let node = Node::with_guests("[limits]\ncpu_ms = 300\n");
    for guest in Guest::ALL {
        let started = Instant::now();
        let answer = node.get(&path(guest, "spin"));
        answer.failure(ErrorCode::CpuTime);
        discreet(&answer);
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < PATIENCE, "{guest:?}: {took:?}");
        logged(&node, guest, &["cpu_ms", "300ms"]);
        assert_eq!(failures(&node, guest, "cpu_time"), 1.0, "{guest:?}");
        // Waiting costs none.
        assert_eq!(node.get(&path(guest, "sleep?ms=600")).expect(200).text(), "slept\n");
    }
    node.idle();
}

#[test]
fn others_are_served_while_four_spin() {
    // One thread has every connection, those of the spinning guests included.
    let node = Node::with_guests("[ingress]\nthreads = 1\n[limits]\ncpu_ms = 3000\n");
    for guest in Guest::ALL {
        node.get(&path(guest, "count")).expect(200);
    }
    let spinning = AtomicUsize::new(Guest::ALL.len());
    let (served, slowest) = thread::scope(|scope| {
        for guest in Guest::ALL {
            let (node, spinning) = (&node, &spinning);
            scope.spawn(move || {
                let answer = node.get(&path(guest, "spin"));
                spinning.fetch_sub(1, Ordering::Relaxed);
                answer.failure(ErrorCode::CpuTime);
            });
        }
        let active = || node.metrics().sum("faas_instances_active", &[]);
        eventually("all four spin", PATIENCE, || (active() == 4.0).then_some(()));
        let mut connection = Connection::open(node.ingress());
        let (mut served, mut slowest) = (0, Duration::ZERO);
        while spinning.load(Ordering::Relaxed) == Guest::ALL.len() {
            let guest = Guest::ALL[served % Guest::ALL.len()];
            // New connections are taken, too.
            if served % 3 == 0 {
                connection = Connection::open(node.ingress());
            }
            let started = Instant::now();
            let answer = connection.ask(&Request::get(&path(guest, "count"))).expect(200);
            assert_eq!(answer.text(), "1\n");
            slowest = slowest.max(started.elapsed());
            served += 1;
        }
        (served, slowest)
    });
    assert!(served >= 10, "{served} requests, the slowest took {slowest:?}");
    assert!(slowest < Duration::from_millis(2500), "{served} requests, {slowest:?}");
    // Four times three seconds of work, much of it spent waiting for a core.
    let elsewhere = process::thread_ticks(node.pid(), "long-guests");
    assert!(elsewhere >= 100, "{elsewhere} ticks: they spun on the thread of the connections");
    node.idle();
}

#[test]
fn a_guest_that_was_moved_answers_as_any_other() {
    let node = Node::with_guests("[ingress]\nthreads = 1\n");
    for guest in Guest::ALL {
        // Long enough to be moved before its head, and then again to wait, write and be read.
        let answer = node.get(&path(guest, "work?ms=40&then=slow")).expect(200);
        assert_eq!(answer.text().len(), 50, "{guest:?}");
    }
    let moved = process::thread_ticks(node.pid(), "long-guests");
    assert!(moved > 0, "nobody was moved");
    node.idle();
}

#[test]
fn time_to_the_first_byte() {
    let node = Node::with_guests("[limits]\nfirst_byte_ms = 400\n");
    for guest in Guest::ALL {
        let started = Instant::now();
        let answer = node.get(&path(guest, "sleep?ms=60000"));
        answer.failure(ErrorCode::WallTime);
        discreet(&answer);
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(400) && took < PATIENCE, "{guest:?}: {took:?}");
        logged(&node, guest, &["first_byte_ms", "400ms"]);
        assert_eq!(failures(&node, guest, "wall_time"), 1.0, "{guest:?}");
        // It counts up to the head, not beyond.
        let slow = node.get(&path(guest, "slow?pieces=5&ms=150")).expect(200);
        assert_eq!(slow.body.len(), 50, "{guest:?}");
    }
    node.idle();
}

#[test]
fn time_of_the_whole_call() {
    let node = Node::with_guests("[limits]\nwall_ms = 500\n");
    for guest in Guest::ALL {
        let started = Instant::now();
        broken_off(&node, &path(guest, "slow?pieces=10000&ms=20"));
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(400) && took < PATIENCE, "{guest:?}: {took:?}");
        logged(&node, guest, &["wall_ms", "500ms"]);
        // Over both protocols.
        assert_eq!(failures(&node, guest, "wall_time"), 2.0, "{guest:?}");
    }
    node.idle();
}

#[test]
fn memory() {
    let node = Node::with_guests("[limits]\nmemory_bytes = 33554432\n");
    for guest in Guest::ALL {
        let text = |query: &str| node.get(&path(guest, query)).expect(200).text();
        assert_eq!(text("grow?mib=8"), "grown 8 MiB\n", "{guest:?}");
        let refused = text("grow?mib=64");
        let grown = refused.strip_prefix("refused after ").and_then(|r| r.strip_suffix(" MiB\n"));
        let grown: u32 = grown.unwrap_or_else(|| panic!("{guest:?}: {refused}")).parse().unwrap();
        assert!((20..32).contains(&grown), "{guest:?}: {refused}");
        let answer = node.get(&path(guest, "hog"));
        answer.failure(ErrorCode::GuestTrap);
        discreet(&answer);
        logged(&node, guest, &["memory_bytes", "33554432", "unreachable"]);
        assert_eq!(failures(&node, guest, "guest_trap"), 1.0, "{guest:?}");
        let peak = node.metrics().sum("faas_memory_peak_bytes", &[("app", guest.app())]);
        assert!(peak > 0.0, "{guest:?}");
    }
    node.idle();
}

/// The node's own memory: one call may not have it all, and gives back what it had.
#[test]
fn memory_of_all_instances() {
    let node = Node::with_guests("[engine]\nmemory_budget_bytes = 67108864\n");
    for guest in Guest::ALL {
        for _ in 0..3 {
            let text = node.get(&path(guest, "grow?mib=100")).expect(200).text();
            assert!(text.starts_with("refused after "), "{guest:?}: {text}");
            node.get(&path(guest, "hog")).failure(ErrorCode::GuestTrap);
            assert_eq!(node.get(&path(guest, "grow?mib=16")).expect(200).text(), "grown 16 MiB\n");
        }
        logged(&node, guest, &["67108864"]);
    }
    node.idle();
}

#[test]
fn traps_are_told_to_the_log_and_not_to_the_client() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        for (call, word) in
            [("trap", "unreachable"), ("recurse", "out of bounds"), ("panic", "unreachable")]
        {
            let answer = node.get(&path(guest, call));
            let body = answer.failure(ErrorCode::GuestTrap);
            discreet(&answer);
            assert_eq!(answer.header("x-faas-version"), Some("v1"), "{guest:?}");
            logged(&node, guest, &[word]);
            let line = lines(&node, guest, "failure").pop().unwrap();
            assert_eq!(line["request_id"].as_str(), body.request_id.as_deref(), "{line}");
        }
        let said = lines(&node, guest, "stderr");
        let said = said.iter().any(|line| line["message"].as_str().unwrap().contains("xyzzy"));
        assert!(said, "{guest:?}: what the guest said of its panic");
        assert_eq!(failures(&node, guest, "guest_trap"), 3.0, "{guest:?}");
    }
    node.idle();
}

/// Rust has a stack of its own in linear memory; this one has the engine's.
#[test]
fn stack() {
    let node = Node::start();
    let wasm = artifacts::assemble(
        "(module (memory (export \"memory\") 1)
           (func $deeper (export \"_start\") (call $deeper) (call $deeper)))",
    );
    node.deploy("deep", &wasm);
    for _ in 0..3 {
        let answer = node.get("/deep/");
        answer.failure(ErrorCode::GuestTrap);
        discreet(&answer);
    }
    let logs = node.cli(["logs", "deep"]).run().expect(0).stdout;
    assert_eq!(logs.matches("call stack exhausted").count(), 3, "{logs}");
    node.idle();
}

#[test]
fn log_bytes() {
    let node = Node::with_guests("[limits]\nlog_bytes = 1000\n");
    for guest in Guest::ALL {
        assert_eq!(node.get(&path(guest, "log?lines=20")).expect(200).text(), "20\n");
        let said = lines(&node, guest, "stderr");
        assert_eq!(said.len(), 20, "{guest:?}: within the limit nothing is lost");
        assert_eq!(node.get(&path(guest, "log?lines=500")).expect(200).text(), "500\n");
        let said = lines(&node, guest, "stderr").split_off(20);
        let messages: Vec<&str> = said.iter().map(|l| l["message"].as_str().unwrap()).collect();
        let (last, kept) = messages.split_last().unwrap();
        assert!(last.contains("log_bytes") && last.contains("1000"), "{guest:?}: {last}");
        let bytes: usize = kept.iter().map(|line| line.len() + 1).sum();
        assert!((900..=1001).contains(&bytes), "{guest:?}: {bytes} bytes");
        for (number, line) in kept[..kept.len() - 1].iter().enumerate() {
            assert_eq!(*line, format!("error line {number}"), "{guest:?}");
        }
        let labels = [("app", guest.app())];
        let lost = node.metrics().sum("faas_log_lines_dropped_total", &labels);
        let all = 500.0 - kept.len() as f64;
        assert!(lost == all || lost == all + 1.0, "{guest:?}: {lost} of {all}");
    }
    node.idle();
}

/// An answer that begins and does not come to its end.
#[track_caller]
fn broken_off(node: &Node, target: &str) -> usize {
    let mut connection = Connection::open(node.ingress());
    connection.start(&Request::get(target));
    connection.read_head(false).unwrap().expect(200);
    let mut piece = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        match connection.read_body(&mut piece) {
            Ok(0) => panic!("{target}: {bytes} bytes look like a whole body"),
            Ok(length) => bytes += length,
            Err(error) => {
                let kind = error.kind();
                let expected =
                    [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
                assert!(expected.contains(&kind), "{target}: {error}");
                break;
            }
        }
    }
    assert!(connection.is_closed(), "{target}");
    let whole = block_on(async {
        let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
        let authority = node.ingress().to_string();
        let request = client.request("GET", &authority, target, empty());
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let whole = collect(response).await.is_ok();
        // Only the stream is broken, not the connection.
        let hello = client.get(&authority, "/http02/hello").await.unwrap();
        assert_eq!(hello.body(), "hello\n");
        whole
    });
    assert!(!whole, "{target} looks like a whole body over HTTP/2");
    bytes
}

#[test]
fn an_answer_that_fails_on_its_way_is_seen_to_be_cut() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let bytes = broken_off(&node, &path(guest, "half?pieces=2&bytes=100000&ms=100"));
        assert!((1..=200_000).contains(&bytes), "{guest:?}: {bytes} bytes");
        logged(&node, guest, &["unreachable"]);
        assert_eq!(failures(&node, guest, "guest_trap"), 2.0, "{guest:?}");
    }
    node.idle();
}
