//! What the service manager is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notify {
    pulse: Duration,
}

impl Notify {
    /// Reads what the service manager expects from the environment.
    #[must_use]
    pub fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|patience| patience / 2);
        Self { pulse: watchdog.unwrap_or(PULSE).clamp(PULSE_MIN, PULSE) }
    }

    /// How often [`Self::alive`] should be said.
    #[must_use]
    pub const fn pulse(&self) -> Duration {
        self.pulse
    }

    /// Requests are answered from now on.
    pub fn ready(&self) {
        say(&[NotifyState::Ready]);
    }

    /// The state turns; `summary` is the line in `systemctl status`.
    pub fn alive(&self, summary: &str) {
        say(&[NotifyState::Watchdog, NotifyState::Status(summary)]);
    }

    /// The end has begun.
    pub fn stopping(&self) {
        say(&[NotifyState::Stopping]);
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

fn say(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "service manager not told");
    }
}

const PULSE: Duration = Duration::from_secs(5);
const PULSE_MIN: Duration = Duration::from_millis(100);
