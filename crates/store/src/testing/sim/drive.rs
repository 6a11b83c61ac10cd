//! Carries out a script on a machine and has everything judged that the store tells.

mod copy;
mod settle;

use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, StreamExt};

use super::ask::{Answer, Ask};
use super::judge::{Follower, Judge, Since};
use super::machine::{Machine, Slot, Stop};
use super::script::{Draw, Kind, Script};
use super::story::{Step, brief};
use super::witness::Witness;
use crate::embedded::hooks::{self, Mutant};
use crate::testing::disk::Loss;
use crate::testing::fiber;
use crate::testing::random::Random;
use crate::{Embedded, Error, KeyRange, Range, Store, Watch, WatchBatch, WatchStream};

/// Clients that ask, each one thing at a time.
const CLIENTS: usize = 4;
/// Watches that are followed at a time, in the seats behind the clients'.
const WATCHES: usize = 3;
/// More turns than this in which nothing ends are a hang.
const TURNS: usize = 20_000;

type Told = Option<Result<WatchBatch, Error>>;

struct Asked {
    ask: Ask,
    since: Since,
    answer: Slot<Answer>,
}

struct Watching {
    follower: Follower,
    /// Taken out while it is read.
    stream: Arc<Mutex<Option<WatchStream>>>,
    told: Slot<Told>,
    /// The last look found nothing.
    quiet: bool,
}

/// What one simulation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub revisions: i64,
    /// Boundaries at which the power could have gone.
    pub boundaries: u64,
    /// Losses of power and kills.
    pub crashes: u64,
    /// Calls of the disk that failed.
    pub failures: u64,
    /// What was asked, and answered.
    pub answers: u64,
    pub batches: u64,
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.revisions += other.revisions;
        self.boundaries += other.boundaries;
        self.crashes += other.crashes;
        self.failures += other.failures;
        self.answers += other.answers;
        self.batches += other.batches;
    }
}

