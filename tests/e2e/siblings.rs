//! Functions of one app that call each other, and those that nobody else can call.

use faas_tests::{Answer, Connection, Deploy, Node, Request, artifacts::Guest, eventually};
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// The kinds that can call others.
const CALLERS: [Guest; 3] = [Guest::Http03, Guest::Http02, Guest::Cgi02];

/// An app `family` with a public `front` of that kind, and a private one of each kind.
fn family(node: &Node, front: Guest) {
    let private = || json!({"private": true});
    let mut functions = vec![
        Deploy::new("front", front.wasm(), json!({"routes": ["/*"]})),
        Deploy::new("open", Guest::Http02.wasm(), json!({"routes": ["/open/*"]})),
    ];
    for guest in Guest::ALL {
        functions.push(Deploy::new(guest.app(), guest.wasm(), private()));
    }
    node.deploy_functions("family", &functions);
}

/// Has the front function call another one.
fn call(node: &Node, parameters: &str, url: &str) -> Answer {
    node.get(&format!("/family/fetch?{parameters}&url={url}"))
}

#[test]
fn functions_call_each_other_without_a_grant() {
    let node = Node::with_guests("");
    for front in CALLERS {
        family(&node, front);
        for callee in Guest::ALL {
            let url = format!("http://{}.internal/headers?q=1", callee.app());
            let answer = call(&node, "header=x-custom:1", &url).expect(200);
            let text = answer.text();
            let id = answer.header("x-request-id").unwrap();
            for line in [
                "method GET".to_owned(),
                "path /headers".to_owned(),
                "query q=1".to_owned(),
                "x-custom: 1".to_owned(),
                "x-faas-caller: front".to_owned(),
                format!("x-request-id: {id}"),
            ] {
                assert!(text.lines().any(|other| other == line), "{front:?} {callee:?}: {text}");
            }
            assert!(text.contains(&format!("{}.internal", callee.app())), "{text}");
            // One id leads to both, each under its own name.
            let both = eventually("both are logged", PATIENCE, || {
                let lines = node.lines("family", id);
                let ended = lines.iter().filter(|line| line["source"] == "request");
                let names: Vec<String> =
                    ended.filter_map(|l| l["function"].as_str().map(str::to_owned)).collect();
                (names.len() == 2).then_some(names)
            });
            assert!(both.contains(&"front".to_owned()), "{both:?}");
            assert!(both.contains(&callee.app().to_owned()), "{both:?}");
            let labels = [("function", callee.app()), ("code", "2xx")];
            assert!(node.metrics().sum("faas_requests_total", &labels) >= 1.0);
        }
        // Public ones, too, and by any spelling of the name.
        let text = call(&node, "", "http://OPEN.internal.:80/count").expect(200).text();
        assert_eq!(text, "1\n", "{front:?}");
    }
    assert!(!node.metrics().has("faas_outbound_requests_total"), "nothing left the node");
}

/// Large bodies pass both ways, piece by piece.
#[test]
fn bodies_stream_between_functions() {
    let node = Node::with_guests("");
    for front in CALLERS {
        family(&node, front);
        for callee in Guest::ALL {
            let url = format!("http://{}.internal/stream?kib=8192", callee.app());
            let answer = call(&node, "", &url).expect(200);
            assert_eq!(answer.body.len(), 8 << 20, "{front:?} {callee:?}");
            let url = format!("http://{}.internal/length", callee.app());
            let answer = call(&node, "method=POST&body=3000000", &url).expect(200);
            assert_eq!(answer.text(), "3000000\n", "{front:?} {callee:?}");
        }
        // What the callee may take is the callee's limit.
        let url = "http://http02.internal/length";
        let answer = call(&node, "method=POST&body=11000000", url);
        assert!(answer.status >= 400, "{front:?}: {answer:?}");
    }
}

