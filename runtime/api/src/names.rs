//! Names that come from outside. They are parsed once, at the door; everything behind it takes
//! these types and never a raw string.

use serde::{Deserialize, Serialize, Serializer};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The longest app or function name, in bytes.
pub const MAX_NAME_LEN: usize = 40;

/// The longest name of a variable or secret, in bytes.
pub const MAX_VAR_LEN: usize = 128;
/// The length of a token's id, in characters.
pub const TOKEN_ID_LEN: usize = 10;

/// App names that the platform keeps for itself.
pub const RESERVED_APP_NAMES: [&str; 5] = ["faas", "admin", "api", "internal", "www"];

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The string is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// More than [`MAX_NAME_LEN`] bytes.
    #[error("a name has at most {MAX_NAME_LEN} characters, this one has {0}")]
    TooLong(usize),
    /// It must start with a letter and end with a letter or digit (RFC 1035 §2.3.1).
    #[error("a name starts with a letter and ends with a letter or a digit")]
    BadEdge,
    /// Only `a-z`, `0-9` and `-` may stand in a name.
    #[error("`{}` cannot stand in a name: only a-z, 0-9 and - can", .0.escape_debug())]
    BadCharacter(char),
    /// `--` separates a version from an app in preview host names.
    #[error("`--` cannot stand in a name")]
    DoubleHyphen,
    /// The name is one of [`RESERVED_APP_NAMES`].
    #[error("the name `{0}` is reserved")]
    Reserved(String),
    /// Not of the form `v1`, `v2`, …
    #[error("a version is written `v1`, `v2`, …")]
    BadVersion,
    /// Not a host name of at least two labels (RFC 1123 §2.1), or an address.
    #[error("a domain is a host name in lower case such as `shop.example.com`")]
    BadDomain,
    /// Not a name that an environment can have.
    #[error(
        "a variable's name has letters, digits and `_`, does not start with a digit, and at most {MAX_VAR_LEN} characters"
    )]
    BadVariable,
    /// One of the names that CGI gives to a request (RFC 3875 §4.1).
    #[error("`{0}` is a name that CGI keeps for requests")]
    ReservedVariable(String),
    /// Not [`TOKEN_ID_LEN`] hexadecimal digits.
    #[error("a token's id has {TOKEN_ID_LEN} of 0-9 and a-f")]
    BadTokenId,
}

/// Checks the label rules that apps and functions share.
fn check_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong(text.len()));
    }
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    if let Some(bad) = text.chars().find(|c| !allowed(c)) {
        return Err(NameError::BadCharacter(bad));
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) || text.ends_with('-') {
        return Err(NameError::BadEdge);
    }
    if text.contains("--") {
        return Err(NameError::DoubleHyphen);
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        // A node of thousands of apps has each name in several places.
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        // By hand, for a copy of the text would be made otherwise, in every line of a log.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name_type!(
    /// The name of an app: the unit of ownership, deploy and routing. An RFC 1035 label of at most
    /// [`MAX_NAME_LEN`] characters without `--`, and none of [`RESERVED_APP_NAMES`].
    AppName,
    |text: &str| {
        check_label(text)?;
        match RESERVED_APP_NAMES.contains(&text) {
            true => Err(NameError::Reserved(text.to_owned())),
            false => Ok(()),
        }
    }
);

name_type!(
    /// The name of a function inside an app: the same label rules as [`AppName`], none reserved.
    FunctionName,
    check_label
);

name_type!(
    /// The name of an API key of an app: the same label rules as [`AppName`], none reserved.
    KeyName,
    check_label
);

name_type!(
    /// A host name that an app answers on: lower case, at least two labels, no address, at most 253
    /// characters (RFC 1123 §2.1).
    Domain,
    check_domain
);

name_type!(
    /// The name of an environment variable or of a secret: letters, digits and `_`, not starting
    /// with a digit, at most [`MAX_VAR_LEN`] characters, and none that CGI keeps for requests.
    VarName,
    check_variable
);

fn check_domain(text: &str) -> Result<(), NameError> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The last label of an address is a number; no top-level domain is one (RFC 3696 §2).
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    let last = text.rsplit('.').next().unwrap_or_default();
    let good = text.len() <= 253
        && text.contains('.')
        && text.split('.').all(is_label)
        && !is_number(last);
    if good { Ok(()) } else { Err(NameError::BadDomain) }
}

