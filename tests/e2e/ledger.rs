//! `kill -9` while clients write everything that can be written: what was acknowledged reads back,
//! what was not is there whole or not at all.
//!
//! Twelve kills; two hundred with `FAAS_TEST_FULL=1`.

use faas_api::Digest;
use faas_tests::{
    Answer, Connection, Node, Request,
    artifacts::{Guest, says},
    figure, full,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    thread,
    time::Duration,
};

/// How many versions of an app are kept.
const KEPT: usize = 10;
/// What functions answer that are deployed again and again.
const TEXTS: [&str; 4] = ["one", "two", "three", "four"];

/// Everything that one client writes, as it reads back.
type State = BTreeMap<String, String>;

/// A write, and what it changes in the client's state.
struct Write {
    request: Request,
    change: Vec<(String, Option<String>)>,
}

/// A client, which writes one kind of thing, one write after the other.
struct Client {
    what: What,
    /// What was acknowledged.
    state: State,
    /// What was sent and not answered.
    pending: Vec<(String, Option<String>)>,
    /// What answers said that cannot be read again: ids and secrets, by name.
    learned: BTreeMap<String, Value>,
    random: u64,
    /// How many writes were acknowledged,
    acknowledged: usize,
    /// and how many were there without having been.
    unanswered: usize,
    /// The requests that were acknowledged since the last start.
    requests: BTreeSet<String>,
}

/// What a client writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Deploys,
    Domains,
    Traffic,
    Pins,
    Variables,
    Secrets,
    Keys,
    Tokens,
    Apps,
}

impl What {
    const ALL: [Self; 9] = [
        Self::Deploys,
        Self::Domains,
        Self::Traffic,
        Self::Pins,
        Self::Variables,
        Self::Secrets,
        Self::Keys,
        Self::Tokens,
        Self::Apps,
    ];

    /// Its state on a node.
    fn read(self, node: &Node) -> State {
        match self {
            Self::Deploys => versions(node, "deploys", digest_of),
            Self::Domains => versions(node, "domains", |version| version["domains"].to_string()),
            Self::Traffic => {
                let app = get(node, "/v1/apps/traffic");
                State::from([("traffic".to_owned(), app["traffic"].to_string())])
            }
            Self::Pins => {
                let mut state = versions(node, "pins", |version| version["pinned"].to_string());
                state.remove("live");
                state
            }
            Self::Variables => seen(node, "/variables/variables", "V_"),
            Self::Secrets => {
                let mut state = seen(node, "/secrets/variables", "S_");
                let list = get(node, "/v1/apps/secrets/secrets");
                let free = list["secrets"].as_array().unwrap().iter();
                let free = free.filter_map(|secret| secret["name"].as_str());
                state.extend(free.filter(|name| name.starts_with("FREE")).map(there));
                state
            }
            Self::Keys => {
                let list = get(node, "/v1/apps/keys/keys");
                list["keys"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|key| there(text(&key["name"])))
                    .collect()
            }
            Self::Tokens => {
                let list = get(node, "/v1/tokens");
                let tokens = list["tokens"].as_array().unwrap().iter();
                let state = |token: &Value| match token["revoked_at"].is_null() {
                    true => "good".to_owned(),
                    false => "revoked".to_owned(),
                };
                tokens.map(|token| (text(&token["name"]).to_owned(), state(token))).collect()
            }
            Self::Apps => {
                let list = get(node, "/v1/apps");
                let apps = list["apps"].as_array().unwrap().iter().map(|app| text(&app["name"]));
                apps.filter(|name| name.starts_with("temp")).map(there).collect()
            }
        }
    }
}

