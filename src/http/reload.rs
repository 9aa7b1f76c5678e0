//! `/-/reload` on its way to whoever reloads, and the outcome on its way back.

use tokio::sync::{mpsc, oneshot};

/// So many requests wait to be taken; more wait to be put there.
const WAITING: usize = 8;

/// Why nothing was reloaded, every problem on a line of its own.
pub type Problems = String;

/// Asks for reloads; clones ask the same.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::Sender<Request>);

/// A reload that somebody waits for.
#[derive(Debug)]
pub struct Request(oneshot::Sender<Result<(), Problems>>);

/// A new pair: what asks, and what is asked.
pub fn channel() -> (Reloader, mpsc::Receiver<Request>) {
    let (requests, queue) = mpsc::channel(WAITING);
    (Reloader(requests), queue)
}

impl Reloader {
    /// Asks for a reload and waits for its outcome; `None` when the program is ending.
    pub async fn reload(&self) -> Option<Result<(), Problems>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Request(answer)).await.ok()?;
        answered.await.ok()
    }
}

impl Request {
    /// Tells the outcome to the one who asked.
    pub fn answer(self, outcome: Result<(), Problems>) {
        // Nobody waits any more when the client has gone.
        self.0.send(outcome).ok();
    }
}
