//! `faas deploy` against a server.

use crate::{
    command::{CGI_WAT, Faas},
    server::{Reply, Request, Server},
};
use faas_api::{
    DeployEvent, Deployed, Digest, ErrorBody, ErrorCode, ImportProblem, Kind, Planned, Traffic,
    manifest::NewVersion,
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Mutex};

fn deployed(active: bool) -> Deployed {
    Deployed {
        reuse: None,
        app: "my-fn".parse().unwrap(),
        function: "main".parse().unwrap(),
        version: "v3".parse().unwrap(),
        kind: Kind::Cgi01,
        digest: Digest::of(b""),
        size: 86_016,
        active,
        functions: Vec::new(),
        previous: Traffic::of(Vec::new()),
        traffic: Traffic::of(Vec::new()),
        replayed: false,
        urls: Vec::new(),
        url: "http://127.0.0.1:8080/my-fn/".to_owned(),
        preview_url: "http://127.0.0.1:8080/my-fn@v3/".to_owned(),
        duration_ms: 130,
    }
}

fn events(last: DeployEvent) -> Vec<DeployEvent> {
    let function: faas_api::FunctionName = "main".parse().unwrap();
    let compiling = |elapsed_ms| DeployEvent::Compiling {
        function: function.clone(),
        kind: Kind::Cgi01,
        elapsed_ms,
    };
    vec![
        DeployEvent::Received { size: 86_016, digest: Digest::of(b""), new: true, duration_ms: 12 },
        compiling(0),
        compiling(1000),
        DeployEvent::Compiled { function: function.clone(), cached: false, duration_ms: 112 },
        last,
    ]
}

fn server() -> Server {
    Server::start(|request: &Request| {
        let active = !request.target.contains("activate=false");
        Reply::lines(&events(DeployEvent::Done(deployed(active))))
    })
}

#[test]
fn on_a_pipe_only_the_url() {
    let server = server();
    let faas = Faas::with_server(&server.url()).file("my_fn.wat", CGI_WAT);
    let output = faas.run(&["deploy", "my_fn.wat"]).exits(0);
    assert_eq!(output.stdout, "http://127.0.0.1:8080/my-fn/\n");
    assert_eq!(output.stderr, "");
    let requests = server.requests();
    let request = requests.first().unwrap();
    assert_eq!(request.line(), "POST /v1/apps/my-fn/deploy");
    assert_eq!(request.header("content-type"), Some("application/wasm"));
    assert_eq!(request.header("accept"), Some("application/x-ndjson"));
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    assert_eq!(request.body, wat::parse_str(CGI_WAT).unwrap());
}

#[test]
fn every_step_when_asked() {
    let server = server();
    let faas = Faas::with_server(&server.url()).file("my_fn.wat", CGI_WAT);
    let output = faas.run(&["deploy", "my_fn.wat", "-v"]).exits(0);
    let lines: Vec<&str> = output.stderr.lines().collect();
    let [upload, compile, live] = lines.as_slice() else {
        panic!("{output:?}");
    };
    assert_eq!(*upload, "   upload   my-fn 84 KiB (new)                               12 ms");
    assert_eq!(*compile, "   compile  my-fn                                            0.11 s");
    assert!(live.starts_with("   live     v3  "), "{live}");
    assert_eq!(output.stdout, "http://127.0.0.1:8080/my-fn/\n");
}

#[test]
fn options_reach_the_server() {
    let server = server();
    let faas = Faas::with_server(&server.url()).file("x.wat", CGI_WAT);
    let args = ["deploy", "x.wat", "--name", "my-fn", "--function", "api", "--no-activate"];
    let output = faas.run(&[&args[..], &["-m", "a & b"]].concat()).exits(0);
    assert_eq!(output.stdout, "http://127.0.0.1:8080/my-fn@v3/\n");
    assert_eq!(
        server.asked(),
        ["POST /v1/apps/my-fn/deploy?function=api&activate=false&message=a+%26+b"]
    );
}

/// A server that has no artifact until it is sent.
fn app_server() -> Server {
    app_server_that_breaks(0)
}

