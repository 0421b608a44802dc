//! What people see: sessions on a terminal, held against the files in `transcripts/`. With `UPDATE=1`
//! the files are written instead; then look at the difference.

mod redact;
mod session;

use faas_tests::{
    Connection, Node, Request,
    artifacts::{self, Guest, says},
    eventually,
    process::signal,
};
use rustix::process::Signal;
use session::{PATIENCE, Session};
use tempfile::TempDir;

/// A project whose build copies a file.
fn project(app: &str, more: &str) -> String {
    format!(
        "[app]\nname = \"{app}\"\n\n[build]\ncommand = \"cp src/next.wasm web.wasm\"\n\
         watch = [\"src\"]\n\n[functions.web]\nsource = \"web.wasm\"\n{more}"
    )
}

/// A project of one function, with these lines more about the app and the function.
fn ready(app: &str, about_app: &str, about_function: &str) -> String {
    format!(
        "[app]\nname = \"{app}\"\n{about_app}\n[functions.web]\nsource = \"../hello.wasm\"\n\
         {about_function}"
    )
}

#[test]
fn the_first_five_minutes() {
    let home = TempDir::new().unwrap();
    let mut session = Session::at(home.path());
    session.variable("FAAS_LISTEN", "127.0.0.1:0");
    session.variable("FAAS_ADMIN_LISTEN", "127.0.0.1:0");
    session.file("hello.wasm", says("Hello"));
    let node = session.start("exec faas serve", false);
    node.until("\nadmin http://", PATIENCE);
    // The address ends with its line.
    let complete = || node.text().split_once("\nadmin ").is_some_and(|(_, end)| end.contains('\n'));
    eventually("the line's end", PATIENCE, || complete().then_some(()));
    let text = node.text();
    let address = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(" http://").to_owned()
    };
    let (ingress, admin) = (address("ingress"), address("admin"));
    session.serves(&ingress, &admin);
    // What its log says follows when it likes.
    let (banner, _) = text.split_once("\nadmin ").unwrap();
    session.show("faas serve", &format!("{banner}\nadmin http://{admin}\n"));

    session.note("A single file needs no project.");
    session.run("faas deploy hello.wasm");
    session.run("curl -s http://127.0.0.1:8080/hello/");
    session.run("faas invoke hello");
    session.run("faas invoke hello/nowhere -i");

    session.note("A new project: in Rust, unless another language is asked for.");
    session.run("faas new first");
    session.run("faas new shop --lang c");
    session.run("faas new shop");
    session.cd("shop");
    session.run("faas check");
    session.run("faas deploy");
    session.run("curl -s http://127.0.0.1:8080/shop/");

    session.note("On a pipe: the URL and nothing else.");
    session.run("faas deploy | cat");
    session.cd("");
    session.run("faas list");
    session.is("first-five-minutes");
}

#[test]
fn errors_say_what_and_what_to_do() {
    let node = Node::with("[max_limits]\ncpu_ms = 10000\n");
    let mut session = Session::on(&node);
    session.file("hello.wasm", says("Hello"));
    session.file("report.wasm", artifacts::wat("unknown-imports"));
    session.file("notes.wasm", "no program");
    session.file("route/faas.toml", ready("orders", "", "route = \"/api/*\"\n"));
    session.file("type/faas.toml", ready("orders", "", "routes = \"/api/*\"\n"));
    session.file("limit/faas.toml", ready("orders", "", "limits = { cpu = \"11s\" }\n"));
    session.file("secret/faas.toml", ready("orders", "", "secrets = [\"STRIPE_KEY\"]\n"));
    let domain = "domains = [\"shop.example.com\"]\n";
    session.file("legacy/faas.toml", ready("legacy", domain, ""));
    session.file("orders/faas.toml", ready("orders", domain, ""));

    session.note("An artifact that cannot run.");
    session.run("faas deploy report.wasm");
    session.run("faas deploy notes.wasm");
    session.run("faas deploy nothing.wasm");
    session.run("faas deploy");

    session.note("Mistakes in faas.toml.");
    session.run("faas -C route deploy");
    session.run("faas -C type deploy");
    session.run("faas -C limit deploy");
    session.run("faas -C secret deploy");

    session.note("A domain belongs to one app.");
    session.run("faas -C legacy deploy");
    session.run("faas -C orders deploy");

    session.note("What is not there.");
    session.run("faas rollback legacy");
    session.run("faas rollback legacy v7");
    session.run("faas promote legacy v7");
    session.run("faas promote legacy 7");
    session.run("faas pin legacy v7");
    session.run("faas describe nothing");
    session.run("faas versions");
    session.run("faas logs legacy --since yesterday");
    session.run("faas invoke nothing");
    session.run("faas delete legacy");

    session.note("A server that is not there.");
    session.run("faas list --server http://127.0.0.1:1");
    session.run("faas list --server http://127.0.0.1:1 -o json");
    session.run("faas serve --data-dir other --listen 127.0.0.1:8080");
    session.run("faas dev orders --listen 127.0.0.1:8080");
    session.run("faas -C orders deploy -o json");

    session.note("A mistake on the command line.");
    session.run("faas deplyo");
    session.run("faas list --sever http://127.0.0.1:1");
    session.is("errors");
}

