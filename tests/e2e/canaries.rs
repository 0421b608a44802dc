//! Secrets of every kind go through a node that logs all it can; afterwards they are looked for
//! everywhere: in its log, in metrics, in every answer, in what the command line says, in every
//! file, in a backup, in the command lines and environments of its processes.

use faas_api::ErrorCode;
use faas_tests::{
    Answer, Cli, Connection, Deploy, Issuer, Node, Request,
    artifacts::{Guest, assemble},
    block_on, eventually,
    hyper_client::{Client, Protocol, collect, full},
    process,
    tls::Authority,
    upstream::{Upstream, answer},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);
/// Where they speak TLS, let functions reach loopback, and log everything.
const CONFIG: &str = "[log]\nfilter = \"trace\"\n[outbound]\nallow_private = [\"127.0.0.0/8\"]\n\
    [auth]\nallow_private_issuers = true\n[ingress.tls]\n";

/// What must not be found, and where it may be found all the same.
struct Canary {
    what: &'static str,
    bytes: Vec<u8>,
    /// The ends of names of files.
    files: &'static [&'static str],
}

/// What was said to somebody, and by whom.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    fn answer(&mut self, what: &str, answer: &Answer) {
        // As it went over the wire: fields, trailers and all.
        self.0.push((what.to_owned(), format!("{:?}{:?}", answer.headers, answer.trailers)));
        self.0.push((what.to_owned(), String::from_utf8_lossy(&answer.body).into_owned()));
    }

    fn text(&mut self, what: &str, text: String) {
        self.0.push((what.to_owned(), text));
    }
}

/// A test's run: a node, what was planted, what was heard.
struct Run {
    node: Node,
    planted: Vec<Canary>,
    heard: Heard,
}

impl Run {
    fn start() -> Self {
        let node = Node::unstarted("");
        let authority = Authority::new();
        let issued = authority.issue(&["localhost", "127.0.0.1"]);
        issued.write(node.home());
        fs::write(node.home().join("ca.pem"), authority.pem()).unwrap();
        let folder = node.home().display();
        let files = format!("cert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n");
        fs::write(node.home().join("config.toml"), format!("{CONFIG}{files}")).unwrap();
        let mut run = Self { node, planted: Vec::new(), heard: Heard::default() };
        run.node.launch();
        let pem: Vec<&str> = issued.key.lines().collect();
        run.plant("the key of TLS", pem[1], &["key.pem"]);
        let token = run.node.token();
        run.plant("the server's own token", &token[token.len() - 40..], &["admin.token"]);
        for (what, name) in [("the secrets' key", "secrets.key"), ("the node's key", "node.key")] {
            let bytes = fs::read(run.node.data_dir().join(name)).unwrap();
            // As it is, and as a message would write it.
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            run.plant(what, &hex, &["node.key", "secrets.key"]);
            run.plant(what, bytes.trim_ascii(), &["node.key", "secrets.key"]);
        }
        run
    }

