//! What is under way on a connection: answers that are being made, and bodies that the other side has yet to take.
//! HTTP/2 has several of both at once, and what its frames are about cannot be seen in the stream of bytes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// What is under way on a connection; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many answers are being made.
    making: usize,
    /// The bodies that are not sent yet, by number, and when something of each was taken last.
    bodies: BTreeMap<u64, Instant>,
    /// How often any of this has changed.
    turns: u64,
}

impl Answering {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        state.turns += 1;
        change(&mut state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an answer.
    pub(super) async fn wait<F: Future>(&self, answer: F) -> F::Output {
        self.change(|state| state.making += 1);
        let _making = Making(self);
        answer.await
    }

    /// A body that is under way from now on.
    pub(super) fn send<B>(&self, body: B) -> Sending<B> {
        let number = self.change(|state| {
            state.bodies.insert(state.turns, Instant::now());
            state.turns
        });
        let unsent = Arc::new(Unsent {
            answering: self.clone(),
            number,
        });
        Sending { body, unsent }
    }

    /// Whether an answer is being made.
    pub(super) fn is_making(&self) -> bool {
        self.state().making > 0
    }

    /// A number that grows with each beginning and end, and with each part of a body that is taken.
    pub(super) fn turns(&self) -> u64 {
        self.state().turns
    }

    /// Waits until nothing of a body has been taken for as long as `limit`, whatever else goes to and fro.
    pub(super) async fn stuck(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let oldest = self.state().bodies.values().min().copied();
            let due = oldest.unwrap_or(now) + limit;
            if due <= now {
                return;
            }
            // A body that begins meanwhile is due later.
            sleep_until(due).await;
        }
    }
}

/// An answer that is being made, until it is there or given up.
struct Making<'a>(&'a Answering);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.making -= 1);
    }
}

/// A body that is under way, until its last part is sent or it is given up.
#[derive(Debug)]
struct Unsent {
    answering: Answering,
    number: u64,
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.answering
            .change(|state| state.bodies.remove(&self.number));
    }
}

/// A body whose parts tell when they are taken.
#[derive(Debug)]
pub(super) struct Sending<B> {
    body: B,
    unsent: Arc<Unsent>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Sending<B> {
    type Data = Part;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| Part {
                bytes,
                unsent: Arc::clone(&self.unsent),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of a body.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    unsent: Arc<Unsent>,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, taken: usize) {
        self.bytes.advance(taken);
        let Unsent { answering, number } = &*self.unsent;
        answering.change(|state| state.bodies.insert(*number, Instant::now()));
    }
}
