//! Servers and tokens that are stored: `faas login`, `logout`, `context`, and what they lead to.

use crate::{
    command::{Faas, Output, write},
    server::{Reply, Server},
};
use faas_api::{AppList, ErrorBody, ErrorCode, Scope, WhoAmI, tokens::checked_text};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

fn server() -> Server {
    Server::start(|request| {
        if request.header("authorization") == Some("Bearer wrong") {
            return Reply::error(ErrorCode::Unauthorized);
        }
        match request.target.as_str() {
            "/v1/whoami" => Reply::json(&WhoAmI {
                name: "ci".into(),
                id: Some("3fa91c07be".parse().unwrap()),
                scope: Scope::everything(),
                expires_at: None,
            }),
            _ => Reply::json(&AppList { apps: Vec::new() }),
        }
    })
}

fn login(faas: &Faas, server: &Server, name: &str, token: &str) -> Output {
    let url = server.url();
    faas.run_with_input(&["login", &url, "--name", name, "--token-stdin"], token)
}

/// The token that a server got last.
fn sent(server: &Server) -> Option<String> {
    let requests = server.requests();
    let authorization = requests.last().unwrap().header("authorization");
    authorization.map(|value| value.strip_prefix("Bearer ").unwrap().to_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_login_is_checked_stored_and_used() {
    let (one, two) = (server(), server());
    let faas = Faas::new();
    let output = login(&faas, &one, "one", "token-one\n").exits(0);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("as ci (3fa91c07be): admin on every app"), "{output:?}");
    assert_eq!(one.asked(), ["GET /v1/whoami"]);
    assert_eq!(sent(&one).as_deref(), Some("token-one"));

    let dir = faas.home().join(".config/faas");
    let (config, tokens) = (dir.join("config.toml"), dir.join("tokens.toml"));
    assert_eq!((mode(&dir), mode(&config), mode(&tokens)), (0o700, 0o600, 0o600));
    assert!(!fs::read_to_string(&config).unwrap().contains("token-one"));
    assert!(fs::read_to_string(&tokens).unwrap().contains("token-one"));

    faas.run(&["list"]).exits(0);
    assert_eq!(sent(&one).as_deref(), Some("token-one"));
    // The one that was stored last is in use.
    login(&faas, &two, "two", "token-two").exits(0);
    faas.run(&["list"]).exits(0);
    assert_eq!(sent(&two).as_deref(), Some("token-two"));
    faas.run(&["list", "--context", "one"]).exits(0);
    assert_eq!(sent(&one).as_deref(), Some("token-one"));
    // Logging in again replaces the token.
    login(&faas, &one, "one", "token-new").exits(0);
    faas.run(&["list"]).exits(0);
    assert_eq!(sent(&one).as_deref(), Some("token-new"));
    // Without an address it is the server in use, under its own name.
    faas.run_with_input(&["login", "--token-stdin"], "token-newer").exits(0);
    faas.run_with_input(&["login", "--token-stdin", "--context", "two"], "newest").exits(0);
    faas.run(&["list", "--context", "one"]).exits(0);
    assert_eq!(sent(&one).as_deref(), Some("token-newer"));
    faas.run(&["list"]).exits(0);
    assert_eq!(sent(&two).as_deref(), Some("newest"));
    let listed = faas.run(&["context", "list", "-o", "json"]).exits(0).json();
    assert_eq!(listed["data"]["contexts"].as_array().unwrap().len(), 2);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "nothing is left over");
}

