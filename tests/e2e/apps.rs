//! Apps of several functions, by their manifest.

use faas_api::{Digest, ErrorCode};
use faas_tests::{
    Node, Project, Request,
    artifacts::{Guest, assemble, says},
};
use serde_json::{Value, json};

const SHOP: &str = r#"
[app]
name = "shop"

[functions.web]
source = "web.wasm"

[functions.api]
source = "api.wasm"
routes = ["/api/*", "GET /items/:id"]
strip_prefix = true

[functions.worker]
source = "worker.wasm"
private = true
"#;

/// A shop of three functions.
fn shop() -> Project {
    Project::new(SHOP)
        .file("web.wasm", says("web"))
        .file("api.wasm", Guest::Http03.wasm())
        .file("worker.wasm", says("worker"))
}

fn asked(node: &Node, method: &str, path: &str) -> faas_tests::Answer {
    node.send(&Request::new(method, path))
}

#[test]
fn three_functions_share_an_app() {
    let node = Node::start();
    let deployed = shop().deploy(&node, &["-m", "first"]);
    assert_eq!(deployed["version"], json!("v1"));
    assert_eq!(deployed["functions"].as_array().unwrap().len(), 3);
    for (path, text) in [
        ("/shop/", "web"),
        ("/shop/worker", "web"),
        ("/shop/api/hello", "hello"),
        ("/shop/apix", "web"),
        ("/shop@v1/api/hello", "hello"),
    ] {
        let answer = node.get(path);
        assert_eq!(answer.text().trim(), text, "{path}: {answer:?}");
        assert_eq!(answer.header("x-faas-version"), Some("v1"), "{path}");
    }
    let by_host = node.send(&Request::get("/api/hello").header("host", "shop.localhost"));
    assert_eq!(by_host.expect(200).text(), "hello\n");
    // No other spelling passes a route by.
    assert_ne!(node.get("/shop/a%70i/hello").text().trim(), "web");
    // What is stripped is told in the prefix.
    let headers = node.get("/shop/api/headers?x=1").expect(200).text();
    assert!(headers.contains("x-forwarded-prefix: /shop/api"), "{headers}");
    // A private function has no address, whatever it is called by.
    for path in ["/worker/", "/shop/worker.internal/"] {
        assert_ne!(node.get(path).text().trim(), "worker", "{path}");
    }
    let hosts = ["worker.internal", "worker.shop.localhost", "worker--shop.localhost"];
    for host in hosts {
        let answer = node.send(&Request::get("/shop/").header("host", host));
        assert_ne!(answer.text().trim(), "worker", "{host}");
    }
}

#[test]
fn a_method_that_no_route_takes_is_told() {
    let node = Node::start();
    let manifest = "app.name = 'one'\n[functions.main]\nsource = 'a.wasm'\nroutes = ['GET /a']\n";
    Project::new(manifest).file("a.wasm", says("a")).deploy(&node, &[]);
    assert_eq!(node.get("/one/a").expect(200).text().trim(), "a");
    let answer = asked(&node, "POST", "/one/a");
    answer.failure(ErrorCode::MethodNotAllowed);
    assert!(answer.header("allow").is_some());
    node.get("/one/b").failure(ErrorCode::NotFound);
}

#[test]
fn only_what_is_new_travels() {
    let node = Node::start();
    let mut manifest = "app.name = 'many'\n".to_owned();
    let mut project = Project::new("");
    for number in 0..50 {
        manifest.push_str(&format!(
            "[functions.f{number}]\nsource = 'f{number}.wasm'\nroutes = ['/f{number}']\n"
        ));
        project = project.file(&format!("f{number}.wasm"), says(&format!("f{number}")));
    }
    project.write("faas.toml", &manifest);
    let first = project.run(&node, ["deploy", "-v"]).expect(0);
    assert!(first.stderr.contains("upload   50 of 50 artifacts"), "{first:?}");
    assert_eq!(node.get("/many/f49").expect(200).text().trim(), "f49");
    let blobs = node.files("blobs").len();
    project.write("f7.wasm", says("seven"));
    let second = project.run(&node, ["deploy", "-v"]).expect(0);
    assert!(second.stderr.contains("upload   1 of 50 artifacts"), "{second:?}");
    assert_eq!(second.stderr.matches("(already there)").count(), 49, "{second:?}");
    assert_eq!(node.get("/many/f7").expect(200).text().trim(), "seven");
    assert_eq!(node.get("/many@v1/f7").expect(200).text().trim(), "f7");
    // One more artifact, and the list of functions, which is too long for the app's document.
    assert_eq!(node.files("blobs").len(), blobs + 2);
}

