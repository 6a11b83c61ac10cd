//! Simulations as tests: many seeds, every boundary of a few, bugs that must be found, and what found something, again.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::driver::Driver;
use super::seeds::{self, number};
use super::story::{self, Failure};
use super::world::{Script, World};

/// Of so many seeds that are tried for a time, one is tried at every boundary.
const EVERY: u64 = 100;

/// A world that is tried by tests, which [`simulation!`](crate::simulation) makes.
pub trait Tried: World {
    /// The package and the module of the tests.
    const TESTS: (&'static str, &'static str);
}

/// Simulates what a seed stands for, with a bug or without; or with one loss of power, at this boundary, and no other.
///
/// # Errors
/// When something was done that must not be.
fn simulate<W: Tried>(seed: u64, mutant: Option<W::Mutant>, power: Option<u64>) -> Result<W::Done, Box<Failure>> {
    run::<W>(&Script::of(seed), mutant, power)
}

/// What happens in the simulation of a seed.
fn trace<W: World>(seed: u64) -> Vec<String> {
    let script = Script::of(seed);
    let mut world = W::of(&script, None);
    let end = world.run(&script, None);
    world.note(|| format!("{end:?}"));
    std::mem::take(&mut world.rig().trace)
}

fn run<W: Tried>(
    script: &Script<W::Setting>,
    mutant: Option<W::Mutant>,
    power: Option<u64>,
) -> Result<W::Done, Box<Failure>> {
    let mut world = W::of(script, mutant);
    world.run(script, power).map_err(|what| {
        let (trace, steps) = (std::mem::take(&mut world.rig().trace), script.steps.len());
        Box::new(Failure { seed: script.seed, power, what, trace, steps: (steps, steps), tests: W::TESTS })
    })
}

/// Leaves steps out of a failing script as long as it still fails.
fn shortened<W: Tried>(failure: Failure, mutant: Option<W::Mutant>, power: Option<u64>) -> Failure {
    let script = Script::of(failure.seed);
    let shorter = |steps| run::<W>(&Script { steps, ..script.clone() }, mutant, power).map(drop);
    story::shortened(failure, script.steps.clone(), shorter)
}

/// What was done in the simulation of a seed.
///
/// # Panics
/// When it finds something.
pub fn passes<W: Tried>(seed: u64, power: Option<u64>) -> W::Done {
    simulate::<W>(seed, None, power).unwrap_or_else(|failure| panic!("{}", shortened::<W>(*failure, None, power)))
}

/// What was done together in the simulations of some seeds.
///
/// # Panics
/// When one finds something.
pub fn total<W: Tried>(seeds: Range<u64>) -> W::Done {
    seeds.fold(W::Done::default(), |mut total, seed| {
        total += passes::<W>(seed, None);
        total
    })
}

/// A bug that was put in is found by one of the first `bound` seeds, and that passes without it.
///
/// # Panics
/// When it is not.
#[allow(clippy::print_stdout, reason = "who asks for it wants to know how soon it is found")]
pub fn found<W: Tried>(mutant: W::Mutant, bound: u64) {
    let failure = (0..bound).find_map(|seed| simulate::<W>(seed, Some(mutant), None).err());
    let Some(failure) = failure else { panic!("{mutant:?} is not found by {bound} seeds") };
    println!("{mutant:?} is found by seed {}: {}", failure.seed, failure.what);
    passes::<W>(failure.seed, None);
}

/// The seeds of a share of all find nothing: as many as `usual`, or as `PILOTHOUSE_SEEDS` says.
///
/// # Panics
/// When one does.
pub fn share<W: Tried>(share: u64, usual: u64) {
    for seed in seeds::share(share, usual) {
        passes::<W>(seed, None);
    }
}

/// The power goes once at every boundary of a seed, each time in a run of its own, for as long as someone wants; tells how
/// often it went.
///
/// # Panics
/// When a run finds something.
pub fn at_every_boundary<W: Tried>(seed: u64, goes_on: impl Fn() -> bool) -> u64 {
    let script = Script::of(seed);
    // Counted in a run without a loss: up to its own boundary each of the others is the same.
    let mut world = W::of(&script, None);
    if world.run(&script, Some(u64::MAX)).is_err() {
        passes::<W>(seed, Some(u64::MAX));
    }
    let boundaries = world.rig().machine.boundaries();
    drop(world);
    for boundary in 0..boundaries {
        if !goes_on() {
            return boundary;
        }
        passes::<W>(seed, Some(boundary));
    }
    boundaries
}

