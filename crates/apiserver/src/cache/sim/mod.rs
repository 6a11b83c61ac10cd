//! A simulator of the watch cache: the real one, over the real engine on a simulated disk, clock and scheduling. All follows
//! from one seed, and everything that is listed, got and watched is compared with what the store ever told.
//!
//! The tasks of the API server and its clients run on threads that take turns with the engine's (`store::testing::fiber`), so
//! another may come in between wherever one waits, and where [`super::hooks::pause`] is. What the API server has of the store
//! it has over a `wire`.

mod client;
mod done;
mod drive;
mod follow;
mod history;
mod judge;
mod script;
mod server;
mod view;
mod wire;

pub(super) use done::Done;

use super::hooks::Mutant;
use drive::World;
use script::Script;
use store::testing::sim::story::{self, Failure};

/// Simulates what a seed stands for, with a bug or without.
///
/// # Errors
/// When the API server did what it must not.
pub(super) fn simulate(seed: u64, mutant: Option<Mutant>) -> Result<Done, Box<Failure>> {
    run(&Script::of(seed), mutant)
}

/// What happens in the simulation of a seed.
pub(super) fn trace(seed: u64) -> Vec<String> {
    let script = Script::of(seed);
    let mut world = World::new(&script, None);
    let end = world.run();
    world.trace.push(format!("{end:?}"));
    std::mem::take(&mut world.trace)
}

fn run(script: &Script, mutant: Option<Mutant>) -> Result<Done, Box<Failure>> {
    let mut world = World::new(script, mutant);
    world.run().map_err(|what| {
        let (trace, steps) = (std::mem::take(&mut world.trace), (script.steps.len(), script.steps.len()));
        Box::new(Failure { seed: script.seed, power: None, what, trace, steps, package: env!("CARGO_PKG_NAME") })
    })
}

/// Leaves steps out of a failing script as long as it still fails.
pub(super) fn shortened(failure: Failure, mutant: Option<Mutant>) -> Failure {
    let script = Script::of(failure.seed);
    let shorter = |steps| run(&Script { steps, ..script.clone() }, mutant).map(drop);
    story::shortened(failure, script.steps.clone(), shorter)
}
