//! Carries out a script on a machine and has everything judged that the API server tells.

mod answers;
mod settle;
mod steps;

use super::client::Pieces;
use super::done::Done;
use super::follow::Follower;
use super::judge::{Found, Judge, Read, Since};
use super::script::{Draw, Script, Watched};
use super::server::{CALLERS, CONNECTIONS, INSIDE, OUTSIDE, READERS, Server, Time, Up, WATCHERS, WRITERS, take};
use super::view::{STORAGES, View};
use super::wire::{self, Asked, Known, Wire};
use crate::cache::hooks::{self, Mutant};
use crate::http::stream::WatchBody;
use crate::options::ListOptions;
use api::Status;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use store::LeaseId;
use store::testing::disk::Loss;
use store::testing::fiber;
use store::testing::random::Random;
use store::testing::sim::ask::{Answer, Ask};
use store::testing::sim::machine::{Machine, Slot, Stop};
use store::testing::sim::story::brief;
use store::testing::sim::witness::Witness;

/// More turns than this in which nothing ends are a hang.
const TURNS: usize = 20_000;
/// So many turns are waited for an API server that starts.
const PATIENCE: u64 = 300;
/// What is read of a watch at once, at most.
const FRAMES: usize = 6;

/// A read under way.
struct Reading {
    read: Read,
    since: Since,
    answer: Slot<Result<Found, Status>>,
}

type Stream = Arc<Mutex<Option<Pin<Box<WatchBody>>>>>;

/// A watch that is being made, or is there.
enum Watching {
    Beginning(Box<Watched>, Since, Slot<Result<(Pin<Box<WatchBody>>, Option<i64>), Status>>),
    There(Box<Follower>, Stream, Slot<Pieces>),
}

/// A simulation under way.
pub(super) struct World<'a> {
    script: &'a Script,
    machine: Machine,
    wire: Arc<Wire>,
    judge: Judge,
    witness: Witness,
    server: Option<Server>,
    writers: [Option<Slot<Answer>>; WRITERS],
    callers: Vec<Option<(Asked, Slot<Answer>)>>,
    connections: Vec<Slot<()>>,
    readers: Vec<Option<Reading>>,
    watchers: Vec<Option<Watching>>,
    /// Where those who were cut, or have listed, go on.
    resume: Vec<(View, i64)>,
    /// The revision of the last list.
    listed: Option<i64>,
    /// Lists that go on.
    tokens: Vec<(View, ListOptions)>,
    leases: Vec<LeaseId>,
    upkeep: Option<Slot<Result<(), store::Error>>>,
    unique: u64,
    /// What becomes of the page cache at the next end, if it is lost.
    loss: Option<Loss>,
    /// At the next end the API server ends too.
    together: bool,
    /// The store is not started again by itself.
    away: bool,
    done: Done,
    /// What happened.
    pub(super) trace: Vec<String>,
    /// Goes last: what is above may have timers.
    time: Time,
}

impl<'a> World<'a> {
    pub(super) fn new(script: &'a Script, mutant: Option<Mutant>) -> Self {
        World {
            script,
            machine: Machine::new(script.seed, (INSIDE, OUTSIDE), move || hooks::mutate(mutant)),
            wire: Arc::default(),
            judge: Judge::new(),
            witness: Witness::default(),
            server: None,
            writers: Default::default(),
            callers: CALLERS.map(|_| None).collect(),
            connections: CONNECTIONS.map(|_| Slot::default()).collect(),
            readers: READERS.map(|_| None).collect(),
            watchers: WATCHERS.map(|_| None).collect(),
            resume: Vec::new(),
            listed: None,
            tokens: Vec::new(),
            leases: Vec::new(),
            upkeep: None,
            unique: 0,
            loss: None,
            together: false,
            away: false,
            done: Done::default(),
            trace: Vec::new(),
            time: Time::new(),
        }
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        let words = brief(&words());
        self.trace.push(format!("{:>7} ms  {words}", self.machine.now()));
    }

