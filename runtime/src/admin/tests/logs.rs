//! Reading and following logs.

use super::*;
use crate::{
    request_id::RequestId,
    telemetry::guest_logs::{AppLog, Event, Origin},
};
use faas_api::VersionId;

const TARGET: &str = "/v1/apps/hello/logs";

struct Writer {
    log: Arc<AppLog>,
    origin: Arc<Origin>,
}

impl Writer {
    async fn new(node: &Node) -> Self {
        node.add("hello", true).await;
        Self {
            log: node.logs.get(&"hello".parse().unwrap()).unwrap(),
            origin: Arc::new(Origin {
                function: "main".parse().unwrap(),
                version: VersionId::new(1),
            }),
        }
    }

    fn say(&self, message: &str) -> RequestId {
        let id = RequestId::new();
        self.log.push(&self.origin, id, crate::clock::now(), Event::Stdout(message));
        id
    }
}

fn messages(body: &str) -> Vec<String> {
    let lines = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn lines_are_chosen_and_written_in_both_forms() {
    let node = Node::new().await;
    let writer = Writer::new(&node).await;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(writer.say(&n.to_string()));
    }
    let answer = node.ask("GET", TARGET).await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert_eq!(messages(&answer.body).len(), 300);
    let first: Value = serde_json::from_str(answer.body.lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"], 1);
    assert_eq!(first["app"], "hello");
    assert_eq!(first["version"], "v1");
    assert_eq!(first["source"], "stdout");

    let ask =
        async |query: &str| messages(&node.ask("GET", &format!("{TARGET}?{query}")).await.body);
    assert_eq!(ask("limit=2").await, ["298", "299"]);
    assert_eq!(ask("limit=0").await, [""; 0]);
    assert_eq!(ask(&format!("request_id={}", ids[7])).await, ["7"]);
    assert_eq!(ask("request_id=nobody").await, [""; 0]);
    assert_eq!(ask("since=1h&limit=1").await, ["299"]);
    assert_eq!(ask("since=2999-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(ask("since=2020-01-01T00:00:00%2B02:00&follow=false").await.len(), 300);

    let events = request("GET", &format!("{TARGET}?limit=2")).header("accept", "text/event-stream");
    let answer = node.call(events.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events: Vec<&str> = answer.body.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 2);
    assert!(events[1].starts_with("id: hello:300\ndata: {"), "{events:?}");

    assert_eq!(ask("until=2020-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(ask("grep=%5E29[0-9]%24&level=info&version=v1&function=main").await.len(), 10);
    assert_eq!(ask("level=warn").await, [""; 0]);
    assert_eq!(ask("status=5xx").await, [""; 0]);
    for bad in [
        "limit=-1",
        "limit=x",
        "since=yesterday",
        "follow=maybe",
        "folow=true",
        "since=",
        "until=1w",
        "status=0",
        "level=WARN",
        "version=1",
        "function=-",
        "grep=[",
    ] {
        node.ask("GET", &format!("{TARGET}?{bad}")).await.error(ErrorCode::BadRequest);
    }
    let both = format!("{TARGET}?until=1s&follow=true");
    node.ask("GET", &both).await.error(ErrorCode::Unprocessable);
    node.ask("GET", "/v1/apps/nobody/logs").await.error(ErrorCode::NotFound);
}

#[tokio::test]
async fn all_apps_have_one_log() {
    let node = Node::new().await;
    let writer = Writer::new(&node).await;
    node.add("other", true).await;
    writer.say("one");
    let other = node.logs.get(&"other".parse().unwrap()).unwrap();
    let later = crate::clock::now() + jiff::SignedDuration::from_secs(1);
    other.push(&writer.origin, RequestId::new(), later, Event::Stdout("two"));
    assert_eq!(messages(&node.ask("GET", "/v1/logs").await.body), ["one", "two"]);
    assert_eq!(messages(&node.ask("GET", "/v1/logs?limit=1").await.body), ["two"]);
    node.ask("GET", "/v1/logs?app=other").await.error(ErrorCode::BadRequest);
    let events = request("GET", "/v1/logs").header("accept", "text/event-stream");
    let answer = node.call(events.body(Body::empty()).unwrap()).await;
    assert!(answer.body.starts_with("id: hello:1\ndata: {"), "{answer:?}");
}

#[tokio::test]
async fn a_line_is_one_line_whatever_is_in_it() {
    let node = Node::new().await;
    let writer = Writer::new(&node).await;
    writer.say("a\nb\r\u{1b}[2J\u{9b}x\u{2028}y");
    for accept in ["application/x-ndjson", "text/event-stream"] {
        let request = request("GET", TARGET).header("accept", accept);
        let answer = node.call(request.body(Body::empty()).unwrap()).await;
        let lines = answer.body.lines().filter(|line| line.contains('{')).count();
        assert_eq!(lines, 1, "{answer:?}");
        assert!(!answer.body.contains(['\u{1b}', '\u{9b}', '\u{2028}', '\r']), "{answer:?}");
    }
}

/// The next piece of a body, or the end.
async fn next(body: &mut Body) -> Option<String> {
    let frame = body.frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_follower_gets_lines_as_they_come_until_the_app_is_gone() {
    let node = Node::new().await;
    let writer = Writer::new(&node).await;
    writer.say("old");
    writer.say("one");
    let request = request("GET", &format!("{TARGET}?follow=true&limit=1"));
    let mut body = node.open(request.body(Body::empty()).unwrap()).await.into_body();
    assert_eq!(messages(&next(&mut body).await.unwrap()), ["one"]);
    writer.say("two");
    assert_eq!(messages(&next(&mut body).await.unwrap()), ["two"]);
    writer.say("last");
    node.ask("DELETE", "/v1/apps/hello").await;
    assert_eq!(messages(&next(&mut body).await.unwrap()), ["last"]);
    assert_eq!(next(&mut body).await, None);
}

#[tokio::test]
async fn a_follower_is_told_that_the_connection_lives_and_when_the_node_stops() {
    let mut node = Node::new().await;
    node.patience.heartbeat = Duration::from_millis(1);
    Writer::new(&node).await;
    let request = request("GET", &format!("{TARGET}?follow=true"));
    let mut body = node.open(request.body(Body::empty()).unwrap()).await.into_body();
    assert_eq!(next(&mut body).await.as_deref(), Some("\n"));
    node.shutdown.drain();
    while let Some(beat) = next(&mut body).await {
        assert_eq!(beat, "\n");
    }
}

#[tokio::test]
async fn a_slow_reader_misses_lines_and_holds_up_nobody() {
    let node = Node::new().await;
    let writer = Writer::new(&node).await;
    let request = request("GET", &format!("{TARGET}?follow=true"));
    let mut body = node.open(request.body(Body::empty()).unwrap()).await.into_body();
    writer.say("first");
    next(&mut body).await.unwrap();
    for n in 0..5000 {
        writer.say(&n.to_string());
    }
    let first: Value =
        serde_json::from_str(next(&mut body).await.unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"], 4002, "the oldest that is left");
    assert_eq!(first["dropped"], 4000, "which says what was lost");
}
