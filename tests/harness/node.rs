//! A `faas serve` process with a data directory of its own.

use crate::{
    Answer, Cli, Connection, Metrics, Request, artifacts::Guest, eventually, faas_binary, process,
};
use faas_api::{Deployed, Digest};
use rustix::process::Signal;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// Time in which a node must have started, or ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node. It is killed when this is dropped; if the test has failed by then, its log is shown.
/// A node that panicked fails the test.
pub struct Node {
    home: TempDir,
    process: Option<Child>,
    ingress: SocketAddr,
    admin: SocketAddr,
    /// What its environment has besides.
    env: Vec<(String, OsString)>,
    /// What it writes to its standard output behind the two addresses.
    lines: Mutex<Option<mpsc::Receiver<String>>>,
}

impl Node {
    /// A node with default settings.
    pub fn start() -> Self {
        Self::with("")
    }

    /// A node with these settings, as in `config.toml`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn with(config: &str) -> Self {
        let mut node = Self::unstarted(config);
        node.launch();
        node
    }

    /// A node on which the test guests are deployed, each under [`Guest::app`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn with_guests(config: &str) -> Self {
        let mut node = Self::unstarted(config);
        copy_folder(guests_folder(), &node.data_dir());
        node.launch();
        node
    }

    /// A node that does not run yet.
    ///
    /// # Panics
    /// When its folder cannot be made.
    pub fn unstarted(config: &str) -> Self {
        let home = tempfile::Builder::new().prefix("faas-").tempdir().unwrap();
        fs::write(home.path().join("config.toml"), config).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (env, lines) = (Vec::new(), Mutex::default());
        Self { home, process: None, ingress: nowhere, admin: nowhere, env, lines }
    }

    /// Gives it an environment variable, from its next start on.
    pub fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.push((name.to_owned(), value.into()));
    }

    /// Deploys the test guests, each under [`Guest::app`], on a node that does not run yet.
    ///
    /// # Panics
    /// When it runs.
    pub fn prepare_guests(&self) {
        assert!(self.process.is_none(), "it runs already");
        copy_folder(guests_folder(), &self.data_dir());
    }

    /// Starts it, on other ports than before.
    ///
    /// # Panics
    /// When it does not start.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut child = Command::new(faas_binary())
            .args(self.serve_arguments())
            .env_clear()
            .env("HOME", self.home())
            .env("RUST_BACKTRACE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = lines(child.stdout.take().unwrap());
        self.process = Some(child);
        let address = |name: &str| {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("the node did not start");
            });
            let address = line
                .strip_prefix(name)
                .and_then(|l| l.strip_prefix(" http://").or_else(|| l.strip_prefix(" https://")));
            let address = address.and_then(|address| address.parse().ok());
            address.unwrap_or_else(|| panic!("the {name} address was expected, not `{line}`"))
        };
        (self.ingress, self.admin) = (address("ingress"), address("admin"));
        self.lines = Some(lines).into();
    }

    /// What `faas` must be told to run this node.
    pub fn serve_arguments(&self) -> Vec<String> {
        let data_dir = self.data_dir().display().to_string();
        let config = self.home().join("config.toml").display().to_string();
        let any = "127.0.0.1:0";
        ["serve", "--config", &config, "--data-dir", &data_dir]
            .into_iter()
            .chain(["--listen", any, "--admin-listen", any])
            .map(str::to_owned)
            .collect()
    }

    /// The whole command.
    pub(crate) fn serve_command(&self) -> Vec<String> {
        let mut command = vec![faas_binary().display().to_string()];
        command.extend(self.serve_arguments());
        command
    }

    /// Takes a process that somebody else has started for this node, in place of one that has ended.
    pub(crate) fn adopt(&mut self, child: Child, ingress: SocketAddr, admin: SocketAddr) {
        assert!(self.process.is_none(), "it runs already");
        self.process = Some(child);
        (self.ingress, self.admin) = (ingress, admin);
    }

    /// Where requests go.
    pub fn ingress(&self) -> SocketAddr {
        self.ingress
    }

    /// Where the API is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where requests without TLS go that are sent to the ingress.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn redirect(&self) -> SocketAddr {
        let lines = self.lines.lock().unwrap();
        let line = lines.as_ref().expect("it runs").recv_timeout(PATIENCE);
        let line = line.expect("a third address");
        line.strip_prefix("redirect http://").unwrap().parse().unwrap()
    }

    /// The folder of everything that is this node's.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it keeps its state.
    pub fn data_dir(&self) -> PathBuf {
        self.home().join("data")
    }

    /// The token that may do everything.
    ///
    /// # Panics
    /// When the node never started.
    pub fn token(&self) -> String {
        let text = fs::read_to_string(self.data_dir().join("admin.token")).unwrap();
        text.trim().to_owned()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// What it has written to its standard error, over all its lives.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it goes on.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("it runs");
        let ended = eventually("the end of the node", PATIENCE, || child.try_wait().unwrap());
        self.check_log();
        ended
    }

    /// Ends it at once, with no chance to tidy up.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it as an operator would, and starts it again.
    ///
    /// # Panics
    /// When it ends badly, or does not start.
    pub fn restart(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}");
        self.launch();
    }

    /// Sends a request to the ingress, over a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Answer {
        Connection::open(self.ingress).ask(request)
    }

    /// Gets a path from the ingress.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send(&Request::get(path))
    }

    /// Sends a request to the API, with the token.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn api(&self, request: Request) -> Answer {
        let bearer = format!("Bearer {}", self.token());
        Connection::open(self.admin).ask(&request.header("authorization", &bearer))
    }

    /// Deploys an artifact as `curl --data-binary` would.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn try_deploy(&self, app: &str, wasm: &[u8]) -> Answer {
        self.api(Self::deploy_request(app, wasm))
    }

    /// The request that deploys an artifact.
    pub fn deploy_request(app: &str, wasm: &[u8]) -> Request {
        Request::new("POST", &format!("/v1/apps/{app}/deploy"))
            .header("content-type", "application/wasm")
            .body(wasm)
    }

    /// Deploys an artifact.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn deploy(&self, app: &str, wasm: &[u8]) -> Deployed {
        let answer = self.try_deploy(app, wasm);
        assert!(answer.status < 300, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// `faas`, as this node's own user would run it.
    pub fn cli<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cli {
        Cli::new(self.home(), args)
            .env("FAAS_SERVER", format!("http://{}", self.admin))
            .env("FAAS_DATA_DIR", self.data_dir())
    }

    /// What `/metrics` says now.
    ///
    /// # Panics
    /// When it says nothing.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.api(Request::get("/metrics")).expect(200).text())
    }

    /// Waits until no instance is at work.
    ///
    /// # Panics
    /// When one goes on.
    pub fn idle(&self) {
        let active = || self.metrics().sum("faas_instances_active", &[]);
        eventually("every instance is gone", Duration::from_secs(20), || {
            (active() == 0.0).then_some(())
        });
    }

    /// The names of all files below a folder of the data directory.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.data_dir().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// What it says on standard error.
    pub fn log_file(&self) -> PathBuf {
        self.home().join("node.log")
    }

    fn check_log(&self) {
        let log = self.log();
        assert!(!log.contains("panicked at"), "the node panicked:\n{log}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !thread::panicking() {
            return self.check_log();
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.len().saturating_sub(40);
        eprintln!("the end of the node's log:\n{}", lines[last..].join("\n"));
    }
}

