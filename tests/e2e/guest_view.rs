//! What a function sees of the world: its request, and nothing else.

use faas_api::ErrorCode;
use faas_tests::{
    Deploy, Node, Request,
    artifacts::{Guest, says},
    block_on,
    hyper_client::{Client, Protocol, collect, empty},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
};

/// `name value` or `name: value` lines.
fn lines(text: &str) -> BTreeMap<&str, &str> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, value)| (name.trim_end_matches(':'), value)).collect()
}

#[test]
fn no_environment_no_files_no_network() {
    let node = Node::with_guests("");
    // Somebody who would notice.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let datagrams = UdpSocket::bind(address).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    for guest in Guest::ALL {
        for target in [address, node.admin(), node.ingress()] {
            let path = format!("/{}/env?target={target}", guest.app());
            let text = node.get(&path).expect(200).text();
            assert!(!text.contains("ALLOWED"), "{guest:?}: {text}");
            let seen = lines(&text);
            for name in ["read", "write", "tcp", "listen", "udp", "dns"] {
                assert!(seen[name].starts_with("denied"), "{guest:?} {name}: {text}");
            }
            for name in ["root", "here"] {
                let empty = seen[name] == "none" || seen[name].starts_with("denied");
                assert!(empty, "{guest:?} {name}: {text}");
            }
            if !guest.is_cgi() {
                assert_eq!(seen["variables"], "none", "{guest:?}");
                assert!(seen["http"].starts_with("denied"), "{guest:?}: {text}");
            }
            // Nothing that says whose machine this is.
            for word in ["/root", "/home", "PATH=", "faas", node.home().to_str().unwrap()] {
                assert!(!seen["arguments"].contains(word), "{guest:?} {word}: {text}");
            }
        }
    }
    let nobody = listener.accept().map(|(_, peer)| peer).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock, "somebody connected");
    let nothing = datagrams.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "somebody sent something");
}

/// The meta-variables of RFC 3875, and no others.
#[test]
fn variables_of_a_cgi_program() {
    let node = Node::with_guests("");
    for guest in [Guest::Cgi01, Guest::Cgi02] {
        let request = Request::post(&format!("/{}/env?a=b", guest.app()), "body")
            .header("content-type", "text/x")
            .header("x-one", "1")
            // The hole called httpoxy (CVE-2016-5385), and a name that could pass for another.
            .header("proxy", "http://evil.example")
            .header("content_length", "99");
        let text = node.send(&request).expect(200).text();
        let names: Vec<&str> = lines(&text)["variables"].split(',').collect();
        for name in [
            "GATEWAY_INTERFACE",
            "SERVER_PROTOCOL",
            "SERVER_SOFTWARE",
            "SERVER_NAME",
            "SERVER_PORT",
            "REQUEST_METHOD",
            "SCRIPT_NAME",
            "PATH_INFO",
            "QUERY_STRING",
            "REMOTE_ADDR",
            "CONTENT_TYPE",
            "CONTENT_LENGTH",
            "HTTP_X_ONE",
            "HTTP_HOST",
        ] {
            assert!(names.contains(&name), "{guest:?}: no {name} in {names:?}");
        }
        assert!(!names.contains(&"HTTP_PROXY"), "{guest:?}: {names:?}");
        let others = ["PATH", "HOME", "PWD", "FAAS_TOKEN", "RUST_BACKTRACE"];
        assert!(!names.iter().any(|name| others.contains(name)), "{guest:?}: {names:?}");
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len(), "a name twice: {names:?}");
    }
}

