//! Crowds of slow clients: each kind is let in, costs little memory, and keeps nobody else out.
//!
//! The suite sends a few hundred of each kind; `FAAS_TEST_FULL=1` sends four thousand.

use faas_tests::{
    Connection, Node, Request,
    artifacts::{assemble, says},
    block_on, eventually,
    frames::{self, asks, flag, frame, get, headers, hello, kind},
    full, process,
    tls::Authority,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use tokio::net::TcpSocket;

/// Files and sockets that a crowd takes, on either side.
const FILES: u64 = 20_000;
/// What one slow client may cost, in bytes.
const MOST: u64 = 64 << 10;
/// What the allocator keeps of what was given back, in bytes, however many clients there were.
const KEPT: u64 = 8 << 20;
/// What all of them may make a node hold besides, in the suite; with all of them it is the default.
const BURDEN: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// One kind of slow client.
struct Kind {
    name: &'static str,
    /// What it sends, as far as the node takes it at once. It reads nothing.
    sends: Vec<u8>,
    /// Its cost is that of calls, which the pool bounds, and not held to [`MOST`].
    unbounded: bool,
}

impl Kind {
    fn new(name: &'static str, sends: impl Into<Vec<u8>>) -> Self {
        Self { name, sends: sends.into(), unbounded: false }
    }
}

/// Raises the limit on open files as far as a crowd needs it.
pub(crate) fn enough_files() {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(FILES).min(FILES);
    limit = Rlimit { current: Some(most.max(limit.current.unwrap_or(0))), ..limit };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// A client that has little room for answers, so that the system holds little of them.
async fn slow_client(peer: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(peer).await.unwrap().into_std().unwrap()
}

/// Sends what is taken at once, or soon.
fn send(stream: &mut TcpStream, mut bytes: &[u8]) {
    let patience = Instant::now() + Duration::from_millis(300);
    while !bytes.is_empty() && Instant::now() < patience {
        match stream.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return,
        }
    }
}

/// A node whose memory has settled: it has served a few of each kind before.
fn node(config: &str) -> Node {
    enough_files();
    let burden = full(BURDEN, 96 << 20);
    let ingress = format!("[ingress]\naccess_log = \"off\"\nconnection_memory_bytes = {burden}\n");
    let mut node = Node::unstarted(&format!("{ingress}{config}"));
    if config.contains("cert.pem") {
        let authority = Authority::new();
        authority.issue(&["localhost"]).write(node.home());
        let folder = node.home().display().to_string();
        let config = format!("{ingress}{}", config.replace("FOLDER", &folder));
        fs::write(node.home().join("config.toml"), config).unwrap();
    }
    node.launch();
    node.deploy("good", &says("good"));
    node
}

/// Lets a crowd in, and measures what it costs while others are served.
fn crowd(node: &Node, kind: &Kind, ask: impl Fn() + Sync) -> Vec<TcpStream> {
    let number = full(400, 4000);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = scope.spawn(|| {
            let (mut slowest, mut asked) = (Duration::ZERO, 0);
            while !done.load(SeqCst) {
                let start = Instant::now();
                ask();
                slowest = slowest.max(start.elapsed());
                asked += 1;
            }
            (slowest, asked)
        });
        for _ in 0..3 {
            ask();
        }
        let before = process::resident_bytes(node.pid());
        let mut clients = Vec::new();
        let mut most = 0;
        block_on(async {
            for count in 0..number {
                let mut client = slow_client(node.ingress()).await;
                send(&mut client, &kind.sends);
                clients.push(client);
                if count % 100 == 0 {
                    most = most.max(process::resident_bytes(node.pid()));
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            most = most.max(process::resident_bytes(node.pid()));
            thread::sleep(Duration::from_millis(20));
        }
        let active = node.metrics().sum("faas_instances_active", &[("app", "bad")]);
        let closed = node.metrics().sum("faas_connections_rejected_total", &[]);
        done.store(true, SeqCst);
        let (slowest, asked) = others.join().expect("the others are served");
        let each = most.saturating_sub(before + KEPT) / number as u64;
        faas_tests::figure(&format!(
            "{number} × {}: {:.1} KiB each; {active} calls, {closed} closed early; {asked} others, the \
             slowest in {slowest:?}",
            kind.name,
            each as f64 / 1024.0,
        ));
        assert!(asked > 0 && slowest < PATIENCE);
        // What is fixed weighs more where there are fewer.
        if !kind.unbounded {
            assert!(each <= full(2, 1) as u64 * MOST, "{}: {each} bytes for each", kind.name);
        }
        clients
    })
}

fn each_on_a_node_of_its_own(kinds: Vec<Kind>) {
    for kind in kinds {
        let node = node("");
        let clients = crowd(&node, &kind, || {
            assert_eq!(node.get("/good/").expect(200).text().trim(), "good");
        });
        drop(clients);
        node.idle();
    }
}

/// A head of nearly the size that there may be, without its end.
fn large_head() -> Vec<u8> {
    let mut head = format!("GET /nobody/{} HTTP/1.1\r\nhost: a\r\n", "y".repeat(16_000));
    for number in 0..9 {
        head += &format!("x-{number}: {}\r\n", "x".repeat(7000));
    }
    head.into_bytes()
}

fn large_block() -> Vec<u8> {
    let long = "x".repeat(7000);
    let mut fields = Vec::new();
    for _ in 0..8 {
        fields.push(("x", long.as_str()));
    }
    asks("GET", &format!("/nobody/{}", "y".repeat(16_000)), &fields)
}

#[test]
fn http1_clients_that_do_not_go_on() {
    let small = "GET /nobody/ HTTP/1.1\r\nhost: a\r\n";
    each_on_a_node_of_its_own(vec![
        Kind::new("silent", ""),
        Kind::new("half a head", small),
        Kind::new("half a large head", large_head()),
        Kind::new("idle", format!("{small}\r\n")),
        Kind::new("idle after a large head", [large_head(), b"\r\n".to_vec()].concat()),
        Kind::new("answers that are not read", format!("{small}\r\n").repeat(1000)),
    ]);
}

/// A program whose whole answer is there at once: 300 KiB, and the program is gone.
fn large_answer() -> Vec<u8> {
    assemble(&format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write"
            (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 8)
          (data (i32.const 0) "\10\00\00\00" "\1c\00\00\00" "\00\10\00\00" "\00\78\00\00")
          (data (i32.const 16) "Content-Type: text/plain\0d\0a\0d\0a")
          (func (export "_start")
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32000)))
            {}))"#,
        "(drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 32000)))"
            .repeat(10)
    ))
}

