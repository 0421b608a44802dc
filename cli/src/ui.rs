//! The only printer. Results go to standard output; progress, notices and errors to standard error.
//! With `-o json` standard output carries exactly one document per command, or JSON lines where a
//! command streams.

use crate::{
    artifact::io_text,
    error::{CliError, ErrorDocument, Exit, Result},
    format,
};
use anstyle::{AnsiColor, Style};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::Serialize;
use serde_json::Value;
use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// Where the text of a progress line ends and its duration starts.
const STEP_WIDTH: usize = 48;

/// What a command hands to the printer when it is done.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The `data` of the JSON document; nothing where the command has already streamed its result.
    data: Option<Value>,
    /// The same for people; lines end with a newline.
    text: String,
    /// Set where there is a result to show although the command failed.
    failure: Option<CliError>,
}

impl Outcome {
    /// A result, for scripts and for people.
    pub(crate) fn new(data: &impl Serialize, text: impl Into<String>) -> Result<Self> {
        Ok(Self { data: Some(to_json(data)?), text: text.into(), ..Self::default() })
    }

    /// The result went out while the command ran.
    pub(crate) fn streamed() -> Self {
        Self::default()
    }

    pub(crate) fn failure(mut self, failure: Option<CliError>) -> Self {
        self.failure = failure;
        self
    }
}

/// How much is said besides results and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loudness {
    Quiet,
    Normal,
    Verbose,
}

/// The printer of one command.
pub(crate) struct Ui {
    command: String,
    json: bool,
    loudness: Loudness,
}

impl Ui {
    pub(crate) fn new(command: &str, json: bool, loudness: Loudness) -> Self {
        Self { command: command.to_owned(), json, loudness }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.loudness == Loudness::Verbose
    }

    /// Whether the steps of a command are shown: to a person, or when asked.
    pub(crate) fn shows_progress(&self) -> bool {
        match self.loudness {
            Loudness::Quiet => false,
            Loudness::Normal => !self.json && io::stdout().is_terminal(),
            Loudness::Verbose => true,
        }
    }

    /// Starts a progress line; [`Step::done`] completes it.
    pub(crate) fn step(&self, verb: &'static str, text: &str) -> Step {
        let shown = self.shows_progress();
        let live = shown && io::stderr().is_terminal();
        let step = Step { verb, text: text.to_owned(), shown, live, started: Instant::now() };
        if live {
            to_stderr(&step.line());
        }
        step
    }

    /// A line about what is going on, for people.
    pub(crate) fn notice(&self, text: &str) {
        if self.loudness != Loudness::Quiet && !self.json {
            to_stderr(&format!("   {text}\n"));
        }
    }

    /// What a long-running command says of itself first: to a person, or when asked, so that
    /// nothing but the log reaches a log file.
    #[cfg(feature = "serve")]
    pub(crate) fn banner(&self, lines: &[String]) {
        if self.is_verbose() || io::stderr().is_terminal() {
            lines.iter().for_each(|line| self.notice(line));
        }
    }

    /// Lines that a command shows beside its result.
    #[cfg(feature = "serve")]
    pub(crate) fn aside(&self, lines: &str) {
        if self.loudness != Loudness::Quiet {
            to_stderr(lines);
        }
    }

