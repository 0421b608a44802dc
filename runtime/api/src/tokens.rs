//! Tokens: who may do what, on which apps, until when.

use crate::{AppName, Digest, TokenId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Write as _},
    str::FromStr,
};
use utoipa::ToSchema;

/// The longest name of a token, in bytes.
pub const MAX_TOKEN_NAME_BYTES: usize = 64;
/// The most apps that one token can name.
pub const MAX_SCOPE_APPS: usize = 100;

/// What the text of every token begins with.
pub const TOKEN_PREFIX: &str = "faas_";
/// The length of what stands between prefix and check: 256 bits, four per digit.
const CHANCE_LEN: usize = 64;
/// The length of the check.
const CHECK_LEN: usize = 8;

/// The text of a token made of these bytes of chance: the prefix, the bytes as hexadecimal digits,
/// and a check of those.
pub fn checked_text(chance: &[u8; 32]) -> String {
    let mut text = TOKEN_PREFIX.to_owned();
    for byte in chance {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str(&check_of(&text));
    text
}

/// Why a text cannot be a token, where its form alone tells. A server's own token has no check.
///
/// # Errors
/// What is wrong with it, as the end of a sentence about it.
pub fn check_text(text: &str) -> Result<(), &'static str> {
    let Some(digits) = text.strip_prefix(TOKEN_PREFIX) else {
        // An operator may have chosen the server's own token.
        return match text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Err("is not one word of ASCII characters"),
            false => Ok(()),
        };
    };
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !digits.bytes().all(is_digit) {
        return Err("has characters that no token has");
    }
    match digits.len() {
        CHANCE_LEN => Ok(()),
        len if len == CHANCE_LEN + CHECK_LEN => {
            let (chance, check) = text.split_at(TOKEN_PREFIX.len() + CHANCE_LEN);
            match check_of(chance) == check {
                true => Ok(()),
                false => Err("was mistyped"),
            }
        }
        _ => Err("was not copied whole"),
    }
}

fn check_of(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string().chars().take(CHECK_LEN).collect()
}

/// What a token may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// See apps, their versions and their logs.
    Read,
    /// Deploy, roll back and move traffic; it includes seeing the app and its versions, not its
    /// logs.
    Deploy,
    /// Look up where an app answers, to call it.
    Invoke,
    /// Write configuration and secrets.
    Secrets,
    /// Everything, deleting apps and making tokens too.
    Admin,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] = [Self::Read, Self::Deploy, Self::Invoke, Self::Secrets, Self::Admin];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Invoke => "invoke",
            Self::Secrets => "secrets",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is no verb.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token can do `read`, `deploy`, `invoke`, `secrets` or `admin`")]
pub struct VerbError;

impl FromStr for Verb {
    type Err = VerbError;

    fn from_str(text: &str) -> Result<Self, VerbError> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).ok_or(VerbError)
    }
}

/// Some verbs on some apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The apps; absent: every app, those that will be made later too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["shop"]), min_items = 1,
        max_items = 100)]
    pub apps: Option<Vec<AppName>>,
    /// What may be done with them. `admin` includes the others.
    #[schema(min_items = 1, example = json!(["read", "deploy"]))]
    pub can: Vec<Verb>,
}

impl Scope {
    /// Every verb on every app.
    pub fn everything() -> Self {
        Self { apps: None, can: Verb::ALL.to_vec() }
    }

    /// The same without repetitions and in order.
    ///
    /// # Errors
    /// When it allows nothing, or names too many apps; the text says which.
    pub fn checked(mut self) -> Result<Self, String> {
        self.can.sort_unstable();
        self.can.dedup();
        if self.can.is_empty() {
            return Err("`can` is empty: such a token could do nothing".to_owned());
        }
        if let Some(apps) = &mut self.apps {
            apps.sort_unstable();
            apps.dedup();
            if apps.is_empty() {
                return Err("`apps` is empty: leave it out for every app".to_owned());
            }
            if apps.len() > MAX_SCOPE_APPS {
                return Err(format!("a token names at most {MAX_SCOPE_APPS} apps"));
            }
        }
        Ok(self)
    }

