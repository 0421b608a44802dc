//! Bodies larger than the server's memory may grow: both ways at once, and with back-pressure.

use bytes::Bytes;
use faas_tests::{
    Connection, Node, Request,
    artifacts::Guest,
    block_on, holds,
    hyper_client::{Client, Protocol},
    process,
};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::{convert::Infallible, sync::OnceLock, thread, time::Duration};

/// What goes through each kind of function.
const TOTAL: u64 = 1 << 30;
/// How much the server's memory may grow meanwhile.
const GROWTH: u64 = 64 << 20;
const BLOCK: usize = 64 << 10;

fn node() -> Node {
    Node::with_guests(
        "[limits]\nrequest_body_bytes = 2147483648\ncpu_ms = 600000\nwall_ms = 600000\n",
    )
}

/// Noise, numbered: no other block is like it, and no shift of it.
fn block(number: u64) -> Vec<u8> {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    let noise = NOISE.get_or_init(|| {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let words = (0..BLOCK / 8).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.collect()
    });
    let mut block = noise.clone();
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

/// Compares what arrives with what was sent, in pieces of any size.
#[derive(Default)]
struct Arrived {
    bytes: u64,
    expected: Vec<u8>,
}

impl Arrived {
    #[track_caller]
    fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let (number, at) = (self.bytes / BLOCK as u64, self.bytes as usize % BLOCK);
            if at == 0 {
                self.expected = block(number);
            }
            let (now, later) = piece.split_at(piece.len().min(BLOCK - at));
            assert!(now == &self.expected[at..at + now.len()], "other bytes in block {number}");
            self.bytes += now.len() as u64;
            piece = later;
        }
    }
}

/// Sends a body while its echo comes back.
fn echo(node: &Node, target: &str, total: u64, chunked: bool) {
    let mut connection = Connection::open(node.ingress());
    let mut sender = connection.second_handle();
    let (name, value) = match chunked {
        true => ("transfer-encoding", "chunked".to_owned()),
        false => ("content-length", total.to_string()),
    };
    thread::scope(|scope| {
        scope.spawn(move || {
            sender.start(&Request::new("POST", target).header(name, &value));
            for number in 0..total / BLOCK as u64 {
                let mut bytes = block(number);
                if chunked {
                    bytes.splice(0..0, format!("{BLOCK:x}\r\n").into_bytes());
                    bytes.extend(b"\r\n");
                }
                if let Err(error) = sender.write(&bytes) {
                    panic!("block {number} was not taken: {error}");
                }
            }
            if chunked {
                sender.write(b"0\r\n\r\n").unwrap();
            }
        });
        let head = connection.read_head(false).unwrap().expect(200);
        let mut arrived = Arrived::default();
        let mut piece = vec![0; BLOCK];
        loop {
            let read = connection.read_body(&mut piece);
            match read.unwrap_or_else(|error| panic!("after {}: {error}", arrived.bytes)) {
                0 => break,
                length => arrived.take(&piece[..length]),
            }
        }
        assert_eq!(arrived.bytes, total, "{head:?}");
    });
}

/// Runs this, and says by how much the node's memory grew at most.
fn growth(node: &Node, work: impl FnOnce()) -> u64 {
    let before = process::resident_bytes(node.pid());
    process::reset_peak(node.pid());
    work();
    process::peak_bytes(node.pid()).saturating_sub(before)
}

fn a_gibibyte(guest: Guest) {
    let node = node();
    let target = format!("/{}/echo", guest.app());
    echo(&node, &target, 16 << 20, true);
    let grown = growth(&node, || echo(&node, &target, TOTAL, false));
    assert!(grown < GROWTH, "{guest:?}: {} MiB", grown >> 20);
    node.idle();
    let metrics = node.metrics();
    let total = (TOTAL + (16 << 20)) as f64;
    for name in ["faas_request_bytes_total", "faas_response_bytes_total"] {
        assert_eq!(metrics.sum(name, &[]), total, "{name}");
    }
}

#[test]
fn a_gibibyte_through_wasi_03() {
    a_gibibyte(Guest::Http03);
}

#[test]
fn a_gibibyte_through_wasi_02() {
    a_gibibyte(Guest::Http02);
}

