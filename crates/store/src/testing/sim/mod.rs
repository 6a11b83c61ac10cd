//! A simulator of the embedded engine: its disk, its clock and its threads follow from one seed, and everything that it
//! tells is compared with a model.

mod ask;
mod drive;
mod judge;
mod machine;
mod script;

use std::fmt;

pub use drive::Done;

use self::drive::Driver;
use self::script::{Kind, Script};
use crate::embedded::hooks::Mutant;

/// Scripts tried to make a failing one shorter.
const ATTEMPTS: usize = 400;

/// A seed that found something.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    /// The boundary at which the power went, if it was not for the script to say.
    pub power: Option<u64>,
    /// What no store with etcd's semantics does.
    pub what: String,
    /// What happened, from the start.
    pub trace: Vec<String>,
    /// Of so many steps these are left.
    pub steps: (usize, usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, all) = self.steps;
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        writeln!(f, "what happened, with {left} of {all} steps:")?;
        self.trace.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        let power = self.power.map_or(String::new(), |power| format!(" PILOTHOUSE_POWER={power}"));
        write!(f, "again: PILOTHOUSE_SEED={}{power} cargo test -p pilothouse-store simulation::one_seed", self.seed)
    }
}

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
        let steps = (script.steps.len(), script.steps.len());
        Box::new(Failure { seed: script.seed, power, what, trace: std::mem::take(&mut driver.trace), steps })
    })
}

/// Leaves steps out of a failing script as long as it still fails.
pub fn shortened(failure: Failure, mutant: Option<Mutant>, power: Option<u64>) -> Failure {
    let mut script = script(failure.seed, power);
    let all = script.steps.len();
    let mut shortest = failure;
    let mut attempts = 0;
    let mut chunk = (all / 2).max(1);
    loop {
        let mut at = 0;
        while at < script.steps.len() && attempts < ATTEMPTS {
            attempts += 1;
            let end = (at + chunk).min(script.steps.len());
            let mut shorter = script.clone();
            shorter.steps.drain(at..end);
            match run(&shorter, mutant, power) {
                Ok(_) => at = end,
                Err(failure) => {
                    let left = shorter.steps.len();
                    shortest = Failure { steps: (left, all), ..*failure };
                    script = shorter;
                }
            }
        }
        if chunk == 1 || attempts >= ATTEMPTS {
            return shortest;
        }
        chunk /= 2;
    }
}
