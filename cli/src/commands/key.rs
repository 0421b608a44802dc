//! `faas key create | list | revoke`

use crate::{
    args,
    context::Context,
    documents::KeyRevoked,
    error::{CliError, Exit, Result},
    format::{self, Table},
    ui::Outcome,
};
use faas_api::{ApiKey, AppName, FunctionName, NewKey};
use jiff::{SignedDuration, Timestamp};

pub(crate) async fn run(context: &Context, verb: args::KeyVerb) -> Result<Outcome> {
    match verb {
        args::KeyVerb::Create(args) => create(context, args).await,
        args::KeyVerb::List(args) => list(context, &args.of.app()?).await,
        args::KeyVerb::Revoke(args) => revoke(context, args).await,
    }
}

async fn create(context: &Context, args: args::KeyCreate) -> Result<Outcome> {
    let args::KeyCreate { name, of, functions, expires } = args;
    let app = of.app()?;
    let expires_at = expires.map(|text| end(&text, Timestamp::now())).transpose()?;
    let new = NewKey { name, functions, expires_at };
    let created = context.client()?.create_key(&app, &new).await?;
    let key = &created.key;
    context.ui.notice(&format!("key {} of {app}, for {}", key.name, functions_of(key)));
    context
        .ui
        .notice("it is shown only now; send it as `authorization: Bearer KEY` or `x-api-key`");
    let text = format!("{}\n", created.secret);
    Outcome::new(&created, text)
}

async fn list(context: &Context, app: &AppName) -> Result<Outcome> {
    let list = context.client()?.keys(app).await?;
    if list.keys.is_empty() {
        context.ui.notice(&format!("no keys yet; `faas key create NAME --app {app}` makes one"));
        return Outcome::new(&list, "");
    }
    let now = Timestamp::now();
    let mut table = Table::new(["NAME", "FUNCTIONS", "CREATED", "BY", "EXPIRES", "ID"]);
    for key in &list.keys {
        table.row([
            key.name.to_string(),
            functions_of(key),
            format::ago(key.created_at, now),
            format::printable(&key.created_by).into_owned(),
            expiry(key, now),
            format::printable(&key.id).into_owned(),
        ]);
    }
    Outcome::new(&list, table.to_text())
}

async fn revoke(context: &Context, args: args::KeyRevoke) -> Result<Outcome> {
    let args::KeyRevoke { key, of } = args;
    let app = of.app()?;
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if key.is_empty() || !key.bytes().all(is_word) {
        let message = format!("`{}` is no key's id or name", format::printable(&key));
        return Err(CliError::new(Exit::Usage, "usage", message)
            .hint(format!("`faas key list --app {app}` shows both")));
    }
    let revoked = context.client()?.revoke_key(&app, &key).await;
    revoked.map_err(|error| error.about(&app))?;
    context.ui.notice(&format!("revoked {key}"));
    Outcome::new(&KeyRevoked { app: &app, key: &key }, "")
}

fn functions_of(key: &ApiKey) -> String {
    let names: Vec<&str> = key.functions.iter().map(FunctionName::as_str).collect();
    if names.is_empty() { "all functions".to_owned() } else { names.join(" ") }
}

fn expiry(key: &ApiKey, now: Timestamp) -> String {
    match key.expires_at {
        None => "never".to_owned(),
        Some(end) if end <= now => "expired".to_owned(),
        Some(end) => end.strftime("%Y-%m-%d").to_string(),
    }
}

/// A time (RFC 3339), or a number and a unit from now on.
fn end(text: &str, now: Timestamp) -> Result<Timestamp> {
    let unit = |seconds: i64| move |number: i64| number.checked_mul(seconds);
    let relative = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)].into_iter().find_map(
        |(letter, seconds)| text.strip_suffix(letter)?.parse().ok().and_then(unit(seconds)),
    );
    let time = match relative {
        Some(seconds) => now.checked_add(SignedDuration::from_secs(seconds)).ok(),
        None => text.parse().ok(),
    };
    time.filter(|time| *time > now).ok_or_else(|| {
        CliError::usage(format!("`{}` is no time to come", format::printable(text)))
            .hint("write 30m, 12h, 90d, or a time as 2030-01-01T00:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_key_ends() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let at = |text: &str| end(text, now).map(|time| time.to_string()).ok();
        for (text, time) in [
            ("90d", "2027-02-24T12:00:00Z"),
            ("12h", "2026-11-27T00:00:00Z"),
            ("30m", "2026-11-26T12:30:00Z"),
            ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(time));
        }
        for bad in ["", "d", "0d", "-1d", "soon", "2020-01-01T00:00:00Z", "9223372036854775807d"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
