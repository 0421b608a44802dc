//! Where the messages of an HTTP/1 connection begin and end, byte by byte.
//!
//! hyper is given a head only when it is complete, and nothing behind a message before it asks
//! for the next one. So every head is seen whole before hyper parses it, the pipelined ones too,
//! and what hyper would let through or answer in its own words is found here:
//!
//! - a line that ends in LF without CR (RFC 9112 §2.2 permits it, two parsers in a row need not
//!   agree on it);
//! - more than one framing field: `content-length` twice or beside `transfer-encoding`
//!   (RFC 9112 §6.3). hyper drops the surplus ones before anybody can look at them;
//! - a fragment in the target, which `http::Uri` cuts off (RFC 9112 §3.2 has no place for one);
//! - a request line or a header section over its limit.
//!
//! How a body is framed is hyper's decision; it is only followed here.

use super::pulse::Framing;
use faas_api::ErrorCode;
use std::io::BufRead;

/// The largest head that is handed to hyper.
#[derive(Debug, Clone, Copy)]
pub(in crate::ingress) struct HeadLimits {
    /// Bytes of a request's target.
    pub(in crate::ingress) uri: usize,
    /// Bytes of a header section.
    pub(in crate::ingress) headers: usize,
}

/// What a request line has besides its target: a method, two spaces, a version, CR LF.
const REQUEST_LINE_FRAME: usize = super::super::check::MAX_METHOD_BYTES + 12;

/// Empty lines that may stand before a request line (RFC 9112 §2.2).
const MAX_LEADING_LINES: usize = 4;

/// Follows the messages of one connection.
#[derive(Debug)]
pub(super) struct Wire {
    limits: HeadLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A head is looked at; hyper has nothing of it.
    Head(Scan),
    /// The head is complete and so many bytes of it still have to be handed over.
    Handing(usize),
    /// hyper has the head and will call the service, or refuse it.
    Asked,
    /// So many bytes of a body are to come.
    Length(u64),
    /// A chunked body is to come.
    Chunked(Chunks),
    /// The body is broken, which hyper will notice too; it reads no further head.
    Broken,
    /// The head is refused.
    Refused(ErrorCode),
}

impl Wire {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head(Scan::default()) }
    }

    /// How many of `bytes`, which follow what was handed over, may be handed over now.
    pub(super) fn ready(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Head(scan) => match scan.look(bytes, &self.limits) {
                Look::Partial => 0,
                Look::Complete(length) => {
                    self.state = State::Handing(length);
                    length
                }
                Look::Refused(code) => {
                    self.state = State::Refused(code);
                    0
                }
            },
            State::Handing(length) => *length,
            State::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len()),
            State::Chunked(chunks) => chunks.clone().eat(bytes).0,
            State::Broken => bytes.len(),
            State::Asked | State::Refused(_) => 0,
        }
    }

    /// These bytes were handed over; `ready` allowed them.
    pub(super) fn gave(&mut self, bytes: &[u8]) {
        let next = match &mut self.state {
            State::Handing(left) => {
                *left = left.saturating_sub(bytes.len());
                (*left == 0).then_some(State::Asked)
            }
            State::Length(left) => {
                *left = left.saturating_sub(bytes.len() as u64);
                (*left == 0).then(|| State::Head(Scan::default()))
            }
            State::Chunked(chunks) => match chunks.eat(bytes).1 {
                Chunk::More => None,
                Chunk::End => Some(State::Head(Scan::default())),
                Chunk::Broken => Some(State::Broken),
            },
            State::Head(_) | State::Asked | State::Broken | State::Refused(_) => None,
        };
        if let Some(next) = next {
            self.state = next;
        }
    }

    /// hyper called the service for the head it has.
    pub(super) fn called(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::Length(0) => State::Head(Scan::default()),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunks::default()),
        };
    }

    /// Whether hyper has a head and the service was not called for it when this last knew.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked)
    }

    /// Whether a head is to come, or is coming.
    pub(super) fn wants_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether a message is on its way and the rest of it has not come.
    pub(super) fn is_within_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_) | State::Broken)
    }

    /// Why the head is refused.
    pub(super) fn refused(&self) -> Option<ErrorCode> {
        match self.state {
            State::Refused(code) => Some(code),
            _ => None,
        }
    }
}

