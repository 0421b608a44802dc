//! `faas` against a real node: exit codes, one document per command, and what people read.

use faas_tests::{
    Cli, Node, Output,
    artifacts::{self, Guest, says},
    eventually, process,
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::Child,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A node, and files to deploy in its user's home.
fn node() -> Node {
    let node = Node::start();
    for (file, wasm) in [
        ("hello.wasm", says("one")),
        ("second.wasm", says("two")),
        ("odd.wasm", artifacts::wat("unknown-imports")),
        ("nothing.wasm", artifacts::wat("no-export")),
        ("text.wasm", b"no wasm at all".to_vec()),
    ] {
        fs::write(node.home().join(file), wasm).unwrap();
    }
    node
}

fn run(node: &Node, words: &str) -> Output {
    node.cli(words.split(' ')).run()
}

/// The result of a verb, as scripts get it.
#[track_caller]
fn data(node: &Node, words: &str) -> Value {
    let output = run(node, &format!("{words} -o json")).expect(0);
    let document = output.json();
    let verb = words.split(' ').next().unwrap();
    assert_eq!(document["command"], verb, "{document}");
    assert_eq!(output.stderr, "", "{words}");
    document["data"].clone()
}

/// The failure of a verb: the same exit code either way, one document for scripts, words for
/// people.
#[track_caller]
fn fails(node: &Node, words: &str, exit: i32, code: &str) {
    let output = run(node, &format!("{words} -o json"));
    assert_eq!(output.code, exit, "{words}: {output:?}");
    let document = output.json();
    assert_eq!(document["error"]["code"], code, "{words}: {document}");
    assert!(!document["error"]["message"].as_str().unwrap().is_empty(), "{document}");
    assert_eq!(output.stderr, "", "{words}");
    let output = run(node, words).expect(exit);
    assert!(output.stderr.starts_with("error: "), "{words}: {output:?}");
    assert_eq!(output.stdout, "", "{words}");
}

#[test]
fn failures_of_every_verb() {
    let node = node();
    run(&node, "deploy hello.wasm").expect(0);
    for (words, exit, code) in [
        ("describe nobody", 4, "not_found"),
        ("versions nobody", 4, "not_found"),
        ("rollback nobody", 4, "not_found"),
        ("rollback hello", 4, "not_found"),
        ("rollback hello v9", 4, "not_found"),
        ("delete nobody -y", 4, "not_found"),
        ("delete hello", 2, "usage"),
        ("logs nobody", 4, "not_found"),
        ("logs nobody -f", 4, "not_found"),
        ("invoke nobody", 4, "not_found"),
        ("invoke Bad_Name", 2, "invalid_name"),
        ("invoke hello -d @nowhere", 2, "no_such_file"),
        ("describe Bad_Name", 2, "usage"),
        ("deploy nowhere.wasm", 2, "no_such_file"),
        ("deploy text.wasm", 8, "invalid_wasm"),
        ("deploy nothing.wasm", 8, "unknown_kind"),
        ("deploy odd.wasm", 8, "unknown_import"),
        ("deploy", 2, "no_project"),
        ("deploy hello.wasm --name admin", 2, "usage"),
        ("inspect nowhere.wasm", 2, "no_such_file"),
        ("inspect text.wasm", 8, "invalid_wasm"),
        ("list --token wrong", 3, "unauthorized"),
        ("deploy hello.wasm --token wrong", 3, "unauthorized"),
        ("logs hello -f --token wrong", 3, "unauthorized"),
        ("invoke hello --token wrong", 3, "unauthorized"),
        ("delete hello -y --token wrong", 3, "unauthorized"),
        ("nonsense", 2, "usage"),
        ("list --nonsense", 2, "usage"),
        ("new hello.wasm", 2, "invalid_name"),
        ("dev nowhere", 2, "no_project"),
    ] {
        fails(&node, words, exit, code);
    }
    assert_eq!(node.get("/hello/").expect(200).text().trim(), "one", "it is still there");
}

#[test]
fn nobody_answers() {
    let node = node();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for verb in ["list", "describe hello", "versions hello", "rollback hello", "delete hello -y"] {
        fails(&node, &format!("{verb} --server http://{nobody} --token x"), 6, "unreachable");
    }
    for verb in ["logs hello", "invoke hello", "deploy hello.wasm"] {
        fails(&node, &format!("{verb} --server http://{nobody} --token x"), 6, "unreachable");
    }
    // Somebody who is no `faas`.
    let address = format!("http://{}", node.ingress());
    let output = run(&node, &format!("list --server {address} --token x -o json"));
    assert!(matches!(output.code, 1 | 4 | 6), "{output:?}");
    assert_eq!(output.json()["ok"], false);
}

#[test]
fn a_day_with_an_app() {
    let node = node();
    let url = format!("http://{}/hello/", node.ingress());
    assert_eq!(run(&node, "deploy hello.wasm").expect(0).stdout, format!("{url}\n"));
    let second = run(&node, "deploy second.wasm --name hello --no-activate -m later").expect(0);
    assert_eq!(second.stdout, format!("http://{}/hello@v2/\n", node.ingress()));
    assert_eq!(run(&node, "invoke hello").expect(0).stdout.trim(), "one");
    let forward = data(&node, "rollback hello v2");
    assert_eq!(forward["previous"]["shares"][0]["version"], "v1");
    assert_eq!(run(&node, "invoke hello").expect(0).stdout.trim(), "two");
    let table = run(&node, "versions hello").expect(0).stdout;
    assert!(table.contains("v1") && table.contains("v2") && table.contains("later"), "{table}");
    assert!(run(&node, "list").expect(0).stdout.contains("hello"));
    assert!(run(&node, "describe hello").expect(0).stdout.contains(&url));
    run(&node, "rollback hello").expect(0);
    assert_eq!(run(&node, "invoke hello").expect(0).stdout.trim(), "one");
    // What is live already stays so.
    run(&node, "rollback hello v1").expect(0);
    assert_eq!(data(&node, "delete hello -y")["app"], "hello");
    assert_eq!(data(&node, "list")["apps"], serde_json::json!([]));
    // Without colours, and without a trace of progress on a pipe.
    let deployed = run(&node, "deploy hello.wasm").expect(0);
    assert_eq!(deployed.stderr, "");
    assert!(!deployed.stdout.contains('\u{1b}'));
}

#[test]
fn invoke_sends_what_it_is_told() {
    let node = Node::with_guests("");
    fs::write(node.home().join("body"), "from a file").unwrap();
    let text = |args: &[&str]| node.cli(args.iter().copied()).run().expect(0).stdout;
    for guest in Guest::ALL {
        let app = guest.app();
        let path = |path: &str| format!("{app}{path}");
        assert_eq!(text(&["invoke", &path("/echo"), "-d", "as it is"]), "as it is");
        assert_eq!(text(&["invoke", &path("/echo"), "-d", "@body"]), "from a file");
        let piped = node.cli(["invoke", &path("/echo"), "-d", "@-"]).stdin("piped").run();
        assert_eq!(piped.expect(0).stdout, "piped");
        let seen = text(&["invoke", &path("/headers?a=b"), "-X", "PUT", "-H", "x-one: 1"]);
        for line in ["method PUT", "path /headers", "query a=b", "x-one: 1"] {
            assert!(seen.contains(line), "{app}: no `{line}` in {seen}");
        }
        assert_eq!(text(&["invoke", &path("/slow?pieces=3&ms=1")]).len(), 30);
        // A failure of the function is one of the command, and its answer is shown all the same.
        let failed = node.cli(["invoke", &path("/trap"), "-o", "json"]).run();
        assert_eq!(failed.code, 1, "{failed:?}");
        let document = failed.json();
        assert_eq!(document["error"]["code"], "http_status", "{document}");
        let status = node.cli(["invoke", &path("/status?code=404")]).run().expect(1);
        assert_eq!(status.stdout, "status\n");
        assert!(status.stderr.contains("404"), "{}", status.stderr);
        // The hint leads to what happened.
        let failed = node.cli(["invoke", &path("/trap")]).run().expect(1);
        let hint = failed.stderr.lines().find_map(|line| line.split_once("hint: faas "));
        let (_, hint) = hint.unwrap_or_else(|| panic!("no hint in {}", failed.stderr));
        let log = node.cli(hint.split(' ')).run().expect(0).stdout;
        assert!(log.contains("guest_trap") && log.contains("/trap"), "{log}");
    }
}

/// A command that goes on, and its lines.
pub(crate) struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// What it has written to its standard error.
    errors: Arc<Mutex<String>>,
}

