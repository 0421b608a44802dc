//! `faas delete APP`

use crate::{
    args,
    context::Context,
    documents::Deleted,
    error::{CliError, Exit, Result},
    format,
    ui::Outcome,
};

pub(crate) async fn run(context: &Context, args: &args::Delete) -> Result<Outcome> {
    let app = &args.app;
    if !context.yes() && !context.is_interactive() {
        return Err(CliError::usage(format!("deleting `{app}` needs a yes"))
            .hint(format!("faas delete {app} --yes")));
    }
    let client = context.client()?;
    if !context.yes() {
        let (found, _etag) = client.app(app).await?;
        let versions = format::counted(found.versions, "version");
        if !context.ui.confirm(&format!("delete {app} with its {versions}?")).await? {
            return Err(CliError::new(Exit::Failed, "declined", format!("`{app}` was kept")));
        }
    }
    client.delete(app).await?;
    context.ui.notice(&format!("deleted {app}"));
    Outcome::new(&Deleted { app }, "")
}
