//! `faas invoke`

use crate::{
    command::Faas,
    server::{Reply, Request, Server},
};
use faas_api::{App, ErrorCode, Traffic};
use serde_json::json;

/// A server that is both: the API, and the app `hello`.
fn server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request: &Request| match request.target.as_str() {
        "/v1/apps/hello" => {
            let host = request.header("host").unwrap();
            Reply::json(&App {
                name: "hello".parse().unwrap(),
                urls: vec![format!("http://{host}/hello/")],
                traffic: Traffic::of(Vec::new()),
                before: None,
                aborted: None,
                functions: Vec::new(),
                versions: 1,
                created_at: "2020-01-01T12:00:00Z".parse().unwrap(),
                updated_at: "2020-01-01T12:00:00Z".parse().unwrap(),
            })
        }
        target if target.starts_with("/hello/") => answer(request),
        _ => Reply::error(ErrorCode::NotFound),
    })
}

#[test]
fn the_body_and_nothing_else() {
    let server = server(|_request| Reply::new(200, "Hello!\n").header("x-a", "1"));
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["invoke", "hello"]).exits(0);
    assert_eq!(output.stdout, "Hello!\n");
    assert!(output.stderr.starts_with("HTTP/1.1 200 OK   "), "{output:?}");
    assert!(!output.stderr.contains("x-a"));
    let output = faas.run(&["invoke", "hello", "-i"]).exits(0);
    assert!(output.stderr.contains("\nx-a: 1\n"), "{output:?}");
    assert_eq!(faas.run(&["invoke", "-q", "hello"]).exits(0).stderr, "");
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.line() == "GET /hello/"));
    // The token is for the API, not for the app.
    for request in requests.iter().filter(|request| request.line() == "GET /hello/") {
        assert_eq!(request.header("authorization"), None);
    }
    faas.run(&["invoke", "other"]).exits(4);
}

#[test]
fn paths_methods_headers_and_bodies() {
    let server = server(|request| {
        let kind = request.header("content-type").unwrap_or("none").to_owned();
        let body = String::from_utf8_lossy(&request.body).into_owned();
        Reply::new(201, format!("{} {kind} {body}", request.line()))
    });
    let faas = Faas::with_server(&server.url()).file("body.json", "{}");
    let said = |args: &[&str]| {
        faas.run_with_input(&[&["invoke"], args].concat(), "from stdin").exits(0).stdout
    };
    assert_eq!(said(&["hello/greet?name=ada"]), "GET /hello/greet?name=ada none ");
    assert_eq!(said(&["hello?x=1"]), "GET /hello/?x=1 none ");
    assert_eq!(said(&["hello", "-d", "text"]), "POST /hello/ none text");
    assert_eq!(said(&["hello", "-d", "@-"]), "POST /hello/ none from stdin");
    let header = "content-type: application/json";
    let args = ["hello", "-X", "PUT", "-H", header, "-d", "@body.json"];
    assert_eq!(said(&args), "PUT /hello/ application/json {}");
    faas.run(&["invoke", "hello", "-d", "@nothing"]).exits(2);
}

#[test]
fn a_failing_function_exits_1() {
    let server = server(|_request| {
        Reply::new(500, "{}").header("x-faas-error", "guest_trap").header("x-request-id", "01KB")
    });
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["invoke", "hello"]).exits(1);
    assert_eq!(output.stdout, "{}");
    assert!(
        output.stderr.ends_with(
            "error: `hello` answered 500 Internal Server Error (guest_trap)\n\
             hint: faas logs hello --request-id 01KB\n"
        ),
        "{output:?}"
    );
    let document = faas.run(&["invoke", "hello", "-o", "json"]).exits(1).json();
    assert_eq!(document["ok"], json!(false));
    assert_eq!(document["data"]["status"], json!(500));
    assert_eq!(document["data"]["body"], json!("{}"));
}

#[test]
fn json_keeps_bytes_that_are_no_text() {
    let server = server(|_request| Reply::new(200, [0xff, 0x00]));
    let faas = Faas::with_server(&server.url());
    let data = &faas.run(&["invoke", "hello", "-o", "json"]).exits(0).json()["data"];
    assert_eq!(data["body_base64"], json!("/wA="));
    assert_eq!(data.get("body"), None);
}

#[test]
fn a_redirect_is_an_answer() {
    let server = server(|_request| Reply::new(302, "").header("location", "/elsewhere"));
    let output = Faas::with_server(&server.url()).run(&["invoke", "hello"]).exits(0);
    assert!(output.stderr.starts_with("HTTP/1.1 302 Found"), "{output:?}");
}
