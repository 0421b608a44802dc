//! `faas.toml`: finds it, reads it, and explains what is wrong with it.

use crate::{
    artifact::io_text,
    error::{CliError, Exit, Result},
};
use faas_api::{AppName, FunctionName, Reuse};
use jiff::SignedDuration;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Component, Path, PathBuf},
};

/// The name of the manifest.
pub(crate) const MANIFEST: &str = "faas.toml";

/// A project: a folder with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// The folder that the manifest's paths start from.
    pub(crate) dir: PathBuf,
    pub(crate) app: AppName,
    /// The shell command that makes `source`.
    pub(crate) build_command: Option<String>,
    /// What a change of which asks for a new build, below `dir`.
    pub(crate) watch: Vec<PathBuf>,
    pub(crate) function: FunctionName,
    /// The artifact.
    pub(crate) source: PathBuf,
    /// How far requests of the function share instances.
    pub(crate) reuse: Option<Reuse>,
}

impl Project {
    /// The project that this folder, or one above it, belongs to.
    pub(crate) fn find(start: &Path) -> Result<Self> {
        let start = absolute(start)?;
        match start.ancestors().find(|folder| folder.join(MANIFEST).is_file()) {
            Some(dir) => Self::load(dir),
            None => Err(CliError::new(
                Exit::Usage,
                "no_project",
                format!("no {MANIFEST} in `{}` or above", start.display()),
            )
            .hint("`faas new NAME` starts a project; `faas deploy FILE.wasm` needs none")),
        }
    }