    /// Whether it includes this verb, on whichever app.
    pub fn allows_somewhere(&self, verb: Verb) -> bool {
        self.can.contains(&verb) || self.can.contains(&Verb::Admin)
    }

    /// Whether it includes this verb on every app.
    pub fn allows_everywhere(&self, verb: Verb) -> bool {
        self.apps.is_none() && self.allows_somewhere(verb)
    }

    /// Whether it includes this verb on the app of this name, which may be no valid name.
    pub fn allows(&self, verb: Verb, app: &str) -> bool {
        let named = |apps: &Vec<AppName>| apps.iter().any(|name| name.as_str() == app);
        self.allows_somewhere(verb) && self.apps.as_ref().is_none_or(named)
    }

    /// Whether it allows everything that `other` allows.
    pub fn covers(&self, other: &Self) -> bool {
        let every_verb = other.can.iter().all(|verb| self.allows_somewhere(*verb));
        let every_app = match (&self.apps, &other.apps) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => others.iter().all(|app| own.contains(app)),
        };
        every_verb && every_app
    }
}

impl fmt::Display for Scope {
    /// In a few words: `read, deploy on shop`, `admin on every app`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What includes the others says enough.
        let can = match self.can.contains(&Verb::Admin) {
            true => &[Verb::Admin][..],
            false => &self.can,
        };
        list(f, can)?;
        f.write_str(" on ")?;
        match &self.apps {
            Some(apps) => list(f, apps),
            None => f.write_str("every app"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// The body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What versions and the audit log call it; its id when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "ci", min_length = 1, max_length = 64)]
    pub name: Option<String>,
    /// What it may do. Nobody can give more than they have.
    pub scope: Scope,
    /// Seconds until it expires; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3_153_600_000_u64, example = 7_776_000)]
    pub expires_in_s: Option<u64>,
}

/// A token as everybody who may see it sees it: without what it is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What it is revoked by.
    #[schema(value_type = String, example = "3fa91c07be")]
    pub id: TokenId,
    /// What versions and the audit log call it.
    #[schema(example = "ci")]
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The name of the token that made it.
    pub created_by: String,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked; absent: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
    /// About when it was last used, to the hour after a crash; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

/// The answer of `POST /v1/tokens`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// What to send as bearer token. It is shown this once and kept nowhere.
    pub secret: String,
    /// The token.
    pub token: Token,
}

impl fmt::Debug for CreatedToken {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedToken").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The answer of `GET /v1/tokens`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// The tokens; expired and revoked ones stay for a while.
    pub tokens: Vec<Token>,
}

/// The answer of `GET /v1/whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// The name of the token that asks; `admin` for the server's own.
    #[schema(example = "ci")]
    pub name: String,
    /// Its id; absent for the server's own, which cannot be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "3fa91c07be")]
    pub id: Option<TokenId>,
    /// What it may do.
    pub scope: Scope,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(apps: Option<&[&str]>, can: &[Verb]) -> Scope {
        let names = |apps: &[&str]| apps.iter().map(|app| app.parse().unwrap()).collect();
        Scope { apps: apps.map(names), can: can.to_vec() }
    }

    #[test]
    fn words() {
        for verb in Verb::ALL {
            assert_eq!(verb.as_str().parse(), Ok(verb));
            assert_eq!(serde_json::to_value(verb).unwrap(), verb.as_str());
        }
        for bad in ["", "Read", "write", "read ", "*"] {
            assert_eq!(bad.parse::<Verb>(), Err(VerbError), "{bad}");
        }
    }

