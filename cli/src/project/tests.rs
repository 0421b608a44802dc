use super::*;
use faas_api::manifest::{Auth, RateLimit};

const GOOD: &str = r#"[app]
name = "shop"

[build]
command = "make"
watch = ["src", "./wit"]

[functions.main]
source = "dist/shop.wasm"
"#;

const WHOLE: &str = r#"
"$schema" = "faas.schema.json"

[app]
name = "shop"
domains = ["shop.example.com"]
health = "/healthz"

[functions.web]
source = "web.wasm"

[functions.api]
source = "api.wasm"
routes = ["/api/*", "GET shop.example.com/v2/:id"]
strip_prefix = true
env = { LOG = "info" }
secrets = ["STRIPE_KEY"]
grants = { outbound = ["https://api.stripe.com"] }
limits = { timeout = "10s", cpu = "50ms", memory = "64MiB", concurrency = 100, subrequests = 7, body = 1000 }
reuse = { requests = 1000, idle = "5s" }
auth = "jwt"
jwt = { issuer = "https://id.example.com" }
rate_limit = "100/1m"
cors = { origins = ["https://app.example.com"], max_age = "1h" }

[functions.worker]
source = "worker.wasm"
private = true
reuse = "none"
rate_limit = { requests = 5, per = "1s", burst = 10 }
auth = "key"

[env.staging]
app.name = "shop-staging"
functions.api.limits.timeout = "30s"
functions.api.env.LOG = "debug"

[env.broken.functions.api]
sorce = "x"
"#;

fn parse(text: &str) -> Result<Project> {
    Project::parse(Path::new("/p"), text, None)
}

/// The error of a manifest, as a person sees it.
fn complaint(text: &str) -> String {
    complaint_in(text, None)
}

