//! What is measured: the servers, their functions, and the answers they must give.

use crate::{
    load,
    process::{Server, ask},
    report::{Figures, LIMIT, Sample},
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Every request in an instance of its own.
const FRESH: &str = "per request";
/// Many requests in one, of one function.
const SHARED: &str = "per function";
const NONE: &str = "none";

/// How `wasmtime serve` is fastest with an instance for each request.
const TUNED: [&str; 2] = [
    "-Opooling-memory-keep-resident=1048576,pooling-table-keep-resident=65536,\
     pooling-pagemap-scan=y,pooling-total-core-instances=4096,pooling-total-tables=4096",
    "-Wtimeout=10s",
];

/// Where the programs are.
pub(crate) struct Builds<'a> {
    pub(crate) plain: &'a Path,
    pub(crate) guided: &'a Path,
    pub(crate) peers: &'a Path,
}

/// All that runs during a measurement.
pub(crate) struct Bench {
    servers: Vec<Server>,
    pub(crate) rows: Vec<Row>,
    /// Where the servers keep their state, until they are gone.
    home: TempDir,
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    isolation: &'static str,
    server: usize,
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    script: Option<&'static str>,
    /// The answer, byte for byte.
    answer: Vec<u8>,
}

/// A request, again and again.
struct Asked {
    path: String,
    /// A script of `wrk` where it is not just a GET.
    script: Option<&'static str>,
}

impl Asked {
    fn get() -> Self {
        Self { path: "/".to_owned(), script: None }
    }

    fn of(function: &Function, prefix: &str) -> Self {
        Self { path: format!("{prefix}{}", function.path), script: function.script }
    }
}

/// A function that is measured.
struct Function {
    name: &'static str,
    artifact: PathBuf,
    path: &'static str,
    script: Option<&'static str>,
    /// How its requests share instances, as `faas deploy --reuse` takes it; empty: not at all.
    reuse: &'static str,
}

fn functions() -> Vec<Function> {
    let example = |name: &str| Path::new("target/examples").join(name).with_extension("wasm");
    let guest = |name: &str| {
        Path::new("target/guests/wasm32-wasip2/release").join(name).with_extension("wasm")
    };
    let echo = Some("tests/bench/echo.lua");
    [
        ("0.2 hello", example("hello-wasi02"), "/", None),
        ("0.2 hello, reused 1000", example("hello-wasi02"), "/", None),
        ("0.3 hello", guest("guest_hello03"), "/", None),
        ("0.3 hello, reused 1000", guest("guest_hello03"), "/", None),
        ("0.3 hello, reused 1000x16", guest("guest_hello03"), "/", None),
        ("0.3 hello, our SDK", example("hello"), "/", None),
        ("0.3 JSON route, our SDK", example("json-api"), "/greet/Ada", None),
        ("0.1 CGI hello", example("wat-hello"), "/", None),
        ("0.1 CGI hello in C", example("c-cgi"), "/", None),
        ("JavaScript hello", example("js-hello"), "/", None),
        ("Python hello", example("python-hello"), "/", None),
        ("0.2 1 MiB response", guest("guest_p2"), "/stream?kib=1024", None),
        ("0.3 1 MiB response", guest("guest_p3"), "/stream?kib=1024", None),
        ("0.2 64 KiB echo", guest("guest_p2"), "/echo", echo),
        ("0.3 64 KiB echo", guest("guest_p3"), "/echo", echo),
    ]
    .map(|(name, artifact, path, script)| {
        let reuse = name.split_once("reused ").map_or("", |(_, reuse)| reuse);
        Function { name, artifact, path, script, reuse }
    })
    .into_iter()
    .collect()
}

impl Bench {
    /// Starts every server that a row is wanted of.
    pub(crate) fn start(builds: &Builds<'_>, only: &[String]) -> Self {
        let mut bench = Self::empty();
        let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
        let native = std::env::current_exe().expect("a path").with_file_name("native-hyper");
        if wanted(LIMIT) {
            let (server, _) = Server::announced(&mut Command::new(native), 1);
            bench.row(LIMIT.to_owned(), NONE, server, Asked::get());
        }
        bench.faas("faas", builds.plain, &wanted);
        if builds.guided.exists() {
            bench.faas("faas pgo", builds.guided, &wanted);
        }
        bench.wasmtime(&builds.peers.join("bin/wasmtime"), &wanted);
        bench.javascript(&builds.peers.join("node_modules/.bin"), &wanted);
        bench
    }

