//! Functions that crash again and again, in every way there is: whoever called is told so, over a
//! connection that goes on, and nothing is left behind.
//!
//! In the suite each kind of function crashes a few dozen times in each way; with `FAAS_TEST_FULL=1`
//! ten thousand times.

use faas_api::ErrorCode;
use faas_tests::{Connection, Node, Request, artifacts::Guest, eventually, figure, full, process};
use std::{
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the allocator may keep of what was given back, in bytes, however often it happened.
const KEPT: u64 = 48 << 20;

/// A way to crash, and what the client is told.
const WAYS: [(&str, ErrorCode); 5] = [
    ("trap", ErrorCode::GuestTrap),
    ("divide", ErrorCode::GuestTrap),
    ("bounds", ErrorCode::GuestTrap),
    ("panic", ErrorCode::GuestTrap),
    ("exit?code=3", ErrorCode::GuestExit),
];

/// Little of what functions say is kept: it is not what is measured.
const CONFIG: &str = "[ingress]\naccess_log = \"off\"\n[engine]\nquarantine_after = 0\n\
                      [log]\nfunction_lines = 100\ndisk_bytes = 0\n";

/// One function crashes so often, over one connection, which serves as well as before.
fn crash(node: &Node, guest: Guest, (way, code): (&str, ErrorCode), times: usize) {
    let mut connection = Connection::open(node.ingress());
    let crashes = Request::get(&format!("/{}/{way}", guest.app()));
    for round in 0..times {
        connection.ask(&crashes).failure(code);
        if round % 100 == 0 {
            let path = format!("/{}/count", guest.app());
            assert_eq!(connection.ask(&Request::get(&path)).expect(200).text(), "1\n", "{guest:?}");
        }
    }
}

/// Each kind of function does, all at once. Tells the memory that the node has then.
fn all_crash(node: &Node, way: (&str, ErrorCode), times: usize) -> u64 {
    thread::scope(|scope| {
        for guest in Guest::ALL {
            scope.spawn(move || crash(node, guest, way, times));
        }
    });
    node.idle();
    process::resident_bytes(node.pid())
}

#[test]
fn every_kind_of_function_in_every_way() {
    let times = full(40, 10_000);
    let node = Node::with_guests(CONFIG);
    let files = process::open_files(node.pid());
    let failures = || node.metrics().sum("faas_guest_failures_total", &[]);
    for (number, way) in WAYS.into_iter().enumerate() {
        // The first tenth, and then as many until the last tenth is over.
        let first = all_crash(&node, way, times / 10);
        let since = Instant::now();
        let last = all_crash(&node, way, times - times / 10);
        let crashes = Guest::ALL.len() * times;
        figure(&format!(
            "{:12} × {crashes}: {} KiB after the first tenth, {} KiB at the end; the rest in {:?}",
            way.0,
            first >> 10,
            last >> 10,
            since.elapsed(),
        ));
        assert!(last < first + KEPT, "{}: {first}, then {last} bytes", way.0);
        assert_eq!(failures(), ((number + 1) * crashes) as f64, "{}", way.0);
    }
    let open = || node.metrics().sum("faas_connections_open", &[]);
    eventually("no connection is left", PATIENCE, || (open() == 0.0).then_some(()));
    let left = || process::open_files(node.pid());
    eventually("no file is left", PATIENCE, || (left() <= files + 8).then_some(()));
    assert_eq!(node.metrics().sum("faas_functions_quarantined", &[]), 0.0);
}
