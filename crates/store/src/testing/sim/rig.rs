//! What every simulation does alike: a store on a machine, its ends and starts, and turns until something holds.

use std::fmt::Debug;
use std::ops::AddAssign;
use std::sync::Arc;

use super::machine::{Machine, Slot, Stop, take};
use super::story::{Step, brief};
use super::witness::Witness;
use crate::Error;
use crate::embedded::Options;
use crate::testing::disk::Loss;
use crate::testing::random::Random;

/// More turns than this in which nothing ends are a hang.
pub const TURNS: usize = 20_000;
/// Starts in a row after which a machine is given up.
const STARTS: usize = 100;

/// What a seed stands for.
pub trait Script: Clone {
    type Kind: Copy + Debug;

    /// The script of a seed.
    fn of(seed: u64) -> Self;

    fn seed(&self) -> u64;

    fn steps(&self) -> &[Step<Self::Kind>];

    /// The same with other steps.
    fn with(&self, steps: Vec<Step<Self::Kind>>) -> Self;

    /// Whether the store ends at a boundary because of such a step: it is left out when the boundary is asked for.
    fn crashes(kind: Self::Kind) -> bool;
}

/// The machine, who sees everything on it, and what happened.
pub struct Rig {
    pub machine: Machine,
    pub witness: Witness,
    /// What the store is opened with next.
    pub options: Options,
    /// What becomes of the page cache at the next end, if it is lost.
    pub loss: Option<Loss>,
    pub upkeep: Option<Slot<Result<(), Error>>>,
    /// Losses of power and kills.
    pub crashes: u64,
    /// What happened.
    pub trace: Vec<String>,
}

impl Rig {
    /// Around a machine on which no store was opened yet.
    pub fn new(machine: Machine, options: Options) -> Self {
        let witness = Witness::default();
        Self { machine, witness, options, loss: None, upkeep: None, crashes: 0, trace: Vec::new() }
    }

    pub fn note(&mut self, words: impl FnOnce() -> String) {
        let words = brief(&words());
        self.trace.push(format!("{:>7} ms  {words}", self.machine.now()));
    }

    /// The upkeep looks what is due, unless it does already.
    pub fn begin_upkeep(&mut self, all: bool) {
        if self.upkeep.is_none() && self.machine.is_open() {
            self.note(|| format!("upkeep, all: {all}"));
            let slot = Slot::default();
            self.machine.upkeep(all, &slot);
            self.upkeep = Some(slot);
        }
    }

    /// Takes note of the end of the upkeep; tells whether it has done its work.
    ///
    /// # Errors
    /// When it failed, and the disk did not.
    pub fn look_at_upkeep(&mut self) -> Result<bool, String> {
        let Some(result) = self.upkeep.as_ref().and_then(|slot| take(slot)) else { return Ok(false) };
        self.upkeep = None;
        match result {
            Ok(()) => Ok(true),
            Err(Error::Io { .. } | Error::ReadOnly { .. } | Error::Unknown { .. }) if self.machine.failures() > 0 => {
                Ok(false)
            }
            Err(error) => Err(format!("the upkeep failed: {error:?}")),
        }
    }

    /// The power goes, or the process is killed, at a boundary that is soon.
    pub fn crash_soon(&mut self, loss: Option<Loss>, within: u64, random: &mut Random) {
        self.loss = loss;
        self.machine.cut_after(random.below(within));
    }
}

/// Carries out a script on a rig and has everything judged that is told.
pub trait Driver: Sized {
    type Script: Script;
    /// A bug that can be put in.
    type Mutant: Copy + Debug + Send + 'static;
    /// What was done, counted.
    type Done: Clone + Default + AddAssign + PartialEq + Debug + Send;

    /// The package whose tests it is of.
    const PACKAGE: &'static str;

    fn new(script: Arc<Self::Script>, mutant: Option<Self::Mutant>) -> Self;

    fn rig(&self) -> &Rig;
    fn rig_mut(&mut self) -> &mut Rig;

    /// The power goes at a boundary that was asked for: what else ends then is drawn.
    fn cut_at_a_boundary(&mut self, random: &mut Random) {
        let _ = random;
    }

    /// Before the first step, when the store is open.
    fn begin(&mut self) -> Result<(), Stop> {
        Ok(())
    }

