//! What a guest can make the host hold for it is little, whatever it asks for, and however often.

use faas_api::ErrorCode;
use faas_tests::{Connection, Node, Request, artifacts::Guest, figure, full, process};
use std::fs;

/// Beside the instance's own memory. docs/limits.md says what it is made of.
const MOST: u64 = 128 << 20;

/// The most memory that the node had since the last time, in bytes.
fn peak(node: &Node) -> u64 {
    let of = format!("/proc/{}", node.pid());
    let status = fs::read_to_string(format!("{of}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    // From here on it counts anew (proc(5), clear_refs).
    fs::write(format!("{of}/clear_refs"), "5").unwrap();
    kib << 10
}

#[test]
fn the_host_holds_little_for_a_guest() {
    for (guest, what, own) in [
        (Guest::Http02, "bodies", 0),
        (Guest::Http02, "responses", 0),
        (Guest::Http02, "fields", 0),
        (Guest::Http02, "requests", 0),
        (Guest::Http02, "timers", 0),
        (Guest::Http03, "fields", 0),
        (Guest::Http03, "requests", 0),
        (Guest::Http03, "streams", 0),
        (Guest::Cgi02, "write", 0),
        (Guest::Cgi02, "timers", 400),
        // What it asks with and what it is told are in its own memory.
        (Guest::Cgi01, "timers", 64 << 20),
    ] {
        // What one had is not given back to the system at once.
        let node = Node::with("[limits]\ncpu_ms = 20000\n");
        node.deploy("hoard", &guest.wasm());
        node.get("/hoard/count").expect(200);
        let calm = peak(&node);
        node.get(&format!("/hoard/hoard?what={what}")).failure(ErrorCode::GuestTrap);
        let grown = peak(&node).saturating_sub(calm);
        assert!(grown < MOST + own, "{guest:?} {what}: {} MiB", grown >> 20);
        node.get("/hoard/count").expect(200);
    }
}

/// A head that a map of header fields cannot hold is refused, not a panic.
#[test]
fn a_head_with_too_many_fields() {
    let node = Node::with_guests("");
    for guest in [Guest::Cgi01, Guest::Cgi02] {
        let answer = node.get(&format!("/{}/hoard?what=fields", guest.app()));
        answer.failure(ErrorCode::BadResponse);
    }
}

/// All that a guest holds when it ends well is free again: for the next call, and after it.
#[test]
fn what_was_held_is_given_back() {
    let node = Node::with_guests(
        "[ingress]\naccess_log = \"off\"\n[limits]\ncpu_ms = 60000\nafter_response_ms = 2000\n",
    );
    let hold = |rounds: usize| {
        for (guest, what, most) in [
            (Guest::Http02, "fields", 900),
            (Guest::Http02, "timers", 400),
            (Guest::Http02, "bodies", 200),
            (Guest::Http02, "responses", 200),
            (Guest::Http02, "requests", 200),
            (Guest::Http03, "fields", 900),
            (Guest::Http03, "requests", 200),
            (Guest::Http03, "streams", 2000),
            (Guest::Http03, "futures", 2000),
            (Guest::Cgi02, "timers", 400),
        ] {
            let mut connection = Connection::open(node.ingress());
            // Nearly as much as there may be, or an eighth of that.
            let most = most / full(8, 1);
            let target = format!("/{}/hoard?what={what}&most={most}", guest.app());
            for _ in 0..rounds {
                let answer = connection.ask(&Request::get(&target));
                assert_eq!(answer.status, 200, "{guest:?} {what}: {answer:?}");
            }
            let count = Request::get(&format!("/{}/count", guest.app()));
            assert_eq!(connection.ask(&count).expect(200).text(), "1\n", "{guest:?} {what}");
        }
        node.idle();
        (process::resident_bytes(node.pid()), process::open_files(node.pid()))
    };
    let rounds = full(2, 20);
    let (memory, files) = hold(rounds);
    let (memory_later, files_later) = hold(rounds);
    figure(&format!(
        "{} MiB after {rounds} rounds, {} MiB later",
        memory >> 20,
        memory_later >> 20
    ));
    assert!(memory_later < memory + (48 << 20), "{memory}, then {memory_later} bytes");
    assert!(files_later <= files + 8, "{files}, then {files_later} files");
}
