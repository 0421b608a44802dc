//! Functions whose requests share instances, because they said so; and instances that are made
//! before their request.

use faas_api::ErrorCode;
use faas_tests::{
    Answer, Connection, Node, Request,
    artifacts::{self, Guest},
    eventually,
};
use serde_json::Value;
use std::{thread, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);
const HTTP: [Guest; 2] = [Guest::Http02, Guest::Http03];

fn try_deploy(node: &Node, app: &str, guest: Guest, query: &str) -> Answer {
    node.api(
        Request::new("POST", &format!("/v1/apps/{app}/deploy?{query}"))
            .header("content-type", "application/wasm")
            .body(guest.wasm()),
    )
}

fn deploy(node: &Node, app: &str, guest: Guest, query: &str) {
    let answer = try_deploy(node, app, guest, query);
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn count(node: &Node, app: &str) -> u32 {
    node.get(&format!("/{app}/count")).expect(200).text().trim().parse().unwrap()
}

fn starts(node: &Node) -> f64 {
    node.metrics().sum("faas_instance_start_seconds_count", &[])
}

#[test]
fn an_instance_serves_as_many_requests_as_it_may() {
    let node = Node::start();
    for guest in HTTP {
        let app = guest.app();
        deploy(&node, app, guest, "reuse_requests=5");
        // An instance is there for the next request when the one before has ended, which may be a
        // moment after its answer.
        let counts: Vec<u32> = (0..12)
            .map(|_| {
                let count = count(&node, app);
                node.idle();
                count
            })
            .collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2], "{guest:?}");
    }
    node.idle();
}

#[test]
fn functions_and_versions_never_share() {
    let node = Node::start();
    for guest in HTTP {
        for app in ["one", "two"] {
            deploy(&node, app, guest, "reuse_requests=100");
        }
        assert_eq!((count(&node, "one"), count(&node, "one"), count(&node, "two")), (1, 2, 1));
        // The same artifact as another version.
        let described = node.cli(["-o", "json", "describe", "one"]).run().json();
        let version =
            described["data"]["traffic"]["shares"][0]["version"].as_str().unwrap().to_owned();
        deploy(&node, "one", guest, "reuse_requests=100");
        assert_eq!(count(&node, "one"), 1, "a new version starts anew");
        assert_eq!(count(&node, &format!("one@{version}")), 3, "the old one goes on");
        // A version without it is what every version is.
        deploy(&node, "one", guest, "");
        assert_eq!((count(&node, "one"), count(&node, "one")), (1, 1));
        for app in ["one", "two"] {
            node.api(Request::new("DELETE", &format!("/v1/apps/{app}"))).expect(204);
        }
    }
}

#[test]
fn failures_growth_and_clients_that_go_away_end_an_instance() {
    let node = Node::with("[limits]\nmemory_bytes = 33554432\nfirst_byte_ms = 300\ncpu_ms = 50\n");
    for guest in HTTP {
        let app = guest.app();
        deploy(&node, app, guest, "reuse_requests=1000");
        let counted = || (count(&node, app), count(&node, app));
        assert_eq!(counted(), (1, 2));
        node.get(&format!("/{app}/trap")).failure(ErrorCode::GuestTrap);
        assert_eq!(counted(), (1, 2), "{guest:?} after a trap");
        node.get(&format!("/{app}/sleep?ms=60000")).failure(ErrorCode::WallTime);
        assert_eq!(counted(), (1, 2), "{guest:?} after it was too slow");
        node.get(&format!("/{app}/spin")).failure(ErrorCode::CpuTime);
        assert_eq!(counted(), (1, 2), "{guest:?} after it used up its CPU time");
        assert_eq!(node.get(&format!("/{app}/grow?mib=4")).expect(200).text(), "grown 4 MiB\n");
        assert_eq!(counted(), (3, 4), "{guest:?} a little memory is no reason");
        assert_eq!(node.get(&format!("/{app}/grow?mib=14")).expect(200).text(), "grown 14 MiB\n");
        assert_eq!(counted(), (1, 2), "{guest:?} past half of its memory");
        let mut gone = Connection::open(node.ingress());
        gone.start(&Request::get(&format!("/{app}/slow?pieces=100000&ms=20")));
        gone.read_head(false).unwrap();
        drop(gone);
        node.idle();
        assert_eq!(counted(), (1, 2), "{guest:?} after its client went away");
    }
}

#[test]
fn an_instance_does_not_wait_for_ever() {
    let node = Node::start();
    for guest in HTTP {
        deploy(&node, guest.app(), guest, "reuse_requests=1000000&reuse_idle_ms=1");
        let mut last = count(&node, guest.app());
        eventually("an instance was dropped for having nothing to do", PATIENCE, || {
            let before = std::mem::replace(&mut last, count(&node, guest.app()));
            (last <= before).then_some(())
        });
    }
}

