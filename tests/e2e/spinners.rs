//! Guests that never end, in every shape, more of them than cores: each is stopped at its limit, and
//! everybody else goes on.
//!
//! With `FAAS_TEST_FULL=1` the limits are those of a real node, and what others notice is measured
//! and printed (`--nocapture`).

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Node, Request,
    artifacts::{self, Guest, assemble},
    eventually, figure, full,
    load::Load,
    process,
};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn is_full() -> bool {
    full(0, 1) == 1
}

/// Twice as many as there are cores.
fn crowd() -> usize {
    2 * thread::available_parallelism().map_or(1, Into::into)
}

/// A program that never ends.
struct Shape {
    app: String,
    wasm: Vec<u8>,
    path: String,
}

/// Those of the test guests.
fn of_guest(guest: Guest) -> Vec<Shape> {
    let everywhere = ["pure", "clock", "stderr", "fill", "grow", "random", "env", "poll"];
    let others: &[&str] = match guest {
        Guest::Cgi01 => &[],
        Guest::Cgi02 => &["block", "realloc"],
        Guest::Http02 => &["block", "realloc", "new"],
        Guest::Http03 => &["realloc", "new", "yield", "stream"],
    };
    let shape = |what: &&str| Shape {
        app: guest.app().to_owned(),
        wasm: guest.wasm(),
        path: format!("/{}/attack?what={what}", guest.app()),
    };
    everywhere.iter().chain(others).map(shape).collect()
}

/// Those that are written as text.
fn written() -> Vec<Shape> {
    let shape = |app: &str, wasm| Shape { app: app.to_owned(), wasm, path: format!("/{app}/") };
    let module = |text: &str| assemble(&format!("(module (memory (export \"memory\") 1) {text})"));
    vec![
        shape(
            "start01",
            module("(func $spin (loop $l (br $l))) (start $spin) (func (export \"_start\"))"),
        ),
        shape(
            "table01",
            module(
                "(table $t 90000 funcref)
                 (func (export \"_start\") (loop $l
                   (table.fill $t (i32.const 0) (ref.null func) (i32.const 90000)) (br $l)))",
            ),
        ),
        shape(
            "copy01",
            assemble(
                "(module (memory (export \"memory\") 1000)
                   (func (export \"_start\") (loop $l
                     (memory.copy (i32.const 0) (i32.const 1) (i32.const 65000000)) (br $l))))",
            ),
        ),
        shape("start02", artifacts::wat("spin-start")),
        shape("drop02", artifacts::wat("spin-drop")),
        shape("after02", artifacts::wat("spin-post-return")),
        shape("start03", artifacts::guest("start03")),
    ]
}

