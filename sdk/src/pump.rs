//! Sends a body in as few writes as it allows.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use http_body::Body as _;

use crate::{Body, Bytes, Error, Result};

/// How much is gathered before it is written even though more lies ready.
const WRITE_SIZE: usize = 64 * 1024;

/// Where the bytes go.
pub(crate) trait Sink {
    /// Hands over `data`, waiting as long as there is no room.
    async fn write(&mut self, data: Bytes) -> Result<(), Gone>;
}

/// Nobody reads any more.
#[derive(Debug)]
pub(crate) struct Gone;

/// How sending a body ended.
#[derive(Debug)]
pub(crate) enum End {
    Complete(Option<HeaderMap>),
    Broken(Error),
    Gone,
}

/// Sends everything up to the trailers, which it gives back.
///
/// Pieces that lie ready are joined; as soon as the body has to wait, what there is goes out.
pub(crate) async fn pump(mut body: Body, sink: &mut impl Sink) -> End {
    let mut gathered = Gathered::default();
    loop {
        let end = poll_fn(|cx| gathered.poll_fill(&mut body, cx)).await;
        let data = gathered.take();
        if !data.is_empty() && sink.write(data).await.is_err() {
            return End::Gone;
        }
        match end {
            Some(Ok(trailers)) => return End::Complete(trailers),
            Some(Err(error)) => return End::Broken(error),
            None => {}
        }
    }
}

/// Pieces of a body on their way to become one write.
#[derive(Default)]
struct Gathered {
    /// A first piece is kept as it is, so that a body of one piece is never copied.
    first: Bytes,
    joined: Vec<u8>,
}

impl Gathered {
    /// Ready when there is something to write, or with how the body ended.
    fn poll_fill(
        &mut self,
        body: &mut Body,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Option<HeaderMap>>>> {
        while self.len() < WRITE_SIZE {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending if self.len() == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(None),
                Poll::Ready(None) => return Poll::Ready(Some(Ok(None))),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.add(data),
                    Err(frame) => return Poll::Ready(Some(Ok(frame.into_trailers().ok()))),
                },
            }
        }
        Poll::Ready(None)
    }

    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    fn add(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if !self.first.is_empty() {
            self.joined = Vec::from(std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&data);
    }

    fn take(&mut self) -> Bytes {
        if self.joined.is_empty() {
            return std::mem::take(&mut self.first);
        }
        std::mem::take(&mut self.joined).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, streams::chunks};

    /// Keeps what it gets; hangs up after `room` writes.
    struct Kept {
        writes: Vec<Bytes>,
        room: usize,
    }

    impl Sink for Kept {
        async fn write(&mut self, data: Bytes) -> Result<(), Gone> {
            if self.writes.len() == self.room {
                return Err(Gone);
            }
            self.writes.push(data);
            Ok(())
        }
    }

    fn sent(body: Body, room: usize) -> (Vec<Bytes>, End) {
        let mut sink = Kept { writes: Vec::new(), room };
        let end = block_on(pump(body, &mut sink));
        (sink.writes, end)
    }

    #[test]
    fn a_known_body_is_one_write_without_a_copy() {
        let bytes = Bytes::from(vec![7; 200_000]);
        let (writes, end) = sent(bytes.clone().into(), 9);
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].as_ptr(), bytes.as_ptr());
        assert!(matches!(end, End::Complete(None)));
        assert!(sent(Body::empty(), 9).0.is_empty());
    }

    #[test]
    fn small_pieces_that_are_ready_travel_together() {
        let (writes, _) = sent(Body::from_stream(chunks(["a", "b", "c"])), 9);
        assert_eq!(writes, ["abc"]);
    }

    #[test]
    fn waiting_sends_what_there_is() {
        let body = Body::from_writer(async |mut writer| {
            writer.write("a").await;
            writer.write("b").await;
            writer.flush().await;
            writer.write("c").await;
            Ok(())
        });
        assert_eq!(sent(body, 9).0, ["ab", "c"]);
    }

    #[test]
    fn a_long_body_is_never_held_whole() {
        let body = Body::from_writer(async |mut writer| {
            for _ in 0..100 {
                writer.write(vec![0; 10_000]).await;
            }
            Ok(())
        });
        let (writes, _) = sent(body, 99);
        assert!(writes.iter().all(|write| write.len() < 2 * WRITE_SIZE));
        assert_eq!(writes.iter().map(Bytes::len).sum::<usize>(), 1_000_000);
        assert_eq!(writes.len(), 1_000_000usize.div_ceil(70_000));
    }

    #[test]
    fn trailers_and_errors_come_after_the_data() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        let (writes, end) = sent(Body::from("a").with_trailers(trailers), 9);
        assert_eq!(writes, ["a"]);
        assert!(matches!(end, End::Complete(Some(trailers)) if trailers["etag"] == "x"));

        let body = Body::from_writer(async |mut writer| {
            writer.write("a").await;
            writer.flush().await;
            Err("lost".into())
        });
        let (writes, end) = sent(body, 9);
        assert_eq!(writes, ["a"]);
        assert!(matches!(end, End::Broken(error) if error.to_string() == "lost"));
    }

    #[test]
    fn a_reader_that_goes_away_ends_an_endless_body() {
        let body = Body::from_writer(async |mut writer| {
            loop {
                writer.write(vec![0; WRITE_SIZE]).await;
            }
        });
        assert!(matches!(sent(body, 2), (writes, End::Gone) if writes.len() == 2));
    }
}
