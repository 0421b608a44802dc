//! `faas check [FILE]`: is the manifest right? Needs no server.

use crate::{
    args,
    documents::Checked,
    error::Result,
    format,
    project::{self, MANIFEST, Project},
    ui::Outcome,
};
use faas_api::FunctionName;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &args::Check) -> Result<Outcome> {
    if args.schema {
        let schema = project::schema();
        let text = serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n";
        return Outcome::new(&schema, text);
    }
    let file = match &args.file {
        Some(file) if file.is_dir() => file.join(MANIFEST),
        Some(file) => file.clone(),
        None => Project::dir_of(Path::new("."))?.join(MANIFEST),
    };
    let all = Project::load_all(&file)?;
    let environments: Vec<&str> =
        all.iter().filter_map(|project| project.environment.as_deref()).collect();
    let Some(project) = all.first() else {
        return Ok(Outcome::default());
    };
    let missing: Vec<PathBuf> = project
        .functions
        .iter()
        .map(|function| format::shorten(&function.source))
        .filter(|source| !source.is_file())
        .collect();
    let functions: Vec<&FunctionName> =
        project.functions.iter().map(|function| &function.name).collect();
    let mut text = format!(
        "{}: app {}, {}",
        format::shorten(&file).display(),
        project.app,
        format::counted(functions.len(), "function")
    );
    if !environments.is_empty() {
        text.push_str(&format!(", environments {}", environments.join(", ")));
    }
    text.push('\n');
    for source in &missing {
        text.push_str(&format!("not built yet: {}\n", source.display()));
    }
    let data = Checked { app: &project.app, functions, environments, not_built: missing };
    Outcome::new(&data, text)
}
