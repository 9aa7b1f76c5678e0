//! One stop for many tasks, and the signals that ask for it or for a reload.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
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
    /// Runs `work` to its end, or returns `None` as soon as it is asked to stop.
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

/// SIGTERM, SIGINT and SIGHUP, caught from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// SIGHUP by its name: the terminal is gone, or a daemon is to reload its configuration.
pub const HANGUP: &str = "SIGHUP";

impl Signals {
    /// Catches the signals; within a runtime.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one, or tells the one that came before, by its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => HANGUP,
        }
    }
}