    /// Carries out the script.
    pub(super) fn run(&mut self) -> Result<Done, String> {
        self.through(Self::open)?;
        self.start_server();
        for step in &self.script.steps {
            self.through(|world| world.step(*step))?;
        }
        let mut settled = false;
        while !settled {
            self.through(|world| {
                world.settle()?;
                settled = true;
                Ok(())
            })?;
        }
        self.stop_server()?;
        self.done.revisions = self.judge.revision();
        self.done.reloads = self.judge.known.compacted;
        self.done.veiled = self.judge.known.veiled;
        Ok(self.done.clone())
    }

    /// Does something, and starts the store again if it ends meanwhile.
    fn through(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Stop>) -> Result<(), String> {
        let mut result = work(self);
        for _ in 0..100 {
            match result {
                Ok(()) => return Ok(()),
                Err(Stop::Wrong(words)) => return Err(words),
                Err(Stop::Off) => {
                    self.end()?;
                    result = if self.away { Ok(()) } else { self.open() };
                }
            }
        }
        Err("the machine does not start".into())
    }

    /// The store's process ends where it is.
    fn end(&mut self) -> Result<(), String> {
        self.done.crashes += 1;
        let loss = self.loss.take();
        self.note(|| format!("{} {loss:?}", if loss.is_some() { "POWER LOST" } else { "KILLED" }));
        self.machine.end(loss)?;
        self.witness.forget();
        self.writers = Default::default();
        self.callers.iter_mut().for_each(|caller| *caller = None);
        self.upkeep = None;
        self.wire.drop_all();
        if std::mem::take(&mut self.together) {
            self.stop_server()?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), Stop> {
        let downtime = *self.machine.random.pick(&[0, 5, 800, 20_000]);
        self.pass(downtime);
        loop {
            let before = self.machine.failures();
            match self.machine.open(&self.script.options)? {
                Ok(()) => break,
                Err(store::Error::Io { .. }) if self.machine.failures() > before => {
                    self.note(|| "it could not be opened: the disk fails".into());
                    self.machine.heal();
                    // The process that did not open its store ends.
                    self.machine.end(None)?;
                }
                Err(error) => return Err(Stop::Wrong(format!("the store does not open: {error:?}"))),
            }
        }
        self.see()?;
        self.note(|| "opened".into());
        Ok(())
    }

    fn pass(&mut self, millis: u64) {
        self.machine.hand().advance(millis);
        self.time.advance(millis);
    }

    fn start_server(&mut self) {
        self.note(|| "the API server starts".into());
        self.done.starts += 1;
        self.judge.started();
        let storages = if self.script.late { &STORAGES[..1] } else { &STORAGES[..] };
        self.server = Some(Server::start(&self.machine, &self.wire, &self.time.handle(), storages));
    }

    /// The API server's process ends where it is.
    fn stop_server(&mut self) -> Result<(), String> {
        let Some(server) = self.server.take() else { return Ok(()) };
        self.note(|| "the API server ends".into());
        self.done.crashes += 1;
        server.stop(&self.machine)?;
        self.wire.drop_all();
        self.readers.iter_mut().for_each(|reader| *reader = None);
        for at in 0..self.watchers.len() {
            self.forget_watch(at);
        }
        Ok(())
    }

    /// A watch is no more; its client goes on from what it knows.
    fn forget_watch(&mut self, at: usize) {
        if let Some(Watching::There(follower, ..)) = self.watchers[at].take()
            && let Some(version) = follower.version
        {
            self.resume.push((follower.view, version));
        }
    }

    /// The judge sees what the store did.
    fn see(&mut self) -> Result<(), String> {
        let seen = match self.machine.is_open() {
            true => self.witness.see(&self.machine.engine(), self.judge.revision() + 1)?,
            false => Vec::new(),
        };
        let known = Known { failures: self.machine.failures(), ..self.wire.known() };
        self.judge.see(&seen, known, self.machine.now())
    }

    /// What waits at one end of the wire gets to the other.
    fn pump(&mut self) {
        for caller in &mut self.callers {
            if let Some(answer) = caller.as_ref().and_then(|(_, slot)| take(slot))
                && let Some((asked, _)) = caller.take()
            {
                // Who asked may be gone.
                drop(asked.reply.send(answer));
            }
        }
        if !self.machine.is_open() {
            self.wire.drop_all();
            return;
        }
        for (at, caller) in self.callers.iter_mut().enumerate() {
            let seat = CALLERS.start + at;
            if !self.machine.is_free(seat) {
                continue;
            }
            let Some(asked) = self.wire.next_asked() else { break };
            let (engine, slot, ask) = (self.machine.engine(), Slot::default(), asked.ask.clone());
            self.machine.start(seat, &slot, move || fiber::wait(ask.of(&engine)));
            *caller = Some((asked, slot));
        }
        for (at, slot) in self.connections.iter().enumerate() {
            if !self.machine.is_free(CONNECTIONS.start + at) {
                continue;
            }
            let Some(watched) = self.wire.next_watched() else { break };
            let engine = self.machine.engine();
            self.machine.start(CONNECTIONS.start + at, slot, move || wire::serve(&engine, watched));
        }
    }

    /// One thread goes on; what it brings about is judged.
    fn turn(&mut self) -> Result<bool, Stop> {
        let went_on = self.machine.turn()?;
        self.pump();
        self.see()?;
        self.look()?;
        Ok(went_on)
    }

    /// Judges what has been answered and told.
    fn look(&mut self) -> Result<(), String> {
        if let Some(server) = &mut self.server
            && !server.look(&self.machine)?
        {
            // As a process that could not start it ends, and is started again with the next step.
            self.stop_server()?;
        }
        if let Some(storage) = self.server.as_mut().and_then(Server::added) {
            self.judge.added(storage);
        }
        if let Some(up) = self.up() {
            up.check()?;
        }
        for at in 0..WRITERS {
            let Some(answer) = self.writers[at].as_ref().and_then(|slot| take(slot)) else { continue };
            self.writers[at] = None;
            self.note(|| format!("  writer {at} is answered {answer:?}"));
            if let Answer::Lease(Ok(lease)) = answer {
                self.leases.push(lease);
            }
        }
        self.upkeep = self.upkeep.take().filter(|slot| take(slot).is_none());
        for at in 0..self.readers.len() {
            let Some(answer) = self.readers[at].as_ref().and_then(|reading| take(&reading.answer)) else { continue };
            let Some(reading) = self.readers[at].take() else { continue };
            self.read(at, reading, answer)?;
        }
        for at in 0..self.watchers.len() {
            self.look_at_watch(at)?;
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

    /// Turns until nobody can go on.
    fn turns(&mut self) -> Result<(), Stop> {
        for _ in 0..TURNS {
            if !self.turn()? && self.is_quiet() {
                return Ok(());
            }
        }
        Err(Stop::Wrong("it never comes to rest".into()))
    }

    /// Nothing waits at an end of the wire that could go on.
    fn is_quiet(&self) -> bool {
        self.wire.is_quiet() && self.machine.is_quiet()
    }

    fn up(&self) -> Option<&Up> {
        self.server.as_ref().and_then(Server::up)
    }

    /// Someone who has all answers asks the store.
    fn ask(&mut self, ask: Ask) -> Result<(), Stop> {
        if !self.machine.is_open() {
            return Ok(());
        }
        let free = |world: &Self| world.writers.iter().position(Option::is_none);
        self.turns_until("no writer is answered", |world| free(world).is_some())?;
        let writer = free(self).unwrap_or_default();
        self.note(|| format!("writer {writer}: {ask:?}"));
        let (engine, answer) = (self.machine.engine(), Slot::default());
        self.machine.start(writer, &answer, move || fiber::wait(ask.of(&engine)));
        self.writers[writer] = Some(answer);
        Ok(())
    }

    fn draw(&mut self, random: &Random) -> Draw<'_> {
        Draw {
            random: random.clone(),
            judge: &self.judge,
            script: self.script,
            leases: &self.leases,
            unique: &mut self.unique,
        }
    }

    fn some_turns(&mut self, turns: u64) -> Result<(), Stop> {
        for _ in 0..turns {
            if !self.turn()? {
                break;
            }
        }
        Ok(())
    }
}