    /// The project in exactly this folder.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let dir = &absolute(dir)?;
        let text = std::fs::read_to_string(dir.join(MANIFEST)).map_err(|error| {
            CliError::new(
                Exit::Usage,
                "no_project",
                format!("cannot read {MANIFEST} in `{}`: {}", dir.display(), io_text(&error)),
            )
        })?;
        Self::parse(dir, &text)
    }

    fn parse(dir: &Path, text: &str) -> Result<Self> {
        let manifest: Manifest =
            toml::from_str(text).map_err(|error| Complaint::of(&error).explain(text))?;
        let mut functions = manifest.functions.into_iter();
        let (Some((function, section)), None) = (functions.next(), functions.next()) else {
            let message = format!("{MANIFEST} must have exactly one function, [functions.NAME]");
            return Err(CliError::new(Exit::Usage, "manifest", message)
                .hint("for now: deploy each function as an app of its own"));
        };
        let watch = manifest.build.watch.iter().map(|path| located(dir, path));
        Ok(Self {
            app: manifest.app.name,
            build_command: manifest.build.command,
            watch: watch.collect(),
            function,
            source: located(dir, &section.source),
            reuse: section.reuse.map(ReuseSection::checked).transpose()?,
            dir: dir.to_owned(),
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    app: AppSection,
    #[serde(default)]
    build: BuildSection,
    #[serde(default)]
    functions: BTreeMap<FunctionName, FunctionSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppSection {
    name: AppName,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BuildSection {
    command: Option<String>,
    watch: Vec<PathBuf>,
}

impl Default for BuildSection {
    fn default() -> Self {
        Self { command: None, watch: vec![PathBuf::from(".")] }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionSection {
    source: PathBuf,
    reuse: Option<ReuseSection>,
}

/// `reuse = { requests = 1000, concurrency = 16, idle = "10s" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReuseSection {
    requests: u32,
    concurrency: Option<u32>,
    idle: Option<String>,
}

impl ReuseSection {
    fn checked(self) -> Result<Reuse> {
        let refused = |why| CliError::new(Exit::Usage, "manifest", format!("{why}, in {MANIFEST}"));
        let mut reuse = Reuse::of(self.requests);
        reuse.concurrency = self.concurrency.unwrap_or(reuse.concurrency);
        if let Some(idle) = self.idle {
            let duration: SignedDuration = idle.parse().map_err(|_| {
                refused(format!("reuse: `{idle}` is no duration")).hint("write `10s` or `500ms`")
            })?;
            reuse.idle_ms = u64::try_from(duration.as_millis()).unwrap_or(0);
        }
        reuse.check(None).map_err(refused)?;
        Ok(reuse)
    }
}

fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir).map_err(|error| {
        CliError::usage(format!("cannot use `{}`: {}", dir.display(), io_text(&error)))
    })
}

/// A path of the manifest, without steps that lead nowhere.
fn located(dir: &Path, path: &Path) -> PathBuf {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.fold(dir.to_owned(), |path, part| path.join(part))
}

/// What is wrong with a manifest, in our words.
struct Complaint {
    message: String,
    /// What stands beside the marked place.
    remark: String,
    span: Option<Range<usize>>,
}

impl Complaint {
    fn of(error: &toml::de::Error) -> Self {
        let text = error.message().trim();
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let complaint =
            |message: String, remark: String| Self { message, remark, span: error.span() };
        if let Some(rest) = first.strip_prefix("unknown field ") {
            let mut words = rest.split('`').skip(1).step_by(2);
            let key = words.next().unwrap_or_default();
            return complaint(
                format!("unknown key `{key}`"),
                suggestion(key, &words.collect::<Vec<_>>()),
            );
        }
        if let Some(key) = first.strip_prefix("missing field ") {
            return complaint(format!("missing key {key}"), String::new());
        }
        complaint(first.to_owned(), rest.lines().collect::<Vec<_>>().join(" "))
    }

    fn explain(self, text: &str) -> CliError {
        let Self { message, remark, span } = self;
        let Some(span) = span else {
            return CliError::new(Exit::Usage, "manifest", format!("{message} in {MANIFEST}"));
        };
        let before = text.get(..span.start).unwrap_or(text);
        let number = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |place| place + 1);
        let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let column = before.len() - line_start;
        let marked = span.len().min(line.len().saturating_sub(column));
        let indent = line.get(..column).map_or(column, |start| start.chars().count());
        let marked = line.get(column..column + marked).map_or(marked, |part| part.chars().count());
        let gutter = " ".repeat(number.to_string().len());
        let marks = format!("{}{} {remark}", " ".repeat(indent), "^".repeat(marked.max(1)));
        CliError::new(Exit::Usage, "manifest", format!("{message} in {MANIFEST}, line {number}"))
            .details(vec![format!("{number} | {line}"), format!("{gutter} | {}", marks.trim_end())])
    }
}

fn suggestion(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|word| (distance(key, word), word)).min();
    match near {
        Some((distance, word)) if distance <= key.len().max(word.len()) / 3 + 1 => {
            format!("did you mean `{word}`?")
        }
        _ => {
            let known: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
            format!("known here: {}", known.join(", "))
        }
    }
}

/// How many letters to add, drop or change to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (place, letter) in from.chars().enumerate() {
        let mut next = vec![place + 1];
        for ((other, pair), left) in to.iter().zip(row.windows(2)).zip(0..) {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => continue,
            };
            let left = next.get(left).copied().unwrap_or(usize::MAX - 1);
            let change = usize::from(*other != letter);
            next.push((diagonal + change).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[app]
name = "shop"

[build]
command = "make"
watch = ["src", "./wit"]

[functions.main]
source = "dist/shop.wasm"
"#;

    fn parse(text: &str) -> Result<Project> {
        Project::parse(Path::new("/p"), text)
    }

    /// The error of a manifest, as a person sees it.
    fn complaint(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        let lines = [error.message].into_iter().chain(error.details);
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_manifest() {
        let project = parse(GOOD).unwrap();
        assert_eq!(project.app.as_str(), "shop");
        assert_eq!(project.build_command.as_deref(), Some("make"));
        assert_eq!(project.watch, [Path::new("/p/src"), Path::new("/p/wit")]);
        assert_eq!(project.function.as_str(), "main");
        assert_eq!(project.source, Path::new("/p/dist/shop.wasm"));
    }

    #[test]
    fn without_a_build() {
        let project = parse("app.name = 'a'\nfunctions.main.source = 'a.wasm'").unwrap();
        assert_eq!(project.build_command, None);
        assert_eq!(project.watch, [Path::new("/p")]);
    }

    #[test]
    fn a_project_inside_a_larger_one() {
        let project = parse(&GOOD.replace("dist/", "../target/./")).unwrap();
        assert_eq!(project.source, Path::new("/p/../target/shop.wasm"));
        let project = parse(&GOOD.replace("dist/", "/elsewhere/")).unwrap();
        assert_eq!(project.source, Path::new("/elsewhere/shop.wasm"));
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
        assert!(complaint("app.name = 'a'").contains("exactly one function"));
        let two = format!("{GOOD}[functions.other]\nsource = 'x'");
        assert!(complaint(&two).contains("exactly one function"));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("route", "routes"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
