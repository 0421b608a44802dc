//! Answers that are much of one thing: header fields, pieces of one byte, trailers. What is too much
//! is refused, the rest goes through, and neither costs the node what stays.
//!
//! With `FAAS_TEST_FULL=1` there are a million pieces.

use faas_api::ErrorCode;
use faas_tests::{Connection, Node, Request, artifacts::Guest, figure, full, process};
use std::{thread, time::Instant};

const CONFIG: &str = "[ingress]\naccess_log = \"off\"\n[engine]\nquarantine_after = 0\n\
                      [limits]\ncpu_ms = 600000\nfirst_byte_ms = 600000\nwall_ms = 600000\n";
/// What a call may make the node hold beside the instance's own memory, in bytes.
const MOST: u64 = 128 << 20;

fn all_serve(node: &Node) {
    node.idle();
    for guest in Guest::ALL {
        assert_eq!(node.get(&format!("/{}/count", guest.app())).expect(200).text(), "1\n");
    }
}

#[test]
fn a_hundred_thousand_header_fields() {
    let node = Node::with_guests(CONFIG);
    process::reset_peak(node.pid());
    let before = process::resident_bytes(node.pid());
    for _ in 0..full(3, 100) {
        for (guest, path, codes) in [
            (Guest::Http02, "attack?what=head-some", &[ErrorCode::BadResponse][..]),
            (
                Guest::Http02,
                "attack?what=head-many",
                &[ErrorCode::BadResponse, ErrorCode::GuestTrap],
            ),
            (Guest::Http03, "attack?what=head-some", &[ErrorCode::BadResponse]),
            (
                Guest::Http03,
                "attack?what=head-many",
                &[ErrorCode::BadResponse, ErrorCode::GuestTrap],
            ),
            (Guest::Cgi01, "hoard?what=fields", &[ErrorCode::BadResponse]),
            (Guest::Cgi02, "hoard?what=fields", &[ErrorCode::BadResponse]),
            (Guest::Cgi01, "bad?what=endless", &[ErrorCode::BadResponse]),
            (Guest::Cgi02, "bad?what=endless", &[ErrorCode::BadResponse]),
        ] {
            let mut connection = Connection::open(node.ingress());
            let answer = connection.ask(&Request::get(&format!("/{}/{path}", guest.app())));
            let code = answer.header("x-faas-error").map(str::to_owned);
            let expected = codes.iter().any(|expected| code.as_deref() == Some(expected.as_str()));
            assert!(expected, "{guest:?} {path}: {answer:?}");
            // The connection goes on.
            connection.ask(&Request::get(&format!("/{}/count", guest.app()))).expect(200);
        }
    }
    all_serve(&node);
    let grown = process::peak_bytes(node.pid()).saturating_sub(before);
    figure(&format!("heads: {} MiB at most", grown >> 20));
    assert!(grown < MOST, "{} MiB", grown >> 20);
}

#[test]
fn a_million_pieces_of_one_byte() {
    let pieces = full(20_000, 1_000_000);
    let node = Node::with_guests(CONFIG);
    all_serve(&node);
    process::reset_peak(node.pid());
    let before = process::resident_bytes(node.pid());
    thread::scope(|scope| {
        for guest in Guest::ALL {
            let node = &node;
            scope.spawn(move || {
                let since = Instant::now();
                let mut connection = Connection::open(node.ingress());
                let target = format!("/{}/slow?pieces={pieces}&bytes=1&ms=0", guest.app());
                connection.start(&Request::get(&target));
                connection.read_head(false).unwrap().expect(200);
                let mut received = 0_usize;
                let mut piece = vec![0; 64 << 10];
                loop {
                    let length = connection.read_body(&mut piece).unwrap();
                    // The alphabet, again and again.
                    for (index, byte) in piece[..length].iter().enumerate() {
                        assert_eq!(usize::from(byte - b'a'), (received + index) % 26, "{guest:?}");
                    }
                    received += length;
                    if length == 0 {
                        break;
                    }
                }
                assert_eq!(received, pieces, "{guest:?}");
                figure(&format!("{guest:?}: {pieces} pieces in {:?}", since.elapsed()));
            });
        }
    });
    let grown = process::peak_bytes(node.pid()).saturating_sub(before);
    figure(&format!("pieces: {} MiB at most", grown >> 20));
    assert!(grown < MOST, "{} MiB", grown >> 20);
    all_serve(&node);
}

#[test]
fn a_mebibyte_of_trailers() {
    let node = Node::with_guests(CONFIG);
    process::reset_peak(node.pid());
    let before = process::resident_bytes(node.pid());
    for guest in [Guest::Http02, Guest::Http03] {
        for _ in 0..full(5, 200) {
            let mut connection = Connection::open(node.ingress());
            let target = format!("/{}/attack?what=trailers-much", guest.app());
            connection.start(&Request::get(&target).header("te", "trailers"));
            // It fails before its head is sent, or breaks off, or what there may be is sent.
            if let Ok(answer) = connection.read_answer(false) {
                if answer.status == 200 {
                    let length: usize = answer.trailers.iter().map(|(_, value)| value.len()).sum();
                    assert!(length <= 64 << 10, "{guest:?}: {length}");
                } else {
                    answer.failure(ErrorCode::GuestTrap);
                }
            }
        }
        all_serve(&node);
    }
    let grown = process::peak_bytes(node.pid()).saturating_sub(before);
    figure(&format!("trailers: {} MiB at most", grown >> 20));
    assert!(grown < MOST, "{} MiB", grown >> 20);
}
