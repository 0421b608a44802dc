//! The reference pages in `docs/`, made of what the program itself knows: the schema of `faas.toml`
//! and the help of every verb. The tests here say when a page is not current.

use crate::{args::Cli, project};
use clap::CommandFactory as _;
use serde_json::Value;
use std::fmt::Write as _;

/// Compares a page with the file, or writes the file when asked to.
fn check(name: &str, page: &str) {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/{name} is not current; run the tests of faas-cli with UPDATE=1");
}

#[test]
fn the_manifest() {
    let schema = project::schema();
    let mut page = "# `faas.toml`\n\nEvery key, made from the schema (`faas check --schema`, \
        [faas.schema.json](faas.schema.json)). What an app is and how it is deployed is told in \
        [apps](apps.md). An unknown key is an error with its line; `faas check` finds mistakes \
        without a server.\n\nTimes are written `500ms`, `10s`, `5m`; sizes `512KiB`, `64MiB` or a \
        number of bytes.\n"
        .to_owned();
    let sections = [
        ("[app]", "AppSection"),
        ("[build]", "BuildSection"),
        ("[functions.NAME]", "FunctionSection"),
        ("[functions.NAME.grants]", "GrantsSection"),
        ("[functions.NAME.limits]", "LimitsSection"),
        ("[functions.NAME.reuse]", "ReuseSection"),
        ("[functions.NAME.jwt]", "JwtSection"),
        ("[functions.NAME.rate_limit]", "RateSection"),
        ("[functions.NAME.cors]", "CorsSection"),
    ];
    for (title, name) in sections {
        let section = &schema["$defs"][name];
        write!(page, "\n## `{title}`\n\n| key | value | meaning |\n|---|---|---|\n").unwrap();
        let required: Vec<&str> = section["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (key, about) in section["properties"].as_object().unwrap() {
            let needed = if required.contains(&key.as_str()) { ", required" } else { "" };
            let text = about["description"].as_str().unwrap_or_default().replace('\n', " ");
            writeln!(page, "| `{key}` | {}{needed} | {text} |", kind(about, &schema)).unwrap();
        }
    }
    page.push_str(
        "\n## `[env.NAME]`\n\nThe same keys again, for `faas deploy --env NAME`: what stands here \
         replaces what stands above, key by key, and everything else is inherited. `app.name` may \
         differ, so that an environment is an app of its own.\n\n```toml\n[env.staging]\n\
         app.name = \"shop-staging\"\nfunctions.api.limits.timeout = \"30s\"\n```\n",
    );
    check("manifest.md", &page);
}

/// What kind of value a schema takes, in a word or two.
fn kind(about: &Value, schema: &Value) -> String {
    if let Some(reference) = about["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return kind(&schema["$defs"][name], schema);
    }
    let options = about["anyOf"].as_array().or(about["oneOf"].as_array());
    if let Some(options) = options {
        let words: Vec<String> = options
            .iter()
            .filter(|option| option["type"] != "null")
            .map(|option| match option["const"].as_str() {
                Some(word) => format!("`\"{word}\"`"),
                None => kind(option, schema),
            })
            .collect();
        return words.join(" or ");
    }
    let names = match &about["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let word = |name: &str| match name {
        "array" => format!("list of {}s", kind(&about["items"], schema)),
        "object" => "table".to_owned(),
        "string" => "text".to_owned(),
        "integer" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    };
    let words: Vec<String> = names.into_iter().filter(|name| *name != "null").map(word).collect();
    words.join(" or ")
}

#[test]
fn the_command_line() {
    let mut cli = Cli::command().term_width(98);
    cli.build();
    let mut page = "# Command line reference\n\nThe help of every command, as `faas VERB --help` \
        prints it. What they share – output, exit codes, which server – stands in [cli](cli.md).\n"
        .to_owned();
    section(&mut page, &mut cli, "faas");
    check("cli-reference.md", &page);
}

fn section(page: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    let global = help.find("\nGlobal options:");
    let own = match (global, name) {
        // Every verb has them; they are shown once.
        (Some(start), verb) if verb != "faas" => help.get(..start).unwrap_or(&help),
        _ => &help,
    };
    let lines: Vec<&str> = own.trim_end().lines().map(str::trim_end).collect();
    write!(page, "\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n")).unwrap();
    let verbs: Vec<String> = command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
        .map(|verb| verb.get_name().to_owned())
        .collect();
    for verb in verbs {
        if let Some(inner) = command.find_subcommand_mut(&verb) {
            section(page, inner, &format!("{name} {verb}"));
        }
    }
}