/// Whoever is named in the settings is believed, and nobody else.
#[test]
fn what_a_trusted_proxy_says() {
    const ID: &str = "7f1a00c5-d2b9-4d2c-8f1e-0a9b8c7d6e5f";
    let node =
        Node::with_guests("[ingress]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n");
    for guest in Guest::ALL {
        let request = Request::get(&format!("/{}/headers", guest.app()))
            .header("x-forwarded-for", "6.6.6.6, 203.0.113.7")
            .header("x-forwarded-for", "10.1.1.1")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "shop.example.com")
            .header("x-forwarded-prefix", "/evil")
            .header("x-request-id", ID);
        let answer = node.send(&request).expect(200);
        assert_eq!(answer.header("x-request-id"), Some(ID));
        let text = answer.text();
        let seen = lines(&text);
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example.com"),
            ("x-forwarded-prefix", &format!("/{}", guest.app())),
            ("x-request-id", ID),
        ] {
            assert_eq!(seen.get(name), Some(&value), "{guest:?} {name}: {text}");
        }
        let found = node.cli(["logs", guest.app(), "--request-id", ID]).run().expect(0);
        assert!(found.stdout.contains("/headers"), "{found:?}");
    }
    // What cannot be an id is none.
    let forged = Request::get("/http02/headers").header("x-request-id", "1; drop");
    assert_eq!(node.send(&forged).expect(200).header("x-request-id").unwrap().len(), 26);
    // A rate is for each client, not for the proxy.
    let limit = json!({ "rate_limit": { "requests": 1, "per_ms": 86_400_000 } });
    node.deploy_functions("shop", &[Deploy::new("main", says("in"), limit)]);
    let ask = |client: &str| node.send(&Request::get("/shop/").header("x-forwarded-for", client));
    ask("203.0.113.1").expect(200);
    ask("203.0.113.2").expect(200);
    ask("203.0.113.1, 10.0.0.9").failure(ErrorCode::RateLimited);
}

#[test]
fn fields_of_a_request() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let app = guest.app();
        let request = Request::get(&format!("/{app}/headers?x=%20&y"))
            .header("host", "Some.Example:8080")
            .header("user-agent", "test")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-prefix", "/evil")
            .header("x-forwarded-port", "666")
            .header("forwarded", "for=6.6.6.6")
            .header("x-request-id", "forged")
            .header("x-faas-version", "v9")
            .header("x-faas-error", "forged")
            .header("connection", "keep-alive, x-hop, close")
            .header("keep-alive", "timeout=5")
            .header("x-hop", "1")
            .header("te", "trailers")
            .header("upgrade", "websocket")
            .header("proxy-authorization", "Basic x")
            .header("proxy-connection", "keep-alive")
            .header("cookie", "a=b")
            .header("x-kept", "1")
            .header("x-kept", "2");
        let answer = node.send(&request).expect(200);
        let text = answer.text();
        let seen = lines(&text);
        assert_eq!(seen["method"], "GET");
        assert_eq!(seen["path"], "/headers", "{guest:?}");
        assert_eq!(seen["query"], "x=%20&y");
        for (name, value) in [
            ("host", "Some.Example:8080"),
            ("user-agent", "test"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "Some.Example:8080"),
            ("x-forwarded-prefix", &format!("/{app}")),
            ("x-request-id", answer.header("x-request-id").unwrap()),
        ] {
            // A component has the host as the authority only.
            let expected = (name != "host" || guest.is_cgi()).then_some(&value);
            assert_eq!(seen.get(name), expected, "{guest:?} {name}: {text}");
        }
        for name in [
            "x-hop",
            "connection",
            "keep-alive",
            "te",
            "upgrade",
            "transfer-encoding",
            "proxy-authorization",
            "proxy-connection",
            "forwarded",
            "x-forwarded-port",
            "x-faas-version",
            "x-faas-error",
        ] {
            assert!(!seen.contains_key(name), "{guest:?} {name}: {text}");
        }
        for word in ["6.6.6.6", "evil", "forged", "666"] {
            assert!(!text.contains(word), "{guest:?} {word}: {text}");
        }
        let kept: Vec<&str> = text.lines().filter(|line| line.starts_with("x-kept: ")).collect();
        match guest.is_cgi() {
            // A variable stands once (RFC 3875 §4.1.18).
            true => assert!(["x-kept: 1, 2", "x-kept: 1,2"].contains(&kept[0]), "{kept:?}"),
            false => assert_eq!(kept, ["x-kept: 1", "x-kept: 2"], "{guest:?}"),
        }
        if !guest.is_cgi() {
            assert!(seen["scheme"].contains("HTTP") || seen["scheme"].contains("Http"), "{text}");
            assert_eq!(seen["authority"], "Some.Example:8080", "{guest:?}");
        }
    }
}

