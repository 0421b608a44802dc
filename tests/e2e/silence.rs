//! Limits of time that are not those of a whole call: on an answer that pauses, on what is done after
//! it, and on the making of an instance.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Deploy, Node, Request,
    artifacts::{self, Guest},
    block_on, eventually,
    hyper_client::{Client, Protocol, collect, empty},
};
use rustix::process::Signal;
use serde_json::json;
use std::{thread, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the log of an app says this of a failure.
#[track_caller]
fn logged(node: &Node, app: &str, words: &[&str]) {
    eventually(&format!("{words:?} in the log of {app}"), PATIENCE, || {
        let lines = node.api(Request::get(&format!("/v1/apps/{app}/logs"))).expect(200).text();
        let says = |line: &str| words.iter().all(|word| line.contains(word));
        lines.lines().any(says).then_some(())
    });
}

fn failures(node: &Node, app: &str, reason: &str) -> f64 {
    node.metrics().sum("faas_guest_failures_total", &[("app", app), ("reason", reason)])
}

/// The answer begins, and is seen to have no end, over both protocols.
#[track_caller]
fn broken_off(node: &Node, target: &str) {
    let mut connection = Connection::open(node.ingress());
    connection.start(&Request::get(target));
    // It reads on up to the first piece of the body, which may never come.
    if let Ok(head) = connection.read_head(false) {
        head.expect(200);
        let mut piece = vec![0; 64 << 10];
        while connection.read_body(&mut piece).is_ok_and(|bytes| {
            assert!(bytes > 0, "{target} looks like a whole body");
            true
        }) {}
    }
    let whole = block_on(async {
        let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
        let authority = node.ingress().to_string();
        let request = client.request("GET", &authority, target, empty());
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        collect(response).await.is_ok()
    });
    assert!(!whole, "{target} looks like a whole body over HTTP/2");
}

#[test]
fn an_answer_that_pauses_for_too_long() {
    let node =
        Node::with_guests("[engine]\nquarantine_after = 0\n[limits]\nresponse_idle_ms = 500\n");
    for guest in Guest::ALL {
        let app = guest.app();
        broken_off(&node, &format!("/{app}/slow?pieces=2&ms=60000"));
        logged(&node, app, &["limit `response_idle_ms` reached: 500ms without more of its body"]);
        assert_eq!(failures(&node, app, "wall_time"), 2.0, "{guest:?}");
        // Longer in all, and never for so long.
        let slow = node.get(&format!("/{app}/slow?pieces=15&ms=80")).expect(200);
        assert_eq!(slow.body.len(), 150, "{guest:?}");
        // Before the head it is another limit's business.
        node.get(&format!("/{app}/sleep?ms=1200")).expect(200);
    }
    for guest in [Guest::Http02, Guest::Http03] {
        broken_off(&node, &format!("/{}/attack?what=head-only", guest.app()));
    }
    node.idle();
}

#[test]
fn the_pause_of_a_client_is_not_its_functions() {
    let node =
        Node::with_guests("[engine]\nquarantine_after = 0\n[limits]\nresponse_idle_ms = 300\n");
    for guest in Guest::ALL {
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&format!("/{}/stream?kib=32768", guest.app())));
        connection.read_head(false).unwrap().expect(200);
        // Time passes in which nobody reads: what is under test, and not what is waited for.
        thread::sleep(Duration::from_millis(1000));
        let mut piece = vec![0; 256 << 10];
        let mut bytes = 0;
        loop {
            match connection.read_body(&mut piece).unwrap() {
                0 => break,
                length => bytes += length,
            }
        }
        assert_eq!(bytes, 32 << 20, "{guest:?}");
    }
    node.idle();
}

#[test]
fn a_function_may_ask_for_its_own_patience() {
    let node = Node::with("[max_limits]\nresponse_idle_ms = 60000\n");
    let with = |ms: u64| {
        let settings = json!({"limits": {"response_idle_ms": ms}});
        vec![Deploy::new("main", Guest::Http02.wasm(), settings)]
    };
    node.deploy_functions("hasty", &with(300));
    broken_off(&node, "/hasty/slow?pieces=2&ms=60000");
    logged(&node, "hasty", &["`response_idle_ms`", "300ms"]);
    let refused = node.try_deploy_functions("hasty", &with(60_001));
    refused.failure(ErrorCode::LimitAboveMaximum);
    assert!(refused.text().contains("`response_idle` is 60001 ms"), "{}", refused.text());
    assert_eq!(node.try_deploy_functions("hasty", &with(0)).status, 422);
}

#[test]
fn instances_that_take_too_long_to_make() {
    let node = Node::with("[engine]\nquarantine_after = 0\n[limits]\nstart_ms = 200\n");
    let module = artifacts::assemble(
        "(module (memory (export \"memory\") 1)
           (func $spin (loop $l (br $l))) (start $spin) (func (export \"_start\")))",
    );
    for (app, wasm) in [("module", module), ("component", artifacts::wat("spin-start"))] {
        node.deploy(app, &wasm);
        node.get(&format!("/{app}/")).failure(ErrorCode::CpuTime);
        logged(&node, app, &["limit `start_ms` reached: used", "of 200ms"]);
        assert_eq!(failures(&node, app, "cpu_time"), 1.0, "{app}");
    }
    // The constructors of a program run when it is called: they are part of the call.
    node.deploy("busy", &Guest::Http03.wasm());
    node.get("/busy/work?ms=500").expect(200);
    node.idle();
}

#[test]
fn what_is_done_after_the_answer_has_a_limit() {
    let node =
        Node::with_guests("[engine]\nquarantine_after = 0\n[limits]\nafter_response_ms = 400\n");
    for guest in [Guest::Http02, Guest::Http03] {
        let app = guest.app();
        assert_eq!(node.get(&format!("/{app}/after?ms=60000")).expect(200).text(), "ended\n");
        let words = ["after its response: limit `after_response_ms` reached: 400ms without an end"];
        logged(&node, app, &words);
        assert_eq!(failures(&node, app, "wall_time"), 1.0, "{guest:?}");
        // Within the limit it is nobody's business.
        node.get(&format!("/{app}/after?ms=100")).expect(200);
        logged(&node, app, &["went on"]);
    }
    node.idle();
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n[limits]\ncpu_ms = 200\n");
    for guest in [Guest::Http02, Guest::Http03] {
        let app = guest.app();
        // CPU time is that of the whole call.
        assert_eq!(node.get(&format!("/{app}/after")).expect(200).text(), "ended\n");
        logged(&node, app, &["after its response: limit `cpu_ms` reached"]);
        assert_eq!(failures(&node, app, "cpu_time"), 1.0, "{guest:?}");
    }
    node.idle();
}

#[test]
fn a_node_that_drains_waits_for_what_is_done_after_answers() {
    let mut node = Node::with_guests("");
    for guest in [Guest::Http02, Guest::Http03] {
        node.get(&format!("/{}/after?ms=1500", guest.app())).expect(200);
    }
    node.signal(Signal::TERM);
    let status = node.wait();
    assert!(status.success(), "{status}");
    node.launch();
    for guest in [Guest::Http02, Guest::Http03] {
        logged(&node, guest.app(), &["went on"]);
    }
}
