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
        // The first frame is the function's own: those of the panic say nothing.
        assert!(frames.contains("\n    0  guest_common::plan\n"), "{guest:?}: {frames}");
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

/// The lines of an app that a query picks, each as its source with a word that tells it.
fn picked(node: &Node, query: &str) -> Vec<String> {
    let text = node.api(Request::get(&format!("/v1{query}"))).expect(200).text();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = lines.map(|line| {
        let word = line["message"].as_str().or(line["path"].as_str()).unwrap();
        format!("{} {}", line["source"].as_str().unwrap(), word.lines().next().unwrap_or_default())
    });
    told.collect()
}

#[test]
fn filters_choose_lines() {
    let node = Node::with_guests("");
    let first = node.get("/http02/log?lines=2").expect(200);
    let first = &lines(&node, "http02", first.header("x-request-id").unwrap())[0];
    let from = first["time"].as_str().unwrap();
    node.get("/http02/status?code=404").expect(404);
    node.get("/http02/panic").expect(500);
    node.deploy("http02", &Guest::Http02.wasm());
    let id = node.get("/http02/hello").expect(200);
    let id = id.header("x-request-id").unwrap();

    let ask = |query: &str| picked(&node, &format!("/apps/http02/logs?{query}"));
    let requests = ["request /log", "request /status", "request /panic", "request /hello"];
    assert_eq!(ask("grep=%5EGET"), requests);
    assert_eq!(ask("status=404"), ["request /status"]);
    // Of a request that failed everything is shown, whatever came before its end was known.
    let failed = ask("status=5xx");
    assert!(failed.iter().any(|line| line.starts_with("failure trap ")), "{failed:?}");
    assert!(failed.iter().any(|line| line.contains("xyzzy")), "{failed:?}");
    assert_eq!(failed.last().unwrap(), "request /panic");
    assert_eq!(ask("status=5xx&grep=%5EGET"), ["request /panic"]);
    assert_eq!(ask("version=v2"), ["request /hello"]);
    assert_eq!(ask("function=main&version=v2"), ["request /hello"]);
    assert_eq!(ask("function=other"), [""; 0]);
    assert_eq!(ask("level=warn&grep=%5EGET"), requests[1..3]);
    assert_eq!(ask("grep=line+[1-9]"), ["stderr error line 1"]);
    assert_eq!(ask("grep=(%3Fi)ERROR+LINE&limit=1"), ["stderr error line 1"]);
    assert_eq!(ask(&format!("request_id={id}")), ["request /hello"]);
    assert_eq!(ask(&format!("since={from}&limit=2&grep=%5EGET")), requests[2..]);
    assert_eq!(ask("until=2026-01-01T00:00:00Z"), [""; 0]);
    assert_eq!(ask(&format!("until={from}")).first().unwrap(), "stderr error line 0");
    for (query, words) in [
        ("status=6xx", "`6xx` is no status"),
        ("status=", "is no status"),
        ("level=loud", "unknown variant"),
        ("version=3", "`v1`"),
        ("function=A", "cannot stand in a name"),
        ("grep=(", "unclosed group"),
        ("until=soon", "`until` is not a time"),
        ("sttaus=500", "unknown field"),
    ] {
        let answer = node.api(Request::get(&format!("/v1/apps/http02/logs?{query}")));
        let problem = answer.failure(ErrorCode::BadRequest).detail.unwrap();
        assert!(problem.contains(words), "{query}: {problem}");
    }
    let output = node.cli(["logs", "http02", "--grep", "("]).run().expect(2);
    assert!(output.stderr.contains("unclosed group"), "{}", output.stderr);
    let output = node.cli(["logs", "http02", "--status", "5xx", "--level", "error"]).run();
    let told = output.expect(0).stdout;
    assert!(told.contains("GET /panic → 500 guest_trap"), "{told}");
    assert!(told.contains("xyzzy") && told.contains("guest_common::plan"), "{told}");
    assert!(!told.contains("/status"), "{told}");
}

#[test]
fn all_apps_are_read_in_one_log() {
    let node = Node::with_guests("");
    for path in ["/http02/hello", "/cgi01/log?lines=1", "/http03/hello"] {
        node.get(path).expect(200);
    }
    let all = ["request /hello", "stderr error line 0", "request /log", "request /hello"];
    assert_eq!(picked(&node, "/logs"), all);
    assert_eq!(picked(&node, "/logs?limit=2"), all[2..]);
    let mut follower = Connection::open(node.admin());
    let bearer = format!("Bearer {}", node.token());
    let request = Request::get("/v1/logs?follow=true&limit=0");
    follower.start(&request.header("authorization", &bearer));
    assert_eq!(follower.read_head(false).unwrap().status, 200);
    node.get("/cgi02/hello").expect(200);
    node.deploy("later", &artifacts::says("later"));
    node.get("/later/new").expect(200);
    let (mut seen, mut piece) = (String::new(), vec![0; 4096]);
    eventually("both are told", Duration::from_secs(20), || {
        let length = follower.read_body(&mut piece).unwrap();
        seen.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        (seen.contains("\"cgi02\"") && seen.contains("\"/new\"")).then_some(())
    });
    let told = node.cli(["logs"]).run().expect(0).stdout;
    assert!(told.contains(" http02 v1 ") && told.contains(" later v1 "), "{told}");
    std::fs::write(
        node.home().join("faas.toml"),
        "[app]\nname = \"later\"\n[functions.main]\nsource = \"x.wasm\"\n",
    )
    .unwrap();
    let told = node.cli(["logs"]).run().expect(0).stdout;
    assert!(!told.contains(" http02 v1 ") && told.contains(" later v1 "), "{told}");
    let told = node.cli(["logs", "--all"]).run().expect(0).stdout;
    assert!(told.contains(" http02 v1 ") && told.contains(" later v1 "), "{told}");
}

