//! `faas list`, `describe`, `versions`, `rollback` and `delete`.

use crate::{
    command::Faas,
    server::{Reply, Request, Server},
};
use faas_api::{
    App, AppList, AppSummary, Digest, ErrorCode, Function, Kind, Settings, Traffic, TrafficShare,
    Version, VersionId, VersionList, apps::TrafficChanged,
};
use serde_json::{Value, json};

const URL: &str = "http://127.0.0.1:8080/shop/";

fn version(number: u32) -> VersionId {
    VersionId::new(number)
}

fn shares(shares: &[(u32, u8)]) -> Traffic {
    let share = |(number, percent): &(u32, u8)| TrafficShare {
        version: version(*number),
        percent: *percent,
    };
    Traffic::of(shares.iter().map(share).collect())
}

fn functions() -> Vec<Function> {
    vec![Function {
        name: "main".parse().unwrap(),
        kind: Kind::Http02,
        digest: Digest::of(b"hello"),
        size: 86_016,
        route: "/*".to_owned(),
        reuse: None,
        settings: Settings::default(),
    }]
}

/// What was live before: the one below the newest.
fn before(traffic: &Traffic) -> Option<VersionId> {
    let newest = traffic.shares.iter().map(|share| share.version.number()).max()?;
    match newest {
        10 if traffic.only().is_some() => Some(version(8)),
        10 => Some(version(9)),
        2 => Some(version(1)),
        _ => None,
    }
}

fn app(traffic: Traffic) -> App {
    App {
        name: "shop".parse().unwrap(),
        urls: vec![URL.to_owned(), "http://shop.localhost:8080/".to_owned()],
        before: before(&traffic),
        traffic,
        functions: functions(),
        aborted: None,
        versions: 3,
        created_at: "2020-01-01T12:00:00Z".parse().unwrap(),
        updated_at: "2020-02-01T12:00:00Z".parse().unwrap(),
    }
}

fn versions(traffic: &Traffic, numbers: &[u32]) -> VersionList {
    let one = |number: &u32| Version {
        version: version(*number),
        created_at: "2020-01-01T12:00:00Z".parse().unwrap(),
        created_by: "ci".to_owned(),
        message: (*number == 9).then(|| "checkout: new totals\nand more".to_owned()),
        size: 217_088,
        live_percent: traffic.percent_of(version(*number)),
        functions: functions(),
        domains: Vec::new(),
        pinned: false,
        preview_url: format!("http://127.0.0.1:8080/shop@v{number}/"),
    };
    VersionList { app: "shop".parse().unwrap(), versions: numbers.iter().map(one).collect() }
}

/// A server with one app.
fn server(traffic: Traffic, numbers: &'static [u32]) -> Server {
    Server::start(move |request: &Request| match request.line().as_str() {
        "GET /v1/apps/shop" => Reply::json(&app(traffic.clone())).header("etag", "\"7\""),
        "GET /v1/apps/shop/versions" => Reply::json(&versions(&traffic, numbers)),
        "DELETE /v1/apps/shop" => Reply::new(204, ""),
        "PUT /v1/apps/shop/traffic" if request.header("if-match") == Some("\"7\"") => {
            Reply::json(&TrafficChanged {
                app: "shop".parse().unwrap(),
                traffic: serde_json::from_slice(&request.body).unwrap(),
                previous: traffic.clone(),
                url: URL.to_owned(),
            })
        }
        _ => Reply::error(ErrorCode::NotFound),
    })
}

#[test]
fn list() {
    let summary = AppSummary {
        name: "shop".parse().unwrap(),
        url: URL.to_owned(),
        traffic: shares(&[(9, 95), (10, 5)]),
        versions: 1_234,
        created_at: "2020-01-01T12:00:00Z".parse().unwrap(),
        updated_at: "2020-02-01T12:00:00Z".parse().unwrap(),
    };
    let server =
        Server::start(move |_request| Reply::json(&AppList { apps: vec![summary.clone()] }));
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["list"]).exits(0);
    assert_eq!(
        output.stdout,
        "  NAME  LIVE           VERSIONS  UPDATED     URL\n  \
           shop  v9 95 %, v10 5 %  1,234     2020-02-01  http://127.0.0.1:8080/shop/\n"
            .replace("LIVE           VERSIONS", "LIVE              VERSIONS")
    );
    assert_eq!(faas.run(&["ls"]).exits(0).stdout, output.stdout);
    let document = faas.run(&["ls", "-o", "json"]).exits(0).json();
    assert_eq!(document["command"], json!("list"));
    assert_eq!(document["data"]["apps"][0]["name"], json!("shop"));
}

#[test]
fn list_of_nothing() {
    let server = Server::start(|_request| Reply::json(&AppList { apps: Vec::new() }));
    let output = Faas::with_server(&server.url()).run(&["list"]).exits(0);
    assert_eq!(output.stdout, "");
    assert_eq!(output.stderr, "   no apps yet; `faas new hello` starts one\n");
}