/// What is known of a head of which not everything has come.
#[derive(Debug, Default)]
struct Scan {
    /// Where the line begins that is not complete.
    at: usize,
    /// Lines seen, from the request line on.
    lines: usize,
    /// Empty lines before the request line.
    leading: usize,
    /// Where the header section begins.
    section: usize,
    content_length: bool,
    transfer_encoding: bool,
}

enum Look {
    Partial,
    Complete(usize),
    Refused(ErrorCode),
}

impl Scan {
    /// Looks at a head from its first byte to wherever it has come.
    fn look(&mut self, bytes: &[u8], limits: &HeadLimits) -> Look {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some(line) = first_line(rest) else {
                return self.partial(rest.len(), bytes.len(), limits);
            };
            let Some(text) = line.strip_suffix(b"\r\n") else {
                return Look::Refused(ErrorCode::BadRequest);
            };
            self.at += line.len();
            if self.lines == 0 && text.is_empty() {
                self.leading += 1;
                if self.leading > MAX_LEADING_LINES {
                    return Look::Refused(ErrorCode::BadRequest);
                }
                continue;
            }
            let problem = match self.lines {
                0 => self.request_line(text, limits),
                _ if text.is_empty() => return self.complete(limits),
                _ => self.field(text),
            };
            if let Some(code) = problem {
                return Look::Refused(code);
            }
            self.lines += 1;
        }
    }

    fn partial(&self, line: usize, head: usize, limits: &HeadLimits) -> Look {
        if self.lines == 0 && line > limits.uri + REQUEST_LINE_FRAME {
            Look::Refused(ErrorCode::UriTooLong)
        } else if self.lines > 0 && head - self.section > limits.headers {
            Look::Refused(ErrorCode::HeadersTooLarge)
        } else {
            Look::Partial
        }
    }

    fn complete(&self, limits: &HeadLimits) -> Look {
        match self.at - self.section > limits.headers {
            true => Look::Refused(ErrorCode::HeadersTooLarge),
            false => Look::Complete(self.at),
        }
    }

    fn request_line(&mut self, text: &[u8], limits: &HeadLimits) -> Option<ErrorCode> {
        self.section = self.at;
        // With its CR LF, so that a line is too long whether or not all of it has come.
        if text.len() + 2 > limits.uri + REQUEST_LINE_FRAME {
            return Some(ErrorCode::UriTooLong);
        }
        text.contains(&b'#').then_some(ErrorCode::BadRequest)
    }

    /// hyper refuses a field with a space before its colon, so names can be compared with it.
    fn field(&mut self, text: &[u8]) -> Option<ErrorCode> {
        let is = |name: &[u8]| text.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name));
        let again = match text.first() {
            Some(b'c' | b'C') if is(b"content-length:") => {
                std::mem::replace(&mut self.content_length, true)
            }
            Some(b't' | b'T') if is(b"transfer-encoding:") => {
                std::mem::replace(&mut self.transfer_encoding, true)
            }
            _ => return None,
        };
        (again || self.content_length && self.transfer_encoding).then_some(ErrorCode::BadRequest)
    }
}

/// The first line with its LF, if there is one.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    // `skip_until` is the standard library's way to `memchr`.
    let length = { bytes }.skip_until(b'\n').ok()?;
    bytes.get(..length).filter(|line| line.last() == Some(&b'\n'))
}

/// Where in a chunked body the connection is (RFC 9112 §7.1). It takes exactly the steps of
/// hyper's decoder, so that both see the same end.
#[derive(Debug, Clone, Default)]
struct Chunks {
    at: ChunkState,
    size: u64,
}