#[test]
fn many_functions_survive_a_restart_and_the_sweep() {
    let mut node = Node::start();
    let mut manifest = "app.name = 'many'\n".to_owned();
    for number in 0..40 {
        manifest.push_str(&format!(
            "[functions.f{number}]\nsource = 'a.wasm'\nroutes = ['/f{number}']\n"
        ));
    }
    let project = Project::new(&manifest).file("a.wasm", says("a"));
    project.deploy(&node, &[]);
    node.deploy("other", &says("b"));
    node.cli(["delete", "other", "-y"]).run().expect(0);
    node.restart();
    assert_eq!(node.get("/many/f39").expect(200).text().trim(), "a");
    assert_eq!(project.deploy(&node, &[])["version"], json!("v2"));
    node.get("/many@v1/f0").expect(200);
}

#[test]
fn a_domain_belongs_to_one_app() {
    let node = Node::start();
    let manifest = |app: &str| {
        format!(
            "[app]\nname = '{app}'\ndomains = ['shop.example.com']\n[functions.main]\n\
             source = 'a.wasm'\nroutes = ['shop.example.com/x', '/*']\n"
        )
    };
    let one = Project::new(&manifest("one")).file("a.wasm", says("one"));
    let two = Project::new(&manifest("two")).file("a.wasm", says("two"));
    one.deploy(&node, &[]);
    let there = Request::get("/x").header("host", "Shop.Example.com:8080");
    assert_eq!(node.send(&there).expect(200).text().trim(), "one");
    let refused = two.run(&node, ["deploy"]).expect(5);
    assert!(refused.stderr.contains("domain `shop.example.com` belongs to app `one` since"));
    assert!(refused.stderr.contains("409 route_conflict"), "{refused:?}");
    two.run(&node, ["deploy", "--dry-run"]).expect(5);
    node.api(Request::get("/v1/apps/two")).failure(ErrorCode::NotFound);
    // The claim ends with the last version that names the domain.
    node.cli(["delete", "one", "-y"]).run().expect(0);
    two.deploy(&node, &[]);
    assert_eq!(node.send(&there).expect(200).text().trim(), "two");
    for domain in ["localhost", "x.localhost", "shop.localhost"] {
        let text = manifest("three").replace("shop.example.com", domain);
        let three = Project::new(&text).file("a.wasm", says("three"));
        assert_eq!(three.run(&node, ["deploy"]).code, 2, "{domain}");
    }
}

#[test]
fn limits_of_a_function_within_the_maxima_of_the_node() {
    let node = Node::with("[max_limits]\ncpu_ms = 10000\n");
    let project = |limits: &str| {
        Project::new(&format!(
            "app.name = 'limited'\n[functions.main]\nsource = 'a.wasm'\nlimits = {limits}\n"
        ))
        .file("a.wasm", Guest::Http02.wasm())
    };
    project("{ cpu = '30ms', body = 10 }").deploy(&node, &[]);
    node.get("/limited/hello").expect(200);
    node.get("/limited/spin").failure(ErrorCode::CpuTime);
    node.send(&Request::new("POST", "/limited/length").body(b"0123456789a"))
        .failure(ErrorCode::BodyTooLarge);
    let refused = project("{ cpu = '11s' }").run(&node, ["deploy"]).expect(2);
    assert!(
        refused.stderr.contains("`cpu` is 11000 ms, this node gives at most 10000 ms"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("422 limit_above_maximum"), "{refused:?}");
    node.get("/limited/hello").expect(200);
}

#[test]
fn a_version_that_is_not_healthy_does_not_go_live() {
    let node = Node::start();
    let project = |path: &str| {
        Project::new(&format!(
            "[app]\nname = 'well'\nhealth = '{path}'\n[functions.main]\nsource = 'a.wasm'\n"
        ))
        .file("a.wasm", Guest::Http03.wasm())
    };
    let deployed = project("/hello").run(&node, ["deploy", "-v"]).expect(0);
    assert!(deployed.stderr.contains("check    GET /hello → 200"), "{deployed:?}");
    for path in ["/status?code=503", "/status?code=404", "/trap"] {
        let refused = project(path).run(&node, ["deploy", "-o", "json"]).expect(1);
        let error = &refused.json()["error"];
        assert_eq!(error["code"], json!("unhealthy"), "{path}");
        // Whoever deploys is told why, because the version has no log.
        let said = error["message"].as_str().unwrap();
        assert_eq!(said.contains("unreachable"), path == "/trap", "{said}");
    }
    let list = node.api(Request::get("/v1/apps/well/versions")).expect(200).text();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["versions"].as_array().unwrap().len(), 1);
    // What does not go live is not asked.
    project("/trap").deploy(&node, &["--no-activate"]);
}

#[test]
fn the_same_deploy_sent_twice_makes_one_version() {
    let node = Node::start();
    let project = shop();
    let key = ["--idempotency-key", "build-17"];
    let first = project.deploy(&node, &key);
    let second = project.deploy(&node, &key);
    assert_eq!((&first["version"], &second["version"]), (&json!("v1"), &json!("v1")));
    assert_eq!((&first["replayed"], &second["replayed"]), (&json!(false), &json!(true)));
    project.write("web.wasm", says("other"));
    let refused = project.run(&node, ["deploy", "--idempotency-key", "build-17"]).expect(5);
    assert!(refused.stderr.contains("was used for another deploy, which became v1"), "{refused:?}");
    // The one-shot deploy knows keys, too.
    let one_shot = || {
        let request = Node::deploy_request("single", &says("x")).header("idempotency-key", "k");
        let answer = node.api(request).expect(201);
        serde_json::from_slice::<Value>(&answer.body).unwrap()["version"].clone()
    };
    assert_eq!((one_shot(), one_shot()), (json!("v1"), json!("v1")));
}