impl Following {
    pub(crate) fn start(cli: Cli) -> Self {
        let mut child = cli.spawn();
        let errors = Arc::new(Mutex::new(String::new()));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Whoever wanted the lines may be gone.
                let _ = sender.send(line);
            }
        });
        let kept = errors.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, lines, errors }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with these words.
    #[track_caller]
    fn says(&self, words: &[&str]) -> String {
        self.says_within(PATIENCE, words)
    }

    /// The same, for what takes longer.
    #[track_caller]
    pub(crate) fn says_within(&self, patience: Duration, words: &[&str]) -> String {
        let mut seen = Vec::new();
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let errors = self.errors.lock().unwrap();
                panic!("no line with {words:?} after {seen:?}\n{errors}");
            };
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            seen.push(line);
        }
    }

    /// The next line.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => panic!("no more lines\n{}", self.errors.lock().unwrap()),
        }
    }

    /// The next line, if it is there in a moment.
    pub(crate) fn next_now(&self) -> Option<String> {
        self.lines.recv_timeout(Duration::from_millis(100)).ok()
    }

    pub(crate) fn ends(&mut self) -> i32 {
        let status = eventually("its end", PATIENCE, || self.child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn logs_are_read_and_followed() {
    let node = Node::with_guests("");
    node.get("/cgi01/log?lines=2").expect(200);
    let log = node.cli(["logs", "cgi01"]).run().expect(0).stdout;
    for word in ["GET /log", "200", "error line 0", "error line 1", "v1"] {
        assert!(log.contains(word), "no `{word}` in {log}");
    }
    let lines = |words: &str| run(&node, &format!("{words} -o json")).expect(0).json_lines();
    let one = lines("logs cgi01 --limit 1");
    assert_eq!(one.len(), 1);
    assert_eq!(one[0]["source"], "request");
    assert_eq!(lines("logs cgi01 --since 1d").len(), 3);
    assert_eq!(lines("logs http03").len(), 0);

    let mut text = Following::start(node.cli(["logs", "cgi01", "-f"]));
    let mut json = Following::start(node.cli(["logs", "cgi01", "-f", "-o", "json"]));
    // What was there, and then what comes.
    text.says(&["error line 1"]);
    json.says(&["error line 1"]);
    for number in 0..3 {
        let path = format!("/cgi01/status?code=20{number}");
        let answer = node.get(&path);
        let id = answer.header("x-request-id").unwrap();
        let line: Value = serde_json::from_str(&json.says(&[id])).unwrap();
        assert_eq!(line["source"], "request");
        assert_eq!(line["status"], 200 + number);
        assert_eq!(line["request_id"], id);
        text.says(&["/status", &format!("20{number}")]);
    }
    // Other apps are not heard; versions that come later are.
    node.get("/http03/hello").expect(200);
    node.deploy("cgi01", &says("later"));
    node.get("/cgi01/last").expect(200);
    let line: Value = serde_json::from_str(&json.says(&["/last"])).unwrap();
    assert_eq!((&line["app"], &line["version"]), (&"cgi01".into(), &"v2".into()));
    text.says(&["v2", "/last"]);
    process::signal(text.child.id(), Signal::INT);
    assert_eq!(text.ends(), 130);
    // Who follows a deleted app has nothing more to hear.
    node.api(faas_tests::Request::new("DELETE", "/v1/apps/cgi01")).expect(204);
    let code = json.ends();
    assert!(matches!(code, 0 | 4), "{code}");
}

/// A log with a word that would move a terminal's cursor or forge a line.
#[test]
fn logs_are_clean() {
    let node = Node::with_guests("");
    node.get("/http03/hello?%1b[2J").expect(200);
    node.get("/http03/%1b%5b2J%0aforged").expect(200);
    let log = node.cli(["logs", "http03"]).run().expect(0).stdout;
    assert!(!log.contains('\u{1b}'), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log:?}");
}

#[test]
fn inspect_says_what_a_file_is() {
    let node = node();
    for guest in Guest::ALL {
        let file = guest.file().display().to_string();
        let found = data(&node, &format!("inspect {file}"));
        assert_eq!(found["kind"], guest.kind(), "{found}");
        assert_eq!(found["size"], guest.wasm().len());
        let text = run(&node, &format!("inspect {file}")).expect(0).stdout;
        let kind = match guest {
            Guest::Http03 => "wasi:http/handler@0.3",
            Guest::Http02 => "wasi:http/incoming-handler@0.2",
            Guest::Cgi01 | Guest::Cgi02 => "CGI",
        };
        assert!(text.contains(kind), "{text}");
        let word = if guest == Guest::Cgi01 { "wasi_snapshot_preview1" } else { "wasi:" };
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn completions_for_every_shell() {
    let node = Node::unstarted("");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = Cli::new(node.home(), ["completions", shell]).run().expect(0);
        assert!(script.stdout.contains("rollback"), "{shell}");
        assert_eq!(script.stderr, "");
    }
}

/// Which of several says where the server is and who asks.
#[test]
fn flags_before_variables() {
    let node = node();
    let nobody = "http://127.0.0.1:1";
    let cli = |args: &[&str]| Cli::new(node.home(), args);
    let admin = format!("http://{}", node.admin());
    let token = node.token();
    // A variable, and a flag that wins over it.
    let list = cli(&["list"]).env("FAAS_SERVER", &admin).env("FAAS_TOKEN", &token);
    list.run().expect(0);
    let flag = cli(&["list", "--server", &admin]).env("FAAS_SERVER", nobody);
    flag.env("FAAS_TOKEN", &token).run().expect(0);
    let flag = cli(&["list", "--token", &token]).env("FAAS_SERVER", &admin);
    flag.env("FAAS_TOKEN", "wrong").run().expect(0);
    // The form of results, too.
    let json = node.cli(["list"]).env("FAAS_OUTPUT", "json").run().expect(0);
    assert_eq!(json.json()["command"], "list");
    // A token that cannot be found is a matter of authorisation.
    let lost = cli(&["list"]).env("FAAS_SERVER", &admin).run();
    assert_eq!(lost.code, 3, "{lost:?}");
    assert!(lost.stderr.contains("token"), "{lost:?}");
}
