//! One run of `faas` in a hermetic environment.

use crate::eventually;
use serde_json::Value;
use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// The binary that is tested: the one beside the tests' own executable.
///
/// # Panics
/// When it was not built.
pub fn faas_binary() -> PathBuf {
    let tests = std::env::current_exe().expect("the tests are a file");
    let profile = tests.ancestors().nth(2).expect("target/<profile>/deps");
    let binary = profile.join("faas");
    assert!(
        binary.is_file(),
        "{} is missing: tests/run.sh builds what the tests need",
        binary.display()
    );
    binary
}

/// The variables by which builds find their toolchains, which are in the user's own home.
///
/// # Panics
/// When a folder's name cannot be in `PATH`.
pub fn toolchains() -> Vec<(&'static str, OsString)> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let folder =
        |name: &str, otherwise: PathBuf| std::env::var_os(name).map_or(otherwise, PathBuf::from);
    let cache = folder("XDG_CACHE_HOME", home.join(".cache")).join("faas-tests");
    let cache = folder("FAAS_CACHE", cache);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [cache.join("python/bin")].into_iter().chain(std::env::split_paths(&path));
    let mut variables = vec![
        ("PATH", std::env::join_paths(path).expect("a path")),
        ("CARGO_HOME", folder("CARGO_HOME", home.join(".cargo")).into()),
        ("RUSTUP_HOME", folder("RUSTUP_HOME", home.join(".rustup")).into()),
        ("ZIG_GLOBAL_CACHE_DIR", cache.join("zig").into()),
    ];
    for name in ["RUSTUP_TOOLCHAIN", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy"] {
        variables.extend(std::env::var_os(name).map(|value| (name, value)));
    }
    variables
}

/// A command line of `faas`, and what surrounds it: a home of its own and nothing else.
pub struct Cli {
    command: Command,
    stdin: Vec<u8>,
    patience: Duration,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Cli {
    /// `faas` with these arguments, in this folder, which is its home too.
    pub fn new<A: AsRef<OsStr>>(home: &Path, args: impl IntoIterator<Item = A>) -> Self {
        Self::of(&faas_binary(), home, args)
    }

    /// The same as somebody whom permissions hold back, even if the tests' own user is root.
    ///
    /// # Panics
    /// When the binary cannot be copied to where everybody can run it.
    pub fn unprivileged<A: AsRef<OsStr>>(home: &Path, args: impl IntoIterator<Item = A>) -> Self {
        const NOBODY: u32 = 65534;
        if !rustix::process::geteuid().is_root() {
            return Self::new(home, args);
        }
        let binary = home.join("faas");
        fs::copy(faas_binary(), &binary).unwrap();
        fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
        let mut cli = Self::of(&binary, home, args);
        cli.command.uid(NOBODY).gid(NOBODY);
        cli
    }

    fn of<A: AsRef<OsStr>>(binary: &Path, home: &Path, args: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(binary);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("RUST_BACKTRACE", "1")
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { command, stdin: Vec::new(), patience: Duration::from_secs(60) }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in another folder.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Lets builds find their toolchains, which are in the user's own home.
    #[must_use]
    pub fn toolchains(mut self) -> Self {
        self.command.envs(toolchains());
        self.patience = Duration::from_secs(300);
        self
    }

    /// What it reads from its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Starts it, for tests that talk to it while it runs. Its standard input is closed.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(mut self) -> Child {
        self.command.stdin(Stdio::null()).spawn().unwrap()
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn run(mut self) -> Output {
        let mut child = self.command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let given = std::mem::take(&mut self.stdin);
        // It may end without having read this.
        let writer = thread::spawn(move || drop(stdin.write_all(&given)));
        let stdout = reader(child.stdout.take().unwrap());
        let stderr = reader(child.stderr.take().unwrap());
        let what = format!("the end of {:?}", self.command);
        let status = eventually(&what, self.patience, || child.try_wait().unwrap());
        writer.join().unwrap();
        Output {
            code: status.code().unwrap_or(-1),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }
}

fn reader(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Output {
    /// The same, if it ended with this code.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The JSON lines of a command that streams.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let read = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.stdout.lines().map(read).collect()
    }

    /// The one document that `-o json` gives.
    ///
    /// # Panics
    /// When the output is anything else.
    #[track_caller]
    pub fn json(&self) -> Value {
        let document: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not one document: {error}\n{}", self.stdout));
        assert_eq!(document["ok"], self.code == 0, "{document}");
        assert_eq!(document["schema"], 1, "{document}");
        document
    }
}
