//! How fast groups of lines are written.

use std::time::{Duration, Instant};

/// How many groups are written: on an average in a second, and at once at most.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    pub per_second: f64,
    pub burst: u32,
}

/// Lets groups through as a [`Throttle`] says.
pub(super) struct Gate {
    throttle: Throttle,
    tokens: f64,
    at: Instant,
}

impl Gate {
    pub(super) fn new(throttle: Throttle, now: Instant) -> Self {
        Gate { throttle, tokens: f64::from(throttle.burst), at: now }
    }

    /// How long the next group has to wait.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.throttle.per_second;
        self.tokens = (self.tokens + earned).min(f64::from(self.throttle.burst)) - 1.0;
        self.at = now;
        let missing = (-self.tokens).max(0.0) / self.throttle.per_second;
        Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX)
    }

    /// The last group has not waited: the next ones don't have to for it.
    pub(super) fn forgive(&mut self) {
        self.tokens = self.tokens.max(0.0);
    }
}