/// `x_a` and `x-a` are two fields and would be one variable (RFC 3875 §4.1.18): with an underscore a
/// client could say what only the node may say.
#[test]
fn an_underscore_is_no_hyphen() {
    let node = Node::with_guests("");
    for guest in [Guest::Cgi01, Guest::Cgi02] {
        let request = Request::get(&format!("/{}/headers", guest.app()))
            .header("x_forwarded_for", "6.6.6.6")
            .header("x_forwarded_proto", "https")
            .header("x_request_id", "forged")
            .header("x-one", "1")
            .header("x_one", "2");
        let text = node.send(&request).expect(200).text();
        for word in ["6.6.6.6", "https", "forged", "x-one: 2"] {
            assert!(!text.contains(word), "{guest:?} {word}: {text}");
        }
        let text = node.send(&request.header("x-last", "1")).expect(200).text();
        assert_eq!(text.matches("x-forwarded-for: ").count(), 1, "{guest:?}: {text}");
    }
}

/// Both protocols look alike from inside.
#[test]
fn http2_looks_the_same() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        let target = format!("/{}/headers?q", guest.app());
        let seen = Protocol::BOTH.map(|protocol| {
            let answer = block_on(async {
                let mut client = Client::open(node.ingress(), protocol).await?;
                let mut request = client.request("GET", "some.example", &target, empty());
                request.headers_mut().insert("x-one", "1".parse().unwrap());
                collect(client.send(request).await?).await
            });
            let text = String::from_utf8(answer.unwrap().into_body().to_vec()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with("x-request-id"));
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        });
        assert_eq!(seen[0], seen[1], "{guest:?}");
    }
}

/// Paths come as they were sent: nobody decodes, joins or cleans them.
#[test]
fn paths_are_not_touched() {
    let node = Node::with_guests("");
    for guest in Guest::ALL.into_iter().filter(|guest| !guest.is_cgi()) {
        for path in [
            "/headers/../headers",
            "//headers",
            "/%2e%2e/headers",
            "/a%2Fb",
            "/x;y=z",
            "/:@!$&'()*+,=",
        ] {
            // The guest shows only one path, so the log has to tell.
            let answer = node.get(&format!("/{}{path}", guest.app())).expect(200);
            let id = answer.header("x-request-id").unwrap();
            let log = node
                .cli(["logs", guest.app(), "--request-id", id, "-o", "json"])
                .run()
                .expect(0)
                .json_lines();
            assert_eq!(log[0]["path"], path, "{guest:?}");
        }
    }
}

/// What a function writes is kept for those who may read it, and cleaned.
#[test]
fn what_it_logs() {
    let node = Node::with_guests("[limits]\nlog_bytes = 2000\n");
    for guest in Guest::ALL {
        let answer = node.get(&format!("/{}/log?lines=5", guest.app())).expect(200);
        assert_eq!(answer.text(), "5\n", "nothing of it is in the answer");
        let id = answer.header("x-request-id").unwrap();
        let args = ["logs", guest.app(), "--request-id", id, "-o", "json"];
        let lines = node.cli(args).run().expect(0).json_lines();
        let said: Vec<&str> = lines
            .iter()
            .filter(|line| line["source"] == "stderr")
            .filter_map(|line| line["message"].as_str())
            .collect();
        let expected: Vec<String> = (0..5).map(|number| format!("error line {number}")).collect();
        assert_eq!(said, expected, "{guest:?}");
        // One that writes without end is cut off, and still answers.
        let answer = node.get(&format!("/{}/log?lines=10000", guest.app())).expect(200);
        let id = answer.header("x-request-id").unwrap();
        let args = ["logs", guest.app(), "--request-id", id, "-o", "json"];
        let lines = node.cli(args).run().expect(0).json_lines().len();
        assert!((10..200).contains(&lines), "{guest:?}: {lines}");
    }
}
