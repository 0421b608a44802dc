//! Every operation of the API's description × every kind of token × the app a token is for and one
//! that it is not for: answered as the roles in the description say, and nothing is changed by what
//! is refused. An operation that is added to the API needs a line in [`ENTRIES`].

use super::*;
use crate::storage::JournalQuery;
use faas_api::{Scope, Verb};
use serde_json::json;

/// What the tokens are for, and an app whose name begins the same.
const OWN: &str = "a";
const OTHER: &str = "a-b";
/// Stands in what the other app has and nobody else.
const WORD: &str = "word-of-the-other-app";
const JSON: &str = "application/json";

/// An operation: its id, the type and text of a good body (`APP` is the app), and the status.
type Entry = (&'static str, &'static str, &'static str, u16);

const ENTRIES: &[Entry] = &[
    ("livez", "", "", 200),
    ("metrics", "", "", 200),
    ("readyz", "", "", 200),
    ("list_apps", "", "", 200),
    ("delete_app", "", "", 204),
    ("describe_app", "", "", 200),
    ("deploy", "application/wasm", WASM, 201),
    ("clear_env", "", "", 204),
    ("list_env", "", "", 200),
    ("change_env", JSON, r#"{"MORE":"1"}"#, 200),
    ("unset_env", "", "", 204),
    ("get_env", "", "", 200),
    ("set_env", "text/plain", "1", 200),
    ("list_keys", "", "", 200),
    ("create_key", JSON, r#"{"name":"second"}"#, 201),
    ("revoke_key", "", "", 204),
    ("read_logs", "", "", 200),
    ("list_secrets", "", "", 200),
    ("remove_secret", "", "", 204),
    ("put_secret", "text/plain", "1", 200),
    ("set_traffic", JSON, r#"{"shares":[{"version":"v1","percent":100}]}"#, 200),
    ("app_usage", "", "", 200),
    ("list_versions", "", "", 200),
    (
        "create_version",
        JSON,
        r#"{"manifest":{"functions":[{"name":"main","digest":
           "0000000000000000000000000000000000000000000000000000000000000000"}]}}"#,
        200,
    ),
    ("describe_version", "", "", 200),
    ("activate_version", "", "", 200),
    ("unpin_version", "", "", 204),
    ("pin_version", "", "", 204),
    ("read_audit", "", "", 200),
    ("backup", "", "", 200),
    ("store_blob", "application/wasm", WASM, 201),
    ("read_all_logs", "", "", 200),
    ("openapi", "", "", 200),
    ("list_tokens", "", "", 200),
    ("create_token", JSON, r#"{"scope":{"apps":["APP"],"can":["read"]}}"#, 201),
    ("revoke_token", "", "", 204),
    ("usage", "", "", 200),
    ("whoami", "", "", 200),
];

/// An operation as the description has it.
#[derive(Debug)]
struct Described {
    entry: Entry,
    method: String,
    path: String,
    roles: Vec<String>,
    open: bool,
}

impl Described {
    fn has_app(&self) -> bool {
        self.path.contains("{app}")
    }

    fn is_question(&self) -> bool {
        self.method == "GET"
    }

    /// Its address for an app; `token` is the id of one that is for this app.
    fn target(&self, app: &str, token: &str) -> String {
        let blob = Digest::of(WASM.as_bytes()).to_string();
        self.path
            .replace("{app}", app)
            .replace("{version}", "v1")
            .replace("{name}", "NAME")
            .replace("{key}", "first")
            .replace("{sha256}", &blob)
            .replace("{id}", token)
    }

    /// Who may do it, read out of the description here once more and on its own.
    fn allows(&self, apps: Option<&[&str]>, can: &[&str], app: &str) -> bool {
        let verb = |wanted: &str| can.contains(&wanted) || can.contains(&"admin");
        let here = apps.is_none_or(|apps| apps.contains(&app));
        let role = |role: &String| match (role.as_str(), role.strip_suffix(":any")) {
            ("any", _) => true,
            (_, Some(word)) => verb(word),
            (word, None) if self.has_app() => verb(word) && here,
            (word, None) => verb(word) && apps.is_none(),
        };
        let by_role = self.roles.iter().any(role);
        // Tokens are of whoever administers all that they are for.
        match self.entry.0 {
            "create_token" | "revoke_token" => by_role && verb("admin") && here,
            _ => by_role,
        }
    }
}

/// Everything that the description has, with its line of the table.
fn described(node: &Node) -> Vec<Described> {
    let mut all = Vec::new();
    for (path, item) in node.spec["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let entry = ENTRIES.iter().find(|entry| entry.0 == id);
            let entry = *entry.unwrap_or_else(|| panic!("`{id}` has no line in ENTRIES"));
            let security = operation["security"].as_array().unwrap();
            let roles = security.iter().filter_map(|requirement| requirement["bearer"].as_array());
            let roles = roles.flatten().map(|role| role.as_str().unwrap().to_owned()).collect();
            let open = security.iter().any(|requirement| *requirement == json!({}));
            let (method, path) = (method.to_uppercase(), path.clone());
            all.push(Described { entry, method, path, roles, open });
        }
    }
    assert_eq!(all.len(), ENTRIES.len(), "a line of ENTRIES is no operation any more");
    all
}