fn check_variable(text: &str) -> Result<(), NameError> {
    let good = (1..=MAX_VAR_LEN).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit());
    if !good {
        return Err(NameError::BadVariable);
    }
    const CGI: [&str; 15] = [
        "AUTH_TYPE",
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "GATEWAY_INTERFACE",
        "PATH_INFO",
        "PATH_TRANSLATED",
        "QUERY_STRING",
        "REMOTE_ADDR",
        "REMOTE_HOST",
        "REQUEST_METHOD",
        "REQUEST_URI",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
    ];
    match CGI.contains(&text) || text.starts_with("HTTP_") || text == "HTTPS" {
        true => Err(NameError::ReservedVariable(text.to_owned())),
        false => Ok(()),
    }
}

name_type!(
    /// What a token is known and revoked by: [`TOKEN_ID_LEN`] lower-case hexadecimal digits. It is
    /// no secret.
    TokenId,
    |text: &str| {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.len() == TOKEN_ID_LEN && text.bytes().all(digit) {
            true => Ok(()),
            false => Err(NameError::BadTokenId),
        }
    }
);

/// The number of a version of an app, written `v1`, `v2`, …; numbers are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct VersionId(u32);

impl Serialize for VersionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl VersionId {
    /// The version with this number; versions count from 1.
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number behind the `v`.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl FromStr for VersionId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix('v').ok_or(NameError::BadVersion)?;
        let canonical = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse() {
            Ok(number) if canonical => Ok(Self(number)),
            _ => Err(NameError::BadVersion),
        }
    }
}

impl TryFrom<String> for VersionId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<VersionId> for String {
    fn from(version: VersionId) -> String {
        version.to_string()
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn app(text: &str) -> Result<AppName, NameError> {
        text.parse()
    }

    #[test]
    fn good_names() {
        for text in ["a", "hello", "a1", "my-app-2", &"a".repeat(40)] {
            assert_eq!(app(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn bad_names_say_why() {
        assert_eq!(app(""), Err(NameError::Empty));
        assert_eq!(app("../x"), Err(NameError::BadCharacter('.')));
        assert_eq!(app("A"), Err(NameError::BadCharacter('A')));
        assert_eq!(app("a--b"), Err(NameError::DoubleHyphen));
        assert_eq!(app(&"a".repeat(41)), Err(NameError::TooLong(41)));
        assert_eq!(app("a\0"), Err(NameError::BadCharacter('\0')));
        assert_eq!(app("1a"), Err(NameError::BadEdge));
        assert_eq!(app("a-"), Err(NameError::BadEdge));
        assert_eq!(app("-a"), Err(NameError::BadEdge));
        assert_eq!(app("admin"), Err(NameError::Reserved("admin".into())));
        assert!("admin".parse::<FunctionName>().is_ok());
    }

    #[test]
    fn domains_and_variables() {
        for text in ["shop.example.com", "a.b", "xn--bcher-kva.example", "1.example"] {
            assert!(text.parse::<Domain>().is_ok(), "{text}");
        }
        for text in ["", "localhost", "Shop.example", "a..b", ".a.b", "a.b.", "-a.b", "a_b.c"] {
            assert_eq!(text.parse::<Domain>(), Err(NameError::BadDomain), "{text}");
        }
        for text in ["127.0.0.1", "a.b:80", "[::1]", "*.a.b", &format!("{}.b", "a".repeat(64))] {
            assert_eq!(text.parse::<Domain>(), Err(NameError::BadDomain), "{text}");
        }
        for text in ["A", "_x", "STRIPE_KEY", "log_level2", "HTTPX"] {
            assert!(text.parse::<VarName>().is_ok(), "{text}");
        }
        for text in ["", "1A", "A-B", "A B", "Ä", &"A".repeat(MAX_VAR_LEN + 1)] {
            assert_eq!(text.parse::<VarName>(), Err(NameError::BadVariable), "{text}");
        }
        for text in ["HTTP_HOST", "HTTP_PROXY", "PATH_INFO", "HTTPS"] {
            assert!(matches!(text.parse::<VarName>(), Err(NameError::ReservedVariable(_))));
        }
    }

    #[test]
    fn versions() {
        assert_eq!("v12".parse(), Ok(VersionId::new(12)));
        for bad in ["", "v", "12", "v0", "v01", "v-1", "v+1", "v4294967296", "V1"] {
            assert_eq!(bad.parse::<VersionId>(), Err(NameError::BadVersion), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_survives_the_wire(text in "[a-z][a-z0-9]{0,10}(-[a-z0-9]{1,8}){0,2}") {
            let name: FunctionName = text.parse().unwrap();
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<FunctionName>(&json).unwrap(), name);
        }

        #[test]
        fn no_name_escapes_its_folder(text in "\\PC*") {
            if let Ok(name) = text.parse::<FunctionName>() {
                prop_assert!(!name.as_str().contains(['/', '\\', '.', '\0', '%', ' ']));
            }
        }
    }
}
