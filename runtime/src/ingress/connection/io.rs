//! The connection as hyper sees it: notes what happens for the watch, hands over HTTP/1 heads only
//! when they are whole, and puts the node's own words in place of hyper's.

use super::{
    PREFACE,
    batch::Batch,
    frames::Frames,
    pulse::{Framing, Phase, Pulse},
    transport::Transport,
    wire::{HeadLimits, Wire},
};
use bytes::{Buf, Bytes, BytesMut};
use faas_api::ErrorCode;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte that begins no request: hyper answers it with 400 and closes.
const NO_REQUEST: &[u8] = b"\0";

/// What a connection has to say to a head that is refused before the service sees it: a whole
/// HTTP/1 response.
pub(super) trait Refuse {
    fn refuse(&self, code: ErrorCode) -> Bytes;
}

/// What h2 gets at once, in bytes. It reads all there is before anybody hears of the streams in it, and
/// heads are subject to no window.
const TURN: usize = 64 << 10;

/// One connection's bytes.
pub(super) struct Io<'a, T, R> {
    transport: &'a mut T,
    pulse: &'a Pulse,
    /// What was read and not yet handed over.
    held: BytesMut,
    /// HTTP/1 only.
    guard: Option<Guard<'a, R>>,
    /// HTTP/2 only.
    blocks: Option<Blocks>,
    batch: Batch,
}

/// Header blocks of an HTTP/2 connection.
struct Blocks {
    frames: Frames,
    /// What one that is not complete may take, in bytes.
    room: usize,
    /// What was handed over since h2 last had to wait, in bytes.
    given: usize,
}

struct Guard<'a, R> {
    wire: Wire,
    refuse: &'a R,
    /// What is still to be written in place of hyper's own answer.
    answer: Option<Bytes>,
    /// hyper was told of a refusal.
    told: bool,
}

impl<'a, T: Transport, R: Refuse> Io<'a, T, R> {
    /// What a connection reads and writes. `first` was read already.
    pub(super) fn new(transport: &'a mut T, pulse: &'a Pulse, first: BytesMut) -> Self {
        let batch = Batch::default();
        Self { transport, pulse, held: first, guard: None, blocks: None, batch }
    }

    /// Makes it what an HTTP/2 connection reads and writes, where a header block that is not complete
    /// takes up to `room` bytes.
    pub(super) fn framed(mut self, room: usize) -> Self {
        let mut frames = Frames::behind(PREFACE.len());
        frames.see(&self.held);
        self.blocks = Some(Blocks { frames, room, given: 0 });
        self
    }

    /// Makes it what an HTTP/1 connection reads and writes.
    pub(super) fn guarded(mut self, limits: HeadLimits, refuse: &'a R) -> Self {
        let wire = Wire::new(limits);
        self.guard = Some(Guard { wire, refuse, answer: None, told: false });
        self
    }

