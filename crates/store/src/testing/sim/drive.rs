//! Carries out a script on a machine and has everything judged that the store tells.

mod copy;
mod settle;

use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, StreamExt};

use super::ask::{Answer, Ask};
use super::driver::Driver;
use super::judge::{Follower, Judge, Since};
use super::machine::{Request, Slot, Stop, answered, take};
use super::rig::Rig;
use super::script::{self, Draw, Kind, Setting};
use super::world::{Verdict, World};
use crate::embedded::hooks::{self, Mutant};
use crate::embedded::{Clock, Undo};
use crate::testing::fiber;
use crate::testing::random::Random;
use crate::{Embedded, Error, Event, KeyRange, Range, RangeResult, Store, Watch, WatchBatch, WatchStream};

/// Clients that ask, each one thing at a time.
const CLIENTS: usize = 4;
/// Watches that are followed at a time, in the seats behind the clients'.
const WATCHES: usize = 3;
type Told = Option<Result<WatchBatch, Error>>;

/// What a client asked, and whether what it finds is wanted.
type Asked = Request<(Ask, bool), Since, Answer>;

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
    setting: Setting,
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

impl World for Simulation {
    type Setting = Setting;
    type Mutant = Mutant;
    type Done = Done;

    const SEATS: (usize, usize) = (CLIENTS + WATCHES, 0);

    fn mutate(mutant: Option<Mutant>) {
        hooks::mutate(mutant);
    }

    fn new(rig: Rig, setting: Setting) -> Self {
        Self {
            judge: Judge::new(&rig.options),
            setting,
            rig,
            clients: Default::default(),
            watches: Default::default(),
            resume: Vec::new(),
            recalled: None,
            unique: 0,
            done: Done::default(),
        }
    }

