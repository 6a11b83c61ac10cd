//! Drives any world through its script: ends and starts of the store, steps, turns until something holds, and rest.

use super::machine::{Machine, Stop};
use super::rig::Rig;
use super::story::Step;
use super::world::{Kind, KindOf, Script, World, expect};
use crate::Error;
use crate::embedded::tools;
use crate::testing::disk::Loss;
use crate::testing::random::Random;

/// More turns than this in which nothing ends are a hang.
pub const TURNS: u64 = 20_000;
/// Starts in a row after which a machine is given up.
const STARTS: usize = 100;
/// So often time passes before all is settled.
const PATIENCE: usize = 30;
/// Whatever failed is tried again after as many milliseconds.
const AGAIN: u64 = 1001;
/// The store ends within so many calls.
const SOON: u64 = 12;

/// What is done with any world.
pub trait Driver: World {
    /// A world that is to go through a script.
    fn of(script: &Script<Self::Setting>, mutant: Option<Self::Mutant>) -> Self {
        let machine = Machine::new(script.seed, Self::SEATS, move || Self::mutate(mutant));
        Self::new(Rig::new(machine, script.options.clone()), script.setting.clone())
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        self.rig().note(words);
    }

    /// Carries out the script; also with a loss of power at one boundary.
    fn run(&mut self, script: &Script<Self::Setting>, power: Option<u64>) -> Result<Self::Done, String> {
        if let Some(boundary) = power {
            let mut random = Random::new(script.seed ^ boundary);
            self.crash_at(boundary, Some(Loss::any(&mut random)), &mut random);
            self.rig().ends_once = true;
        }
        self.through(Self::open)?;
        self.start();
        for step in &script.steps {
            self.through(|world| world.carry_out(*step))?;
        }
        let mut finished = false;
        while !finished {
            self.through(|world| {
                world.end_well()?;
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
                    result = if std::mem::take(&mut self.rig().away) { Ok(()) } else { self.open() };
                }
            }
        }
        Err("the machine does not start".into())
    }

    fn carry_out(&mut self, step: Step<Kind<KindOf<Self>>>) -> Result<(), Stop> {
        let mut random = Random::new(step.dice);
        let turns = random.below(10);
        match step.kind {
            Kind::Own(kind) => self.step(kind, &mut random)?,
            Kind::Upkeep => self.rig().begin_upkeep(random.chance(50)),
            Kind::Advance => {
                let millis = self.span(&mut random);
                self.note(|| format!("{millis} ms pass"));
                self.pass(millis);
            }
            Kind::Crash => self.crash_within(SOON, &mut random),
            Kind::Fail => {
                let what = self.rig().machine.fail_any(&mut random);
                self.note(|| what);
                if random.chance(40) {
                    // What a call that failed left behind shows when the page cache goes.
                    self.crash_within(2 * SOON, &mut random);
                }
            }
            Kind::Heal => {
                self.rig().machine.heal();
                if random.chance(50) {
                    // By now it tries again to write.
                    self.pass(AGAIN);
                }
            }
            Kind::Settle => self.settle()?,
        }
        self.start();
        self.some_turns(turns)
    }

    /// The power goes, or the store is killed, within so many calls.
    fn crash_within(&mut self, calls: u64, random: &mut Random) {
        if self.rig().machine.is_open() && !self.rig().ends_once {
            let loss = random.chance(60).then(|| Loss::any(random));
            self.crash_at(random.below(calls), loss, random);
        }
    }

    fn crash_at(&mut self, boundary: u64, loss: Option<Loss>, random: &mut Random) {
        let rig = self.rig();
        rig.machine.cut_after(boundary);
        rig.loss = loss;
        self.crash(random);
    }

    /// The store's process ends where it is.
    fn end(&mut self) -> Result<(), String> {
        self.rig().crashes += 1;
        let loss = self.rig().loss.take();
        self.note(|| format!("{} {loss:?}", if loss.is_some() { "POWER LOST" } else { "KILLED" }));
        self.leave(loss)
    }

