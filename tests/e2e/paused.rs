//! A node that is stopped for a while and goes on, as when a virtual machine is moved or a laptop
//! sleeps: what was under way ends, and nothing has to be started anew.

use faas_tests::{
    Connection, Node, Request, artifacts::Guest, eventually, figure, full, load::Load,
    process::signal,
};
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

/// Calls that compute while the node stands still have not used the time that passed meanwhile.
#[test]
fn a_pause_is_no_cpu_time() {
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n[limits]\ncpu_ms = 4000\n");
    let mut calls: Vec<(Guest, Connection)> = Guest::ALL
        .into_iter()
        .map(|guest| {
            let mut connection = Connection::open(node.ingress());
            // It ends when that time has passed by the clock, so that the pause is what ends it.
            connection.start(&Request::get(&format!("/{}/work?ms=3500", guest.app())));
            (guest, connection)
        })
        .collect();
    let active = || node.metrics().sum("faas_instances_active", &[]);
    eventually("all compute", PATIENCE, || (active() == 4.0).then_some(()));
    signal(node.pid(), Signal::STOP);
    // Longer than a call may compute.
    thread::sleep(Duration::from_secs(full(6, 60) as u64));
    signal(node.pid(), Signal::CONT);
    for (guest, connection) in &mut calls {
        let answer = connection.read_answer(false).unwrap();
        assert_eq!(answer.status, 200, "{guest:?}: {answer:?}");
    }
    node.idle();
}

/// At whatever moment of a call it comes.
#[test]
fn pauses_again_and_again() {
    let node = Node::with_guests("[limits]\ncpu_ms = 200\n");
    let targets = Guest::ALL.map(|guest| format!("/{}/hello", guest.app()));
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let load = Load::start(node.ingress(), 100, &targets);
    for round in 0..full(8, 150) {
        let served = load.so_far();
        eventually("it serves", PATIENCE, || (load.so_far() > served + 5).then_some(()));
        signal(node.pid(), Signal::STOP);
        // Longer than a call may compute.
        thread::sleep(Duration::from_millis(300 + 7 * (round as u64 % 10)));
        signal(node.pid(), Signal::CONT);
    }
    let outcomes = load.stop();
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.status != Ok(200)).collect();
    figure(&format!("{} calls, {} failed", outcomes.len(), failed.len()));
    assert!(failed.is_empty(), "{failed:?} of {}", outcomes.len());
    node.idle();
}