    fn plant(
        &mut self,
        what: &'static str,
        text: impl AsRef<[u8]>,
        files: &'static [&'static str],
    ) {
        let bytes = text.as_ref().to_vec();
        assert!(bytes.len() >= 16, "{what} could be found by chance");
        self.planted.push(Canary { what, bytes, files });
    }

    /// A request to the API with this token.
    #[track_caller]
    fn api_as(&mut self, token: &str, request: Request) -> Answer {
        let bearer = format!("Bearer {token}");
        let asked =
            Connection::open(self.node.admin()).ask(&request.header("authorization", &bearer));
        self.heard.answer("the API", &asked);
        asked
    }

    /// A request to the API.
    #[track_caller]
    fn api(&mut self, request: Request) -> Answer {
        let token = self.node.token();
        self.api_as(&token, request)
    }

    /// The command line, with this on its standard input.
    fn cli(&mut self, args: &[&str], stdin: &str, code: i32) {
        let output = self.node.cli(args.iter().copied()).stdin(stdin).run().expect(code);
        self.heard.text(&format!("stdout of faas {}", args.join(" ")), output.stdout);
        self.heard.text(&format!("stderr of faas {}", args.join(" ")), output.stderr);
    }

    /// Requests of a client, over HTTP/1.1 and HTTP/2; the answers' bodies are the functions'.
    fn call(&mut self, target: &str, fields: &[(&str, &str)], body: &str) -> Vec<String> {
        let authority = fs::read_to_string(self.node.home().join("ca.pem")).unwrap();
        let trust = faas_tests::tls::Trust::of(&authority);
        let mut bodies = Vec::new();
        block_on(async {
            for protocol in Protocol::BOTH {
                let ingress = self.node.ingress();
                let mut client = Client::open_tls(ingress, protocol, &trust).await.unwrap();
                let request = client.request("POST", "localhost", target, full(body.to_owned()));
                let (mut head, body) = request.into_parts();
                for (name, value) in fields {
                    let name: http::HeaderName = name.parse().unwrap();
                    head.headers.append(name, value.parse().unwrap());
                }
                let sent = client.send(http::Request::from_parts(head, body)).await.unwrap();
                let answer = collect(sent).await.unwrap();
                self.heard.text("a head", format!("{:?}", answer.headers()));
                let text = String::from_utf8_lossy(answer.body()).into_owned();
                if answer.headers().contains_key("x-faas-error") {
                    self.heard.text("a failure", text.clone());
                }
                bodies.push(text);
            }
        });
        bodies
    }

    /// Looks for everything in everything.
    fn search(&self) {
        let mut found = Vec::new();
        let mut looked = 0;
        for canary in &self.planted {
            for (where_, text) in &self.heard.0 {
                looked += 1;
                if contains(text.as_bytes(), &canary.bytes) {
                    found.push(format!("{} in {where_}", canary.what));
                }
            }
        }
        for file in all_files(self.node.home()) {
            let bytes = fs::read(&file).unwrap();
            for canary in &self.planted {
                looked += 1;
                let allowed = canary.files.iter().any(|end| file.ends_with(end));
                if !allowed && contains(&bytes, &canary.bytes) {
                    found.push(format!("{} in {}", canary.what, file.display()));
                }
            }
        }
        assert!(looked > 1000, "{looked} places");
        found.sort();
        found.dedup();
        assert!(found.is_empty(), "found:\n  {}", found.join("\n  "));
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    let first = word[0];
    let mut starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    starts.any(|(at, _)| bytes[at..].starts_with(word))
}

fn all_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(all_files(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn no_secret_is_anywhere_but_where_it_belongs() {
    let mut run = Run::start();
    secrets_and_functions(&mut run);
    tokens_and_keys(&mut run);
    clients(&mut run);
    outbound(&mut run);
    mistakes_of_the_command_line(&mut run);
    // What guests wrote about themselves is in their logs, and nowhere else.
    let told = "word-that-a-guest-told-its-log-71";
    run.api(Request::get("/v1/apps/shop/logs")).expect(200);
    run.cli(&["logs", "shop"], "", 0);
    assert!(run.heard.0.iter().any(|(where_, text)| where_ == "the API" && text.contains(told)));
    assert!(!run.node.log().contains(told), "the node's log is not the functions'");
    everything_that_can_be_asked(&mut run);
    backup(&mut run);
    // While it runs, with SQLite's log, and when it has ended.
    run.search();
    run.node.signal(Signal::TERM);
    assert!(run.node.wait().success());
    run.search();
    let log = run.node.log();
    assert!(log.contains("\"level\":\"TRACE\""), "it was a run at `trace`");
    assert!(log.len() > 100_000, "{}", log.len());
    // The search finds what is there.
    assert!(contains(log.as_bytes(), b"\"level\":\"TRACE\"") && !contains(b"abc", b"bd"));
}

/// A module that writes a text to its log and traps.
fn blurts(text: &str) -> Vec<u8> {
    assemble(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\08\00\00\00\{:02x}\00\00\00{text}\0a")
            (func (export "_start")
                (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 100)))
                unreachable))"#,
        text.len() + 1
    ))
}