/// A callee that fails is a failed answer to its caller, who is none the worse for it.
#[test]
fn a_trap_is_a_500_for_the_caller() {
    let node = Node::with_guests("");
    for front in CALLERS {
        family(&node, front);
        for callee in Guest::ALL {
            let answer = call(&node, "", &format!("http://{}.internal/trap", callee.app()));
            assert_eq!(answer.status, 500, "{front:?} {callee:?}: {answer:?}");
            assert!(answer.text().contains("guest_trap"), "{answer:?}");
            // It is the front function's own answer.
            assert_eq!(answer.header("x-faas-error"), None, "{answer:?}");
            let id = answer.header("x-request-id").unwrap();
            let trap = eventually("the trap is logged", PATIENCE, || {
                node.lines("family", id).into_iter().find(|line| line["source"] == "failure")
            });
            assert_eq!(trap["function"], callee.app(), "{trap}");
        }
        let said = call(&node, "", "http://nobody.internal/").expect(200);
        assert!(said.text().contains("DestinationNotFound"), "{front:?}: {said:?}");
        for url in ["https://http02.internal/", "http://http02.internal:8080/"] {
            let said = call(&node, "", url).expect(200);
            assert!(said.text().contains("HttpRequestDenied"), "{front:?}: {said:?}");
        }
    }
}

/// In no form of address does a private function answer from outside.
#[test]
fn private_functions_cannot_be_reached_from_outside() {
    // Without apps that have the functions' names.
    let node = Node::start();
    family(&node, Guest::Http02);
    let port = node.ingress().port();
    let base = "family.localhost";
    let by_host = |host: String, path: &str| node.send(&Request::get(path).header("host", &host));
    for (host, path) in [
        ("http03.internal".to_owned(), "/count"),
        (format!("http03.internal:{port}"), "/count"),
        (format!("http03.{base}:{port}"), "/count"),
        (format!("http03--family.localhost:{port}"), "/count"),
        ("internal".to_owned(), "/http03/count"),
        (format!("127.0.0.1:{port}"), "/internal/http03/count"),
        (format!("127.0.0.1:{port}"), "/http03.internal/count"),
        (format!("127.0.0.1:{port}"), "/http03/count"),
        (format!("127.0.0.1:{port}"), "/family.http03/count"),
        (format!("127.0.0.1:{port}"), "/family@http03/count"),
        (format!("127.0.0.1:{port}"), "http://http03.internal/count"),
        (format!("127.0.0.1:{port}"), "http://http03.internal/family/http03/count"),
    ] {
        let answer = by_host(host.clone(), path);
        assert!(answer.status >= 400, "{host} {path}: {answer:?}");
    }
    // What is asked of the app, in whatever form, is answered by its public functions.
    for path in ["/family/http03/headers", "/family@v1/http03.internal/headers"] {
        let answer = node.get(path);
        let id = answer.header("x-request-id").unwrap();
        let line = eventually("it is logged", PATIENCE, || {
            node.lines("family", id).into_iter().find(|line| line["source"] == "request")
        });
        assert_eq!(line["function"], "front", "{path}: {line}");
    }
    let labels = [("function", "http03")];
    assert_eq!(node.metrics().sum("faas_requests_total", &labels), 0.0);
    // A client cannot pass for a function.
    let forged = Request::get("/family/headers").header("x-faas-caller", "front");
    assert!(!node.send(&forged).text().contains("x-faas-caller"));
}

/// Each other's versions are out of reach: a call stays in the version it began in.
#[test]
fn a_call_stays_in_its_version() {
    let node = Node::with_guests("");
    let deploy = |text: &str| {
        let private = json!({"private": true});
        let functions = [
            Deploy::new("front", Guest::Http02.wasm(), json!({})),
            Deploy::new("back", faas_tests::artifacts::says(text), private),
        ];
        node.deploy_functions("family", &functions);
    };
    deploy("one");
    deploy("two");
    let ask = |path: &str| {
        let target = format!("{path}/fetch?url=http://back.internal/");
        node.get(&target).expect(200).text().trim().to_owned()
    };
    assert_eq!(ask("/family@v1"), "one");
    assert_eq!(ask("/family@v2"), "two");
    assert_eq!(ask("/family"), "two");
}

