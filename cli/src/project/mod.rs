//! `faas.toml`: finds it, reads it, and explains what is wrong with it.

mod complaint;
mod manifest;
mod words;

use crate::{
    artifact::io_text,
    error::{CliError, Exit, Result},
};
use complaint::Complaint;
use faas_api::{
    AppName, Digest, Domain, FunctionName, FunctionSpec, Reuse, Settings,
    manifest::{Manifest as Wire, ManifestProblem},
};
use manifest::{FunctionSection, Manifest, ReuseSection};
use serde::Deserialize;
use std::path::{Component, Path, PathBuf};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use words::OrText;

/// The name of the manifest.
pub(crate) const MANIFEST: &str = "faas.toml";

/// A project: a folder with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// The folder that the manifest's paths start from.
    pub(crate) dir: PathBuf,
    pub(crate) app: AppName,
    /// Which `[env.NAME]` it was read with.
    pub(crate) environment: Option<String>,
    /// The shell command that makes the artifacts.
    pub(crate) build_command: Option<String>,
    /// What a change of which asks for a new build, below `dir`.
    pub(crate) watch: Vec<PathBuf>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) health: Option<String>,
    /// At least one.
    pub(crate) functions: Vec<ProjectFunction>,
}

/// A function of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectFunction {
    pub(crate) name: FunctionName,
    /// The artifact.
    pub(crate) source: PathBuf,
    pub(crate) reuse: Option<Reuse>,
    pub(crate) settings: Settings,
}

impl Project {
    /// The project that this folder, or one above it, belongs to.
    pub(crate) fn find(start: &Path, environment: Option<&str>) -> Result<Self> {
        Self::load(&Self::dir_of(start)?, environment)
    }

    /// The folder of the project that this folder, or one above it, belongs to.
    pub(crate) fn dir_of(start: &Path) -> Result<PathBuf> {
        let start = absolute(start)?;
        match start.ancestors().find(|folder| folder.join(MANIFEST).is_file()) {
            Some(dir) => Ok(dir.to_owned()),
            None => Err(CliError::new(
                Exit::Usage,
                "no_project",
                format!("no {MANIFEST} in `{}` or above", start.display()),
            )
            .hint("`faas new NAME` starts a project; `faas deploy FILE.wasm` needs none")),
        }
    }

    /// The project in exactly this folder.
    pub(crate) fn load(dir: &Path, environment: Option<&str>) -> Result<Self> {
        let dir = &absolute(dir)?;
        Self::parse(dir, &Self::text(&dir.join(MANIFEST))?, environment)
    }

    /// The project with each of the environments that its manifest names, and without one.
    pub(crate) fn load_all(file: &Path) -> Result<Vec<Self>> {
        let file = absolute(file)?;
        let dir = file.parent().unwrap_or(Path::new("/"));
        let text = Self::text(&file)?;
        let mut all = vec![Self::parse(dir, &text, None)?];
        for environment in environments(&text)? {
            all.push(Self::parse(dir, &text, Some(&environment))?);
        }
        Ok(all)
    }

    fn text(file: &Path) -> Result<String> {
        std::fs::read_to_string(file).map_err(|error| {
            CliError::new(
                Exit::Usage,
                "no_project",
                format!("cannot read `{}`: {}", file.display(), io_text(&error)),
            )
        })
    }

    fn parse(dir: &Path, text: &str, environment: Option<&str>) -> Result<Self> {
        let explain = |error: toml::de::Error| Complaint::of(&error).explain(text);
        let mut root = DeTable::parse(text).map_err(explain)?;
        if let Some(name) = environment {
            overlay(root.get_mut(), name)?;
        }
        let read = toml::Deserializer::from(root.clone());
        let manifest = Manifest::deserialize(read).map_err(explain)?;
        let about = |problem| Complaint::about(problem, root.get_ref()).explain(text);
        let project = Self::resolve(dir, manifest, environment).map_err(about)?;
        // Contradictions show here as well as on a server; artifacts do not matter for them.
        project.wire(|_| Digest::of(b"")).map_err(about)?;
        Ok(project)
    }

