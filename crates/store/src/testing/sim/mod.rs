//! A simulator of the embedded engine: its disk, its clock and its threads follow from one seed, and everything that it
//! tells is compared with a model.
//!
//! What is not the engine's alone serves the simulators of what stands on it too: the `machine`, what is `ask`ed of the store,
//! the `witness`, the `story` and the `seeds`.

pub mod ask;
mod drive;
mod judge;
pub mod machine;
mod script;
pub mod seeds;
pub mod story;
pub mod witness;

pub use drive::Done;

use self::drive::Driver;
use self::script::{Kind, Script};
use self::story::Failure;
use crate::embedded::hooks::Mutant;

/// Simulates what a seed stands for, with a bug or without; or with one loss of power, at this boundary, and no other.
///
/// # Errors
/// When the store did what it must not.
pub fn simulate(seed: u64, mutant: Option<Mutant>, power: Option<u64>) -> Result<Done, Box<Failure>> {
    run(&script(seed, power), mutant, power)
}

/// What happens in the simulation of a seed.
pub fn trace(seed: u64) -> Vec<String> {
    let script = script(seed, None);
    let mut driver = Driver::new(&script, None);
    let end = driver.run(None);
    driver.trace.push(format!("{end:?}"));
    driver.trace
}

fn script(seed: u64, power: Option<u64>) -> Script {
    let mut script = Script::of(seed);
    if power.is_some() {
        script.steps.retain(|step| !matches!(step.kind, Kind::Power | Kind::Kill));
    }
    script
}

fn run(script: &Script, mutant: Option<Mutant>, power: Option<u64>) -> Result<Done, Box<Failure>> {
    let mut driver = Driver::new(script, mutant);
    driver.run(power).map_err(|what| {
        let (trace, steps) = (std::mem::take(&mut driver.trace), (script.steps.len(), script.steps.len()));
        Box::new(Failure { seed: script.seed, power, what, trace, steps, package: env!("CARGO_PKG_NAME") })
    })
}

/// Leaves steps out of a failing script as long as it still fails.
pub fn shortened(failure: Failure, mutant: Option<Mutant>, power: Option<u64>) -> Failure {
    let script = script(failure.seed, power);
    let shorter = |steps| run(&Script { steps, ..script.clone() }, mutant, power).map(drop);
    story::shortened(failure, script.steps.clone(), shorter)
}
