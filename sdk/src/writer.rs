//! Bodies that are written while the response is already being sent.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use http::HeaderMap;
use http_body::Frame;

use crate::body::Content;
use crate::{Body, Bytes, Error, Result};

impl Body {
    /// A body that `produce` writes after the handler has returned, while the response is being
    /// sent. Nothing is held back: what was written goes out as soon as `produce` waits for
    /// something, and a slow client slows `produce` down.
    ///
    /// If `produce` fails, the response breaks off, since its status has been sent by then; the
    /// error goes to the log. If the client goes away, `produce` is dropped where it waits.
    ///
    /// ```
    /// use faas_sdk::{Body, Request, Response};
    ///
    /// async fn handle(_: Request) -> Response {
    ///     Response::new(Body::from_writer(async |mut writer| {
    ///         for line in 1..=3 {
    ///             writer.write(format!("line {line}\n")).await;
    ///         }
    ///         Ok(())
    ///     }))
    /// }
    /// # let answer = faas_sdk::testing::call(handle, Request::get("/").body(()).unwrap());
    /// # assert_eq!(answer.text(), "line 1\nline 2\nline 3\n");
    /// ```
    #[must_use]
    pub fn from_writer<P, F>(produce: P) -> Self
    where
        P: FnOnce(Writer) -> F,
        F: Future<Output = Result<()>> + 'static,
    {
        let slot = Rc::new(RefCell::new(Slot::default()));
        let producer = Box::pin(produce(Writer { slot: Rc::clone(&slot) }));
        Self::of(Content::Source(Box::pin(Written { producer: Producer::Running(producer), slot })))
    }
}

/// Writes a body piece by piece; see [`Body::from_writer`].
pub struct Writer {
    slot: Rc<RefCell<Slot>>,
}

impl Writer {
    /// Adds `data` to the body. Waits until there is room for it.
    ///
    /// Small pieces that are ready together travel together.
    pub async fn write(&mut self, data: impl Into<Bytes>) {
        let mut data = Some(data.into());
        poll_fn(|cx| self.slot.borrow_mut().poll_put(&mut data, cx)).await;
    }

    /// Waits until everything written so far is on its way to the client.
    ///
    /// Only needed before a long computation: whenever the producer waits for anything else, this
    /// happens by itself.
    pub async fn flush(&mut self) {
        poll_fn(|cx| self.slot.borrow_mut().poll_empty(cx)).await;
        // The piece is gathered, but perhaps not yet sent: that happens when there is to wait.
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Sets the trailers to send after the body. They add to any set before.
    pub fn trailers(&mut self, trailers: HeaderMap) {
        self.slot.borrow_mut().trailers.get_or_insert_default().extend(trailers);
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Where the writer puts a piece and the body finds it.
#[derive(Default)]
struct Slot {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// The writer, if it waits for room.
    waiting: Option<Waker>,
}

impl Slot {
    fn poll_put(&mut self, data: &mut Option<Bytes>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_empty(cx));
        self.data = data.take().filter(|data| !data.is_empty());
        Poll::Ready(())
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.data.is_none() {
            return Poll::Ready(());
        }
        self.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn take(&mut self) -> Option<Bytes> {
        let data = self.data.take()?;
        if let Some(writer) = self.waiting.take() {
            writer.wake();
        }
        Some(data)
    }
}

/// The body's end of a writer: runs the producer whenever more data is wanted.
struct Written<F> {
    producer: Producer<F>,
    slot: Rc<RefCell<Slot>>,
}

enum Producer<F> {
    Running(Pin<Box<F>>),
    Finished,
    Failed(Error),
}

impl<F: Future<Output = Result<()>>> Written<F> {
    fn run(&mut self, cx: &mut Context<'_>) {
        if let Producer::Running(producer) = &mut self.producer
            && let Poll::Ready(result) = producer.as_mut().poll(cx)
        {
            self.producer = match result {
                Ok(()) => Producer::Finished,
                Err(error) => Producer::Failed(error),
            };
        }
    }
}

impl<F: Future<Output = Result<()>>> http_body::Body for Written<F> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        if self.slot.borrow().data.is_none() {
            self.run(cx);
        }
        let data = self.slot.borrow_mut().take();
        if let Some(data) = data {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Producer::Running(_) = self.producer {
            return Poll::Pending;
        }
        if let Producer::Failed(error) = std::mem::replace(&mut self.producer, Producer::Finished) {
            return Poll::Ready(Some(Err(error)));
        }
        let trailers = self.slot.borrow_mut().trailers.take();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block_on;

    #[test]
    fn pieces_arrive_in_order_with_trailers_last() {
        let mut body = Body::from_writer(async |mut writer| {
            writer.write("a").await;
            writer.trailers(HeaderMap::from_iter([(
                "sum".parse().unwrap(),
                http::HeaderValue::from_static("2"),
            )]));
            writer.write("").await;
            writer.write(vec![b'b']).await;
            Ok(())
        });
        assert_eq!(block_on(body.bytes(10)).unwrap(), "ab");
        assert_eq!(block_on(body.trailers()).unwrap().unwrap()["sum"], "2");
    }

    #[test]
    fn a_producer_runs_only_as_far_as_it_is_read() {
        let steps = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&steps);
        let mut body = Body::from_writer(async move |mut writer| {
            for n in ["1", "2", "3"] {
                writer.write(n).await;
                log.borrow_mut().push(n);
            }
            Ok(())
        });
        assert!(steps.borrow().is_empty());
        assert_eq!(block_on(body.chunk()).unwrap().unwrap(), "1");
        // The second piece may lie ready, the third may not be asked for yet.
        assert_eq!(*steps.borrow(), ["1"]);
    }

    #[test]
    fn flush_lets_the_reader_go_on() {
        let mut body = Body::from_writer(async |mut writer| {
            writer.write("a").await;
            writer.flush().await;
            writer.write("b").await;
            writer.flush().await;
            Ok(())
        });
        assert_eq!(block_on(body.bytes(10)).unwrap(), "ab");
    }

    #[test]
    fn a_writer_may_outlive_its_producer() {
        let mut body = Body::from_writer(async |writer| {
            std::mem::forget(writer);
            Ok(())
        });
        assert!(block_on(body.chunk()).unwrap().is_none());
    }

    #[test]
    fn a_dropped_body_drops_its_producer() {
        let alive = Rc::new(());
        let held = Rc::clone(&alive);
        let mut body = Body::from_writer(async move |mut writer| {
            let _held = held;
            loop {
                writer.write("more").await;
            }
        });
        block_on(body.chunk()).unwrap();
        drop(body);
        assert_eq!(Rc::strong_count(&alive), 1);
    }
}