    /// The same without a word; `loss`: the power goes with it.
    fn leave(&mut self, loss: Option<Loss>) -> Result<(), String> {
        let rig = self.rig();
        rig.machine.end(loss)?;
        rig.witness.forget();
        rig.upkeep = None;
        self.ended()
    }

    /// The store is started, as often as it takes while its disk fails.
    fn open(&mut self) -> Result<(), Stop> {
        let downtime = *self.rig().machine.random.pick(&[0, 5, 800, 20_000]);
        self.pass(downtime);
        loop {
            let rig = self.rig();
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
        self.see(true)?;
        self.note(|| "opened".into());
        self.opened()
    }

    /// The store is started if it stayed away.
    fn come_back(&mut self) -> Result<(), Stop> {
        self.rig().away = false;
        if self.rig().machine.is_open() { Ok(()) } else { self.open() }
    }

    /// Time passes.
    fn pass(&mut self, millis: u64) {
        self.rig().machine.hand().advance(millis);
        self.passed(millis);
    }

    /// Judges what the store did next, if it is open.
    fn see(&mut self, opened: bool) -> Result<(), String> {
        let next = self.revision() + 1;
        let rig = self.rig();
        let events = if rig.machine.is_open() { rig.witness.see(&rig.machine.engine(), next)? } else { Vec::new() };
        self.seen(&events, opened)
    }

    /// One thread goes on, and what it brings about is judged; `false` when none can.
    fn turn(&mut self) -> Result<bool, Stop> {
        let went_on = self.rig().machine.turn()?;
        self.carry();
        self.see(false)?;
        self.look()?;
        if self.rig().look_at_upkeep()? {
            self.kept_up();
        }
        Ok(went_on)
    }

    /// Turns until something holds, or so many; whether it holds.
    fn turns_while(&mut self, most: u64, holds: impl Fn(&Self) -> bool) -> Result<bool, Stop> {
        for _ in 0..most {
            if holds(self) {
                return Ok(true);
            }
            if !self.turn()? {
                break;
            }
        }
        Ok(holds(self))
    }

    /// Turns until something holds.
    fn turns_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Stop> {
        if self.turns_while(TURNS, holds)? { Ok(()) } else { Err(Stop::Wrong(format!("it hangs: {what}"))) }
    }

    /// So many turns, if so many can be made.
    fn some_turns(&mut self, turns: u64) -> Result<(), Stop> {
        self.turns_while(turns, |_| false).map(drop)
    }

    /// Turns until nobody can go on.
    fn rest(&mut self) -> Result<(), Stop> {
        for _ in 0..TURNS {
            if !self.turn()? && self.is_quiet() && self.rig().machine.is_quiet() {
                return Ok(());
            }
        }
        Err(Stop::Wrong("it never comes to rest".into()))
    }

    /// Everything comes back and comes to rest, and all is looked at.
    fn settle(&mut self) -> Result<(), Stop> {
        self.note(|| "settling".into());
        self.rig().machine.heal();
        self.rig().machine.freeze([]);
        self.come_back()?;
        for _ in 0..PATIENCE {
            self.revive();
            self.rest()?;
            if self.is_settled()? {
                return self.inspect();
            }
            // Whatever waits before it tries again does.
            self.pass(AGAIN);
        }
        Err(Stop::Wrong("it does not settle".into()))
    }

    /// After all, the store is whole on its disk, and the same when it is opened again.
    fn end_well(&mut self) -> Result<(), Stop> {
        self.settle()?;
        self.leave(None)?;
        let verification = tools::verify_on(&self.rig().machine.disk()).map_err(|error| format!("{error:?}"))?;
        expect(verification.damage.is_empty(), || format!("the store is damaged: {:?}", verification.damage))?;
        self.open()?;
        self.settle()
    }
}

impl<W: World> Driver for W {}