/// The same, but so many of the artifacts do not arrive at first.
fn app_server_that_breaks(times: usize) -> Server {
    let state = Mutex::new((BTreeSet::new(), times));
    Server::start(move |request: &Request| {
        let (sent, left) = &mut *state.lock().unwrap();
        if *left > 0 && request.method == "PUT" {
            *left -= 1;
            return Reply::cut_lines::<()>(&[]);
        }
        if let Some(digest) = request.line().strip_prefix("PUT /v1/blobs/") {
            let digest: Digest = digest.parse().unwrap();
            assert_eq!(digest, Digest::of(&request.body));
            sent.insert(digest);
            return Reply::json(&json!({ "digest": digest, "size": 1, "new": true }));
        }
        if request.line() == "GET /v1/apps/my-fn/versions" {
            return Reply::error(ErrorCode::NotFound);
        }
        let new: NewVersion = serde_json::from_slice(&request.body).unwrap();
        let mut missing = new.manifest.digests();
        missing.retain(|digest| !sent.contains(digest));
        match missing.is_empty() && !new.dry_run {
            true => Reply::lines(&events(DeployEvent::Done(deployed(new.activate)))),
            false => {
                let planned = Planned { missing, dry_run: new.dry_run };
                Reply::lines(&[DeployEvent::Planned(planned)])
            }
        }
    })
}

const TWO: &str = "app.name = 'my-fn'\n[functions.api]\nsource = 'x.wat'\nroutes = ['/api/*']\n\
                   [functions.web]\nsource = 'y.wat'\n";

fn project(server: &Server) -> Faas {
    let other = CGI_WAT.replace("(module", "(module (memory 1)");
    Faas::with_server(&server.url())
        .file("faas.toml", TWO)
        .file("x.wat", CGI_WAT)
        .file("y.wat", other)
}

#[test]
fn a_project_sends_what_is_missing_and_asks_again() {
    let server = app_server();
    let document = project(&server).run(&["deploy", "-o", "json", "-m", "first"]).exits(0).json();
    assert_eq!(document["ok"], json!(true));
    assert_eq!(document["command"], json!("deploy"));
    assert_eq!(document["data"]["version"], json!("v3"));
    assert_eq!(document["data"]["url"], json!("http://127.0.0.1:8080/my-fn/"));
    assert_eq!(document["warnings"], json!([]));
    let asked = server.asked();
    let (first, last) = (asked.first().unwrap(), asked.last().unwrap());
    assert_eq!((first.as_str(), last), ("POST /v1/apps/my-fn/versions", first));
    assert_eq!(asked.iter().filter(|line| line.starts_with("PUT /v1/blobs/")).count(), 2);
    let requests = server.requests();
    let keys: Vec<_> = requests.iter().filter_map(|r| r.header("idempotency-key")).collect();
    assert!(matches!(keys.as_slice(), [a, b] if a == b), "{keys:?}");
    let sent: NewVersion = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(sent.message.as_deref(), Some("first"));
    assert_eq!(sent.manifest.functions.len(), 2);
    // The second time everything is there.
    project(&server).run(&["deploy"]).exits(0);
    assert_eq!(server.asked().len(), asked.len() + 1);
}

