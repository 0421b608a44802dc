//! The exit codes of `docs/cli.md`, each with several causes: the same for people and for scripts.

use crate::{
    cli::Following,
    output::{Promise, exit_codes},
};
use faas_tests::{
    Cli, Fate, Node, Output, Relay, Request,
    artifacts::{self, Guest, says},
    eventually, process,
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    collections::BTreeSet, fs, net::TcpListener, os::unix::fs::symlink, path::PathBuf, thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

const APP: &str = "[app]\nname = \"shop\"\n\n[functions.main]\nsource = \"a.wasm\"\n";

/// A node on which everything is that the rows need.
struct World {
    node: Node,
    promise: Promise,
    tried: BTreeSet<i32>,
}

impl World {
    fn new() -> Self {
        let node = Node::with_guests("[max_limits]\ncpu_ms = 10000\n");
        let file = |name: &str, content: &[u8]| {
            let path = node.home().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let project = |name: &str, manifest: &str| {
            file(&format!("{name}/faas.toml"), manifest.as_bytes());
            file(&format!("{name}/a.wasm"), &says(name));
        };
        file("hello.wasm", &says("one"));
        file("odd.wasm", &artifacts::wat("unknown-imports"));
        file("nothing.wasm", &artifacts::wat("no-export"));
        file("text.wasm", b"no wasm at all");
        file("native.wasm", b"\x7fELF\x02\x01\x01");
        file("full/file", b"in the way");
        project("shop", APP);
        project("unknown", &APP.replace("source", "sorce"));
        project("types", &APP.replace("\"a.wasm\"", "7"));
        project("greedy", &format!("{APP}limits = {{ cpu = \"11s\" }}\n"));
        project("secretive", &format!("{APP}secrets = [\"KEY\"]\n"));
        project(
            "unhealthy",
            &APP.replace("[functions", "health = \"/status?code=503\"\n\n[functions"),
        );
        file("unhealthy/a.wasm", &Guest::Http02.wasm());
        let domain = |name: &str| {
            APP.replace("shop", name).replace("\n\n", "\ndomains = [\"shop.example.com\"]\n\n")
        };
        project("owner", &domain("owner"));
        project("rival", &domain("rival"));
        let built = |command: &str| format!("{APP}\n[build]\ncommand = \"{command}\"\n");
        project("failing", &built("exit 3"));
        project("empty", &built("rm -f a.wasm"));
        project("tools", &built("npm run build"));
        file("bin/.keep", b"");
        symlink("/bin/sh", node.home().join("bin/sh")).unwrap();
        let world = Self { node, promise: Promise::read(), tried: BTreeSet::new() };
        for words in [
            "deploy hello.wasm",
            "deploy hello.wasm",
            "-C owner deploy",
            "secret put KEY --app owned",
            "key create ci --app hello",
            "backup there.tar",
        ] {
            world.cli(words).stdin("sesame").run().expect(0);
        }
        fs::write(world.node.home().join("secretive/faas.toml"), {
            format!("{APP}secrets = [\"KEY\"]\n").replace("shop", "owned")
        })
        .unwrap();
        world.cli("-C secretive deploy").run().expect(0);
        world
    }

    fn cli(&self, words: &str) -> Cli {
        self.node.cli(words.split(' '))
    }

    /// Runs it for people and for scripts: one code, and the same words either way.
    #[track_caller]
    fn ends(&mut self, exit: i32, cause: &str, code: &str, run: impl Fn(&[&str]) -> Output) {
        let text = run(&[]);
        assert_eq!(text.code, exit, "{cause}: {text:?}");
        let json = run(&["-o", "json"]);
        assert_eq!(json.code, exit, "{cause}: {json:?}");
        self.tried.insert(exit);
        if exit == 0 {
            assert!(!text.stderr.contains("error: "), "{cause}: {text:?}");
            return;
        }
        let document: Value = serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
        let error = &document["error"];
        assert_eq!(error["code"], code, "{cause}: {document}");
        let verb = document["command"].as_str().unwrap();
        self.promise.check(&verb.replace(' ', "-"), &document);
        assert_eq!(self.promise.exit_of(verb, error), exit, "{cause}: {document}");
        let said = without_ids(&text.stderr);
        if exit != 130 {
            let message = without_ids(error["message"].as_str().unwrap());
            assert!(said.contains(&format!("error: {message}")), "{cause}: {text:?}");
        }
        // What the parser of the command line says is arranged otherwise.
        if let Some(hint) = error["hint"].as_str().filter(|_| !said.contains("--help")) {
            let hint = without_ids(hint);
            assert!(said.contains(&format!("hint: {hint}")), "{cause}: {text:?}");
        }
    }

    /// The same for a command line and what stands on its standard input.
    #[track_caller]
    fn row(&mut self, exit: i32, cause: &str, words: &str, code: &str) {
        let node = &self.node;
        let lines: Vec<Output> = [&[][..], &["-o", "json"]]
            .into_iter()
            .map(|form| node.cli(words.split(' ').chain(form.iter().copied())).run())
            .collect();
        self.ends(exit, cause, code, |form| lines[usize::from(!form.is_empty())].clone());
    }

    /// A token with these words.
    fn token(&self, words: &str) -> String {
        let made = self.cli(&format!("token create {words}")).run().expect(0);
        made.stdout.trim().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.node.home().join(name)
    }
}

/// Every run has requests of its own.
fn without_ids(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 26 && word.starts_with("01");
    let words = text.split_inclusive([' ', '\n']);
    words.filter(|word| !is_id(&word.trim_end())).collect::<String>().trim_end().to_owned()
}

#[test]
fn every_exit_code_has_its_causes() {
    let mut world = World::new();
    for (exit, cause, words, code) in ROWS {
        world.row(*exit, cause, words, code);
    }
    who_may(&mut world);
    what_is_in_the_way(&mut world);
    what_is_not_there(&mut world);
    what_cannot_be_built(&mut world);
    what_is_too_large(&mut world);
    what_is_interrupted(&mut world);
    let documented = exit_codes();
    assert_eq!(world.tried, documented, "codes that were tried, and codes of docs/cli.md");
    // Nothing of all that is left behind.
    let list = world.node.api(Request::get("/v1/apps")).json();
    let names: BTreeSet<&str> =
        list["apps"].as_array().unwrap().iter().filter_map(|app| app["name"].as_str()).collect();
    let there = ["cgi01", "cgi02", "hello", "http02", "http03", "owned", "owner"];
    assert_eq!(names, BTreeSet::from(there));
}

/// Exit code, cause, command line, code.
const ROWS: &[(i32, &str, &str, &str)] = &[
    (0, "it works", "list", ""),
    (0, "nothing to show", "logs hello", ""),
    (0, "what is live already", "rollback hello v2", ""),
    (0, "nothing changes", "-C shop check", ""),
    (1, "the function fails", "invoke http02/trap", "http_status"),
    (1, "the function finds nothing", "invoke http02/status?code=404", "http_status"),
    (1, "what cannot be", "deploy hello.wasm --reuse 100", "unprocessable"),
    (1, "no health", "-C unhealthy deploy", "unhealthy"),
    (2, "no verb", "-q", "usage"),
    (2, "no such verb", "nonsense", "usage"),
    (2, "no such flag", "list --nonsense", "usage"),
    (2, "a flag's value", "deploy hello.wasm --canary 0%", "usage"),
    (2, "an argument is missing", "invoke", "usage"),
    (2, "no app is named or here", "describe", "no_project"),
    (2, "two flags", "list --server http://127.0.0.1:1 --context here", "usage"),
    (2, "a name", "describe Bad_Name", "usage"),
    (2, "a time", "usage --since never", "usage"),
    (2, "a yes is missing", "delete hello", "usage"),
    (2, "an address", "list --server nonsense", "usage"),
    (2, "no project", "deploy", "no_project"),
    (2, "no environment", "-C shop deploy -e nowhere", "no_environment"),
    (2, "no file", "deploy nowhere.wasm", "no_such_file"),
    (2, "no folder", "-C nowhere list", "usage"),
    (2, "an unknown key", "-C unknown deploy", "manifest"),
    (2, "a wrong type", "-C types check", "manifest"),
    (2, "a limit above the maximum", "-C greedy deploy", "limit_above_maximum"),
    (2, "an expression", "logs hello --grep (", "bad_request"),
    (3, "a wrong token", "list --token wrong", "unauthorized"),
    (3, "a wrong token of an upload", "deploy hello.wasm --token wrong", "unauthorized"),
    (4, "no such app", "describe nobody", "not_found"),
    (4, "no such app to delete", "delete nobody -y", "not_found"),
    (4, "no such app's log", "logs nobody", "not_found"),
    (4, "no such version", "rollback hello v99", "not_found"),
    (4, "no such version to promote", "promote hello v99", "not_found"),
    (4, "no such version to pin", "pin hello v99", "not_found"),
    (4, "no such key", "key revoke nobody --app hello", "not_found"),
    (4, "no such token", "token revoke 0000000000", "not_found"),
    (4, "no such secret", "secret rm NONE --app hello", "not_found"),
    (5, "another app's domain", "-C rival deploy", "route_conflict"),
    (5, "a secret that is needed", "secret rm KEY --app owned", "secret_in_use"),
    (5, "a key of that name", "key create ci --app hello", "conflict"),
    (5, "a folder that is not empty", "new full", "conflict"),
    (5, "a file that is there", "backup there.tar", "in_the_way"),
    (8, "no Wasm", "deploy text.wasm", "invalid_wasm"),
    (8, "native code", "deploy native.wasm", "precompiled"),
    (8, "nothing to run", "deploy nothing.wasm", "unknown_kind"),
    (8, "an unknown import", "deploy odd.wasm", "unknown_import"),
    (8, "no backup", "restore hello.wasm --data-dir other", "not_a_backup"),
];

fn who_may(world: &mut World) {
    let reader = world.token("--name reader --app hello --can read");
    let gone = world.token("--name gone --can admin");
    let short = world.token("--name short --can admin --expires 1s");
    let list = world.cli("token list -o json").run().expect(0).json();
    let id = list["data"]["tokens"].as_array().unwrap().iter();
    let id = id.clone().find(|token| token["name"] == "gone").unwrap()["id"].as_str().unwrap();
    world.cli(&format!("token revoke {id}")).run().expect(0);
    let lists = format!("list --token {short}");
    eventually("its end", PATIENCE, || (world.cli(&lists).run().code != 0).then_some(()));
    world.row(3, "an expired token", &lists, "token_expired");
    world.row(3, "a revoked token", &format!("list --token {gone}"), "unauthorized");
    let deploys = format!("deploy hello.wasm --token {reader}");
    world.row(3, "not for this verb", &deploys, "missing_scope");
    let other = format!("describe owner --token {reader}");
    world.row(3, "not for this app", &other, "missing_scope");
    // No token at all.
    let (home, admin) = (world.path("bin"), format!("http://{}", world.node.admin()));
    world.ends(3, "no token", "unauthorized", |form| {
        let words = ["list", "--server", &admin].into_iter().chain(form.iter().copied());
        Cli::new(&home, words).run()
    });
}

fn what_is_in_the_way(world: &mut World) {
    let taken = world.node.data_dir().display().to_string();
    let any = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
    let serve = format!("serve {any} --data-dir {taken}");
    world.row(5, "a data directory in use", &serve, "in_use");
    let listen = format!("dev shop --listen {}", world.node.ingress());
    world.row(5, "an address in use", &listen, "listen");
    let listen = format!("serve --data-dir other --listen {}", world.node.ingress());
    world.row(5, "a server's address in use", &listen, "listen");
    // Somebody else changes the traffic between what the command read and what it writes.
    let admin = world.node.admin();
    let token = world.node.token();
    let relay = Relay::to(admin, move |piece| {
        if piece.starts_with(b"PUT /v1/apps/hello/traffic") {
            for version in ["v2", "v1"] {
                let shares = format!(r#"{{"shares":[{{"version":"{version}","percent":100}}]}}"#);
                let put = Request::new("PUT", "/v1/apps/hello/traffic")
                    .header("authorization", &format!("Bearer {token}"))
                    .header("content-type", "application/json");
                faas_tests::Connection::open(admin).ask(&put.body(shares)).expect(200);
            }
        }
        Fate::Pass
    });
    let server = relay.address();
    for verb in ["rollback hello v1", "promote hello v1"] {
        world.cli("rollback hello v2").run().expect(0);
        let words = format!("{verb} --server http://{server}");
        let run = |form: &[&str]| {
            world.cli("rollback hello v2").run().expect(0);
            world.node.cli(words.split(' ').chain(form.iter().copied())).run()
        };
        let [text, json] = [run(&[]), run(&["-o", "json"])];
        assert!(text.stderr.contains("`hello` changed in between"), "{text:?}");
        let of = |form: &[&str]| if form.is_empty() { text.clone() } else { json.clone() };
        world.ends(5, "it changed in between", "conflict", of);
    }
}

fn what_is_not_there(world: &mut World) {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for verb in
        ["list", "deploy hello.wasm", "logs hello -f", "whoami", "-C shop deploy --timeout 0"]
    {
        let words = format!("{verb} --server http://{nobody} --token x");
        world.row(6, "nobody answers", &words, "unreachable");
    }
    let plain = format!("list --server https://{} --token x", world.node.admin());
    world.row(6, "no TLS", &plain, "no_tls");
    let cut = Relay::to(world.node.admin(), |_| Fate::Cut).address();
    world.row(6, "it hangs up", &format!("list --server http://{cut}"), "unreachable");
    // Somebody who lets everybody in and never says a word. Both at once: this takes its time.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let words = format!("list --server http://{}", silent.local_addr().unwrap());
    let run =
        |form: &[&'static str]| world.node.cli(words.split(' ').chain(form.iter().copied())).run();
    let [text, json] = thread::scope(|scope| {
        let text = scope.spawn(|| run(&[]));
        let json = scope.spawn(|| run(&["-o", "json"]));
        [text.join().unwrap(), json.join().unwrap()]
    });
    let of = |form: &[&str]| if form.is_empty() { text.clone() } else { json.clone() };
    world.ends(6, "it says nothing", "timeout", of);
}

fn what_cannot_be_built(world: &mut World) {
    world.row(7, "the build fails", "-C failing deploy", "build_failed");
    world.row(7, "the build fails, without a deploy", "-C failing build", "build_failed");
    world.row(7, "the build makes nothing", "-C empty deploy", "build_failed");
    let bin = world.path("bin");
    let outputs: Vec<Output> = ["text", "json"]
        .map(|form| world.cli(&format!("-C tools build -o {form}")).env("PATH", &bin).run())
        .into();
    let of = |form: &[&str]| outputs[usize::from(!form.is_empty())].clone();
    world.ends(7, "a tool is missing", "tool_missing", of);
}

fn what_is_too_large(world: &mut World) {
    let outputs: Vec<Output> = ["text", "json"]
        .map(|form| {
            let put = world.cli(&format!("secret put BIG --app hello -o {form}"));
            put.stdin(vec![b'x'; 1 << 20]).run()
        })
        .into();
    let of = |form: &[&str]| outputs[usize::from(!form.is_empty())].clone();
    world.ends(8, "a secret of 1 MiB", "body_too_large", of);
    // Larger than any artifact may be, and nothing but a custom section.
    let mut huge = says("huge");
    let size = 65_u32 << 20;
    huge.push(0);
    huge.extend([7, 6, 5, 4].map(|shift| ((size >> (7 * (7 - shift))) & 0x7f) as u8 | 0x80));
    huge.push((size >> 28) as u8);
    huge.resize(huge.len() + size as usize, 0);
    fs::write(world.path("huge.wasm"), huge).unwrap();
    world.row(8, "an artifact that is too large", "deploy huge.wasm", "body_too_large");
}

fn what_is_interrupted(world: &mut World) {
    let admin = world.node.admin();
    let (began, begins) = std::sync::mpsc::channel();
    // It gets the artifact, and no word more.
    let relay = Relay::to(admin, move |piece| {
        if piece.starts_with(b"POST /v1/apps/hello/deploy") {
            began.send(()).unwrap();
            return Fate::Swallow;
        }
        Fate::Pass
    });
    let run = |form: &[&str]| {
        let words = format!("deploy hello.wasm --server http://{}", relay.address());
        let child = world.node.cli(words.split(' ').chain(form.iter().copied())).spawn();
        begins.recv_timeout(PATIENCE).unwrap();
        process::signal(child.id(), Signal::INT);
        let output = child.wait_with_output().unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    let [text, json] = [run(&[]), run(&["-o", "json"])];
    let of = |form: &[&str]| if form.is_empty() { text.clone() } else { json.clone() };
    world.ends(130, "ctrl-c in a deploy", "interrupted", of);
    let versions = world.cli("versions hello -o json").run().expect(0).json();
    assert_eq!(versions["data"]["versions"].as_array().unwrap().len(), 2, "nothing half done");
    let mut follow = Following::start(world.cli("logs http02 -f"));
    follow.next();
    process::signal(follow.id(), Signal::INT);
    assert_eq!(follow.ends(), 130);
}

/// Whoever read the output has seen enough: that is no failure.
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let node = Node::with_guests("");
    for _ in 0..3 {
        node.get("/http02/log?lines=200").expect(200);
    }
    let faas = faas_tests::faas_binary();
    for form in ["text", "json"] {
        let script = format!("{} logs http02 -o {form}; echo $? >&2", faas.display());
        let mut child = std::process::Command::new("sh")
            .args(["-c", &script])
            .env("FAAS_SERVER", format!("http://{}", node.admin()))
            .env("FAAS_DATA_DIR", node.data_dir())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "0\n", "{form}");
    }
}
