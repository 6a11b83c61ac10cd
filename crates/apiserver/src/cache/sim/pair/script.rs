//! What happens, step by step.

use store::embedded::Options;
use store::testing::random::Random;
use store::testing::sim::world;
use store::testing::sim::world::Kind::{Advance, Crash, Own, Settle, Upkeep};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Kind {
    /// Some write through the servers.
    Request,
    Compact,
    /// One server is told nothing, until it is released.
    Stall,
    Release,
    /// One server's calls, or its watch, are cut off.
    Lose,
    /// One server is started anew.
    Restart,
}

/// Nothing more than what every seed decides.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Setting;

impl world::Setting for Setting {
    type Kind = Kind;

    const VALUE: u64 = 2000;
    const STEPS: u64 = 20;
    const WEIGHTS: &'static [(world::Kind<Kind>, u64)] = &[
        (Own(Kind::Request), 60),
        (Own(Kind::Compact), 2),
        (Own(Kind::Stall), 4),
        (Own(Kind::Release), 4),
        (Own(Kind::Lose), 4),
        (Own(Kind::Restart), 2),
        (Upkeep, 2),
        (Advance, 6),
        (Crash, 2),
        (Settle, 2),
    ];

    fn of(_: &mut Options, _: &mut Random) -> Setting {
        Setting
    }

    fn weight(&self, kind: world::Kind<Kind>, usual: u64) -> Option<u64> {
        (kind == Own(Kind::Request)).then_some(usual)
    }
}