#[derive(Debug, Clone, Copy, Default)]
enum ChunkState {
    #[default]
    Start,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

#[derive(Debug, PartialEq, Eq)]
enum Chunk {
    More,
    End,
    Broken,
}

impl Chunks {
    /// Takes the bytes of the body from the front of `bytes`; says how many those are.
    fn eat(&mut self, bytes: &[u8]) -> (usize, Chunk) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if matches!(self.at, ChunkState::Data) {
                let here = (bytes.len() - at) as u64;
                let step = here.min(self.size);
                self.size -= step;
                if self.size == 0 {
                    self.at = ChunkState::DataCr;
                }
                at += usize::try_from(step).unwrap_or(usize::MAX);
                continue;
            }
            at += 1;
            match self.step(byte) {
                Chunk::More => {}
                Chunk::End => return (at, Chunk::End),
                // hyper shall see what is wrong, and closes the connection.
                Chunk::Broken => return (bytes.len(), Chunk::Broken),
            }
        }
        (at, Chunk::More)
    }

    fn step(&mut self, byte: u8) -> Chunk {
        use ChunkState as S;
        self.at = match (self.at, byte) {
            (S::Start | S::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                match self.size.checked_mul(16) {
                    Some(size) => self.size = size | digit,
                    None => return Chunk::Broken,
                }
                S::Size
            }
            (S::Size | S::SizeSpace, b'\t' | b' ') => S::SizeSpace,
            (S::Size | S::SizeSpace, b';') => S::Extension,
            (S::Size | S::SizeSpace | S::Extension, b'\r') => S::SizeLf,
            (S::Extension, byte) if byte != b'\n' => S::Extension,
            (S::SizeLf, b'\n') if self.size == 0 => S::TrailerStart,
            (S::SizeLf, b'\n') => S::Data,
            (S::DataCr, b'\r') => S::DataLf,
            (S::DataLf, b'\n') => S::Start,
            (S::TrailerStart, b'\r') => S::EndLf,
            (S::Trailer, b'\r') => S::TrailerLf,
            (S::TrailerStart | S::Trailer, _) => S::Trailer,
            (S::TrailerLf, b'\n') => S::TrailerStart,
            (S::EndLf, b'\n') => return Chunk::End,
            _ => return Chunk::Broken,
        };
        Chunk::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { uri: 100, headers: 200 };

    /// Feeds `bytes` in pieces and returns what was handed over per message, head and body.
    fn feed(bytes: &[u8], step: usize, framing: &[Framing]) -> (Vec<Vec<u8>>, Wire) {
        let mut wire = Wire::new(LIMITS);
        let mut held = Vec::new();
        let mut out = vec![];
        let mut framing = framing.iter();
        let mut pieces = bytes.chunks(step.max(1));
        loop {
            if wire.is_asked() {
                let Some(framing) = framing.next() else { break };
                wire.called(*framing);
            }
            let starts = wire.wants_head();
            let n = wire.ready(&held).min(held.len());
            if n == 0 {
                let Some(piece) = pieces.next() else { break };
                held.extend_from_slice(piece);
                continue;
            }
            let gone: Vec<u8> = held.drain(..n).collect();
            wire.gave(&gone);
            match out.last_mut() {
                Some(last) if !starts => Vec::extend(last, gone),
                _ => out.push(gone),
            }
        }
        (out, wire)
    }

    fn refusal(head: &[u8]) -> Option<ErrorCode> {
        let mut seen = None;
        for step in [1, 2, 7, head.len()] {
            let (_, wire) = feed(head, step, &[]);
            if let Some(before) = seen {
                assert_eq!(wire.refused(), before, "step {step}");
            }
            seen = Some(wire.refused());
        }
        seen.flatten()
    }

    #[test]
    fn a_head_is_handed_over_whole() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut wire = Wire::new(LIMITS);
        for end in 0..head.len() {
            assert_eq!(wire.ready(&head[..end]), 0);
        }
        assert_eq!(wire.ready(head), head.len());
    }

    #[test]
    fn heads_that_are_refused() {
        let long = |n: usize| "x".repeat(n);
        let table: &[(&str, Option<ErrorCode>)] = &[
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("GET / HTTP/1.1\nhost: a\r\n\r\n", Some(ErrorCode::BadRequest)),
            ("GET / HTTP/1.1\r\nhost: a\n\r\n", Some(ErrorCode::BadRequest)),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", Some(ErrorCode::BadRequest)),
            ("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Some(ErrorCode::BadRequest)),
            ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", Some(ErrorCode::BadRequest)),
            ("GET /#f HTTP/1.1\r\nhost: a\r\n\r\n", Some(ErrorCode::BadRequest)),
            ("P / HTTP/1.1\r\ncontent-length: 3\r\n\r\n", None),
            (
                "P / HTTP/1.1\r\nContent-Length: 3\r\nCONTENT-length: 3\r\n\r\n",
                Some(ErrorCode::BadRequest),
            ),
            (
                "P / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
                Some(ErrorCode::BadRequest),
            ),
            (
                "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 3\r\n\r\n",
                Some(ErrorCode::BadRequest),
            ),
            (
                "P / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
                Some(ErrorCode::BadRequest),
            ),
            ("P / HTTP/1.1\r\ncontent-length-x: 3\r\ncontent-length: 3\r\n\r\n", None),
            (&format!("GET /{} HTTP/1.1\r\n", long(200)), Some(ErrorCode::UriTooLong)),
            (&long(200), Some(ErrorCode::UriTooLong)),
            (&format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", long(150)), None),
            (
                &format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", long(201)),
                Some(ErrorCode::HeadersTooLarge),
            ),
            (
                &format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(50)),
                Some(ErrorCode::HeadersTooLarge),
            ),
        ];
        for (head, expected) in table {
            assert_eq!(refusal(head.as_bytes()), *expected, "{head:?}");
        }
    }

    #[test]
    fn the_second_of_two_pipelined_heads_is_looked_at_too() {
        let bytes = b"P / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\nGET / HTTP/1.1\nhost: a\r\n\r\n";
        for step in [1, 5, bytes.len()] {
            let (out, wire) = feed(bytes, step, &[Framing::Length(2), Framing::Length(0)]);
            assert_eq!(out, [&bytes[..37]]);
            assert_eq!(wire.refused(), Some(ErrorCode::BadRequest));
        }
    }

    #[test]
    fn a_chunked_body_ends_where_hyper_ends_it() {
        let table: &[(&str, &str)] = &[
            ("0\r\n\r\n", "GET"),
            ("5\r\nhello\r\n0\r\n\r\n", "GET"),
            ("5;a=b\r\nhello\r\n00;x\r\n\r\n", "\r\nGET"),
            ("5 \t;a\r\nhel\n\r\r\n0\r\nx: y\r\nz: \r\n\r\n", "0\r\n\r\n"),
            ("A\r\n0123456789\r\na\r\n0\r\n\r\n56789\r\n0\r\n\r\n", "GET"),
        ];
        for (body, after) in table {
            let bytes = [body.as_bytes(), after.as_bytes()].concat();
            let mut chunks = Chunks::default();
            assert_eq!(chunks.eat(&bytes), (body.len(), Chunk::End), "{body:?}");
        }
        for body in [
            "g\r\n",
            "\r\n",
            "5\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5;\n",
            "11111111111111111\r\n",
            "0\r\n\rX",
            "0\r\na\rX",
        ] {
            assert_eq!(Chunks::default().eat(body.as_bytes()).1, Chunk::Broken, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bodies in prop::collection::vec(prop::option::of(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4)), 1..5),
            step in 1usize..64,
        ) {
            let mut bytes = Vec::new();
            let mut messages = Vec::new();
            let mut framing = Vec::new();
            for body in &bodies {
                let start = bytes.len();
                match body {
                    None => bytes.extend_from_slice(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
                    Some(chunks) => {
                        bytes.extend_from_slice(b"P / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
                        for chunk in chunks {
                            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                            bytes.extend_from_slice(chunk);
                            bytes.extend_from_slice(b"\r\n");
                        }
                        bytes.extend_from_slice(b"0\r\n\r\n");
                    }
                }
                framing.push(if body.is_some() { Framing::Chunked } else { Framing::Length(0) });
                messages.push(bytes[start..].to_vec());
            }
            let (out, wire) = feed(&bytes, step, &framing);
            prop_assert_eq!(out, messages);
            prop_assert!(wire.refused().is_none());
        }
    }
}