    fn empty() -> Self {
        let home = tempfile::tempdir().expect("a folder for the servers");
        Self { servers: Vec::new(), rows: Vec::new(), home }
    }

    /// One node with every function.
    fn faas(&mut self, name: &str, faas: &Path, wanted: &dyn Fn(&str) -> bool) {
        let named = |function: &Function| format!("{name}: {}", function.name);
        let functions: Vec<_> = functions().into_iter().filter(|f| wanted(&named(f))).collect();
        if functions.is_empty() {
            return;
        }
        let data = self.home.path().join(name);
        let mut serve = Command::new(faas);
        serve.arg("serve").arg("--data-dir").arg(&data);
        serve.args(["--config", "/dev/null"]);
        serve.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let (server, said) = Server::announced(&mut serve, 2);
        let admin = said[1].trim_start_matches("admin ").to_owned();
        let address = server.address;
        self.servers.push(server);
        for (number, function) in functions.iter().enumerate() {
            let app = format!("bench-{number}");
            let mut deploy = Command::new(faas);
            deploy.args(["deploy", "--name", &app, "--server", &admin]);
            if !function.reuse.is_empty() {
                deploy.args(["--reuse", function.reuse]);
            }
            let deployed = deploy
                .arg(&function.artifact)
                .env("FAAS_DATA_DIR", &data)
                .output()
                .expect("faas is built");
            let said = String::from_utf8_lossy(&deployed.stderr);
            assert!(deployed.status.success(), "{}: {said}", function.name);
            let asked = Asked::of(function, &format!("/{app}"));
            let isolation = if function.reuse.is_empty() { FRESH } else { SHARED };
            self.add(named(function), isolation, address, asked);
        }
    }

    /// One server for each function, which is how it works.
    fn wasmtime(&mut self, wasmtime: &Path, wanted: &dyn Fn(&str) -> bool) {
        if !wasmtime.exists() {
            eprintln!("no `wasmtime` among the peers: its rows are left out");
            return;
        }
        // Its own default: components of WASI 0.3 are shared by 128 requests, 16 at once.
        let fresh = ["--max-instance-reuse-count=1", "--max-instance-concurrent-reuse-count=1"];
        let comparable = |f: &&Function| !f.name.contains("0.1") && f.reuse.is_empty();
        for function in functions().iter().filter(comparable) {
            let is_03 = function.name.contains("0.3");
            let mut modes = vec![
                ("default, fresh", &fresh[..], FRESH, false),
                ("tuned, fresh", &fresh[..], FRESH, true),
            ];
            if is_03 {
                modes.push(("tuned, reused 128 × 16", &[], SHARED, true));
            }
            for (mode, flags, isolation, tuned) in modes {
                let name = format!("wasmtime serve, {mode}: {}", function.name);
                if !wanted(&name) {
                    continue;
                }
                let server = Server::on_free_port(|address| {
                    let mut serve = Command::new(wasmtime);
                    serve.args(["serve", "-Scli", "--addr", &address.to_string()]).args(flags);
                    if is_03 {
                        serve.args(["-Sp3", "-Wcomponent-model-async"]);
                    }
                    if tuned {
                        serve.args(TUNED);
                    }
                    serve.arg(&function.artifact);
                    serve
                });
                self.row(name, isolation, server, Asked::of(function, ""));
            }
        }
    }

