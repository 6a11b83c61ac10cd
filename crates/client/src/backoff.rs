//! How long to wait before something is tried again.

use std::time::Duration;
use tokio::time::Instant;

/// Short first, so that a start together with the API server costs nothing.
pub(crate) const FIRST: Duration = Duration::from_millis(20);
/// What has gone well is not asked for again sooner, as client-go's reflectors do: when a server ends all watches, all come.
pub(crate) const SETTLED: Duration = Duration::from_millis(800);
/// A node that could not reach its server hears of its pods again soon after it can.
const LAST: Duration = Duration::from_secs(5);
/// Trouble after so long without any is new trouble (client-go's reflectors: two minutes).
const QUIET: Duration = Duration::from_secs(120);

/// The pauses between attempts: each twice as long as the one before, and up to as much again by chance, so that not all
/// nodes of a cluster come at once. They begin anew after a while without one.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    /// What a pause is at most, but for chance.
    most: Duration,
    last: Instant,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::within(FIRST, LAST)
    }
}

impl Backoff {
    /// Pauses that grow from `first` to `most`, where others than those of a client of the API server are wanted.
    pub fn within(first: Duration, most: Duration) -> Self {
        Backoff { first, next: first, most, last: Instant::now() }
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let now = Instant::now();
        if now.duration_since(self.last) > QUIET {
            self.next = self.first;
        }
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        let pause = pause.mul_f64(1.0 + fastrand::f64());
        self.last = now + pause;
        pause
    }

    /// It has gone well once: from now on the first pause is longer.
    pub fn settle(&mut self) {
        self.first = SETTLED;
        self.next = self.next.max(SETTLED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_have_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let longest = (0..100).map(|_| backoff.pause()).max().unwrap();
        assert!(longest <= LAST * 2 && longest >= LAST, "{longest:?}");
        tokio::time::advance(QUIET + LAST * 2 + FIRST).await;
        assert!(backoff.pause() <= FIRST * 2);
        backoff.settle();
        assert!(backoff.pause() >= SETTLED);
        let mut backoff = Backoff::within(LAST, LAST * 2);
        let [first, .., last] = [(); 9].map(|()| backoff.pause());
        assert!(first >= LAST && first <= LAST * 2 && last >= LAST * 2 && last <= LAST * 4, "{first:?} {last:?}");
    }
}
