//! A connection that may not dawdle: one deadline, set anew whenever the connection changes what it waits
//! for. It runs against the client, not while the answer is being made.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// From the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// Between requests: longer than the usual scrape intervals, so that connections are used again.
const IDLE: Duration = Duration::from_secs(150);
/// For the other side to take some of the answer.
const WRITE: Duration = Duration::from_secs(30);

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Request,
    Head,
    Writing,
}

/// A TCP stream with deadlines.
#[derive(Debug)]
pub(super) struct Deadlines {
    stream: TokioIo<TcpStream>,
    waiting: Waiting,
    deadline: Pin<Box<Sleep>>,
    answering: Answering,
    /// Requests and answers go to and fro at the same time: HTTP/2.
    multiplexed: bool,
    /// How many answers had begun or ended when the deadline was set.
    turns: usize,
}

/// Whether answers are being made; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Arc<Turns>);

#[derive(Debug, Default)]
struct Turns {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// An answer that is being made, or was given up.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Answering {
    /// Waits for an answer.
    pub(super) async fn wait<F: Future>(&self, answer: F) -> F::Output {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        let _turn = Turn(&self.0);
        answer.await
    }

    /// How many answers are being made, and how many have begun or ended.
    fn count(&self) -> (usize, usize) {
        let ended = self.0.ended.load(Ordering::Acquire);
        let begun = self.0.begun.load(Ordering::Acquire);
        (begun.wrapping_sub(ended), begun.wrapping_add(ended))
    }
}

impl Deadlines {
    pub(super) fn new(stream: TcpStream, answering: Answering) -> Self {
        // A new connection is there to ask for something.
        Self {
            stream: TokioIo::new(stream),
            waiting: Waiting::Head,
            deadline: Box::pin(sleep(HEAD)),
            answering,
            multiplexed: false,
            turns: 0,
        }
    }

    /// After a handshake: a request is due, as on a new connection.
    pub(super) fn begin(&mut self, multiplexed: bool) {
        self.multiplexed = multiplexed;
        self.wait(Waiting::Head, HEAD);
    }

    fn wait(&mut self, waiting: Waiting, limit: Duration) {
        self.waiting = waiting;
        self.deadline.as_mut().reset(Instant::now() + limit);
    }

    /// What a stream that is not ready comes to: pending, or an error once the deadline has passed.
    fn overdue<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (answering, turns) = self.answering.count();
        if self.multiplexed && turns != self.turns && self.waiting != Waiting::Writing {
            // Each request and each answer is a sign of life; single frames are none.
            self.turns = turns;
            self.wait(Waiting::Request, IDLE);
        }
        ready!(self.deadline.as_mut().poll(context));
        if answering > 0 {
            return Poll::Pending;
        }
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client took too long",
        )))
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(outcome) => {
                self.wait(Waiting::Request, IDLE);
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                if self.waiting != Waiting::Writing {
                    self.wait(Waiting::Writing, WRITE);
                }
                self.overdue(context)
            }
        }
    }
}

impl Read for Deadlines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(outcome) => {
                if self.waiting == Waiting::Request && !self.multiplexed {
                    self.wait(Waiting::Head, HEAD);
                }
                Poll::Ready(outcome)
            }
            // While an answer is written, only its own deadline counts.
            Poll::Pending if self.waiting == Waiting::Writing => Poll::Pending,
            Poll::Pending => self.overdue(context),
        }
    }
}

impl Write for Deadlines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
