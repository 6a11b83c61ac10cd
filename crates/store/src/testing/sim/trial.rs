//! Simulations as tests: many seeds, every boundary of a few, bugs that must be found, and what found something, again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::rig::{Driver, Script};
use super::seeds::{self, number};
use super::story::{self, Failure, Step};

/// Of so many seeds that are tried for a time, one is tried at every boundary.
const EVERY: u64 = 100;

/// Simulates what a seed stands for, with a bug or without; or with one loss of power, at this boundary, and no other.
///
/// # Errors
/// When something was done that must not be.
pub fn simulate<D: Driver>(seed: u64, mutant: Option<D::Mutant>, power: Option<u64>) -> Result<D::Done, Box<Failure>> {
    run::<D>(script::<D::Script>(seed, power), mutant, power)
}

/// What happens in the simulation of a seed.
pub fn trace<D: Driver>(seed: u64) -> Vec<String> {
    let script = Arc::new(D::Script::of(seed));
    let mut driver = D::new(Arc::clone(&script), None);
    let end = driver.run(&script, None);
    driver.note(|| format!("{end:?}"));
    std::mem::take(&mut driver.rig_mut().trace)
}

fn script<S: Script>(seed: u64, power: Option<u64>) -> S {
    let script = S::of(seed);
    if power.is_none() {
        return script;
    }
    let steps = script.steps().iter().filter(|step| !S::crashes(step.kind)).copied();
    script.with(steps.collect())
}

fn run<D: Driver>(script: D::Script, mutant: Option<D::Mutant>, power: Option<u64>) -> Result<D::Done, Box<Failure>> {
    let script = Arc::new(script);
    let mut driver = D::new(Arc::clone(&script), mutant);
    driver.run(&script, power).map_err(|what| {
        let (trace, steps) = (std::mem::take(&mut driver.rig_mut().trace), script.steps().len());
        Box::new(Failure { seed: script.seed(), power, what, trace, steps: (steps, steps), package: D::PACKAGE })
    })
}

/// Leaves steps out of a failing script as long as it still fails.
pub fn shortened<D: Driver>(failure: Failure, mutant: Option<D::Mutant>, power: Option<u64>) -> Failure {
    let script = script::<D::Script>(failure.seed, power);
    let shorter = |steps: Vec<Step<_>>| run::<D>(script.with(steps), mutant, power).map(drop);
    story::shortened(failure, script.steps().to_vec(), shorter)
}

/// What was done in the simulation of a seed.
///
/// # Panics
/// When it finds something.
pub fn passes<D: Driver>(seed: u64, power: Option<u64>) -> D::Done {
    simulate::<D>(seed, None, power).unwrap_or_else(|failure| panic!("{}", shortened::<D>(*failure, None, power)))
}

/// A bug that was put in is found by one of the first `bound` seeds, and that passes without it.
///
/// # Panics
/// When it is not.
#[allow(clippy::print_stdout, reason = "who asks for it wants to know how soon it is found")]
pub fn found<D: Driver>(mutant: D::Mutant, bound: u64) {
    let failure = (0..bound).find_map(|seed| simulate::<D>(seed, Some(mutant), None).err());
    let Some(failure) = failure else { panic!("{mutant:?} is not found by {bound} seeds") };
    println!("{mutant:?} is found by seed {}: {}", failure.seed, failure.what);
    passes::<D>(failure.seed, None);
}

/// The seeds of a share of all find nothing: as many as `usual`, or as `PILOTHOUSE_SEEDS` says.
///
/// # Panics
/// When one does.
pub fn share<D: Driver>(share: u64, usual: u64) {
    for seed in seeds::share(share, usual) {
        passes::<D>(seed, None);
    }
}

/// The power goes once at every boundary of a seed, each time in a run of its own, for as long as someone wants; tells how
/// often it went.
///
/// # Panics
/// When a run finds something.
pub fn at_every_boundary<D: Driver>(seed: u64, goes_on: impl Fn() -> bool) -> u64 {
    let script = Arc::new(script::<D::Script>(seed, Some(u64::MAX)));
    // Counted in a run without a loss: up to its own boundary each of the others is the same.
    let mut driver = D::new(Arc::clone(&script), None);
    if driver.run(&script, Some(u64::MAX)).is_err() {
        passes::<D>(seed, Some(u64::MAX));
    }
    let boundaries = driver.rig().machine.boundaries();
    drop(driver);
    for boundary in 0..boundaries {
        if !goes_on() {
            return boundary;
        }
        passes::<D>(seed, Some(boundary));
    }
    boundaries
}