fn there(name: &str) -> (String, String) {
    (name.to_owned(), "there".to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn get(node: &Node, path: &str) -> Value {
    node.api(Request::get(path)).expect(200).json()
}

fn digest_of(version: &Value) -> String {
    text(&version["functions"][0]["digest"]).to_owned()
}

/// The versions of an app with something of each, and which one is live.
fn versions(node: &Node, app: &str, of: impl Fn(&Value) -> String) -> State {
    let list = get(node, &format!("/v1/apps/{app}/versions"));
    let mut state = State::new();
    for version in list["versions"].as_array().unwrap() {
        let name = text(&version["version"]).to_owned();
        if version["live_percent"] == 100 {
            state.insert("live".to_owned(), name.clone());
        }
        state.insert(name, of(version));
    }
    state
}

/// What a function sees of its variables and secrets.
fn seen(node: &Node, path: &str, prefix: &str) -> State {
    let text = node.get(path).expect(200).text();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let own = pairs.filter(|(name, _)| name.starts_with(prefix));
    own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn send_json(method: &str, path: &str, body: &Value) -> Request {
    Request::new(method, path).header("content-type", "application/json").body(body.to_string())
}

fn send_text(path: &str, value: &str) -> Request {
    Request::new("PUT", path).header("content-type", "text/plain").body(value)
}

fn domains_version(domain: &str) -> Value {
    let function = json!({"name": "main", "digest": Digest::of(&says("domains")).to_string()});
    json!({"manifest": {"functions": [function], "domains": [domain]}})
}

impl Client {
    fn new(what: What, node: &Node) -> Self {
        Self {
            what,
            state: what.read(node),
            pending: Vec::new(),
            learned: BTreeMap::new(),
            random: 0x9e37_79b9_7f4a_7c15 ^ ((what as u64 + 1) << 32),
            acknowledged: 0,
            unanswered: 0,
            requests: BTreeSet::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// A value that nobody wrote before, sometimes a long one: it takes several pages of a log.
    fn value(&mut self) -> String {
        let length = if self.draw(8) == 0 { 4000 } else { 20 };
        let number = self.draw(u64::MAX);
        format!("{number:x<length$}")
    }

    /// The number of the newest version.
    fn newest(&self) -> usize {
        let number = |name: &String| name.strip_prefix('v')?.parse().ok();
        self.state.keys().filter_map(number).max().unwrap_or(0)
    }

    /// What a deploy that goes live changes.
    fn new_version(&self, is: &str) -> Vec<(String, Option<String>)> {
        let newest = self.newest();
        let mut change = vec![
            (format!("v{}", newest + 1), Some(is.to_owned())),
            ("live".to_owned(), Some(format!("v{}", newest + 1))),
        ];
        if let Some(oldest) = (newest + 1).checked_sub(KEPT).filter(|oldest| *oldest > 0) {
            change.push((format!("v{oldest}"), None));
        }
        change
    }

    fn next(&mut self) -> Write {
        let what = self.what;
        match what {
            What::Deploys => {
                let wasm = says(TEXTS[self.draw(4) as usize]);
                let change = self.new_version(&Digest::of(&wasm).to_string());
                Write { request: Node::deploy_request("deploys", &wasm), change }
            }
            What::Domains => {
                let domain = format!("d{}.example.com", self.draw(16));
                let change = self.new_version(&json!([domain]).to_string());
                let path = "/v1/apps/domains/versions";
                Write { request: send_json("POST", path, &domains_version(&domain)), change }
            }
            What::Traffic => self.next_traffic(),
            What::Pins => {
                let version = format!("v{}", 1 + self.draw(3));
                let (method, pinned) = [("PUT", true), ("DELETE", false)][self.draw(2) as usize];
                let path = format!("/v1/apps/pins/versions/{version}/pin");
                let change = vec![(version, Some(pinned.to_string()))];
                Write { request: Request::new(method, &path), change }
            }
            What::Variables => self.next_value("/v1/apps/variables/env", "V_", true),
            What::Secrets if self.draw(3) == 0 => {
                let name = format!("FREE_{}", self.draw(5));
                let path = format!("/v1/apps/secrets/secrets/{name}");
                match self.state.contains_key(&name) {
                    true => {
                        Write { request: Request::new("DELETE", &path), change: vec![(name, None)] }
                    }
                    false => Write {
                        request: send_text(&path, "free"),
                        change: vec![(name, Some("there".to_owned()))],
                    },
                }
            }
            What::Secrets => self.next_value("/v1/apps/secrets/secrets", "S_", false),
            What::Keys => self.next_named("/v1/apps/keys/keys", &json!({}), None),
            What::Tokens => {
                let scope = json!({"scope": {"can": ["read"]}});
                self.next_named("/v1/tokens", &scope, Some("revoked"))
            }
            What::Apps => {
                let app = format!("temp-{}", self.draw(4));
                match self.state.contains_key(&app) {
                    true => Write {
                        request: Request::new("DELETE", &format!("/v1/apps/{app}")),
                        change: vec![(app, None)],
                    },
                    false => Write {
                        request: Node::deploy_request(&app, &says("one")),
                        change: vec![(app, Some("there".to_owned()))],
                    },
                }
            }
        }
    }

    fn next_traffic(&mut self) -> Write {
        if self.draw(2) == 0 {
            let version = format!("v{}", 1 + self.draw(3));
            let traffic = json!({"shares": [{"version": version, "percent": 100}]});
            return Write {
                request: Request::new(
                    "POST",
                    &format!("/v1/apps/traffic/versions/{version}/activate"),
                ),
                change: vec![("traffic".to_owned(), Some(traffic.to_string()))],
            };
        }
        let percent = 1 + self.draw(49);
        let mut traffic = json!({"shares": [
            {"version": "v1", "percent": 100 - percent}, {"version": "v3", "percent": percent},
        ]});
        if self.draw(2) == 0 {
            traffic["canary"] = json!({"version": "v3", "abort_above_percent": 50});
        }
        Write {
            request: send_json("PUT", "/v1/apps/traffic/traffic", &traffic),
            change: vec![("traffic".to_owned(), Some(traffic.to_string()))],
        }
    }

    /// A value under one of a few names, or the removal of one.
    fn next_value(&mut self, path: &str, prefix: &str, removes: bool) -> Write {
        let name = format!("{prefix}{}", self.draw(4));
        let path = format!("{path}/{name}");
        if removes && self.state.contains_key(&name) && self.draw(3) == 0 {
            return Write { request: Request::new("DELETE", &path), change: vec![(name, None)] };
        }
        let value = self.value();
        Write { request: send_text(&path, &value), change: vec![(name, Some(value))] }
    }

    /// Makes something with a name, or ends one of those that were made.
    fn next_named(&mut self, path: &str, body: &Value, ended: Option<&str>) -> Write {
        let goes_on =
            |name: &String| self.state.get(name).is_some_and(|state| Some(state.as_str()) != ended);
        let first = self.learned.iter().find(|(name, _)| goes_on(name));
        let first = first.map(|(name, made)| (name.clone(), made.clone()));
        if let Some((name, made)) = first
            && self.draw(2) == 0
        {
            let id = text(if made["token"].is_null() {
                &made["key"]["id"]
            } else {
                &made["token"]["id"]
            });
            return Write {
                request: Request::new("DELETE", &format!("{path}/{id}")),
                change: vec![(name, ended.map(str::to_owned))],
            };
        }
        let name = format!("n{:08x}", self.draw(1 << 32));
        let mut body = body.clone();
        body["name"] = json!(name);
        let is = if ended.is_some() { "good" } else { "there" };
        Write { request: send_json("POST", path, &body), change: vec![(name, Some(is.to_owned()))] }
    }

    /// Writes until the node is gone.
    fn write(&mut self, admin: SocketAddr, token: &str) {
        let Ok(mut connection) = Connection::try_open(admin) else { return };
        loop {
            let Write { request, change } = self.next();
            let request = request.header("authorization", &format!("Bearer {token}"));
            self.pending = change;
            let sent = connection.write(&request.to_bytes(admin));
            let Ok(answer) = sent.and_then(|()| connection.read_answer(false)) else { return };
            self.took(&answer);
        }
    }

    /// An answer came.
    fn took(&mut self, answer: &Answer) {
        assert!((200..300).contains(&answer.status), "{:?}: {answer:?}", self.what);
        let change = std::mem::take(&mut self.pending);
        if matches!(self.what, What::Keys | What::Tokens) && answer.status == 201 {
            self.learned.insert(change[0].0.clone(), answer.json());
        }
        apply(&mut self.state, change);
        self.acknowledged += 1;
        self.requests.insert(answer.header("x-request-id").unwrap().to_owned());
    }

    /// After a restart: everything that was acknowledged, and what was not whole or not at all.
    fn check(&mut self, node: &Node, round: usize) {
        let found = self.what.read(node);
        let mut with_pending = self.state.clone();
        apply(&mut with_pending, std::mem::take(&mut self.pending));
        if found != self.state {
            assert_eq!(
                found, with_pending,
                "round {round}, {:?}: neither with nor without",
                self.what
            );
            self.state = found;
            self.unanswered += 1;
        }
        self.check_use(node, round);
    }

    /// What is there does what it is for.
    fn check_use(&self, node: &Node, round: usize) {
        match self.what {
            What::Deploys => {
                let answer = node.get("/deploys/").expect(200);
                let live = &self.state["live"];
                assert_eq!(answer.header("x-faas-version"), Some(live.as_str()), "round {round}");
                let is_live =
                    |text: &&&str| Digest::of(&says(text)).to_string() == self.state[live];
                let text = TEXTS.iter().find(is_live).unwrap();
                assert_eq!(answer.text().trim(), *text, "round {round}");
            }
            What::Domains => {
                let domains: Vec<String> =
                    serde_json::from_str(&self.state[&self.state["live"]]).unwrap();
                // The first version has none.
                let Some(domain) = domains.first() else { return };
                let answer = node.send(&Request::get("/").header("host", domain)).expect(200);
                assert_eq!(answer.header("x-faas-version"), Some(self.state["live"].as_str()));
            }
            What::Tokens => {
                // The newest ones will do: each has its place in the state already.
                for (name, made) in self.learned.iter().take(3) {
                    let bearer = format!("Bearer {}", text(&made["secret"]));
                    let ask = Request::get("/v1/whoami").header("authorization", &bearer);
                    let status = if self.state[name] == "good" { 200 } else { 401 };
                    Connection::open(node.admin()).ask(&ask).expect(status);
                }
            }
            What::Apps => {
                for number in 0..4 {
                    let app = format!("temp-{number}");
                    let status = if self.state.contains_key(&app) { 200 } else { 404 };
                    node.get(&format!("/{app}/")).expect(status);
                }
            }
            _ => {}
        }
    }
}

fn apply(state: &mut State, change: Vec<(String, Option<String>)>) {
    for (name, value) in change {
        match value {
            Some(value) => state.insert(name, value),
            None => state.remove(&name),
        };
    }
}

/// A node with what the clients need.
fn prepared() -> Node {
    let node = Node::with(&format!("[deploy]\nkeep_versions = {KEPT}\n"));
    for text in TEXTS {
        node.deploy("deploys", &says(text));
    }
    for app in ["traffic", "pins"] {
        for text in &TEXTS[..3] {
            node.deploy(app, &says(text));
        }
    }
    node.deploy("keys", &says("one"));
    node.deploy("domains", &says("domains"));
    node.deploy("variables", &Guest::Cgi01.wasm());
    let names: Vec<String> = (0..4).map(|number| format!("S_{number}")).collect();
    for name in &names {
        node.api(send_text(&format!("/v1/apps/secrets/secrets/{name}"), "first")).expect(201);
    }
    let digest = Digest::of(&Guest::Cgi01.wasm()).to_string();
    let function = json!({"name": "main", "digest": digest, "settings": {"secrets": names}});
    let version = json!({"manifest": {"functions": [function]}});
    node.api(send_json("POST", "/v1/apps/secrets/versions", &version)).expect(201);
    node
}

/// Every request that was acknowledged is in the audit log, as one that went well.
fn check_audit(node: &Node, clients: &[Client], round: usize) {
    let mut missing: BTreeSet<&str> =
        clients.iter().flat_map(|client| &client.requests).map(String::as_str).collect();
    let mut before = String::new();
    while !missing.is_empty() {
        let page = get(node, &format!("/v1/audit?limit=1000{before}"));
        let entries = page["entries"].as_array().unwrap();
        for entry in entries.iter().filter(|entry| entry["outcome"] == "ok") {
            missing.remove(text(&entry["request_id"]));
        }
        let Some(last) = entries.last() else {
            panic!("round {round}: not in the audit log: {missing:?}");
        };
        before = format!("&before={}", last["seq"]);
    }
}

#[test]
fn everything_that_was_acknowledged_survives_kills() {
    let kills = full(12, 200);
    let mut node = prepared();
    let mut clients: Vec<Client> = What::ALL.map(|what| Client::new(what, &node)).into();
    for round in 0..kills {
        let (admin, token) = (node.admin(), &node.token());
        let after = Duration::from_millis(20 + clients[0].draw(400));
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(move || client.write(admin, token));
            }
            thread::sleep(after);
            node.kill();
        });
        node.launch();
        for client in &mut clients {
            client.check(&node, round);
        }
        check_audit(&node, &clients, round);
        for client in &mut clients {
            client.requests.clear();
        }
    }
    let acknowledged: usize = clients.iter().map(|client| client.acknowledged).sum();
    let unanswered: usize = clients.iter().map(|client| client.unanswered).sum();
    for client in &clients {
        assert!(client.acknowledged > 0, "{:?} wrote nothing", client.what);
    }
    figure(&format!(
        "{kills} kills, {acknowledged} acknowledged writes, none lost; {unanswered} were not \
         acknowledged and are there whole"
    ));
}
