//! Why a component stays as it is.

use wasm_encoder::reencode;

/// Why a component was not merged. It is used as it is then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmerged {
    /// No two core instances can become one.
    #[error("there are no two core instances that can become one")]
    Nothing,
    /// It has something that a merge would have to understand and does not.
    #[error("{0} cannot be merged")]
    Unsupported(&'static str),
    /// The component itself is not valid.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// What the merge made of it is not valid, for example since it exceeds a limit.
    #[error("the merged component is not valid: {0}")]
    Output(String),
}

/// The short form of [`Unmerged::Invalid`] for what validation has already excluded.
pub(crate) fn invalid(what: &str) -> Unmerged {
    Unmerged::Invalid(what.to_owned())
}

impl From<wasmparser::Error> for Unmerged {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<reencode::Error<Unmerged>> for Unmerged {
    fn from(error: reencode::Error<Unmerged>) -> Self {
        match error {
            reencode::Error::UserError(error) => error,
            reencode::Error::ParseError(error) => error.into(),
            other => Self::Invalid(other.to_string()),
        }
    }
}

impl From<Unmerged> for reencode::Error<Unmerged> {
    fn from(error: Unmerged) -> Self {
        Self::UserError(error)
    }
}