    /// What a tool has said, unchanged.
    pub(crate) fn tool_output(&self, bytes: &[u8]) {
        let mut stderr = io::stderr().lock();
        // A closed standard error has nobody to tell.
        let _ = stderr.write_all(bytes);
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            let _ = stderr.write_all(b"\n");
        }
    }

    /// A line of the head of an HTTP answer.
    pub(crate) fn head(&self, line: &str) {
        if self.loudness != Loudness::Quiet {
            to_stderr(&format!("{line}\n"));
        }
    }

    /// Keeps what is said next apart from a result that did not end its line.
    pub(crate) fn end_line(&self, ended: bool) {
        if !ended && io::stdout().is_terminal() {
            to_stderr("\n");
        }
    }

    /// Asks a person; `false` is anything but yes.
    pub(crate) async fn confirm(&self, question: &str) -> Result<bool> {
        to_stderr(&format!("{BOLD}{question}{BOLD:#} [y/N] "));
        let answer = read_line().await?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Asks a person for something that must not show.
    pub(crate) async fn ask_hidden(&self, question: &str) -> Result<String> {
        // Before the question, because nothing that is typed after it may show or get lost. Held
        // here, where an interruption ends it, and not on the thread that reads.
        let hidden = Hidden::begin();
        to_stderr(&format!("{BOLD}{question}{BOLD:#}"));
        let answer = read_line().await;
        drop(hidden);
        // The line break was not shown either.
        to_stderr("\n");
        answer
    }

    /// A piece of a result for people, as it comes.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        let mut stdout = anstream::stdout().lock();
        written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
    }

    /// A piece of a result that is not ours to change, as it comes.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
    }

    /// One JSON line of a stream.
    pub(crate) fn json_line(&self, value: &Value) -> Result<()> {
        self.bytes(format!("{value}\n").as_bytes())
    }

    /// The document of a result that a command gives before its end.
    #[cfg(feature = "serve")]
    pub(crate) fn json_result(&self, data: &impl Serialize) -> Result<()> {
        self.json_document(Some(&to_json(data)?), None)
    }

    /// Prints how the command ended, and turns that into the exit code.
    pub(crate) fn report(&self, result: Result<Outcome>) -> ExitCode {
        let outcome =
            result.unwrap_or_else(|error| Outcome { failure: Some(error), ..Outcome::default() });
        let failure = outcome.failure.as_ref();
        let said = if self.json {
            match (&outcome.data, failure) {
                (None, None) => Ok(()),
                (data, failure) => self.json_document(data.as_ref(), failure),
            }
        } else {
            let said = match outcome.text.as_str() {
                "" => Ok(()),
                text => self.text(text),
            };
            failure.into_iter().for_each(|failure| self.error(failure));
            said
        };
        match (failure.map(|failure| failure.exit), said) {
            (Some(exit), _) => exit.into(),
            (None, Ok(())) => ExitCode::SUCCESS,
            (None, Err(error)) => {
                self.error(&error);
                error.exit.into()
            }
        }
    }

    fn json_document(&self, data: Option<&Value>, failure: Option<&CliError>) -> Result<()> {
        let document = Document {
            ok: failure.is_none(),
            command: &self.command,
            schema: 1,
            data,
            error: failure.map(CliError::to_json),
            warnings: failure.is_none().then_some([]),
        };
        let document = serde_json::to_string(&document)
            .map_err(|error| CliError::failed(format!("cannot write the result: {error}")))?;
        self.bytes(format!("{document}\n").as_bytes())
    }

    /// A failure, for people.
    pub(crate) fn error(&self, error: &CliError) {
        if matches!(error.exit, Exit::Interrupted | Exit::ReaderLeft) {
            return;
        }
        // The status and the code help only where the words are the server's own.
        let origin = error.answer.as_deref().filter(|answer| answer.imports.is_empty());
        let suffix = origin.map(|answer| {
            let id =
                answer.request_id.as_ref().filter(|_| answer.status >= 500 || self.is_verbose());
            let id = id.map(|id| format!(", request {id}")).unwrap_or_default();
            format!("        ({} {}{id})", answer.status, error.code)
        });
        let suffix = suffix.unwrap_or_default();
        let mut text = format!("{RED}error{RED:#}: {}", format::printable(&error.message));
        if error.hint.is_none() {
            text.push_str(&suffix);
        }
        for detail in &error.details {
            text.push('\n');
            text.push_str(&format::printable(detail));
        }
        if let Some(hint) = &error.hint {
            text.push_str(&format!("\n{CYAN}hint{CYAN:#}: {}{suffix}", format::printable(hint)));
        }
        text.push('\n');
        to_stderr(&text);
    }
}

fn to_json(data: &impl Serialize) -> Result<Value> {
    serde_json::to_value(data)
        .map_err(|error| CliError::failed(format!("cannot write the result: {error}")))
}

/// The one document of `-o json`. Fields are only ever added.
#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    command: &'a str,
    schema: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDocument<'a>>,
    /// No command has any yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[&'a str; 0]>,
}

/// A step that is under way. Dropped without [`Step::done`], its line just ends.
pub(crate) struct Step {
    verb: &'static str,
    text: String,
    shown: bool,
    /// The line is on the terminal already, without its end.
    live: bool,
    started: Instant,
}

impl Step {
    /// Completes the line with the time since it began.
    pub(crate) fn done(self) {
        let elapsed = self.started.elapsed();
        self.done_in(elapsed);
    }

    /// Completes the line with a time that someone else measured.
    pub(crate) fn done_in(mut self, elapsed: Duration) {
        if self.shown {
            let back = if self.live { "\r" } else { "" };
            to_stderr(&format!("{back}{} {}\n", self.line(), format::duration(elapsed)));
        }
        self.live = false;
    }

    /// Says more, now that more is known.
    pub(crate) fn says(mut self, text: String) -> Self {
        self.text = text;
        self
    }

    fn line(&self) -> String {
        let Self { verb, text, .. } = self;
        format!("   {GREEN}{verb:<9}{GREEN:#}{:<STEP_WIDTH$}", format::printable(text))
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.live {
            to_stderr("\n");
        }
    }
}

/// While this lives, the terminal does not show what is typed.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut without = before.clone();
            without.local_modes.remove(LocalModes::ECHO);
            // A terminal that cannot do that shows the answer; that is no reason not to ask.
            let _ = tcsetattr(&stdin, OptionalActions::Flush, &without);
        }
        Self(before)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// A line of standard input.
async fn read_line() -> Result<String> {
    let read = || {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_length| answer)
    };
    // On a thread of its own, so that ctrl-c is heard meanwhile.
    let answer = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten();
    answer.map_err(|error| CliError::failed(format!("cannot read the answer: {}", io_text(&error))))
}

fn to_stderr(text: &str) {
    let mut stderr = anstream::stderr().lock();
    // A closed standard error has nobody to tell.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => {
            CliError::new(Exit::ReaderLeft, "reader_left", "nobody reads the output")
        }
        _ => CliError::failed(format!("cannot write to standard output: {}", io_text(&error))),
    })
}
