//! Where functions' requests never go, however the way there is named: each forbidden target is
//! refused, and no listener sees an attempt. In a network of its own the whole table is watched,
//! because there every address is this machine's; where that is not allowed, the machine's own are.

use crate::outbound::{OPEN, PATIENCE, SENDERS, fetch, grant, hello, refused};
use faas_tests::{
    Network, Node, Request,
    artifacts::Guest,
    dns::{NameServer, Said},
    eventually,
    upstream::{Canary, Upstream, answer},
};
use std::{net::IpAddr, panic::resume_unwind, thread};

/// A host that is granted and public.
const GOOD: &str = "93.184.216.34";

/// Hosts that can be granted, and are out of bounds all the same.
const PROHIBITED: &[&str] = &[
    "localhost",
    "LOCALHOST.",
    "a.localhost",
    "127.0.0.1",
    "127.0.0.2",
    "127.1.2.3",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0.0.0.0]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[2001:db8::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    // Names, with what the name server says of them below.
    "metadata.google.internal",
    "private.test",
    "alias.test",
    "mapped.test",
    "nat64.test",
    "both-private.test",
];

/// What stands for no host, or for none that is granted. `%xx` are characters; `PORT` is the
/// canary's.
const OTHERWISE: &[&str] = &[
    "2130706433:PORT",
    "0x7f000001:PORT",
    "0x7f.1:PORT",
    "0177.0.0.1:PORT",
    "017700000001:PORT",
    "127.1:PORT",
    "127.0.1:PORT",
    "127.0.0.01:PORT",
    "0:PORT",
    "00:PORT",
    "127.0.0.1.:PORT/..",
    "127%E3%80%820%E3%80%820%E3%80%821:PORT",
    "%E2%91%A0%E2%91%A1%E2%91%A6.0.0.1:PORT",
    "127.0.0.1%00:PORT",
    "127.0.0.1%20:PORT",
    "%0d%0a127.0.0.1:PORT",
    "[::1%25lo]:PORT",
    "[::1%251]:PORT",
    "[::ffff:127.0.0.1:PORT",
    "[v1.x]:PORT",
    "good.test@127.0.0.1:PORT",
    "good.test:PORT@127.0.0.1:PORT",
    "user:word@good.test:PORT",
    "good.test:PORT%23@127.0.0.1:PORT",
    "good.test%5C@127.0.0.1:PORT",
    "127.0.0.1:PORT%5C.good.test",
    "127.0.0.1:PORT%3F.good.test",
    "good.test%2E127.0.0.1:PORT",
    "good.test",
    "good.test:22",
    "good.test:0",
    "good.test:PORT0",
    "good.test:+PORT",
    "good.test..:PORT",
    "good.test.evil:PORT",
    "xgood.test:PORT",
    "evil-good.test:PORT",
    "good%252etest:PORT",
    "xn--good-.test:PORT",
    "wild.test:PORT",
    ".wild.test:PORT",
    "%2A.wild.test:PORT",
    "xwild.test:PORT",
    "a.wild.test.evil:PORT",
    "a.xwild.test:PORT",
    "a.wild.test:22",
    "",
];

fn names() -> NameServer {
    NameServer::start(|name, _| match name {
        "metadata.google.internal" => Said::addresses(&["169.254.169.254"]),
        "private.test" => Said::addresses(&["10.0.0.1", "fd00:ec2::254"]),
        "alias.test" => Said::Alias("hidden.test".to_owned(), vec!["127.0.0.1".parse().unwrap()]),
        "mapped.test" => Said::addresses(&["::ffff:127.0.0.1"]),
        "nat64.test" => Said::addresses(&["64:ff9b::7f00:1"]),
        "both-private.test" => Said::addresses(&["127.0.0.1", "::1"]),
        // The public one last.
        "mixed.test" => Said::addresses(&["127.0.0.1", "::1", "10.0.0.1", GOOD]),
        "good.test" | "a.wild.test" => Said::addresses(&[GOOD]),
        name if name == "localhost" || name.ends_with(".localhost") => {
            Said::addresses(&["127.0.0.1"])
        }
        _ => Said::Unknown,
    })
}

/// Deploys the guests with grants for these hosts, at this port.
fn grant_hosts(node: &Node, port: u16, hosts: &[&str]) {
    let urls: Vec<String> = hosts.iter().map(|host| format!("http://{host}:{port}")).collect();
    grant(node, &urls);
}