/// Runs each shape as a crowd. Tells the most CPU time that any of them used.
fn run(shapes: &[Shape]) -> Duration {
    let limit = if is_full() { 300 } else { 60 };
    let node = Node::with(&format!(
        "[engine]\nquarantine_after = 0\n[limits]\ncpu_ms = {limit}\nfirst_byte_ms = 60000\n"
    ));
    node.deploy("calm", &artifacts::says("calm"));
    let mut deployed = "";
    for shape in shapes {
        if shape.app != deployed {
            node.deploy(&shape.app, &shape.wasm);
            deployed = &shape.app;
        }
    }
    let load = Load::start(node.ingress(), 50, &["/calm/"]);
    let mut most = Duration::ZERO;
    for shape in shapes {
        let used: Vec<Duration> = thread::scope(|scope| {
            let one = || scope.spawn(|| end(&node, shape, limit));
            let crowd: Vec<_> = (0..crowd()).map(|_| one()).collect();
            crowd.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let used = used.into_iter().max().unwrap();
        if is_full() {
            figure(&format!("{:40} {used:?} of {limit}ms", shape.path));
        }
        most = most.max(used);
    }
    let outcomes = load.stop();
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.status != Ok(200)).collect();
    assert!(failed.is_empty(), "{failed:?} of {}", outcomes.len());
    node.idle();
    // A generous bound: it says that the limit is what ended them.
    assert!(most < Duration::from_secs(5), "{most:?}");
    most
}

/// One of a crowd, to its end. Tells the CPU time it used.
fn end(node: &Node, shape: &Shape, limit: u64) -> Duration {
    let answer = node.get(&shape.path);
    answer.failure(ErrorCode::CpuTime);
    let id = answer.header("x-request-id").unwrap().to_owned();
    let path = format!("/v1/apps/{}/logs?request_id={id}", shape.app);
    let said = eventually("why it ended, in the log", PATIENCE, || {
        let text = node.api(Request::get(&path)).expect(200).text();
        text.lines().find(|line| line.contains("limit `cpu_ms` reached")).map(str::to_owned)
    });
    let used = said.split_once("used ").and_then(|(_, rest)| rest.split_once(" of "));
    let (used, rest) = used.unwrap_or_else(|| panic!("{said}"));
    assert!(rest.starts_with(&format!("{limit}ms")), "{said}");
    let seconds = match used.strip_suffix("ms") {
        Some(ms) => ms.parse::<f64>().unwrap() / 1000.0,
        None => used.strip_suffix('s').unwrap().parse::<f64>().unwrap(),
    };
    Duration::from_secs_f64(seconds)
}

#[test]
fn modules_of_wasi_01_that_never_end() {
    run(&of_guest(Guest::Cgi01));
}

#[test]
fn programs_of_wasi_02_that_never_end() {
    run(&of_guest(Guest::Cgi02));
}

#[test]
fn components_of_wasi_02_that_never_end() {
    run(&of_guest(Guest::Http02));
}

#[test]
fn components_of_wasi_03_that_never_end() {
    run(&of_guest(Guest::Http03));
}

#[test]
fn code_that_never_ends_where_none_should_take_long() {
    run(&written());
}

/// Instances that serve several requests are held to the same, and hold up nobody.
#[test]
fn a_shared_instance_that_never_ends() {
    let node = Node::with(
        "[ingress]\nthreads = 1\n[engine]\nquarantine_after = 0\n[limits]\ncpu_ms = 300\n",
    );
    node.deploy("calm", &artifacts::says("calm"));
    let request =
        Request::new("POST", "/v1/apps/shared/deploy?reuse_requests=1000&reuse_concurrency=4");
    let request = request.header("content-type", "application/wasm").body(Guest::Http03.wasm());
    assert_eq!(node.api(request).status, 201);
    let load = Load::start(node.ingress(), 50, &["/calm/"]);
    for what in ["pure", "clock", "yield"] {
        thread::scope(|scope| {
            for _ in 0..crowd() {
                scope.spawn(|| {
                    let answer = node.get(&format!("/shared/attack?what={what}"));
                    answer.failure(ErrorCode::CpuTime);
                });
            }
        });
    }
    let outcomes = load.stop();
    assert!(outcomes.iter().all(|outcome| outcome.status == Ok(200)), "{outcomes:?}");
    // Where the others' connections are, they only began.
    let elsewhere = process::thread_ticks(node.pid(), "long-guests");
    assert!(elsewhere > 0, "they computed on the thread of the connections");
    node.get("/shared/count").expect(200);
    node.idle();
}

/// A program that counts to so many, and answers.
fn counts(rounds: u32) -> Vec<u8> {
    assemble(&format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write"
            (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\08\00\00\00\1f\00\00\00Content-Type: text/plain\0a\0acount")
          (func (export "_start") (local $n i32)
            (loop $l
              (local.set $n (i32.add (local.get $n) (i32.const 1)))
              (i32.store (i32.const 100) (local.get $n))
              (br_if $l (i32.lt_u (local.get $n) (i32.const {rounds}))))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 104)))))"#
    ))
}

