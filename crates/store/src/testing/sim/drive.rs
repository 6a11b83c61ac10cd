//! Carries out a script on a machine and has everything judged that the store tells.

mod copy;
mod settle;

use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, StreamExt};

use super::ask::{Answer, Ask};
use super::judge::{Follower, Judge, Since};
use super::machine::{Machine, Slot, Stop, take};
use super::rig::{Driver, Rig};
use super::script::{self, Draw, Kind, Script};
use super::story::Step;
use crate::embedded::hooks::{self, Mutant};
use crate::embedded::{Clock, Undo};
use crate::testing::disk::Loss;
use crate::testing::fiber;
use crate::testing::random::Random;
use crate::{Embedded, Error, KeyRange, Range, RangeResult, Store, Watch, WatchBatch, WatchStream};

/// Clients that ask, each one thing at a time.
const CLIENTS: usize = 4;
/// Watches that are followed at a time, in the seats behind the clients'.
const WATCHES: usize = 3;
type Told = Option<Result<WatchBatch, Error>>;

struct Asked {
    ask: Ask,
    since: Since,
    answer: Slot<Answer>,
    /// What it finds is wanted.
    recalls: bool,
}

struct Watching {
    follower: Follower,
    /// Taken out while it is read.
    stream: Arc<Mutex<Option<WatchStream>>>,
    told: Slot<Told>,
    /// The last look found nothing.
    quiet: bool,
}

crate::counted! {
    /// What one simulation did.
    pub struct Done {
        revisions: i64,
        /// Boundaries at which the power could have gone.
        boundaries: u64,
        /// Losses of power and kills.
        crashes: u64,
        /// Calls of the disk that failed.
        failures: u64,
        /// What was asked, and answered.
        answers: u64,
        /// Of them, what was told of history beyond the compaction mark.
        recalled: u64,
        batches: u64,
    }
}

/// The store under way.
pub struct Simulation {
    script: Arc<Script>,
    rig: Rig,
    judge: Judge,
    clients: [Option<Asked>; CLIENTS],
    watches: [Option<Watching>; WATCHES],
    /// Where those who were cut go on.
    resume: Vec<(KeyRange, i64)>,
    /// What was found of the past last.
    recalled: Option<RangeResult>,
    unique: u64,
    done: Done,
}

impl Driver for Simulation {
    type Script = Script;
    type Mutant = Mutant;
    type Done = Done;

    const PACKAGE: &'static str = env!("CARGO_PKG_NAME");

    fn new(script: Arc<Script>, mutant: Option<Mutant>) -> Self {
        let machine = Machine::new(script.seed, (CLIENTS + WATCHES, 0), move || hooks::mutate(mutant));
        let rig = Rig::new(machine, script.options.clone());
        Self {
            judge: Judge::new(&script.options),
            script,
            rig,
            clients: Default::default(),
            watches: Default::default(),
            resume: Vec::new(),
            recalled: None,
            unique: 0,
            done: Done::default(),
        }
    }

    fn rig(&self) -> &Rig {
        &self.rig
    }

