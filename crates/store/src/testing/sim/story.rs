//! Stories that a seed decides: their steps, and what is told of one that went wrong.

use std::fmt;

use crate::testing::random::Random;

/// Scripts tried to make a failing one shorter.
const ATTEMPTS: usize = 400;

/// Something that is done. What exactly is drawn when it is carried out, from a number of its own: so steps can be left out
/// and the others still mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<K> {
    pub kind: K,
    /// What it draws from.
    pub dice: u64,
}

/// Draws steps, each kind as often as its weight says; not all weights are 0.
pub fn steps<K: Copy>(weights: &[(K, u64)], count: u64, random: &mut Random) -> Vec<Step<K>> {
    let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut draw = || {
        let mut at = random.below(total);
        let past = |(_, weight): &&(K, u64)| {
            let here = at < *weight;
            at = at.wrapping_sub(*weight);
            here
        };
        let kind = weights.iter().find(past).unwrap_or(&weights[0]).0;
        Step { kind, dice: random.draw() }
    };
    (0..count).map(|_| draw()).collect()
}

/// A seed that found something.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    /// The boundary at which the power went, if it was not for the script to say.
    pub power: Option<u64>,
    /// What must not be.
    pub what: String,
    /// What happened, from the start.
    pub trace: Vec<String>,
    /// Of so many steps these are left.
    pub steps: (usize, usize),
    /// The package and the module of its tests.
    pub tests: (&'static str, &'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, all) = self.steps;
        writeln!(f, "seed {}: {}", self.seed, without_padding(&self.what))?;
        writeln!(f, "what happened, with {left} of {all} steps:")?;
        self.trace.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        let power = self.power.map_or(String::new(), |power| format!(" PILOTHOUSE_POWER={power}"));
        let (package, module) = self.tests;
        let module = module.split_once("::").map_or("", |(_, module)| module);
        write!(f, "again: PILOTHOUSE_SEED={}{power} cargo test -p {package} --lib {module}::one_seed", self.seed)
    }
}

/// Leaves steps out of a story that fails as long as it still fails; `run` tells one of these steps.
pub fn shortened<K: Clone>(
    failure: Failure,
    mut steps: Vec<Step<K>>,
    run: impl Fn(Vec<Step<K>>) -> Result<(), Box<Failure>>,
) -> Failure {
    let all = steps.len();
    let mut shortest = failure;
    let mut attempts = 0;
    let mut chunk = (all / 2).max(1);
    loop {
        let mut at = 0;
        while at < steps.len() && attempts < ATTEMPTS {
            attempts += 1;
            let end = (at + chunk).min(steps.len());
            let mut shorter = steps.clone();
            shorter.drain(at..end);
            match run(shorter.clone()) {
                Ok(()) => at = end,
                Err(failure) => {
                    shortest = Failure { steps: (shorter.len(), all), ..*failure };
                    steps = shorter;
                }
            }
        }
        if chunk == 1 || attempts >= ATTEMPTS {
            return shortest;
        }
        chunk /= 2;
    }
}

/// What happened in one line: without padding, and what is very long is cut.
pub fn brief(words: &str) -> String {
    without_padding(words).chars().take(700).collect()
}

/// Padding, which is many of `x`, is counted.
fn without_padding(words: &str) -> String {
    let mut line = String::new();
    for run in words.as_bytes().chunk_by(|a, b| a == b && *a == b'x') {
        match run {
            [b'x', _, _, _, ..] => line.push_str(&format!("x*{}", run.len())),
            other => line.push_str(&String::from_utf8_lossy(other)),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_how_to_run_it_again() {
        let tests = ("a-package", "a_crate::tests::pair");
        let failure = Failure { seed: 7, power: Some(3), what: "no".into(), trace: Vec::new(), steps: (1, 2), tests };
        let again = "PILOTHOUSE_SEED=7 PILOTHOUSE_POWER=3 cargo test -p a-package --lib tests::pair::one_seed";
        assert!(failure.to_string().ends_with(again), "{failure}");
    }
}
