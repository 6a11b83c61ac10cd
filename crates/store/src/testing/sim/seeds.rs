//! Which seeds are tried, as the environment has it.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seeds that are tried each time run in so many shares, side by side.
pub const SHARES: u64 = 4;

/// A number of the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seed that is asked for alone (`PILOTHOUSE_SEED`).
pub fn one() -> Option<u64> {
    number("PILOTHOUSE_SEED")
}

/// The seeds of a share of all: as many as `usual`, or as `PILOTHOUSE_SEEDS` says.
pub fn share(share: u64, usual: u64) -> impl Iterator<Item = u64> {
    (share..number("PILOTHOUSE_SEEDS").unwrap_or(usual)).step_by(SHARES as usize)
}

/// Runs seeds on all processors for `PILOTHOUSE_SIMULATE_SECONDS`, new ones or from `PILOTHOUSE_FIRST_SEED` on; tells how many
/// they were, the first, and what they did together. `None` when no time is asked for. `run` is told whether there is time left.
///
/// # Panics
/// When `run` does.
pub fn for_a_time<D: Default + AddAssign + Send>(
    run: impl Fn(u64, &dyn Fn() -> bool) -> D + Sync,
) -> Option<(u64, u64, D)> {
    let seconds = number("PILOTHOUSE_SIMULATE_SECONDS")?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = number("PILOTHOUSE_FIRST_SEED").unwrap_or_else(|| now().as_nanos() as u64);
    let end = now() + Duration::from_secs(seconds);
    let next = AtomicU64::new(first);
    let total = Mutex::new(D::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let there_is_time = || now() < end;
                while there_is_time() {
                    let done = run(next.fetch_add(1, Ordering::Relaxed), &there_is_time);
                    *total.lock().unwrap_or_else(PoisonError::into_inner) += done;
                }
            });
        }
    });
    let seeds = next.load(Ordering::Relaxed) - first;
    Some((seeds, first, total.into_inner().unwrap_or_else(PoisonError::into_inner)))
}
