//! `faas logs`

use crate::{
    command::Faas,
    server::{Reply, Server},
};
use faas_api::{LogLevel, LogLine, LogSource};
use serde_json::{Value, json};
use std::sync::{Mutex, mpsc};

fn line(seq: u64, request_id: &str, source: LogSource) -> LogLine {
    LogLine {
        seq,
        time: "2026-11-20T12:04:07.113Z".parse().unwrap(),
        app: "orders".parse().unwrap(),
        function: "main".parse().unwrap(),
        version: "v7".parse().unwrap(),
        request_id: request_id.to_owned(),
        level: LogLevel::Info,
        dropped: 0,
        source,
    }
}

fn request(seq: u64, request_id: &str, path: &str) -> LogLine {
    let source = LogSource::Request {
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        code: None,
        duration_ms: 3.1,
        cpu_ms: 0.9,
        memory_bytes: 6_501_171,
    };
    line(seq, request_id, source)
}

fn stderr(seq: u64, request_id: &str, message: &str) -> LogLine {
    let message = message.to_owned();
    line(seq, request_id, LogSource::Stderr { message })
}

fn log() -> Vec<LogLine> {
    vec![
        stderr(1, "A", "first"),
        stderr(2, "B", "other"),
        request(3, "A", "/42"),
        request(4, "B", "/43"),
    ]
}

#[test]
fn requests_with_what_they_wrote() {
    let server = Server::start(|_request| Reply::lines(&log()));
    let faas = Faas::with_server(&server.url());
    let args = ["logs", "orders", "--since", "10m", "--limit", "5", "--request-id", "A"];
    let output = faas.run(&args).exits(0);
    assert_eq!(
        output.stdout,
        "12:04:07.113 orders v7 A GET /42 → 200   3.1 ms · 0.9 ms CPU · 6.2 MiB\n  \
           stderr  first\n\
         12:04:07.113 orders v7 B GET /43 → 200   3.1 ms · 0.9 ms CPU · 6.2 MiB\n  \
           stderr  other\n"
    );
    assert_eq!(server.asked(), ["GET /v1/apps/orders/logs?since=10m&limit=5&request_id=A"]);
    let output = faas.run(&["logs", "orders", "-o", "json"]).exits(0);
    let lines: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[2]["source"], json!("request"));
    assert_eq!(lines[2]["level"], json!("info"));
}

#[test]
fn every_filter_reaches_the_server() {
    let server = Server::start(|_request| Reply::lines(&log()));
    let faas = Faas::with_server(&server.url());
    let filters = [
        ("--until", "5m", "until=5m"),
        ("--status", "404,5xx", "status=404%2C5xx"),
        ("--version", "v3", "version=v3"),
        ("--function", "api", "function=api"),
        ("--level", "warn", "level=warn"),
        ("--grep", "a+ b", "grep=a%2B+b"),
    ];
    for (flag, value, query) in filters {
        faas.run(&["logs", "orders", flag, value]).exits(0);
        assert_eq!(server.asked().last().unwrap(), &format!("GET /v1/apps/orders/logs?{query}"));
    }
}

#[test]
fn without_an_app_it_is_the_projects_or_all() {
    let server = Server::start(|_request| Reply::lines(&log()));
    let faas = Faas::with_server(&server.url());
    let last = || server.asked().last().unwrap().clone();
    faas.run(&["logs"]).exits(0);
    assert_eq!(last(), "GET /v1/logs");
    let manifest = "[app]\nname = \"shop\"\n[functions.main]\nsource = \"x.wasm\"\n";
    std::fs::write(faas.dir().join("faas.toml"), manifest).unwrap();
    faas.run(&["logs"]).exits(0);
    assert_eq!(last(), "GET /v1/apps/shop/logs");
    faas.run(&["logs", "--all"]).exits(0);
    assert_eq!(last(), "GET /v1/logs");
    faas.run(&["logs", "orders"]).exits(0);
    assert_eq!(last(), "GET /v1/apps/orders/logs");
    faas.run(&["logs", "orders", "--all"]).exits(2);
}

/// A server whose log a test writes as it goes.
fn live() -> (mpsc::Sender<String>, Server) {
    let (log, lines) = mpsc::channel();
    let lines = Mutex::new(Some(lines));
    let server =
        Server::start(move |_request| Reply::pieces(lines.lock().unwrap().take().unwrap()));
    (log, server)
}

fn json_line(line: &LogLine) -> String {
    serde_json::to_string(line).unwrap() + "\n"
}

#[test]
fn follow_shows_lines_as_they_come() {
    let (log, server) = live();
    let mut faas = Faas::with_server(&server.url()).start(&["logs", "-f", "orders"]);
    // A line in two pieces, and two lines in one.
    let first = json_line(&request(1, "A", "/1"));
    let (left, right) = first.split_at(20);
    log.send(left.to_owned()).unwrap();
    log.send(right.to_owned()).unwrap();
    assert!(faas.line().contains(" A GET /1 "));
    let both = json_line(&request(2, "B", "/2")) + &json_line(&request(3, "C", "/3"));
    log.send(both).unwrap();
    assert!(faas.line().contains(" B GET /2 "));
    assert!(faas.line().contains(" C GET /3 "));
    // A request that does not end does not keep its lines to itself.
    log.send(json_line(&stderr(4, "D", "hello"))).unwrap();
    assert!(faas.line().ends_with(" D …"));
    assert_eq!(faas.line(), "  stderr  hello");
    drop(log);
    assert_eq!(faas.end(), (0, Vec::new()));
    assert_eq!(server.asked(), ["GET /v1/apps/orders/logs?follow=true"]);
}

#[test]
fn follow_in_json_is_a_line_each() {
    let (log, server) = live();
    let args = ["logs", "-f", "orders", "-o", "json"];
    let mut faas = Faas::with_server(&server.url()).start(&args);
    for seq in 1..4 {
        log.send(json_line(&stderr(seq, "A", "hello"))).unwrap();
        let line: Value = serde_json::from_str(&faas.line()).unwrap();
        assert_eq!(line["seq"], json!(seq));
        assert_eq!(line["message"], json!("hello"));
    }
    drop(log);
    assert_eq!(faas.end(), (0, Vec::new()));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let (log, server) = live();
    let mut faas = Faas::with_server(&server.url()).spawn(&["logs", "-f", "orders"]);
    drop(faas.stdout.take());
    log.send(json_line(&request(1, "A", "/1"))).unwrap();
    let output = faas.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
