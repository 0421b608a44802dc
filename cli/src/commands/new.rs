//! `faas new NAME`

use crate::{
    args::{self, Lang},
    artifact::io_text,
    context::Context,
    documents::Started,
    error::{CliError, Exit, Result},
    ui::Outcome,
};
use faas_api::AppName;
use std::path::Path;

/// A file of a template: where it goes, and its text.
type File = (&'static str, &'static str);

/// The files of a template, listed by their paths below `templates/<language>`.
macro_rules! template {
    ($lang:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../templates/", $lang, "/", $name)))),*]
    };
}

const RUST: &[File] =
    template!("rust": "faas.toml" "src/lib.rs" "Cargo.toml.tmpl" "README.md" "gitignore.tmpl");
const JS: &[File] = template!("js":
    "faas.toml" "src/index.js" "package.json.tmpl" "build.mjs" "README.md" "gitignore.tmpl"
    "wit/world.wit");
const PYTHON: &[File] = template!("python":
    "faas.toml" "app.py" "build.sh" "requirements.txt" "README.md" "gitignore.tmpl"
    "wit/world.wit");
const C: &[File] = template!("c": "faas.toml" "main.c" "build.sh" "README.md" "gitignore.tmpl");

/// The interfaces that `wit/world.wit` names, the same for every language that needs them.
const WIT: &[File] = &[
    ("wit/deps/clocks.wit", include_str!("../../templates/wit/clocks.wit")),
    ("wit/deps/http.wit", include_str!("../../templates/wit/http.wit")),
    ("wit/deps/io.wit", include_str!("../../templates/wit/io.wit")),
];

pub(crate) fn run(context: &Context, args: &args::New) -> Result<Outcome> {
    let dir = &args.name;
    let name = app_name(dir)?;
    refuse_occupied(dir)?;
    let (own, shared, shown) = match args.lang {
        Lang::Rust => (RUST, &[][..], "src/lib.rs"),
        Lang::Js => (JS, WIT, "src/index.js"),
        Lang::Python => (PYTHON, WIT, "app.py"),
        Lang::C => (C, &[][..], "main.c"),
    };
    let mut written = Vec::new();
    for (path, text) in own.iter().chain(shared) {
        let path = installed_path(path);
        write(&dir.join(&path), &fill(text, &name))?;
        written.push(path);
    }
    let folder = dir.display();
    context.ui.notice(&format!("created {folder}/  (faas.toml, {shown}, README.md)"));
    context.ui.notice(&format!("next: cd {folder} && faas dev"));
    Outcome::new(&Started { app: &name, path: dir, files: written }, "")
}

fn app_name(dir: &Path) -> Result<AppName> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name.parse().map_err(|error| {
        CliError::new(Exit::Usage, "invalid_name", format!("`{name}` cannot name an app: {error}"))
    })
}

fn refuse_occupied(dir: &Path) -> Result<()> {
    let occupied = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if !occupied {
        return Ok(());
    }
    let message = format!("`{}` is there already, and not empty", dir.display());
    Err(CliError::new(Exit::Conflict, "conflict", message).hint("choose another name"))
}

/// Where a file of a template goes. Names that tools would act on here are stored as `X.tmpl`.
fn installed_path(stored: &str) -> String {
    match stored.strip_suffix(".tmpl") {
        Some("gitignore") => ".gitignore".to_owned(),
        Some(path) => path.to_owned(),
        None => stored.to_owned(),
    }
}

fn fill(text: &str, name: &AppName) -> String {
    text.replace("{{name}}", name.as_str())
        .replace("{{crate}}", &name.as_str().replace('-', "_"))
        .replace("{{sdk}}", &sdk())
}

/// The SDK as a dependency: by path while this binary's own sources are here, else by version.
fn sdk() -> String {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk"));
    match sources.join("Cargo.toml").is_file().then(|| sources.canonicalize()) {
        Some(Ok(path)) => format!("{{ path = {:?} }}", path.display().to_string()),
        _ => "\"0.1\"".to_owned(),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let made = match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder),
        None => Ok(()),
    };
    made.and_then(|()| std::fs::write(path, text)).map_err(|error| {
        CliError::failed(format!("cannot write `{}`: {}", path.display(), io_text(&error)))
    })
}
