//! Follows the frames of an HTTP/2 connection, just far enough to know whether a header block is
//! open: one that has begun and not ended keeps memory of its own (RFC 9113 §4.3).

/// Bytes before the payload of a frame (RFC 9113 §4.1).
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where in the frames of one direction a connection is.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// How much of the head is there.
    have: usize,
    /// How much of the payload is still to come.
    left: usize,
    /// A header block has begun and not ended.
    open: bool,
}

impl Frames {
    /// Before the first frame come so many other bytes.
    pub(super) fn behind(bytes: usize) -> Self {
        Self { head: [0; HEAD], have: 0, left: bytes, open: false }
    }

    /// These bytes come next.
    pub(super) fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skip = self.left.min(bytes.len());
            self.left -= skip;
            bytes = bytes.get(skip..).unwrap_or_default();
            let Some(room) = self.head.get_mut(self.have..) else {
                return;
            };
            let take = room.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(take).unwrap_or_default();
            if let Some(room) = room.get_mut(..take) {
                room.copy_from_slice(now);
            }
            self.have += take;
            bytes = later;
            if self.have == HEAD {
                self.have = 0;
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.open = flags & END_HEADERS == 0;
        }
    }

    /// Whether a header block is not complete: its last frame has not begun, or not ended.
    pub(super) fn is_block_open(&self) -> bool {
        let [.., kind, _, _, _, _, _] = self.head;
        self.open || self.left > 0 && matches!(kind, HEADERS | CONTINUATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend(vec![0xff; usize::from(length)]);
        bytes
    }

    #[test]
    fn a_block_is_open_until_its_last_frame_has_ended() {
        let steps = [
            (frame(4, 0, 6), false),
            (frame(1, 4, 50), false),
            (frame(1, 1, 50), true),
            (frame(9, 0, 0), true),
            (frame(9, 0, 200), true),
            (frame(9, 4, 3), false),
            (frame(0, 1, 255), false),
            (frame(1, 0, 1), true),
        ];
        for piece in [1, 2, 9, 10, 1000] {
            let mut frames = Frames::behind(3);
            frames.see(b"PRI");
            for (bytes, open) in &steps {
                for piece in bytes.chunks(piece) {
                    frames.see(piece);
                }
                assert_eq!(frames.is_block_open(), *open, "{bytes:?}");
            }
        }
        let mut frames = Frames::behind(0);
        frames.see(&frame(1, 4, 50)[..20]);
        assert!(frames.is_block_open());
    }
}
