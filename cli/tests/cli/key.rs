//! `faas key create`, `list` and `revoke`.

use crate::{
    command::Faas,
    server::{Reply, Request, Server},
};
use faas_api::{ApiKey, CreatedKey, ErrorBody, ErrorCode, KeyList, NewKey};
use serde_json::{Value, json};

const SECRET: &str = "faas_key_00";
const ID: &str = "01kb3w5s4m6b2n9q1rz8t7xvcd";

fn key(name: &str, functions: &[&str], expires_at: Option<&str>) -> ApiKey {
    ApiKey {
        id: ID.to_owned(),
        name: name.parse().unwrap(),
        functions: functions.iter().map(|name| name.parse().unwrap()).collect(),
        created_at: "2020-01-01T12:00:00Z".parse().unwrap(),
        created_by: "admin".to_owned(),
        expires_at: expires_at.map(|time| time.parse().unwrap()),
    }
}

fn server() -> Server {
    Server::start(|request: &Request| match request.line().as_str() {
        "POST /v1/apps/shop/keys" => {
            let new: NewKey = serde_json::from_slice(&request.body).unwrap();
            let functions: Vec<&str> = new.functions.iter().map(|name| name.as_str()).collect();
            let mut key = key(new.name.as_str(), &functions, None);
            key.expires_at = new.expires_at;
            Reply::json(&CreatedKey { secret: SECRET.to_owned(), key })
        }
        "GET /v1/apps/shop/keys" => Reply::json(&KeyList {
            app: "shop".parse().unwrap(),
            keys: vec![
                key("ci", &["api", "jobs"], Some("2999-01-01T00:00:00Z")),
                key("old", &[], Some("2021-01-01T00:00:00Z")),
            ],
        }),
        "DELETE /v1/apps/shop/keys/ci" => Reply::new(204, ""),
        _ => Reply::problem(&ErrorBody::new(ErrorCode::NotFound).detail("there is no such key")),
    })
}

#[test]
fn the_text_of_a_key_is_the_result() {
    let server = server();
    let faas = Faas::with_server(&server.url());
    let args = ["key", "create", "ci", "--app", "shop", "--function", "api", "--expires", "90d"];
    let output = faas.run(&args).exits(0);
    assert_eq!(output.stdout, format!("{SECRET}\n"));
    assert!(output.stderr.contains("key ci of shop, for api"), "{output:?}");
    assert!(!output.stderr.contains(SECRET));
    let document =
        faas.run(&["key", "create", "ci", "--app", "shop", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["secret"], json!(SECRET));
    assert_eq!(document["data"]["key"]["expires_at"], Value::Null);
}

#[test]
fn list() {
    let server = server();
    let output = Faas::with_server(&server.url()).run(&["key", "ls", "--app", "shop"]).exits(0);
    let lines: Vec<Vec<&str>> =
        output.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "FUNCTIONS", "CREATED", "BY", "EXPIRES", "ID"]);
    assert_eq!(lines[1], ["ci", "api", "jobs", "2020-01-01", "admin", "2999-01-01", ID]);
    assert_eq!(lines[2], ["old", "all", "functions", "2020-01-01", "admin", "expired", ID]);
}

#[test]
fn revoke() {
    let server = server();
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["key", "revoke", "ci", "--app", "shop"]).exits(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "   revoked ci\n"));
    let document = faas.run(&["key", "revoke", "x", "--app", "shop", "-o", "json"]).exits(4).json();
    assert_eq!(document["error"]["code"], json!("not_found"));
}

#[test]
fn what_is_no_key_asks_no_server() {
    let faas = Faas::new();
    for args in [
        &["key"][..],
        &["key", "create", "C I", "--app", "shop"],
        &["key", "create", "ci"],
        &["key", "create", "ci", "--app", "shop", "--expires", "soon"],
        &["key", "revoke", "../..", "--app", "shop"],
        &["key", "list"],
    ] {
        faas.run(args).exits(2);
    }
}
