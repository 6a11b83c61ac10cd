//! Time as the engine sees it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Two clocks: one to measure with, one to write down.
///
/// Leases are measured with the first only, so setting the machine's time never ends one early.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment of this run; never goes back or jumps.
    fn monotonic(&self) -> Duration;

    /// Milliseconds since 1970 as the machine believes.
    fn wall_millis(&self) -> i64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_millis(&self) -> i64 {
        // A clock before 1970 is wrong anyway; nothing but the history's time stamps depends on it.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }
}