    #[test]
    fn a_scope_allows_what_it_names() {
        let one = scope(Some(&["shop"]), &[Verb::Read, Verb::Deploy]);
        assert!(one.allows(Verb::Read, "shop") && one.allows(Verb::Deploy, "shop"));
        for (verb, app) in
            [(Verb::Read, "shop2"), (Verb::Read, "sho"), (Verb::Read, ""), (Verb::Admin, "shop")]
        {
            assert!(!one.allows(verb, app), "{verb} {app}");
        }
        assert!(one.allows_somewhere(Verb::Read) && !one.allows_everywhere(Verb::Read));
        let all = scope(None, &[Verb::Read]);
        assert!(all.allows_everywhere(Verb::Read) && all.allows(Verb::Read, "any thing"));
        assert!(!all.allows(Verb::Deploy, "shop"));
        let admin = scope(Some(&["shop"]), &[Verb::Admin]);
        for verb in Verb::ALL {
            assert!(admin.allows(verb, "shop") && !admin.allows(verb, "other"), "{verb}");
            assert!(Scope::everything().allows_everywhere(verb));
        }
    }

    #[test]
    fn more_power_is_not_covered() {
        let own = scope(Some(&["a", "b"]), &[Verb::Read, Verb::Deploy]);
        for less in [
            scope(Some(&["a"]), &[Verb::Read]),
            scope(Some(&["b", "a"]), &[Verb::Deploy, Verb::Read]),
        ] {
            assert!(own.covers(&less), "{less}");
        }
        for more in [
            scope(None, &[Verb::Read]),
            scope(Some(&["c"]), &[Verb::Read]),
            scope(Some(&["a", "c"]), &[Verb::Read]),
            scope(Some(&["a"]), &[Verb::Invoke]),
            scope(Some(&["a"]), &[Verb::Read, Verb::Admin]),
        ] {
            assert!(!own.covers(&more), "{more}");
        }
        assert!(scope(Some(&["a"]), &[Verb::Admin]).covers(&scope(Some(&["a"]), &Verb::ALL)));
        assert!(!scope(Some(&["a"]), &[Verb::Admin]).covers(&Scope::everything()));
        assert!(scope(None, &[Verb::Admin]).covers(&Scope::everything()));
    }

    #[test]
    fn a_scope_that_allows_nothing_is_refused() {
        assert!(scope(None, &[]).checked().is_err());
        assert!(scope(Some(&[]), &[Verb::Read]).checked().is_err());
        let many: Vec<String> = (0..=MAX_SCOPE_APPS).map(|n| format!("app{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(scope(Some(&many), &[Verb::Read]).checked().is_err());
        let twice = scope(Some(&["b", "a", "b"]), &[Verb::Deploy, Verb::Read, Verb::Deploy]);
        let once = scope(Some(&["a", "b"]), &[Verb::Read, Verb::Deploy]);
        assert_eq!(twice.checked(), Ok(once.clone()));
        assert_eq!(once.to_string(), "read, deploy on a, b");
        assert_eq!(Scope::everything().to_string(), "admin on every app");
    }

    #[test]
    fn a_text_that_is_not_whole_is_noticed() {
        let text = checked_text(&[0x5a; 32]);
        assert_eq!(text.len(), 77);
        assert_ne!(text, checked_text(&[0x5b; 32]));
        let own = text.split_at(69).0.to_owned();
        let mistyped = text.replacen("5a", "a5", 1);
        for (good, candidate) in [
            (true, text.as_str()),
            (true, &own),
            (true, "chosen-by-an-operator"),
            (false, text.split_at(76).0),
            (false, text.split_at(40).0),
            (false, &mistyped),
            (false, &text.to_uppercase().replace("FAAS_", "faas_")),
            (false, "faas_"),
            (false, ""),
            (false, "two words"),
            (false, "new\nline"),
        ] {
            assert_eq!(check_text(candidate).is_ok(), good, "{candidate}");
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        let token = Token {
            id: "0123456789".parse().unwrap(),
            name: "ci".into(),
            scope: Scope::everything(),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: "admin".into(),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        let created = CreatedToken { secret: "faas_topsecret".into(), token };
        assert!(!format!("{created:?}").contains("topsecret"));
    }
}