    fn rig(&mut self) -> &mut Rig {
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
    fn ended(&mut self) -> Verdict {
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
        self.note(|| format!("it has revision {}, compacted {}", status.revision, status.compacted));
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

    fn step(&mut self, kind: Kind, random: &mut Random) -> Result<(), Stop> {
        let ask = match kind {
            Kind::Txn => self.draw(random).txn(),
            Kind::Read => Ask::Range(self.draw(random).range()),
            Kind::Lease => self.draw(random).lease_ask(),
            Kind::Compact => self.draw(random).compact(),
            Kind::Ask => random.pick(&[Ask::Status, Ask::Progress]).clone(),
            Kind::Past => self.draw(random).past_ask(),
            Kind::Restore => return self.restore(random),
            Kind::Watch => return self.watch(random),
            Kind::Follow => {
                self.follow(random.index(WATCHES), random);
                return Ok(());
            }
            Kind::Cut => return self.cut(random.index(WATCHES)),
            Kind::Squeeze => return self.squeeze(),
            Kind::Renew => return self.renew(random),
            Kind::WallJump => {
                let to = *random.pick(&[0, 1_600_000_000_000, 1_900_000_000_000, 4_000_000_000_000]);
                self.note(|| format!("the calendar is set to {to}"));
                self.rig.machine.hand().set_wall(to);
                self.judge.clock_set();
                return Ok(());
            }
            Kind::Snapshot => return self.snapshot(random),
            Kind::Reopen => return self.reopen(random),
        };
        self.ask(ask)
    }

    fn span(&self, random: &mut Random) -> u64 {
        let ttl = self.judge.ttl(random);
        self.setting.span(random, ttl)
    }

    fn revision(&self) -> i64 {
        self.judge.revision()
    }

    fn seen(&mut self, events: &[Event], opened: bool) -> Verdict {
        self.judge.wall = self.rig.machine.hand().wall_millis();
        self.judge.told(events, self.rig.machine.now(), opened)
    }

    fn kept_up(&mut self) {
        self.judge.kept_up();
    }

    fn look(&mut self) -> Verdict {
        let (now, failures) = (self.rig.machine.now(), self.rig.machine.failures());
        for watching in self.watches.iter_mut().flatten() {
            self.judge.waits(&mut watching.follower);
        }
        for client in 0..CLIENTS {
            let Some(((ask, recalls), since, answer)) = answered(&mut self.clients[client]) else { continue };
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
        Ok(())
    }

    fn is_settled(&self) -> Result<bool, String> {
        let machine = &self.rig.machine;
        if self.clients.iter().any(Option::is_some) || self.rig.upkeep.is_some() || machine.is_busy() {
            return Err("it hangs: something is not finished".into());
        }
        // A disk that failed is tried again after a time.
        let health = fiber::wait(machine.engine().health());
        health.map(|unwell| unwell.is_none()).map_err(|error| format!("no health: {error:?}"))
    }

    fn inspect(&mut self) -> Result<(), Stop> {
        self.look_at_all()
    }
}

impl Simulation {
    /// Someone who has all answers asks: so a client can be slow while others do a lot.
    fn ask(&mut self, ask: Ask) -> Result<(), Stop> {
        self.ask_of(ask, false).map(drop)
    }

    /// The same; tells which client asks.
    fn ask_of(&mut self, ask: Ask, recalls: bool) -> Result<usize, Stop> {
        let free = |world: &Self| world.clients.iter().position(Option::is_none);
        self.turns_until("no client is answered", |world| free(world).is_some())?;
        let client = free(self).unwrap_or_default();
        let since = self.judge.asked(&ask, self.rig.machine.now(), self.rig.machine.failures());
        self.note(|| format!("#{} {ask:?}", since.number));
        let (engine, answer) = (self.rig.machine.engine(), Slot::default());
        let asked = ask.clone();
        self.rig.machine.start(client, &answer, move || fiber::wait(asked.of(&engine)));
        self.clients[client] = Some(Asked { asked: (ask, recalls), since, answer });
        Ok(client)
    }

    /// Makes some keys what they were, if that is known.
    fn restore(&mut self, random: &Random) -> Result<(), Stop> {
        let range = self.draw(random).recall();
        self.recalled = None;
        let client = self.ask_of(Ask::Past(range.clone()), true)?;
        self.turns_until("history is not told", |world| world.clients[client].is_none())?;
        let Some(found) = self.recalled.take() else { return Ok(()) };
        let ask = self.draw(&Random::new(0)).restore(&range.keys, &found.kvs);
        self.ask(ask)
    }

    fn draw(&mut self, random: &Random) -> Draw<'_> {
        Draw {
            random: random.clone(),
            judge: &self.judge,
            setting: &self.setting,
            now: self.rig.machine.now(),
            unique: &mut self.unique,
        }
    }

    /// What it keeps of history when it is opened again: the same, mostly.
    fn another_history(&mut self, random: &mut Random) -> Option<Undo> {
        let before = self.rig.options.undo.clone();
        let usual = self.setting.undo.as_ref()?;
        match random.below(6) {
            0 => None,
            1..4 => Some(script::undo(random)),
            _ => before.or_else(|| Some(usual.clone())),
        }
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
        self.turns_until("the upkeep does not end", |world| world.rig.upkeep.is_none())?;
        self.rig.begin_upkeep(true);
        self.turns_until("the upkeep does not end", |world| world.rig.upkeep.is_none())
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

    /// A watch of anything begins, or one that was cut goes on.
    fn watch(&mut self, random: &mut Random) -> Result<(), Stop> {
        let (keys, start) = match self.resume.pop() {
            Some(cut) if random.chance(70) => cut,
            _ => {
                let now = random.chance(40);
                let mut draw = self.draw(random);
                (draw.keys(), if now { 0 } else { draw.revision() })
            }
        };
        self.begin_watch(random.index(WATCHES), keys, start, random.chance(30))
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
        self.turns_until("a watch is not read", |world| world.rig.machine.is_free(CLIENTS + at))?;
        self.look()?;
        if let Some(watching) = self.watches[at].take() {
            self.note(|| format!("watch {at} is cut before {}", watching.follower.next));
            self.resume.push((watching.follower.keys.clone(), watching.follower.next));
        }
        Ok(())
    }

    /// Something a client does while everybody waits for it.
    fn now<T: Send + 'static>(&mut self, work: impl FnOnce(&Embedded) -> T + Send + 'static) -> Result<T, Stop> {
        self.turns_until("a client is not answered", |world| world.rig.machine.is_free(0))?;
        let (engine, slot) = (self.rig.machine.engine(), Slot::default());
        self.rig.machine.start(0, &slot, move || work(&engine));
        self.turns_until("a client is not answered", |world| world.rig.machine.is_free(0))?;
        take(&slot).ok_or_else(|| Stop::Wrong("a client did nothing".into()))
    }
}
