//! One node with very many functions: how fast it starts, what they cost while nobody calls them,
//! what the first call of one costs, and what requests cost that wait.

use crate::process::{LOAD_CORE, Server, ask};
use serde::Serialize;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Functions whose first call is measured.
const COLD: usize = 1000;
/// Requests that sleep at once.
const ASLEEP: usize = 2000;
/// When a node that has started has nothing left to do.
const SETTLED: Duration = Duration::from_secs(5);
/// What is called for the first time, and what sleeps.
const HELLO: &str = "target/examples/hello-wasi02.wasm";
const SLEEPER: &str = "target/guests/wasm32-wasip2/release/guest_sleep02.wasm";

/// All of it.
#[derive(Serialize)]
pub(crate) struct Many {
    functions: usize,
    /// Deploys per second, one after the other.
    deploys_per_second: f64,
    start_ms: f64,
    empty_mib: f64,
    resident_mib: f64,
    idle_function_kib: f64,
    touch_failed: usize,
    touch_per_second: f64,
    touched_peak_mib: f64,
    loaded_after: f64,
    cold_p50_ms: f64,
    cold_p99_ms: f64,
    warm_p50_ms: f64,
    asleep: usize,
    asleep_failed: usize,
    asleep_kib_each: f64,
}

/// A node with its data directory.
struct Host {
    server: Server,
    admin: SocketAddr,
    token: String,
    started: Duration,
}

impl Host {
    fn start(faas: &Path, data: &Path) -> Self {
        let mut serve = Command::new(faas);
        serve.arg("serve").arg("--data-dir").arg(data).args(["--config", "/dev/null"]);
        serve.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let begun = Instant::now();
        let (server, said) = Server::announced(&mut serve, 2);
        let started = begun.elapsed();
        let admin = said[1].trim_start_matches("admin http://").parse().expect("an address");
        let token = fs::read_to_string(data.join("admin.token")).expect("a token");
        Self { server, admin, token: token.trim().to_owned(), started }
    }

    /// Deploys over one connection that is kept.
    fn deploy(&self, apps: impl Iterator<Item = (String, Vec<u8>)>) {
        let mut connection = Kept::open(self.admin);
        for (app, wasm) in apps {
            let head = format!(
                "POST /v1/apps/{app}/deploy HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
                 content-type: application/wasm\r\ncontent-length: {}\r\n\r\n",
                self.token,
                wasm.len()
            );
            let (status, body) = connection.ask(&[head.as_bytes(), &wasm].concat());
            assert_eq!(status, 201, "{app}: {}", String::from_utf8_lossy(&body));
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let head = format!(
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
            self.token
        );
        let (_, text) = Kept::open(self.admin).ask(head.as_bytes());
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
    }
}

/// A connection for one request after the other.
struct Kept {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Kept {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server takes connections");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a deadline");
        Self { stream, buffer: Vec::new() }
    }

    fn ask(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        self.stream.write_all(request).expect("the server reads");
        self.answer()
    }

    /// An answer that says its length.
    fn answer(&mut self) -> (u16, Vec<u8>) {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length: usize =
                    length.and_then(|length| length.trim().parse().ok()).expect("a length");
                if self.buffer.len() >= end + 4 + length {
                    let status = head.get(9..12).and_then(|status| status.parse().ok());
                    let rest = self.buffer.split_off(end + 4 + length);
                    let answer = std::mem::replace(&mut self.buffer, rest);
                    return (status.expect("a status"), answer[end + 4..].to_vec());
                }
            }
            let mut piece = [0; 64 << 10];
            let read = self.stream.read(&mut piece).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&piece[..read]);
        }
    }
}

