//! Guests that do what no honest one does: each fails alone, with a proper answer, and the node goes
//! on as if nothing had been.

use faas_api::ErrorCode;
use faas_tests::{
    Connection, Node, Request,
    artifacts::{self, Guest, assemble},
    eventually, figure, full, process,
};
use std::{fmt::Write as _, fs, thread, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

fn attack(guest: Guest, what: &str) -> String {
    format!("/{}/attack?what={what}", guest.app())
}

/// What the log says of the failure of a request.
fn said(node: &Node, app: &str, id: &str) -> String {
    let path = format!("/v1/apps/{app}/logs?request_id={id}");
    eventually("why it failed, in the log", PATIENCE, || {
        let text = node.api(Request::get(&path)).expect(200).text();
        text.lines().find(|line| line.contains("\"failure\"")).map(str::to_owned)
    })
}

/// The call fails with this code, and the log says why in this word.
#[track_caller]
fn fails(node: &Node, path: &str, code: ErrorCode, word: &str) {
    let answer = node.get(path);
    answer.failure(code);
    let app = path.split('/').nth(1).unwrap();
    let said = said(node, app, answer.header("x-request-id").unwrap());
    assert!(said.contains(word), "{path}: `{word}` is not in {said}");
}

/// The memory a node has now, in MiB.
fn resident(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// The body of a module whose program does this.
fn module(body: &str) -> Vec<u8> {
    assemble(&format!(
        "(module (memory (export \"memory\") 1) (table $t 2 10 funcref) (type $other (func (param i64)))
           (func $plain) (elem (i32.const 0) $plain)
           (func (export \"_start\") {body}))"
    ))
}

#[test]
fn traps_of_every_sort() {
    let node = Node::with("[engine]\nquarantine_after = 0\n");
    let traps = [
        ("unreachable", "unreachable", "unreachable"),
        ("bounds", "(drop (i32.load (i32.const 65536)))", "out of bounds memory"),
        ("far", "(drop (i64.load offset=4294967295 (i32.const -1)))", "out of bounds memory"),
        ("divide", "(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("overflow", "(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))", "overflow"),
        ("convert", "(drop (i32.trunc_f64_s (f64.const nan)))", "invalid conversion"),
        ("null", "(call_indirect $t (i32.const 1))", "uninitialized element"),
        ("type", "(call_indirect $t (type $other) (i64.const 0) (i32.const 0))", "type mismatch"),
        ("table", "(call_indirect $t (i32.const 9))", "out of bounds"),
        ("fill", "(memory.fill (i32.const 65530) (i32.const 0) (i32.const 9))", "out of bounds"),
        ("copy", "(memory.copy (i32.const 0) (i32.const 65530) (i32.const 9))", "out of bounds"),
        ("set", "(table.set $t (i32.const 5) (ref.null func))", "out of bounds table"),
    ];
    for (name, body, word) in traps {
        let app = format!("trap-{name}");
        node.deploy(&app, &module(body));
        for _ in 0..2 {
            fails(&node, &format!("/{app}/"), ErrorCode::GuestTrap, word);
        }
    }
    node.idle();
}

/// Ten thousand with `FAAS_TEST_FULL=1`.
#[test]
fn crashes_leave_nothing_behind() {
    let times = full(100, 2500);
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n");
    let crash = |times: usize| {
        thread::scope(|scope| {
            for guest in Guest::ALL {
                let node = &node;
                scope.spawn(move || {
                    let mut connection = Connection::open(node.ingress());
                    for round in 0..times {
                        let what = ["trap", "panic", "exit?code=3", "recurse"][round % 4];
                        let request = Request::get(&format!("/{}/{what}", guest.app()));
                        assert_eq!(connection.ask(&request).status, 500, "{guest:?} {what}");
                    }
                });
            }
        });
    };
    crash(100);
    let before = resident(&node);
    crash(times);
    let after = resident(&node);
    figure(&format!("{} crashes: {before} MiB before, {after} MiB after", 4 * times));
    // What they said is in the log's memory, 16 MiB of each app at most.
    assert!(after < before + 100, "{before} MiB, {after} MiB after {} crashes", 4 * times);
    node.idle();
}

#[test]
fn interfaces_of_wasi_02_used_wrongly() {
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n");
    for (what, word) in [
        ("out-twice", "handle"),
        ("finish-twice", "handle"),
        ("child", "children"),
        ("beyond", "budget"),
        ("unchecked", "budget"),
        ("zeroes", "zeroes"),
        ("stderr-zeroes", "zeroes"),
        ("random-much", "limit of random bytes reached"),
    ] {
        // On a busy machine the head may have left before: then the answer is cut off.
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&attack(Guest::Http02, what)));
        if let Ok(answer) = connection.read_answer(false) {
            answer.failure(ErrorCode::GuestTrap);
        }
        eventually(&format!("{what}: `{word}` in the log"), PATIENCE, || {
            let logs = Request::get("/v1/apps/http02/logs");
            let lines = node.api(logs).expect(200).text();
            let failure = lines.lines().rfind(|line| line.contains("\"failure\""))?;
            failure.contains(word).then_some(())
        });
    }
    // What one write may have, and what its stream was asked for before.
    for what in ["beyond", "zeroes", "stderr-zeroes", "random-much"] {
        fails(&node, &attack(Guest::Cgi02, what), ErrorCode::GuestTrap, "");
    }
    node.idle();
}

#[test]
fn what_would_turn_a_request_into_another_is_refused() {
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n");
    for guest in [Guest::Http02, Guest::Http03] {
        let text = node.get(&attack(guest, "path")).expect(200).text();
        let taken: Vec<&str> = text.lines().filter(|line| line.ends_with(" taken")).collect();
        assert!(taken.contains(&"\"/ok\" taken"), "{guest:?}: {text}");
        for line in taken {
            assert!(line.starts_with("\"/"), "{guest:?}: {text}");
        }
        assert!(text.contains("\"/a\\r\\nb\" refused"), "{guest:?}: {text}");
    }
}

#[test]
fn answers_that_are_too_much_in_some_way() {
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n");
    for guest in [Guest::Http02, Guest::Http03] {
        // 64 KiB of fields hold a few thousand of the smallest.
        let answer = node.get(&attack(guest, "fields"));
        if answer.status == 200 {
            let fields: u32 = answer.text().trim().parse().unwrap();
            assert!((100..20_000).contains(&fields), "{guest:?}: {fields}");
        } else {
            answer.failure(ErrorCode::GuestTrap);
        }
        let bytes = node.get(&attack(guest, "bytes")).expect(200);
        assert!(bytes.body.len() >= 10_000, "{guest:?}: {}", bytes.body.len());
        // As large as they may become, they are within a message.
        let answer = node.get(&attack(guest, "trailers"));
        assert_eq!(answer.status, 200, "{guest:?}");
    }
    node.idle();
}

#[test]
fn interfaces_of_wasi_01_used_wrongly() {
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n");
    let before = resident(&node);
    let numbers = |what: &str| -> Vec<i32> {
        let text = node.get(&attack(Guest::Cgi01, what)).expect(200).text();
        let list = text.trim().trim_start_matches('[').trim_end_matches(']');
        list.split(", ").map(|number| number.parse().unwrap()).collect()
    };
    // 8 is `badf`: there is nothing of that number.
    assert!(numbers("renumber").contains(&8));
    let closed = numbers("closed");
    assert_eq!((closed[0], closed[1], closed[2]), (0, 8, 8), "{closed:?}");
    assert_eq!((closed[3], closed[4]), (0, 8), "{closed:?}");
    assert!(closed[5] != 0 && closed[6] == 8, "{closed:?}");
    for what in ["times", "files", "sockets"] {
        let errors = numbers(what);
        assert!(errors.iter().all(|error| *error != 0), "{what}: {errors:?}");
    }
    let word = "limit of random bytes reached";
    fails(&node, &attack(Guest::Cgi01, "random-much"), ErrorCode::GuestTrap, word);
    // What a guest asks for is no news for the operator.
    assert!(!node.log().contains("sock_accept"), "{}", node.log());
    assert!(resident(&node) < before + 64, "{} MiB", resident(&node));
    node.idle();
}

#[test]
fn tasks_of_wasi_03_used_wrongly() {
    let node = Node::with_guests("[engine]\nquarantine_after = 0\n");
    fails(&node, &attack(Guest::Http03, "tasks"), ErrorCode::GuestTrap, "limit of ");
    fails(&node, &attack(Guest::Http03, "late-trap"), ErrorCode::GuestTrap, "unreachable");
    // WASI 0.3 gives fewer than were asked for.
    assert_eq!(node.get(&attack(Guest::Http03, "random-much")).expect(200).text(), "65536\n");
    // Its writer is gone before the length that it promised.
    fails(&node, &attack(Guest::Http03, "short"), ErrorCode::BadResponse, "");
    node.idle();
}

/// An instance that several requests share fails under all of them, and each of them sees it.
#[test]
fn a_shared_instance_that_fails_shows_it_to_everybody() {
    let node = Node::with("[engine]\nquarantine_after = 0\n[limits]\ncpu_ms = 300\n");
    let request = "/v1/apps/shared/deploy?reuse_requests=1000&reuse_concurrency=16";
    let request = Request::new("POST", request).header("content-type", "application/wasm");
    assert_eq!(node.api(request.body(Guest::Http03.wasm())).status, 201);
    for round in 0..12 {
        // On the thread where it began, and on one for those that take long.
        if round % 2 == 1 {
            node.get("/shared/work?ms=20").expect(200);
        }
        let mut others: Vec<Connection> = (0..4)
            .map(|_| {
                let mut connection = Connection::open(node.ingress());
                connection.start(&Request::get("/shared/slow?pieces=1000000&ms=1"));
                connection.read_head(false).unwrap().expect(200);
                connection
            })
            .collect();
        match round % 4 {
            0 | 1 => node.get("/shared/trap").failure(ErrorCode::GuestTrap),
            _ => node.get("/shared/spin").failure(ErrorCode::CpuTime),
        };
        for connection in &mut others {
            let mut piece = vec![0; 64 << 10];
            let ended = loop {
                match connection.read_body(&mut piece) {
                    Ok(0) => break "as if it were whole",
                    Ok(_) => {}
                    Err(_) => break "broken off",
                }
            };
            assert_eq!(ended, "broken off", "round {round}");
        }
    }
    for _ in 0..12 {
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get("/shared/half?pieces=3&bytes=100000&ms=2"));
        // It may fail before its head is sent.
        if connection.read_head(false).unwrap().status == 200 {
            let mut piece = vec![0; 64 << 10];
            while connection.read_body(&mut piece).is_ok_and(|length| {
                assert!(length > 0, "as if it were whole");
                true
            }) {}
        }
    }
    node.idle();
}

#[test]
fn resources_and_strings_inside_of_a_component() {
    let node = Node::with("[engine]\nquarantine_after = 0\n");
    node.deploy("resources", &artifacts::wat("many-resources"));
    let limit = "limit of handles inside of a component reached: 10000";
    fails(&node, "/resources/", ErrorCode::GuestTrap, limit);
    for (encoding, name) in [("utf16", "wide"), ("latin1+utf16", "either")] {
        for (pointer, kind) in [("1", "odd"), ("65534", "end"), ("-2", "beyond"), ("-1", "last")] {
            let app = format!("{name}-{kind}");
            let words = [("ENCODING", encoding), ("POINTER", pointer)];
            node.deploy(&app, &artifacts::wat_with("transcode", &words));
            fails(&node, &format!("/{app}/"), ErrorCode::GuestTrap, "");
        }
    }
    node.idle();
}

/// Code that is large in one way only: it is compiled within the limits of that, or refused.
#[test]
fn code_of_odd_shapes() {
    let node = Node::with("[engine]\nquarantine_after = 0\n");
    let mut segments =
        String::from("(module (memory (export \"memory\") 10) (func (export \"_start\"))");
    for number in 0..50_000 {
        write!(segments, "(data (i32.const {number}) \"x\")").unwrap();
    }
    segments.push(')');
    let mut branches = String::from(
        "(module (memory (export \"memory\") 1) (func (export \"_start\") (block $l (br_table",
    );
    branches.push_str(&" $l".repeat(65_536));
    branches.push_str(" (i32.const 7)))))");
    for (app, text) in [("segments", segments), ("branches", branches)] {
        let answer = node.try_deploy(app, &assemble(&text));
        assert!([201, 422].contains(&answer.status), "{app}: {answer:?}");
        if answer.status == 201 {
            fails(&node, &format!("/{app}/"), ErrorCode::GuestNoResponse, "");
        }
    }
    assert!(process::children(node.pid()).is_empty());
}

/// Limits that are told with what they are and what was asked.
#[test]
fn limits_have_names() {
    let node = Node::with_guests("[limits]\nrequest_body_bytes = 1000\nconcurrency = 1\n");
    for guest in Guest::ALL {
        let app = guest.app();
        // By its length, and by what comes.
        let long = Request::post(&format!("/{app}/length"), vec![b'x'; 2000]);
        let answer = node.send(&long);
        answer.failure(ErrorCode::BodyTooLarge);
        let said_of = said(&node, app, answer.header("x-request-id").unwrap());
        assert!(
            said_of.contains("limit `request_body_bytes` reached: 2000 of 1000 bytes"),
            "{said_of}"
        );
        let mut busy = Connection::open(node.ingress());
        busy.start(&Request::get(&format!("/{app}/sleep?ms=60000")));
        let active = || node.metrics().sum("faas_instances_active", &[("app", app)]);
        eventually("one sleeps", PATIENCE, || (active() == 1.0).then_some(()));
        let word = "limit `concurrency` reached: 1 of 1 calls at once";
        fails(&node, &format!("/{app}/count"), ErrorCode::Concurrency, word);
        drop(busy);
        let labels = [("app", app), ("reason", "concurrency")];
        assert_eq!(node.metrics().sum("faas_rejected_total", &labels), 1.0);
        let labels = [("app", app), ("reason", "body_too_large")];
        assert_eq!(node.metrics().sum("faas_rejected_total", &labels), 1.0);
    }
}