/// Waits for the last line about a request: it is written when the answer has gone out.
fn logged(node: &Node, app: &str, path: &str) {
    eventually(path, PATIENCE, || {
        let log = node.cli(["logs", app, "-o", "json"]).run().expect(0).json_lines();
        log.iter().any(|line| line["path"] == path).then_some(())
    });
}

#[test]
fn when_a_function_fails() {
    let node = Node::with_guests("");
    let mut session = Session::on(&node);
    // As a terminal that knows no bold.
    session.file(".curlrc", "no-styled-output\n");
    session.note("The client gets a status, a code and an id.");
    let answer = session.run("curl -si http://127.0.0.1:8080/http02/panic");
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: "));
    let id = id.unwrap_or_else(|| panic!("no id: {answer:?}"));
    session.shows_as(id.trim(), "REQUEST-ID");

    logged(&node, "http02", "/panic");
    session.note("The developer gets everything.");
    session.run(&format!("faas logs http02 --request-id {}", id.trim()));
    session.run("faas invoke http02/spin");
    logged(&node, "http02", "/spin");
    session.run("faas logs http02 --limit 2");
    session.run("faas invoke http02/no-response -i");
    logged(&node, "http02", "/no-response");
    session.run("faas logs http02 --limit 2 --status 500");
    session.run("faas invoke http02/nothing");
    logged(&node, "http02", "/nothing");
    session.run("faas logs http02 --limit 1");
    session.run("faas logs http02 --status 418");
    session.is("failures");
}

#[test]
fn every_day() {
    let node = Node::start();
    let mut session = Session::on(&node);
    session.file("shop/faas.toml", project("shop", ""));
    session.file("shop/src/next.wasm", says("search"));
    session.cd("shop");
    session.run("faas diff");
    session.run("faas deploy -m search");
    session.file("shop/src/next.wasm", says("totals"));
    session.run("faas deploy -m 'checkout: new totals'");
    session.run("faas versions");

    session.note("What would change.");
    session.file("shop/src/next.wasm", says("reviews"));
    session.file("shop/faas.toml", project("shop", "routes = [\"/*\", \"shop.example.com/x\"]\n"));
    session.run("faas diff");
    session.file("shop/faas.toml", project("shop", "limits = { cpu = \"30ms\" }\n"));
    session.run("faas diff");
    session.run("faas deploy --dry-run");

    session.note("A part of the traffic first.");
    session.run("faas deploy --canary 5%");
    session.run("faas describe");
    session.run("faas promote v3 --percent 50 --sticky cookie --abort-above 10%");
    session.run("faas versions shop");
    session.run("faas promote v3");
    session.run("faas promote v3");

    session.note("And back.");
    session.run("faas rollback");
    session.run("faas rollback shop v1");
    session.run("faas rollback shop v1");
    session.run("faas pin v2");
    session.run("faas versions");
    session.run("faas unpin shop v2");

    session.note("A version that nobody gets yet.");
    session.file("shop/src/next.wasm", says("later"));
    session.run("faas deploy --no-activate");
    session.run("curl -s http://127.0.0.1:8080/shop@v4/");
    session.run("curl -s http://127.0.0.1:8080/shop/");
    session.run("faas deploy --skip-build");

    session.note("What there is, and what it used.");
    session.cd("");
    session.run("faas list");
    session.run("faas usage shop");
    session.run("faas usage other");
    session.answer("faas delete shop", &[("[y/N]", "n")]);
    session.answer("faas delete shop", &[("[y/N]", "y")]);
    session.run("faas list");
    session.is("every-day");
}