#[test]
fn a_flag_before_a_variable_before_what_is_stored() {
    let (one, two, three) = (server(), server(), server());
    let user = || {
        let faas = Faas::new();
        login(&faas, &one, "one", "token-one").exits(0);
        login(&faas, &two, "two", "token-two").exits(0);
        faas
    };
    let got = |faas: &Faas, args: &[&str], server: &Server, token: Option<&str>| {
        let before = server.asked().len();
        faas.run(args).exits(0);
        assert_eq!(server.asked().len(), before + 1, "{args:?} went elsewhere");
        assert_eq!(sent(server).as_deref(), token, "{args:?}");
    };
    let three_url = three.url();
    got(&user(), &["list"], &two, Some("token-two"));
    got(&user().env("FAAS_CONTEXT", "one"), &["list"], &one, Some("token-one"));
    let both = || user().env("FAAS_CONTEXT", "one").env("FAAS_SERVER", &three_url);
    got(&both(), &["list"], &three, None);
    got(&both(), &["list", "--context", "two"], &two, Some("token-two"));
    got(&both(), &["list", "--server", &one.url()], &one, Some("token-one"));
    // A server that is known by its address has its token too.
    let known = user().env("FAAS_SERVER", &one.url());
    got(&known, &["list"], &one, Some("token-one"));
    let with_token = || both().env("FAAS_TOKEN", "from-variable");
    got(&with_token(), &["list"], &three, Some("from-variable"));
    // A context is a server and its token: what a variable says of another one is not sent there.
    got(&with_token(), &["list", "--context", "two"], &two, Some("token-two"));
    let args = ["list", "--context", "two", "--token", "from-flag"];
    got(&with_token(), &args, &two, Some("from-flag"));
    let stored = user().env("FAAS_TOKEN", "from-variable");
    got(&stored, &["list"], &two, Some("from-variable"));
    // An empty variable says nothing.
    let empty = user().env("FAAS_TOKEN", "").env("FAAS_SERVER", "").env("FAAS_CONTEXT", " ");
    got(&empty, &["list"], &two, Some("token-two"));
    let args = ["list", "--context", "two", "--server", &three_url];
    let output = user().run(&args).exits(2);
    assert!(output.stderr.contains("both name a server"), "{output:?}");
}

#[test]
fn what_is_refused_is_not_stored() {
    let server = server();
    let faas = Faas::new();
    let output = login(&faas, &server, "one", "wrong").exits(3);
    assert!(output.stderr.contains("faas token create"), "{output:?}");
    // A token that was cut off is recognised as such.
    let cut = checked_text(&[7; 32]).split_at(50).0.to_owned();
    let refusing = Server::start(|_request| Reply::error(ErrorCode::Unauthorized));
    let output = login(&faas, &refusing, "one", &cut).exits(3);
    assert!(output.stderr.contains("the token was not copied whole"), "{output:?}");
    login(&faas, &server, "one", " \n").exits(2);
    login(&faas, &server, "not/a/name", "good").exits(2);
    let args = ["login", "nonsense", "--token-stdin"];
    faas.run_with_input(&args, "good").exits(2);
    let output = faas.run(&["login", &server.url()]).exits(2);
    assert!(output.stderr.contains("--token-stdin < FILE"), "{output:?}");
    assert!(!faas.home().join(".config").exists());
}

#[test]
fn an_own_folder_for_settings_is_used() {
    let server = server();
    let faas = Faas::new();
    let xdg = faas.home().join("xdg");
    let faas = faas.env("XDG_CONFIG_HOME", xdg.to_str().unwrap());
    let args = ["login", &server.url(), "--token", "from-flag", "-o", "json"];
    let document = faas.run(&args).exits(0).json();
    let name = server.url().strip_prefix("http://").unwrap().replace(':', "-");
    assert_eq!(document["data"]["context"], json!(name));
    assert_eq!(document["data"]["whoami"]["name"], json!("ci"));
    assert!(!document.to_string().contains("from-flag"));
    assert!(xdg.join("faas/tokens.toml").exists());
    assert!(!faas.home().join(".config").exists());
}

#[test]
fn contexts_are_listed_chosen_and_forgotten() {
    let (one, two) = (server(), server());
    let faas = Faas::new();
    let output = faas.run(&["context", "list"]).exits(0);
    assert!(output.stdout.is_empty() && output.stderr.contains("faas login"), "{output:?}");
    login(&faas, &one, "one", "token-one").exits(0);
    login(&faas, &two, "two", "token-two").exits(0);
    let listed = faas.run(&["context", "list", "-o", "json"]).exits(0).json();
    assert_eq!(listed["command"], json!("context list"));
    assert_eq!(
        listed["data"]["contexts"],
        json!([
            { "name": "one", "server": one.url(), "current": false, "has_token": true },
            { "name": "two", "server": two.url(), "current": true, "has_token": true },
        ])
    );
    assert!(!listed.to_string().contains("token-one"));
    faas.run(&["context", "use", "one"]).exits(0);
    faas.run(&["list"]).exits(0);
    assert_eq!(sent(&one).as_deref(), Some("token-one"));
    let output = faas.run(&["context", "use", "three"]).exits(2);
    assert!(output.stderr.contains("there are: one, two"), "{output:?}");
    faas.run(&["list", "--context", "three"]).exits(2);

    let output = faas.run(&["logout"]).exits(0);
    assert!(output.stderr.contains("until it is revoked"), "{output:?}");
    let tokens = faas.home().join(".config/faas/tokens.toml");
    assert!(!fs::read_to_string(&tokens).unwrap().contains("token-one"));
    faas.run(&["logout"]).exits(2);
    faas.run(&["list", "--context", "one"]).exits(2);
    faas.run(&["list", "--context", "two"]).exits(0);
    faas.run(&["logout", "two"]).exits(0);
    let left = faas.run(&["context", "list", "-o", "json"]).exits(0).json();
    assert_eq!(left["data"]["contexts"], json!([]));
}