/// A simulation under way.
pub struct Driver<'a> {
    script: &'a Script,
    machine: Machine,
    judge: Judge,
    witness: Witness,
    clients: [Option<Asked>; CLIENTS],
    watches: [Option<Watching>; WATCHES],
    /// Where those who were cut go on.
    resume: Vec<(KeyRange, i64)>,
    upkeep: Option<Slot<Result<(), Error>>>,
    unique: u64,
    /// What becomes of the page cache at the next end.
    loss: Option<Loss>,
    finished: bool,
    done: Done,
    /// The last things that happened.
    pub trace: Vec<String>,
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl<'a> Driver<'a> {
    pub fn new(script: &'a Script, mutant: Option<Mutant>) -> Self {
        Self {
            script,
            machine: Machine::new(script.seed, (CLIENTS + WATCHES, 0), move || hooks::mutate(mutant)),
            judge: Judge::new(&script.options),
            witness: Witness::default(),
            clients: Default::default(),
            watches: Default::default(),
            resume: Vec::new(),
            upkeep: None,
            unique: 0,
            loss: None,
            finished: false,
            done: Done::default(),
            trace: Vec::new(),
        }
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        let words = brief(&words());
        self.trace.push(format!("{:>7} ms  {words}", self.machine.now()));
    }

    /// Carries out the script; also with a loss of power at one boundary.
    pub fn run(&mut self, power: Option<u64>) -> Result<Done, String> {
        if let Some(boundary) = power {
            self.machine.cut_after(boundary);
            self.loss = Some(Loss::any(&mut Random::new(self.script.seed ^ boundary)));
        }
        self.through(Self::open)?;
        for step in &self.script.steps {
            self.through(|driver| driver.step(*step))?;
        }
        while !self.finished {
            self.through(Self::last)?;
        }
        self.done.revisions = self.judge.revision();
        self.done.boundaries = self.machine.boundaries();
        self.done.failures = self.machine.failures();
        Ok(self.done.clone())
    }

    /// Does something, and starts the machine again if its power goes meanwhile.
    fn through(&mut self, work: impl Fn(&mut Self) -> Result<(), Stop>) -> Result<(), String> {
        let mut result = work(self);
        for _ in 0..100 {
            match result {
                Ok(()) => return Ok(()),
                Err(Stop::Wrong(words)) => return Err(words),
                Err(Stop::Off) => {
                    self.end()?;
                    result = self.open();
                }
            }
        }
        Err("the machine does not start".into())
    }

    /// The process ends where it is.
    fn end(&mut self) -> Result<(), String> {
        self.done.crashes += 1;
        let loss = self.loss.take();
        self.note(|| format!("{} {loss:?}", if loss.is_some() { "POWER LOST" } else { "KILLED" }));
        self.machine.end(loss)?;
        self.forget();
        Ok(())
    }

    /// Drops what was connected to the process, which is no more.
    fn forget(&mut self) {
        self.witness.forget();
        self.clients = Default::default();
        for watching in self.watches.iter_mut().filter_map(Option::take) {
            self.resume.push((watching.follower.keys.clone(), watching.follower.next));
        }
        self.upkeep = None;
        self.judge.crashed(self.machine.now());
    }

    fn open(&mut self) -> Result<(), Stop> {
        let downtime = *self.machine.random.pick(&[0, 5, 800, 20_000]);
        self.machine.hand().advance(downtime);
        loop {
            let before = self.machine.failures();
            match self.machine.open(&self.script.options)? {
                Ok(()) => break,
                Err(Error::Io { .. }) if self.machine.failures() > before => {
                    self.note(|| "it could not be opened: the disk fails".into());
                    self.machine.heal();
                    // The process that did not open its store ends.
                    self.machine.end(None)?;
                }
                Err(error) => return Err(Stop::Wrong(format!("the store does not open: {error:?}"))),
            }
        }
        let engine = self.machine.engine();
        let status = fiber::wait(engine.status()).map_err(|error| format!("no status: {error:?}"))?;
        self.note(|| format!("opened at revision {}, compacted {}", status.revision, status.compacted));
        self.see(&engine, true)?;
        let now = self.machine.now();
        self.judge.recovered(status.revision, status.compacted, now)?;
        let read =
            fiber::wait(engine.range(Range::of(KeyRange::all()))).map_err(|error| format!("no range: {error:?}"))?;
        let expected = self.judge.model.read(&Range::of(KeyRange::all()), status.revision);
        if read != expected {
            return Err(format!("the store came back with\n {read:?}, and had\n {expected:?}").into());
        }
        Ok(())
    }

    /// Reads the witness; after a start all that was found.
    fn see(&mut self, engine: &Embedded, recovered: bool) -> Result<(), String> {
        let seen = self.witness.see(engine, self.judge.revision() + 1)?;
        self.judge.told(&seen, self.machine.now(), recovered)
    }

    /// One thread goes on; what it brings about is judged.
    fn turn(&mut self) -> Result<bool, Stop> {
        let went_on = self.machine.turn()?;
        let engine = self.machine.engine();
        self.see(&engine, false)?;
        self.look()?;
        Ok(went_on)
    }

    /// Judges what has been answered and told.
    fn look(&mut self) -> Result<(), String> {
        let (now, failures) = (self.machine.now(), self.machine.failures());
        for watching in self.watches.iter_mut().flatten() {
            self.judge.waits(&mut watching.follower);
        }
        for client in 0..CLIENTS {
            let Some(answer) = self.clients[client].as_ref().and_then(|asked| take(&asked.answer)) else { continue };
            let Some(Asked { ask, since, .. }) = self.clients[client].take() else { continue };
            self.note(|| format!("  #{} is answered {answer:?}", since.number));
            self.done.answers += 1;
            self.judge.answered(&ask, since, answer, now, failures)?;
        }
        for at in 0..WATCHES {
            let Some(told) = self.watches[at].as_ref().and_then(|watching| take(&watching.told)) else { continue };
            let Some(watching) = &mut self.watches[at] else { continue };
            let Some(told) = told else {
                watching.quiet = true;
                continue;
            };
            watching.quiet = false;
            self.done.batches += 1;
            let words = format!("  watch {at} is told {told:?}");
            let goes_on = self.judge.followed(&mut watching.follower, told, now, failures);
            let resume = (watching.follower.keys.clone(), watching.follower.next);
            self.note(|| words);
            if !goes_on? {
                self.resume.push(resume);
                self.watches[at] = None;
            }
        }
        if let Some(result) = self.upkeep.as_ref().and_then(|slot| take(slot)) {
            self.upkeep = None;
            match result {
                Ok(()) => {}
                Err(Error::Io { .. } | Error::ReadOnly { .. } | Error::Unknown { .. }) if failures > 0 => {}
                Err(error) => return Err(format!("the upkeep failed: {error:?}")),
            }
        }
        Ok(())
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

    /// Someone who has all answers asks: so a client can be slow while others do a lot.
    fn ask(&mut self, ask: Ask) -> Result<(), Stop> {
        let free = |driver: &Self| driver.clients.iter().position(Option::is_none);
        self.turns_until("no client is answered", |driver| free(driver).is_some())?;
        let client = free(self).unwrap_or_default();
        let since = self.judge.asked(&ask, self.machine.now(), self.machine.failures());
        self.note(|| format!("#{} {ask:?}", since.number));
        let (engine, answer) = (self.machine.engine(), Slot::default());
        let asked = ask.clone();
        self.machine.start(client, &answer, move || fiber::wait(asked.of(&engine)));
        self.clients[client] = Some(Asked { ask, since, answer });
        Ok(())
    }

    fn step(&mut self, step: Step<Kind>) -> Result<(), Stop> {
        let mut random = Random::new(step.dice);
        let (script, turns) = (self.script, random.below(8));
        let mut draw = Draw {
            random: random.clone(),
            judge: &self.judge,
            script,
            now: self.machine.now(),
            unique: &mut self.unique,
        };
        match step.kind {
            Kind::Txn => {
                let ask = draw.txn();
                self.ask(ask)?;
            }
            Kind::Read => {
                let ask = Ask::Range(draw.range());
                self.ask(ask)?;
            }
            Kind::Lease => {
                let ask = draw.lease_ask();
                self.ask(ask)?;
            }
            Kind::Compact => {
                let ask = draw.compact();
                self.ask(ask)?;
            }
            Kind::Ask => {
                let ask = if random.chance(50) { Ask::Status } else { Ask::Progress };
                self.ask(ask)?;
            }
            Kind::Watch => {
                let (keys, start) = match self.resume.pop() {
                    Some(cut) if random.chance(70) => cut,
                    _ => (draw.keys(), if random.chance(40) { 0 } else { draw.revision() }),
                };
                self.begin_watch(random.index(WATCHES), keys, start, random.chance(30))?;
            }
            Kind::Follow => self.follow(random.index(WATCHES), &mut random),
            Kind::Cut => self.cut(random.index(WATCHES))?,
            Kind::Upkeep => self.begin_upkeep(random.chance(50)),
            Kind::Squeeze => self.squeeze()?,
            Kind::Advance => {
                let ttl = self.judge.ttl(&mut random);
                let millis = script.pass(&mut random, ttl);
                self.note(|| format!("{millis} ms pass"));
                self.machine.hand().advance(millis);
            }
            Kind::WallJump => {
                let to = *random.pick(&[0, 1_600_000_000_000, 1_900_000_000_000, 4_000_000_000_000]);
                self.note(|| format!("the calendar is set to {to}"));
                self.machine.hand().set_wall(to);
            }
            Kind::Snapshot => self.snapshot(&mut random)?,
            Kind::Power => {
                self.loss = Some(Loss::any(&mut random));
                self.machine.cut_after(random.below(12));
            }
            Kind::Kill => {
                self.loss = None;
                self.machine.cut_after(random.below(12));
            }
            Kind::Reopen => {
                self.settle()?;
                self.note(|| "closed".into());
                self.machine.end(None)?;
                self.forget();
                self.open()?;
            }
            Kind::Fail => {
                let what = self.machine.fail_any(&mut random);
                self.note(|| what);
            }
            Kind::Heal => self.machine.heal(),
            Kind::Settle => self.settle()?,
        }
        for _ in 0..turns {
            if !self.turn()? {
                break;
            }
        }
        Ok(())
    }

    fn begin_upkeep(&mut self, all: bool) {
        if self.upkeep.is_none() {
            self.note(|| format!("upkeep, all: {all}"));
            let slot = Slot::default();
            self.machine.upkeep(all, &slot);
            self.upkeep = Some(slot);
        }
    }

    /// Those who read stay where they are while what they read is compacted and the space given back.
    fn squeeze(&mut self) -> Result<(), Stop> {
        if self.clients.iter().all(Option::is_some) {
            return Ok(());
        }
        let busy: Vec<usize> = (0..CLIENTS + WATCHES).filter(|seat| !self.machine.is_free(*seat)).collect();
        self.machine.freeze(busy);
        self.ask(Ask::Compact(self.judge.revision()))?;
        for _ in 0..2 {
            self.turns_until("the upkeep does not end", |driver| driver.upkeep.is_none())?;
            self.begin_upkeep(true);
        }
        self.turns_until("the upkeep does not end", |driver| driver.upkeep.is_none())?;
        self.machine.freeze([]);
        Ok(())
    }

    fn begin_watch(&mut self, at: usize, keys: KeyRange, start: i64, previous: bool) -> Result<(), Stop> {
        self.cut(at)?;
        let (now, failures) = (self.machine.now(), self.machine.failures());
        let follower = self.judge.watches(keys.clone(), previous, start, now, failures);
        self.note(|| format!("watch {at} of {keys:?} from {start}"));
        let watch = Watch { keys, start_revision: start, previous, progress: true };
        match fiber::wait(self.machine.engine().watch(watch)) {
            Ok(stream) => {
                let stream = Arc::new(Mutex::new(Some(stream)));
                self.watches[at] = Some(Watching { follower, stream, told: Slot::default(), quiet: false });
            }
            Err(error) => self.judge.watch_refused(&follower, error, now, failures)?,
        }
        Ok(())
    }

    /// Reads a few batches of a watch, if nobody does already.
    fn follow(&mut self, at: usize, random: &mut Random) {
        let (machine, watching) = (&self.machine, &self.watches[at]);
        if let Some(watching) = watching.as_ref().filter(|_| machine.is_free(CLIENTS + at) && random.chance(90)) {
            let stream = Arc::clone(&watching.stream);
            machine.start(CLIENTS + at, &watching.told, move || {
                let mut taken = take(&stream);
                let told = taken.as_mut().and_then(|stream| stream.next().now_or_never()).flatten();
                *stream.lock().unwrap_or_else(PoisonError::into_inner) = taken;
                told
            });
        }
    }

    /// Ends a watch from its reader's side.
    fn cut(&mut self, at: usize) -> Result<(), Stop> {
        self.turns_until("a watch is not read", |driver| driver.machine.is_free(CLIENTS + at))?;
        self.look()?;
        if let Some(watching) = self.watches[at].take() {
            self.note(|| format!("watch {at} is cut before {}", watching.follower.next));
            self.resume.push((watching.follower.keys.clone(), watching.follower.next));
        }
        Ok(())
    }

    /// Something a client does while everybody waits for it.
    fn now<T: Send + 'static>(&mut self, work: impl FnOnce(&Embedded) -> T + Send + 'static) -> Result<T, Stop> {
        self.turns_until("a client is not answered", |driver| driver.machine.is_free(0))?;
        let (engine, slot) = (self.machine.engine(), Slot::default());
        self.machine.start(0, &slot, move || work(&engine));
        self.turns_until("a client is not answered", |driver| driver.machine.is_free(0))?;
        take(&slot).ok_or_else(|| Stop::Wrong("a client did nothing".into()))
    }
}