#[test]
fn entries_of_wasi_logging_have_their_level() {
    let node = Node::start();
    for name in ["logging02", "logging03"] {
        node.deploy(name, &artifacts::logging(name));
        let answer = node.get(&format!("/{name}/")).expect(200);
        let all = lines(&node, name, answer.header("x-request-id").unwrap());
        let entries: Vec<&Value> = all.iter().filter(|line| line["source"] == "log").collect();
        let levels: Vec<&str> =
            entries.iter().map(|line| line["level"].as_str().unwrap()).collect();
        assert_eq!(levels, ["trace", "debug", "info", "warn", "error", "critical", "info"]);
        assert_eq!(
            (&entries[0]["context"], &entries[0]["message"]),
            (&"steps".into(), &"a trace".into())
        );
        assert_eq!(entries[3].get("context"), None);
        assert_eq!(entries[5]["context"], "ste\\nps");
        assert_eq!(entries[5]["message"], "a critical\n\\u{1b}[2Jof two lines");
        let large = entries[6]["message"].as_str().unwrap();
        assert!(large.len() <= 16 << 10 && large.ends_with("(cut)"), "{}", large.len());
        let others: Vec<_> = all.iter().filter(|line| line["source"] != "log").collect();
        assert_eq!(others[0]["level"], "info");
        assert_eq!(others[0]["message"], "to standard output");
        let told = node.cli(["logs", name, "--level", "warn"]).run().expect(0).stdout;
        for words in
            ["warn    a warn", "error   steps: an error", "critical", "          \\u{1b}[2J"]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(!told.contains("an info"), "{told}");
    }
    // A newer name than the one that is offered.
    let wat = r#"(component (import "wasi:logging/logging@0.2.0" (instance)))"#;
    let answer = node.try_deploy("newer", &artifacts::assemble(wat));
    assert_eq!(answer.status, 422, "{answer:?}");
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody() {
    const LINES: usize = 10_000;
    let node = Node::with_guests("[log]\nfunction_bytes_per_s = 0\n");
    let mut follower = Connection::open(node.admin());
    let bearer = format!("Bearer {}", node.token());
    let request = Request::get("/v1/apps/cgi01/logs?follow=true");
    follower.start(&request.header("authorization", &bearer));
    assert_eq!(follower.read_head(false).unwrap().status, 200);
    // More than the sockets between them hold.
    let mut last = String::new();
    for _ in 0..12 {
        let answer = node.get(&format!("/cgi01/log?lines={LINES}")).expect(200);
        last = answer.header("x-request-id").unwrap().to_owned();
    }
    let (mut seen, mut piece) = (Vec::new(), vec![0; 1 << 20]);
    eventually("the newest lines come, too", Duration::from_secs(60), || {
        let length = follower.read_body(&mut piece).unwrap();
        seen.extend_from_slice(&piece[..length]);
        let tail = String::from_utf8_lossy(&seen[seen.len().saturating_sub(2000)..]).into_owned();
        (tail.contains(&last) && tail.contains("\"source\":\"request\"")).then_some(())
    });
    // Every line is there or told as lost, once.
    let mut expected = 1;
    let mut lost = 0;
    for line in String::from_utf8(seen).unwrap().lines().filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let dropped = line["dropped"].as_u64().unwrap_or(0);
        assert_eq!(line["seq"].as_u64().unwrap(), expected + dropped, "{line}");
        expected += dropped + 1;
        lost += dropped;
    }
    assert_eq!(expected - 1, 12 * (LINES as u64 + 1));
    assert!(lost > 0, "the reader was not slow enough for this test");
}

#[test]
fn older_lines_make_room() {
    let node = Node::with_guests("[log]\nfunction_lines = 50\ndisk_bytes = 0\n");
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

/// An app that writes without end loses its own lines, and nobody else's.
#[test]
fn a_flood_of_lines_is_cut() {
    let node = Node::with_guests("[log]\nfunction_bytes_per_s = 2000\n");
    for guest in Guest::ALL {
        let app = guest.app();
        node.get(&format!("/{app}/log?lines=1000")).expect(200);
        let log = node.cli(["logs", app]).run().expect(0).stdout;
        assert!(log.contains("log.function_bytes_per_s"), "{guest:?}: {log}");
        let kept = log.matches("error line").count();
        assert!((50..900).contains(&kept), "{guest:?}: {kept} lines");
        let lost = node.metrics().sum("faas_log_lines_dropped_total", &[("app", app)]);
        assert!(lost >= 100.0, "{guest:?}: {lost}");
    }
}
