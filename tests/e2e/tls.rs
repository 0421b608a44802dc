//! TLS: on the ingress and on the API, with certificates in files.

use faas_api::ErrorCode;
use faas_tests::{
    Cli, Connection, Node, Output, Request,
    artifacts::{Guest, says},
    block_on, eventually,
    hyper_client::{Client, Protocol, collect, empty},
    tls::Authority,
};
use rustix::process::Signal;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);
const NAMES: [&str; 4] = ["localhost", "*.localhost", "v1--shop.localhost", "127.0.0.1"];

/// Settings for files in the node's own folder, which are not there yet.
fn settings(node: &Node, section: &str, more: &str) -> String {
    let folder = node.home().display();
    format!("{more}\n[{section}.tls]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n")
}

/// A node that is to speak TLS, and does not run yet.
fn unstarted(section: &str, more: &str) -> (Node, Authority) {
    let (node, authority) = (Node::unstarted(""), Authority::new());
    authority.issue(&NAMES).write(node.home());
    fs::write(node.home().join("ca.pem"), authority.pem()).unwrap();
    fs::write(node.home().join("config.toml"), settings(&node, section, more)).unwrap();
    (node, authority)
}

/// A node whose ingress speaks TLS.
fn secure(more: &str) -> (Node, Authority) {
    let (mut node, authority) = unstarted("ingress", more);
    node.launch();
    (node, authority)
}

#[test]
fn both_protocols_and_what_a_function_sees() {
    let (node, authority) = secure("");
    node.deploy("shop", &Guest::Http02.wasm());
    block_on(async {
        for protocol in Protocol::BOTH {
            let trust = authority.trust();
            let mut client = Client::open_tls(node.ingress(), protocol, &trust).await.unwrap();
            for path in ["/shop/headers", "/shop@v1/headers"] {
                let answer = client.get("localhost", path).await.unwrap();
                assert_eq!(answer.status(), 200);
                let text = String::from_utf8(answer.into_body().to_vec()).unwrap();
                assert!(text.contains("x-forwarded-proto: https\n"), "{protocol:?}: {text}");
                assert!(text.contains("x-forwarded-host: localhost\n"), "{protocol:?}: {text}");
            }
            let name = "v1--shop.localhost";
            let peer = node.ingress();
            let mut other = Client::open_tls_for(name, peer, protocol, &trust).await.unwrap();
            let answer = other.get(name, "/status?code=418").await.unwrap();
            assert_eq!(answer.status(), 418);
            let body = "x".repeat(1 << 20);
            let body_of = faas_tests::hyper_client::full(body.clone());
            let echo = client.request("POST", "localhost", "/shop/echo", body_of);
            let answer = collect(client.send(echo).await.unwrap()).await.unwrap();
            assert_eq!(answer.body(), body.as_bytes());
        }
    });
}

#[test]
fn curl_speaks_it_too() {
    let (node, _) = secure("");
    node.deploy("shop", &says("hello"));
    let url = format!("https://localhost:{}/shop/", node.ingress().port());
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2"), ("--tlsv1.3", "2")] {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--cacert", "ca.pem", flag, "-w", "%{http_version}"])
            .arg(&url)
            .current_dir(node.home())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{flag}: {output:?}");
        assert!(said.starts_with("hello") && said.ends_with(version), "{flag}: {said}");
    }
    let untrusted = Command::new("curl").args(["-sS", "--noproxy", "*", &url]).output().unwrap();
    assert_eq!(untrusted.status.code(), Some(60), "{untrusted:?}");
}

#[test]
fn addresses_are_shown_as_they_are() {
    let (node, _) = secure("");
    fs::write(node.home().join("shop.wasm"), says("hello")).unwrap();
    let port = node.ingress().port();
    let deployed = node.cli(["deploy", "shop.wasm"]).run().expect(0);
    assert_eq!(deployed.stdout.trim(), format!("https://localhost:{port}/shop/"));
    let described = node.cli(["describe", "shop", "-o", "json"]).run().expect(0).json();
    let urls = &described["data"]["urls"];
    assert_eq!(urls[0], format!("https://localhost:{port}/shop/"));
    assert_eq!(urls[1], format!("https://shop.localhost:{port}/"));
    let ca = node.home().join("ca.pem");
    let invoked = node.cli(["invoke", "shop"]).env("FAAS_CACERT", &ca).run().expect(0);
    assert_eq!(invoked.stdout.trim(), "hello");
    let untrusted = node.cli(["invoke", "shop", "-o", "json"]).run().expect(6).json();
    assert_eq!(untrusted["error"]["code"], "untrusted_certificate");
}

