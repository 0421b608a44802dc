//! A wall clock that jumps while a node serves: what ends at a time of day follows it, and what ends
//! after a while does not.

use faas_api::ErrorCode;
use faas_tests::{
    Answer, Connection, Deploy, Issuer, Node, Request, WallClock,
    artifacts::{Guest, says},
    eventually,
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

const HOUR: i64 = 3600;
/// Long enough for another number of the year at any date.
const YEAR: i64 = 366 * 24 * HOUR;
const BACK: i64 = -YEAR;

/// A node with the test guests whose wall clock is right as yet.
fn node(config: &str) -> (Node, WallClock) {
    let mut node = Node::unstarted(config);
    let clock = WallClock::new(node.home());
    for (name, value) in clock.env() {
        node.set_env(name, value);
    }
    node.prepare_guests();
    node.launch();
    (node, clock)
}

/// The year of what the node has written last.
fn year(node: &Node) -> i32 {
    let log = node.log();
    // The last line may be half there.
    let mut years = log.lines().rev().filter_map(|line| {
        let (_, time) = line.split_once("\"timestamp\":\"")?;
        time.get(..4)?.parse().ok()
    });
    years.next().expect("it writes a log")
}

/// Lets the clock jump, which calls notice from now on.
fn jump(node: &Node, clock: &WallClock, seconds: i64) {
    clock.jump(0);
    let hello = || node.get("/http02/hello").expect(200);
    // Its line is written a moment later.
    let until = |what: &str, ask: &dyn Fn(i32) -> bool| {
        eventually(what, PATIENCE, || {
            hello();
            ask(year(node)).then_some(())
        });
    };
    let true_year = WallClock::true_year();
    until("it is right again", &|year| year == true_year);
    clock.jump(seconds);
    match seconds {
        YEAR => until("the jump is noticed", &|year| year > true_year),
        BACK => until("the jump is noticed", &|year| year < true_year),
        _ => drop(hello()),
    }
}

fn bearer(node: &Node, path: &str, token: &str) -> Answer {
    let request = Request::get(path).header("authorization", &format!("Bearer {token}"));
    node.send(&request)
}

#[test]
fn tokens_end_by_the_wall_clock() {
    let (node, clock) = node("[auth]\nallow_private_issuers = true\n");
    let issuer = Issuer::start();
    let auth = json!({ "auth": { "kind": "jwt", "issuer": issuer.url(), "audience": "shop" } });
    node.deploy_functions("shop", &[Deploy::new("main", says("in"), auth)]);
    let short = node.cli(["token", "create", "--name", "short", "--expires", "2h"]).run().expect(0);
    let short = short.stdout.trim().to_owned();
    let lists = || {
        let bearer = format!("Bearer {short}");
        Connection::open(node.admin())
            .ask(&Request::get("/v1/apps").header("authorization", &bearer))
    };
    // Of somebody's, for five minutes; and one that is good from now on.
    let ends = issuer.token("ada", json!({ "aud": "shop" }));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begins = json!({ "aud": "shop", "nbf": now, "exp": now + 10 * YEAR.unsigned_abs() });
    let begins = issuer.token("ada", begins);
    for (seconds, short, ending, beginning) in [
        (0, true, true, true),
        (HOUR, true, false, true),
        (3 * HOUR, false, false, true),
        (-HOUR, true, true, false),
        (YEAR, false, false, true),
        (BACK, true, true, false),
        (0, true, true, true),
    ] {
        clock.jump(seconds);
        let answer = lists();
        match short {
            true => drop(answer.expect(200)),
            false => drop(answer.failure(ErrorCode::TokenExpired)),
        }
        for (token, good) in [(&ends, ending), (&begins, beginning)] {
            let answer = bearer(&node, "/shop/", token);
            match good {
                true => drop(answer.expect(200)),
                false => drop(answer.failure(ErrorCode::Unauthenticated)),
            }
        }
        // What has no end is as good as ever, and so is what is open to all.
        node.api(Request::get("/v1/apps")).expect(200);
        node.get("/http03/hello").expect(200);
    }
}

/// Calls that sleep are neither ended early nor kept for longer, and what they may use is as it was.
#[test]
fn deadlines_and_limits_are_of_another_clock() {
    let (node, clock) = node(
        "[engine]\nquarantine_after = 0\n[limits]\nfirst_byte_ms = 5000\nresponse_idle_ms = 5000\n",
    );
    let spent = json!({ "rate_limit": { "requests": 2, "per_ms": 86_400_000 } });
    node.deploy_functions("rated", &[Deploy::new("main", says("in"), spent)]);
    for _ in 0..2 {
        node.get("/rated/").expect(200);
    }
    let mut idle = Connection::open(node.ingress());
    idle.ask(&Request::get("/http02/hello")).expect(200);
    for jumps in [[HOUR, YEAR], [-HOUR, BACK]] {
        let since = Instant::now();
        let start = |what: &str| -> Vec<Connection> {
            let start = |guest: Guest| {
                let mut connection = Connection::open(node.ingress());
                connection.start(&Request::get(&format!("/{}/{what}", guest.app())));
                connection
            };
            Guest::ALL.into_iter().map(start).collect()
        };
        let sleeping = start("sleep?ms=2000");
        let streaming = start("slow?pieces=20&ms=100&bytes=10");
        let endless = start("sleep?ms=60000");
        let active = || node.metrics().sum("faas_instances_active", &[]);
        eventually("all are under way", PATIENCE, || (active() == 12.0).then_some(()));
        for seconds in jumps {
            jump(&node, &clock, seconds);
            // What ends at once, and what ends by its limit of CPU time.
            node.get("/rated/").failure(ErrorCode::RateLimited);
            idle.ask(&Request::get("/http02/hello")).expect(200);
        }
        for mut connection in sleeping {
            let answer = connection.read_answer(false).unwrap();
            assert_eq!(answer.expect(200).text(), "slept\n", "{jumps:?}");
        }
        assert!(since.elapsed() >= Duration::from_secs(2), "{jumps:?}: {:?}", since.elapsed());
        for mut connection in streaming {
            let answer = connection.read_answer(false).unwrap();
            assert_eq!(answer.expect(200).body.len(), 200, "{jumps:?}");
        }
        for mut connection in endless {
            connection.read_answer(false).unwrap().failure(ErrorCode::WallTime);
        }
        assert!(since.elapsed() >= Duration::from_secs(5), "{jumps:?}: {:?}", since.elapsed());
    }
    node.idle();
}

/// CPU time is that of the threads, whatever the wall clock says meanwhile.
#[test]
fn cpu_time_is_of_another_clock() {
    let (node, clock) =
        node("[engine]\nquarantine_after = 0\n[limits]\ncpu_ms = 400\nfirst_byte_ms = 55000\n");
    for seconds in [YEAR, BACK] {
        thread::scope(|scope| {
            let calls = Guest::ALL.map(|guest| {
                let path = |what: &str| format!("/{}/{what}", guest.app());
                let node = &node;
                let work = path("work?ms=200");
                let spin = path("spin");
                scope.spawn(move || {
                    node.get(&work).expect(200);
                    node.get(&spin).failure(ErrorCode::CpuTime);
                })
            });
            while !calls.iter().all(thread::ScopedJoinHandle::is_finished) {
                for seconds in [seconds, 0] {
                    clock.jump(seconds);
                    node.get("/http02/hello").expect(200);
                }
            }
        });
    }
    node.idle();
}

/// What is written down at one time and read at an earlier one.
#[test]
fn a_node_whose_clock_goes_back_is_operated_as_ever() {
    let (mut node, clock) = node("");
    node.deploy("shop", &says("one"));
    for (round, seconds) in [YEAR, BACK, HOUR, -HOUR].into_iter().enumerate() {
        jump(&node, &clock, seconds);
        let text = format!("round {round}");
        node.deploy("shop", &says(&text));
        assert_eq!(node.get("/shop/").expect(200).text().trim(), text);
        let version = node.get("/shop/").header("x-faas-version").map(str::to_owned);
        assert_eq!(version, Some(format!("v{}", 2 * round + 2)));
        node.cli(["rollback", "shop"]).run().expect(0);
        assert_ne!(node.get("/shop/").expect(200).text().trim(), text);
        node.deploy("shop", &says(&format!("{text} again")));
        for verb in ["list", "versions shop", "describe shop", "logs shop", "usage", "audit"] {
            let words = verb.split(' ').chain(["-o", "json"]);
            node.cli(words).run().expect(0);
        }
        node.restart();
        let text = node.get("/shop/").expect(200).text();
        assert_eq!(text.trim(), format!("round {round} again"));
    }
    let audit: Value = node.cli(["audit", "-o", "json"]).run().expect(0).json();
    let entries = audit["data"]["entries"].as_array().unwrap();
    // What is a year old is forgotten, as it should be.
    assert_eq!(entries[0]["object"], "v9", "{audit}");
}
