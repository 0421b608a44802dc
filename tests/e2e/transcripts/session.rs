//! A session on a terminal, written down.

use super::redact::Redact;
use faas_tests::{Node, Terminal, artifacts, faas_binary, toolchains};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Projects are built in some sessions, perhaps beside other builds.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// The addresses that the transcripts show, and that command lines here are written with.
const INGRESS: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:8081";

/// A person at a terminal, and what they have seen.
pub(super) struct Session {
    home: PathBuf,
    dir: PathBuf,
    variables: Vec<(String, OsString)>,
    /// What is shown as the usual ingress address, and really is this one.
    ingress: String,
    redact: Redact,
    text: String,
}

impl Session {
    /// A user of this node.
    pub(super) fn on(node: &Node) -> Self {
        let mut session = Self::at(node.home());
        session.serves(&node.ingress().to_string(), &node.admin().to_string());
        session.variable("FAAS_DATA_DIR", node.data_dir());
        session
    }

    /// A user with this home.
    pub(super) fn at(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            dir: home.to_owned(),
            variables: Vec::new(),
            ingress: INGRESS.to_owned(),
            redact: Redact::new(home),
            text: String::new(),
        }
    }

    /// Sets a variable, of which the transcript says nothing.
    pub(super) fn variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.into()));
    }

    /// The usual addresses stand for those of a node.
    pub(super) fn serves(&mut self, ingress: &str, admin: &str) {
        self.requests_go_to(ingress);
        self.redact.text(&port(admin), &port(ADMIN));
        self.variable("FAAS_SERVER", format!("http://{admin}"));
    }

    /// The usual ingress address stands for this one.
    pub(super) fn requests_go_to(&mut self, ingress: &str) {
        self.redact.text(&port(ingress), &port(INGRESS));
        self.ingress = ingress.to_owned();
    }

    /// Shows a text that differs from run to run as this.
    pub(super) fn shows_as(&mut self, text: &str, by: &str) {
        self.redact.text(text, by);
    }

    /// Writes a file, all of it at once: somebody may watch it.
    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let (path, draft) = (self.home.join(name), self.home.join("draft"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&draft, content).unwrap();
        fs::rename(draft, path).unwrap();
    }

    /// A remark.
    pub(super) fn note(&mut self, text: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{gap}# {text}\n"));
    }

    /// Goes to another folder.
    pub(super) fn cd(&mut self, folder: &str) {
        self.dir = self.home.join(folder);
        let folder = if folder.is_empty() { "~".to_owned() } else { format!("~/{folder}") };
        self.text.push_str(&format!("$ cd {folder}\n"));
    }

    /// Runs a command line of the shell; what it showed, as it was.
    pub(super) fn run(&mut self, line: &str) -> String {
        self.tell(line, self.start(line, false))
    }

    /// Runs one at which somebody sits: it may ask, and is given these answers.
    pub(super) fn answer(&mut self, line: &str, answers: &[(&str, &str)]) -> String {
        let mut terminal = self.start(line, true);
        for (question, answer) in answers {
            terminal.until(question, PATIENCE);
            terminal.type_line(answer);
        }
        self.tell(line, terminal)
    }

    /// Starts one that goes on. What it shows is told by [`Self::show`] or [`Self::tell`].
    pub(super) fn start(&self, line: &str, typed: bool) -> Terminal {
        let tools = toolchains();
        let path = tools.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| path.clone());
        let binary = faas_binary();
        let path = path.unwrap_or_default();
        let path = std::env::split_paths(&path);
        let path = [binary.parent().unwrap().to_owned()].into_iter().chain(path);
        let mut command = Command::new("sh");
        command
            .args(["-c", &line.replace(INGRESS, &self.ingress)])
            .env_clear()
            .envs(tools)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", &self.home)
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir);
        Terminal::start(command, typed)
    }

    /// Waits for its end, and writes down what it showed.
    pub(super) fn tell(&mut self, line: &str, terminal: Terminal) -> String {
        let (text, code) = terminal.end(PATIENCE);
        self.show(line, &text);
        if code != 0 {
            self.text.push_str(&format!("exit {code}\n"));
        }
        text
    }

    /// Writes down what a command showed.
    pub(super) fn show(&mut self, line: &str, text: &str) {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.text.push_str(&self.redact.apply(&format!("$ {line}\n{text}{end}")));
    }

    /// Holds what was seen against a file.
    #[track_caller]
    pub(super) fn is(&self, name: &str) {
        let file = artifacts::repository().join(format!("tests/e2e/transcripts/{name}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &self.text).unwrap();
        }
        let stored = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            stored == self.text,
            "{} is not what is shown (-: the file, +: now); if it is meant so, run with UPDATE=1\n{}",
            file.display(),
            difference(&stored, &self.text)
        );
    }
}

/// `:8080`, which stands behind names of the same address, too.
fn port(address: &str) -> String {
    let (_, port) = address.rsplit_once(':').unwrap();
    format!(":{port}")
}

/// The lines that differ, with some around them.
fn difference(before: &str, after: &str) -> String {
    const AROUND: usize = 3;
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // The longest common subsequence, from the end.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(format!("  {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    let near = |place: usize| {
        let start = place.saturating_sub(AROUND);
        lines[start..(place + AROUND + 1).min(lines.len())].iter().any(|l| !l.starts_with("  "))
    };
    let shown: Vec<&str> =
        (0..lines.len()).filter(|place| near(*place)).map(|place| lines[place].as_str()).collect();
    shown.join("\n")
}