/// A new configuration makes other programs of the functions that see it: they still know each other.
#[test]
fn a_new_configuration_reaches_siblings() {
    let node = Node::with_guests("");
    let functions = [
        Deploy::new("front", Guest::Http02.wasm(), json!({})),
        Deploy::new("back", Guest::Http03.wasm(), json!({"private": true, "env": {"A": "1"}})),
    ];
    node.deploy_functions("family", &functions);
    let seen = || call(&node, "", "http://back.internal/variable?name=A").expect(200).text();
    assert_eq!(seen(), "=1\n");
    for value in ["2", "3"] {
        node.cli(["env", "set", &format!("A={value}"), "--app", "family"]).run().expect(0);
        assert_eq!(seen(), format!("={value}\n"));
    }
}

/// Functions that call themselves come to an end, and so do those that call many.
#[test]
fn recursion_ends() {
    let node = Node::with_guests("");
    for front in CALLERS {
        family(&node, front);
        let answer = node.get("/family/again?url=http://front.internal").expect(200);
        assert!(answer.text().contains("LoopDetected"), "{front:?}: {answer:?}");
        let id = answer.header("x-request-id").unwrap();
        let ended = eventually("all are logged", PATIENCE, || {
            let ended =
                node.lines("family", id).into_iter().filter(|line| line["source"] == "request");
            let ended = ended.count();
            (ended >= 9).then_some(ended)
        });
        assert_eq!(ended, 9, "{front:?}: one from outside, and eight inside each other");
        // Requests are counted over all of them: a tree cannot branch without end.
        let inner = "http://front.internal/fetch?times=10&url=http://front.internal/count";
        let answer = call(&node, "times=10", inner).expect(200);
        let all = node.metrics().sum("faas_requests_total", &[("function", "front")]);
        assert!(all < 200.0, "{front:?}: {all}: {answer:?}");
    }
}

/// Who waits for nobody any more ends.
#[test]
fn a_client_that_goes_away_takes_the_callee_along() {
    let node = Node::with_guests("");
    for front in CALLERS {
        family(&node, front);
        for callee in [Guest::Http03, Guest::Http02] {
            let labels = [("function", callee.app())];
            let active = || node.metrics().sum("faas_instances_active", &labels);
            for path in ["sleep?ms=60000", "slow?pieces=600&ms=100"] {
                let url = format!("http://{}.internal/{path}", callee.app());
                let mut connection = Connection::open(node.ingress());
                connection.start(&Request::get(&format!("/family/fetch?url={url}")));
                eventually("the callee runs", PATIENCE, || (active() == 1.0).then_some(()));
                connection.reset();
                eventually("the callee ends", PATIENCE, || (active() == 0.0).then_some(()));
            }
        }
    }
}

/// The callee's computing is its own: neither its CPU time nor its limits are the caller's.
#[test]
fn the_callee_has_limits_of_its_own() {
    let node = Node::with_guests("");
    for front in CALLERS {
        let functions = [
            Deploy::new("front", front.wasm(), json!({"limits": {"cpu_ms": 500}})),
            Deploy::new("busy", Guest::Http02.wasm(), json!({"private": true})),
            Deploy::new(
                "short",
                Guest::Http02.wasm(),
                json!({"private": true, "limits": {"cpu_ms": 100}}),
            ),
        ];
        node.deploy_functions("family", &functions);
        let answer = call(&node, "", "http://busy.internal/work?ms=1500").expect(200);
        assert_eq!(answer.text(), "1\n", "{front:?}");
        let answer = call(&node, "", "http://short.internal/spin");
        assert_eq!(answer.status, 504, "{front:?}: {answer:?}");
        assert!(answer.text().contains("cpu_time"), "{answer:?}");
    }
}

