//! Certificates from an authority, end to end: Pebble looks at the node as Let's Encrypt would.

use faas_tests::{
    Node, Project,
    acme::Pebble,
    artifacts::says,
    block_on, eventually,
    tls::{Trust, certificates, presented},
};
use rustix::process::Signal;
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

const PATIENCE: Duration = Duration::from_secs(90);
const DAYS: u32 = 24 * 3600;

/// A node that asks an authority for these domains, and does not run yet.
fn unstarted(validity: u32, domains: &[&str]) -> (Node, Pebble) {
    let node = Node::unstarted("");
    let pebble = Pebble::start(node.home(), validity);
    configure(&node, &pebble, domains);
    (node, pebble)
}

fn configure(node: &Node, pebble: &Pebble, domains: &[&str]) {
    let config = format!(
        "[ingress.tls.acme]\ndirectory = \"{}\"\ndirectory_ca = \"{}\"\n\
         contact = [\"ada@example.test\"]\ndomains = {domains:?}\n",
        pebble.directory(),
        pebble.ca().display(),
    );
    fs::write(node.home().join("config.toml"), config).unwrap();
}

fn launch(node: &mut Node, pebble: &Pebble) {
    node.launch();
    pebble.leads_to(node.ingress());
}

/// The certificate that is kept for a domain: leaf, chain and key.
fn kept(node: &Node, domain: &str) -> Option<PathBuf> {
    let name = format!("{domain}.pem");
    node.files("acme").into_iter().find(|file| file.ends_with(&name))
}

/// Waits until clients are shown a certificate for a name that is kept for it, and returns it.
fn wait_for(node: &Node, name: &str) -> Vec<u8> {
    eventually("there is a certificate", PATIENCE, || {
        let text = fs::read_to_string(kept(node, name)?).unwrap();
        let leaf = presented(node.ingress(), name)?;
        (leaf == certificates(&text)[0]).then_some(leaf)
    })
}

#[test]
fn certificates_are_had_kept_and_shown_again_without_the_authority() {
    let domains = ["shop.example.test", "Other.Example.Test"];
    let (mut node, mut pebble) = unstarted(90 * DAYS, &domains);
    launch(&mut node, &pebble);
    node.deploy("shop", &says("hello"));
    let first = wait_for(&node, "shop.example.test");
    let second = wait_for(&node, "other.example.test");
    assert_ne!(first, second, "each domain has its own");
    let log = pebble.log();
    assert_eq!(log.matches("set VALID by completed challenge").count(), 2, "{log}");
    // Whoever trusts the authority trusts them.
    let kept_text = fs::read_to_string(kept(&node, "shop.example.test").unwrap()).unwrap();
    let issuer = Trust::of(&kept_text[kept_text.rfind("-----BEGIN CERTIFICATE").unwrap()..]);
    block_on(issuer.connect(node.ingress(), "shop.example.test", &["h2"])).unwrap();
    // A name that nobody asked for has none.
    assert_eq!(presented(node.ingress(), "nobody.test"), None);
    // They are secrets.
    let folder = node.data_dir().join("acme");
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    for file in node.files("acme") {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }

    pebble.stop();
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    let orders = node.log().matches("asking the authority").count();
    launch(&mut node, &pebble);
    assert_eq!(presented(node.ingress(), "shop.example.test"), Some(first));
    assert_eq!(presented(node.ingress(), "other.example.test"), Some(second));
    assert_eq!(node.log().matches("asking the authority").count(), orders, "nobody was asked");
}

/// Who deploys an app with a domain has done everything there is to do.
#[test]
fn domains_of_apps_have_certificates_too() {
    let (mut node, mut pebble) = unstarted(90 * DAYS, &[]);
    launch(&mut node, &pebble);
    assert_eq!(presented(node.ingress(), "shop.example.test"), None);
    let project = Project::new(
        "[app]\nname = \"shop\"\ndomains = [\"shop.example.test\"]\n\
         [functions.main]\nsource = \"main.wasm\"\n",
    )
    .file("main.wasm", says("hello"));
    node.cli(["deploy"]).dir(project.dir()).run().expect(0);
    let leaf = wait_for(&node, "shop.example.test");
    // After a restart it is there at once, whether the authority is or not.
    pebble.stop();
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    launch(&mut node, &pebble);
    assert_eq!(presented(node.ingress(), "shop.example.test"), Some(leaf));
}

#[test]
fn a_certificate_is_renewed_and_a_failure_keeps_the_old_one() {
    // Two thirds of its time are over after 16 seconds.
    let (mut node, mut pebble) = unstarted(24, &["shop.example.test"]);
    launch(&mut node, &pebble);
    let first = wait_for(&node, "shop.example.test");
    // It forgets the account with everything else.
    pebble.restart();
    let renewed = || presented(node.ingress(), "shop.example.test").filter(|leaf| *leaf != first);
    let second = eventually("it is renewed", PATIENCE, renewed);
    assert!(node.log().contains("does not know the account any more"), "{}", node.log());
    pebble.stop();
    eventually("the failure is told", PATIENCE, || {
        node.log().contains("no certificate from the authority").then_some(())
    });
    assert_eq!(presented(node.ingress(), "shop.example.test"), Some(second));
}

#[test]
fn an_authority_that_is_not_there_yet_is_asked_again() {
    let (mut node, mut pebble) = unstarted(90 * DAYS, &["shop.example.test"]);
    pebble.stop();
    launch(&mut node, &pebble);
    eventually("the failure is told", PATIENCE, || {
        let log = node.log();
        let line = log.lines().find(|line| line.contains("no certificate from the authority"))?;
        assert!(line.contains("shop.example.test") && line.contains("again"), "{line}");
        Some(())
    });
    pebble.restart();
    wait_for(&node, "shop.example.test");
}

#[test]
fn a_domain_that_leads_elsewhere_is_told_and_costs_the_others_nothing() {
    let (mut node, pebble) = unstarted(90 * DAYS, &["a.example.test", "b.example.test"]);
    // Somebody else answers there.
    let other = Node::start();
    pebble.leads_to(other.ingress());
    node.launch();
    eventually("the failure is told", PATIENCE, || {
        let log = node.log();
        let line = log.lines().find(|line| line.contains("no certificate from the authority"))?;
        assert!(line.contains("the authority says: Failed to connect"), "{line}");
        Some(())
    });
    pebble.leads_to(node.ingress());
    wait_for(&node, "b.example.test");
    wait_for(&node, "a.example.test");
}
