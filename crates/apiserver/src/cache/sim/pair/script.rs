//! What happens, step by step.

use std::time::Duration;
use store::embedded::Options;
use store::testing::random::Random;
use store::testing::sim::rig;
use store::testing::sim::story::{self, Step};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Kind {
    /// Some write through the servers.
    Request,
    Compact,
    Upkeep,
    Advance,
    /// One server is told nothing, until it is released.
    Stall,
    Release,
    /// One server's calls, or its watch, are cut off.
    Lose,
    /// The store ends, with or without the page cache, and is started again.
    Crash,
    /// One server is started anew.
    Restart,
    /// All is finished.
    Settle,
}

const WEIGHTS: [(Kind, u64); 10] = [
    (Kind::Request, 60),
    (Kind::Compact, 2),
    (Kind::Upkeep, 2),
    (Kind::Advance, 6),
    (Kind::Stall, 4),
    (Kind::Release, 4),
    (Kind::Lose, 4),
    (Kind::Crash, 2),
    (Kind::Restart, 2),
    (Kind::Settle, 2),
];

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Script {
    pub(super) seed: u64,
    pub(super) options: Options,
    steps: Vec<Step<Kind>>,
}

impl rig::Script for Script {
    type Kind = Kind;

    fn seed(&self) -> u64 {
        self.seed
    }

    fn steps(&self) -> &[Step<Kind>] {
        &self.steps
    }

    fn with(&self, steps: Vec<Step<Kind>>) -> Script {
        Script { steps, ..self.clone() }
    }

    fn crashes(kind: Kind) -> bool {
        kind == Kind::Crash
    }

    fn of(seed: u64) -> Script {
        let mut random = Random::new(seed);
        let options = Options {
            segment_bytes: 4096 + *random.pick(&[6000, 20_000]),
            checkpoint_bytes: *random.pick(&[4000, 1 << 20]),
            retention: *random.pick(&[None, Some(Duration::from_secs(60))]),
            recent_bytes: *random.pick(&[0, 4 << 20]),
            ..Options::default()
        };
        // Each seed leaves something out, so that what is left comes more often and in longer runs.
        let weights = WEIGHTS.map(|(kind, weight)| match kind {
            Kind::Request => (kind, weight),
            _ if random.chance(25) => (kind, 0),
            _ => (kind, weight * (1 + random.below(3))),
        });
        let count = 20 + random.below(60);
        let steps = story::steps(&weights, count, &mut random);
        Script { seed, options, steps }
    }
}
