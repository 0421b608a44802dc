//! HTTP/2 frame by frame, over a plain socket: what is sent is exactly what a test says.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// What HTTP/2 with prior knowledge begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest payload of a frame, where nothing else was agreed on.
pub const MAX_FRAME: usize = 16 << 10;

/// Kinds of frames (RFC 9113 §6).
pub mod kind {
    #![expect(missing_docs, reason = "as the RFC names them")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    #![expect(missing_docs, reason = "as the RFC names them")]
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 32;
}

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A frame that came.
#[derive(Debug, Clone)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// How a stream, or its connection, was ended by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// An answer with this status.
    Status(u16),
    /// A stream error with this code (RFC 9113 §7).
    Reset(u32),
    /// A connection error with this code.
    GoAway(u32),
    /// The connection closed, and nothing was said.
    Closed,
}

/// A connection.
pub struct Http2 {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http2 {
    /// Connects, with the preface and empty settings.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn open(peer: SocketAddr) -> Self {
        Self::with(peer, &[])
    }

    /// Connects, with the preface and these settings.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn with(peer: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut stream = TcpStream::connect(peer).expect("somebody should listen");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&hello(settings)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// The same connection, to write to it from another thread.
    ///
    /// # Panics
    /// When the system has no more descriptors.
    pub fn second_handle(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor")
    }

    /// Writes these bytes and nothing else.
    ///
    /// # Errors
    /// When the other end has closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; `None` when the connection has ended.
    ///
    /// # Panics
    /// When nothing comes for long.
    #[expect(clippy::should_implement_trait, reason = "an iterator would not fail")]
    pub fn next(&mut self) -> Option<Frame> {
        let head = self.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.take(length)?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend_from_slice(&piece[..read]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("nothing comes")
                }
                Err(_) => return None,
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// How a stream was ended. Settings and pings are passed over.
    ///
    /// # Panics
    /// When nothing comes for long, or an answer has a status that cannot be read: that of a
    /// connection's first answer always can.
    #[track_caller]
    pub fn ended(&mut self, stream: u32) -> Ended {
        while let Some(frame) = self.next() {
            let code = |at: usize| {
                let bytes = frame.payload.get(at..at + 4).expect("a code");
                u32::from_be_bytes(bytes.try_into().unwrap())
            };
            match frame.kind {
                kind::GOAWAY => return Ended::GoAway(code(4)),
                kind::RST_STREAM if frame.stream == stream => return Ended::Reset(code(0)),
                kind::HEADERS if frame.stream == stream => {
                    return Ended::Status(status(&frame.payload));
                }
                _ => {}
            }
        }
        Ended::Closed
    }

    /// Reads everything until the server closes; how it said goodbye.
    ///
    /// # Panics
    /// When nothing comes for long.
    pub fn goodbye(&mut self) -> Ended {
        self.ended(u32::MAX)
    }

    /// Waits until everything sent so far was dealt with: the answer to a ping.
    ///
    /// # Panics
    /// When the connection ends.
    #[track_caller]
    pub fn sync(&mut self) {
        self.send(&frame(kind::PING, 0, 0, b"are here")).expect("it is open");
        loop {
            let frame = self.next().expect("the answer to a ping");
            if frame.kind == kind::PING && frame.flags & flag::ACK != 0 {
                return;
            }
        }
    }
}

/// The preface and these settings.
pub fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    [PREFACE, &frame(kind::SETTINGS, 0, 0, &payload)].concat()
}

/// A frame.
///
/// # Panics
/// When the payload is over 16 MiB.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    assert_eq!(length[0], 0, "too long");
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that is not put into the table, without Huffman coding (RFC 7541 §6.2.2).
pub fn field(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![0];
    string(&mut bytes, name.as_bytes());
    string(&mut bytes, value.as_ref());
    bytes
}

/// A field that is put into the table (RFC 7541 §6.2.1).
pub fn indexed(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x40];
    string(&mut bytes, name.as_bytes());
    string(&mut bytes, value);
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        bytes.push(length as u8);
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push((length % 128) as u8 | 128);
            length /= 128;
        }
        bytes.push(length as u8);
    }
    bytes.extend(text);
}

/// A header block of these fields, in this order.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A header block that asks for a target, with these fields behind.
pub fn asks(method: &str, target: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = block(&[
        (":method", method),
        (":scheme", "http"),
        (":path", target),
        (":authority", "localhost"),
    ]);
    block.extend(self::block(fields));
    block
}

/// A header block as frames: as many as it needs.
pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(MAX_FRAME).peekable();
    let mut bytes = Vec::new();
    let mut first = true;
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
        let (kind, flags) =
            if first { (kind::HEADERS, flags | last) } else { (kind::CONTINUATION, last) };
        bytes.extend(frame(kind, flags, stream, piece));
        first = false;
    }
    bytes
}

/// A whole `GET`.
pub fn get(stream: u32, target: &str) -> Vec<u8> {
    headers(stream, flag::END_STREAM, &asks("GET", target, &[]))
}

/// The status, which is the first field of an answer: from the static table, or with a value that may
/// be Huffman coded (RFC 7541 §B).
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // A change of the table's size may stand before it.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block {
        [index @ 0x88..=0x8e, ..] => INDEXED[usize::from(index - 0x88)],
        [0x48 | 0x08 | 0x18, 0x03, a, b, c, ..] => {
            String::from_utf8(vec![*a, *b, *c]).unwrap().parse().unwrap()
        }
        [0x48 | 0x08 | 0x18, length, code @ ..] if *length & 0x80 != 0 => {
            digits(&code[..usize::from(length & 0x7f)])
        }
        _ => panic!("no status: {block:02x?}"),
    }
}

/// Three digits: 0, 1 and 2 have five bits, the others six.
fn digits(code: &[u8]) -> u16 {
    let bits = code.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * code.len();
    let mut number = 0;
    for _ in 0..3 {
        let take = |count: usize| bits >> (left - count) & ((1 << count) - 1);
        let (digit, length) = match take(5) {
            digit @ 0..=2 => (digit, 5),
            _ => (take(6) - 0x19 + 3, 6),
        };
        left -= length;
        number = number * 10 + digit as u16;
    }
    number
}