fn complaint_in(text: &str, environment: Option<&str>) -> String {
    let error = Project::parse(Path::new("/p"), text, environment).unwrap_err();
    assert_eq!(error.exit, Exit::Usage);
    let lines = [error.message].into_iter().chain(error.details);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_small_manifest() {
    let project = parse(GOOD).unwrap();
    assert_eq!(project.app.as_str(), "shop");
    assert_eq!(project.build_command.as_deref(), Some("make"));
    assert_eq!(project.watch, [Path::new("/p/src"), Path::new("/p/wit")]);
    assert_eq!(project.functions[0].name.as_str(), "main");
    assert_eq!(project.functions[0].source, Path::new("/p/dist/shop.wasm"));
    let wire = project.wire(|_| Digest::of(b"x")).unwrap();
    assert_eq!(wire.functions[0].settings.routes[0].as_str(), "/*");
}

#[test]
fn everything_that_a_manifest_can_say() {
    let project = parse(WHOLE).unwrap();
    let [api, web, worker] = project.functions.as_slice() else { panic!("{project:?}") };
    assert_eq!(api.settings.limits.wall_ms, Some(10_000));
    assert_eq!(api.settings.limits.memory_bytes, Some(64 << 20));
    assert_eq!(api.settings.limits.request_body_bytes, Some(1000));
    assert_eq!(api.settings.grants.outbound[0].as_str(), "https://api.stripe.com");
    assert!(
        matches!(&api.settings.auth, Auth::Jwt { issuer, .. } if issuer.ends_with("example.com"))
    );
    let rate = RateLimit { requests: 100, per_ms: 60_000, burst: None };
    assert_eq!(api.settings.rate_limit, Some(rate));
    assert_eq!(api.settings.cors.as_ref().unwrap().max_age_s, Some(3600));
    assert_eq!(api.reuse.unwrap().idle_ms, 5000);
    assert!(web.settings.routes.is_empty() && worker.settings.private && worker.reuse.is_none());
    assert_eq!(project.health.as_deref(), Some("/healthz"));
}

#[test]
fn an_environment_inherits_every_key() {
    let dir = Path::new("/p");
    let staging = Project::parse(dir, WHOLE, Some("staging")).unwrap();
    let plain = parse(WHOLE).unwrap();
    assert_eq!(staging.app.as_str(), "shop-staging");
    let api = &staging.functions[0];
    assert_eq!(api.settings.limits.wall_ms, Some(30_000));
    assert_eq!(api.settings.limits.cpu_ms, Some(50));
    assert_eq!(api.settings.env.values().collect::<Vec<_>>(), ["debug"]);
    assert_eq!(api.settings.secrets, plain.functions[0].settings.secrets);
    assert_eq!(staging.functions[1..], plain.functions[1..]);
    assert_eq!(
        complaint_in(WHOLE, Some("broken")),
        "unknown key `sorce` in faas.toml, line 39\n\
         39 | sorce = \"x\"\n   \
            | ^^^^^ did you mean `source`?"
    );
    assert_eq!(complaint_in(WHOLE, Some("production")), "no environment `production` in faas.toml");
    assert_eq!(environments(WHOLE).unwrap(), ["broken", "staging"]);
}

#[test]
fn without_a_build() {
    let project = parse("app.name = 'a'\nfunctions.main.source = 'a.wasm'").unwrap();
    assert_eq!(project.build_command, None);
    assert_eq!(project.watch, [Path::new("/p")]);
}

#[test]
fn a_project_inside_a_larger_one() {
    let source = |text: &str| parse(text).unwrap().functions[0].source.clone();
    assert_eq!(source(&GOOD.replace("dist/", "../target/./")), Path::new("/p/../target/shop.wasm"));
    assert_eq!(source(&GOOD.replace("dist/", "/elsewhere/")), Path::new("/elsewhere/shop.wasm"));
}

#[test]
fn unknown_keys_have_a_line_and_a_suggestion() {
    assert_eq!(
        complaint(&GOOD.replace("source", "sorce")),
        "unknown key `sorce` in faas.toml, line 9\n\
         9 | sorce = \"dist/shop.wasm\"\n  \
           | ^^^^^ did you mean `source`?"
    );
    assert_eq!(
        complaint(&GOOD.replace("[functions.main]", "[function.main]")),
        "unknown key `function` in faas.toml, line 8\n\
         8 | [function.main]\n  \
           |  ^^^^^^^^ did you mean `functions`?"
    );
    assert_eq!(
        complaint(&GOOD.replace("command", "  x")),
        "unknown key `x` in faas.toml, line 5\n\
         5 |   x = \"make\"\n  \
           |   ^ known here: `command`, `watch`"
    );
    assert_eq!(
        complaint(&format!("{GOOD}route = \"/api/*\"\n")),
        "unknown key `route` in faas.toml, line 10\n\
         10 | route = \"/api/*\"\n   \
            | ^^^^^ did you mean `routes`? (a list: routes = [\"/api/*\"])"
    );
}

#[test]
fn contradictions_are_shown_where_they_stand() {
    let two = format!(
        "{GOOD}routes = [\"/a/:id\"]\n[functions.other]\nsource = 'x'\nroutes = ['/a/:x']\n"
    );
    assert_eq!(
        complaint(&two),
        "functions.other.routes: route `/a/:x` function `main` has already, written `/a/:id` in \
         faas.toml, line 13\n\
         13 | routes = ['/a/:x']\n   \
            | ^^^^^^"
    );
    assert_eq!(
        complaint(&format!("{GOOD}routes = [\"other.example.com/*\"]\n")),
        "functions.main.routes: `other.example.com` is not one of the app's domains in faas.toml, \
         line 10\n\
         10 | routes = [\"other.example.com/*\"]\n   \
            | ^^^^^^"
    );
    for (line, says) in [
        ("auth = \"jwt\"", "functions.main.auth: `jwt` needs an issuer"),
        ("auth = \"basic\"", "unknown variant `basic`, expected one of `public`, `key`, `jwt`"),
        ("limits.memory = \"1K\"", "functions.main.limits: `memory` is at least 64 KiB"),
        ("limits.cpu = \"fast\"", "`fast` is no duration"),
        ("limits.cpu = 5", "`5` is no duration"),
        ("reuse = { requests = 1 }", "functions.main.reuse: `requests` is from 2 to 1000000"),
        ("reuse = \"all\"", "`all` is not `none`"),
        ("rate_limit = \"often\"", "`often` is no rate"),
        ("secrets = [\"a-b\"]", "a variable's name has letters"),
        ("env.HTTP_HOST = \"x\"", "`HTTP_HOST` is a name that CGI keeps"),
        ("routes = [\"api\"]", "a route is written"),
        ("private = 1", "expected true or false, found the number `1`"),
        ("routes = \"/api/*\"", "expected a list, found the text \"/api/*\""),
        ("limits = true", "expected a table, found `true`"),
        ("cors.origins = []", "functions.main.cors: `origins` names at least one"),
        ("env = { A = \"1\" }\nsecrets = [\"A\"]", "functions.main.env: `A` is a secret, too"),
    ] {
        let text = complaint(&format!("{GOOD}{line}\n"));
        assert!(text.contains(says) && text.contains("line 1"), "{line}: {text}");
    }
}

#[test]
fn other_mistakes() {
    assert_eq!(
        complaint(&GOOD.replace("\"shop\"", "\"Shop\"")),
        "`S` cannot stand in a name: only a-z, 0-9 and - can in faas.toml, line 2\n\
         2 | name = \"Shop\"\n  \
           |        ^^^^^^"
    );
    assert!(complaint(&GOOD.replace("name = \"shop\"", "")).starts_with("missing key `name`"));
    assert!(complaint("[app\n").contains("line 1"));
    assert!(complaint("app.name = 'a'").contains("at least one function"));
}

#[test]
fn the_schema_is_current_and_takes_what_we_take() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/faas.schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == current,
        "docs/faas.schema.json is not what the types say; run with UPDATE=1"
    );
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for text in [GOOD, WHOLE.split("[env.broken").next().unwrap()] {
        let value: serde_json::Value = toml::from_str(text).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{problems:?}");
    }
    let bad: serde_json::Value = toml::from_str(&GOOD.replace("source", "sorce")).unwrap();
    assert!(!validator.is_valid(&bad));
}