/// Runs all of it, with so many functions.
pub(crate) fn run(faas: &Path, functions: usize) -> Many {
    let cores = rustix::thread::sched_getaffinity(None).expect("cores");
    let mut load = rustix::thread::CpuSet::new();
    load.set(LOAD_CORE.parse().expect("a number"));
    rustix::thread::sched_setaffinity(None, &load).expect("two cores");
    let home = tempfile::tempdir().expect("a folder");
    let (cold_p50_ms, cold_p99_ms, warm_p50_ms) = cold(faas, &home.path().join("cold"));
    eprintln!("cold: p50 {cold_p50_ms:.2} p99 {cold_p99_ms:.2} ms beyond {warm_p50_ms:.2} ms");
    let (asleep_failed, asleep_kib_each) = asleep(faas, &home.path().join("asleep"));
    eprintln!("asleep: {asleep_kib_each:.0} KiB each, {asleep_failed} failed");

    let data = home.path().join("many");
    let host = Host::start(faas, &data);
    thread::sleep(SETTLED);
    let empty_mib = host.server.resident_mib();
    let begun = Instant::now();
    host.deploy((0..functions).map(|number| (format!("f{number}"), small(number))));
    let deploys_per_second = ratio(functions, begun.elapsed());
    eprintln!("deployed {functions}: {deploys_per_second:.0}/s");
    drop(host);
    let host = Host::start(faas, &data);
    thread::sleep(SETTLED);
    let resident_mib = host.server.resident_mib();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let idle_function_kib = (resident_mib - empty_mib) * 1024.0 / functions as f64;
    eprintln!("started in {:?}, {resident_mib:.0} MiB", host.started);
    let begun = Instant::now();
    let mut touch_failed = 0;
    let mut touched_peak_mib = 0.0_f64;
    let mut connection = Kept::open(host.server.address);
    for number in 0..functions {
        let request = format!("GET /f{number}/ HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let (status, body) = connection.ask(request.as_bytes());
        let is_right = status == 200 && body == answer(number).as_bytes();
        touch_failed += usize::from(!is_right);
        if number % 100 == 0 {
            touched_peak_mib = touched_peak_mib.max(host.server.resident_mib());
        }
    }
    let touch_per_second = ratio(functions, begun.elapsed());
    let loaded_after = host.metric("faas_functions_loaded");
    rustix::thread::sched_setaffinity(None, &cores).expect("the cores there were");
    Many {
        functions,
        deploys_per_second,
        start_ms: millis(host.started),
        empty_mib,
        resident_mib,
        idle_function_kib,
        touch_failed,
        touch_per_second,
        touched_peak_mib,
        loaded_after,
        cold_p50_ms,
        cold_p99_ms,
        warm_p50_ms,
        asleep: ASLEEP,
        asleep_failed,
        asleep_kib_each,
    }
}

/// First calls of functions after a start, over a connection that is kept, beyond what a later
/// call takes: median, 99th percentile, and the later call's median.
fn cold(faas: &Path, data: &Path) -> (f64, f64, f64) {
    let hello = fs::read(HELLO).expect("the example is built");
    let host = Host::start(faas, data);
    host.deploy((0..COLD).map(|number| (format!("f{number}"), distinct(&hello, number))));
    drop(host);
    let host = Host::start(faas, data);
    thread::sleep(Duration::from_secs(1));
    let mut connection = Kept::open(host.server.address);
    let mut round = || {
        let mut took: Vec<f64> = (0..COLD)
            .map(|number| {
                let request = format!("GET /f{number}/ HTTP/1.1\r\nhost: localhost\r\n\r\n");
                let begun = Instant::now();
                let (status, _) = connection.ask(request.as_bytes());
                assert_eq!(status, 200);
                millis(begun.elapsed())
            })
            .collect();
        took.sort_by(f64::total_cmp);
        took
    };
    let (cold, warm) = (round(), round());
    let usual = warm[COLD / 2];
    (cold[COLD / 2] - usual, cold[COLD * 99 / 100] - usual, usual)
}

/// What a request takes that sleeps in its function: how many failed, and KiB for each.
fn asleep(faas: &Path, data: &Path) -> (usize, f64) {
    let host = Host::start(faas, data);
    host.deploy(std::iter::once(("sleeper".to_owned(), fs::read(SLEEPER).expect("built"))));
    ask(host.server.address, "/sleeper/?1");
    thread::sleep(Duration::from_secs(1));
    let before = host.server.resident_mib();
    let mut connections: Vec<Kept> = (0..ASLEEP).map(|_| Kept::open(host.server.address)).collect();
    for connection in &mut connections {
        let request = "GET /sleeper/?15000 HTTP/1.1\r\nhost: localhost\r\n\r\n";
        connection.stream.write_all(request.as_bytes()).expect("the server reads");
    }
    thread::sleep(Duration::from_secs(6));
    let during = host.server.resident_mib();
    let failed = connections.iter_mut().filter_map(|connection| {
        let (status, body) = connection.answer();
        (status != 200 || body != b"slept\n").then_some(())
    });
    let failed = failed.count();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = (during - before) * 1024.0 / ASLEEP as f64;
    (failed, each)
}

/// The same program as another artifact: a custom section with a number in it.
fn distinct(wasm: &[u8], number: usize) -> Vec<u8> {
    let name = format!("{number:>8}");
    let mut section = vec![0, 10, 8];
    section.extend(name.as_bytes());
    // Its content, of one byte.
    section.push(0);
    [wasm, &section].concat()
}

/// A program of its own that answers its number: the smallest of the test guests.
fn small(number: usize) -> Vec<u8> {
    let text = include_str!("../../guests/wat/hello.wat").replace("TEXT", &answer(number));
    wat::parse_str(&text).expect("it is WebAssembly")
}

/// What it answers: as many bytes as the program says.
fn answer(number: usize) -> String {
    format!("{number:>32}")
}

fn ratio(count: usize, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let count = count as f64;
    count / time.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