#[test]
fn describe() {
    let server = server(shares(&[(9, 100)]), &[9]);
    let output = Faas::with_server(&server.url()).run(&["describe", "shop"]).exits(0);
    assert_eq!(
        output.stdout,
        "shop\n  \
           url       http://127.0.0.1:8080/shop/\n            \
                     http://shop.localhost:8080/\n  \
           live      v9\n  \
           versions  3\n  \
           created   2020-01-01\n  \
           updated   2020-02-01\n\
         \n  \
           FUNCTION  ROUTE  KIND      INSTANCES  SIZE    DIGEST\n  \
           main      /*     http-0.2  one each   84 KiB  2cf24dba5fb0\n"
    );
}

#[test]
fn version_table() {
    let server = server(shares(&[(9, 100)]), &[9, 8]);
    let output = Faas::with_server(&server.url()).run(&["versions", "shop"]).exits(0);
    assert_eq!(
        output.stdout,
        "  VERSION  LIVE   CREATED     BY  MESSAGE               SIZE\n  \
           v9       100 %  2020-01-01  ci  checkout: new totals  212 KiB\n  \
           v8              2020-01-01  ci                        212 KiB\n"
    );
}

#[test]
fn rollback_to_what_was_live_before() {
    let server = server(shares(&[(10, 100)]), &[11, 10, 8, 7]);
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["rollback", "shop"]).exits(0);
    assert!(output.stdout.starts_with("v8 live (was v10), "), "{output:?}");
    assert!(output.stdout.ends_with(", nothing recompiled\n"), "{output:?}");
    let requests = server.requests();
    let change = requests.last().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&change.body).unwrap(),
        json!({ "shares": [{ "version": "v8", "percent": 100 }] })
    );
    let data = &faas.run(&["rollback", "shop", "v7", "-o", "json"]).exits(0).json()["data"];
    assert_eq!(data["traffic"]["shares"][0]["version"], json!("v7"));
}

#[test]
fn rollback_of_a_split_takes_the_newer_version_out() {
    let server = server(shares(&[(9, 95), (10, 5)]), &[10, 9, 8]);
    let output = Faas::with_server(&server.url()).run(&["rollback", "shop"]).exits(0);
    assert!(output.stdout.starts_with("v9 live (was v9 95 %, v10 5 %), "), "{output:?}");
}

#[test]
fn rollback_to_nowhere() {
    let first = server(shares(&[(1, 100)]), &[2, 1]);
    let faas = Faas::with_server(&first.url());
    let output = faas.run(&["rollback", "shop"]).exits(4);
    assert!(output.stderr.contains("no version of `shop` was live before v1"), "{output:?}");
    let output = faas.run(&["rollback", "shop", "v5"]).exits(4);
    assert!(output.stderr.contains("`shop` has no v5"), "{output:?}");
    let output = faas.run(&["rollback", "shop", "v1"]).exits(0);
    assert_eq!(output.stdout, "v1 live already\n");
    let stored = server(shares(&[]), &[1]);
    Faas::with_server(&stored.url()).run(&["rollback", "shop"]).exits(4);
    for server in [first, stored] {
        assert!(!server.asked().iter().any(|line| line.starts_with("PUT")));
    }
}

#[test]
fn what_is_live_is_not_promoted_again() {
    let server = server(shares(&[(2, 100)]), &[2, 1]);
    let output = Faas::with_server(&server.url()).run(&["promote", "shop", "v2"]).exits(0);
    assert_eq!(output.stdout, "v2 live already\n");
    assert!(!server.asked().iter().any(|line| line.starts_with("PUT")));
}

#[test]
fn rollback_notices_a_change_in_between() {
    let traffic = shares(&[(2, 100)]);
    let server = Server::start(move |request: &Request| match request.method.as_str() {
        "PUT" => Reply::error(ErrorCode::Conflict),
        _ if request.target.ends_with("versions") => Reply::json(&versions(&traffic, &[2, 1])),
        _ => Reply::json(&app(traffic.clone())),
    });
    let output = Faas::with_server(&server.url()).run(&["rollback", "shop"]).exits(5);
    assert!(output.stderr.contains("look at `faas versions shop`"), "{output:?}");
}

#[test]
fn delete_needs_a_yes() {
    let server = server(shares(&[(1, 100)]), &[1]);
    let faas = Faas::with_server(&server.url());
    // Standard input is no terminal, so nobody is asked.
    let output = faas.run_with_input(&["delete", "shop"], "y\n").exits(2);
    assert!(output.stderr.contains("needs a yes"), "{output:?}");
    assert_eq!(server.asked(), [""; 0]);
    let output = faas.run(&["rm", "shop", "-y"]).exits(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "   deleted shop\n"));
    assert_eq!(server.asked(), ["DELETE /v1/apps/shop"]);
    faas.run(&["rm", "other", "-y"]).exits(4);
}
