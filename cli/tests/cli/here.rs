//! Verbs about an app, in the folder of its project.

use crate::{
    command::Faas,
    server::{Reply, Server},
};
use faas_api::ErrorCode;

const MANIFEST: &str = "[app]\nname = \"shop\"\n\n[functions.main]\nsource = \"shop.wasm\"\n";

#[test]
fn the_projects_app_is_meant() {
    let server = Server::start(|_request| Reply::error(ErrorCode::NotFound));
    let faas = Faas::with_server(&server.url()).file("faas.toml", MANIFEST);
    for (words, asked) in [
        ("describe", "GET /v1/apps/shop"),
        ("describe other", "GET /v1/apps/other"),
        ("versions", "GET /v1/apps/shop/versions"),
        ("rollback", "GET /v1/apps/shop"),
        // One word is the app: so it was before, and `v3` can be one.
        ("rollback v3", "GET /v1/apps/v3"),
        ("rollback other v3", "GET /v1/apps/other"),
        ("promote v3", "GET /v1/apps/shop"),
        ("promote other v3", "GET /v1/apps/other"),
        ("pin v3", "PUT /v1/apps/shop/versions/v3/pin"),
        ("unpin other v3", "DELETE /v1/apps/other/versions/v3/pin"),
        ("logs", "GET /v1/apps/shop/logs"),
        ("logs --all", "GET /v1/logs"),
        ("usage", "GET /v1/apps/shop/usage?by=total"),
        ("usage --all", "GET /v1/usage?by=total"),
        ("env list", "GET /v1/apps/shop/env"),
        ("secret list", "GET /v1/apps/shop/secrets"),
        ("key list", "GET /v1/apps/shop/keys"),
        ("key list --app other", "GET /v1/apps/other/keys"),
    ] {
        let args: Vec<&str> = words.split(' ').collect();
        faas.run(&args).exits(4);
        assert_eq!(server.asked().last().map(String::as_str), Some(asked), "{words}");
    }
    // What cannot be undone wants a name.
    faas.run(&["delete", "-y"]).exits(2);
}

#[test]
fn outside_of_one_an_app_is_named() {
    let server = Server::start(|_request| Reply::error(ErrorCode::NotFound));
    let faas = Faas::with_server(&server.url());
    for (words, hint) in [
        ("describe", "faas describe APP"),
        ("versions", "faas versions APP"),
        ("rollback", "faas rollback APP"),
        ("promote v3", "faas promote APP v3"),
        ("pin v3", "faas pin APP v3"),
        ("unpin v3", "faas unpin APP v3"),
        ("env list", "--app APP"),
        ("key list", "--app APP"),
    ] {
        let args: Vec<&str> = words.split(' ').collect();
        let output = faas.run(&args).exits(2);
        let said = "error: no app is named, and there is no faas.toml here or above\n";
        assert_eq!(output.stderr, format!("{said}hint: name an app: {hint}\n"), "{words}");
    }
    assert_eq!(server.asked(), [""; 0]);
}
