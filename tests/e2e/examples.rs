//! The seven examples, deployed with `faas deploy` and called over both protocols.

use faas_tests::{
    Node, artifacts, block_on,
    hyper_client::{Client, Protocol, collect, empty, full},
};

/// A request to an example, and what it answers.
struct Call {
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    answer: &'static str,
}

const fn get(path: &'static str, answer: &'static str) -> Call {
    Call { method: "GET", path, body: "", status: 200, answer }
}

const fn post(path: &'static str, body: &'static str, answer: &'static str) -> Call {
    Call { method: "POST", path, body, status: 200, answer }
}

fn check(name: &str, file: &str, kind: &str, calls: &[Call]) {
    let node = Node::start();
    let deployed = node.cli(["deploy", file]).run().expect(0);
    let url = format!("http://{}/{name}/\n", node.ingress());
    assert_eq!(deployed.stdout, url, "on a pipe: the address and nothing else");
    let described = node.cli(["describe", name, "-o", "json"]).run().expect(0);
    assert_eq!(described.json()["data"]["functions"][0]["kind"], kind);
    for protocol in Protocol::BOTH {
        for by_host in [false, true] {
            for call in calls {
                check_call(&node, name, call, (protocol, by_host));
            }
        }
    }
    node.idle();
}

fn check_call(node: &Node, name: &str, call: &Call, (protocol, by_host): (Protocol, bool)) {
    let (authority, target) = match by_host {
        true => (format!("{name}.localhost:{}", node.ingress().port()), call.path.to_owned()),
        false => (node.ingress().to_string(), format!("/{name}{}", call.path)),
    };
    let response = block_on(async {
        let mut client = Client::open(node.ingress(), protocol).await?;
        let body = match call.body {
            "" => empty(),
            text => full(text),
        };
        let request = client.request(call.method, &authority, &target, body);
        collect(client.send(request).await?).await
    });
    let response = response.unwrap_or_else(|error| panic!("{protocol:?} {target}: {error:?}"));
    let text = String::from_utf8_lossy(response.body());
    assert_eq!(response.status(), call.status, "{protocol:?} {target} {text}");
    assert_eq!(text, call.answer, "{protocol:?} {target}");
    assert_eq!(response.headers()["x-faas-version"], "v1");
    assert!(response.headers().contains_key("x-request-id"));
}

fn check_built(name: &str, kind: &str, calls: &[Call]) {
    let file = artifacts::example(name);
    check(name, file.to_str().unwrap(), kind, calls);
}

#[test]
fn hello() {
    check_built("hello", "http-0.3", &[get("/", "Hello!\n"), get("/x?y", "Hello!\n")]);
}

#[test]
fn json_api() {
    let calls = [
        post("/sum", r#"{"numbers": [1, 2.5]}"#, r#"{"sum":3.5}"#),
        get("/greet/ada", r#"{"greeting":"Hello, ada!"}"#),
    ];
    check_built("json-api", "http-0.3", &calls);
}

#[test]
fn hello_wasi02() {
    check_built("hello-wasi02", "http-0.2", &[get("/", "Hello from WASI 0.2!\n")]);
}

#[test]
fn js_hello() {
    check_built("js-hello", "http-0.2", &[get("/", "Hello from JavaScript!\n")]);
}

#[test]
fn python_hello() {
    check_built("python-hello", "http-0.2", &[get("/", "Hello from Python!\n")]);
}

#[test]
fn c_cgi() {
    let missing = Call { status: 404, ..get("/nothing", "404 Not Found\n") };
    let calls = [get("/", "Hello from C!\n"), post("/echo", "as it is", "as it is"), missing];
    check_built("c-cgi", "cgi-0.1", &calls);
}

#[test]
fn wat_hello() {
    let calls = [get("/", "Hello from WebAssembly text!\n")];
    let text = artifacts::repository().join("examples/wat-hello/wat-hello.wat");
    check("wat-hello", text.to_str().unwrap(), "cgi-0.1", &calls);
    check_built("wat-hello", "cgi-0.1", &calls);
}
