//! Carries out a script on a machine and has everything judged that the store tells.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, StreamExt};

use super::ask::{Answer, Ask};
use super::judge::{Follower, Judge, Since};
use super::machine::{Machine, Slot, Stop};
use super::script::{Draw, Kind, Script};
use super::story::{Step, brief};
use super::witness::Witness;
use crate::embedded::hooks::{self, Mutant};
use crate::embedded::{Disk, tools};
use crate::testing::clock::Hand;
use crate::testing::disk::{Loss, MemoryDisk, Platter};
use crate::testing::fiber;
use crate::testing::random::Random;
use crate::{Embedded, Error, KeyRange, LeaseId, Range, Store, Txn, Watch, WatchBatch, WatchStream, snapshot};

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

    /// Finishes everything, heals the disk, and looks at all.
    fn settle(&mut self) -> Result<(), Stop> {
        self.machine.heal();
        let idle = |driver: &Self| {
            driver.clients.iter().all(Option::is_none) && driver.upkeep.is_none() && !driver.machine.is_busy()
        };
        self.turns_until("something is not finished", idle)?;
        let engine = self.machine.engine();
        for _ in 0..20 {
            match fiber::wait(engine.health()) {
                Ok(None) => break,
                Ok(Some(_)) => {
                    self.machine.hand().advance(1001);
                    self.turns_until("the disk is not tried again", idle)?;
                }
                Err(error) => return Err(Stop::Wrong(format!("no health: {error:?}"))),
            }
        }
        self.follow_all()?;
        let leases = self.now(|engine| fiber::wait(engine.leases()))?;
        let now = self.machine.now();
        let there = leases.map_err(|error| format!("no leases: {error:?}"))?;
        self.note(|| format!("settled, with the leases {there:?}"));
        self.judge.settled(&there, now)?;
        self.check_leases(&there)?;
        let status = self.now(|engine| fiber::wait(engine.status()))?;
        let status = status.map_err(|error| format!("no status: {error:?}"))?;
        let present = self.judge.model.range(&KeyRange::all(), i64::MAX).len();
        if status.read_only.is_some() || status.revision != self.judge.revision() || status.keys != present {
            let revision = self.judge.revision();
            return Err(format!("the state is {status:?}, with {present} keys at {revision}").into());
        }
        self.check_history(status.compacted)
    }

    /// What is known of each lease is what the model has.
    fn check_leases(&mut self, there: &[LeaseId]) -> Result<(), Stop> {
        for lease in there.iter().copied() {
            let state = self.now(move |engine| fiber::wait(engine.lease_state(lease)))?;
            let state = state.map_err(|error| format!("lease {lease:x} is listed, and {error:?}"))?;
            let keys: Vec<_> = self.judge.model.lease_end(lease, i64::MAX - 1).into_keys().collect();
            if state.keys != keys || state.left > state.granted {
                return Err(format!("lease {lease:x} is {state:?}, and has {keys:?}").into());
            }
        }
        Ok(())
    }

    /// All of history that is held is told, whole and in order.
    fn check_history(&mut self, compacted: i64) -> Result<(), Stop> {
        self.begin_watch(0, KeyRange::all(), compacted.max(1), true)?;
        self.follow_all()
    }

    /// Something a client does while everybody waits for it.
    fn now<T: Send + 'static>(&mut self, work: impl FnOnce(&Embedded) -> T + Send + 'static) -> Result<T, Stop> {
        self.turns_until("a client is not answered", |driver| driver.machine.is_free(0))?;
        let (engine, slot) = (self.machine.engine(), Slot::default());
        self.machine.start(0, &slot, move || work(&engine));
        self.turns_until("a client is not answered", |driver| driver.machine.is_free(0))?;
        take(&slot).ok_or_else(|| Stop::Wrong("a client did nothing".into()))
    }

    /// Reads all watches until they are quiet, and have told everything.
    fn follow_all(&mut self) -> Result<(), Stop> {
        let mut random = Random::new(0);
        for at in 0..WATCHES {
            if let Some(watching) = &mut self.watches[at] {
                watching.quiet = false;
            }
            for _ in 0..TURNS {
                self.follow(at, &mut random);
                self.turns_until("a watch is not read", |driver| driver.machine.is_free(CLIENTS + at))?;
                self.look()?;
                if self.watches[at].as_ref().is_none_or(|watching| watching.quiet) {
                    break;
                }
            }
            if let Some(watching) = &self.watches[at] {
                self.judge.caught_up(&watching.follower)?;
            }
        }
        Ok(())
    }

    /// Copies the store as a directory or as a file of etcd's, opens the copy, and compares.
    fn snapshot(&mut self, random: &mut Random) -> Result<(), Stop> {
        let (platter, id) = (Arc::<Platter>::default(), random.draw());
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(&platter));
        let bump = 1 + random.below(50) as i64;
        let low = self.judge.revision();
        let failures = self.machine.failures();
        let (onto, by_file) = (Arc::clone(&disk), random.chance(60));
        self.note(|| format!("a snapshot, as a file: {by_file}"));
        let made = self.now(move |engine| {
            if by_file {
                by_a_file(engine, onto, id, bump)
            } else {
                fiber::wait(engine.snapshot_onto(onto, id)).map(|at| (at, at))
            }
        })?;
        let (at, revision) = match made {
            Ok(made) => made,
            Err(Error::Io { .. }) if self.machine.failures() > failures => return Ok(()),
            Err(error) => return Err(format!("no snapshot is made: {error:?}").into()),
        };
        if !(low..=self.judge.revision()).contains(&at) {
            return Err(format!("a snapshot is of {at}, and {low} was there before").into());
        }
        let clock = Arc::new(Hand::default());
        let opened = Embedded::at_rest(disk, clock, self.script.options.clone(), id);
        let (copy, mut turns) = opened.map_err(|error| format!("the copy does not open: {error:?}"))?;
        let status = fiber::wait(copy.status()).map_err(|error| format!("no status: {error:?}"))?;
        let all = Range::of(KeyRange::all());
        let read = fiber::wait(copy.range(all.clone())).map_err(|error| format!("no range: {error:?}"))?;
        let mut expected = self.judge.model.read(&all, at);
        expected.revision = revision;
        if (status.revision, status.compacted) != (revision, revision) || read != expected {
            return Err(format!("the copy of {at} is {status:?}\n {read:?}, and it was\n {expected:?}").into());
        }
        // It goes on where it says, which is above all that was.
        let mut put = copy.txn(Txn::of(vec![crate::suite::put_op("/copied", "1")]));
        if put.as_mut().now_or_never().is_some() {
            return Err(Stop::Wrong("the copy answers by itself".into()));
        }
        turns.next(false);
        match put.now_or_never() {
            Some(Ok(result)) if result.revision == revision + 1 => Ok(()),
            other => Err(format!("the copy of {revision} answers a put with {other:?}").into()),
        }
    }

    /// After everything, the store is whole on the disk, and the same when it is opened again.
    fn last(&mut self) -> Result<(), Stop> {
        if !self.machine.is_open() {
            self.open()?;
        }
        self.settle()?;
        self.machine.end(None)?;
        self.forget();
        let verification = tools::verify_on(&self.machine.disk()).map_err(|error| format!("{error:?}"))?;
        if !verification.damage.is_empty() {
            return Err(format!("the store is damaged: {:?}", verification.damage).into());
        }
        self.open()?;
        self.settle()?;
        self.finished = true;
        Ok(())
    }
}

/// Saves a snapshot in a file without a name and makes a store of it; tells the revisions of both.
fn by_a_file(engine: &Embedded, onto: Arc<dyn Disk>, id: u64, bump: i64) -> Result<(i64, i64), Error> {
    let export = fiber::wait(engine.export())?;
    let (file, _) = snapshot::unnamed(&export, &std::env::temp_dir())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let restored = snapshot::restore_into(&path, || Ok(tools::Builder::on(onto, id)), bump, false)?;
    Ok((restored.snapshot, restored.revision))
}
