//! No byte of one request's instance is visible to another's.

use faas_tests::{
    Connection, Node, Request,
    artifacts::{self, Guest},
};
use std::thread;

/// Asks over a few connections at once, each of them for a share of the requests.
fn ask(node: &Node, count: usize, request: impl Fn(usize) -> (String, &'static str) + Sync) {
    const CLIENTS: usize = 4;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let request = &request;
            scope.spawn(move || {
                let mut connection = Connection::open(node.ingress());
                for number in (client..count).step_by(CLIENTS) {
                    let (path, expected) = request(number);
                    let answer = connection.ask(&Request::get(&path)).expect(200);
                    let text = answer.text();
                    assert!(text.starts_with(expected), "request {number}, {path}: {text}");
                }
            });
        }
    });
}

/// Ten thousand calls on a handful of slots.
#[test]
fn a_counter_in_memory_never_passes_one() {
    for isolation in ["fast", "strict"] {
        let config = format!(
            "[engine]\npool_size = 4\nisolation = \"{isolation}\"\n[ingress]\naccess_log = \"off\"\n"
        );
        let node = Node::with_guests(&config);
        node.deploy("globals", &artifacts::wat("globals"));
        let count = if isolation == "fast" { 10_000 } else { 1_000 };
        for guest in Guest::ALL {
            let path = format!("/{}/count", guest.app());
            ask(&node, count, |_| (path.clone(), "1\n"));
            let answered = node.metrics().sum("faas_requests_total", &[("app", guest.app())]);
            assert_eq!(answered, count as f64, "{guest:?}");
        }
        ask(&node, 1000, |_| ("/globals/".to_owned(), "1 1"));
        // All of them taking turns on the same slots.
        let apps = ["http03", "cgi01", "http02", "cgi02"];
        ask(&node, count / 2, |number| (format!("/{}/count", apps[number % 4]), "1\n"));
        node.idle();
    }
}

/// One guest fills its memory with a pattern, the next one looks for it everywhere.
#[test]
fn a_canary_is_never_seen_again() {
    for isolation in ["fast", "strict"] {
        let config = format!(
            "[engine]\npool_size = 2\nisolation = \"{isolation}\"\n[limits]\ncpu_ms = 60000\n"
        );
        let node = Node::with_guests(&config);
        node.deploy("look", &artifacts::wat("look"));
        // Whoever fills, and whoever looks afterwards on one of two slots.
        let mut connection = Connection::open(node.ingress());
        for filler in Guest::ALL {
            for looker in Guest::ALL {
                for _ in 0..3 {
                    let fill = Request::get(&format!("/{}/canary?fill", filler.app()));
                    assert_eq!(connection.ask(&fill).expect(200).text(), "filled 24 MiB\n");
                }
                for _ in 0..3 {
                    let look = Request::get(&format!("/{}/canary?look", looker.app()));
                    let text = connection.ask(&look).expect(200).text();
                    assert!(text.starts_with("clean"), "{filler:?} to {looker:?}: {text}");
                    assert!(text.ends_with("and 32 MiB\n"), "{text}");
                }
                let text = connection.ask(&Request::get("/look/")).expect(200).text();
                assert_eq!(text, "0", "{filler:?}, then a module without data");
            }
        }
        node.idle();
    }
}

/// The same while both run at once, and with guests that end in the middle of it.
#[test]
fn a_canary_of_a_guest_that_failed() {
    // Five at once have three places: some wait, and longer where the machine is busy.
    let node = Node::with_guests(
        "[engine]\npool_size = 3\nqueue_timeout_ms = 20000\n[limits]\ncpu_ms = 60000\n",
    );
    node.deploy("look", &artifacts::wat("look"));
    thread::scope(|scope| {
        for filler in Guest::ALL {
            let node = &node;
            scope.spawn(move || {
                for _ in 0..6 {
                    node.get(&format!("/{}/canary?fill", filler.app())).expect(200);
                    // Fills all it gets with ones, then traps.
                    node.get(&format!("/{}/hog", filler.app())).expect(500);
                }
            });
        }
        for number in 0..40 {
            match number % 5 {
                4 => assert_eq!(node.get("/look/").expect(200).text(), "0"),
                guest => {
                    let path = format!("/{}/canary?look", Guest::ALL[guest].app());
                    let text = node.get(&path).expect(200).text();
                    assert!(text.starts_with("clean"), "{text}");
                }
            }
        }
    });
    node.idle();
}