#[test]
fn what_each_request_uses_and_prints_is_its_own() {
    let node = Node::start();
    for (guest, query) in [
        (Guest::Http02, "reuse_requests=1000"),
        (Guest::Http03, "reuse_requests=1000"),
        (Guest::Http03, "reuse_requests=1000&reuse_concurrency=4"),
    ] {
        let app = guest.app();
        deploy(&node, app, guest, query);
        for _ in 0..3 {
            let answer = node.get(&format!("/{app}/log?lines=1")).expect(200);
            let id = answer.header("x-request-id").unwrap().to_owned();
            let path = format!("/v1/apps/{app}/logs?request_id={id}");
            let lines: Vec<Value> = eventually("the lines of the request", PATIENCE, || {
                let text = node.api(Request::get(&path)).expect(200).text();
                let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                Some(lines.collect::<Vec<_>>()).filter(|lines| lines.len() == 2)
            });
            assert_eq!(lines[0]["message"], "error line 0", "{query}: {lines:?}");
            assert!(lines[1]["cpu_ms"].as_f64().unwrap() > 0.0, "{query}: {lines:?}");
            assert!(lines[1]["memory_bytes"].as_u64().unwrap() > 0, "{query}: {lines:?}");
        }
    }
}

#[test]
fn several_requests_at_once_in_one_instance() {
    let node = Node::start();
    deploy(&node, "app", Guest::Http03, "reuse_requests=1000&reuse_concurrency=8");
    assert_eq!(count(&node, "app"), 1);
    let before = starts(&node);
    // As many as it takes are asleep in it at once; one more gets another instance.
    thread::scope(|scope| {
        let mut asleep: Vec<Connection> = (0..8)
            .map(|_| {
                let mut connection = Connection::open(node.ingress());
                connection.start(&Request::get("/app/slow?pieces=3&ms=500"));
                connection
            })
            .collect();
        let active = || node.metrics().sum("faas_instances_active", &[]);
        eventually("all of them are at work", PATIENCE, || (active() == 8.0).then_some(()));
        assert_eq!(starts(&node), before);
        let ninth = scope.spawn(|| count(&node, "app"));
        assert_eq!(ninth.join().unwrap(), 1, "the ninth is the first of its instance");
        assert_eq!(starts(&node), before + 1.0);
        for connection in &mut asleep {
            let answer = connection.read_answer(false).unwrap().expect(200);
            assert_eq!(answer.body.len(), 30);
        }
    });
    node.idle();
    // The first instance goes on: nothing was wrong with it.
    let counts: Vec<u32> = (0..4).map(|_| count(&node, "app")).collect();
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
}

#[test]
fn a_failure_takes_the_requests_of_its_instance_with_it_and_no_others() {
    let node = Node::with("[limits]\ncpu_ms = 300\n");
    deploy(&node, "shared", Guest::Http03, "reuse_requests=1000&reuse_concurrency=8");
    deploy(&node, "other", Guest::Http03, "reuse_requests=1000&reuse_concurrency=8");
    for (path, code) in [("trap", ErrorCode::GuestTrap), ("spin", ErrorCode::CpuTime)] {
        thread::scope(|scope| {
            let asleep = |app: &'static str, ms: u32| {
                let node = &node;
                let path = format!("/{app}/sleep?ms={ms}");
                scope.spawn(move || node.get(&path))
            };
            let neighbours = [asleep("shared", 60_000), asleep("shared", 60_000)];
            let stranger = asleep("other", 1500);
            let active = || node.metrics().sum("faas_instances_active", &[]);
            eventually("all of them are at work", PATIENCE, || (active() == 3.0).then_some(()));
            node.get(&format!("/shared/{path}")).failure(code);
            for neighbour in neighbours {
                neighbour.join().unwrap().failure(code);
            }
            assert_eq!(stranger.join().unwrap().expect(200).text(), "slept\n");
        });
        assert_eq!(count(&node, "shared"), 1, "after {path}");
    }
    node.idle();
}

#[test]
fn a_shared_instance_ends_with_its_last_request() {
    let node = Node::start();
    deploy(&node, "app", Guest::Http03, "reuse_requests=6&reuse_concurrency=3");
    let counts: Vec<u32> = (0..13).map(|_| count(&node, "app")).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1]);
    // A request that is given up ends it for new ones; those in it finish.
    thread::scope(|scope| {
        let asleep = scope.spawn(|| node.get("/app/sleep?ms=700"));
        let active = || node.metrics().sum("faas_instances_active", &[]);
        eventually("it is at work", PATIENCE, || (active() == 1.0).then_some(()));
        let mut gone = Connection::open(node.ingress());
        gone.start(&Request::get("/app/slow?pieces=100000&ms=20"));
        gone.read_head(false).unwrap();
        drop(gone);
        eventually("it was given up", PATIENCE, || (active() == 1.0).then_some(()));
        assert_eq!(count(&node, "app"), 1);
        assert_eq!(asleep.join().unwrap().expect(200).text(), "slept\n");
    });
    node.idle();
}