/// Gets a path over a connection of its own, from a node that one of these authorities vouches for.
async fn get(node: &Node, trust: &faas_tests::tls::Trust, path: &str) -> Option<u16> {
    let mut client = Client::open_tls(node.ingress(), Protocol::Http1, trust).await.ok()?;
    Some(client.get("localhost", path).await.ok()?.status().as_u16())
}

#[test]
fn a_new_certificate_costs_no_request() {
    let (node, old) = secure("");
    let new = Authority::new();
    node.deploy("shop", &says("hello"));
    let (trusts_new, both) = (new.trust(), old.trust().and(&new.trust()));
    let node = Arc::new(node);
    block_on(async {
        let mut kept =
            Client::open_tls(node.ingress(), Protocol::Http2, &old.trust()).await.unwrap();
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let load = tokio::spawn({
            let (node, stop, done) = (node.clone(), stop.clone(), done.clone());
            async move {
                while !stop.load(SeqCst) {
                    assert_eq!(get(&node, &both, "/shop/").await, Some(200));
                    done.fetch_add(1, SeqCst);
                }
            }
        });
        while done.load(SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(get(&node, &trusts_new, "/shop/").await, None);
        new.issue(&NAMES).write(node.home());
        while get(&node, &trusts_new, "/shop/").await.is_none() {
            assert_eq!(kept.get("localhost", "/shop/").await.unwrap().status(), 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let now = done.load(SeqCst);
        while done.load(SeqCst) < now + 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.store(true, SeqCst);
        load.await.unwrap();
        assert_eq!(kept.get("localhost", "/shop/").await.unwrap().status(), 200);
        assert_eq!(get(&node, &old.trust(), "/shop/").await, None);
    });
    assert!(node.log().contains("a new certificate is in use"), "{}", node.log());
}

#[test]
fn a_broken_certificate_is_told_and_not_shown() {
    let (node, authority) = secure("");
    node.deploy("shop", &says("hello"));
    let works = || block_on(get(&node, &authority.trust(), "/shop/")) == Some(200);
    let told = |count: usize, problem: &str| {
        eventually("the log tells it", PATIENCE, || {
            let log = node.log();
            let lines = log.lines().filter(|line| line.contains("the one before it stays in use"));
            let lines: Vec<&str> = lines.collect();
            (lines.len() >= count && lines.last().unwrap().contains(problem)).then_some(())
        });
    };
    let (cert, key) = (node.home().join("cert.pem"), node.home().join("key.pem"));
    fs::write(&cert, "nothing").unwrap();
    told(1, "cert.pem` holds no certificate");
    assert!(works());
    fs::remove_file(&cert).unwrap();
    told(2, "cert.pem` cannot be read");
    assert!(works());
    // A signal makes it look at once, and at files that have not changed, too.
    node.signal(Signal::HUP);
    told(3, "cert.pem` cannot be read");
    authority.issue(&NAMES).write(node.home());
    eventually("it is in use", PATIENCE, || {
        node.log().contains("a new certificate is in use").then_some(())
    });
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    told(4, "key.pem` can be read or changed by others");
    assert!(works());
}

/// Starts a node that must refuse to because of its settings, and returns what it says.
#[track_caller]
fn refused(node: &Node, setting: &str) -> String {
    let args = node.serve_arguments();
    let json = [&args[..], &["-o".to_owned(), "json".to_owned()]].concat();
    let document = Cli::new(node.home(), json).run().expect(2).json();
    assert_eq!(document["error"]["code"], "config");
    let Output { stdout, stderr, .. } = Cli::new(node.home(), args).run().expect(2);
    assert_eq!(stdout, "");
    assert!(stderr.starts_with(&format!("error: {setting}")), "{stderr}");
    assert!(!node.data_dir().exists(), "nothing was touched");
    stderr
}

#[test]
fn what_keeps_a_node_from_starting() {
    for section in ["ingress", "admin"] {
        let (node, authority) = unstarted(section, "");
        let (cert, key) = (node.home().join("cert.pem"), node.home().join("key.pem"));
        let setting = |name: &str| format!("{section}.tls.{name}: ");
        fs::write(&cert, "nothing").unwrap();
        assert!(refused(&node, &setting("cert")).contains("holds no certificate"));
        fs::remove_file(&cert).unwrap();
        assert!(refused(&node, &setting("cert")).contains("cert.pem` cannot be read"));
        authority.issue(&NAMES).write(node.home());
        fs::write(&key, authority.issue(&NAMES).key).unwrap();
        assert!(refused(&node, &setting("key")).contains("is not the certificate's key"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).unwrap();
        let said = refused(&node, &setting("key"));
        assert!(said.contains("by others (mode 604)") && said.contains("chmod 600"), "{said}");
        let half = format!("[{section}.tls]\nkey = \"key.pem\"\n");
        fs::write(node.home().join("config.toml"), half).unwrap();
        assert!(refused(&node, &setting("cert")).contains("is missing"));
    }
    for (config, setting) in [
        ("[ingress]\nhttp_redirect = \"127.0.0.1:0\"\n", "ingress.http_redirect: "),
        ("[ingress.tls.acme]\ndomains = [\"a.test\"]\n", "ingress.tls.acme.directory: "),
        (
            "[ingress.tls.acme]\ndirectory = \"https://a.test\"\ndomains = [\"*.a.test\"]\n",
            "ingress.tls.acme.domains: ",
        ),
        (
            "[ingress.tls.acme]\ndirectory = \"https://a.test\"\ndirectory_ca = \"none.pem\"\n",
            "ingress.tls.acme.directory_ca: ",
        ),
    ] {
        refused(&Node::unstarted(config), setting);
    }
    let said = refused(&Node::unstarted("[ingress]\nhttp_redirect = \"80\"\n"), "");
    assert!(said.contains("expected an address"), "{said}");
}

#[test]
fn a_client_without_tls_is_told() {
    let (node, authority) = secure("");
    node.deploy("shop", &says("hello"));
    let answer = node.get("/shop/");
    assert_eq!(answer.header("connection"), Some("close"));
    answer.failure(ErrorCode::TlsRequired);
    // What is neither the one nor the other is closed and costs the others nothing.
    let mut noise = Connection::open(node.ingress());
    noise.write(&[0xff; 100]).unwrap();
    assert!(noise.read_answer(false).is_err());
    assert_eq!(block_on(get(&node, &authority.trust(), "/shop/")), Some(200));
}

/// A request for another host than that of the handshake came over the wrong connection; proxies that
/// are trusted may do so.
#[test]
fn a_connection_is_for_one_host() {
    let asks = |node: &Node, authority: &Authority, host: &str| {
        block_on(async {
            let mut statuses = Vec::new();
            for protocol in Protocol::BOTH {
                let trust = authority.trust();
                let mut client = Client::open_tls(node.ingress(), protocol, &trust).await.unwrap();
                let answer = client.get(host, "/shop/").await.unwrap();
                statuses.push(answer.status().as_u16());
                // The connection goes on.
                statuses.push(client.get("localhost", "/shop/").await.unwrap().status().as_u16());
            }
            statuses
        })
    };
    let (node, authority) = secure("");
    node.deploy("shop", &says("hello"));
    for host in ["localhost", "LOCALHOST:8443", "localhost."] {
        assert_eq!(asks(&node, &authority, host), [200; 4], "{host}");
    }
    for host in ["other.test", "shop.localhost", "127.0.0.1"] {
        assert_eq!(asks(&node, &authority, host), [421, 200, 421, 200], "{host}");
    }
    let (proxied, authority) = secure("[ingress]\ntrusted_proxies = [\"127.0.0.1/32\"]\n");
    proxied.deploy("shop", &says("hello"));
    assert_eq!(asks(&proxied, &authority, "other.test"), [200; 4]);
}

#[test]
fn a_slow_handshake_is_cut_and_holds_up_nobody() {
    let (node, authority) = secure("[ingress]\nfirst_byte_timeout_s = 1\nthreads = 1\n");
    node.deploy("shop", &says("hello"));
    let mut slow: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::open(node.ingress());
            connection.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").unwrap();
            connection
        })
        .collect();
    assert_eq!(block_on(get(&node, &authority.trust(), "/shop/")), Some(200));
    assert!(slow.iter_mut().all(Connection::is_closed));
}

#[test]
fn what_is_in_flight_finishes_over_tls() {
    for protocol in Protocol::BOTH {
        let (mut node, authority) = secure("");
        node.deploy("http02", &Guest::Http02.wasm());
        block_on(async {
            let trust = authority.trust();
            let mut client = Client::open_tls(node.ingress(), protocol, &trust).await.unwrap();
            let target = "/http02/slow?pieces=20&ms=100&bytes=10";
            let request = client.request("GET", "localhost", target, empty());
            let response = client.send(request).await.unwrap();
            node.signal(Signal::TERM);
            assert_eq!(collect(response).await.unwrap().body().len(), 200);
            while !client.is_closed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(node.wait().code(), Some(0));
    }
}

#[test]
fn the_other_door_leads_to_this_one() {
    let (node, _) = secure("[ingress]\nhttp_redirect = \"127.0.0.1:0\"\n");
    node.deploy("shop", &says("hello"));
    let port = node.ingress().port();
    let redirect = node.redirect();
    let mut connection = Connection::open(redirect);
    for (host, path) in [("a.test", "/shop/x?y=1"), ("a.test:8080", "/"), ("[::1]:80", "/shop/")] {
        let answer = connection.ask(&Request::get(path).header("host", host)).expect(308);
        let name = host.strip_suffix(":8080").or(host.strip_suffix(":80")).unwrap_or(host);
        let expected = format!("https://{name}:{port}{path}");
        assert_eq!(answer.header("location"), Some(expected.as_str()));
        assert!(answer.header("x-request-id").is_some());
    }
    let post = Request::post("/shop/", "body").header("host", "a.test");
    assert_eq!(connection.ask(&post).expect(308).header("connection"), Some("close"));
    let mut bad = Connection::open(redirect);
    bad.ask(&Request::get("/").header("host", "a b")).failure(ErrorCode::BadRequest);
}

#[test]
fn the_api_speaks_tls_with_the_command() {
    let (mut node, authority) = unstarted("admin", "");
    node.launch();
    fs::write(node.home().join("shop.wasm"), says("hello")).unwrap();
    let ca = node.home().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let (port, url) = (node.admin().port(), format!("https://{}", node.admin()));
    let server = |url: &str, words: &str| node.cli(words.split(' ')).env("FAAS_SERVER", url);
    server(&url, &format!("deploy shop.wasm --cacert {ca}")).run().expect(0);
    for url in [&url, &format!("https://localhost:{port}")] {
        let listed = server(url, "list -o json").env("FAAS_CACERT", ca).run().expect(0).json();
        assert_eq!(listed["data"]["apps"][0]["name"], "shop", "{listed}");
    }
    let invoked = server(&url, "invoke shop").env("FAAS_CACERT", ca).run().expect(0);
    assert_eq!(invoked.stdout.trim(), "hello");

    let fails = |url: &str, words: &str, exit: i32| {
        let said = server(url, words).run().expect(exit).stderr;
        assert!(said.contains("hint: "), "{said}");
        let json = server(url, &format!("{words} -o json")).run().expect(exit).json();
        (json["error"]["code"].as_str().unwrap().to_owned(), said)
    };
    let (code, said) = fails(&url, "list", 6);
    assert_eq!(code, "untrusted_certificate");
    assert!(said.contains("--cacert") && said.contains("FAAS_CACERT"), "{said}");
    let (code, _) = fails(&format!("http://{}", node.admin()), "list", 1);
    assert_eq!(code, "tls_required");
    let (code, said) = fails(&format!("https://{}", node.ingress()), "list", 6);
    assert_eq!(code, "no_tls", "{said}");
    let (code, said) = fails(&url, "list --cacert nothing.pem", 2);
    assert!(code == "usage" && said.contains("nothing.pem"), "{said}");

    // Another certificate, for another name.
    authority.issue(&["faas.test"]).write(node.home());
    node.signal(Signal::HUP);
    let words = format!("list -o json --cacert {ca}");
    eventually("it is in use", PATIENCE, || {
        let output = server(&url, &words).run();
        let code = (output.code != 0).then(|| output.json())?;
        let message = code["error"]["message"].as_str().unwrap();
        assert!(message.contains("it is for `faas.test`"), "{message}");
        Some(())
    });
}

#[test]
fn the_api_cuts_a_slow_handshake_and_drains() {
    let (mut node, _) = unstarted("admin", "");
    node.launch();
    let mut silent = Connection::open(node.admin());
    silent.write(b"\x16\x03\x01").unwrap();
    let mut plain = Connection::open(node.admin());
    plain.ask(&Request::get("/livez")).failure(ErrorCode::TlsRequired);
    node.signal(Signal::TERM);
    assert!(silent.is_closed());
    assert_eq!(node.wait().code(), Some(0));
}