#[test]
fn a_dry_run_shows_what_would_change() {
    let server = app_server();
    let output = project(&server).run(&["deploy", "--dry-run"]).exits(0);
    assert!(output.stdout.contains("  api\n    + function "), "{output:?}");
    assert!(output.stdout.contains("    + route        /api/*\n"), "{output:?}");
    assert!(output.stdout.ends_with("2 artifacts to send; nothing was changed\n"), "{output:?}");
    let document = project(&server).run(&["deploy", "--dry-run", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["dry_run"], json!(true));
    assert_eq!(document["data"]["missing"].as_array().unwrap().len(), 2);
}

#[test]
fn what_a_canary_asks_for() {
    let server = app_server();
    let args = ["deploy", "--canary", "5%", "--sticky", "header:X-User", "--abort-above", "10%"];
    project(&server).run(&args).exits(0);
    let requests = server.requests();
    let sent: NewVersion = serde_json::from_slice(&requests[0].body).unwrap();
    let canary = sent.canary.unwrap();
    assert_eq!((canary.percent, canary.abort_above_percent), (5, Some(10)));
    assert_eq!(canary.sticky, Some(faas_api::Sticky::Header { name: "x-user".into() }));
    for bad in [
        &["--canary", "0"][..],
        &["--canary", "100"],
        &["--sticky", "cookie"],
        &["--canary", "5", "--sticky", "header:"],
    ] {
        project(&server).run(&[&["deploy"], bad].concat()).exits(2);
    }
}

#[test]
fn a_server_that_goes_away_meanwhile_is_waited_for() {
    let server = app_server_that_breaks(1);
    let output = project(&server).run(&["deploy"]).exits(0);
    assert!(output.stderr.contains("trying again"), "{output:?}");
    assert_eq!(output.stdout, "http://127.0.0.1:8080/my-fn/\n");
    let server = app_server_that_breaks(1000);
    project(&server).run(&["deploy", "--timeout", "0"]).exits(6);
}

fn unknown_import() -> ErrorBody {
    let problem = |import: &str, offered: &[&str]| ImportProblem {
        import: import.to_owned(),
        offered: offered.iter().map(|version| (*version).to_owned()).collect(),
        hint: "rebuild with the 0.2.0-draft2 WIT".to_owned(),
    };
    let mut body = ErrorBody::new(ErrorCode::UnknownImport);
    body.imports = vec![
        problem("wasi:keyvalue/store@0.2.0-draft3", &["0.2.0-draft", "0.2.0-draft2"]),
        problem("acme:x/y", &[]),
    ];
    body
}

#[test]
fn unknown_imports_are_listed() {
    let refused_at_once = Server::start(|_request| Reply::problem(&unknown_import()));
    let refused_later =
        Server::start(|_request| Reply::lines(&events(DeployEvent::Failed(unknown_import()))));
    for server in [refused_at_once, refused_later] {
        let faas = Faas::with_server(&server.url()).file("report.wat", CGI_WAT);
        let output = faas.run(&["deploy", "report.wat"]).exits(8);
        assert_eq!(output.stdout, "");
        assert_eq!(
            output.stderr,
            "error: `report.wat` cannot run here: 2 imports have no implementation\n  \
               import                            this host offers\n  \
               wasi:keyvalue/store@0.2.0-draft3  0.2.0-draft, 0.2.0-draft2\n  \
               acme:x/y                          nothing like it\n\
             hint: rebuild with the 0.2.0-draft2 WIT; `faas inspect report.wat` lists all of them\n"
        );
        let error = &faas.run(&["deploy", "report.wat", "-o", "json"]).exits(8).json()["error"];
        assert_eq!(error["code"], json!("unknown_import"));
        assert_eq!(error["imports"][1]["import"], json!("acme:x/y"));
    }
}

#[test]
fn refusals() {
    for (code, exit) in [
        (ErrorCode::Unauthorized, 3),
        (ErrorCode::NotFound, 4),
        (ErrorCode::Conflict, 5),
        (ErrorCode::CompileFailed, 8),
        (ErrorCode::BodyTooLarge, 8),
        (ErrorCode::StorageFull, 1),
    ] {
        let server = Server::start(move |_request| Reply::error(code));
        let faas = Faas::with_server(&server.url()).file("x.wat", CGI_WAT);
        let output = faas.run(&["deploy", "x.wat"]).exits(exit);
        assert!(output.stderr.starts_with("error: "), "{output:?}");
        assert!(output.stderr.contains(&format!("({} {code})", code.status())), "{output:?}");
        let server = Server::start(move |_request| {
            Reply::lines(&events(DeployEvent::Failed(ErrorBody::new(code))))
        });
        let faas = Faas::with_server(&server.url()).file("x.wat", CGI_WAT);
        faas.run(&["deploy", "x.wat"]).exits(exit);
    }
}

#[test]
fn a_newer_server_is_understood() {
    let server = Server::start(|_request| {
        let mut lines: Vec<_> = events(DeployEvent::Done(deployed(true)))
            .into_iter()
            .map(|event| json!(event))
            .collect();
        lines.insert(0, json!({ "event": "queued", "place": 3 }));
        Reply::lines(&lines)
    });
    let faas = Faas::with_server(&server.url()).file("x.wat", CGI_WAT);
    faas.run(&["deploy", "x.wat"]).exits(0);
    let server = Server::start(|_request| {
        let body = json!({ "type": "urn:x", "title": "Moon in the wrong phase", "status": 409,
                           "code": "moon_phase" });
        Reply::new(409, body.to_string())
    });
    let faas = Faas::with_server(&server.url()).file("x.wat", CGI_WAT);
    let output = faas.run(&["deploy", "x.wat"]).exits(5);
    assert_eq!(output.stderr, "error: moon in the wrong phase        (409 moon_phase)\n");
}

#[test]
fn a_server_that_breaks_off_exits_6() {
    let all = events(DeployEvent::Done(deployed(true)));
    let some = all[..3].to_vec();
    let whole = some.clone();
    let ended = Server::start(move |_request| Reply::lines(&whole));
    let cut = Server::start(move |_request| Reply::cut_lines(&some));
    for server in [ended, cut] {
        let faas = Faas::with_server(&server.url()).file("x.wat", CGI_WAT);
        let output = faas.run(&["deploy", "x.wat"]).exits(6);
        assert_eq!(output.stdout, "");
    }
}
