//! Tells the service manager, systemd, that the program is ready, reloads, ends and is alive. Where none started the
//! program, nothing is sent.

use std::convert::Infallible;
use std::error::Error;
use std::time::{Duration, Instant};

use sd_notify::NotifyState::{self, Ready, Reloading, Stopping, Watchdog};
use tokio::time::sleep;
use tracing::warn;

use crate::status::Status;
use crate::store::Store;

/// How often the program makes sure that it is alive; a watchdog may want it more often.
const PAUSE: Duration = Duration::from_secs(10);

/// The program is ready, as `/-/ready` says too.
pub(super) fn ready() {
    tell(&[Ready, NotifyState::Status("ready")]);
}

/// A reload begins. It ends with [`ready`] or [`not_reloaded`].
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // In one message, as `Type=notify-reload` of systemd 253 wants it.
        Ok(now) => tell(&[Reloading, now]),
        Err(error) => warn!(error = &error as &dyn Error, "the clock cannot be read"),
    }
}

/// The reload was refused; `outlook` says how the program goes on.
pub(super) fn not_reloaded(outlook: &str) {
    let text = format!("not reloaded, see the log: {outlook}");
    tell(&[Ready, NotifyState::Status(&text)]);
}

/// The program is about to end.
pub(super) fn stopping() {
    tell(&[Stopping, NotifyState::Status("stopping")]);
}

/// Tells the status and the watchdog, again and again, that the program is alive: whoever runs this gets to run, and
/// the store's thread answers.
pub(super) async fn alive(store: Store, status: Status) -> Infallible {
    let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    let pause = limit.map_or(PAUSE, |limit| PAUSE.min(limit / 2));
    loop {
        if store.answers().await.is_ok() {
            status.store_answered(Instant::now());
            if limit.is_some() {
                tell(&[Watchdog]);
            }
        }
        sleep(pause).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(
            error = &error as &dyn Error,
            "the service manager cannot be told"
        );
    }
}
