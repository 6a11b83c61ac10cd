//! The engine on the simulator: many seeds, every boundary of a few, and known bugs that must be found.

use crate::testing::sim::{shortened, simulate};

#[test]
fn one_seed() {
    let Some(seed) = std::env::var("PILOTHOUSE_SEED").ok().and_then(|seed| seed.parse().ok()) else { return };
    if let Err(failure) = simulate(seed, None, None) {
        panic!("{}", shortened(*failure, None, None));
    }
}

#[test]
fn seeds() {
    let count: u64 = std::env::var("PILOTHOUSE_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(50);
    for seed in 0..count {
        if let Err(failure) = simulate(seed, None, None) {
            panic!("{}", shortened(*failure, None, None));
        }
    }
}

#[test]
fn survey() {
    let count: u64 = std::env::var("PILOTHOUSE_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(50);
    let start = std::time::Instant::now();
    let mut total = crate::testing::sim::Done::default();
    for seed in 0..count {
        match simulate(seed, None, None) {
            Err(failure) => println!("SEED {seed}: {}", failure.what),
            Ok(done) => {
                total.revisions += done.revisions;
                total.boundaries += done.boundaries;
                total.crashes += done.crashes;
                total.failures += done.failures;
                total.answers += done.answers;
                total.batches += done.batches;
            }
        }
    }
    println!("{total:?} {:?}", start.elapsed());
}
