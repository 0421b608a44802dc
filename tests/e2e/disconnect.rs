//! Clients that go away at any moment: no panic, and no instance goes on for nobody.

use faas_tests::{
    Connection, Node, Request,
    artifacts::Guest,
    block_on, eventually,
    hyper_client::{Client, Protocol, empty},
    process,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const CLIENTS: u64 = 10_000;
const AT_ONCE: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(20);

/// The same numbers at every run.
struct Random(u64);

impl Random {
    /// Another sequence for every seed.
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What a client would send, and when it gives up.
#[derive(Debug)]
struct Visit {
    bytes: Vec<u8>,
    /// It sends so many of them.
    sent: usize,
    /// Having sent all, it reads this much.
    read: usize,
    /// It gives up after this time anyway.
    stays: Duration,
    /// It ends with a reset, or with a FIN that a reset follows if there is more to read.
    reset: bool,
}

impl Visit {
    fn new(seed: u64, host: SocketAddr) -> Self {
        let mut random = Random::new(seed);
        let bytes = match random.below(10) {
            0..7 => http1(&mut random, host),
            _ => http2(&mut random, host),
        };
        let whole = random.below(2) == 0;
        let sent = if whole { bytes.len() as u64 } else { random.below(bytes.len() as u64 + 1) };
        Self {
            sent: sent as usize,
            bytes,
            read: random.of(&[0, 1, 20, 300, 100_000, 10_000_000]),
            stays: Duration::from_millis(random.of(&[2, 20, 200])),
            reset: random.below(2) == 0,
        }
    }

    async fn pay(&self, host: SocketAddr) {
        let mut stream = TcpStream::connect(host).await.expect("somebody should listen");
        // Whatever happens here: this client does not care.
        let _ = timeout(self.stays, self.talk(&mut stream)).await;
        if self.reset {
            stream.set_zero_linger().unwrap();
        } else {
            let _ = stream.shutdown().await;
        }
    }

    async fn talk(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(&self.bytes[..self.sent]).await?;
        let mut piece = vec![0; 16 << 10];
        let mut read = 0;
        while read < self.read {
            match stream.read(&mut piece).await? {
                0 => break,
                length => read += length,
            }
        }
        Ok(())
    }
}

/// A target, and whether it takes a body.
fn target(random: &mut Random) -> (String, bool) {
    let guest = random.of(&Guest::ALL);
    let (path, body) = random.of(&[
        ("hello", false),
        ("sleep?ms=30", false),
        ("slow?pieces=5&ms=5", false),
        ("stream?kib=512", false),
        ("half?ms=5", false),
        ("trap", false),
        ("log?lines=20", true),
        ("echo", true),
        ("pass", true),
        ("length", true),
        ("ignore", true),
    ]);
    (format!("/{}/{path}", guest.app()), body)
}

/// Some requests, one after the other.
fn http1(random: &mut Random, host: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(2) {
        let (target, body) = target(random);
        let length = if body { random.of(&[1, 1000, 70_000, 400_000]) } else { 0 };
        let request = match (body, random.below(2)) {
            (false, _) => Request::get(&target).to_bytes(host),
            (true, 0) => Request::post(&target, vec![b'x'; length]).to_bytes(host),
            (true, _) => {
                let request = Request::new("POST", &target).header("transfer-encoding", "chunked");
                let mut bytes = request.to_bytes(host);
                bytes.extend(format!("{length:x}\r\n").bytes());
                bytes.resize(bytes.len() + length, b'x');
                bytes.extend(b"\r\n0\r\n\r\n");
                bytes
            }
        };
        bytes.extend(request);
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Some streams of one connection; some are reset in the middle.
fn http2(random: &mut Random, host: SocketAddr) -> Vec<u8> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for number in 0..1 + random.below(4) as u32 {
        let (target, body) = target(random);
        let method = if body { "POST" } else { "GET" };
        let host = host.to_string();
        let fields =
            [(":method", method), (":scheme", "http"), (":path", &target), (":authority", &host)];
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal field that is not put into the table.
            block.extend([0, name.len() as u8]);
            block.extend(name.bytes());
            block.push(value.len() as u8);
            block.extend(value.bytes());
        }
        let stream = 2 * number + 1;
        bytes.extend(frame(HEADERS, if body { 4 } else { 5 }, stream, &block));
        if body {
            let pieces = 1 + random.below(3);
            for piece in 1..=pieces {
                // All of it together is within the window that a connection begins with.
                let data = vec![b'x'; random.below(5000) as usize];
                bytes.extend(frame(DATA, u8::from(piece == pieces), stream, &data));
            }
        }
        if random.below(4) == 0 {
            bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
    }
    bytes
}

#[test]
fn ten_thousand_clients_that_leave_at_random_points() {
    let node = Node::with_guests("[ingress]\naccess_log = \"off\"\n");
    let host = node.ingress();
    let answers = |app: &str| node.get(&format!("/{app}/hello")).expect(200).text() == "hello\n";
    assert!(Guest::ALL.iter().all(|guest| answers(guest.app())));
    let files = process::open_files(node.pid());
    block_on(async {
        let clients = (0..AT_ONCE).map(|client| {
            tokio::spawn(async move {
                for seed in (client..CLIENTS).step_by(AT_ONCE as usize) {
                    Visit::new(seed, host).pay(host).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    });
    node.idle();
    for guest in Guest::ALL {
        let active = node.metrics().sum("faas_instances_active", &[("app", guest.app())]);
        assert_eq!(active, 0.0, "{guest:?}");
        assert!(answers(guest.app()), "{guest:?}");
    }
    eventually("the connections are gone", PATIENCE, || {
        (process::open_files(node.pid()) <= files + 8).then_some(())
    });
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// How a client can go away.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It closes, having read everything so far: the next write to it is answered by a reset.
    Close,
    Reset,
}

/// Sends a request, waits for the head of the answer if there is to be one, and leaves.
fn leave(node: &Node, target: &str, (head, end): (bool, End)) {
    let host = node.ingress();
    let active = || node.metrics().sum("faas_instances_active", &[]);
    block_on(async {
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(&Request::get(target).to_bytes(host)).await.unwrap();
        if head {
            let read = stream.read(&mut [0; 4096]).await.unwrap();
            assert!(read > 0, "{target}");
        }
        eventually("the guest runs", PATIENCE, || (active() == 1.0).then_some(()));
        if matches!(end, End::Reset) {
            stream.set_zero_linger().unwrap();
        }
    });
}

#[test]
fn the_guest_of_a_client_that_left_is_stopped() {
    let node = Node::with_guests("[limits]\ncpu_ms = 120000\nfirst_byte_ms = 120000\n");
    for guest in Guest::ALL {
        for (path, head, end) in [
            ("slow?pieces=100000&ms=20", true, End::Close),
            ("slow?pieces=100000&ms=20", true, End::Reset),
            ("sleep?ms=100000", false, End::Reset),
            ("spin", false, End::Reset),
            ("stream?kib=100000000", true, End::Close),
            ("stream?kib=100000000", true, End::Reset),
        ] {
            let started = Instant::now();
            leave(&node, &format!("/{}/{path}", guest.app()), (head, end));
            // It would go on for minutes.
            node.idle();
            assert!(started.elapsed() < PATIENCE, "{guest:?} {path} {end:?}");
        }
    }
}

/// Of many streams of one connection one is given up: its guest stops, the others do not.
#[test]
fn a_stream_that_is_given_up() {
    let node = Node::with_guests("[limits]\ncpu_ms = 120000\nfirst_byte_ms = 120000\n");
    let host = node.ingress().to_string();
    let of = |guest: Guest| {
        let labels = [("app", guest.app())];
        node.metrics().sum("faas_instances_active", &labels)
    };
    for guest in Guest::ALL {
        block_on(async {
            let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
            let slow = format!("/{}/slow?pieces=100000&ms=20", guest.app());
            let kept = client.request("GET", &host, "/http02/slow?pieces=10&ms=100", empty());
            let given_up = client.request("GET", &host, &slow, empty());
            let kept = client.send(kept).await.unwrap();
            let given_up = client.send(given_up).await.unwrap();
            assert_eq!(given_up.status(), 200);
            drop(given_up);
            let kept = faas_tests::hyper_client::collect(kept).await.unwrap();
            assert_eq!(kept.body().len(), 100, "{guest:?}");
            eventually("its guest is gone", PATIENCE, || (of(guest) == 0.0).then_some(()));
            let path = format!("/{}/hello", guest.app());
            assert_eq!(client.get(&host, &path).await.unwrap().body(), "hello\n");
        });
    }
    node.idle();
}

/// Whoever only says that no more requests will come still wants the answer.
#[test]
fn a_half_closed_connection_gets_its_answer() {
    let node = Node::with_guests("");
    let half_closed = |request: &Request| {
        let mut connection = Connection::open(node.ingress());
        connection.start(request);
        connection.finish_sending();
        let answer = connection.read_answer(false);
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {request:?}")).expect(200);
        assert!(connection.is_closed(), "nothing more can come: {request:?}");
        answer.text()
    };
    for guest in Guest::ALL {
        let app = guest.app();
        assert_eq!(half_closed(&Request::get(&format!("/{app}/hello"))), "hello\n");
        assert_eq!(half_closed(&Request::get(&format!("/{app}/sleep?ms=300"))), "slept\n");
        let slow = half_closed(&Request::get(&format!("/{app}/slow?pieces=5&ms=50&bytes=4")));
        assert_eq!(slow, "abcdefghijklmnopqrst", "{guest:?}");
        let body = "y".repeat(300_000);
        let echo = half_closed(&Request::post(&format!("/{app}/echo"), body.clone()));
        assert!(echo == body, "{guest:?}: {} bytes", echo.len());
    }
    node.idle();
}

/// Two ways to begin a body and not to end it.
const BROKEN: [&str; 2] =
    ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n9\r\nhalf"];

fn begin(node: &Node, target: &str, rest: &str) -> Connection {
    let mut connection = Connection::open(node.ingress());
    let text = format!("POST {target} HTTP/1.1\r\nhost: x\r\n{rest}");
    connection.write(text.as_bytes()).unwrap();
    connection
}

/// A body that ends too early is no body, and its sender is told so.
#[test]
fn a_body_that_breaks_off_is_not_taken_for_whole() {
    let node = Node::with_guests("");
    for guest in Guest::ALL {
        for broken in BROKEN {
            let mut connection = begin(&node, &format!("/{}/length", guest.app()), broken);
            connection.finish_sending();
            if let Ok(answer) = connection.read_answer(false) {
                assert_eq!(answer.status, 400, "{guest:?} {broken:?}: {answer:?}");
            }
        }
    }
    node.idle();
}

/// A guest whose answer has begun learns it, too: what it makes of half a body is not whole.
#[test]
fn an_answer_made_of_half_a_body_is_not_whole() {
    let node = Node::with_guests("");
    let whole: Vec<_> = Guest::ALL
        .into_iter()
        .flat_map(|guest| BROKEN.map(|broken| (guest, broken)))
        .filter(|(guest, broken)| {
            let mut connection = begin(&node, &format!("/{}/echo", guest.app()), broken);
            let head = connection.read_head(false).unwrap().expect(200);
            // Not all of it: after its last byte the next chunk would be waited for.
            assert_eq!(connection.read_body(&mut [0; 3]).unwrap(), 3, "{head:?}");
            connection.finish_sending();
            matches!(connection.read_body(&mut [0; 9]), Ok(1))
                && matches!(connection.read_body(&mut [0; 9]), Ok(0))
        })
        .collect();
    assert!(whole.is_empty(), "a whole answer to half a body: {whole:?}");
    node.idle();
    // What the guest made of it is not the guest's fault.
    let asked = (Guest::ALL.len() * BROKEN.len()) as f64;
    let told = || (node.metrics().sum("faas_requests_total", &[]) >= asked).then_some(());
    eventually("every request is in the books", PATIENCE, told);
    assert_eq!(node.metrics().sum("faas_guest_failures_total", &[]), 0.0);
}
