//! A node that gets less of its machine than it needs says what is missing.

use faas_api::ErrorCode;
use faas_tests::{
    Cli, Connection, Deploy, Node, Output, Request,
    artifacts::{Guest, says},
    eventually, process,
    tls::Authority,
    upstream::{self, Upstream},
};
use rustix::process::Signal;
use serde_json::json;
use std::{fs, path::Path, process::Command, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);

/// Settings that name a file of certificates, and that file.
fn setting(key: &str, file: &Path) -> String {
    let (section, key) = key.rsplit_once('.').unwrap();
    format!("[{section}]\n{key} = {:?}\n", file.display().to_string())
}

#[test]
fn certificates_to_trust_that_are_not_there() {
    let node = Node::unstarted("");
    let file = node.home().join("ca.pem");
    for key in ["outbound.ca", "auth.jwks_ca"] {
        for (content, word) in [
            (None, "No such file"),
            (Some(""), "no certificate"),
            (Some("no certificate at all\n"), "no certificate"),
            (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "ertificate"),
        ] {
            match content {
                Some(content) => fs::write(&file, content).unwrap(),
                None => drop(fs::remove_file(&file)),
            }
            fs::write(node.home().join("config.toml"), setting(key, &file)).unwrap();
            let refused = Cli::new(node.home(), node.serve_arguments()).run().expect(2);
            let said = &refused.stderr;
            assert!(said.starts_with("error: "), "{key} {content:?}: {said}");
            for word in [key, "ca.pem", word] {
                assert!(said.contains(word), "{key} {content:?}: no `{word}` in {said}");
            }
        }
    }
}

/// The system's own certificates: a node serves without them, and says why requests over TLS fail.
#[test]
fn a_system_without_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, ca) =
        Upstream::with_tls(folder.path(), |_, peer| upstream::answer(peer, 200, b"hello"));
    let (empty, missing) = (folder.path().join("empty.pem"), folder.path().join("missing.pem"));
    fs::write(&empty, "").unwrap();
    let url = format!("https://localhost:{}", upstream.port());
    for (bundle, serves) in [(&empty, false), (&missing, false), (&ca, true)] {
        let mut node = Node::unstarted("[outbound]\nallow_private = [\"127.0.0.0/8\"]\n");
        node.set_env("SSL_CERT_FILE", bundle);
        node.launch();
        let grants = json!({ "grants": { "outbound": [url] } });
        node.deploy_functions("shop", &[Deploy::new("main", Guest::Http02.wasm(), grants)]);
        let said = node.get(&format!("/shop/fetch?url={url}/x")).expect(200).text();
        let expected = if serves { "hello" } else { "TlsCertificateError" };
        assert!(said.contains(expected), "{bundle:?}: {said}");
        assert_eq!(
            node.log().contains("the system has no certificates"),
            !serves,
            "{}",
            node.log()
        );
        if !serves {
            assert!(node.log().contains("outbound.ca"), "it says what to do: {}", node.log());
        }
        node.get("/shop/hello").expect(200);
    }
}

/// `faas` as a client that trusts nobody.
#[test]
fn a_client_without_certificates() {
    let authority = Authority::new();
    let mut node = Node::unstarted("");
    authority.issue(&["127.0.0.1", "localhost"]).write(node.home());
    let folder = node.home().display();
    let config = format!("[admin.tls]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n");
    fs::write(node.home().join("config.toml"), config).unwrap();
    node.launch();
    let list = |words: &str| -> Cli {
        let url = format!("https://{}", node.admin());
        node.cli(words.split(' ')).env("FAAS_SERVER", url)
    };
    let (empty, ca) = (node.home().join("empty.pem"), node.home().join("ca.pem"));
    fs::write(&empty, "").unwrap();
    fs::write(&ca, authority.pem()).unwrap();
    for bundle in [&empty, &node.home().join("missing.pem")] {
        let output = list("list").env("SSL_CERT_FILE", bundle).run().expect(6);
        assert!(output.stderr.contains("--cacert"), "{output:?}");
        let output = list("list -o json").env("SSL_CERT_FILE", bundle).run().expect(6);
        assert_eq!(output.json()["error"]["code"], "untrusted_certificate");
        let cacert = ca.to_str().unwrap();
        list("list").env("SSL_CERT_FILE", bundle).env("FAAS_CACERT", cacert).run().expect(0);
        // Nobody is trusted where nobody has to be.
        let plain = list("list --server http://faas.invalid:1").env("SSL_CERT_FILE", bundle);
        assert_eq!(plain.env("FAAS_TOKEN", "x").run().code, 6);
    }
    let output = list("list --cacert empty.pem").run().expect(2);
    assert!(output.stderr.contains("empty.pem"), "{output:?}");
}

/// How a node starts that may have so much address space, in MiB: its end, or none when it serves.
fn start_within(node: &Node, mib: u64) -> Option<Output> {
    let script = format!("ulimit -v {} && exec \"$@\"", mib << 10);
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(faas_tests::faas_binary())
        .args(node.serve_arguments())
        .env_clear()
        .env("HOME", node.home())
        .stdout(fs::File::create(node.home().join("out")).unwrap())
        .stderr(fs::File::create(node.home().join("err")).unwrap())
        .spawn()
        .unwrap();
    let read = |name: &str| fs::read_to_string(node.home().join(name)).unwrap();
    let ended = eventually("it ends or serves", PATIENCE, || match child.try_wait().unwrap() {
        Some(status) => Some(Some(status)),
        None => read("out").contains("admin http://").then_some(None),
    });
    if let Some(status) = ended {
        let code = status.code().unwrap_or(-1);
        return Some(Output { code, stdout: read("out"), stderr: read("err") });
    }
    let out = read("out");
    let ingress = out.lines().find_map(|line| line.strip_prefix("ingress http://")).unwrap();
    let answer = Connection::open(ingress.parse().unwrap()).ask(&Request::get("/good/"));
    process::signal(child.id(), Signal::TERM);
    eventually("it ends", PATIENCE, || child.try_wait().unwrap());
    assert_eq!(answer.expect(200).text().trim(), "good");
    None
}

#[test]
fn too_little_address_space() {
    let mut node = Node::start();
    node.deploy("good", &says("good"));
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    for mib in [256, 1 << 10, 16 << 10, 256 << 10, 1 << 20] {
        let refused = start_within(&node, mib).expect("it is too little");
        assert_eq!(refused.code, 1, "{mib} MiB: {refused:?}");
        assert!(refused.stderr.starts_with("error: "), "{mib} MiB: {refused:?}");
        for word in [&format!("{mib} MiB of address space"), "ulimit -v", "engine.pool_size"] {
            assert!(refused.stderr.contains(word), "no `{word}`: {refused:?}");
        }
        assert!(!refused.stderr.contains("panicked"), "{mib} MiB: {refused:?}");
    }
    // It says what to do, and that helps.
    fs::write(node.home().join("config.toml"), "[engine]\npool_size = 8\n").unwrap();
    assert!(start_within(&node, 1 << 20).is_none());
    node.launch();
    node.get("/good/").expect(200);
    node.get("/nobody/").failure(ErrorCode::NotFound);
}
