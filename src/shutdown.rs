//! One stop for all tasks, and the signals that ask for it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Clone one into each task; dropping the [`Stop`] handle stops them all.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<()>);

/// Stops every task that holds the [`Shutdown`] when it is dropped.
#[derive(Debug)]
pub struct Stop(#[expect(dead_code, reason = "held to be dropped")] watch::Sender<()>);

/// A new pair.
pub fn channel() -> (Stop, Shutdown) {
    let (stop, shutdown) = watch::channel(());
    (Stop(stop), Shutdown(shutdown))
}

impl Shutdown {
    /// Runs `work` to its end, or returns `None` as soon as the process is asked to stop.
    pub async fn unless_stopped<F: Future>(&mut self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            _ = self.0.changed() => None,
            output = work => Some(output),
        }
    }

    /// Waits for the stop.
    pub async fn stopped(&mut self) {
        // Nothing is ever sent: the only change is the end.
        self.0.changed().await.ok();
    }
}

/// Waits for SIGTERM or SIGINT and names it.
pub async fn signalled() -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