    fn rig_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }

    fn finish(&mut self) -> Result<Done, String> {
        self.done.revisions = self.judge.revision();
        self.done.boundaries = self.rig.machine.boundaries();
        self.done.failures = self.rig.machine.failures();
        self.done.crashes = self.rig.crashes;
        Ok(self.done.clone())
    }

    /// Drops what was connected to the process, which is no more.
    fn ended(&mut self) -> Result<(), String> {
        self.clients = Default::default();
        for watching in self.watches.iter_mut().filter_map(Option::take) {
            self.resume.push((watching.follower.keys.clone(), watching.follower.next));
        }
        self.judge.crashed(self.rig.machine.now());
        Ok(())
    }

    fn opened(&mut self) -> Result<(), Stop> {
        let engine = self.rig.machine.engine();
        let status = fiber::wait(engine.status()).map_err(|error| format!("no status: {error:?}"))?;
        self.note(|| format!("opened at revision {}, compacted {}", status.revision, status.compacted));
        self.see(&engine, true)?;
        let now = self.rig.machine.now();
        self.judge.recovered(status.revision, status.compacted, now)?;
        let read =
            fiber::wait(engine.range(Range::of(KeyRange::all()))).map_err(|error| format!("no range: {error:?}"))?;
        let expected = self.judge.model.read(&Range::of(KeyRange::all()), status.revision);
        if read != expected {
            return Err(format!("the store came back with\n {read:?}, and had\n {expected:?}").into());
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<bool, Stop> {
        let went_on = self.rig.machine.turn()?;
        let engine = self.rig.machine.engine();
        self.see(&engine, false)?;
        self.look()?;
        Ok(went_on)
    }

    fn step(&mut self, step: Step<Kind>) -> Result<(), Stop> {
        self.carry_out(step)
    }

    fn last(&mut self) -> Result<(), Stop> {
        self.whole()
    }
}

impl Simulation {
    /// Reads the witness; after a start all that was found.
    fn see(&mut self, engine: &Embedded, recovered: bool) -> Result<(), String> {
        let seen = self.rig.witness.see(engine, self.judge.revision() + 1)?;
        self.judge.wall = self.rig.machine.hand().wall_millis();
        self.judge.told(&seen, self.rig.machine.now(), recovered)
    }

    /// Judges what has been answered and told.
    fn look(&mut self) -> Result<(), String> {
        let (now, failures) = (self.rig.machine.now(), self.rig.machine.failures());
        for watching in self.watches.iter_mut().flatten() {
            self.judge.waits(&mut watching.follower);
        }
        for client in 0..CLIENTS {
            let Some(answer) = self.clients[client].as_ref().and_then(|asked| take(&asked.answer)) else { continue };
            let Some(Asked { ask, since, recalls, .. }) = self.clients[client].take() else { continue };
            self.note(|| format!("  #{} is answered {answer:?}", since.number));
            self.done.answers += 1;
            self.done.recalled +=
                u64::from(matches!(ask, Ask::Past(_) | Ask::Versions(..)) && answer.error().is_none());
            if let (true, Answer::Range(Ok(found))) = (recalls, &answer) {
                self.recalled = Some(found.clone());
            }
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
        if self.rig.look_at_upkeep()? {
            self.judge.kept_up();
        }
        Ok(())
    }

    /// Someone who has all answers asks: so a client can be slow while others do a lot.
    fn ask(&mut self, ask: Ask) -> Result<(), Stop> {
        self.ask_of(ask, false).map(drop)
    }

    /// The same; tells which client asks.
    fn ask_of(&mut self, ask: Ask, recalls: bool) -> Result<usize, Stop> {
        let free = |driver: &Self| driver.clients.iter().position(Option::is_none);
        self.turns_until("no client is answered", |driver| free(driver).is_some())?;
        let client = free(self).unwrap_or_default();
        let since = self.judge.asked(&ask, self.rig.machine.now(), self.rig.machine.failures());
        self.note(|| format!("#{} {ask:?}", since.number));
        let (engine, answer) = (self.rig.machine.engine(), Slot::default());
        let asked = ask.clone();
        self.rig.machine.start(client, &answer, move || fiber::wait(asked.of(&engine)));
        self.clients[client] = Some(Asked { ask, since, answer, recalls });
        Ok(client)
    }

    /// Makes some keys what they were, if that is known.
    fn restore(&mut self, range: Range) -> Result<(), Stop> {
        self.recalled = None;
        let client = self.ask_of(Ask::Past(range.clone()), true)?;
        self.turns_until("history is not told", |driver| driver.clients[client].is_none())?;
        let Some(found) = self.recalled.take() else { return Ok(()) };
        let ask = self.draw(&Random::new(0)).restore(&range.keys, &found.kvs);
        self.ask(ask)
    }

    fn draw(&mut self, random: &Random) -> Draw<'_> {
        Draw {
            random: random.clone(),
            judge: &self.judge,
            script: &self.script,
            now: self.rig.machine.now(),
            unique: &mut self.unique,
        }
    }

    /// What it keeps of history when it is opened again: the same, mostly.
    fn another_history(&mut self, random: &mut Random) -> Option<Undo> {
        let before = self.rig.options.undo.clone();
        let usual = self.script.options.undo.as_ref()?;
        match random.below(6) {
            0 => None,
            1..4 => Some(script::undo(random)),
            _ => before.or_else(|| Some(usual.clone())),
        }
    }

    fn carry_out(&mut self, step: Step<Kind>) -> Result<(), Stop> {
        let mut random = Random::new(step.dice);
        let turns = random.below(8);
        match step.kind {
            Kind::Txn => {
                let ask = self.draw(&random).txn();
                self.ask(ask)?;
            }
            Kind::Read => {
                let ask = Ask::Range(self.draw(&random).range());
                self.ask(ask)?;
            }
            Kind::Lease => {
                let ask = self.draw(&random).lease_ask();
                self.ask(ask)?;
            }
            Kind::Compact => {
                let ask = self.draw(&random).compact();
                self.ask(ask)?;
            }
            Kind::Ask => {
                let ask = if random.chance(50) { Ask::Status } else { Ask::Progress };
                self.ask(ask)?;
            }
            Kind::Watch => {
                let (keys, start) = match self.resume.pop() {
                    Some(cut) if random.chance(70) => cut,
                    _ => {
                        let now = random.chance(40);
                        let mut draw = self.draw(&random);
                        (draw.keys(), if now { 0 } else { draw.revision() })
                    }
                };
                self.begin_watch(random.index(WATCHES), keys, start, random.chance(30))?;
            }
            Kind::Past => {
                let ask = self.draw(&random).past_ask();
                self.ask(ask)?;
            }
            Kind::Restore => {
                let range = self.draw(&random).recall();
                self.restore(range)?;
            }
            Kind::Follow => self.follow(random.index(WATCHES), &mut random),
            Kind::Cut => self.cut(random.index(WATCHES))?,
            Kind::Upkeep => self.rig.begin_upkeep(random.chance(50)),
            Kind::Squeeze => self.squeeze()?,
            Kind::Advance => {
                let ttl = self.judge.ttl(&mut random);
                let millis = self.script.pass(&mut random, ttl);
                self.note(|| format!("{millis} ms pass"));
                self.pass(millis);
            }
            Kind::Renew => self.renew(&mut random)?,
            Kind::WallJump => {
                let to = *random.pick(&[0, 1_600_000_000_000, 1_900_000_000_000, 4_000_000_000_000]);
                self.note(|| format!("the calendar is set to {to}"));
                self.rig.machine.hand().set_wall(to);
                self.judge.clock_set();
            }
            Kind::Snapshot => self.snapshot(&mut random)?,
            Kind::Power => {
                let loss = Loss::any(&mut random);
                self.rig.crash_soon(Some(loss), 12, &mut random);
            }
            Kind::Kill => {
                self.rig.crash_soon(None, 12, &mut random);
            }
            Kind::Reopen => self.reopen(&mut random)?,
            Kind::Fail => {
                let what = self.rig.machine.fail_any(&mut random);
                self.note(|| what);
                if random.chance(40) {
                    // What a call that failed left behind shows when the page cache goes.
                    let loss = Loss::any(&mut random);
                    self.rig.crash_soon(Some(loss), 24, &mut random);
                }
            }
            Kind::Heal => self.rig.machine.heal(),
            Kind::Settle => self.settle()?,
        }
        self.some_turns(turns)
    }

    fn reopen(&mut self, random: &mut Random) -> Result<(), Stop> {
        self.settle()?;
        let undo = self.another_history(random);
        self.note(|| format!("closed, and opened again with {undo:?}"));
        self.leave(None)?;
        self.judge.reopened_with(undo.clone(), self.rig.machine.now());
        self.rig.options.undo = undo;
        self.open()
    }

    /// A look of the upkeep, from its beginning to its end.
    fn keep_up(&mut self) -> Result<(), Stop> {
        self.turns_until("the upkeep does not end", |driver| driver.rig.upkeep.is_none())?;
        self.rig.begin_upkeep(true);
        self.turns_until("the upkeep does not end", |driver| driver.rig.upkeep.is_none())
    }

    /// Leases lose time, which the upkeep notes once history is old enough; what is noted no longer holds after a renewal.
    fn renew(&mut self, random: &mut Random) -> Result<(), Stop> {
        let txn = self.draw(&random.clone()).txn();
        self.ask(txn)?;
        self.keep_up()?;
        self.pass(*random.pick(&[5000, 20_000, 40_000]));
        self.keep_up()?;
        for lease in self.judge.held(self.rig.machine.now()) {
            self.ask(Ask::KeepAlive(lease))?;
        }
        self.reopen(random)
    }

    /// Those who read stay where they are while what they read is compacted and the space given back.
    fn squeeze(&mut self) -> Result<(), Stop> {
        if self.clients.iter().all(Option::is_some) {
            return Ok(());
        }
        let busy: Vec<usize> = (0..CLIENTS + WATCHES).filter(|seat| !self.rig.machine.is_free(*seat)).collect();
        self.rig.machine.freeze(busy);
        self.ask(Ask::Compact(self.judge.revision()))?;
        for _ in 0..2 {
            self.keep_up()?;
        }
        self.rig.machine.freeze([]);
        Ok(())
    }

    fn begin_watch(&mut self, at: usize, keys: KeyRange, start: i64, previous: bool) -> Result<(), Stop> {
        self.cut(at)?;
        let (now, failures) = (self.rig.machine.now(), self.rig.machine.failures());
        let follower = self.judge.watches(keys.clone(), previous, start, now, failures);
        self.note(|| format!("watch {at} of {keys:?} from {start}"));
        let watch = Watch { keys, start_revision: start, previous, progress: true };
        match fiber::wait(self.rig.machine.engine().watch(watch)) {
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
        let (machine, watching) = (&self.rig.machine, &self.watches[at]);
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
        self.turns_until("a watch is not read", |driver| driver.rig.machine.is_free(CLIENTS + at))?;
        self.look()?;
        if let Some(watching) = self.watches[at].take() {
            self.note(|| format!("watch {at} is cut before {}", watching.follower.next));
            self.resume.push((watching.follower.keys.clone(), watching.follower.next));
        }
        Ok(())
    }

    /// Something a client does while everybody waits for it.
    fn now<T: Send + 'static>(&mut self, work: impl FnOnce(&Embedded) -> T + Send + 'static) -> Result<T, Stop> {
        self.turns_until("a client is not answered", |driver| driver.rig.machine.is_free(0))?;
        let (engine, slot) = (self.rig.machine.engine(), Slot::default());
        self.rig.machine.start(0, &slot, move || work(&engine));
        self.turns_until("a client is not answered", |driver| driver.rig.machine.is_free(0))?;
        take(&slot).ok_or_else(|| Stop::Wrong("a client did nothing".into()))
    }
}
