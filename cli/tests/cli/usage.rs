//! Exit codes, JSON on failure, and what is said when nothing was understood.

use crate::{
    command::Faas,
    server::{Reply, Server, nobody},
};
use faas_api::{ErrorBody, ErrorCode};
use serde_json::json;

#[test]
fn help_and_version_are_results() {
    let faas = Faas::new();
    let help = faas.run(&["--help"]).exits(0);
    for verb in ["serve", "new", "dev", "deploy", "invoke", "rollback", "completions"] {
        assert!(help.stdout.contains(verb), "{verb}");
    }
    assert!(!help.stdout.contains("compile-worker"));
    assert_eq!(help.stderr, "");
    let version = faas.run(&["--version"]).exits(0);
    assert_eq!(version.stdout, concat!("faas ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_wrong_command_line_exits_2() {
    let faas = Faas::new();
    for args in [
        &[][..],
        &["nonsense"],
        &["deploy", "--nonsense"],
        &["describe", "Not_A_Name"],
        &["rollback", "hello", "12"],
        &["-o", "yaml", "list"],
        &["-q", "-v", "list"],
        &["--server", "localhost:8081", "list"],
        &["-C", "nowhere", "list"],
        &["logs", "hello", "--since", "soon"],
        &["logs", "hello", "--until", "+1s"],
        &["logs", "hello", "--until", "1h", "--follow"],
        &["logs", "hello", "--status", "6xx"],
        &["logs", "hello", "--version", "3"],
        &["logs", "hello", "--level", "loud"],
        &["logs", "hello", "--function", "A"],
        &["logs", "hello", "--limit", "-1"],
        &["invoke", "hello", "-H", "no header"],
    ] {
        let output = faas.run(args).exits(2);
        assert_eq!(output.stdout, "", "{args:?}");
        assert_ne!(output.stderr, "", "{args:?}");
    }
}

#[test]
fn a_wrong_command_line_answers_in_json_when_asked() {
    let faas = Faas::new();
    let document = faas.run(&["rm", "-o", "json"]).exits(2).json();
    assert_eq!(document["ok"], json!(false));
    assert_eq!(document["command"], json!("delete"));
    assert_eq!(document["schema"], json!(1));
    assert_eq!(document["error"]["code"], json!("usage"));
    for args in [&["-ojson", "nonsense"][..], &["nonsense", "--output=json"]] {
        let document = faas.run(args).exits(2).json();
        assert_eq!(document["command"], json!("faas"), "{args:?}");
    }
    let faas = Faas::new().env("FAAS_OUTPUT", "json");
    let output = faas.run(&["describe"]).exits(2);
    assert_eq!(output.json()["command"], json!("describe"));
    assert_eq!(output.stderr, "");
}

#[test]
fn an_unreachable_server_exits_6() {
    let server = nobody();
    let faas = Faas::with_server(&server);
    let output = faas.run(&["list"]).exits(6);
    assert_eq!(output.stdout, "");
    assert_eq!(
        output.stderr,
        format!(
            "error: no answer from {server}: connection refused\n\
             hint: is `faas serve` running? another server: --server URL\n"
        )
    );
    let output = faas.run(&["list", "-o", "json"]).exits(6);
    assert_eq!(
        output.stdout,
        format!(
            "{{\"ok\":false,\"command\":\"list\",\"schema\":1,\"error\":{{\"code\":\"unreachable\",\
             \"message\":\"no answer from {server}: connection refused\",\
             \"hint\":\"is `faas serve` running? another server: --server URL\"}}}}\n"
        )
    );
    assert_eq!(output.stderr, "");
}

#[test]
fn the_servers_refusals_have_exit_codes() {
    for (code, exit) in [
        (ErrorCode::Unauthorized, 3),
        (ErrorCode::Forbidden, 3),
        (ErrorCode::NotFound, 4),
        (ErrorCode::Conflict, 5),
        (ErrorCode::BodyTooLarge, 8),
        (ErrorCode::UnknownKind, 8),
        (ErrorCode::Unprocessable, 1),
        (ErrorCode::Internal, 1),
        (ErrorCode::ShuttingDown, 1),
    ] {
        let server = Server::start(move |_request| Reply::error(code));
        let output = Faas::with_server(&server.url()).run(&["list", "-o", "json"]).exits(exit);
        assert_eq!(output.json()["error"]["code"], json!(code.as_str()));
    }
}

#[test]
fn a_refusal_says_who_and_what() {
    let server = Server::start(|_request| {
        let mut body =
            ErrorBody::new(ErrorCode::Internal).detail("The disk is gone.").hint("buy one");
        body.request_id = Some("01KB3W".to_owned());
        Reply::problem(&body)
    });
    let faas = Faas::with_server(&server.url());
    assert_eq!(
        faas.run(&["describe", "hello"]).exits(1).stderr,
        "error: the disk is gone\nhint: buy one        (500 internal, request 01KB3W)\n"
    );
    let error = &faas.run(&["describe", "hello", "-o", "json"]).exits(1).json()["error"];
    assert_eq!(
        *error,
        json!({ "code": "internal", "message": "the disk is gone", "hint": "buy one",
                "request_id": "01KB3W", "status": 500 })
    );
}

#[test]
fn another_kind_of_server_is_noticed() {
    let server = Server::start(|_request| Reply::new(404, "<html>"));
    let output = Faas::with_server(&server.url()).run(&["list"]).exits(4);
    assert!(output.stderr.contains("not as a faas server"), "{output:?}");
    let server = Server::start(|_request| Reply::new(200, "<html>"));
    let output = Faas::with_server(&server.url()).run(&["list"]).exits(1);
    assert!(output.stderr.contains("cannot be read"), "{output:?}");
}

#[test]
fn completions_for_every_shell() {
    let faas = Faas::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = faas.run(&["completions", shell]).exits(0);
        assert!(output.stdout.contains("rollback"), "{shell}");
        assert!(!output.stdout.contains("compile-worker"), "{shell}");
    }
    let document = faas.run(&["completions", "bash", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["shell"], json!("bash"));
    assert_eq!(document["warnings"], json!([]));
}

#[cfg(not(feature = "serve"))]
#[test]
fn a_client_says_that_it_cannot_serve() {
    for verb in ["serve", "dev"] {
        let output = Faas::new().run(&[verb]).exits(2);
        assert!(output.stderr.contains("only a client"), "{output:?}");
    }
}

#[test]
fn a_machine_without_certificates_reaches_itself() {
    let faas = Faas::new().env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere");
    // Over TLS, too: whether they are lacking shows when somebody answers.
    for server in [&*nobody(), "https://127.0.0.1:9"] {
        let unreachable = faas.run(&["--server", server, "list"]).exits(6);
        assert!(unreachable.stderr.contains("no answer from"), "{}", unreachable.stderr);
    }
}
