//! `faas backup FILE`

use crate::{
    args,
    artifact::io_text,
    client::Download,
    context::Context,
    documents::BackupSaved,
    error::{CliError, Exit, Result},
    format,
    ui::{Outcome, Ui},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The blocks that end an archive are zeros.
const END: usize = 1024;
/// Archives consist of blocks of this size.
const BLOCK: u64 = 512;

pub(crate) async fn run(context: &Context, args: &args::Backup) -> Result<Outcome> {
    let file = &args.file;
    if file == Path::new("-") {
        if context.ui.is_json() {
            return Err(CliError::usage("the backup itself goes to standard output")
                .hint("name a file, or leave out `-o json`"));
        }
        let client = context.client()?;
        let mut download = client.backup().await?;
        receive(&mut download, |bytes| context.ui.bytes(bytes)).await?;
        return Ok(Outcome::streamed());
    }
    let bytes = save(context, file).await?;
    warn(&context.ui, bytes);
    let text = format!("{}\n", file.display());
    Outcome::new(&BackupSaved { file, bytes }, text)
}

fn warn(ui: &Ui, bytes: u64) {
    let size = format::size(bytes);
    ui.notice(&format!("{size}; it holds the node's secrets: keep it where nobody else reads it"));
}

/// Writes it beside its place first: under its own name there is a whole backup or none.
async fn save(context: &Context, file: &Path) -> Result<u64> {
    if fs::symlink_metadata(file).is_ok() {
        let message = format!("`{}` exists, and no backup is ever overwritten", file.display());
        return Err(CliError::new(Exit::Conflict, "in_the_way", message)
            .hint("choose another name, or move it away"));
    }
    let mut partial = Partial::create(file)?;
    let client = context.client()?;
    let mut download = client.backup().await?;
    let bytes = receive(&mut download, |bytes| {
        partial.to.write_all(bytes).map_err(|error| cannot("write", &partial.path, &error))
    })
    .await?;
    partial.finish(file)?;
    Ok(bytes)
}

/// Hands on what comes, and makes sure that it has an end. Returns how many bytes came.
async fn receive(
    download: &mut Download<'_>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    let mut zeros = 0;
    while let Some(bytes) = download.next().await? {
        take(&bytes)?;
        count += bytes.len() as u64;
        let at_end = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        zeros = if at_end == bytes.len() { zeros + at_end } else { at_end };
    }
    // Not every proxy tells that what it passed on broke off.
    if zeros < END || count % BLOCK != 0 {
        let message = "the server broke off before the backup was whole";
        return Err(CliError::new(Exit::Unreachable, "broken_off", message)
            .hint("the server's log may say more"));
    }
    Ok(count)
}

/// A file that is not whole yet; removed unless it becomes so.
struct Partial {
    path: PathBuf,
    to: File,
    kept: bool,
}

impl Partial {
    fn create(file: &Path) -> Result<Self> {
        let Some(name) = file.file_name() else {
            return Err(CliError::usage(format!("`{}` is no file name", file.display())));
        };
        let mut partial = name.to_owned();
        partial.push(".partial");
        let path = file.with_file_name(partial);
        // What an earlier run left.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(cannot("remove", &path, &error));
            }
            _ => {}
        }
        let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let to = to.map_err(|error| cannot("write", &path, &error))?;
        Ok(Self { path, to, kept: false })
    }

    fn finish(mut self, file: &Path) -> Result<()> {
        let finished = self.to.sync_all().and_then(|()| fs::rename(&self.path, file));
        self.kept = finished.is_ok();
        finished.map_err(|error| cannot("write", file, &error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Its name says that it is no backup.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn cannot(doing: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("cannot {doing} `{}`: {}", path.display(), io_text(error)))
}
