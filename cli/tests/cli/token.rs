//! Where the token comes from, and where it never goes.

use crate::{
    command::{Faas, write},
    server::{Reply, Server},
};
use faas_api::{AppList, ErrorCode};

fn server() -> Server {
    Server::start(|_request| Reply::json(&AppList { apps: Vec::new() }))
}

/// The token that a server got.
fn sent(server: &Server, faas: &Faas, args: &[&str]) -> Option<String> {
    faas.run(args).exits(0);
    let requests = server.requests();
    let authorization = requests.last().unwrap().header("authorization");
    authorization.map(|value| value.strip_prefix("Bearer ").unwrap().to_owned())
}

#[test]
fn flag_before_environment_before_file() {
    let server = server();
    let faas = Faas::new().env("FAAS_SERVER", &server.url());
    assert_eq!(sent(&server, &faas, &["list"]), None);
    write(&faas.home().join(".local/share/faas/admin.token"), "from-home\n");
    assert_eq!(sent(&server, &faas, &["list"]).unwrap(), "from-home");

    let xdg = faas.home().join("xdg");
    write(&xdg.join("faas/admin.token"), "from-xdg\n");
    let faas = faas.env("XDG_DATA_HOME", xdg.to_str().unwrap());
    assert_eq!(sent(&server, &faas, &["list"]).unwrap(), "from-xdg");

    let data = faas.home().join("data");
    write(&data.join("admin.token"), "from-data-dir");
    let faas = faas.env("FAAS_DATA_DIR", data.to_str().unwrap());
    assert_eq!(sent(&server, &faas, &["list"]).unwrap(), "from-data-dir");

    let faas = faas.env("FAAS_TOKEN", "from-environment");
    assert_eq!(sent(&server, &faas, &["list"]).unwrap(), "from-environment");
    let args = ["list", "--token", "from-flag"];
    assert_eq!(sent(&server, &faas, &args).unwrap(), "from-flag");
}

#[test]
fn the_file_is_for_this_machine_only() {
    let server = server();
    let faas = Faas::new();
    write(&faas.home().join(".local/share/faas/admin.token"), "from-home");
    let args = ["list", "--server", &server.other_url()];
    assert_eq!(sent(&server, &faas, &args), None);
    let args = ["list", "--server", &server.url()];
    assert_eq!(sent(&server, &faas, &args).unwrap(), "from-home");
}

#[test]
fn without_a_token_the_hint_says_where_it_would_be() {
    let server = Server::start(|_request| Reply::error(ErrorCode::Unauthorized));
    let faas = Faas::new().env("FAAS_SERVER", &server.url());
    let output = faas.run(&["list"]).exits(3);
    assert_eq!(
        output.stderr,
        "error: not authorised\nhint: no token in ~/.local/share/faas/admin.token: \
         set FAAS_DATA_DIR or FAAS_TOKEN, or give --token TOKEN        (401 unauthorized)\n"
    );
    write(&faas.home().join(".local/share/faas/admin.token"), "old");
    let output = faas.run(&["list"]).exits(3);
    assert!(output.stderr.contains("the token is from ~/.local/"), "{output:?}");
    let output = faas.run(&["list", "--token", "wrong"]).exits(3);
    assert!(output.stderr.contains("check FAAS_TOKEN or --token"), "{output:?}");
}

#[test]
fn a_redirect_does_not_carry_the_token_away() {
    let other = server();
    let target = other.url();
    let server = Server::start(move |_request| Reply::new(307, "").header("location", &target));
    Faas::with_server(&server.url()).run(&["list"]).exits(1);
    assert_eq!(other.asked(), [""; 0]);
}
