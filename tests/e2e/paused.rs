//! A node that is stopped for a while and goes on, as when a virtual machine is moved or a laptop
//! sleeps: what was under way ends, and nothing has to be started anew.

use faas_tests::{Connection, Node, Request, artifacts::Guest, eventually, process::signal};
use rustix::process::Signal;
use std::{thread, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_stopped_node_goes_on() {
    let node = Node::with_guests("");
    let mut calls: Vec<(Guest, Connection)> = Guest::ALL
        .into_iter()
        .map(|guest| {
            let mut connection = Connection::open(node.ingress());
            connection.start(&Request::get(&format!("/{}/sleep?ms=1000", guest.app())));
            (guest, connection)
        })
        .collect();
    let mut idle = Connection::open(node.ingress());
    idle.ask(&Request::get("/http02/hello")).expect(200);
    let active = || node.metrics().sum("faas_instances_active", &[]);
    eventually("all sleep", PATIENCE, || (active() == 4.0).then_some(()));
    signal(node.pid(), Signal::STOP);
    // Requests that come meanwhile wait in the system's queues.
    let waiting: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::open(node.ingress());
            connection.start(&Request::get("/http03/hello"));
            connection
        })
        .collect();
    // The pause is what this is about.
    thread::sleep(Duration::from_secs(3));
    signal(node.pid(), Signal::CONT);
    for mut connection in waiting {
        connection.read_answer(false).unwrap().expect(200);
    }
    for (guest, connection) in &mut calls {
        let answer = connection.read_answer(false).unwrap();
        assert_eq!(answer.status, 200, "{guest:?}: {answer:?}");
    }
    idle.ask(&Request::get("/http02/hello")).expect(200);
    node.deploy("later", &Guest::Http02.wasm());
    node.get("/later/hello").expect(200);
    node.idle();
}