#[test]
fn what_is_sent_must_be_what_was_announced() {
    let node = Node::start();
    let digest = Digest::of(b"something else");
    let wasm = says("x");
    let put = |digest: &Digest, body: &[u8]| {
        let request = Request::new("PUT", &format!("/v1/blobs/{digest}"));
        node.api(request.header("content-type", "application/wasm").body(body))
    };
    put(&digest, &wasm).failure(ErrorCode::DigestMismatch);
    assert!(node.files("blobs").is_empty());
    let right = Digest::of(&wasm);
    put(&right, &wasm).expect(201);
    put(&right, &wasm).expect(200);
    let ask = |functions: Value| {
        let body = json!({ "manifest": { "functions": functions } }).to_string();
        let request = Request::new("POST", "/v1/apps/raw/versions");
        node.api(request.header("content-type", "application/json").body(body.as_bytes()))
    };
    let missing = ask(json!([{ "name": "main", "digest": digest }])).expect(200).text();
    let missing: Value = serde_json::from_str(&missing).unwrap();
    assert_eq!(missing, json!({ "missing": [digest], "dry_run": false }));
    ask(json!([{ "name": "main", "digest": right }])).expect(201);
    for (functions, code) in [
        (json!([]), ErrorCode::Manifest),
        (json!([{ "name": "main", "digest": right, "extra": 1 }]), ErrorCode::Unprocessable),
        (json!([{ "name": "Main", "digest": right }]), ErrorCode::Unprocessable),
        (
            json!([{ "name": "a", "digest": right }, { "name": "b", "digest": right }]),
            ErrorCode::Manifest,
        ),
    ] {
        ask(functions).failure(code);
    }
}

#[test]
fn uploads_wait_for_their_deploy_across_a_restart() {
    let mut node = Node::start();
    let wasm = says("waits");
    let digest = Digest::of(&wasm);
    let request = Request::new("PUT", &format!("/v1/blobs/{digest}"));
    node.api(request.header("content-type", "application/wasm").body(&*wasm)).expect(201);
    node.kill();
    node.launch();
    // A deploy that fails sweeps; so does a start.
    node.try_deploy("bad", b"no wasm").failure(ErrorCode::InvalidWasm);
    let body = json!({ "manifest": { "functions": [{ "name": "main", "digest": digest }] } });
    let request = Request::new("POST", "/v1/apps/late/versions");
    let request = request.header("content-type", "application/json");
    node.api(request.body(body.to_string().as_bytes())).expect(201);
    assert_eq!(node.get("/late/").expect(200).text().trim(), "waits");
}

#[test]
fn an_import_that_is_missing_names_its_function() {
    let node = Node::start();
    let bad = "(module (import \"wasi_snapshot_preview1\" \"fd_nothing\" (func)) \
               (func (export \"_start\")) (memory (export \"memory\") 1))";
    let project = shop().file("worker.wasm", assemble(bad));
    let refused = project.run(&node, ["deploy"]).expect(8);
    assert!(refused.stderr.contains("fd_nothing"), "{refused:?}");
    node.api(Request::get("/v1/apps/shop")).failure(ErrorCode::NotFound);
}

#[test]
fn environments_check_and_diff() {
    let node = Node::start();
    let manifest = format!("{SHOP}\n[env.staging]\napp.name = 'shop-staging'\n");
    let project = shop();
    project.write("faas.toml", &manifest);
    let checked = project.run(&node, ["check"]).expect(0);
    assert_eq!(checked.stdout, "faas.toml: app shop, 3 functions, environments staging\n");
    let staged = project.deploy(&node, &["--env", "staging"]);
    assert_eq!(staged["app"], json!("shop-staging"));
    project.run(&node, ["deploy", "--env", "moon"]).expect(2);
    let new = project.run(&node, ["diff"]).expect(0).stdout;
    assert!(new.starts_with("shop is not deployed yet\n  api\n    + function "), "{new}");
    project.deploy(&node, &[]);
    let same = project.run(&node, ["diff"]).expect(0).stdout;
    assert_eq!(same, "nothing changes: v1 is the same\n");
    project.write("faas.toml", manifest.replace("strip_prefix = true", "limits.cpu = '10ms'"));
    let diff = project.run(&node, ["diff"]).expect(0).stdout;
    assert_eq!(
        diff,
        "shop v1 → new\n  api\n    ~ strip_prefix yes → no\n    + cpu          10 ms\n"
    );
    project.write("faas.toml", manifest.replace("routes", "route"));
    let wrong = project.run(&node, ["check"]).expect(2).stderr;
    assert!(wrong.contains("did you mean `routes`?"), "{wrong}");
}