/// Functions that keep instances for an hour cannot take the pool from the others.
#[test]
fn most_of_the_pool_is_never_kept() {
    let node = Node::with("[engine]\npool_size = 4\n");
    for (guest, concurrency) in [(Guest::Http02, 1), (Guest::Http03, 1), (Guest::Http03, 8)] {
        let query =
            format!("reuse_requests=1000&reuse_concurrency={concurrency}&reuse_idle_ms=3600000");
        let apps: Vec<String> = (0..6).map(|number| format!("app{number}")).collect();
        for app in &apps {
            deploy(&node, app, guest, &query);
        }
        for app in &apps {
            let counts = [1, 2, 3].map(|_| count(&node, app));
            let expected = if app == "app0" { [1, 2, 3] } else { [1, 1, 1] };
            assert_eq!(counts, expected, "{guest:?} × {concurrency}: {app}");
        }
        for app in &apps {
            node.api(Request::new("DELETE", &format!("/v1/apps/{app}"))).expect(204);
        }
    }
    node.idle();
}

#[test]
fn what_cannot_be_reused_is_refused() {
    let node = Node::start();
    for (guest, query, said) in [
        (Guest::Cgi01, "reuse_requests=2", "runs once"),
        (Guest::Cgi02, "reuse_requests=2", "runs once"),
        (Guest::Http02, "reuse_requests=2&reuse_concurrency=2", "one request at a time"),
        (Guest::Http03, "reuse_requests=1", "`requests` is from 2"),
        (Guest::Http03, "reuse_requests=2&reuse_concurrency=0", "`concurrency` is from 1"),
        (Guest::Http03, "reuse_requests=2&reuse_idle_ms=0", "`idle_ms` is from 1"),
        (Guest::Http03, "reuse_concurrency=2", "`reuse_requests` is missing"),
    ] {
        let answer = try_deploy(&node, "app", guest, query);
        answer.failure(ErrorCode::Unprocessable);
        assert!(answer.text().contains(said), "{query}: {}", answer.text());
    }
    node.get("/app/").failure(ErrorCode::NotFound);
}

#[test]
fn the_command_line_and_the_manifest() {
    let node = Node::start();
    let file = Guest::Http03.file().display().to_string();
    let words = ["-o", "json", "deploy", "--name", "app", "--reuse", "3x2", &file];
    let deployed = &node.cli(words).run().json()["data"];
    assert_eq!(deployed["reuse"]["requests"], 3);
    assert_eq!(deployed["reuse"]["concurrency"], 2);
    let counts: Vec<u32> = (0..4).map(|_| count(&node, "app")).collect();
    assert_eq!(counts, [1, 2, 3, 1]);
    let refused = node.cli(["deploy", "--reuse", "1", &file]).run();
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("from 2 to 1000000"), "{}", refused.stderr);

    let project = node.home().join("project");
    std::fs::create_dir(&project).unwrap();
    let manifest = |reuse: &str| {
        let text = format!(
            "[app]\nname = \"app\"\n[functions.main]\nsource = \"{file}\"\nreuse = {reuse}\n"
        );
        std::fs::write(project.join("faas.toml"), text).unwrap();
    };
    manifest("{ requests = 4, idle = \"30s\" }");
    let deployed = &node.cli(["-o", "json", "deploy"]).dir(&project).run().json()["data"];
    assert_eq!(
        deployed["reuse"],
        serde_json::json!({ "requests": 4, "concurrency": 1, "idle_ms": 30_000 })
    );
    for (reuse, said) in [
        ("{ requests = 4, idle = \"soon\" }", "`soon` is no duration"),
        ("{ requests = 4, concurrency = 2000 }", "`concurrency` is from 1 to 1000"),
        ("{ request = 4 }", "did you mean `requests`?"),
    ] {
        manifest(reuse);
        let refused = node.cli(["deploy"]).dir(&project).run();
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
}

/// What starts slowly is made ready while nothing else runs, and still serves one request.
#[test]
fn an_instance_that_is_ready_serves_one_request() {
    let node = Node::start();
    node.deploy("slow", &artifacts::wat("slow-start"));
    let mut asked = 0.0;
    let mut more_than_asked = || {
        // One that had served before would trap.
        node.get("/slow/").failure(ErrorCode::GuestNoResponse);
        asked += 1.0;
        node.idle();
        starts(&node) > asked
    };
    // Which takes a request that ends before its answer is told missing, and a moment without any.
    eventually("one that waits", PATIENCE, || more_than_asked().then_some(()));
    for _ in 0..10 {
        more_than_asked();
    }
    // The same of a function that would tell.
    for guest in HTTP {
        let app = guest.app();
        deploy(&node, app, guest, "");
        for _ in 0..20 {
            assert_eq!(count(&node, app), 1);
            node.idle();
        }
    }
}
