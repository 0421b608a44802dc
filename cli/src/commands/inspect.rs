//! `faas inspect FILE`

use crate::{args, artifact::LocalArtifact, error::Result, format, ui::Outcome};
use faas_api::{Artifact, Kind};

pub(crate) fn run(args: &args::Inspect) -> Result<Outcome> {
    let local = LocalArtifact::read(&args.file)?;
    let text = describe(&args.file.display().to_string(), &local.artifact);
    Ok(Outcome::new(&local.artifact, text)?.failure(local.unknown_kind(&args.file)))
}

fn describe(file: &str, artifact: &Artifact) -> String {
    let kind = artifact.kind.map_or("unknown", Kind::describe);
    let size = match artifact.size {
        small @ 0..1024 => format::size(small),
        size => format!("{} ({} bytes)", format::size(size), format::count(size)),
    };
    let mut text = format!(
        "{}\n  kind     {kind}\n  size     {size}\n  memory   {} at start\n  digest   sha256:{}\n",
        format::printable(file),
        format::size(artifact.memory_bytes),
        artifact.digest
    );
    list(&mut text, "imports", &artifact.imports);
    list(&mut text, "exports", &artifact.exports);
    text
}

fn list(text: &mut String, title: &str, names: &[String]) {
    let mut title = title;
    for name in names.iter().map(String::as_str).chain(names.is_empty().then_some("none")) {
        text.push_str(&format!("  {title:<7}  {}\n", format::printable(name)));
        title = "";
    }
}
