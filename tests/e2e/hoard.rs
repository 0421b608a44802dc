//! What a guest can make the host hold for it is little, whatever it asks for, and however often.

use faas_api::ErrorCode;
use faas_tests::{Node, artifacts::Guest};
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
        (Guest::Cgi02, "timers", 0),
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
