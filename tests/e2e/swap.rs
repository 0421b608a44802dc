//! Swap hides what was written from the map of pages by which used memory is cleaned.

use faas_tests::{
    Connection, Node, Request,
    artifacts::Guest,
    eventually, process,
    swap::{Swap, page_out},
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const CONFIG: &str = "[engine]\npool_size = 4\n[limits]\ncpu_ms = 60000\n";

/// Guests fill their memory, which is forced out while they sleep; then others look for it.
fn nothing_comes_back(node: &Node) {
    for filler in Guest::ALL {
        let mut asleep: Vec<Connection> = (0..2)
            .map(|_| {
                let mut connection = Connection::open(node.ingress());
                connection.start(&Request::get(&format!("/{}/canary?hold&ms=4000", filler.app())));
                connection
            })
            .collect();
        eventually("their memory is full and in swap", PATIENCE, || {
            page_out(node.pid());
            (process::swapped_bytes(node.pid()) > 40 << 20).then_some(())
        });
        for connection in &mut asleep {
            assert_eq!(connection.read_answer(false).unwrap().expect(200).text(), "slept\n");
        }
        for looker in Guest::ALL {
            for _ in 0..4 {
                let text = node.get(&format!("/{}/canary?look", looker.app())).expect(200).text();
                assert!(text.starts_with("clean"), "{filler:?} to {looker:?}: {text}");
            }
        }
    }
    node.idle();
}

#[test]
fn memory_that_was_swapped_out_is_clean_for_the_next() {
    // One that was there before the swap, and one that comes later.
    let early = Node::with_guests(CONFIG);
    for guest in Guest::ALL {
        early.get(&format!("/{}/count", guest.app())).expect(200);
    }
    let swap = Swap::on();
    eventually("the node has noticed", PATIENCE, || {
        early.log().contains("swap was turned on").then_some(())
    });
    nothing_comes_back(&early);
    nothing_comes_back(&Node::with_guests(CONFIG));
    drop(swap);
    early.get("/http02/count").expect(200);
}