/// `self.internal` is the app as its clients see it, found by its routes, in the process.
#[test]
fn an_app_calls_its_own_routes() {
    let node = Node::with_guests("");
    for front in CALLERS {
        let api = json!({"routes": ["/api/*", "POST /only-post"], "strip_prefix": true});
        let other = json!({"routes": ["/plain"]});
        node.deploy_functions(
            "family",
            &[
                Deploy::new("front", front.wasm(), json!({"routes": ["/*"]})),
                Deploy::new("api", Guest::Http02.wasm(), api),
                Deploy::new("other", Guest::Cgi01.wasm(), other),
                Deploy::new("hidden", Guest::Http02.wasm(), json!({"private": true})),
            ],
        );
        let url = "http://SELF.internal.:80/%61pi/headers?q=1";
        let misled = "header=x-forwarded-host:other.internal&header=forwarded:host=other.internal";
        let text = call(&node, misled, url).expect(200).text();
        for line in
            ["path /headers", "query q=1", "x-faas-caller: front", "x-forwarded-prefix: /%61pi"]
        {
            assert!(text.lines().any(|other| other == line), "{front:?}: {line}: {text}");
        }
        assert!(text.to_lowercase().contains("authority self.internal"), "{front:?}: {text}");
        // That field is the URL's.
        let said = call(&node, "header=host:other.internal", url).expect(200).text();
        assert!(said.contains("Forbidden"), "{front:?}: {said}");
        // By path and method, as for a client.
        let answered = |method: &str, path: &str| {
            let url = format!("http://self.internal{path}");
            let answer = call(&node, &format!("method={method}"), &url).expect(200);
            let id = answer.header("x-request-id").unwrap().to_owned();
            eventually("both are logged", PATIENCE, || {
                let lines = node.lines("family", &id);
                let ended = lines.iter().filter(|line| line["source"] == "request");
                let names: Vec<String> =
                    ended.filter_map(|l| l["function"].as_str().map(str::to_owned)).collect();
                (names.len() == 2).then_some(names)
            })
        };
        for (method, path, function) in [
            ("GET", "/api", "api"),
            ("POST", "/only-post", "api"),
            ("GET", "/only-post", "front"),
            ("GET", "/plain", "other"),
            ("GET", "/hidden/count", "front"),
        ] {
            let names = answered(method, path);
            assert!(names.iter().filter(|name| *name == "front").count() >= 1, "{names:?}");
            let other = names.iter().find(|name| *name != "front").map_or("front", |name| name);
            assert_eq!(other, function, "{front:?} {method} {path}");
        }
        // It ends like any other call of functions by functions.
        let answer = node.get("/family/again?url=http://self.internal").expect(200);
        assert!(answer.text().contains("LoopDetected"), "{front:?}: {answer:?}");
        for (url, code) in [
            ("https://self.internal/", "HttpRequestDenied"),
            ("http://self.internal:8080/", "HttpRequestDenied"),
            // Names that look like it are other servers, which nobody granted.
            ("http://self.internal.evil.test/", "HttpRequestDenied"),
            ("http://a.self.internal/", "HttpRequestDenied"),
            ("http://internal/", "HttpRequestDenied"),
            ("http://self/", "HttpRequestDenied"),
            ("http://xself.internal/", "DestinationNotFound"),
        ] {
            let said = call(&node, "", url).expect(200);
            assert!(said.text().contains(code), "{front:?} {url}: {said:?}");
        }
    }
    // From outside the name says nothing.
    for path in ["/", "/api/headers", "/count"] {
        let answer = node.send(&Request::get(path).header("host", "self.internal"));
        assert!(answer.status >= 400, "{path}: {answer:?}");
    }
    // Where no route takes it, there is nobody.
    let main = Deploy::new("main", Guest::Http02.wasm(), json!({"routes": ["/fetch"]}));
    node.deploy_functions("family", &[main]);
    let said = call(&node, "", "http://self.internal/count").expect(200);
    assert!(said.text().contains("DestinationNotFound"), "{said:?}");
    let myself = Deploy::new("self", Guest::Http02.wasm(), json!({}));
    let answer = node.try_deploy_functions("family", &[myself]);
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.text().contains("no function can be called `self`"), "{answer:?}");
    for code in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
        let sent = node.metrics().sum("faas_outbound_requests_total", &[("code", code)]);
        assert_eq!(sent, 0.0, "{code}: nothing left the node");
    }
}