/// One app has a crowd that computes; another one has a function that needs a moment. It gets the
/// half of what there is, and not one share in hundreds.
#[test]
fn an_app_with_hundreds_of_spinners_leaves_others_their_share() {
    let many = if is_full() { 500 } else { 200 };
    let node = Node::with(&format!(
        "[engine]\nquarantine_after = 0\npool_size = {}\n[limits]\ncpu_ms = 30000\nfirst_byte_ms = 300000\n",
        2 * many + 10
    ));
    node.deploy("greedy", &Guest::Http02.wasm());
    node.deploy("modest", &counts(100_000_000));
    let calm = Instant::now();
    node.get("/modest/").expect(200);
    let calm = calm.elapsed();
    let spinners: Vec<Connection> = (0..many)
        .map(|_| {
            let mut connection = Connection::open(node.ingress());
            connection.start(&Request::get("/greedy/attack?what=pure"));
            connection
        })
        .collect();
    let active = || node.metrics().sum("faas_instances_active", &[("app", "greedy")]);
    // Whatever else limits how many there may be, there are far more than cores.
    eventually("a crowd spins", PATIENCE, || (active() >= 50.0).then_some(()));
    let ticks = || process::thread_ticks(node.pid(), "long-guests");
    let (before, started) = (ticks(), Instant::now());
    assert_eq!(node.get("/modest/").expect(200).text(), "count");
    let (spent, took) = ((ticks() - before) * 10, started.elapsed());
    assert!(active() >= 50.0, "they were gone when the other was answered");
    if is_full() {
        figure(&format!(
            "alone {calm:?}, beside {} spinners {took:?}: {spent} ms of CPU time",
            active()
        ));
    }
    // In line with all of them it would have been a turn in hundreds: more than ten seconds.
    assert!(spent < 5_000, "{spent} ms of CPU time, {took:?}; alone {calm:?}");
    drop(spinners);
}

/// What the requests of one app take, while others spin.
struct Latency {
    median: Duration,
    p99: Duration,
    slowest: Duration,
}

/// A request each millisecond over one connection, for so long.
fn latency(node: &Node, time: Duration) -> Latency {
    let mut connection = Connection::open(node.ingress());
    let mut took = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let started = Instant::now();
        connection.ask(&Request::get("/calm/")).expect(200);
        took.push(started.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    took.sort();
    let at = |share: f64| took[(took.len() as f64 * share) as usize];
    Latency { median: at(0.5), p99: at(0.99), slowest: took[took.len() - 1] }
}

/// A node whose threads all have the one core, where that is wanted.
fn start(pinned: bool) -> Node {
    let launch = || {
        let node = Node::with(
            "[engine]\nquarantine_after = 0\n[limits]\ncpu_ms = 300\nfirst_byte_ms = 60000\n",
        );
        node.deploy("calm", &artifacts::says("calm"));
        for guest in Guest::ALL {
            node.deploy(guest.app(), &guest.wasm());
        }
        node
    };
    if !pinned {
        return launch();
    }
    // What it starts has the same cores, and counts them.
    let pinned = thread::spawn(move || {
        let mut cores = rustix::thread::CpuSet::new();
        cores.set(0);
        rustix::thread::sched_setaffinity(None, &cores).unwrap();
        launch()
    });
    pinned.join().unwrap()
}

/// How much slower others become while a crowd spins in every shape; all cores, and one.
#[test]
fn others_hardly_notice() {
    let time = Duration::from_millis(if is_full() { 8000 } else { 500 });
    for pinned in [false, true] {
        let node = start(pinned);
        let calm = latency(&node, time);
        let shapes: Vec<Shape> = Guest::ALL.into_iter().flat_map(of_guest).collect();
        let (over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
        let attacked = thread::scope(|scope| {
            for _ in 0..crowd() {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        let shape = &shapes[next.fetch_add(1, Relaxed) % shapes.len()];
                        node.get(&shape.path).failure(ErrorCode::CpuTime);
                    }
                });
            }
            let active = || node.metrics().sum("faas_instances_active", &[]);
            eventually("they spin", PATIENCE, || (active() >= 1.0).then_some(()));
            let attacked = latency(&node, time);
            over.store(true, Relaxed);
            attacked
        });
        if is_full() {
            let where_to = if pinned { "one core" } else { "all cores" };
            for (how, it) in [("calm", &calm), ("attacked", &attacked)] {
                let (median, p99, slowest) = (it.median, it.p99, it.slowest);
                figure(&format!(
                    "{where_to}, {how}: median {median:?}, p99 {p99:?}, slowest {slowest:?}"
                ));
            }
            let times = attacked.p99.as_secs_f64() / calm.p99.as_secs_f64();
            figure(&format!("{where_to}: p99 {times:.1} times"));
        }
        // Every request was answered; how fast, is measured and not promised here.
        assert!(attacked.slowest < Duration::from_secs(5), "{:?}", attacked.slowest);
        node.idle();
    }
}
