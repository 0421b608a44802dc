//! What can go wrong before a connection is one: no descriptors, resets, handshakes that break off.
//! The listener goes on, and the API's with it.

use faas_tests::{
    Answer, Connection, Node, Request,
    artifacts::says,
    block_on, eventually, full, holds, process,
    tls::{Authority, Trust},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustls::{
    ClientConfig, ClientConnection,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn node(config: &str) -> Node {
    let node = Node::with(config);
    node.deploy("good", &says("good"));
    node
}

fn good(node: &Node) -> Option<Answer> {
    let mut connection = Connection::try_open(node.ingress()).ok()?;
    connection.set_patience(Duration::from_secs(5));
    connection.write(&Request::get("/good/").to_bytes(node.ingress())).ok()?;
    connection.read_answer(false).ok()
}

/// Sets the limit on open files of a node that runs.
fn limit_files(node: &Node, files: u64) -> u64 {
    let pid = Pid::from_raw(node.pid().try_into().unwrap());
    let limit = Rlimit { current: Some(files), maximum: Some(files.max(20_000)) };
    let keep_maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { maximum: keep_maximum, ..limit };
    prlimit(pid, Resource::Nofile, limit).unwrap().current.unwrap_or(files)
}

#[test]
fn no_descriptors_are_left() {
    let node = node("[ingress]\nthreads = 1\n");
    let open = process::open_files(node.pid()) as u64;
    let before = limit_files(&node, open + 10);
    // More than there is room for; the system takes them all.
    let crowd: Vec<Connection> = (0..200).map(|_| Connection::open(node.ingress())).collect();
    eventually("the trouble is told", PATIENCE, || {
        node.log().contains("cannot accept connections").then_some(())
    });
    let ticks = || process::cpu_ticks(node.pid());
    let (start, log) = (ticks(), node.log().len());
    holds("it waits", Duration::from_secs(1), || node.log().len() < log + 2000);
    // A tick is 10 ms: this is a tenth of a core and more.
    assert!(ticks() - start < 30, "it spins: {} ticks", ticks() - start);
    limit_files(&node, before);
    eventually("it goes on", PATIENCE, || good(&node).filter(|answer| answer.status == 200));
    drop(crowd);
    good(&node).expect("an answer").expect(200);
}

#[test]
fn the_api_answers_while_the_ingress_is_full() {
    let node = node("[ingress]\nmax_connections = 64\nfirst_byte_timeout_s = 60\n");
    let crowd: Vec<Connection> = (0..300).map(|_| Connection::open(node.ingress())).collect();
    let open = || node.metrics().sum("faas_connections_open", &[]);
    eventually("it is full", PATIENCE, || (open() == 64.0).then_some(()));
    holds("the API answers", Duration::from_secs(1), || {
        node.api(Request::get("/v1/apps")).status == 200
    });
    drop(crowd);
    eventually("it goes on", PATIENCE, || good(&node).filter(|answer| answer.status == 200));
}

#[test]
fn a_storm_of_resets() {
    let node = node("");
    let host = node.ingress();
    block_on(async {
        for number in 0..full(2000, 100_000) {
            let stream = tokio::net::TcpStream::connect(host).await.unwrap();
            if number % 3 == 1 {
                let _ = stream.try_write(b"GET /good/ HTTP/1.1\r\nhost: a\r\n\r\n");
            }
            stream.set_zero_linger().unwrap();
        }
    });
    good(&node).expect("an answer").expect(200);
    let open = || node.metrics().sum("faas_connections_open", &[]);
    eventually("they are gone", PATIENCE, || (open() == 0.0).then_some(()));
}

/// A node with TLS, and a client's side of a handshake with it.
fn secure() -> (Node, Authority) {
    let mut node = Node::unstarted("");
    let authority = Authority::new();
    authority.issue(&["localhost"]).write(node.home());
    let folder = node.home().display().to_string();
    let config = format!(
        "[ingress]\nthreads = 1\n[ingress.tls]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n"
    );
    fs::write(node.home().join("config.toml"), config).unwrap();
    node.launch();
    node.deploy("good", &says("good"));
    (node, authority)
}

fn shakes_hands(authority: &Authority) -> ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

fn hello(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn connect(peer: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(peer).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn is_served(node: &Node, trust: &Trust) {
    use faas_tests::hyper_client::{Client, Protocol};
    block_on(async {
        let mut client = Client::open_tls(node.ingress(), Protocol::Http1, trust).await.unwrap();
        assert_eq!(client.get("localhost", "/good/").await.unwrap().status(), 200);
    });
}

/// One byte in each segment.
#[test]
fn a_hello_in_pieces() {
    let (node, authority) = secure();
    let mut client = shakes_hands(&authority);
    let mut stream = connect(node.ingress());
    for byte in hello(&mut client) {
        stream.write_all(&[byte]).unwrap();
    }
    client.writer().write_all(b"GET /good/ HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"good\n") && !answer.windows(4).any(|four| four == b"good") {
        while client.wants_write() {
            client.write_tls(&mut stream).unwrap();
        }
        assert!(client.read_tls(&mut stream).unwrap() > 0, "it closed");
        client.process_new_packets().unwrap();
        let mut piece = [0; 4096];
        // Each read gives one record's worth.
        while let Ok(length @ 1..) = client.reader().read(&mut piece) {
            answer.extend_from_slice(&piece[..length]);
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn handshakes_that_break_off() {
    let (node, authority) = secure();
    let whole = hello(&mut shakes_hands(&authority));
    let close_notify = [0x15, 3, 3, 0, 2, 1, 0];
    let fatal = [0x15, 3, 3, 0, 2, 2, 40];
    let half = whole.len() / 2;
    let starts: [Vec<u8>; 8] = [
        close_notify.to_vec(),
        [&whole[..], &close_notify].concat(),
        [&whole[..], &fatal].concat(),
        [&whole[..half], &close_notify].concat(),
        [&whole[..], &whole[..]].concat(),
        // An empty record, a record that is too long, and one of no kind.
        vec![0x16, 3, 1, 0, 0],
        vec![0x16, 3, 1, 0xff, 0xff, 1],
        vec![0x63, 3, 1, 0, 1, 0],
    ];
    for bytes in starts {
        let mut stream = connect(node.ingress());
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Whatever it says, it ends.
        let _ = stream.read_to_end(&mut Vec::new());
        is_served(&node, &authority.trust());
    }
    for end in (0..whole.len()).step_by(37) {
        let mut stream = connect(node.ingress());
        stream.write_all(&whole[..end]).unwrap();
    }
    is_served(&node, &authority.trust());
}

#[test]
fn silent_clients_do_not_hold_up_handshakes() {
    let (node, authority) = secure();
    let silent: Vec<Connection> = (0..50).map(|_| Connection::open(node.ingress())).collect();
    for _ in 0..5 {
        is_served(&node, &authority.trust());
    }
    drop(silent);
}
