//! A connection that may not dawdle: one deadline, set anew whenever the connection changes what it waits
//! for. It runs against the client, not while the answer is being made.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::answering::Answering;

/// From the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// Between requests: longer than the usual scrape intervals, so that connections are used again.
const IDLE: Duration = Duration::from_secs(150);
/// For the other side to take some of the answer.
pub(super) const WRITE: Duration = Duration::from_secs(30);

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
    /// How far the answers were when the deadline was set.
    turns: u64,
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
        let turns = self.answering.turns();
        if self.multiplexed && turns != self.turns && self.waiting != Waiting::Writing {
            // Each request and each part of an answer is a sign of life; single frames are none.
            self.turns = turns;
            self.wait(Waiting::Request, IDLE);
        }
        ready!(self.deadline.as_mut().poll(context));
        if self.answering.is_making() {
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
                // On HTTP/2 this may be no answer, but a reply to a PING.
                if !self.multiplexed || self.waiting == Waiting::Writing {
                    self.wait(Waiting::Request, IDLE);
                }
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