#[test]
fn large_answers_that_are_not_read() {
    let small = "GET /bad/ HTTP/1.1\r\nhost: a\r\n\r\n";
    let no_window = [
        hello(&[(4, 0)]),
        (0..4).flat_map(|number| get(2 * number + 1, "/bad/")).collect::<Vec<u8>>(),
    ]
    .concat();
    for (name, sends) in [("HTTP/1.1", small.into()), ("HTTP/2", no_window)] {
        let node = node("");
        node.deploy("bad", &large_answer());
        assert_eq!(node.get("/bad/").expect(200).body.len(), 10 * 0x7800);
        // Four calls at once for each are not all over when the next client comes.
        let kind = Kind { name, sends, unbounded: name == "HTTP/2" };
        drop(crowd(&node, &kind, || {
            node.get("/good/").expect(200);
        }));
        node.idle();
    }
}

#[test]
fn http2_clients_that_do_not_go_on() {
    let many = |block: &[u8]| -> Vec<u8> {
        (0..128).flat_map(|number| headers(2 * number + 1, flag::END_STREAM, block)).collect()
    };
    let small = asks("GET", "/nobody/", &[]);
    // `age`, without a value: the field that counts least among those that take one byte.
    let mut static_fields = asks("GET", "/nobody/", &[]);
    static_fields.extend([0x95; 3000]);
    // Without an index: each with a name of its own, of three bytes, and no value.
    let mut short_names = asks("GET", "/nobody/", &[]);
    for name in (b'a'..=b'z').flat_map(|first| (b'a'..=b'z').map(move |second| [first, second])) {
        for digit in b'0'..=b'3' {
            short_names.extend([0, 3, name[0], name[1], digit, 0]);
        }
    }
    each_on_a_node_of_its_own(vec![
        Kind::new("HTTP/2 preface", hello(&[])),
        Kind::new("HTTP/2 idle", [hello(&[]), get(1, "/nobody/")].concat()),
        Kind::new(
            "HTTP/2 header block that is open",
            [hello(&[]), frame(kind::HEADERS, 1, 1, &large_block()[..frames::MAX_FRAME])].concat(),
        ),
        Kind::new(
            "HTTP/2 header block of many fields that is open",
            [hello(&[]), frame(kind::HEADERS, 1, 1, &static_fields)].concat(),
        ),
        Kind::new(
            "HTTP/2 header block of many names that is open",
            [hello(&[]), frame(kind::HEADERS, 1, 1, &short_names)].concat(),
        ),
        Kind::new("HTTP/2 without a window", [hello(&[(4, 0)]), many(&small)].concat()),
        Kind::new("HTTP/2 with a window of 1", [hello(&[(4, 1)]), many(&small)].concat()),
        Kind::new("HTTP/2 with large heads", [hello(&[(4, 0)]), many(&large_block())].concat()),
        Kind::new("HTTP/2 that never reads", [hello(&[]), many(&small)].concat()),
    ]);
}

#[test]
fn half_a_handshake() {
    // The head of a record of 16 KiB with a message of 60 KiB, and a part of that.
    let mut hello = b"\x16\x03\x01\x40\x00\x01\x00\xea\x60\x03\x03".to_vec();
    hello.resize(12_000, 7);
    let node = node("[ingress.tls]\ncert = \"FOLDER/cert.pem\"\nkey = \"FOLDER/key.pem\"\n");
    for kind in [Kind::new("silent before TLS", ""), Kind::new("half a handshake", hello)] {
        drop(crowd(&node, &kind, || {
            // Without TLS it is told so, which takes the same way.
            node.get("/good/").expect(400);
        }));
    }
}

