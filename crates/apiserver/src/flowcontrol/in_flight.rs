//! How many requests are in flight, and the most there were in the last second.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Requests of one kind.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    now: AtomicU32,
    /// A second, and the most there were in it.
    most: AtomicU64,
}

fn pack(second: u32, most: u32) -> u64 {
    u64::from(second) << 32 | u64::from(most)
}

impl InFlight {
    pub(crate) fn enter(&self, second: i64) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
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
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// The most there were in the last second.
    pub(crate) fn most(&self, second: i64) -> u32 {
        let (now, seen) = (self.now.load(Ordering::Relaxed), self.most.load(Ordering::Relaxed));
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
}