    fn resolve(
        dir: &Path,
        manifest: Manifest,
        environment: Option<&str>,
    ) -> std::result::Result<Self, ManifestProblem> {
        let mut functions = Vec::new();
        for (name, section) in &manifest.functions {
            let problem = |(key, problem): (&str, String)| ManifestProblem {
                at: format!("functions.{name}.{key}"),
                problem,
                hint: None,
            };
            functions.push(ProjectFunction {
                name: name.clone(),
                source: located(dir, &section.source),
                reuse: reuse(section).map_err(|why| problem(("reuse", why)))?,
                settings: section.settings().map_err(problem)?,
            });
        }
        let watch = manifest.build.watch.iter().map(|path| located(dir, path));
        Ok(Self {
            app: manifest.app.name,
            environment: environment.map(str::to_owned),
            build_command: manifest.build.command,
            watch: watch.collect(),
            domains: manifest.app.domains,
            health: manifest.app.health,
            functions,
            dir: dir.to_owned(),
        })
    }

    /// The manifest as a deploy sends it, checked; `digest` knows the functions' artifacts.
    pub(crate) fn wire(
        &self,
        digest: impl Fn(&ProjectFunction) -> Digest,
    ) -> std::result::Result<Wire, ManifestProblem> {
        let functions = self.functions.iter().map(|function| FunctionSpec {
            name: function.name.clone(),
            digest: digest(function),
            reuse: function.reuse,
            settings: function.settings.clone(),
        });
        let mut wire = Wire {
            domains: self.domains.clone(),
            health: self.health.clone(),
            functions: functions.collect(),
        };
        wire.check()?;
        Ok(wire)
    }
}

/// The schema of `faas.toml` (JSON Schema 2020-12), generated from the types that read it.
pub(crate) fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Manifest).to_value();
    if let Some(members) = schema.as_object_mut() {
        members.insert("title".to_owned(), "faas.toml".into());
    }
    schema
}

fn reuse(section: &FunctionSection) -> std::result::Result<Option<Reuse>, String> {
    let Some(OrText::Table(ReuseSection { requests, concurrency, idle })) = &section.reuse else {
        return Ok(None);
    };
    let mut reuse = Reuse::of(*requests);
    reuse.concurrency = concurrency.unwrap_or(reuse.concurrency);
    reuse.idle_ms = idle.map_or(reuse.idle_ms, words::Length::ms);
    let why = |why: String| why.strip_prefix("reuse: ").map_or(why.clone(), str::to_owned);
    reuse.check(None).map_err(why)?;
    Ok(Some(reuse))
}

/// The names of the environments of a manifest.
fn environments(text: &str) -> Result<Vec<String>> {
    let root = DeTable::parse(text).map_err(|error| Complaint::of(&error).explain(text))?;
    let names = match root.get_ref().get("env").map(Spanned::get_ref) {
        Some(DeValue::Table(table)) => table.keys().map(|key| key.get_ref().to_string()).collect(),
        _ => Vec::new(),
    };
    Ok(names)
}

/// Puts what `[env.NAME]` says in the place of what the rest says. Places in the text are kept, so
/// that a mistake is shown where it stands.
fn overlay(root: &mut DeTable<'_>, name: &str) -> Result<()> {
    let environments = match root.remove("env").map(Spanned::into_inner) {
        Some(DeValue::Table(table)) => table,
        _ => DeTable::new(),
    };
    let known: Vec<String> =
        environments.keys().map(|key| format!("`{}`", key.get_ref())).collect();
    let chosen = environments.into_iter().find(|(key, _)| key.get_ref() == name);
    let Some((_, value)) = chosen else {
        let hint = match known.as_slice() {
            [] => format!("add it: [env.{name}]"),
            known => format!("there is {}", known.join(", ")),
        };
        let message = format!("no environment `{name}` in {MANIFEST}");
        return Err(CliError::new(Exit::Usage, "no_environment", message).hint(hint));
    };
    if let DeValue::Table(table) = value.into_inner() {
        merge(root, table);
    }
    Ok(())
}

fn merge<'i>(base: &mut DeTable<'i>, over: DeTable<'i>) {
    for (key, value) in over {
        match (base.get_mut(&**key.get_ref()).map(Spanned::get_mut), value.get_ref()) {
            (Some(DeValue::Table(inner)), DeValue::Table(_)) => {
                if let DeValue::Table(table) = value.into_inner() {
                    merge(inner, table);
                }
            }
            _ => {
                // The key goes along, so that its place is the one in the environment.
                base.remove(&**key.get_ref());
                base.insert(key, value);
            }
        }
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

#[cfg(test)]
mod tests;
