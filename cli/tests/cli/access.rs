//! `faas token`, `faas whoami` and `faas audit`.

use crate::{
    command::Faas,
    server::{Reply, Server},
};
use faas_api::{AuditEntry, AuditList, CreatedToken, Scope, Token, TokenList, Verb, WhoAmI};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

fn token(name: &str, scope: Scope) -> Token {
    Token {
        id: "3fa91c07be".parse().unwrap(),
        name: name.into(),
        scope,
        created_at: Timestamp::now() - SignedDuration::from_hours(2),
        created_by: "admin".into(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    }
}

fn shop() -> Scope {
    Scope { apps: Some(vec!["shop".parse().unwrap()]), can: vec![Verb::Read, Verb::Deploy] }
}

#[test]
fn a_token_is_asked_for_as_it_was_typed_and_printed_alone() {
    let server = Server::start(|_request| {
        let mut token = token("ci", shop());
        token.expires_at = Some("2027-02-24T10:00:00Z".parse().unwrap());
        Reply::json(&CreatedToken { secret: "faas_text".into(), token })
    });
    let faas = Faas::with_server(&server.url());
    let asked = |args: &[&str]| -> Value {
        faas.run(args).exits(0);
        let requests = server.requests();
        let request = requests.last().unwrap();
        assert_eq!(request.line(), "POST /v1/tokens");
        serde_json::from_slice(&request.body).unwrap()
    };
    let args = [
        "token",
        "create",
        "--name",
        "ci",
        "--app",
        "shop",
        "--can",
        "deploy,read",
        "--expires",
        "90d",
    ];
    assert_eq!(
        asked(&args),
        json!({ "name": "ci", "scope": { "apps": ["shop"], "can": ["deploy", "read"] },
                "expires_in_s": 7_776_000 })
    );
    assert_eq!(asked(&["token", "create"]), json!({ "scope": { "can": ["read"] } }));
    let args = ["token", "create", "--app", "shop", "--app", "blog", "--can", "admin"];
    assert_eq!(asked(&args)["scope"], json!({ "apps": ["shop", "blog"], "can": ["admin"] }));
    let output = faas.run(&args).exits(0);
    assert_eq!(output.stdout, "faas_text\n");
    assert_eq!(
        output.stderr,
        "   token 3fa91c07be (ci): read, deploy on shop, until 2027-02-24 10:00; \
         it is shown this once\n"
    );
    let document = faas.run(&["token", "create", "-o", "json"]).exits(0).json();
    assert_eq!(document["command"], json!("token create"));
    assert_eq!(document["data"]["secret"], json!("faas_text"));
    assert_eq!(document["data"]["token"]["id"], json!("3fa91c07be"));
    for wrong in [
        &["token"][..],
        &["token", "create", "--can", "fly"],
        &["token", "create", "--app", "No_Name"],
        &["token", "create", "--expires", "soon"],
        &["token", "create", "--expires", "90"],
        &["token", "create", "--expires", "99999999999999999999d"],
        &["token", "revoke"],
        &["token", "revoke", "ci"],
        &["audit", "--since", "soon"],
        &["audit", "--limit", "x"],
        &["audit", "--limit", "1001"],
    ] {
        faas.run(wrong).exits(2);
    }
}

#[test]
fn tokens_are_listed_and_revoked() {
    let server = Server::start(|request| match request.method.as_str() {
        "DELETE" => Reply::new(204, ""),
        _ => {
            let mut old = token("old", Scope::everything());
            old.revoked_at = Some(Timestamp::now());
            let mut expired = token("\x1b[31mred", shop());
            expired.expires_at = Some(Timestamp::now() - SignedDuration::from_mins(5));
            Reply::json(&TokenList { tokens: vec![token("ci", shop()), expired, old] })
        }
    });
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["token", "list"]).exits(0);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{output:?}");
    assert!(lines[0].starts_with("  ID          NAME"), "{output:?}");
    let words: Vec<&str> = lines[1].split("  ").filter(|word| !word.is_empty()).collect();
    let expected =
        ["3fa91c07be", "ci", "read,deploy", "shop", "2 hours ago", "admin", "never", "never"];
    assert_eq!(words.iter().map(|word| word.trim()).collect::<Vec<_>>(), expected);
    assert!(lines[2].contains("expired 5 minutes ago"), "{output:?}");
    assert!(!output.stdout.contains('\x1b'), "{output:?}");
    let output = faas.run(&["token", "ls", "--all"]).exits(0);
    assert!(output.stdout.contains("revoked just now"), "{output:?}");
    let document = faas.run(&["token", "list", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["tokens"].as_array().unwrap().len(), 2);

    let output = faas.run(&["token", "revoke", "3fa91c07be"]).exits(0);
    assert_eq!((&*output.stdout, &*output.stderr), ("", "   revoked 3fa91c07be\n"));
    assert_eq!(server.asked().last().unwrap(), "DELETE /v1/tokens/3fa91c07be");
}

#[test]
fn who_am_i() {
    let server = Server::start(|_request| {
        let id = Some("3fa91c07be".parse().unwrap());
        let expires_at = Some("2027-02-24T10:00:00Z".parse().unwrap());
        Reply::json(&WhoAmI { name: "ci".into(), id, scope: shop(), expires_at })
    });
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["whoami"]).exits(0);
    let url = server.url();
    assert_eq!(
        output.stdout,
        format!(
            "ci (3fa91c07be) on {url}\ncan      read, deploy on shop\nexpires  2027-02-24 10:00\n"
        )
    );
    let document = faas.run(&["whoami", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["scope"]["can"], json!(["read", "deploy"]));
}

#[test]
fn changes_are_shown() {
    let server = Server::start(|_request| {
        let entry = AuditEntry {
            seq: 7,
            time: "2026-11-20T12:00:03Z".parse().unwrap(),
            by: "ci".into(),
            token: Some("3fa91c07be".parse().unwrap()),
            action: "deploy".into(),
            app: Some("shop".parse().unwrap()),
            object: Some("v3".into()),
            outcome: "ok".into(),
            from: Some("192.0.2.7".into()),
            agent: Some("faas/0.1.0".into()),
            request_id: "01KB3W".into(),
        };
        Reply::json(&AuditList { entries: vec![entry] })
    });
    let faas = Faas::with_server(&server.url());
    let output = faas.run(&["audit", "--app", "shop", "--since", "7d"]).exits(0);
    assert_eq!(
        output.stdout,
        "  TIME                 WHO              WHAT    APP   OBJECT  RESULT  FROM\n  \
           2026-11-20 12:00:03  ci (3fa91c07be)  deploy  shop  v3      ok      192.0.2.7\n"
    );
    assert_eq!(server.asked(), ["GET /v1/audit?limit=100&app=shop&since=7d"]);
    let document = faas.run(&["audit", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["entries"][0]["request_id"], json!("01KB3W"));
}
