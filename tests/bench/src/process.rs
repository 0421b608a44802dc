//! Servers as processes: on a core of their own, with what the kernel counts of them.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The cores: the first is the server's, the second the load's.
pub(crate) const SERVER_CORE: &str = "0";
pub(crate) const LOAD_CORE: &str = "1";

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is ended when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the kernel has counted for a process.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    /// Microseconds of CPU time in user mode.
    pub(crate) user_us: f64,
    /// The same in the kernel.
    pub(crate) system_us: f64,
    /// Page faults that needed no disk.
    pub(crate) faults: f64,
}

impl Server {
    /// Starts a server that prints `ingress http://ADDRESS` when it is ready, and returns the
    /// lines that follow, too.
    pub(crate) fn announced(command: &mut Command, lines: usize) -> (Self, Vec<String>) {
        let mut child = spawn(command, Stdio::piped());
        let stdout = child.stdout.take().expect("its output is a pipe");
        let said: Vec<String> = BufReader::new(stdout)
            .lines()
            .take(lines)
            .map(|line| line.expect("it says where it is"))
            .collect();
        let address = said.first().and_then(|line| line.split("http://").nth(1)?.parse().ok());
        let address = address.expect("it says where it is");
        (Self { child, address }, said)
    }

    /// Starts a server that is told its port, and waits until it takes connections.
    pub(crate) fn on_free_port(make: impl FnOnce(SocketAddr) -> Command) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let child = spawn(&mut make(address), Stdio::null());
        let server = Self { child, address };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "a server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Ends it as an operator would, and waits for it.
    pub(crate) fn stop(mut self) {
        let process = rustix::process::Pid::from_child(&self.child);
        let asked = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        asked.expect("the server runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }

    pub(crate) fn counted(&self) -> Counted {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("the server runs");
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .expect("a state behind the name")
            .split_whitespace()
            .map(|field| field.parse().unwrap_or_default())
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "100, nearly everywhere")]
        let tick = 1e6 / rustix::param::clock_ticks_per_second() as f64;
        // proc(5) counts from 1, and these begin with the third.
        Counted { faults: fields[7], user_us: fields[11] * tick, system_us: fields[12] * tick }
    }

    /// Its resident memory, in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.expect("a size") / 1024.0
    }

    /// How many system calls it makes while `load` runs; `None` where `perf` cannot count them.
    pub(crate) fn system_calls(&self, load: impl FnOnce()) -> Option<f64> {
        let pid = self.child.id().to_string();
        let child = Command::new("perf")
            .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &pid])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.ok()?;
        load();
        let perf = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(perf, rustix::process::Signal::INT).ok()?;
        let mut said = String::new();
        child.stderr.take()?.read_to_string(&mut said).ok()?;
        child.wait().ok()?;
        said.lines().find_map(|line| line.split(',').next()?.parse().ok())
    }
}

fn spawn(command: &mut Command, stdout: Stdio) -> Child {
    let program = command.get_program().to_owned();
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", SERVER_CORE]).arg(&program).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        pinned.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        pinned.env(name, value.unwrap_or(OsStr::new("")));
    }
    // It makes every error expensive, and is set on some machines.
    pinned.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
    pinned.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    pinned.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()))
}

/// Asks once, on a connection of its own. As HTTP/1.0 knows no chunks, the rest is the body.
pub(crate) fn ask(address: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").expect("the server reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server answers");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let status = std::str::from_utf8(&answer[9..12]).expect("a status");
    (status.parse().expect("a number"), answer[end + 4..].to_vec())
}
