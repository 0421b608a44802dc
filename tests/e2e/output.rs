//! `-o json`: every verb, in success and in failure, prints what `docs/output.schema.json` says, and
//! ends with the code that `docs/cli.md` says.

use crate::cli::Following;
use faas_tests::{
    Cli, Connection, Node, Output, Request,
    artifacts::{self, says},
    process,
};
use jsonschema::Validator;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// A file of `docs/`.
fn document(name: &str) -> String {
    fs::read_to_string(artifacts::repository().join("docs").join(name)).unwrap()
}

/// The rows of the table in `docs/cli.md` that begins with this header.
fn table(header: &str) -> Vec<Vec<String>> {
    let page = document("cli.md");
    let (_, table) = page.split_once(header).unwrap_or_else(|| panic!("no table {header}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// The exit codes that `docs/cli.md` names.
pub(crate) fn exit_codes() -> BTreeSet<i32> {
    table("| code | meaning |").iter().map(|row| row[0].parse().unwrap()).collect()
}

/// What the documents promise about output.
pub(crate) struct Promise {
    schema: Value,
    validators: BTreeMap<String, Validator>,
    /// The exit code of each code of the command's own.
    own: BTreeMap<String, i32>,
    /// The codes of servers.
    servers: BTreeSet<String>,
}

impl Promise {
    pub(crate) fn read() -> Self {
        let schema: Value = serde_json::from_str(&document("output.schema.json")).unwrap();
        let words = |cell: &str| -> Vec<String> {
            cell.split(", ").map(|word| word.trim_matches('`').to_owned()).collect()
        };
        let rows = table("| code | exit | when |");
        let own = rows
            .iter()
            .flat_map(|row| words(&row[0]).into_iter().map(|word| (word, row[1].parse().unwrap())));
        let errors = document("errors.md");
        let servers = errors.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        Self {
            own: own.collect(),
            servers: servers.map(|(code, _)| code.to_owned()).collect(),
            schema,
            validators: BTreeMap::new(),
        }
    }

    /// Checks a document, or a line, against the part of the schema that is for it, and against the
    /// whole.
    #[track_caller]
    pub(crate) fn check(&mut self, part: &str, value: &Value) {
        for part in [part, ""] {
            let schema = &self.schema;
            let validator = self.validators.entry(part.to_owned()).or_insert_with(|| {
                let mut schema = schema.clone();
                if !part.is_empty() {
                    assert!(schema["$defs"][part].is_object(), "the schema has no `{part}`");
                    schema.as_object_mut().unwrap().remove("oneOf");
                    schema["$ref"] = json!(format!("#/$defs/{part}"));
                }
                jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
            });
            let problems: Vec<String> = validator
                .iter_errors(value)
                .map(|error| format!("{} at `{}`", error, error.instance_path()))
                .collect();
            assert!(problems.is_empty(), "{part}: {value:#}\n{}", problems.join("\n"));
        }
    }

    /// The exit code of a failure, as `docs/cli.md` has it.
    #[track_caller]
    pub(crate) fn exit_of(&self, verb: &str, error: &Value) -> i32 {
        let code = error["code"].as_str().unwrap();
        let Some(status) = error["status"].as_u64() else {
            let exit = self.own.get(code);
            return *exit.unwrap_or_else(|| panic!("docs/cli.md has no `{code}`"));
        };
        assert!(self.servers.contains(code), "docs/errors.md has no `{code}`");
        match (status, code) {
            (401 | 403, _) => 3,
            (404, _) => 4,
            (409 | 412, _) => 5,
            (413, _) => 8,
            (422, "manifest" | "limit_above_maximum") => 2,
            (
                422,
                "invalid_wasm" | "precompiled" | "unknown_kind" | "unknown_import"
                | "compile_failed",
            ) => 8,
            (400, _) if verb == "logs" => 2,
            _ => 1,
        }
    }

    /// Checks all that a run with `-o json` has left behind; its document.
    #[track_caller]
    pub(crate) fn document(&mut self, verb: &str, output: &Output) -> Value {
        let document = output.json();
        assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
        assert!(output.stdout.ends_with('\n'), "{output:?}");
        self.apart(output);
        assert_eq!(document["command"], verb, "{document}");
        self.check(&verb.replace(' ', "-"), &document);
        let exit = match document["ok"] == true {
            true => 0,
            false => self.exit_of(verb, &document["error"]),
        };
        assert_eq!(output.code, exit, "{verb}: {document}");
        document
    }

    /// Nothing for scripts is among what is for people.
    #[track_caller]
    fn apart(&self, output: &Output) {
        assert!(!output.stderr.contains("\"ok\":"), "{output:?}");
        assert!(!output.stderr.contains("error: "), "{output:?}");
    }
}

/// A node, files to deploy, and which verbs were tried.
struct World {
    node: Node,
    promise: Promise,
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
}

const SHOP: &str = "[app]\nname = \"shop\"\n\n[build]\ncommand = \"cp next.wasm app.wasm\"\n\
    watch = [\"next.wasm\", \"notes\"]\n\n[functions.main]\nsource = \"app.wasm\"\n";

impl World {
    fn new() -> Self {
        let node = Node::with_guests("");
        let file = |name: &str, content: &[u8]| {
            let path = node.home().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        file("hello.wasm", &says("one"));
        file("second.wasm", &says("two"));
        file("odd.wasm", &artifacts::wat("unknown-imports"));
        file("nothing.wasm", &artifacts::wat("no-export"));
        file("text.wasm", b"no wasm at all");
        file("binary", &[0, 0xff, 0xfe]);
        file("vars.env", b"B=2\nC=3\n");
        file("shop/faas.toml", SHOP.as_bytes());
        file("shop/next.wasm", &says("shop"));
        file("shop/notes", b"some");
        file("failing/faas.toml", SHOP.replace("cp next.wasm app.wasm", "exit 3").as_bytes());
        file("wrong/faas.toml", SHOP.replace("source", "sorce").as_bytes());
        file("wrong.toml", b"nonsense = true\n");
        let (succeeded, failed) = Default::default();
        Self { node, promise: Promise::read(), succeeded, failed }
    }

    fn cli(&self, words: &str) -> Cli {
        self.node.cli(words.split(' ').chain(["-o", "json"]))
    }

    /// A verb that works: the data of its document.
    #[track_caller]
    fn ok(&mut self, verb: &str, arguments: &str) -> Value {
        self.ok_with(verb, arguments, "")
    }

    #[track_caller]
    fn ok_with(&mut self, verb: &str, arguments: &str, stdin: &str) -> Value {
        let output = self.cli(format!("{verb} {arguments}").trim()).stdin(stdin).run();
        let document = self.promise.document(verb, &output);
        assert_eq!(document["ok"], true, "{verb} {arguments}: {document}");
        self.succeeded.insert(verb.to_owned());
        document["data"].clone()
    }

    /// A verb that fails with this code.
    #[track_caller]
    fn fails(&mut self, verb: &str, arguments: &str, code: &str) -> Value {
        let output = self.cli(format!("{verb} {arguments}").trim()).run();
        self.failure(verb, &output, code)
    }

    #[track_caller]
    fn failure(&mut self, verb: &str, output: &Output, code: &str) -> Value {
        let document = self.promise.document(verb, output);
        assert_eq!(document["error"]["code"], code, "{verb}: {document}");
        self.failed.insert(verb.to_owned());
        document
    }

    /// A verb that prints lines of this kind: what they say.
    #[track_caller]
    fn lines(&mut self, verb: &str, arguments: &str, part: &str) -> Vec<Value> {
        let output = self.cli(&format!("{verb} {arguments}")).run().expect(0);
        self.promise.apart(&output);
        let lines = output.json_lines();
        lines.iter().for_each(|line| self.promise.check(part, line));
        self.succeeded.insert(verb.to_owned());
        lines
    }
}

#[test]
fn every_verb_prints_what_the_schema_says() {
    let mut world = World::new();
    projects(&mut world);
    deploys(&mut world);
    apps(&mut world);
    configuration(&mut world);
    keys_and_tokens(&mut world);
    observation(&mut world);
    development(&mut world);
    backups(&mut world);
    servers(&mut world);
    logins(&mut world);
    assert_eq!(world.ok("delete", "hello -y")["app"], "hello");
    world.fails("delete", "hello", "usage");
    world.fails("delete", "hello -y", "not_found");

    let (verbs, groups) = all_verbs(world.node.home());
    assert_eq!(world.succeeded, verbs, "verbs that were tried, and verbs there are");
    let all = verbs.union(&groups).cloned().collect();
    assert_eq!(world.failed, all, "verbs that failed, and verbs there are");
}

/// Every verb that `--help` names, and those that only have sub-verbs; `faas` itself is one.
fn all_verbs(home: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut verbs = BTreeSet::new();
    let mut groups = BTreeSet::new();
    let mut left = vec![String::new()];
    while let Some(words) = left.pop() {
        let help = Cli::new(home, words.split_whitespace().chain(["--help"])).run().expect(0);
        let name = if words.is_empty() { "faas".to_owned() } else { words.clone() };
        let Some((_, inner)) = help.stdout.split_once("\nCommands:\n") else {
            verbs.insert(name);
            continue;
        };
        groups.insert(name);
        let inner = inner.lines().take_while(|line| !line.is_empty());
        // What goes on in the next line stands further to the right.
        let inner = inner.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        left.extend(inner.map(|line| {
            let verb = line.split_whitespace().next().unwrap();
            format!("{words} {verb}").trim().to_owned()
        }));
    }
    (verbs, groups)
}

fn projects(world: &mut World) {
    assert_eq!(world.ok("new", "fresh")["app"], "fresh");
    world.ok("new", "fresh-js --lang js");
    world.fails("new", "fresh", "conflict");
    world.fails("new", "Fresh", "invalid_name");
    assert_eq!(world.ok("check", "shop")["not_built"], json!(["shop/app.wasm"]));
    world.ok("check", "--schema");
    world.fails("check", "wrong", "manifest");
    world.fails("check", "", "no_project");
    let built = world.ok("build", "-C shop");
    assert_eq!(built["functions"][0]["source"], "app.wasm");
    world.fails("build", "-C failing", "build_failed");
    world.fails("build", "-C shop -e nowhere", "no_environment");
    world.ok("inspect", "hello.wasm");
    let nothing = world.fails("inspect", "nothing.wasm", "unknown_kind");
    assert_eq!(nothing["data"]["kind"], Value::Null, "what is known of it is told anyway");
    world.fails("inspect", "text.wasm", "invalid_wasm");
    world.ok("completions", "bash");
    world.fails("completions", "tcsh", "usage");
    world.fails("faas", "--nonsense", "usage");
    for verb in ["env", "secret", "key", "token", "context"] {
        world.fails(verb, "", "usage");
    }
}

fn deploys(world: &mut World) {
    assert_eq!(world.ok("diff", "-C shop")["against"], Value::Null);
    let dry = world.ok("deploy", "-C shop --dry-run");
    assert_eq!((&dry["dry_run"], dry["missing"].as_array().unwrap().len()), (&json!(true), 1));
    world.ok("deploy", "-C shop");
    assert_eq!(world.ok("diff", "-C shop")["changes"], json!([]));
    world.fails("diff", "", "no_project");
    world.ok("deploy", "hello.wasm");
    world.ok("deploy", "second.wasm --name hello -m later --no-activate");
    world.fails("deploy", "hello.wasm --reuse 100", "unprocessable");
    let canary = world.ok("deploy", "second.wasm --name hello --canary 5% --sticky cookie");
    assert_eq!(canary["traffic"]["sticky"]["by"], "cookie");
    let odd = world.fails("deploy", "odd.wasm", "unknown_import");
    assert_eq!(odd["error"]["imports"].as_array().unwrap().len(), 2);
    world.fails("deploy", "nowhere.wasm", "no_such_file");
    world.fails("deploy", "-C wrong", "manifest");
    world.fails("deploy", "hello.wasm --token wrong", "unauthorized");
    world.fails("deploy", "hello.wasm --canary 500%", "usage");
}

fn apps(world: &mut World) {
    assert_eq!(world.ok("list", "")["apps"].as_array().unwrap().len(), 6);
    world.fails("list", "--token wrong", "unauthorized");
    assert_eq!(world.ok("describe", "hello")["traffic"]["canary"]["version"], "v3");
    world.fails("describe", "nobody", "not_found");
    world.ok("versions", "hello");
    world.fails("versions", "nobody", "not_found");
    assert_eq!(world.ok("rollback", "hello v1")["traffic"]["shares"][0]["version"], "v1");
    world.ok("rollback", "hello v1");
    world.fails("rollback", "hello v99", "not_found");
    world.fails("rollback", "nobody", "not_found");
    world.ok("promote", "hello v2 --percent 10 --abort-above 5%");
    world.ok("promote", "hello v2");
    world.fails("promote", "hello v99", "not_found");
    world.fails("promote", "hello second", "usage");
    assert_eq!(world.ok("pin", "hello v1")["pinned"], true);
    assert_eq!(world.ok("unpin", "hello v1")["pinned"], false);
    world.fails("pin", "hello v99", "not_found");
    world.fails("unpin", "nobody v1", "not_found");
    assert_eq!(world.ok("invoke", "hello")["status"], 200);
    let binary = world.ok("invoke", "http02/echo -d @binary");
    assert_eq!(binary["body_base64"], "AP/+");
    let trap = world.fails("invoke", "http02/trap", "http_status");
    assert_eq!(trap["data"]["status"], 500, "the answer is there anyway");
    world.fails("invoke", "nobody", "not_found");
    world.fails("invoke", "hello -H nonsense", "usage");
}

fn configuration(world: &mut World) {
    world.ok("env set", "A=1 --app hello");
    assert_eq!(world.ok("env import", "vars.env --app hello")["env"]["B"], "2");
    world.ok("env unset", "A --app hello");
    assert_eq!(world.ok("env list", "--app hello")["env"], json!({ "B": "2", "C": "3" }));
    world.fails("env list", "--app nobody", "not_found");
    world.fails("env list", "", "no_project");
    world.fails("env set", "nonsense --app hello", "usage");
    world.fails("env unset", "A --app hello --token wrong", "unauthorized");
    world.fails("env import", "nowhere.env --app hello", "no_such_file");

    world.ok_with("secret put", "KEY --app hello", "sesame");
    world.ok("secret import", "vars.env --app shop");
    world.ok("secret import", "vars.env --app http02");
    assert_eq!(world.ok("secret list", "--app hello")["secrets"][0]["name"], "KEY");
    world.ok("secret rm", "B C --app http02");
    world.fails("secret put", "KEY --app hello", "usage");
    world.fails("secret list", "--app nobody", "not_found");
    world.fails("secret import", "text.wasm --app hello", "usage");
    world.fails("secret rm", "NONE --app hello", "not_found");
    let wants = SHOP.to_owned() + "secrets = [\"B\"]\n";
    fs::write(world.node.home().join("shop/faas.toml"), wants).unwrap();
    world.ok("deploy", "-C shop");
    world.fails("secret rm", "B --app shop", "secret_in_use");
}

fn keys_and_tokens(world: &mut World) {
    let made = world.ok("key create", "ci --app hello --function main --expires 90d");
    let id = made["key"]["id"].as_str().unwrap().to_owned();
    world.ok("key create", "other --app hello");
    assert_eq!(world.ok("key list", "--app hello")["keys"].as_array().unwrap().len(), 2);
    world.fails("key create", "ci --app hello", "conflict");
    world.fails("key list", "--app nobody", "not_found");
    world.ok("key revoke", &format!("{id} --app hello"));
    world.fails("key revoke", "ci --app hello", "not_found");

    world.ok("token create", "");
    let made = world.ok("token create", "--name ci --app hello --can read,deploy --expires 90d");
    let id = made["token"]["id"].as_str().unwrap().to_owned();
    let secret = made["secret"].as_str().unwrap().to_owned();
    world.ok("whoami", &format!("--token {secret}"));
    world.ok("whoami", "");
    world.fails("token list", &format!("--token {secret}"), "missing_scope");
    world.fails("token create", "--can nonsense", "usage");
    world.ok("token revoke", &id);
    assert_eq!(world.ok("token list", "--all")["tokens"].as_array().unwrap().len(), 2);
    world.fails("token revoke", "0000000000", "not_found");
    world.fails("whoami", &format!("--token {secret}"), "unauthorized");
}

fn observation(world: &mut World) {
    let lines = world.lines("logs", "http02", "log-line");
    let sources: BTreeSet<&str> = lines.iter().filter_map(|line| line["source"].as_str()).collect();
    assert!(sources.contains("request") && sources.contains("failure"), "{sources:?}");
    world.lines("logs", "--all --limit 3", "log-line");
    world.fails("logs", "nobody", "not_found");
    world.fails("logs", "nobody -f", "not_found");
    world.fails("logs", "hello --since never", "usage");
    world.fails("logs", "hello --grep (", "bad_request");
    let follow = Following::start(world.cli("logs http02 -f --limit 0"));
    // The first request may come before anybody follows.
    let line = loop {
        world.node.get("/http02/hello").expect(200);
        if let Some(line) = follow.next_now() {
            break line;
        }
    };
    world.promise.check("log-line", &serde_json::from_str(&line).unwrap());

    world.ok("usage", "");
    world.ok("usage", "http02 --by hour --group version");
    world.fails("usage", "--since never", "usage");
    world.fails("usage", "--csv", "usage");
    let audit = world.ok("audit", "");
    assert!(audit["entries"].as_array().unwrap().len() > 10);
    world.fails("audit", "--since never", "usage");
}

/// `faas dev` prints what happens, and a document only when it fails.
fn development(world: &mut World) {
    let any = "--listen 127.0.0.1:0";
    world.fails("dev", &format!("shop --once {any}"), "missing_secret");
    world.fails("dev", "nowhere", "no_project");
    world.fails("dev", &format!("failing --once {any}"), "build_failed");
    world.fails("dev", &format!("shop --listen {}", world.node.ingress()), "listen");
    let shop = world.node.home().join("shop");
    fs::write(shop.join(".env"), "B=2\n").unwrap();
    let once = world.lines("dev", &format!("shop --once {any}"), "dev-event");
    assert_eq!(once.last().unwrap()["event"], "deployed", "{once:?}");

    let mut dev = Following::start(world.cli(&format!("dev shop {any}")));
    let url = event(world, &dev, "deployed")["url"].as_str().unwrap().to_owned();
    let (address, _) = url.trim_start_matches("http://").split_once('/').unwrap();
    Connection::open(address.parse().unwrap()).ask(&Request::get("/shop/")).expect(200);
    assert_eq!(event(world, &dev, "log")["source"], "request");
    fs::write(shop.join("next.wasm"), says("other")).unwrap();
    event(world, &dev, "changed");
    assert_eq!(event(world, &dev, "deployed")["version"], "v3");
    // What changed makes no difference to the artifact.
    fs::write(shop.join("notes"), "more").unwrap();
    event(world, &dev, "unchanged");
    fs::write(shop.join("faas.toml"), SHOP.replace("source", "sorce")).unwrap();
    assert_eq!(event(world, &dev, "failed")["error"]["code"], "manifest");
    process::signal(dev.id(), Signal::TERM);
    assert_eq!(dev.ends(), 0);
}

/// The next event of this name; all others until then are what they should be, too.
#[track_caller]
fn event(world: &mut World, dev: &Following, name: &str) -> Value {
    loop {
        let event: Value = serde_json::from_str(&dev.next()).unwrap();
        world.promise.check("dev-event", &event);
        if event["event"] == name {
            return event;
        }
    }
}

fn backups(world: &mut World) {
    world.ok("backup", "node.tar");
    world.fails("backup", "node.tar", "in_the_way");
    world.fails("backup", "-", "usage");
    world.ok("restore", "node.tar --data-dir restored");
    world.fails("restore", "node.tar --data-dir restored", "in_the_way");
    world.fails("restore", "hello.wasm --data-dir other", "not_a_backup");
    let whole = fs::read(world.node.home().join("node.tar")).unwrap();
    fs::write(world.node.home().join("half.tar"), &whole[..whole.len() / 2]).unwrap();
    world.fails("restore", "half.tar --data-dir other", "damaged");
}

fn servers(world: &mut World) {
    world.fails("serve", "--config wrong.toml", "config");
    let taken = world.node.data_dir().display().to_string();
    let any = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
    world.fails("serve", &format!("{any} --data-dir {taken}"), "in_use");
    let serve = world.cli(&format!("serve {any} --data-dir second"));
    let mut serve = Following::start(serve);
    let document: Value = serde_json::from_str(&serve.next()).unwrap();
    world.promise.check("serve", &document);
    assert_eq!(document["ok"], true, "{document}");
    process::signal(serve.id(), Signal::TERM);
    assert_eq!(serve.ends(), 0);
    assert_eq!(serve.next_now(), None, "one document");
    world.succeeded.insert("serve".to_owned());
}

fn logins(world: &mut World) {
    let server = format!("http://{}", world.node.admin());
    let token = world.node.token();
    world.ok_with("login", &format!("{server} --name here --token-stdin"), &token);
    world.ok_with("login", &format!("{server} --name there --token-stdin"), &token);
    world.fails("login", &format!("{server} --token wrong"), "unauthorized");
    world.fails("login", &server, "usage");
    assert_eq!(world.ok("context list", "")["contexts"].as_array().unwrap().len(), 2);
    world.ok("context use", "here");
    world.fails("context use", "nowhere", "usage");
    world.ok("list", "--context there");
    world.fails("list", "--context nowhere", "usage");
    world.ok("logout", "there");
    let stored = world.node.home().join(".config/faas/tokens.toml");
    let readable = |mode| fs::set_permissions(&stored, Permissions::from_mode(mode)).unwrap();
    readable(0o644);
    world.fails("context list", "", "user_config");
    readable(0o600);
    world.ok("logout", "");
    world.fails("logout", "there", "usage");
}
