//! How many requests are in flight, the most there were in the last second, and how long they were how many.

use super::timing::Timing;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Parts of how many there may be.
const PARTS: &[f64] = &[0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// Requests of one kind.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// A second, and the most there were in it.
    most: AtomicU64,
    now: Mutex<Now>,
}

/// How many there are now, and were of how many there may be.
#[derive(Debug)]
struct Now {
    timing: Timing,
    count: u32,
    since: Instant,
}

impl Now {
    /// Lets the time pass up to now.
    fn pass(&mut self) {
        let now = Instant::now();
        let nanos = now.saturating_duration_since(self.since).as_nanos();
        self.timing.pass(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.since = now;
    }

    fn set(&mut self, count: u32) {
        self.pass();
        self.count = count;
        self.timing.set(f64::from(count));
    }
}

impl Default for InFlight {
    fn default() -> Self {
        let now = Now { timing: Timing::new(PARTS), count: 0, since: Instant::now() };
        InFlight { most: AtomicU64::default(), now: Mutex::new(now) }
    }
}

fn pack(second: u32, most: u32) -> u64 {
    u64::from(second) << 32 | u64::from(most)
}

impl InFlight {
    /// Tells how many there may be, of which parts are told.
    pub(crate) fn of(&self, limit: u64) {
        let mut now = self.now();
        now.pass();
        now.timing.of(limit.max(1) as f64);
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, second: i64) {
        let now = {
            let mut now = self.now();
            let count = now.count + 1;
            now.set(count);
            count
        };
        let mut seen = self.most.load(Ordering::Relaxed);
        loop {
            // Who was told of the time a while ago does not undo what is known of a later second.
            let before = (seen >> 32) as u32;
            let second = if (second as u32).wrapping_sub(before).cast_signed() < 0 { before } else { second as u32 };
            if before == second && seen as u32 >= now {
                return;
            }
            match self.most.compare_exchange_weak(seen, pack(second, now), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    pub(crate) fn leave(&self) {
        let mut now = self.now();
        let count = now.count.saturating_sub(1);
        now.set(count);
    }

    /// Writes how long there were how many of how many there may be.
    pub(crate) fn write_parts(&self, out: &mut String, name: &str, labels: &str) -> fmt::Result {
        let mut now = self.now();
        now.pass();
        now.timing.write(out, name, labels)
    }

    /// The most there were in the last second.
    pub(crate) fn most(&self, second: i64) -> u32 {
        let (now, seen) = (self.now().count, self.most.load(Ordering::Relaxed));
        let recent = (second as u32).wrapping_sub((seen >> 32) as u32) <= 1;
        if recent { now.max(seen as u32) } else { now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_the_last_second_is_told() {
        let in_flight = InFlight::default();
        for _ in 0..3 {
            in_flight.enter(10);
        }
        (0..3).for_each(|_| in_flight.leave());
        in_flight.enter(10);
        assert_eq!((in_flight.most(10), in_flight.most(11), in_flight.most(12)), (3, 3, 1));
        in_flight.enter(12);
        assert_eq!(in_flight.most(12), 2);
        in_flight.enter(11);
        assert_eq!(in_flight.most(12), 3, "an earlier second does not hide a later one");
        in_flight.leave();
        assert_eq!(in_flight.most(13), 3);
    }

    #[test]
    fn the_time_is_told_that_there_were_some_of_those_there_may_be() {
        let in_flight = InFlight::default();
        in_flight.of(2);
        in_flight.enter(1);
        while in_flight.now().since.elapsed().as_nanos() == 0 {}
        in_flight.leave();
        let mut out = String::new();
        in_flight.write_parts(&mut out, "x", "phase=\"executing\"").expect("a String takes every write");
        let nanos = |bound: &str| {
            let start = format!("x_bucket{{phase=\"executing\",le=\"{bound}\"}} ");
            let line = out.lines().find_map(|line| line.strip_prefix(&*start)).expect("a bucket");
            line.parse::<u64>().expect("a number")
        };
        assert!(nanos("0.4") < nanos("0.5"), "one of two was there for a while: {out}");
        assert_eq!((nanos("0"), nanos("0.5")), (nanos("0.4"), nanos("+Inf")), "{out}");
    }
}