/// Bodies that dribble hold a call each: as many as the pool has, which is another's business. Others
/// of other apps are served while there are fewer.
#[test]
fn bodies_that_dribble() {
    let node = node("");
    let wasm = faas_tests::artifacts::Guest::Http02.wasm();
    node.deploy("bad", &wasm);
    let sends = "POST /bad/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx";
    let kind = Kind { unbounded: true, ..Kind::new("a body that dribbles", sends) };
    drop(crowd(&node, &kind, || {
        node.get("/good/").expect(200);
    }));
    node.idle();
}

/// A client at another address of this machine.
fn from(address: [u8; 4], node: &Node) -> std::io::Result<TcpStream> {
    let stream = block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::from(address), 0).into())?;
        socket.connect(node.ingress()).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn asks_for_good(stream: TcpStream, node: &Node) -> std::io::Result<u16> {
    let mut connection = Connection::of(stream);
    connection.write(&Request::get("/good/").to_bytes(node.ingress()))?;
    connection.read_answer(false).map(|answer| answer.status)
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let node = Node::with(
        "[ingress]\nmax_connections_per_address = 5\ntrusted_proxies = [\"127.0.0.3/32\"]\n",
    );
    node.deploy("good", &says("good"));
    let eve = [127, 0, 0, 2];
    let mut crowd: Vec<TcpStream> = (0..5).map(|_| from(eve, &node).unwrap()).collect();
    let open = || node.metrics().sum("faas_connections_open", &[]);
    eventually("they are in", PATIENCE, || (open() == 5.0).then_some(()));
    for _ in 0..3 {
        // It may be reset before or after it knows that it is connected.
        let refused = from(eve, &node).and_then(|mut stream| {
            stream.write_all(&Request::get("/good/").to_bytes(node.ingress()))?;
            stream.read(&mut [0; 1])
        });
        assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    }
    let rejected = node.metrics().sum("faas_connections_rejected_total", &[("reason", "address")]);
    assert_eq!(rejected, 3.0);
    let told = node.log().matches("max_connections_per_address").count();
    assert_eq!(told, 1, "{}", node.log());
    for address in [[127, 0, 0, 4], [127, 0, 0, 1]] {
        assert_eq!(asks_for_good(from(address, &node).unwrap(), &node).unwrap(), 200);
    }
    let proxied: Vec<TcpStream> = (0..20).map(|_| from([127, 0, 0, 3], &node).unwrap()).collect();
    for stream in proxied {
        assert_eq!(asks_for_good(stream, &node).unwrap(), 200);
    }
    crowd.pop();
    eventually("there is a place again", PATIENCE, || {
        let mut stream = from(eve, &node).ok()?;
        stream.write_all(&Request::get("/good/").to_bytes(node.ingress())).ok()?;
        stream.read(&mut [0; 1]).ok().filter(|length| *length == 1)
    });
}

/// Halves of heads on every place there is, and new ones as soon as one is free.
#[test]
fn a_crowd_that_comes_again_and_again_keeps_nobody_out() {
    const PLACES: usize = 64;
    let node = Node::with(&format!("[ingress]\nmax_connections = {PLACES}\n"));
    node.deploy("good", &says("good"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let renews = |_| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let Ok(stream) = TcpStream::connect(node.ingress()) else { continue };
                    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                    let mut connection = Connection::of(stream);
                    let _ = connection.write(b"GET /good/ HTTP/1.1\r\nhost: a\r\n");
                    let _ = connection.is_closed();
                }
            })
        };
        let crowd: Vec<_> = (0..PLACES + 20).map(renews).collect();
        let open = || node.metrics().sum("faas_connections_open", &[]);
        eventually("they have every place", PATIENCE, || (open() >= PLACES as f64).then_some(()));
        for _ in 0..5 {
            let asked = Instant::now();
            let stream = from([127, 0, 0, 2], &node).unwrap();
            assert_eq!(asks_for_good(stream, &node).unwrap(), 200);
            assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
        }
        done.store(true, SeqCst);
        assert_eq!(crowd.len(), PLACES + 20);
    });
    let room = node.metrics().sum("faas_connections_rejected_total", &[("reason", "room")]);
    assert!(room > 0.0);
}

/// Those who read slowly and hold much are closed first when there is too much; whoever is idle with
/// a small load stays.
#[test]
fn those_who_hold_most_are_closed_first() {
    let node = Node::with("[ingress]\nconnection_memory_bytes = 1048576\n");
    node.deploy("good", &says("good"));
    let mut idle = Connection::open(node.ingress());
    idle.ask(&Request::get("/good/")).expect(200);
    let crowd: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut client = block_on(slow_client(node.ingress()));
            send(&mut client, &large_head());
            client
        })
        .collect();
    let closed = || node.metrics().sum("faas_connections_rejected_total", &[("reason", "memory")]);
    eventually("some are closed", PATIENCE, || (closed() >= 20.0).then_some(()));
    idle.ask(&Request::get("/good/")).expect(200);
    assert!(node.log().contains("connection_memory_bytes"), "{}", node.log());
    drop(crowd);
}
