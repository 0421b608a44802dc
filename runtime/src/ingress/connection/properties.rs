//! What must hold of a connection's bytes, whatever they are; see `ingress::properties`.

use super::{
    pulse::Framing,
    wire::{HeadLimits, Wire},
};
use faas_api::ErrorCode;

const LIMITS: HeadLimits = HeadLimits { uri: 200, headers: 400 };

/// What came of a connection's bytes: the messages that were handed over, and the refusal.
type Seen = (Vec<Vec<u8>>, Option<ErrorCode>);

/// The first byte is the size of the pieces, the next four how the bodies are framed.
pub(in crate::ingress) fn pieces(data: &[u8]) {
    let Some((&[step, framings @ ..], bytes)) = data.split_first_chunk::<5>() else { return };
    let whole = seen(bytes, bytes.len(), &framings);
    let in_pieces = seen(bytes, usize::from(step % 32) + 1, &framings);
    // A head with two faults is refused for the one that is seen first.
    let refused = (whole.1.is_some(), in_pieces.1.is_some());
    assert_eq!(refused.0, refused.1, "{:?}", String::from_utf8_lossy(bytes));
    assert_eq!(whole.0, in_pieces.0, "{:?}", String::from_utf8_lossy(bytes));
    let handed: usize = whole.0.iter().map(Vec::len).sum();
    assert!(handed <= bytes.len());
    assert_eq!(whole.0.concat(), bytes.get(..handed).unwrap_or_default(), "in their order");
    for head in whole.0.iter().filter_map(|message| head_of(message)) {
        let lines = head.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut lengths = 0;
        for (index, line) in lines.enumerate() {
            assert!(line.ends_with(b"\r"), "a line that two parsers end at different places");
            // The first is the request line, whatever it looks like.
            if index == 0 {
                continue;
            }
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            let framing = [&b"content-length"[..], b"transfer-encoding"];
            lengths += usize::from(framing.iter().any(|word| name.eq_ignore_ascii_case(word)));
        }
        assert!(lengths <= 1, "{:?}", String::from_utf8_lossy(head));
    }
}

/// A message's head with its empty line, without those before it.
fn head_of(message: &[u8]) -> Option<&[u8]> {
    let mut head = message;
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    let end = head.windows(4).position(|at| at == b"\r\n\r\n")?;
    head.get(..end + 4)
}

fn seen(bytes: &[u8], step: usize, framings: &[u8]) -> Seen {
    let mut wire = Wire::new(LIMITS);
    let (mut held, mut messages) = (Vec::new(), Vec::<Vec<u8>>::new());
    let mut framings = framings.iter();
    let mut pieces = bytes.chunks(step.max(1));
    loop {
        if wire.is_asked() {
            let Some(framing) = framings.next() else { break };
            wire.called(match framing % 3 {
                0 => Framing::Length(0),
                1 => Framing::Length(u64::from(framing / 3)),
                _ => Framing::Chunked,
            });
        }
        let starts = wire.wants_head();
        let ready = wire.ready(&held).min(held.len());
        if ready == 0 {
            let Some(piece) = pieces.next() else { break };
            held.extend_from_slice(piece);
            continue;
        }
        let gone: Vec<u8> = held.drain(..ready).collect();
        wire.gave(&gone);
        match messages.last_mut() {
            Some(last) if !starts => last.extend(gone),
            _ => messages.push(gone),
        }
    }
    (messages, wire.refused())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const PIECES: [&str; 22] = [
        "GET / HTTP/1.1\r\n",
        "P /#x HTTP/1.1\r\n",
        "host: a\r\n",
        "content-length: 5\r\n",
        "Content-Length:5\r\n",
        "transfer-encoding: chunked\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "hello",
        "5\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "5;x\r\nhello\r\n",
        "x: y\r\n",
        "x: y\n",
        " z\r\n",
        "\0",
        "ffffffffffffffff\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "P /b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    ];

    /// It is a request line, for hyper to refuse, and no empty line.
    #[test]
    fn a_first_line_of_a_carriage_return() {
        super::pieces(b"5;x=y\r\r\n\r\nlo\r\n\0\n0\r\n\r\n~");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            head in any::<[u8; 5]>(),
            pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..16),
        ) {
            super::pieces(&[head.as_slice(), pieces.concat().as_bytes()].concat());
        }
    }
}
