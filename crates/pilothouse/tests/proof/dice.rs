//! What is left to chance.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that look random (xorshift64*), from a seed.
#[derive(Debug)]
pub struct Dice(AtomicU64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    /// A number below `sides`, which is not zero.
    pub fn below(&self, sides: u64) -> u64 {
        let next = |x: u64| {
            let x = x ^ (x >> 12);
            let x = x ^ (x << 25);
            x ^ (x >> 27)
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(next(x)));
        let x = next(before.unwrap_or_else(|same| same));
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    /// Whether something happens that does so once in `times`.
    pub fn once_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }
}