/// The same for as many seeds from 0 on as `usual`, or a hundredth of what `PILOTHOUSE_SEEDS` says.
///
/// # Panics
/// When something is found, or a seed does too little.
pub fn every_boundary<D: Driver>(usual: u64) {
    for seed in 0..number("PILOTHOUSE_SEEDS").map_or(usual, |seeds| seeds / 100) {
        let boundaries = at_every_boundary::<D>(seed, || true);
        assert!(boundaries > 50, "seed {seed} does too little: it has {boundaries} boundaries");
    }
}

/// The same happens whenever one of the first seeds is simulated.
///
/// # Panics
/// When something else does.
pub fn always_the_same<D: Driver>(seeds: u64) {
    for seed in 0..seeds {
        assert_eq!(trace::<D>(seed), trace::<D>(seed));
    }
}

/// The seed of the environment, if there is one, finds nothing.
///
/// # Panics
/// When it does.
pub fn one_seed<D: Driver>() {
    if let Some(seed) = seeds::one() {
        passes::<D>(seed, number("PILOTHOUSE_POWER"));
    }
}

/// Seeds on all processors for as long as the environment says, some of them at every boundary.
///
/// # Panics
/// When one finds something.
#[allow(clippy::print_stdout, reason = "who asked for it wants to know what was done")]
pub fn for_a_time<D: Driver>() {
    let boundaries = AtomicU64::new(0);
    let done = seeds::for_a_time(|seed, there_is_time| {
        if seed.is_multiple_of(EVERY) {
            boundaries.fetch_add(at_every_boundary::<D>(seed, there_is_time), Ordering::Relaxed);
        }
        passes::<D>(seed, None)
    });
    if let Some((seeds, first, done)) = done {
        let boundaries = boundaries.into_inner();
        println!("{}: {seeds} seeds from {first} on, and {boundaries} boundaries of some: {done:?}", D::PACKAGE);
    }
}

/// Makes the tests of a simulation, given its driver: as many seeds as `seeds` are tried each time, and as many of them as
/// `boundaries` at every boundary; each of the mutants is found by as many as `bound`.
#[macro_export]
macro_rules! simulation {
    ($driver:ty, seeds: $seeds:expr, boundaries: $boundaries:expr, bound: $bound:expr, mutants: {
        $($name:ident: $mutant:expr,)*
    }) => {
        mod mutants {
            use super::*;

            $(
                #[test]
                fn $name() {
                    $crate::testing::sim::trial::found::<$driver>($mutant, $bound);
                }
            )*
        }

        #[test]
        fn seeds_of_the_first_share() {
            $crate::testing::sim::trial::share::<$driver>(0, $seeds);
        }

        #[test]
        fn seeds_of_the_second_share() {
            $crate::testing::sim::trial::share::<$driver>(1, $seeds);
        }

        #[test]
        fn seeds_of_the_third_share() {
            $crate::testing::sim::trial::share::<$driver>(2, $seeds);
        }

        #[test]
        fn seeds_of_the_fourth_share() {
            $crate::testing::sim::trial::share::<$driver>(3, $seeds);
        }

        #[test]
        fn the_power_goes_at_every_boundary() {
            $crate::testing::sim::trial::every_boundary::<$driver>($boundaries);
        }

        #[test]
        fn a_seed_always_stands_for_the_same() {
            $crate::testing::sim::trial::always_the_same::<$driver>(10);
        }

        /// Not a test unless a seed is asked for (`PILOTHOUSE_SEED`): what found something does it again.
        #[test]
        fn one_seed() {
            $crate::testing::sim::trial::one_seed::<$driver>();
        }

        /// Not a test unless a time is asked for (`PILOTHOUSE_SIMULATE_SECONDS`): seeds on all processors, new ones or from
        /// a given one on, until it is over or one finds something.
        #[test]
        fn for_a_time() {
            $crate::testing::sim::trial::for_a_time::<$driver>();
        }
    };
}
