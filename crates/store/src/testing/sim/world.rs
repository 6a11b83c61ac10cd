//! What a simulation is of, as the driver needs to know it: everything else is the same in all of them.

use std::fmt::Debug;
use std::ops::AddAssign;
use std::time::Duration;

use super::machine::Stop;
use super::rig::Rig;
use super::story::{self, Step};
use crate::Event;
use crate::embedded::Options;
use crate::testing::random::Random;

/// Why nothing that is right does this.
pub type Verdict = Result<(), String>;

/// What must be so.
///
/// # Errors
/// When it is not.
pub fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// So many times in a hundred a seed leaves a kind of step out.
const LEFT_OUT: u64 = 25;

/// What a step does: what can be done in every world, or in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<K> {
    Own(K),
    Upkeep,
    /// Time passes.
    Advance,
    /// The store ends some calls from now, and is started again: the power goes, or it is killed, and what it wrote stays in
    /// the page cache.
    Crash,
    /// Some of the disk's next calls fail, or no longer.
    Fail,
    Heal,
    /// All is finished and looked at.
    Settle,
}

/// What a seed decides beside the store's usual options and the steps.
pub trait Setting: Clone {
    /// What can be done in its world and not in every one.
    type Kind: Copy + Debug + PartialEq + 'static;

    /// How long values are, about.
    const VALUE: u64;
    /// A script has so many steps at least, and less than four times as many.
    const STEPS: u64;
    /// What is done, and how often.
    const WEIGHTS: &'static [(Kind<Self::Kind>, u64)];

    /// Draws one, for which the store may need other options.
    fn of(options: &mut Options, random: &mut Random) -> Self;

    /// How often something is done in it; `None`: any seed may have it more or less often, or not at all.
    fn weight(&self, kind: Kind<Self::Kind>, usual: u64) -> Option<u64>;
}

/// What a seed stands for.
#[derive(Clone, Debug)]
pub struct Script<S: Setting> {
    pub seed: u64,
    pub options: Options,
    pub setting: S,
    pub steps: Vec<Step<Kind<S::Kind>>>,
}

impl<S: Setting> Script<S> {
    /// The script of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut options = options(S::VALUE, &mut random);
        let setting = S::of(&mut options, &mut random);
        // Each seed leaves something out, so that what is left comes more often and in longer runs.
        let mut any = |usual| if random.chance(LEFT_OUT) { 0 } else { usual * (1 + random.below(3)) };
        let weigh = |(kind, usual): &(_, u64)| (*kind, setting.weight(*kind, *usual).unwrap_or_else(|| any(*usual)));
        let weights: Vec<_> = S::WEIGHTS.iter().map(weigh).collect();
        let count = S::STEPS + random.below(3 * S::STEPS);
        let steps = story::steps(&weights, count, &mut random);
        Self { seed, options, setting, steps }
    }
}

/// Options of a store whose values are about so long: one that always has room, or one that must give some back all the time.
fn options(value: u64, random: &mut Random) -> Options {
    Options {
        segment_bytes: 4096 + *random.pick(&[value, 3 * value, 10 * value]),
        checkpoint_bytes: *random.pick(&[2 * value, 7 * value, 1 << 20]),
        retention: *random.pick(&[None, None, Some(Duration::from_secs(5)), Some(Duration::from_secs(60))]),
        recent_bytes: *random.pick(&[0, value as usize, 4 << 20]),
        watch_events: *random.pick(&[6, 64 << 10]),
        ..Options::default()
    }
}

/// What can be done in a world and not in every one.
pub type KindOf<W> = <<W as World>::Setting as Setting>::Kind;

/// A store and what stands on it, with those who use them: what they do and what must be true of it. Driven by [`Driver`].
///
/// [`Driver`]: super::driver::Driver
pub trait World: Sized {
    type Setting: Setting;
    /// A bug that can be put in.
    type Mutant: Copy + Debug + Send + 'static;
    /// What was done, counted.
    type Done: Clone + Default + AddAssign + PartialEq + Debug + Send;

    /// Seats in the store's process, and behind them seats outside of it.
    const SEATS: (usize, usize);

    /// Puts a bug into what runs on the thread that calls it.
    fn mutate(mutant: Option<Self::Mutant>);

    /// Before anything is there but a disk.
    fn new(rig: Rig, setting: Self::Setting) -> Self;

    fn rig(&mut self) -> &mut Rig;

    /// Does something of its own.
    fn step(&mut self, kind: KindOf<Self>, random: &mut Random) -> Result<(), Stop>;

    /// How long nothing happens, in milliseconds.
    fn span(&self, random: &mut Random) -> u64;

    /// So much time has passed on the machine: does the same for other clocks.
    fn passed(&mut self, _millis: u64) {}

    /// The store is about to end: draws what else does, and whether it stays away ([`Rig::away`]).
    fn crash(&mut self, _random: &mut Random) {}

    /// The store's process is no more: forgets what was connected to it.
    fn ended(&mut self) -> Verdict;

    /// The store is open, and all that it has was [`seen`](Self::seen).
    fn opened(&mut self) -> Result<(), Stop> {
        Ok(())
    }

    /// Starts what does not run and should.
    fn start(&mut self) {}

    /// All that was taken away comes back, some of it only when this is done again.
    fn revive(&mut self) {
        self.start();
    }

    /// The last revision that was seen, or 1.
    fn revision(&self) -> i64;

    /// Judges what the store did next; `opened`: before it was opened, as it turns out now.
    fn seen(&mut self, events: &[Event], opened: bool) -> Verdict;

    /// The upkeep has done its work.
    fn kept_up(&mut self) {}

    /// What one thread has sent gets to another.
    fn carry(&mut self) {}

    /// Judges what was answered and told.
    fn look(&mut self) -> Verdict;

    /// Whether nothing was sent that has not arrived.
    fn is_quiet(&self) -> bool {
        true
    }

    /// Whether all is there and finished, now that nobody can go on. If not, time passes.
    ///
    /// # Errors
    /// When time is no excuse.
    fn is_settled(&self) -> Result<bool, String>;

    /// Looks at all, as it is settled.
    fn inspect(&mut self) -> Result<(), Stop> {
        Ok(())
    }

    /// After all.
    fn finish(&mut self) -> Result<Self::Done, String>;
}