/// A node with two apps, and one door to it.
struct Scene {
    node: Node,
    gate: Gate,
    operations: Vec<Described>,
}

impl Scene {
    async fn new() -> Self {
        let mut node = Node::new().await;
        node.config.open_probes = false;
        let operations = described(&node);
        let api = serve::api(node.admin(), node.shutdown.clone());
        let gate = Gate::new(Arc::new(api), [127, 0, 0, 1].into());
        let scene = Self { node, gate, operations };
        for app in [OWN, OTHER] {
            scene.prepare(app).await;
        }
        scene
    }

    fn operation(&self, id: &str) -> &Described {
        self.operations.iter().find(|operation| operation.entry.0 == id).unwrap()
    }

    /// Gives an app what the operations expect to find, where it has lost it.
    async fn prepare(&self, app: &str) {
        let functions = &self.node.functions;
        if functions.get(&app.parse().unwrap()).await.is_err() {
            self.node.add(app, true).await;
        }
        let at = format!("/v1/apps/{app}");
        let good = Some(format!("Bearer {TOKEN}"));
        let value = if app == OTHER { WORD } else { "value" };
        for (method, rest, kind, body) in [
            ("PUT", "traffic", JSON, r#"{"shares":[{"version":"v1","percent":100}]}"#),
            ("PUT", "env/NAME", "text/plain", value),
            // A variable and a secret cannot have one name.
            ("PUT", "secrets/NAME2", "text/plain", value),
            ("DELETE", "keys/second", "", ""),
            ("POST", "keys", JSON, r#"{"name":"first"}"#),
        ] {
            let target = format!("{at}/{rest}");
            let answer = self.send(method, &target, good.as_deref(), &[], (kind, body)).await;
            let there = matches!(answer.status.as_u16(), 200..=204 | 404 | 409);
            assert!(there, "{method} {target}: {answer:?}");
        }
    }

    #[expect(clippy::too_many_arguments, reason = "as many as a request has parts")]
    async fn send(
        &self,
        method: &str,
        target: &str,
        credentials: Option<&str>,
        fields: &[(&str, &str)],
        (kind, body): (&str, &str),
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(target);
        request = request.header("host", "localhost:8081");
        let kind = (!kind.is_empty()).then_some(("content-type", kind));
        let credentials = credentials.map(|text| ("authorization", text));
        for (name, value) in fields.iter().copied().chain(kind).chain(credentials) {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let path = request.uri().path().to_owned();
        let (head, body) = self.gate.answer(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        let answer = Answer { status: head.status, headers: head.headers, body };
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {target}");
        answer.check(&self.node.spec, &method.parse().unwrap(), &path);
        answer
    }

    /// An operation on an app with a good body.
    async fn ask(&self, operation: &Described, app: &str, credentials: Option<&str>) -> Answer {
        let (_, kind, body, _) = operation.entry;
        let token = match operation.entry.0 {
            "revoke_token" => self.token(Some(&[app]), &["read"], None).await.1,
            _ => String::new(),
        };
        let target = named(&operation.target(app, &token), operation);
        let body = body.replace("APP", app);
        self.send(&operation.method, &target, credentials, &[], (kind, &body)).await
    }

    /// The text and id of a new token.
    async fn token(
        &self,
        apps: Option<&[&str]>,
        can: &[&str],
        ended: Option<jiff::Timestamp>,
    ) -> (String, String) {
        let apps = apps.map(|apps| apps.iter().map(|app| app.parse().unwrap()).collect());
        let can = can.iter().map(|verb| verb.parse::<Verb>().unwrap()).collect();
        let wanted = crate::tokens::Wanted {
            name: Some("t".into()),
            scope: Scope { apps, can },
            expires_at: ended,
            created_by: "test".into(),
        };
        let (secret, token) = self.node.tokens.create(wanted).await.unwrap();
        (secret.reveal(), token.id.to_string())
    }

    /// Every document with its revision, but for those of tokens, which the tests make themselves.
    async fn documents(&self) -> Vec<(String, Doc)> {
        let (docs, _) = self.node.disk.inner.list("").await.unwrap();
        let docs = docs.into_iter().map(|(key, doc)| (key.as_str().to_owned(), doc));
        docs.filter(|(key, _)| !key.starts_with("tokens/")).collect()
    }

    /// Those of the other app.
    async fn others(&self) -> Vec<(String, Doc)> {
        let mut docs = self.documents().await;
        docs.retain(|(key, _)| key.split('/').any(|part| part == OTHER));
        assert!(docs.len() >= 3, "its versions, its configuration, its keys: {docs:?}");
        docs
    }

    /// How many changes, tried or done, the audit log has.
    async fn recorded(&self) -> usize {
        let all = JournalQuery { subjects: None, since: None, before: None, limit: usize::MAX };
        self.node.journal.read(all).await.unwrap().len()
    }
}

/// Secrets have another name than variables.
fn named(target: &str, operation: &Described) -> String {
    match operation.path.contains("/secrets/") {
        true => target.replace("NAME", "NAME2"),
        false => target.to_owned(),
    }
}

/// Credentials that are none.
#[tokio::test]
async fn whoever_has_no_good_token_gets_nowhere() {
    let scene = Scene::new().await;
    let past = crate::clock::now() - jiff::SignedDuration::from_secs(5);
    let (expired, _) = scene.token(None, &["admin"], Some(past)).await;
    let (revoked, id) = scene.token(None, &["admin"], None).await;
    scene.node.tokens.revoke(&id.parse().unwrap(), "test").await.unwrap();
    let (good, _) = scene.token(None, &["admin"], None).await;
    let key = json!({ "name": "guest" }).to_string();
    let admin = format!("Bearer {TOKEN}");
    let made = scene.send("POST", "/v1/apps/a/keys", Some(&admin), &[], (JSON, &key)).await;
    let key = made.json()["secret"].as_str().unwrap().to_owned();
    // What another server made.
    let foreign = faas_api::tokens::checked_text(&[7; 32]);
    let hash = Digest::of(TOKEN.as_bytes()).to_string();
    let cut = &good[..good.len() - 1];
    let before = (scene.documents().await, scene.recorded().await);
    let mut refused = 0;
    for credentials in [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some(TOKEN.to_owned()),
        Some(format!("Basic {good}")),
        Some(format!("Bearer {cut}")),
        Some(format!("Bearer {good}0")),
        Some(format!("Bearer {good} {good}")),
        Some(format!("Bearer {}", good.to_uppercase())),
        Some(format!("Bearer {foreign}")),
        Some(format!("Bearer {hash}")),
        Some(format!("Bearer {key}")),
        Some(format!("Bearer {revoked}")),
        Some(format!("Bearer {expired}")),
    ] {
        for operation in &scene.operations {
            for app in [OWN, "nothing"] {
                let (_, kind, body, _) = operation.entry;
                let target = operation.target(app, "0123456789");
                let credentials = credentials.as_deref();
                let method = &operation.method;
                let answer = scene.send(method, &target, credentials, &[], (kind, body)).await;
                let at = format!("{credentials:?} {method} {target}: {answer:?}");
                if operation.entry.0 == "openapi" {
                    assert_eq!(answer.status, 200, "{at}");
                    continue;
                }
                let ended = credentials.is_some_and(|text| text.ends_with(&expired));
                let code = if ended { ErrorCode::TokenExpired } else { ErrorCode::Unauthorized };
                answer.error(code);
                assert!(answer.header("www-authenticate").starts_with("Bearer"), "{at}");
                assert!(!answer.body.contains(&good) && !answer.body.contains(WORD), "{at}");
                refused += 1;
            }
        }
    }
    // Nothing that a stranger does is on the disk, not even in the audit log.
    assert_eq!((scene.documents().await, scene.recorded().await), before);
    assert_eq!(refused, 14 * 2 * (ENTRIES.len() - 1));
}

/// The apps that a token may be for.
const APPS: [Option<&[&str]>; 5] =
    [Some(&[OWN]), Some(&["ab", "b"]), Some(&[OTHER]), Some(&[OWN, OTHER]), None];

const CAN: [&[&str]; 8] = [
    &["read"],
    &["deploy"],
    &["invoke"],
    &["secrets"],
    &["read", "deploy"],
    &["read", "secrets"],
    &["invoke", "deploy", "secrets"],
    &["admin"],
];

/// What is refused changes nothing and is in the audit log; what is allowed on one app changes no
/// other one, and says nothing about it.
#[tokio::test]
async fn every_operation_does_what_its_roles_say() {
    let scene = Scene::new().await;
    let (mut refused, mut allowed) = (0, 0);
    for (apps, can) in APPS.into_iter().flat_map(|apps| CAN.map(|can| (apps, can))) {
        let (token, _) = scene.token(apps, can, None).await;
        let bearer = format!("Bearer {token}");
        for app in [OWN, OTHER] {
            let (yes, no): (Vec<_>, Vec<_>) =
                scene.operations.iter().partition(|operation| operation.allows(apps, can, app));
            let before = (scene.documents().await, scene.recorded().await);
            for operation in &no {
                let answer = scene.ask(operation, app, Some(&bearer)).await;
                let at = format!("{apps:?} {can:?} {} on {app}: {answer:?}", operation.entry.0);
                if operation.open && operation.roles.is_empty() {
                    assert_eq!(answer.status, 200, "{at}");
                    continue;
                }
                assert_eq!(answer.status, 403, "{at}");
                let error = answer.error(ErrorCode::MissingScope);
                assert!(error.hint.is_some(), "{at}");
                assert!(answer.header("www-authenticate").contains("insufficient_scope"), "{at}");
                assert!(!answer.body.contains(WORD), "{at}");
            }
            let tried = no.iter().filter(|operation| !operation.is_question()).count();
            let at = format!("{apps:?} {can:?} on {app}");
            assert_eq!(scene.documents().await, before.0, "{at}: something was changed");
            assert_eq!(scene.recorded().await, before.1 + tried, "{at}: the audit log has them");
            refused += no.len();
            allowed += scene.do_all(&yes, app, (apps, &bearer)).await;
        }
    }
    let all = APPS.len() * CAN.len() * 2 * ENTRIES.len();
    assert_eq!(refused + allowed, all);
    assert!(refused > all / 3 && allowed > all / 5, "{refused} refused, {allowed} allowed");
}

impl Scene {
    /// Does what a token may do on an app: all of it works, and nothing else is touched or told.
    async fn do_all(
        &self,
        operations: &[&Described],
        app: &str,
        (apps, bearer): (Option<&[&str]>, &str),
    ) -> usize {
        for operation in operations {
            // The one before may have taken away what this one asks for.
            self.prepare(app).await;
            let before = self.others().await;
            let answer = self.ask(operation, app, Some(bearer)).await;
            let (id, _, _, good) = operation.entry;
            let at = format!("{apps:?} {id} on {app}: {answer:?}");
            let status = answer.status.as_u16();
            assert_eq!(status, good, "{at}");
            if app != OTHER {
                assert_eq!(self.others().await, before, "{at}: the other app was changed");
            }
            let sees = apps.is_none_or(|apps| apps.contains(&OTHER));
            let quoted = format!("\"{OTHER}\"");
            assert!(sees || !answer.body.contains(WORD), "{at}");
            // What scopes are about is no secret of an app.
            let told = answer.body.contains(&quoted) && id != "list_tokens" && id != "openapi";
            assert!(sees || !told, "{at}: it tells of the other app");
        }
        self.prepare(app).await;
        operations.len()
    }
}

/// Another app's name wherever a client can write one.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one place after the other, nothing in between")]
async fn another_apps_name_is_no_way_in() {
    let scene = Scene::new().await;
    let (token, _) = scene.token(Some(&[OWN]), &["admin"], None).await;
    let bearer = format!("Bearer {token}");
    let admin = format!("Bearer {TOKEN}");
    let of_other = scene.send("GET", "/v1/apps/a-b", Some(&admin), &[], ("", "")).await;
    let tag = of_other.header("etag").to_owned();
    let keys = scene.send("GET", "/v1/apps/a-b/keys", Some(&admin), &[], ("", "")).await;
    let key = keys.json()["keys"][0]["id"].as_str().unwrap().to_owned();
    let before = scene.others().await;
    // In the path, in every spelling that a router or a proxy might undo.
    for spelling in [
        "a/../a-b",
        "a%2f..%2fa-b",
        "a%2F%2e%2e%2Fa-b",
        "..%2fa-b",
        "a-b%00",
        "%61-b",
        "a%2db",
        "A-B",
        "a-b%20",
        "a-b%2f",
        "a-b;a",
        "a;a-b",
        "a,a-b",
        "a%0aa-b",
        "a-b%23",
        "a%3f",
        "a-%62",
        "%ef%bc%81-b",
        "a%e2%80%90b",
        "a-b.",
        ".a-b",
        "./a-b",
        "%2e/a-b",
        "a%5c..%5ca-b",
        "*",
        "",
        "a@v1",
        "a-b@v1",
    ] {
        for operation in scene.operations.iter().filter(|operation| operation.has_app()) {
            let (_, kind, body, _) = operation.entry;
            let target = named(&operation.target(spelling, ""), operation);
            let method = &operation.method;
            let answer = scene.send(method, &target, Some(&bearer), &[], (kind, body)).await;
            let status = answer.status.as_u16();
            assert!(matches!(status, 400..=422), "{method} {target}: {answer:?}");
            assert!(!answer.body.contains(WORD), "{method} {target}: {answer:?}");
        }
    }
    assert_eq!(scene.others().await, before);
    // In fields that proxies and frameworks listen to, in the query, and as a precondition.
    let queries = ["", "?app=a-b", "?app=a&app=a-b", "?tenant=a-b&force=true", "?_method=DELETE"];
    for operation in &scene.operations {
        for query in queries {
            if operation.has_app() && !operation.is_question() {
                scene.prepare(OWN).await;
            }
            let before = scene.others().await;
            let (id, kind, body, good) = operation.entry;
            let target = named(&operation.target(OWN, &key), operation) + query;
            let body = body.replace("APP", OWN);
            let fields = [
                ("x-original-url", "/v1/apps/a-b"),
                ("x-rewrite-url", "/v1/apps/a-b"),
                ("x-forwarded-prefix", "/v1/apps/a-b"),
                ("x-http-method-override", "DELETE"),
                ("x-faas-app", OTHER),
                ("x-faas-caller", "admin"),
                ("x-tenant", OTHER),
                ("forwarded", "for=127.0.0.1;host=localhost"),
                ("cookie", &*format!("token={TOKEN}")),
                ("proxy-authorization", &*admin),
                ("x-api-key", TOKEN),
            ];
            let method = &operation.method;
            let sent = scene.send(method, &target, Some(&bearer), &fields, (kind, &body));
            let answer = sent.await;
            let status = answer.status.as_u16();
            let expected = operation.allows(Some(&[OWN]), &["admin"], OWN) || id == "openapi";
            let at = format!("{method} {target}: {answer:?}");
            match query {
                // No token has that id.
                "" if id == "revoke_token" => assert!(matches!(status, 403 | 422), "{at}"),
                "" if expected => assert_eq!(status, good, "{at}"),
                "" => assert_eq!(status, 403, "{at}"),
                // An operation that knows no such word says so, or has never looked.
                _ => assert!(status == good || matches!(status, 400 | 403 | 409 | 422), "{at}"),
            }
            assert!(!answer.body.contains(WORD), "{at}");
            assert_eq!(scene.others().await, before, "{at}");
        }
    }
    // The other app's revision, its key, its version, and its name in bodies.
    scene.prepare(OWN).await;
    let before = scene.documents().await;
    let own = |rest: &str| format!("/v1/apps/a/{rest}");
    let traffic = scene.operation("set_traffic").entry.2;
    for (method, target, fields, kind, body, status) in [
        ("PUT", own("traffic"), vec![("if-match", &*tag)], JSON, traffic, 409),
        ("DELETE", "/v1/apps/a".into(), vec![("if-match", &*tag)], "", "", 409),
        ("DELETE", own(&format!("keys/{key}")), vec![], "", "", 404),
        ("POST", own("keys"), vec![], JSON, r#"{"name":"x","app":"a-b"}"#, 422),
        ("POST", own("versions/a-b@v1/activate"), vec![], "", "", 422),
        ("POST", own("versions/v1%2f..%2f..%2f..%2fa-b/activate"), vec![], "", "", 422),
        (
            "PUT",
            own("traffic"),
            vec![],
            JSON,
            r#"{"app":"a-b","shares":[{"version":"v1","percent":100}]}"#,
            422,
        ),
        ("PUT", own("env"), vec![], JSON, r#"{"../a-b/X":"1"}"#, 422),
        ("PUT", own("secrets/..%2f..%2fa-b%2fsecrets%2fNAME2"), vec![], "text/plain", "1", 422),
        ("GET", "/v1/audit?app=a-b".into(), vec![], "", "", 403),
        (
            "POST",
            "/v1/tokens".into(),
            vec![],
            JSON,
            r#"{"scope":{"apps":["a-b"],"can":["read"]}}"#,
            403,
        ),
        (
            "POST",
            "/v1/tokens".into(),
            vec![],
            JSON,
            r#"{"scope":{"apps":["a","a-b"],"can":["read"]}}"#,
            403,
        ),
        ("POST", "/v1/tokens".into(), vec![], JSON, r#"{"scope":{"can":["invoke"]}}"#, 403),
        (
            "POST",
            "/v1/tokens".into(),
            vec![],
            JSON,
            r#"{"scope":{"apps":["a/../a-b"],"can":["read"]}}"#,
            422,
        ),
    ] {
        let sent = scene.send(method, &target, Some(&bearer), &fields, (kind, body));
        let answer = sent.await;
        assert_eq!(answer.status.as_u16(), status, "{method} {target} {body}: {answer:?}");
        assert!(!answer.body.contains(WORD), "{answer:?}");
    }
    assert_eq!(scene.documents().await, before);
}
