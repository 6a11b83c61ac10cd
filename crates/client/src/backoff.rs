//! How long to wait before something is tried again.

use std::time::Duration;

/// Short first, so that a start together with the API server costs nothing.
pub(crate) const FIRST: Duration = Duration::from_millis(20);
/// As client-go's reflectors.
const LAST: Duration = Duration::from_secs(30);

/// The pauses between attempts: each twice as long as the one before, and up to as much again by chance, so that not all
/// nodes of a cluster come at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LAST);
        pause.mul_f64(1.0 + fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_have_a_bound() {
        let mut backoff = Backoff::default();
        let longest = (0..100).map(|_| backoff.pause()).max().unwrap();
        assert!(longest <= LAST * 2 && longest >= LAST, "{longest:?}");
    }
}
