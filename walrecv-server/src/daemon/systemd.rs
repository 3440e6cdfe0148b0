//! What systemd is told: that the daemon is ready, reads its configuration again, is alive, or
//! stops. Without systemd, nobody is told anything.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{self, Instant};

/// How often the status is told where no watchdog wants to hear more often.
const STATUS: Duration = Duration::from_secs(15);

/// How often it is looked at for what has changed.
const LOOK: Duration = Duration::from_secs(1);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "systemd could not be told");
    }
}

/// The daemon does its work.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon reads its configuration again; [`ready`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The daemon comes to its end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that the daemon is alive, and how it is, for as long as it is polled: who does not get to
/// this has no time for anything else either. Never completes.
pub(super) async fn pulse(status: impl Fn() -> String) {
    let every = sd_notify::watchdog_enabled().map_or(STATUS, |limit| (limit / 3).min(STATUS));
    loop {
        let told = status();
        tell(&[NotifyState::Watchdog, NotifyState::Status(&told)]);
        let next = Instant::now() + every;
        // What has changed is told soon: somebody has done something, and looks what came of it.
        while Instant::now() < next && status() == told {
            time::sleep_until(next.min(Instant::now() + LOOK)).await;
        }
    }
}
