//! Lines of functions' logs on disk: they outlive the node, within a budget.

use faas_tests::{
    Node, Request,
    artifacts::{Guest, says},
    eventually,
};
use serde_json::Value;
use std::{fs, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

/// The lines of an app, as the API gives them.
fn lines(node: &Node, query: &str) -> Vec<Value> {
    let text = node.api(Request::get(&format!("/v1{query}"))).expect(200).text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect()
}

/// Everything that is in the files.
fn on_disk(node: &Node) -> String {
    let files = node.files("logs").into_iter();
    let segments = files.filter(|file| file.extension().is_some_and(|end| end == "ndjson"));
    segments.map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
}

/// Sends a request, and waits until its lines are on disk.
fn call(node: &Node, path: &str) -> String {
    let answer = node.get(path);
    let id = answer.header("x-request-id").unwrap().to_owned();
    eventually("its lines are on disk", PATIENCE, || {
        let text = on_disk(node);
        let end = text.lines().find(|line| line.contains(&id) && line.contains("\"request\""));
        end.map(drop)
    });
    id
}

#[test]
fn earlier_lines_are_there_after_a_restart_and_a_kill() {
    let mut node = Node::with_guests("");
    let first = node.get("/http02/log?lines=2").expect(200);
    let first = first.header("x-request-id").unwrap();
    node.restart();
    let before = lines(&node, "/apps/http02/logs");
    assert_eq!(numbers(&before), [1, 2, 3]);
    assert!(before.iter().all(|line| line["request_id"] == first), "{before:?}");
    let told = node.cli(["logs", "http02"]).run().expect(0).stdout;
    assert!(told.contains("error line 1") && told.contains("GET /log → 200"), "{told}");

    let second = call(&node, "/http02/panic");
    node.kill();
    // As if the last write had not come to its end.
    let file = node.files("logs").into_iter().find(|file| file.ends_with("0000000001.ndjson"));
    let file = file.expect("a segment");
    let torn = format!("{}{{\"seq\":99,\"time\":\"20", fs::read_to_string(&file).unwrap());
    fs::write(&file, torn).unwrap();
    node.launch();
    let third = call(&node, "/http02/hello");
    let after = lines(&node, "/apps/http02/logs");
    let expected: Vec<u64> = (1..=after.len() as u64).collect();
    assert_eq!(numbers(&after), expected, "numbers go on where they were");
    assert_eq!(after.last().unwrap()["request_id"], third.as_str());
    let failed = lines(&node, "/apps/http02/logs?status=500");
    assert!(failed.iter().all(|line| line["request_id"] == second.as_str()), "{failed:?}");
    assert!(failed.iter().any(|line| line["source"] == "failure"), "{failed:?}");
    assert_eq!(lines(&node, &format!("/apps/http02/logs?request_id={first}")).len(), 3);
    assert_eq!(lines(&node, "/logs?limit=4").len(), 4);
    assert_eq!(numbers(&lines(&node, "/apps/http02/logs?limit=1")), expected[expected.len() - 1..]);
    assert!(on_disk(&node).lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn what_memory_has_no_room_for_is_read_from_disk() {
    let node = Node::with_guests("[log]\nfunction_lines = 50\n");
    for _ in 0..10 {
        call(&node, "/cgi01/log?lines=20");
    }
    let all = lines(&node, "/apps/cgi01/logs?since=1h");
    assert_eq!(numbers(&all), (1..=210).collect::<Vec<_>>());
    assert!(all.iter().all(|line| line.get("dropped").is_none()));
    let newest = lines(&node, "/apps/cgi01/logs?limit=100");
    assert_eq!(newest, all[110..]);
    assert_eq!(lines(&node, "/apps/cgi01/logs"), all[160..], "as many as are kept in memory");
    let lost = node.metrics().sum("faas_log_lines_dropped_total", &[("app", "cgi01")]);
    assert_eq!(lost, 0.0, "what is on disk is not lost");
}

#[test]
fn the_budget_holds() {
    let budget = 256 << 10;
    let config = format!("[log]\ndisk_bytes = {budget}\nsegment_bytes = 65536\n");
    let mut node = Node::with_guests(&config);
    let mut last = String::new();
    for _ in 0..8 {
        last = call(&node, "/http02/log?lines=300");
    }
    let used = |node: &Node| -> u64 {
        node.files("logs").iter().filter_map(|file| fs::metadata(file).ok()).map(|f| f.len()).sum()
    };
    assert!(used(&node) <= budget, "{}", used(&node));
    node.restart();
    assert!(used(&node) <= budget, "{}", used(&node));
    let kept = lines(&node, "/apps/http02/logs?since=1h");
    assert!((300..2000).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap()["seq"], 8 * 301);
    assert_eq!(kept.last().unwrap()["request_id"], last.as_str());
}

#[test]
fn a_deleted_apps_lines_are_gone() {
    let mut node = Node::with_guests("");
    node.deploy("hello", &says("one"));
    call(&node, "/hello/secret-one");
    call(&node, "/http02/other");
    for restart in [false, true] {
        node.api(Request::new("DELETE", "/v1/apps/hello")).expect(204);
        if restart {
            node.restart();
        }
        assert!(lines(&node, "/logs").iter().all(|line| line["app"] == "http02"));
        node.deploy("hello", &says("two"));
        assert_eq!(lines(&node, "/apps/hello/logs"), [Value::Null; 0]);
        call(&node, "/hello/two");
        let new = lines(&node, "/apps/hello/logs?since=1h");
        assert_eq!(numbers(&new), [1]);
        assert_eq!(new[0]["path"], "/two");
    }
}

#[test]
fn off_means_off_and_a_folder_that_cannot_be_used_stops_nobody() {
    let mut node = Node::with_guests("[log]\ndisk_bytes = 0\n");
    fs::remove_dir_all(node.data_dir().join("logs")).unwrap();
    node.get("/http02/hello").expect(200);
    assert_eq!(lines(&node, "/apps/http02/logs").len(), 1);
    node.restart();
    assert_eq!(lines(&node, "/apps/http02/logs").len(), 0);
    assert!(node.files("logs").is_empty());

    let mut node = Node::unstarted("");
    fs::create_dir(node.data_dir()).unwrap();
    fs::write(node.data_dir().join("logs"), "in the way").unwrap();
    node.launch();
    node.deploy("http02", &Guest::Http02.wasm());
    node.get("/http02/hello").expect(200);
    assert_eq!(lines(&node, "/apps/http02/logs").len(), 1);
    assert!(node.log().contains("kept in memory only"), "{}", node.log());
}
