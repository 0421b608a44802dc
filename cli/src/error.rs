//! Why a command ends without its result: a code for scripts, a sentence and a hint for people.

use faas_api::{AppName, ImportProblem};
use serde::Serialize;
use std::{borrow::Cow, fmt, process::ExitCode};
use utoipa::ToSchema;

pub(crate) type Result<T> = std::result::Result<T, CliError>;

/// The exit codes. They are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Whoever read the output has seen enough (`faas logs | head`), which is no failure.
    ReaderLeft = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line or a manifest is wrong.
    Usage = 2,
    /// The token is missing, wrong, or not enough.
    NotAuthorised = 3,
    /// No such app, version or file on the server.
    NotFound = 4,
    /// Something else is in the way, or changed in between.
    Conflict = 5,
    /// The server cannot be reached, or stopped answering.
    Unreachable = 6,
    /// The build command failed, or a tool it needs is missing.
    BuildFailed = 7,
    /// The artifact cannot run.
    Rejected = 8,
    /// Interrupted by the user.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure, as the person or the script at the other end needs it.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    /// A stable word.
    pub(crate) code: Cow<'static, str>,
    /// A lower-case fragment, values in backticks, no final dot.
    pub(crate) message: String,
    /// Lines between the message and the hint: a table, a piece of a file.
    pub(crate) details: Vec<String>,
    pub(crate) hint: Option<String>,
    /// What only a server's answer has.
    pub(crate) answer: Option<Box<Answer>>,
}

/// What a server said besides the code and the sentence.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
    pub(crate) imports: Vec<ImportProblem>,
}

impl CliError {
    pub(crate) fn new(
        exit: Exit,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            exit,
            code: code.into(),
            message: message.into(),
            details: Vec::new(),
            hint: None,
            answer: None,
        }
    }

    /// A wrong command line, or a file named there that cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// This machine did not do what was needed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, "failed", message)
    }

    /// The user pressed ctrl-c.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted", "interrupted")
    }

    /// A text of several lines: the first is the message, the others are details.
    pub(crate) fn several_lines(
        exit: Exit,
        code: impl Into<Cow<'static, str>>,
        text: &str,
    ) -> Self {
        let mut lines = text.trim_end().lines();
        let message = lines.next().unwrap_or_default();
        Self::new(exit, code, message).details(lines.map(str::to_owned).collect())
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A server's hint with the app's name in the place of `APP`.
    pub(crate) fn about(mut self, app: &AppName) -> Self {
        self.hint = self.hint.map(|hint| hint.replace("APP", app.as_str()));
        self
    }

    /// A hint, unless there is a better one.
    pub(crate) fn hint_if_none(self, hint: &str) -> Self {
        match self.hint {
            Some(_) => self,
            None => self.hint(hint),
        }
    }

    pub(crate) fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// The same for scripts.
    pub(crate) fn to_json(&self) -> ErrorDocument<'_> {
        let answer = self.answer.as_deref();
        let imports = answer.map_or(&[][..], |answer| &answer.imports);
        ErrorDocument {
            code: &self.code,
            message: &self.message,
            hint: self.hint.as_deref(),
            request_id: answer.and_then(|answer| answer.request_id.as_deref()),
            status: answer.map(|answer| answer.status),
            // The table of imports is for people; scripts have the imports.
            details: if imports.is_empty() { &self.details } else { &[] },
            imports,
        }
    }
}

/// Why a command failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorDocument<'a> {
    /// A stable word to match on: one of the server's (`docs/errors.md`), or one of the command's
    /// own (`docs/cli.md`).
    #[schema(pattern = "^[a-z][a-z0-9_]*$")]
    code: &'a str,
    /// What happened, in one line.
    message: &'a str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    /// The id under which the server's log knows the request, where a server answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// The HTTP status, where a server answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 999)]
    status: Option<u16>,
    /// More lines for people: a piece of a file, further mistakes.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<String>)]
    details: &'a [String],
    /// The imports that have no implementation, for `unknown_import`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<ImportProblem>)]
    imports: &'a [ImportProblem],
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
