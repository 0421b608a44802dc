//! A function that fails again and again is out of service for a while, and back when it works.

use faas_api::ErrorCode;
use faas_tests::{Connection, Node, artifacts::Guest, eventually};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn quarantined(node: &Node) -> f64 {
    node.metrics().sum("faas_functions_quarantined", &[])
}

#[test]
fn traps_in_a_row() {
    let node = Node::with_guests("[engine]\nquarantine_after = 5\nquarantine_s = 2\n");
    for guest in Guest::ALL {
        let app = guest.app();
        let trap = || node.get(&format!("/{app}/trap"));
        // A call that ends well in between, and it counts anew.
        for _ in 0..3 {
            for _ in 0..4 {
                trap().failure(ErrorCode::GuestTrap);
            }
            node.get(&format!("/{app}/hello")).expect(200);
        }
        for _ in 0..5 {
            trap().failure(ErrorCode::GuestTrap);
        }
        let answer = trap();
        answer.failure(ErrorCode::Quarantined);
        assert!(answer.header("retry-after").is_some(), "{guest:?}: {answer:?}");
        assert_eq!(quarantined(&node), 1.0, "{guest:?}");
        // That is this function's alone.
        for other in Guest::ALL.into_iter().filter(|other| *other != guest) {
            node.get(&format!("/{}/hello", other.app())).expect(200);
        }
        eventually("a call that ends well is let through", PATIENCE, || {
            (node.get(&format!("/{app}/hello")).status == 200).then_some(())
        });
        assert_eq!(quarantined(&node), 0.0, "{guest:?}");
        node.get(&format!("/{app}/hello")).expect(200);
        let labels = [("app", app), ("reason", "quarantined")];
        assert!(node.metrics().sum("faas_rejected_total", &labels) >= 1.0, "{guest:?}");
        let log = node.cli(["logs", app]).run().expect(0).stdout;
        assert!(log.contains("quarantined for 1s"), "{guest:?}: {log}");
    }
    node.idle();
}

/// A call that uses up its time costs more, and fewer are needed.
#[test]
fn timeouts_in_a_row() {
    let config = "[engine]\nquarantine_after = 8\n[limits]\ncpu_ms = 50\nfirst_byte_ms = 300\n";
    let node = Node::with_guests(config);
    for (app, call, code) in
        [("http02", "spin", ErrorCode::CpuTime), ("http03", "sleep?ms=60000", ErrorCode::WallTime)]
    {
        for _ in 0..2 {
            node.get(&format!("/{app}/{call}")).failure(code);
        }
        node.get(&format!("/{app}/{call}")).failure(ErrorCode::Quarantined);
    }
    // What is deployed next starts anew.
    node.deploy("http02", &Guest::Http02.wasm());
    node.get("/http02/hello").expect(200);
    node.idle();
}

/// A client that sends its body slowly must not be able to take a function out of service.
#[test]
fn slow_clients_do_not_count() {
    let config = "[engine]\nquarantine_after = 4\n[limits]\nfirst_byte_ms = 300\n";
    let node = Node::with_guests(config);
    for guest in Guest::ALL {
        for _ in 0..3 {
            let mut connection = Connection::open(node.ingress());
            let target = format!("/{}/echo", guest.app());
            let head = format!(
                "POST {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: 10\r\n\r\n12345",
                node.ingress()
            );
            connection.write(head.as_bytes()).unwrap();
            // An answer that has begun may break off instead.
            let _ = connection.read_head(false);
        }
        node.get(&format!("/{}/hello", guest.app())).expect(200);
    }
    assert_eq!(quarantined(&node), 0.0);
    node.idle();
}

#[test]
fn it_can_be_turned_off() {
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n");
    for _ in 0..100 {
        node.get("/http02/trap").failure(ErrorCode::GuestTrap);
    }
    assert_eq!(quarantined(&node), 0.0);
}