#[test]
fn a_file_that_others_can_read_is_not_used() {
    let server = server();
    let faas = Faas::new();
    login(&faas, &server, "one", "token-one").exits(0);
    let tokens = faas.home().join(".config/faas/tokens.toml");
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o644)).unwrap();
    let before = server.asked().len();
    let output = faas.run(&["list"]).exits(2);
    assert!(output.stderr.contains("others can read it (mode 644)"), "{output:?}");
    assert!(output.stderr.contains("chmod 600 ~/.config/faas/tokens.toml"), "{output:?}");
    assert_eq!(server.asked().len(), before);
}

#[test]
fn a_broken_file_is_explained_and_not_shown() {
    let faas = Faas::new();
    let config = faas.home().join(".config/faas/config.toml");
    write(&config, "[contexts.one]\nserver = \"http://127.0.0.1:1\"\nsecret = \"topsecret\"\n");
    let output = faas.run(&["list"]).exits(2);
    assert!(output.stderr.contains("~/.config/faas/config.toml: line 3"), "{output:?}");
    assert!(output.stderr.contains("unknown field `secret`"), "{output:?}");
    assert!(!output.stderr.contains("topsecret"), "{output:?}");
    write(&config, "context = \"gone\"\n");
    let output = faas.run(&["list"]).exits(2);
    assert!(output.stderr.contains("there is no context `gone`"), "{output:?}");
    // Who says everything needs no file.
    let server = server();
    write(&config, "[");
    faas.run(&["list", "--server", &server.url(), "--token", "t"]).exits(0);
}

#[test]
fn refusals_say_where_the_token_is_from() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v1/whoami" => Reply::json(&WhoAmI {
            name: "ci".into(),
            id: None,
            scope: Scope::everything(),
            expires_at: None,
        }),
        "/v1/apps/expired" => Reply::problem(
            &ErrorBody::new(ErrorCode::TokenExpired)
                .detail("the token `ci` expired on 2026-11-20T12:00:00Z")
                .hint("ask for a new one: faas token create"),
        ),
        "/v1/apps/scope" => Reply::problem(
            &ErrorBody::new(ErrorCode::MissingScope)
                .detail("the token `ci` may not read on `scope`")
                .hint("ask for one that may: faas token create --app scope --can read"),
        ),
        _ => Reply::error(ErrorCode::Unauthorized),
    });
    let faas = Faas::new();
    login(&faas, &server, "prod", "token").exits(0);
    let again = format!("faas login {} --name prod", server.url());
    let output = faas.run(&["describe", "expired"]).exits(3);
    assert_eq!(
        output.stderr,
        format!(
            "error: the token `ci` expired on 2026-11-20T12:00:00Z\n\
             hint: ask for a new one: faas token create; the token is from context `prod`: \
             {again}        (401 token_expired)\n"
        )
    );
    let output = faas.run(&["describe", "scope"]).exits(3);
    assert_eq!(
        output.stderr,
        "error: the token `ci` may not read on `scope`\n\
         hint: ask for one that may: faas token create --app scope --can read        \
         (403 missing_scope)\n"
    );
    let output = faas.run(&["describe", "other"]).exits(3);
    assert!(output.stderr.contains(&again), "{output:?}");
    let elsewhere = ["describe", "other", "--server", &server.other_url()];
    let output = faas.run(&elsewhere).exits(3);
    assert!(output.stderr.contains("hint: log in: faas login http://0.0.0.0:"), "{output:?}");
}