    /// Reads what fits into `buf`; tells how many bytes that were, 0 at the end.
    fn poll_transport(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.transport).poll_read(cx, buf))?;
        let length = buf.filled().len() - before;
        if length == 0 {
            self.pulse.saw_eof();
        }
        Poll::Ready(Ok(length))
    }

    /// Hands over the first `length` bytes that are held, as far as they fit.
    fn hand_over(&mut self, buf: &mut ReadBuf<'_>, length: usize) {
        let length = length.min(self.held.len()).min(buf.remaining());
        let bytes = self.held.split_to(length);
        if let Some(guard) = &mut self.guard {
            guard.wire.gave(&bytes);
        }
        buf.put_slice(&bytes);
        drop(bytes);
        if self.held.is_empty() {
            // An idle connection keeps no buffer.
            self.held = BytesMut::new();
        }
    }

    fn poll_read_http1(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(guard) = &mut self.guard else {
                return Poll::Ready(Ok(()));
            };
            if guard.wire.is_asked() {
                match self.pulse.take_framing() {
                    Some(framing) => guard.wire.called(framing),
                    // hyper takes the head for incomplete; the two views may not differ.
                    None => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                }
            }
            let length = guard.wire.ready(&self.held);
            if guard.wire.refused().is_some() {
                return Poll::Ready(self.tell_refusal(buf));
            }
            if length > 0 && !self.held.is_empty() {
                self.hand_over(buf, length);
                self.note_phase();
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let Poll::Ready(read) = self.poll_transport(cx, buf) else {
                self.note_wait(buf.remaining());
                return Poll::Pending;
            };
            if read? == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.keep_back(buf, before) {
                self.note_phase();
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes back what was read into `buf` behind `before` and may not be handed over. Whether
    /// anything remains there.
    fn keep_back(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let Some(guard) = &mut self.guard else {
            return true;
        };
        let fresh = buf.filled().get(before..).unwrap_or_default();
        let length = match self.held.is_empty() {
            true => guard.wire.ready(fresh).min(fresh.len()),
            false => 0,
        };
        let (now, later) = fresh.split_at_checked(length).unwrap_or((fresh, &[]));
        guard.wire.gave(now);
        self.held.extend_from_slice(later);
        buf.set_filled(before + length);
        length > 0
    }

    /// Lets hyper refuse what it would not refuse by itself; `poll_write` knows why.
    fn tell_refusal(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        self.held = BytesMut::new();
        if let Some(guard) = &mut self.guard
            && !std::mem::replace(&mut guard.told, true)
        {
            self.pulse.busy();
            buf.put_slice(NO_REQUEST);
        }
        Ok(())
    }

    /// hyper got something.
    fn note_phase(&self) {
        if let Some(guard) = &self.guard
            && !guard.wire.wants_head()
            && self.pulse.phase() != Phase::Busy
        {
            self.pulse.busy();
        }
    }

    fn poll_read_http2(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            self.hand_over(buf, usize::MAX);
            return Poll::Ready(Ok(()));
        }
        if let Some(blocks) = &mut self.blocks
            && blocks.given >= TURN
        {
            blocks.given = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = self.poll_transport(cx, buf);
        if let Some(blocks) = &mut self.blocks {
            let fresh = buf.filled().get(before..).unwrap_or_default();
            blocks.frames.see(fresh);
            blocks.given += fresh.len();
            if read.is_pending() {
                blocks.given = 0;
                let open = if blocks.frames.is_block_open() { blocks.room } else { 0 };
                self.pulse.keeps(buf.remaining() + open);
            }
        }
        read.map_ok(drop)
    }

    /// hyper wants something and there is nothing. It has so much room for it.
    fn note_wait(&self, room: usize) {
        self.pulse.keeps(self.held.capacity() + room);
        match &self.guard {
            Some(guard) if !guard.wire.wants_head() => {}
            Some(_) if self.held.is_empty() => self.pulse.stay_or_enter(Phase::Idle),
            Some(_) => self.pulse.stay_or_enter(Phase::Head),
            None => {}
        }
    }

    fn poll_transport_write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // HTTP/2 gathers what its streams write by itself.
        if self.guard.is_some() && self.batch.lets_others_go_first() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        write(Pin::new(&mut *self.transport), cx)
    }

    /// Writes the node's answer in place of `hypers`, if that is hyper's own answer to a head
    /// the service was not called for. `None` when it is not.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        hypers: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        let guard = self.guard.as_mut()?;
        if guard.answer.is_none() {
            let refused = guard.wire.refused();
            let by_hyper = guard.wire.is_asked() && !self.pulse.was_called();
            if refused.is_none() && !by_hyper {
                return None;
            }
            let code = refusal_code(hypers)?;
            guard.answer = Some(guard.refuse.refuse(refused.unwrap_or(code)));
        }
        while let Some(rest) = self.guard.as_ref()?.answer.clone().filter(|rest| !rest.is_empty()) {
            match self.poll_transport_write(cx, |to, cx| to.poll_write(cx, &rest)) {
                Poll::Ready(Ok(length)) => self.guard.as_mut()?.answer.as_mut()?.advance(length),
                other => return Some(other),
            }
        }
        Some(Poll::Ready(Ok(hypers.len())))
    }
}

/// The code for hyper's answer to a head it does not accept, if `bytes` are exactly that answer.
/// A response that was waiting to be written when the bad head came stands before it and is
/// left alone, and hyper's answer with it.
fn refusal_code(bytes: &[u8]) -> Option<ErrorCode> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    if end + 4 != bytes.len() {
        return None;
    }
    match bytes.strip_prefix(b"HTTP/1.1 ")?.first_chunk()? {
        b"400" => Some(ErrorCode::BadRequest),
        b"414" => Some(ErrorCode::UriTooLong),
        b"431" => Some(ErrorCode::HeadersTooLarge),
        _ => None,
    }
}

impl<T: Transport, R: Refuse> AsyncRead for Io<'_, T, R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.guard {
            Some(_) => this.poll_read_http1(cx, buf),
            None => this.poll_read_http2(cx, buf),
        }
    }
}

impl<T: Transport, R: Refuse> AsyncWrite for Io<'_, T, R> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.poll_answer(cx, buf) {
            Some(answered) => answered,
            None => this.poll_transport_write(cx, |to, cx| to.poll_write(cx, buf)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [only] = bufs
            && let Some(answered) = this.poll_answer(cx, only)
        {
            return answered;
        }
        this.poll_transport_write(cx, |to, cx| to.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written all there is.
        let this = self.get_mut();
        this.pulse.flushed();
        Pin::new(&mut *this.transport).poll_flush(cx)
    }

    /// The connection says goodbye when hyper is done with it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl<T, R> Drop for Io<'_, T, R> {
    fn drop(&mut self) {
        let unread = match &self.guard {
            // The service was called, and nobody asked for the body.
            Some(guard) if guard.wire.is_asked() => {
                self.pulse.take_framing() != Some(Framing::Length(0))
            }
            Some(guard) => guard.wire.is_within_body() || guard.told,
            None => true,
        };
        if unread || !self.held.is_empty() {
            self.pulse.leaves_unread();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_answer_is_replaced() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(refusal_code(own), Some(ErrorCode::HeadersTooLarge));
        let behind = [&b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"[..], own].concat();
        assert_eq!(refusal_code(&behind), None);
        assert_eq!(refusal_code(&[&b"tail of a body"[..], own].concat()), None);
        assert_eq!(refusal_code(b"HTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(refusal_code(b"HTTP/1.1 400 Bad"), None);
    }
}
