//! `faas pin APP VERSION`, `faas unpin APP VERSION`

use crate::{args, context::Context, documents::Pinned, error::Result, ui::Outcome};

pub(crate) async fn run(context: &Context, args: &args::Pin, pinned: bool) -> Result<Outcome> {
    context.client()?.pin(&args.app, args.version, pinned).await?;
    let text = match pinned {
        true => format!("{} is kept until it is unpinned\n", args.version),
        false => format!("{} is kept as any other version\n", args.version),
    };
    Outcome::new(&Pinned { app: &args.app, version: args.version, pinned }, text)
}
