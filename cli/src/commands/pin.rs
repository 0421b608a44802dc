//! `faas pin APP VERSION`, `faas unpin APP VERSION`

use crate::{
    args,
    context::{Context, app_or_here},
    documents::Pinned,
    error::Result,
    ui::Outcome,
};

pub(crate) async fn run(context: &Context, args: &args::Pin, pinned: bool) -> Result<Outcome> {
    let verb = if pinned { "pin" } else { "unpin" };
    let hint = format!("name an app: faas {verb} APP {}", args.version);
    let app = app_or_here(args.app.as_ref(), &hint)?;
    let kept = context.client()?.pin(&app, args.version, pinned).await;
    kept.map_err(|error| error.about(&app))?;
    let text = match pinned {
        true => format!("{} is kept until it is unpinned\n", args.version),
        false => format!("{} is kept as any other version\n", args.version),
    };
    Outcome::new(&Pinned { app: &app, version: args.version, pinned }, text)
}