/// Lines as they come; a node that says more than its addresses keeps a reader.
fn lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Whoever wanted the lines may be gone.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// A data directory on which the guests are deployed, made once per build of what is in it.
fn guests_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let binary = faas_binary();
        let parent = binary.parent().expect("target/<profile>").join("e2e-data");
        let modified = fs::metadata(&binary).and_then(|file| file.modified());
        let mut key = format!("{modified:?}").into_bytes();
        for guest in Guest::ALL {
            key.extend(Digest::of(&guest.wasm()).as_bytes());
        }
        let folder = parent.join(Digest::of(&key).short());
        if !folder.is_dir() {
            make_guests_folder(&parent, &folder);
        }
        folder
    })
}

fn make_guests_folder(parent: &Path, folder: &Path) {
    // What earlier builds left, unless it may be in use this minute.
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|file| file.modified());
        let age = age.map(|time| SystemTime::now().duration_since(time).unwrap_or_default());
        if age.is_ok_and(|age| age > Duration::from_secs(3600)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let mut node = Node::start();
    for guest in Guest::ALL {
        node.deploy(guest.app(), &guest.wasm());
    }
    node.signal(Signal::TERM);
    let status = node.wait();
    assert!(status.success(), "{status}");
    fs::create_dir_all(parent).unwrap();
    let made = tempfile::tempdir_in(parent).unwrap();
    copy_folder(&node.data_dir(), made.path());
    // Another run of the tests may have been quicker.
    let _ = fs::rename(made.keep(), folder);
}

/// Copies a folder with everything in it.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
