//! A connection that may not dawdle: one deadline, set anew whenever the connection changes what it waits
//! for. It runs against the client, not while the answer is being made.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
}

/// Whether an answer is being made; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Arc<AtomicBool>);

impl Answering {
    /// Waits for an answer.
    pub(super) async fn wait<F: Future>(&self, answer: F) -> F::Output {
        self.0.store(true, Ordering::Release);
        let answer = answer.await;
        self.0.store(false, Ordering::Release);
        answer
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
        }
    }

    fn wait(&mut self, waiting: Waiting, limit: Duration) {
        self.waiting = waiting;
        self.deadline.as_mut().reset(Instant::now() + limit);
    }

    /// What a stream that is not ready comes to: pending, or an error once the deadline has passed.
    fn overdue<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(context));
        if self.answering.0.load(Ordering::Acquire) {
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
                if self.waiting == Waiting::Request {
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