#[test]
fn a_gibibyte_through_a_cgi_module() {
    a_gibibyte(Guest::Cgi01);
}

#[test]
fn a_gibibyte_through_a_cgi_component() {
    a_gibibyte(Guest::Cgi02);
}

/// A guest that passes its request's body on and ends has nothing left to run.
#[test]
fn a_body_passed_on_unread() {
    let node = node();
    for guest in Guest::ALL {
        let target = format!("/{}/pass", guest.app());
        for chunked in [true, false] {
            echo(&node, &target, 128 << 10, chunked);
            let grown = growth(&node, || echo(&node, &target, 64 << 20, chunked));
            assert!(grown < GROWTH / 2, "{guest:?}: {} MiB", grown >> 20);
        }
    }
    node.idle();
}

#[test]
fn both_ways_at_once_over_http2() {
    const TOTAL: u64 = 128 << 20;
    let node = node();
    let run = async |guest: Guest, total: u64| {
        let blocks = (0..total / BLOCK as u64).map(|number| {
            let data = Bytes::from(block(number));
            Ok::<_, Infallible>(Frame::data(data))
        });
        let body = StreamBody::new(futures::stream::iter(blocks)).boxed();
        let mut client = Client::open(node.ingress(), Protocol::Http2).await.unwrap();
        let target = format!("/{}/echo", guest.app());
        let request = client.request("POST", &node.ingress().to_string(), &target, body);
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut arrived = Arrived::default();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.unwrap().data_ref() {
                arrived.take(data);
            }
        }
        assert_eq!(arrived.bytes, total, "{guest:?}");
    };
    for guest in Guest::ALL {
        block_on(run(guest, 4 << 20));
        let grown = growth(&node, || block_on(run(guest, TOTAL)));
        assert!(grown < GROWTH, "{guest:?}: {} MiB", grown >> 20);
    }
    node.idle();
}

/// Whoever does not read stops the guest, not the server's memory; then all of it comes.
#[test]
fn a_client_that_reads_late() {
    const KIB: u64 = 256 << 10;
    let node = node();
    for guest in Guest::ALL {
        node.get(&format!("/{}/stream?kib=1024", guest.app())).expect(200);
        let before = process::resident_bytes(node.pid());
        let mut connection = Connection::open(node.ingress());
        connection.start(&Request::get(&format!("/{}/stream?kib={KIB}", guest.app())));
        connection.read_head(false).unwrap().expect(200);
        holds("a client that does not read costs little", Duration::from_secs(1), || {
            process::resident_bytes(node.pid()) < before + GROWTH / 2
        });
        let mut piece = vec![0; BLOCK];
        let (mut bytes, mut last) = (0, 0);
        loop {
            match connection.read_body(&mut piece).unwrap() {
                0 => break,
                length => {
                    bytes += length as u64;
                    last = piece[length - 1];
                }
            }
        }
        assert_eq!(bytes, KIB << 10, "{guest:?}");
        assert_eq!(last, b'a' + ((bytes - 1) % 26) as u8, "{guest:?}");
    }
    node.idle();
}

/// A guest that does not read its request's body stops the client, not the server's memory.
#[test]
fn a_guest_that_does_not_read() {
    let node = node();
    for guest in Guest::ALL {
        node.get(&format!("/{}/sleep?ms=1", guest.app())).expect(200);
        let mut connection = Connection::open(node.ingress());
        let mut sender = connection.second_handle();
        let grown = growth(&node, || {
            thread::scope(|scope| {
                scope.spawn(move || {
                    let request = Request::new("POST", &format!("/{}/sleep?ms=1000", guest.app()))
                        .header("content-length", &TOTAL.to_string());
                    sender.start(&request);
                    // Until the connection is closed: nobody wants the rest.
                    let taken = (0..).take_while(|n| sender.write(&block(*n)).is_ok()).count();
                    assert!(taken < 1024, "{guest:?} took {taken} blocks of {BLOCK}");
                });
                let answer = connection.read_answer(false).unwrap().expect(200);
                assert_eq!(answer.text(), "slept\n");
                drop(connection);
            });
        });
        assert!(grown < GROWTH / 4, "{guest:?}: {} MiB", grown >> 20);
    }
    node.idle();
}