    fn javascript(&mut self, bin: &Path, wanted: &dyn Fn(&str) -> bool) {
        let peers = Path::new("tests/bench/peers");
        let (deno, workerd) = (bin.join("deno"), bin.join("workerd"));
        if deno.exists() && wanted("deno: JavaScript hello") {
            let server = Server::on_free_port(|address| {
                let mut serve = Command::new(&deno);
                serve.args(["serve", "--no-config", "--host", "127.0.0.1", "--port"]);
                serve.arg(address.port().to_string()).arg(peers.join("hello.js"));
                serve
            });
            self.row("deno: JavaScript hello".to_owned(), NONE, server, Asked::get());
        }
        if workerd.exists() && wanted("workerd: JavaScript hello") {
            let server = Server::on_free_port(|address| {
                let mut serve = Command::new(&workerd);
                serve.arg("serve").arg(peers.join("workerd.capnp"));
                serve.arg(format!("--socket-addr=http={address}"));
                serve
            });
            self.row("workerd: JavaScript hello".to_owned(), SHARED, server, Asked::get());
        }
    }

    fn row(&mut self, name: String, isolation: &'static str, server: Server, asked: Asked) {
        let address = server.address;
        self.servers.push(server);
        self.add(name, isolation, address, asked);
    }

    /// A row of the server that was started last.
    fn add(&mut self, name: String, isolation: &'static str, address: SocketAddr, asked: Asked) {
        let Asked { path, script } = asked;
        let (status, answer) = match script {
            None => ask(address, &path),
            Some(_) => (200, Vec::new()),
        };
        assert_eq!(status, 200, "{name}: {}", String::from_utf8_lossy(&answer));
        let server = self.servers.len() - 1;
        self.rows.push(Row { name, isolation, server, address, path, script, answer });
    }

    /// Loads the row's server for some seconds.
    pub(crate) fn measure(&self, row: &Row, connections: usize, seconds: u64) -> Sample {
        let server = &self.servers[row.server];
        let script = row.script;
        // The first requests load, compile lazily and fill caches.
        load::run(row.address, &row.path, connections, 1, script);
        let stop = AtomicBool::new(false);
        let before = server.counted();
        let (seen, wrong) = thread::scope(|scope| {
            let check = scope.spawn(|| row.check(&stop));
            let seen = load::run(row.address, &row.path, connections, seconds, script);
            stop.store(true, Relaxed);
            (seen, check.join().expect("a check does not panic"))
        });
        let after = server.counted();
        let mut calls_seen = None;
        let calls = server.system_calls(|| {
            calls_seen = Some(load::run(row.address, &row.path, connections, 1, script));
        });
        let per_request = |before: f64, after: f64| (after - before) / seen.requests;
        Sample {
            user_us: per_request(before.user_us, after.user_us),
            system_us: per_request(before.system_us, after.system_us),
            faults: per_request(before.faults, after.faults),
            calls: calls.zip(calls_seen).map(|(calls, seen)| calls / seen.requests),
            per_second: seen.per_second,
            p50_ms: seen.p50_ms,
            p99_ms: seen.p99_ms,
            resident_mib: server.resident_mib(),
            problem: seen.problem.or(wrong),
        }
    }
}

impl Row {
    pub(crate) fn figures(&self, samples: &[Sample]) -> Figures {
        Figures::new(&self.name, self.isolation, samples)
    }

    /// Whether one request is about the function and not about moving bytes.
    pub(crate) fn is_small(&self) -> bool {
        self.script.is_none() && self.answer.len() < 4096
    }

    /// Compares answers while the server is under load.
    fn check(&self, stop: &AtomicBool) -> Option<String> {
        while !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(100));
            if self.script.is_none() && ask(self.address, &self.path) != (200, self.answer.clone())
            {
                return Some("a wrong answer".to_owned());
            }
        }
        None
    }
}

/// Has a node work through every function for some seconds each, and stops it as an operator would.
pub(crate) fn train(faas: &Path, connections: usize, seconds: u64) {
    let mut bench = Bench::empty();
    bench.faas("faas", faas, &|_| true);
    for row in &bench.rows {
        let seen = load::run(row.address, &row.path, connections, seconds, row.script);
        eprintln!("trained {:<40} {:8.0}/s", row.name, seen.per_second);
        assert!(seen.problem.is_none(), "{}: {:?}", row.name, seen.problem);
    }
    bench.servers.drain(..).for_each(Server::stop);
}

/// Whether the artifacts are there.
pub(crate) fn require_artifacts() {
    for function in functions() {
        let there = fs::metadata(&function.artifact).is_ok();
        assert!(there, "{} is missing: tests/bench/run.sh builds it", function.artifact.display());
    }
}
