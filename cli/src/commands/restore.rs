//! `faas restore FILE`

use crate::{
    args,
    artifact::io_text,
    context::Context,
    documents::BackupRestored,
    error::{CliError, Exit, Result},
    format,
    ui::Outcome,
};
use faas_runtime::{RestoreError, Restored, config::default_data_dir};
use jiff::Timestamp;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

pub(crate) async fn run(context: &Context, args: args::Restore) -> Result<Outcome> {
    let args::Restore { file, data_dir } = args;
    let from: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let opened = File::open(&file);
        Box::new(opened.map_err(|error| {
            CliError::usage(format!("cannot read `{}`: {}", file.display(), io_text(&error)))
        })?)
    };
    let data_dir = data_dir.unwrap_or_else(default_data_dir);
    let restored = faas_runtime::restore(from, data_dir).await.map_err(explain)?;
    let Restored { data_dir, created_at, faas, files, bytes, apps } = restored;
    context.ui.notice(&format!(
        "{}, {} in {}, of {} by faas {}",
        format::counted(apps, "app"),
        format::size(bytes),
        format::counted(files, "file"),
        format::ago(created_at, Timestamp::now()),
        format::printable(&faas),
    ));
    let text = format!("{}\n", data_dir.display());
    let data = BackupRestored { data_dir, created_at, faas, files, bytes, apps };
    Outcome::new(&data, text)
}

fn explain(error: RestoreError) -> CliError {
    let (exit, code) = match error {
        RestoreError::NotABackup(_) => (Exit::Rejected, "not_a_backup"),
        RestoreError::Damaged(_) => (Exit::Rejected, "damaged"),
        RestoreError::InTheWay(_) => (Exit::Conflict, "in_the_way"),
        RestoreError::Failed(_) => (Exit::Failed, "failed"),
    };
    let error = CliError::several_lines(exit, code, &error.to_string());
    match exit {
        Exit::Rejected => error.hint("nothing was changed; try another backup"),
        _ => error,
    }
}