#[test]
fn no_forbidden_target_sees_a_connection() {
    // The thread stays in the network that it enters, so it is one of its own.
    let test = thread::spawn(|| {
        let network = Network::enter();
        whole_table(network.is_some());
    });
    test.join().unwrap_or_else(|failed| resume_unwind(failed));
}

fn whole_table(all_addresses_are_ours: bool) {
    let (names, canary) = (names(), Canary::start());
    let node = Node::with_guests(&format!("[outbound]\nresolver = [\"{}\"]\n", names.address()));
    let port = canary.port();
    grant_hosts(&node, port, PROHIBITED);
    for guest in SENDERS {
        for host in PROHIBITED {
            let (said, logged) = refused(&node, guest, &format!("http://{host}:{port}/"));
            assert!(said.contains("DestinationIpProhibited"), "{guest:?} {host}: {said}");
            assert!(logged[0].contains("outbound.allow_private"), "{guest:?} {host}: {logged:?}");
        }
    }
    grant_hosts(&node, port, &["good.test", "*.wild.test", "mixed.test"]);
    for guest in SENDERS {
        for target in OTHERWISE {
            let target = target.replace("PORT", &port.to_string());
            let answer = fetch(&node, guest, "coded=1", &format!("http://{target}/"));
            assert_eq!(answer.status, 200, "{guest:?} {target}: {answer:?}");
            let said = answer.text();
            let denied = ["HttpRequestUriInvalid", "HttpRequestDenied", "HttpProtocolError"];
            assert!(denied.iter().any(|code| said.contains(code)), "{guest:?} {target}: {said}");
        }
        // A relative request is for nobody, whatever the client calls the server.
        let target = format!("/{}/fetch?url=/x", guest.app());
        let host = format!("169.254.169.254:{port}");
        let answer = node.send(&Request::get(&target).header("host", &host));
        assert!(answer.text().contains("error") || answer.status >= 400, "{guest:?}: {answer:?}");
    }
    assert_eq!(canary.seen(), [] as [IpAddr; 0], "nobody was to be reached");
    assert!(names.asked().iter().any(|name| name == "alias.test"), "{:?}", names.asked());
    if !all_addresses_are_ours {
        faas_tests::figure(
            "only the machine's own addresses were watched: that takes root and `ip`",
        );
        return;
    }
    // The same way leads to what may be reached, and to nothing else.
    for guest in SENDERS {
        for host in ["good.test", "GOOD.test.", "a.wild.test", "mixed.test"] {
            let answer = fetch(&node, guest, "", &format!("http://{host}:{port}/"));
            assert_eq!(answer.status, 204, "{guest:?} {host}: {answer:?}");
        }
    }
    let good: IpAddr = GOOD.parse().unwrap();
    assert_eq!(canary.seen(), vec![good; 4 * SENDERS.len()]);
}

