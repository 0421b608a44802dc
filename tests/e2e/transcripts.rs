//! What people see: sessions on a terminal, held against the files in `transcripts/`. With `UPDATE=1`
//! the files are written instead; then look at the difference.

mod redact;

use faas_tests::{
    Node, Terminal,
    artifacts::{self, Guest, says},
    eventually, faas_binary,
};
use redact::Redact;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A person at a terminal, and what they have seen.
struct Session {
    home: PathBuf,
    dir: PathBuf,
    variables: Vec<(String, String)>,
    redact: Redact,
    text: String,
}

impl Session {
    /// A user of this node.
    fn on(node: &Node) -> Self {
        let mut session = Self::at(node.home());
        session.serves(&node.ingress().to_string(), &node.admin().to_string());
        session.variable("FAAS_DATA_DIR", &node.data_dir().display().to_string());
        session
    }

    /// A user with this home.
    fn at(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            dir: home.to_owned(),
            variables: Vec::new(),
            redact: Redact::new(home),
            text: String::new(),
        }
    }

    fn variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The usual ports stand for those of a node.
    fn serves(&mut self, ingress: &str, admin: &str) {
        self.redact.address(ingress, "127.0.0.1:8080");
        self.redact.address(admin, "127.0.0.1:8081");
        self.variable("FAAS_SERVER", &format!("http://{admin}"));
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let binary = faas_binary();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::split_paths(&path);
        let path = [binary.parent().unwrap().to_owned()].into_iter().chain(path);
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", &self.home)
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir);
        command
    }

    /// A remark.
    fn note(&mut self, text: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{gap}# {text}\n"));
    }

    /// Goes to another folder.
    fn cd(&mut self, folder: &str) {
        self.dir = self.home.join(folder);
        self.text.push_str(&format!("$ cd ~/{folder}\n"));
    }

    /// Runs a command line of the shell; what it shows, as it was.
    fn run(&mut self, line: &str) -> String {
        self.tell(line, Terminal::start(self.command(line), false))
    }

    /// Runs one that asks, and answers.
    fn answer(&mut self, line: &str, question: &str, answer: &str) -> String {
        let mut terminal = Terminal::start(self.command(line), true);
        terminal.until(question, PATIENCE);
        terminal.type_line(answer);
        self.tell(line, terminal)
    }

    fn tell(&mut self, line: &str, terminal: Terminal) -> String {
        let (text, code) = terminal.end(PATIENCE);
        self.show(line, &text);
        if code != 0 {
            self.text.push_str(&format!("exit {code}\n"));
        }
        text
    }

    fn show(&mut self, line: &str, text: &str) {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.text.push_str(&self.redact.apply(&format!("$ {line}\n{text}{end}")));
    }

    /// Holds what was seen against a file.
    #[track_caller]
    fn is(&self, name: &str) {
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

/// A project whose build copies a file.
fn project(app: &str, more: &str) -> String {
    format!(
        "[app]\nname = \"{app}\"\n\n[build]\ncommand = \"cp next.wasm {app}.wasm\"\n\n\
         [functions.web]\nsource = \"{app}.wasm\"\n{more}"
    )
}

#[test]
fn the_first_five_minutes() {
    let home = TempDir::new().unwrap();
    let mut session = Session::at(home.path());
    session.variable("FAAS_LISTEN", "127.0.0.1:0");
    session.variable("FAAS_ADMIN_LISTEN", "127.0.0.1:0");
    session.file("hello.wasm", says("Hello"));
    session.file("shop/faas.toml", project("shop", ""));
    session.file("shop/next.wasm", says("Welcome"));
    let node = Terminal::start(session.command("exec faas serve"), false);
    node.until("\nadmin http://", PATIENCE);
    let text = node.text();
    let address = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(" http://").to_owned()
    };
    session.serves(&address("ingress"), &address("admin"));
    // What its log says follows when it likes.
    let (banner, _) = text.split_once("\nadmin http").unwrap();
    let admin = format!("{banner}\nadmin http://{}\n", address("admin"));
    session.show("faas serve", &admin);

    session.note("A single file needs no project.");
    session.run("faas deploy hello.wasm");
    session.run("curl -s http://$(echo $FAAS_INGRESS)".trim());
    session.run("faas invoke hello");
    session.is("first-five-minutes");
}
