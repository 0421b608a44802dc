//! `docs/output.schema.json`: what `faas VERB -o json` prints, made of the types that it is written
//! from. The tests here say when the file is not current, and when a verb is missing in it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of it is a test: what cannot go on fails, and says so"
)]

use crate::{args::Cli, documents, error::ErrorDocument};
use clap::CommandFactory as _;
use faas_api::{
    App, AppList, Artifact, AuditList, CreatedKey, CreatedToken, Deployed, Env, KeyList, LogLine,
    Secret, SecretList, TokenList, UsageReport, VersionList, WhoAmI, apps::TrafficChanged,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// What a verb prints besides its failures.
enum Prints {
    /// Nothing: it has sub-verbs, and is none itself.
    Nothing,
    /// One document with this data.
    Data(Value),
    /// One document with this data, which a failure may have too.
    DataAnyway(Value),
    /// JSON lines, and no document unless it fails.
    Lines,
}

/// What every verb prints.
fn verbs(types: &mut Types) -> Vec<(&'static str, Prints)> {
    use Prints::{Data, DataAnyway, Lines, Nothing};
    vec![
        ("faas", Nothing),
        ("serve", Data(types.add::<documents::Serving>())),
        ("new", Data(types.add::<documents::Started<'_>>())),
        ("dev", Lines),
        ("build", Data(types.add::<documents::Built<'_>>())),
        ("check", Data(checked(types))),
        ("diff", Data(types.add::<documents::Differences<'_>>())),
        ("deploy", Data(deployed(types))),
        ("invoke", DataAnyway(invoked(types))),
        ("list", Data(types.add::<AppList>())),
        ("describe", Data(types.add::<App>())),
        ("versions", Data(types.add::<VersionList>())),
        ("rollback", Data(types.add::<TrafficChanged>())),
        ("promote", Data(types.add::<TrafficChanged>())),
        ("pin", Data(types.add::<documents::Pinned<'_>>())),
        ("unpin", Data(types.add::<documents::Pinned<'_>>())),
        ("delete", Data(types.add::<documents::Deleted<'_>>())),
        ("env", Nothing),
        ("env list", Data(types.add::<Env>())),
        ("env set", Data(types.add::<Env>())),
        ("env unset", Data(types.add::<Env>())),
        ("env import", Data(types.add::<Env>())),
        ("secret", Nothing),
        ("secret put", Data(types.add::<Secret>())),
        ("secret list", Data(types.add::<SecretList>())),
        ("secret rm", Data(types.add::<documents::SecretsRemoved<'_>>())),
        ("secret import", Data(types.add::<documents::SecretsSet<'_>>())),
        ("key", Nothing),
        ("key create", Data(types.add::<CreatedKey>())),
        ("key list", Data(types.add::<KeyList>())),
        ("key revoke", Data(types.add::<documents::KeyRevoked<'_>>())),
        ("logs", Lines),
        ("usage", Data(types.add::<UsageReport>())),
        ("backup", Data(types.add::<documents::BackupSaved<'_>>())),
        ("restore", Data(types.add::<documents::BackupRestored>())),
        ("token", Nothing),
        ("token create", Data(types.add::<CreatedToken>())),
        ("token list", Data(types.add::<TokenList>())),
        ("token revoke", Data(types.add::<documents::TokenRevoked<'_>>())),
        ("whoami", Data(types.add::<WhoAmI>())),
        ("audit", Data(types.add::<AuditList>())),
        ("login", Data(types.add::<documents::LoggedIn>())),
        ("logout", Data(types.add::<documents::LoggedOut>())),
        ("context", Nothing),
        ("context list", Data(types.add::<documents::ContextList>())),
        ("context use", Data(types.add::<documents::ContextChosen<'_>>())),
        ("inspect", DataAnyway(types.add::<Artifact>())),
        ("completions", Data(types.add::<documents::Completions>())),
    ]
}

fn checked(types: &mut Types) -> Value {
    let schema = json!({
        "description": "With `--schema`: the JSON schema of `faas.toml`.",
        "type": "object",
        "required": ["$schema", "title", "properties"],
    });
    json!({ "anyOf": [types.add::<documents::Checked<'_>>(), schema] })
}

fn deployed(types: &mut Types) -> Value {
    json!({ "oneOf": [types.add::<Deployed>(), types.add::<documents::DryRun<'_>>()] })
}

fn invoked(types: &mut Types) -> Value {
    let mut invoked = types.add::<documents::Invoked>();
    invoked["oneOf"] = json!([{ "required": ["body"] }, { "required": ["body_base64"] }]);
    invoked
}

/// The lines of `faas logs` and `faas dev`.
fn lines(types: &mut Types) -> [(&'static str, Value); 2] {
    let [line, deployed] = [types.part::<LogLine>(), types.part::<Deployed>()];
    let error = types.add::<ErrorDocument<'_>>();
    let is = |words: &[&str]| -> Value {
        json!({ "required": ["event"], "properties": { "event": { "enum": words } } })
    };
    let event = json!({
        "description": "A line of `faas dev`: what happened.",
        "oneOf": [
            {
                "description": "Files changed, and are built and deployed.",
                "type": "object",
                "required": ["event", "paths"],
                "properties": {
                    "event": { "const": "changed" },
                    "paths": { "type": "array", "items": { "type": "string" } },
                },
                "additionalProperties": false,
            },
            {
                "description": "A version is live, or the build made the one that is live already.",
                "allOf": [deployed, is(&["deployed", "unchanged"])],
                "unevaluatedProperties": false,
            },
            {
                "description": "A line of the app's log.",
                "allOf": [line, is(&["log"])],
                "unevaluatedProperties": false,
            },
            {
                "description": "What was live stays live; the next change may mend it.",
                "type": "object",
                "required": ["event", "error"],
                "properties": { "event": { "const": "failed" }, "error": error },
                "additionalProperties": false,
            },
        ],
    });
    let line = json!({
        "description": "A line of `faas logs`.",
        "allOf": [line],
        "unevaluatedProperties": false,
    });
    [("log-line", line), ("dev-event", event)]
}

/// What is always there although the type can be read without it: servers of the same release write
/// it. The descriptions of the types are those of requests too, and say less.
const ALWAYS: &[(&str, &[&str])] = &[
    ("Artifact", &["kind"]),
    ("Canary", &["abort_above_percent"]),
    ("Deployed", &["functions", "replayed", "urls"]),
    ("Differences", &["against"]),
    ("Function", &["settings"]),
    ("LogLine", &["level"]),
    ("Reuse", &["concurrency", "idle_ms"]),
    ("Version", &["message", "domains", "pinned"]),
];

/// What the text in a field of this name looks like, wherever it stands.
const FORMS: &[(&[&str], &str)] = &[
    (&["app"], "AppName"),
    (&["function"], "FunctionName"),
    (&["version", "against"], "VersionId"),
    (&["digest", "missing"], "Digest"),
    (&["url", "urls", "preview_url", "server", "ingress", "admin", "redirect"], "Address"),
];

fn forms() -> [(&'static str, Value); 5] {
    let name = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";
    let text = |description: &str, pattern: &str| -> Value {
        json!({ "description": description, "type": "string", "pattern": pattern })
    };
    [
        ("AppName", text("An app's name.", name)),
        ("FunctionName", text("A function's name, unique inside its app.", name)),
        ("VersionId", text("`v1`, `v2`, …", "^v[1-9][0-9]{0,8}$")),
        ("Digest", text("SHA-256, in hexadecimal digits.", "^[0-9a-f]{64}$")),
        (
            "Address",
            json!({ "description": "A URL.", "type": "string", "format": "uri", "pattern": "^https?://" }),
        ),
    ]
}

/// Descriptions of types, by name.
#[derive(Default)]
struct Types {
    all: BTreeMap<String, Value>,
    /// Those whose fields also stand among the fields of others.
    parts: BTreeSet<String>,
}

impl Types {
    /// Describes a type and what it consists of, and refers to it.
    fn add<T: ToSchema>(&mut self) -> Value {
        self.part::<T>()
    }

    /// The same for a type whose fields stand among those of others.
    fn part<T: ToSchema>(&mut self) -> Value {
        let mut found = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut found);
        for (name, schema) in found {
            let schema = json!(schema);
            let known = self.all.insert(name.clone(), schema.clone());
            assert!(known.is_none_or(|known| known == schema), "two types are called {name}");
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }
}

/// Turns what `utoipa` says into what a validator of documents needs.
struct Refine<'a> {
    parts: &'a BTreeSet<String>,
}

impl Refine<'_> {
    /// A type.
    fn named(&self, name: &str, schema: &mut Value) {
        let always = ALWAYS.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, keys)| keys);
        if !always.is_empty() {
            let object = object_of(schema);
            let mut required = object["required"].as_array().cloned().unwrap_or_default();
            for key in always {
                assert!(object["properties"][key].is_object(), "{name} has no {key}");
                assert!(!required.contains(&json!(key)), "{name}.{key} is required anyway");
                required.push(json!(key));
            }
            object["required"] = required.into();
        }
        self.walk(schema, self.parts.contains(name));
    }

    /// `open`: other fields may stand beside those that are described here.
    fn walk(&self, schema: &mut Value, open: bool) {
        match schema {
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item, false)),
            Value::Object(fields) => self.object(fields, open),
            _ => {}
        }
    }

    fn object(&self, fields: &mut Map<String, Value>, open: bool) {
        if let Some(name) = reference(fields.get("$ref")) {
            fields.insert("$ref".to_owned(), json!(format!("#/$defs/{name}")));
            if self.parts.contains(&name) && !open {
                fields.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        // What a request may leave out.
        fields.remove("default");
        if let Some(text) = fields.get_mut("description").filter(|text| text.is_string()) {
            *text = text.as_str().unwrap_or_default().replace('\n', " ").into();
        }
        // Of OpenAPI.
        if let Some(example) = fields.remove("example") {
            fields.insert("examples".to_owned(), json!([example]));
        }
        if fields.get("format").is_some_and(|format| {
            ["int32", "int64", "double", "float"].iter().any(|number| format == number)
        }) {
            fields.remove("format");
        }
        let composed = fields.contains_key("allOf");
        let required = fields.get("required").and_then(Value::as_array).cloned();
        let required = required.unwrap_or_default();
        if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
            properties.iter_mut().for_each(|(name, property)| {
                form(name, property);
                if !required.contains(&json!(name)) {
                    absent_rather_than_null(property);
                }
                self.walk(property, false);
            });
            if !open && !composed && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        for (key, value) in fields.iter_mut() {
            match key.as_str() {
                "items" | "additionalProperties" | "propertyNames" => self.walk(value, false),
                "oneOf" | "anyOf" => {
                    value.as_array_mut().unwrap().iter_mut().for_each(|one| self.walk(one, open));
                }
                "allOf" => {
                    value.as_array_mut().unwrap().iter_mut().for_each(|one| self.walk(one, true));
                }
                _ => {}
            }
        }
        if composed && !open {
            fields.insert("unevaluatedProperties".to_owned(), json!(false));
        }
    }
}

/// The object that a type describes beside what it takes over from others.
fn object_of(schema: &mut Value) -> &mut Value {
    match schema["allOf"].is_array() {
        true => {
            let parts = schema["allOf"].as_array_mut().unwrap();
            parts.iter_mut().find(|part| part["properties"].is_object()).unwrap()
        }
        false => schema,
    }
}

/// Gives a text the form that all texts under this name have.
fn form(name: &str, property: &mut Value) {
    let known = FORMS.iter().find(|(names, _)| names.contains(&name));
    let Some((_, form)) = known else { return };
    let refer = |text: &mut Value| {
        if text["type"] == "string" {
            let fields = text.as_object_mut().unwrap();
            fields.remove("type");
            fields.insert("$ref".to_owned(), json!(format!("#/$defs/{form}")));
        } else if text["type"] == json!(["string", "null"]) {
            let of = json!([{ "type": "null" }, { "$ref": format!("#/$defs/{form}") }]);
            let fields = text.as_object_mut().unwrap();
            fields.remove("type");
            fields.insert("anyOf".to_owned(), of);
        }
    };
    match property["type"] == "array" {
        true => refer(&mut property["items"]),
        false => refer(property),
    }
}

/// What need not be there is left out where it has no value.
fn absent_rather_than_null(property: &mut Value) {
    let null = json!({ "type": "null" });
    let fields = property.as_object_mut().unwrap();
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            fields.insert("type".to_owned(), only);
        }
    }
    for key in ["oneOf", "anyOf"] {
        let Some(Value::Array(options)) = fields.get_mut(key) else { continue };
        let before = options.len();
        options.retain(|option| *option != null);
        if before > options.len()
            && let [only] = options.as_slice()
        {
            let only = only.as_object().unwrap().clone();
            fields.remove(key);
            fields.extend(only);
        }
    }
}

/// The type that a schema takes over.
fn reference(value: Option<&Value>) -> Option<String> {
    let name = value?.as_str()?.strip_prefix("#/components/schemas/")?;
    Some(name.to_owned())
}

/// Which types are taken over with `allOf`.
fn parts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| parts(item, found)),
        Value::Object(fields) => {
            let all = fields.get("allOf").and_then(Value::as_array);
            found.extend(all.into_iter().flatten().filter_map(|part| reference(part.get("$ref"))));
            fields.values().for_each(|value| parts(value, found));
        }
        _ => {}
    }
}

/// The documents of a verb.
fn documents_of(verb: &str, about: &str, prints: &Prints, error: &Value) -> Value {
    let frame = |ok: bool| -> Value {
        json!({ "ok": { "const": ok }, "command": { "const": verb }, "schema": { "const": 1 } })
    };
    let mut failure = json!({
        "type": "object",
        "required": ["ok", "command", "schema", "error"],
        "properties": frame(false),
        "additionalProperties": false,
    });
    failure["properties"]["error"] = error.clone();
    let data = match prints {
        Prints::Data(data) | Prints::DataAnyway(data) => data,
        Prints::Nothing | Prints::Lines => {
            failure["description"] = json!(about);
            return failure;
        }
    };
    if matches!(prints, Prints::DataAnyway(_)) {
        failure["properties"]["data"] = data.clone();
    }
    let mut success = json!({
        "type": "object",
        "required": ["ok", "command", "schema", "data", "warnings"],
        "properties": frame(true),
        "additionalProperties": false,
    });
    success["properties"]["data"] = data.clone();
    success["properties"]["warnings"] = json!({
        "description": "What the user should know although nothing failed.",
        "type": "array",
        "items": { "type": "string" },
    });
    json!({ "description": about, "oneOf": [success, failure] })
}

/// The whole schema.
fn schema() -> Value {
    let mut types = Types::default();
    let error = types.add::<ErrorDocument<'_>>();
    let verbs = verbs(&mut types);
    let lines = lines(&mut types);
    let mut defs: Vec<(String, Value)> = Vec::new();
    let about: BTreeMap<String, String> = command_tree().into_iter().collect();
    for (verb, prints) in &verbs {
        let name = match *verb {
            "faas" => "`faas`".to_owned(),
            verb => format!("`faas {verb}`"),
        };
        let does = about.get(*verb).map_or("", String::as_str);
        let about = match prints {
            Prints::Nothing => format!("{name} without a verb, or with one that is none."),
            Prints::Lines => {
                format!("{name}: {does}. Prints JSON lines; this document only fails.")
            }
            _ => format!("{name}: {does}."),
        };
        defs.push((verb.replace(' ', "-"), documents_of(verb, &about, prints, &error)));
    }
    defs.extend(lines.into_iter().map(|(name, line)| (name.to_owned(), line)));
    let any: Vec<Value> =
        defs.iter().map(|(name, _)| json!({ "$ref": format!("#/$defs/{name}") })).collect();
    let Types { all, parts: mut taken_over } = types;
    for schema in all.values().chain(defs.iter().map(|(_, schema)| schema)) {
        parts(schema, &mut taken_over);
    }
    let refine = Refine { parts: &taken_over };
    for (_, schema) in &mut defs {
        refine.walk(schema, false);
    }
    for (name, mut schema) in all {
        refine.named(&name, &mut schema);
        defs.push((name, schema));
    }
    defs.extend(forms().map(|(name, form)| (name.to_owned(), form)));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What `faas VERB -o json` prints",
        "description": "Standard output carries exactly one of these documents; `logs` and `dev` \
            print lines instead, and the document of a failure last. It is as strict as this release \
            is; later ones may add fields, so a reader ignores what it does not know. `$defs` has one \
            schema for each verb, its words joined by `-`.",
        "oneOf": any,
        "$defs": defs.into_iter().collect::<Map<String, Value>>(),
    })
}

/// Every verb with what its help says of it.
fn command_tree() -> Vec<(String, String)> {
    fn add(all: &mut Vec<(String, String)>, command: &clap::Command, words: &str) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        all.push((if words.is_empty() { "faas" } else { words }.to_owned(), about));
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            add(all, verb, format!("{words} {}", verb.get_name()).trim());
        }
    }
    let mut all = Vec::new();
    add(&mut all, &Cli::command(), "");
    all
}

#[test]
fn the_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/output.schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == current,
        "docs/output.schema.json is not what the types say; run the tests of faas-cli with UPDATE=1"
    );
    assert!(jsonschema::draft202012::meta::is_valid(&schema()));
}

#[test]
fn it_describes_every_verb() {
    let described: Vec<&str> =
        verbs(&mut Types::default()).into_iter().map(|(verb, _)| verb).collect();
    let tree = command_tree();
    let known: Vec<&str> = tree.iter().map(|(verb, _)| verb.as_str()).collect();
    assert_eq!(described, known);
    // Whatever it refers to is there, and what every type is for is said.
    let schema = schema();
    let text = schema.to_string();
    for reference in text.split("\"#/$defs/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schema["$defs"][name].is_object(), "{name}");
    }
    for (name, schema) in schema["$defs"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "{name} is not described");
    }
}