/// The same for as many seeds from 0 on as `usual`, or a hundredth of what `PILOTHOUSE_SEEDS` says.
///
/// # Panics
/// When something is found, or a seed does too little.
pub fn every_boundary<W: Tried>(usual: u64) {
    for seed in 0..number("PILOTHOUSE_SEEDS").map_or(usual, |seeds| seeds / 100) {
        let boundaries = at_every_boundary::<W>(seed, || true);
        assert!(boundaries > 50, "seed {seed} does too little: it has {boundaries} boundaries");
    }
}

/// The same happens whenever one of the first seeds is simulated.
///
/// # Panics
/// When something else does.
pub fn always_the_same<W: Tried>(seeds: u64) {
    for seed in 0..seeds {
        assert_eq!(trace::<W>(seed), trace::<W>(seed));
    }
}

/// The seed of the environment, if there is one, finds nothing.
///
/// # Panics
/// When it does.
pub fn one_seed<W: Tried>() {
    if let Some(seed) = seeds::one() {
        passes::<W>(seed, number("PILOTHOUSE_POWER"));
    }
}

/// Seeds on all processors for as long as the environment says, some of them at every boundary.
///
/// # Panics
/// When one finds something.
#[allow(clippy::print_stdout, reason = "who asked for it wants to know what was done")]
pub fn for_a_time<W: Tried>() {
    let boundaries = AtomicU64::new(0);
    let done = seeds::for_a_time(|seed, there_is_time| {
        if seed.is_multiple_of(EVERY) {
            boundaries.fetch_add(at_every_boundary::<W>(seed, there_is_time), Ordering::Relaxed);
        }
        passes::<W>(seed, None)
    });
    if let Some((seeds, first, done)) = done {
        let boundaries = boundaries.into_inner();
        println!("{}: {seeds} seeds from {first} on, and {boundaries} boundaries of some: {done:?}", W::TESTS.1);
    }
}

/// Makes the tests of a simulation, given its world: as many seeds as `seeds` are tried each time, and as many of them as
/// `boundaries` at every boundary; each of the mutants is found by as many as `bound`.
#[macro_export]
macro_rules! simulation {
    (@shares $world:ty, $seeds:expr, $($name:ident: $share:expr,)*) => {
        $(
            #[test]
            fn $name() {
                $crate::testing::sim::trial::share::<$world>($share, $seeds);
            }
        )*
    };
    ($world:ty, seeds: $seeds:expr, boundaries: $boundaries:expr, bound: $bound:expr, mutants: {
        $($name:ident: $mutant:expr,)*
    }) => {
        impl $crate::testing::sim::trial::Tried for $world {
            const TESTS: (&'static str, &'static str) = (env!("CARGO_PKG_NAME"), module_path!());
        }

        mod mutants {
            use super::*;

            $(
                #[test]
                fn $name() {
                    $crate::testing::sim::trial::found::<$world>($mutant, $bound);
                }
            )*
        }

        $crate::simulation! { @shares $world, $seeds,
            seeds_of_the_first_share: 0, seeds_of_the_second_share: 1,
            seeds_of_the_third_share: 2, seeds_of_the_fourth_share: 3,
        }

        #[test]
        fn the_power_goes_at_every_boundary() {
            $crate::testing::sim::trial::every_boundary::<$world>($boundaries);
        }

        #[test]
        fn a_seed_always_stands_for_the_same() {
            $crate::testing::sim::trial::always_the_same::<$world>(10);
        }

        /// Not a test unless a seed is asked for (`PILOTHOUSE_SEED`): what found something does it again.
        #[test]
        fn one_seed() {
            $crate::testing::sim::trial::one_seed::<$world>();
        }

        /// Not a test unless a time is asked for (`PILOTHOUSE_SIMULATE_SECONDS`): seeds on all processors, new ones or from
        /// a given one on, until it is over or one finds something.
        #[test]
        fn for_a_time() {
            $crate::testing::sim::trial::for_a_time::<$world>();
        }
    };
}
