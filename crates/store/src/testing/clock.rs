//! Clocks that go when they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::embedded::Clock;

/// Time as it really passes, and what a machine's calendar says, in milliseconds.
#[derive(Debug, Default)]
pub struct Hand {
    monotonic: AtomicU64,
    wall: AtomicI64,
}

impl Hand {
    /// The real time since the beginning.
    pub fn millis(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }

    /// Sets the real time since the beginning; it never goes back.
    pub fn set(&self, millis: u64) {
        self.monotonic.fetch_max(millis, Ordering::SeqCst);
    }

    /// Lets time pass, on the calendar too.
    pub fn advance(&self, millis: u64) {
        self.monotonic.fetch_add(millis, Ordering::SeqCst);
        self.wall.fetch_add(millis as i64, Ordering::SeqCst);
    }

    /// Sets the calendar.
    pub fn set_wall(&self, millis: i64) {
        self.wall.store(millis, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis())
    }

    fn wall_millis(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }
}

/// The clocks of one run of a machine: its measure of time begins anywhere.
#[derive(Debug)]
pub struct Run {
    hand: Arc<Hand>,
    started: u64,
    first: u64,
}

impl Run {
    /// A machine that starts now, and calls this moment `first` milliseconds.
    pub fn new(hand: &Arc<Hand>, first: u64) -> Self {
        Self { hand: Arc::clone(hand), started: hand.millis(), first }
    }
}

impl Clock for Run {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.hand.millis() - self.started + self.first)
    }

    fn wall_millis(&self) -> i64 {
        self.hand.wall_millis()
    }
}
