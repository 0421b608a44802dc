//! Whether an app has the secrets that its functions name: told now, not by the first request.

use super::DeployError;
use crate::configuration::Configs;
use faas_api::{AppName, ErrorBody, ErrorCode, Manifest, VarName};
use std::collections::BTreeSet;

/// Whether every secret that a manifest names is there.
///
/// # Errors
/// Those that are not.
pub(super) async fn check(
    configs: &Configs,
    app: &AppName,
    manifest: &Manifest,
) -> Result<(), DeployError> {
    let functions = manifest.functions.iter().map(|function| &function.settings);
    let missing = configs.missing(app, functions).await?;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(missing_secrets(app, &missing).into()),
    }
}

/// The answer to functions that name secrets which their app does not have.
pub(crate) fn missing_secrets(app: &AppName, missing: &BTreeSet<VarName>) -> ErrorBody {
    let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
    let (what, are) = if names.len() == 1 { ("secret", "is") } else { ("secrets", "are") };
    let first = missing.first().map(VarName::as_str).unwrap_or_default();
    ErrorBody::new(ErrorCode::MissingSecret)
        .detail(format!("the {what} {} {are} not set", names.join(", ")))
        .hint(format!("faas secret put {first} --app {app}"))
}
