//! What functions write, and what the platform says of them: for the developer, and only for them.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Node, Request,
    artifacts::{self, Guest},
    eventually,
};
use serde_json::Value;
use std::time::Duration;

/// The lines of one request, as the API gives them.
fn lines(node: &Node, app: &str, id: &str) -> Vec<Value> {
    let path = format!("/v1/apps/{app}/logs?request_id={id}");
    let text = node.api(Request::get(&path)).expect(200).text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_trap_is_told_with_frames_that_people_can_read() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let answer = node.get(&format!("/{}/panic", guest.app()));
        answer.failure(ErrorCode::GuestTrap);
        let lines = lines(&node, guest.app(), answer.header("x-request-id").unwrap());
        let failures: Vec<&Value> =
            lines.iter().filter(|line| line["source"] == "failure").collect();
        assert_eq!(failures.len(), 1, "{guest:?}: {lines:?}");
        let frames = failures[0]["message"].as_str().unwrap();
        assert!(frames.contains("unreachable"), "{guest:?}: {frames}");
        assert!(frames.contains("guest_common::plan"), "{guest:?}: {frames}");
        for mangled in ["_ZN", "_RNv", "17h"] {
            assert!(!frames.contains(mangled), "{guest:?}: {frames}");
        }
        let words = lines.iter().filter_map(|line| line["message"].as_str());
        assert!(words.into_iter().any(|text| text.contains("xyzzy")), "{guest:?}: {lines:?}");
        assert!(!node.log().contains("xyzzy"), "the node's own log has text of a guest");
    }
}

#[test]
fn no_terminal_obeys_a_guest() {
    let node = Node::start();
    let rude = artifacts::assemble(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\15\00\00\00")
            (data (i32.const 16) "a\1b[31mred\0d\07\00\c2\9bb\ff\0afaas\n")
            (data (i32.const 64) "\50\00\00\00\06\00\00\00")
            (data (i32.const 80) "A:b\0a\0ac")
            (func (export "_start")
                (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
                (drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))))"#,
    );
    node.deploy("rude", &rude);
    node.get("/rude/%1b%5b31m").expect(200);
    let printable = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).unwrap();
        let odd = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(odd, None, "{text:?}");
    };
    let answer = node.api(Request::get("/v1/apps/rude/logs")).expect(200);
    printable(&answer.body);
    let told = node.cli(["logs", "rude"]).run().expect(0).stdout;
    assert!(told.contains("red"), "{told}");
    printable(told.as_bytes());
    printable(node.log().as_bytes());
}

#[test]
fn lines_are_followed_as_they_come() {
    let node = Node::with_guests("");
    for accept in ["application/x-ndjson", "text/event-stream"] {
        let mut connection = Connection::open(node.admin());
        let request = Request::get("/v1/apps/http02/logs?follow=true")
            .header("authorization", &format!("Bearer {}", node.token()))
            .header("accept", accept);
        connection.start(&request);
        let head = connection.read_head(false).unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some(accept));
        let id = node.get("/http02/log?lines=2").expect(200);
        let id = id.header("x-request-id").unwrap();
        let (mut seen, mut piece) = (String::new(), vec![0; 4096]);
        eventually("the request is told", Duration::from_secs(20), || {
            let length = connection.read_body(&mut piece).unwrap();
            seen.push_str(std::str::from_utf8(&piece[..length]).unwrap());
            let whole = seen.contains("error line 1") && seen.contains(r#""status":200"#);
            (whole && seen.contains(id)).then_some(())
        });
    }
}

#[test]
fn older_lines_make_room() {
    let node = Node::with_guests("[log]\nfunction_lines = 50\n");
    for _ in 0..20 {
        node.get("/cgi01/log?lines=10").expect(200);
    }
    let text = node.api(Request::get("/v1/apps/cgi01/logs")).expect(200).text();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len(), 50);
    assert!(numbers.is_sorted(), "{numbers:?}");
    let dropped = node.metrics().sum("faas_log_lines_dropped_total", &[("app", "cgi01")]);
    assert_eq!(dropped, 170.0, "20 times 10 lines and one of the request, less 50");
    let newest = node.api(Request::get("/v1/apps/cgi01/logs?limit=3")).expect(200).text();
    assert_eq!(newest.lines().count(), 3);
    assert!(newest.lines().last().unwrap().contains(&format!("\"seq\":{}", numbers[49])));
}