fn secrets_and_functions(run: &mut Run) {
    let (old, new) = ("first-value-of-a-secret-5c1d", "second-value-of-a-secret-9e77");
    for text in [old, new] {
        run.plant("a secret", text, &[]);
        run.cli(&["secret", "put", "KEY", "--app", "shop"], text, 0);
    }
    let settings = |routes: &str| json!({ "routes": [routes], "secrets": ["KEY"] });
    let open = json!({ "routes": ["/open/*"], "strip_prefix": true });
    let functions = [
        Deploy::new("main", Guest::Http02.wasm(), settings("/*")),
        Deploy::new("three", Guest::Http03.wasm(), settings("/three/*")),
        Deploy::new("cgi", Guest::Cgi01.wasm(), settings("/cgi/*")),
        Deploy::new("blurt", blurts("word-that-a-guest-told-its-log-71"), settings("/blurt")),
        Deploy::new("open", Guest::Http02.wasm(), open),
    ];
    let node = &run.node;
    let pid = node.pid();
    let seen = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| node.deploy_functions("shop", &functions));
        let mut seen = Vec::new();
        while !deploy.is_finished() {
            for child in process::children(pid) {
                for name in ["cmdline", "environ"] {
                    seen.extend(fs::read(format!("/proc/{child}/{name}")).ok());
                }
            }
        }
        deploy.join().unwrap();
        seen
    });
    assert!(seen.iter().any(|bytes| contains(bytes, b"compile-worker")), "a process compiled");
    for bytes in seen {
        run.heard.text("a compile process", String::from_utf8_lossy(&bytes).into_owned());
    }
    // They do get it.
    for body in run.call("/shop/variable?name=KEY", &[], "") {
        assert_eq!(body.trim(), format!("={new}"));
    }
    for target in ["/shop/blurt", "/shop/panic", "/shop/trap", "/shop/three/x", "/shop/cgi/x"] {
        run.call(target, &[], "");
    }
    // Wrong in many ways.
    run.plant("a secret that was refused", "refused-secret-2b90c3", &[]);
    let target = "/v1/apps/shop/secrets/KEY";
    for (target, kind, body) in [
        (target, "text/plain", "refused-secret-2b90c3\0".to_owned()),
        (target, "application/json", "refused-secret-2b90c3".to_owned()),
        ("/v1/apps/shop/secrets/1X", "text/plain", "refused-secret-2b90c3".to_owned()),
        ("/v1/apps/-/secrets/X", "text/plain", "refused-secret-2b90c3".to_owned()),
        (target, "text/plain", "refused-secret-2b90c3".repeat(4000)),
        ("/v1/apps/shop/env", "application/json", r#"{"A":{"x":"refused-secret-2b90c3"}}"#.into()),
        ("/v1/apps/shop/env", "application/json", r#"{"A":"refused-secret-2b90c3"#.into()),
        ("/v1/apps/shop/env/1X", "text/plain", "refused-secret-2b90c3".to_owned()),
    ] {
        let request = Request::new("PUT", target).header("content-type", kind).body(body);
        let answer = run.api(request);
        assert!(answer.status >= 400, "{answer:?}");
    }
}

fn tokens_and_keys(run: &mut Run) {
    let made = run.node.cli(["token", "create", "--name", "ci", "--can", "admin"]).run().expect(0);
    let token = made.stdout.trim().to_owned();
    run.heard.text("stderr of faas token create", made.stderr);
    run.plant("a token", &token[5..], &[]);
    run.api_as(&token, Request::get("/v1/whoami")).expect(200);
    run.api_as(&format!("{token}0"), Request::get("/v1/apps")).failure(ErrorCode::Unauthorized);
    // In the wrong place.
    let misplaced = Request::get(&format!("/v1/apps?token={token}"));
    assert_eq!(run.api(misplaced).status, 400);
    run.api(Request::get(&format!("/v1/apps/{token}")));
    run.api(Request::new("DELETE", &format!("/v1/tokens/{token}")));
    run.api(Request::new("DELETE", &format!("/v1/apps/shop/keys/{token}")));
    for args in [["token", "revoke", &token], ["describe", &token, "-o=json"]] {
        let output = run.node.cli(args).run();
        assert_ne!(output.code, 0);
        run.heard.text("faas with a token for a name", output.stdout + &output.stderr);
    }
    let basic = Request::get("/v1/apps").header("authorization", &format!("Basic {token}"));
    let asked = Connection::open(run.node.admin()).ask(&basic);
    run.heard.answer("the API", &asked);
    let given = |args: &[&str], node: &Node| {
        Cli::new(node.home(), args)
            .env("FAAS_SERVER", format!("http://{}", node.admin()))
            .env("FAAS_TOKEN", &token)
            .run()
    };
    for args in [&["list"][..], &["list", "--verbose"], &["whoami", "-o", "json"]] {
        let output = given(args, &run.node);
        run.heard.text(&format!("faas {args:?}"), output.stdout + &output.stderr);
    }
    let document = run.node.cli(["token", "list", "-o", "json"]).run().expect(0).json();
    let id = document["data"]["tokens"][0]["id"].as_str().unwrap().to_owned();
    run.cli(&["token", "revoke", &id], "", 0);
    let output = given(&["list"], &run.node).expect(3);
    run.heard.text("faas with a token that was revoked", output.stdout + &output.stderr);
    // A function's key.
    let request = Request::post("/v1/apps/shop/keys", r#"{"name":"partner"}"#)
        .header("content-type", "application/json");
    let key = run.node.api(request).expect(201).json()["secret"].as_str().unwrap().to_owned();
    run.plant("an API key", &key[9..], &[]);
    let issuer = Issuer::start();
    let jwt = issuer.token("somebody", json!({}));
    let signature = jwt.rsplit('.').next().unwrap().to_owned();
    let claims = jwt.split('.').nth(1).unwrap().to_owned();
    run.plant("a JWT's signature", &signature, &[]);
    run.plant("a JWT's claims", &claims, &[]);
    let by_key = json!({ "auth": { "kind": "key" } });
    let by_jwt = json!({ "auth": { "kind": "jwt", "issuer": issuer.url() }, "routes": ["/jwt/*"] });
    let functions = [
        Deploy::new("main", Guest::Http02.wasm(), by_key),
        Deploy::new("jwt", Guest::Http02.wasm(), by_jwt),
    ];
    run.node.deploy_functions("guarded", &functions);
    let request = Request::post("/v1/apps/guarded/keys", r#"{"name":"partner"}"#)
        .header("content-type", "application/json");
    let key = run.node.api(request).expect(201).json()["secret"].as_str().unwrap().to_owned();
    run.plant("an API key", &key[9..], &[]);
    for (target, name, value) in [
        ("/guarded/x", "x-api-key", key.clone()),
        ("/guarded/x", "authorization", format!("Bearer {key}")),
        ("/guarded/x", "authorization", format!("Bearer {key}0")),
        ("/guarded/jwt/x", "authorization", format!("Bearer {jwt}")),
        ("/guarded/jwt/x", "authorization", format!("Bearer {jwt}0")),
        ("/guarded/jwt/x", "authorization", format!("Bearer {}", &jwt[..jwt.len() - 1])),
        ("/guarded/jwt/x", "authorization", format!("Bearer {claims}")),
    ] {
        run.call(target, &[(name, &value)], "");
    }
}

/// What clients of functions send is theirs and the functions'.
fn clients(run: &mut Run) {
    let fields = [
        ("authorization", "Basic client-authorization-3f41"),
        ("cookie", "session=client-cookie-8812-aa"),
        ("x-api-key", "client-api-key-40b2-77"),
        ("proxy-authorization", "Basic client-proxy-authorization-1"),
        ("x-secret", "client-other-field-c0c0"),
    ];
    for (_, value) in fields {
        let text = value.rsplit(['=', ' ']).next().unwrap();
        run.plant("a client's field", text, &[]);
    }
    run.plant("a client's body", "client-body-77aa-0b1c", &[]);
    run.plant("a client's query", "client-query-19fe-22", &[]);
    let targets = [
        "/shop/open/x?token=client-query-19fe-22",
        "/shop/open/trap?token=client-query-19fe-22",
        "/shop/open/no-response?token=client-query-19fe-22",
        "/shop/open/bad?what=control&token=client-query-19fe-22",
        "/shop/open/exit?code=3&token=client-query-19fe-22",
        "/shop/open/length?token=client-query-19fe-22",
        "/nothing/x?token=client-query-19fe-22",
        "/guarded/x?token=client-query-19fe-22",
    ];
    for target in targets {
        run.call(target, &fields, "client-body-77aa-0b1c");
    }
    // Heads that are refused.
    let heads = [
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n",
        "GET /x y HTTP/1.1\r\nhost: a\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n",
        "GET / HTTP/1.1\r\nhost: a\nx: y\r\n",
    ];
    for head in heads {
        let mut connection = Connection::open(run.node.admin());
        let head = format!("{head}authorization: Basic client-authorization-3f41\r\n\r\n");
        connection.write(head.as_bytes()).unwrap();
        if let Ok(answer) = connection.read_answer(false) {
            run.heard.answer("the API", &answer);
        }
    }
}

fn outbound(run: &mut Run) {
    run.plant("an outbound request's password", "outbound-password-6d2e", &[]);
    run.plant("an outbound request's query", "outbound-query-77c1-09", &[]);
    run.plant("an outbound request's path", "outbound-path-0c4b-11", &[]);
    run.plant("an outbound request's field", "outbound-field-5b5b-01", &[]);
    run.plant("what an upstream answered", "upstream-answer-8f8f-13", &[]);
    let upstream = Upstream::start(|received, peer| match received.target().contains("/break") {
        true => Err(std::io::ErrorKind::BrokenPipe.into()),
        false => answer(peer, 200, b"upstream-answer-8f8f-13"),
    });
    let port = upstream.port();
    let granted = json!({ "grants": { "outbound": [format!("http://127.0.0.1:{port}")] } });
    for guest in [Guest::Http02, Guest::Http03] {
        let function = Deploy::new("main", guest.wasm(), granted.clone());
        run.node.deploy_functions("caller", &[function]);
        let mut answered = 0;
        for (host, path) in [
            (format!("127.0.0.1:{port}"), ""),
            (format!("127.0.0.1:{port}"), "/break"),
            (format!("user:outbound-password-6d2e@127.0.0.1:{port}"), ""),
            ("10.0.0.1".to_owned(), ""),
            (format!("127.0.0.1:{}", run.node.admin().port()), ""),
            ("nobody.invalid".to_owned(), ""),
        ] {
            let parameters = "header=authorization:outbound-field-5b5b-01";
            let url =
                format!("http://{host}{path}/outbound-path-0c4b-11?key=outbound-query-77c1-09");
            // To the caller's own client goes what the function chooses.
            let bodies = run.call(&format!("/caller/fetch?{parameters}&url={url}"), &[], "");
            answered += bodies.iter().filter(|body| body.contains("upstream-answer")).count();
        }
        assert!(answered >= 2, "some of it worked: {answered}");
    }
    assert!(upstream.received().iter().any(|received| {
        received.field("authorization").as_deref() == Some("outbound-field-5b5b-01")
    }));
}

/// What somebody types in the wrong place is not repeated where a log of builds would keep it.
fn mistakes_of_the_command_line(run: &mut Run) {
    run.plant("what was typed as a secret", "typed-secret-31d7-4d", &[]);
    run.plant("a server's password", "server-password-5a5a", &[]);
    run.cli(&["secret", "put", "KEY=typed-secret-31d7-4d", "--app", "shop"], "", 2);
    run.cli(&["secret", "put", "KEY", "typed-secret-31d7-4d", "--app", "shop"], "", 2);
    for server in ["http://user:server-password-5a5a@127.0.0.1:1", "ftp://x:server-password-5a5a@h"]
    {
        for args in [&["list"][..], &["list", "-o", "json"]] {
            let output = run.node.cli(args.iter().copied()).env("FAAS_SERVER", server).run();
            assert_ne!(output.code, 0);
            run.heard.text(&format!("faas at {server:.12}"), output.stdout + &output.stderr);
        }
    }
    for token in ["faas_typed-secret-31d7-4d", "typed-secret-31d7-4d \u{1}"] {
        let output = run.node.cli(["list"]).env("FAAS_TOKEN", token).run();
        assert_ne!(output.code, 0);
        run.heard.text("faas with a bad token", output.stdout + &output.stderr);
    }
}

/// Every question that the API answers, and the command line's verbs.
fn everything_that_can_be_asked(run: &mut Run) {
    let document = run.api(Request::get("/v1/openapi.json")).expect(200).json();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods["get"] == Value::Null || path == "/v1/backup" {
            continue;
        }
        for app in ["shop", "guarded", "caller"] {
            let target = path.replace("{app}", app).replace("{version}", "v1");
            let answer = run.api(Request::get(&target.replace("{name}", "KEY")));
            assert!(matches!(answer.status, 200 | 404), "{target}: {answer:?}");
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked}");
    for app in ["shop", "guarded", "caller"] {
        for args in [
            &["describe", app, "-o", "json"][..],
            &["versions", app, "-o", "json"],
            &["logs", app, "-o", "json"],
            &["env", "list", "--app", app],
            &["secret", "list", "--app", app, "-o", "json"],
            &["key", "list", "--app", app, "-o", "json"],
            &["usage", app, "-o", "json"],
        ] {
            run.cli(args, "", 0);
        }
    }
    run.cli(&["audit", "-o", "json"], "", 0);
    run.cli(&["token", "list", "--all", "-o", "json"], "", 0);
    let pid = run.node.pid();
    for name in ["cmdline", "environ", "comm"] {
        let text = fs::read(format!("/proc/{pid}/{name}")).unwrap();
        run.heard.text("the process", String::from_utf8_lossy(&text).into_owned());
    }
}

/// A backup has the server's own token and key, as its documentation says, and nothing else.
fn backup(run: &mut Run) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.tar");
    run.cli(&["backup", file.to_str().unwrap()], "", 0);
    let bytes = fs::read(&file).unwrap();
    let documented = ["the server's own token", "the secrets' key", "the node's key"];
    for canary in run.planted.iter().filter(|canary| !documented.contains(&canary.what)) {
        assert!(!contains(&bytes, &canary.bytes), "{} in a backup", canary.what);
    }
    // The lines of functions are on the disk a moment later than in memory.
    eventually("the log is written", PATIENCE, || {
        run.node
            .files("logs")
            .iter()
            .any(|file| fs::metadata(file).unwrap().len() > 0)
            .then_some(())
    });
}