#[test]
fn configuration() {
    let node = Node::start();
    let mut session = Session::on(&node);
    session.file("hello.wasm", says("Hello"));
    session.file("shop/faas.toml", ready("shop", "", ""));
    session.file("shop/.env", "GREETING='Good morning'\nCURRENCY=EUR\n");
    session.cd("shop");
    session.run("faas env list");
    session.run("faas deploy");
    session.run("faas env list");
    session.run("faas env set GREETING=Hello CURRENCY=USD");
    session.run("faas env list");
    session.run("faas env import .env");
    session.run("faas env unset CURRENCY");
    session.run("faas env list");
    session.run("faas env set greeting");

    session.note("A secret is typed, and not shown.");
    session.run("faas secret list");
    session.file("shop/faas.toml", ready("shop", "", "secrets = [\"STRIPE_KEY\"]\n"));
    session.answer("faas deploy", &[]);
    session.answer("faas secret put STRIPE_KEY", &[("STRIPE_KEY:", "sesame")]);
    session.run("faas secret list");
    session.answer("faas deploy", &[("[y/N]", "n")]);
    session.answer("faas deploy", &[("[y/N]", "y")]);
    session.run("faas secret rm STRIPE_KEY");

    session.note("A key for a caller.");
    session.run("faas key list");
    session.run("faas key create ci --expires 90d");
    session.run("faas key create ci");
    session.run("faas key list");
    session.run("faas key revoke ci");
    session.run("faas key revoke ci");
    session.is("configuration");
}

#[test]
fn access() {
    let node = Node::start();
    let mut session = Session::on(&node);
    session.file("hello.wasm", says("Hello"));
    session.run("faas deploy hello.wasm");
    let ci = session.run("faas token create --name ci --app hello --can deploy --expires 90d");
    let reader = session.run("faas token create --name reader");
    session.run("faas token list");
    session.run("faas whoami");
    let short = session.run("faas token create --name short --expires 1s");

    session.note("Somebody else, who has only a token.");
    let token = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("faas_"));
        line.unwrap_or_else(|| panic!("no token: {text}")).to_owned()
    };
    session.variable("FAAS_TOKEN", token(&reader));
    session.run("faas whoami");
    session.run("faas deploy hello.wasm");
    session.run("faas list");
    session.variable("FAAS_TOKEN", token(&short));
    let ended = || {
        let listed = node.cli(["list"]).env("FAAS_TOKEN", token(&short)).run();
        (listed.code == 3).then_some(())
    };
    eventually("its end", PATIENCE, ended);
    session.run("faas list");
    session.variable("FAAS_TOKEN", "faas_nothing");
    session.run("faas list");
    session.variable("FAAS_TOKEN", "");
    session.variable("FAAS_DATA_DIR", "/nowhere");
    session.run("faas list");

    session.note("A server is stored with its token.");
    let login = format!("faas login http://{} --name work", node.admin());
    session.answer(&login, &[("oken", &token(&reader))]);
    session.run("faas context list");
    session.variable("FAAS_SERVER", "");
    session.run("faas list");
    session.run("faas context use home");
    session.run("faas logout");
    session.run("faas context list");

    session.note("Who did what.");
    session.variable("FAAS_DATA_DIR", node.data_dir());
    session.variable("FAAS_SERVER", format!("http://{}", node.admin()));
    session.run("faas token revoke 0000000000");
    let id = ci.split("token ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    session.run(&format!("faas token revoke {id}"));
    session.run("faas token list --all");
    session.run("faas audit");
    session.is("access");
}

#[test]
fn development() {
    let home = TempDir::new().unwrap();
    let mut session = Session::at(home.path());
    session.file("shop/faas.toml", project("shop", "secrets = [\"STRIPE_KEY\"]\n"));
    session.file("shop/src/next.wasm", says("one"));
    session.file("shop/.env", "GREETING=hello\n");
    session.cd("shop");
    session.run("faas dev --once --listen 127.0.0.1:0");
    session.file("shop/.env", "GREETING=hello\nSTRIPE_KEY=sesame\n");
    let line = "faas dev";
    let dev = session.start("exec faas dev --listen 127.0.0.1:0", false);
    dev.until("watching", PATIENCE);
    let text = dev.text();
    let url = text.lines().find_map(|line| line.strip_prefix("http://")).unwrap();
    let ingress = url.split_once('/').unwrap().0;
    session.requests_go_to(ingress);
    let get = |path: &str| {
        let address = ingress.parse().unwrap();
        Connection::open(address).ask(&Request::get(&format!("/shop{path}")))
    };
    get("/").expect(200);
    dev.until("GET /", PATIENCE);
    session.file("shop/src/next.wasm", says("two"));
    dev.until("v2 live", PATIENCE);
    get("/basket").expect(200);
    dev.until("GET /basket", PATIENCE);
    session.file("shop/.env", "GREETING='good morning'\nSTRIPE_KEY=sesame\n");
    dev.until("v2 stays live", PATIENCE);
    session.file("shop/src/next.wasm", Guest::Http02.wasm());
    dev.until("v3 live", PATIENCE);
    get("/panic");
    dev.until("guest_trap", PATIENCE);
    let broken = project("shop", "")
        .replace("cp src/next.wasm web.wasm", "echo 'main.c:3: no such word'; false");
    session.file("shop/faas.toml", broken);
    dev.until("v3 stays live", PATIENCE);
    signal(dev.id(), Signal::INT);
    session.tell(line, dev);
    session.is("development");
}