/// A name server that says one thing when it is asked and another when it is asked again gains
/// nothing: what was looked at is what is connected to. 127.0.0.2 is open here and stands for what is
/// public; 127.0.0.1 is not.
#[test]
fn a_name_that_changes_its_mind_gains_nothing() {
    let upstream = Upstream::at("127.0.0.2:0", |request, peer| {
        // Each connection is for one request, so that every request looks the name up.
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";
        peer.write_all(format!("{head}{:4}", request.target().len()).as_bytes())?;
        Err(std::io::Error::other("done"))
    });
    let port = upstream.port();
    let canary = Upstream::at(&format!("127.0.0.1:{port}"), |_, peer| answer(peer, 200, b"canary"));
    let names = NameServer::start(|name, turn| match (name, turn % 2) {
        ("turns.test", 0) => Said::addresses(&["127.0.0.2"]),
        ("turns.test", _) => Said::addresses(&["127.0.0.1"]),
        ("mixed.test", 0) => Said::addresses(&["127.0.0.1", "::1", "127.0.0.2"]),
        ("mixed.test", _) => Said::addresses(&["127.0.0.2", "::ffff:127.0.0.1", "127.0.0.1"]),
        ("alias.test", _) => Said::Alias("x.test".to_owned(), vec!["127.0.0.1".parse().unwrap()]),
        _ => Said::Unknown,
    });
    let node = Node::with_guests(&format!(
        "[outbound]\nallow_private = [\"127.0.0.2/32\"]\nresolver = [\"{}\"]\n",
        names.address()
    ));
    grant_hosts(&node, port, &["turns.test", "mixed.test", "alias.test", "unknown.test"]);
    let rounds = 4;
    for guest in SENDERS {
        let before = upstream.accepted();
        let (mut reached, mut denied) = (0, 0);
        for _ in 0..2 * rounds {
            let answer = fetch(&node, guest, "", &format!("http://turns.test:{port}/"));
            match answer.text() {
                text if text.contains("DestinationIpProhibited") => denied += 1,
                text => {
                    assert_eq!(text.trim(), "1", "{guest:?}: {answer:?}");
                    reached += 1;
                }
            }
        }
        assert_eq!((reached, denied), (rounds, rounds), "{guest:?}");
        assert_eq!(upstream.accepted() - before, rounds, "{guest:?}");
        for _ in 0..2 {
            fetch(&node, guest, "", &format!("http://mixed.test:{port}/")).expect(200);
            let (said, _) = refused(&node, guest, &format!("http://alias.test:{port}/"));
            assert!(said.contains("DestinationIpProhibited"), "{guest:?}: {said}");
        }
        let (said, logged) = refused(&node, guest, &format!("http://unknown.test:{port}/"));
        assert!(said.contains("DnsError"), "{guest:?}: {said}");
        assert!(logged[0].contains("the name is not known"), "{guest:?}: {logged:?}");
    }
    assert_eq!(canary.accepted(), 0);
}

/// An app that asks for names which nobody answers for has its own look-ups to wait for, and no
/// other's.
#[test]
fn silent_name_servers_are_their_askers_trouble() {
    let upstream = hello();
    let names = NameServer::start(|name, _| match name {
        "good.test" => Said::addresses(&["127.0.0.1"]),
        _ => Said::Silence,
    });
    let node = Node::with_guests(&format!(
        "{OPEN}resolver = [\"{}\"]\nconnect_timeout_ms = 20000\n",
        names.address()
    ));
    let port = upstream.port();
    grant(&node, &[format!("http://*.silent.test:{port}"), format!("http://good.test:{port}")]);
    let mut waiting: Vec<_> = (0..40)
        .map(|each| {
            let mut connection = faas_tests::Connection::open(node.ingress());
            let url = format!("http://n{each}.silent.test:{port}/");
            connection.start(&Request::get(&format!("/http02/fetch?url={url}")));
            connection
        })
        .collect();
    eventually("its look-ups are all in use", PATIENCE, || {
        let mut asked = names.asked();
        asked.sort();
        asked.dedup();
        (asked.len() >= 8).then_some(())
    });
    let answer = fetch(&node, Guest::Http03, "", &format!("http://good.test:{port}/x"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "/x"));
    // Those that nobody waits for any more end, and their places are free again.
    waiting.drain(..).for_each(faas_tests::Connection::reset);
    let answer = fetch(&node, Guest::Http02, "", &format!("http://good.test:{port}/x"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "/x"));
    node.idle();
}

/// What the environment says of proxies is for other programs.
#[test]
fn no_proxy_of_the_environment_is_used() {
    let (proxy, upstream) = (Canary::start(), hello());
    let mut node = Node::unstarted(OPEN);
    node.prepare_guests();
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    {
        node.set_env(name, format!("http://127.0.0.1:{}", proxy.port()));
    }
    node.set_env("NO_PROXY", "nothing.test".to_owned());
    node.launch();
    let port = upstream.port();
    grant(&node, &[format!("http://127.0.0.1:{port}"), format!("https://127.0.0.1:{port}")]);
    for guest in SENDERS {
        let answer = fetch(&node, guest, "", &format!("http://127.0.0.1:{port}/x")).expect(200);
        assert_eq!(answer.text(), "/x", "{guest:?}");
        let (said, _) = refused(&node, guest, &format!("https://127.0.0.1:{port}/x"));
        assert!(said.contains("TlsProtocolError"), "{guest:?}: {said}");
        assert_eq!(upstream.received().pop().unwrap().line, "GET /x HTTP/1.1", "{guest:?}");
    }
    assert_eq!(proxy.seen(), [] as [IpAddr; 0]);
}
