//! Runs `faas` with a home of its own and nothing of the environment around it.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// A component-free artifact that the host can call: `_start`, as CGI.
pub(crate) const CGI_WAT: &str = r#"(module (func (export "_start")))"#;

/// How long something that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A user: a home, a working folder, perhaps a server.
pub(crate) struct Faas {
    folder: TempDir,
    env: Vec<(String, String)>,
}

/// What a run of `faas` left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Faas {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder, env: Vec::new() }
    }

    /// A user of this server, with a token.
    pub(crate) fn with_server(server: &str) -> Self {
        Self::new().env("FAAS_SERVER", server).env("FAAS_TOKEN", "secret")
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The working folder.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub(crate) fn home(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the working folder.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        write(&self.dir().join(path), content);
        self
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, "")
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.spawn(args);
        // A command that does not read its input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Output {
            exit: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command whose standard error goes to the test's own.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::new(self.command(args).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// Runs a command without waiting for it.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faas"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TZ", "UTC")
            .envs(self.env.iter().cloned())
            .current_dir(self.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A `faas` that runs until it is told to stop.
pub(crate) struct Running {
    child: Child,
    shown: mpsc::Receiver<String>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (show, shown) = mpsc::channel();
        // A thread of its own, so that a test can stop waiting.
        thread::spawn(move || {
            let lines = stdout.lines().map_while(Result::ok);
            lines.map(|line| show.send(line)).all(|sent| sent.is_ok())
        });
        Self { child, shown }
    }

    /// The next line on standard output.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        self.shown.recv_timeout(PATIENCE).expect("no more lines")
    }

    /// Sends a signal, named as `kill` names it.
    #[cfg(feature = "serve")]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -s $0 $1", name, &pid]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for the end: the exit code, and what else was on standard output.
    pub(crate) fn end(mut self) -> (i32, Vec<String>) {
        let mut rest = Vec::new();
        loop {
            match self.shown.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(timeout) => panic!("it does not end ({timeout}): {rest:?}"),
            }
        }
        (self.child.wait().unwrap().code().unwrap(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, where a test came to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "{self:?}");
        self
    }

    /// The one document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