    /// Carries out a step.
    fn step(&mut self, step: Step<<Self::Script as Script>::Kind>) -> Result<(), Stop>;

    /// One thread goes on, and what it brings about is judged; `false` when none can.
    fn turn(&mut self) -> Result<bool, Stop>;

    /// The store is open.
    fn opened(&mut self) -> Result<(), Stop>;

    /// The store's process is no more: forgets what was connected to it.
    fn ended(&mut self) -> Result<(), String>;

    /// Whether the store is started again by itself.
    fn comes_back(&self) -> bool {
        true
    }

    /// After the last step: everything comes to rest and is looked at. Done again if the store ends meanwhile.
    fn last(&mut self) -> Result<(), Stop>;

    /// After all.
    fn finish(&mut self) -> Result<Self::Done, String>;

    /// Time passes.
    fn pass(&mut self, millis: u64) {
        self.rig().machine.hand().advance(millis);
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        self.rig_mut().note(words);
    }

    /// Carries out the script; also with a loss of power at one boundary.
    fn run(&mut self, script: &Self::Script, power: Option<u64>) -> Result<Self::Done, String> {
        if let Some(boundary) = power {
            let mut random = Random::new(script.seed() ^ boundary);
            self.rig_mut().machine.cut_after(boundary);
            self.rig_mut().loss = Some(Loss::any(&mut random));
            self.cut_at_a_boundary(&mut random);
        }
        self.through(Self::open)?;
        self.through(Self::begin)?;
        for step in script.steps() {
            self.through(|driver| driver.step(*step))?;
        }
        let mut finished = false;
        while !finished {
            self.through(|driver| {
                driver.last()?;
                finished = true;
                Ok(())
            })?;
        }
        self.finish()
    }

    /// Does something, and starts the store again if it ends meanwhile.
    fn through(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Stop>) -> Result<(), String> {
        let mut result = work(self);
        for _ in 0..STARTS {
            match result {
                Ok(()) => return Ok(()),
                Err(Stop::Wrong(words)) => return Err(words),
                Err(Stop::Off) => {
                    self.end()?;
                    result = if self.comes_back() { self.open() } else { Ok(()) };
                }
            }
        }
        Err("the machine does not start".into())
    }

    /// The store's process ends where it is.
    fn end(&mut self) -> Result<(), String> {
        self.rig_mut().crashes += 1;
        let loss = self.rig_mut().loss.take();
        self.note(|| format!("{} {loss:?}", if loss.is_some() { "POWER LOST" } else { "KILLED" }));
        self.leave(loss)
    }

    /// The same without a word; `loss`: the power goes with it.
    fn leave(&mut self, loss: Option<Loss>) -> Result<(), String> {
        let rig = self.rig_mut();
        rig.machine.end(loss)?;
        rig.witness.forget();
        rig.upkeep = None;
        self.ended()
    }

    /// The store is started, as often as it takes while its disk fails.
    fn open(&mut self) -> Result<(), Stop> {
        let downtime = *self.rig_mut().machine.random.pick(&[0, 5, 800, 20_000]);
        self.pass(downtime);
        loop {
            let rig = self.rig_mut();
            let before = rig.machine.failures();
            match rig.machine.open(&rig.options)? {
                Ok(()) => break,
                Err(Error::Io { .. }) if rig.machine.failures() > before => {
                    rig.note(|| "it could not be opened: the disk fails".into());
                    rig.machine.heal();
                    // The process that did not open its store ends.
                    rig.machine.end(None)?;
                }
                Err(error) => return Err(Stop::Wrong(format!("the store does not open: {error:?}"))),
            }
        }
        self.opened()
    }

    /// Turns until something holds.
    fn turns_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Stop> {
        for _ in 0..TURNS {
            if holds(self) {
                return Ok(());
            }
            if !self.turn()? {
                break;
            }
        }
        if holds(self) { Ok(()) } else { Err(Stop::Wrong(format!("it hangs: {what}"))) }
    }

    /// So many turns, if so many can be made.
    fn some_turns(&mut self, turns: u64) -> Result<(), Stop> {
        for _ in 0..turns {
            if !self.turn()? {
                break;
            }
        }
        Ok(())
    }
}
