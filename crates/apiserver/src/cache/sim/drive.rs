//! Carries out a script on a machine and has everything judged that the API server tells.

mod answers;
mod settle;
mod steps;

use super::client::Pieces;
use super::done::Done;
use super::follow::Follower;
use super::judge::{Found, Judge, Read, Since};
use super::script::{Draw, Kind, Script, Watched};
use super::server::{
    AUTHORS, CALLERS, CONNECTIONS, FEEDERS, INSIDE, OUTSIDE, READERS, Rows, SEATS, Server, Time, Up, WATCHERS, WRITERS,
};
use super::view::{STORAGES, View};
use super::wire::{Known, Line};
use super::write::{Sweep, Swept, Write, Wrote};
use crate::cache::hooks::{self, Mutant};
use crate::http::stream::WatchBody;
use crate::options::ListOptions;
use api::Status;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use store::LeaseId;
use store::embedded::Clock;
use store::testing::fiber;
use store::testing::random::Random;
use store::testing::sim::ask::{Answer, Ask};
use store::testing::sim::machine::{Machine, Slot, Stop, take};
use store::testing::sim::rig::{Driver, Rig, TURNS};
use store::testing::sim::story::Step;

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

/// A write under way.
struct Writing {
    write: Box<Write>,
    since: Since,
    answer: Slot<Result<Wrote, Status>>,
}

/// The deletion of a collection that is under way.
type Sweeping = (Sweep, Since, Slot<Result<Swept, Status>>);

type Stream = Arc<Mutex<Option<Pin<Box<WatchBody>>>>>;

/// A watch that is being made, or is there.
enum Watching {
    Beginning(Box<Watched>, Since, Slot<Result<(Pin<Box<WatchBody>>, Option<i64>), Status>>),
    There(Box<Follower>, Stream, Slot<Pieces>),
}

/// A simulation under way.
pub(in crate::cache) struct World {
    script: Arc<Script>,
    rig: Rig,
    line: Line,
    judge: Judge,
    server: Option<Server>,
    writers: [Option<Slot<Answer>>; WRITERS],
    readers: Vec<Option<Reading>>,
    watchers: Vec<Option<Watching>>,
    authors: Vec<Option<Writing>>,
    sweeping: Option<Sweeping>,
    /// Where those who were cut, or have listed, go on.
    resume: Vec<(View, i64)>,
    /// The revision of the last list.
    listed: Option<i64>,
    /// Lists that go on.
    tokens: Vec<(View, ListOptions)>,
    leases: Vec<LeaseId>,
    unique: u64,
    /// At the next end the API server ends too.
    together: bool,
    /// The store is not started again by itself.
    away: bool,
    done: Done,
    /// Goes last: what is above may have timers.
    time: Time,
}

impl Driver for World {
    type Script = Script;
    type Mutant = Mutant;
    type Done = Done;

    const PACKAGE: &'static str = env!("CARGO_PKG_NAME");

    fn new(script: Arc<Script>, mutant: Option<Mutant>) -> Self {
        let machine = Machine::new(script.seed, (INSIDE, OUTSIDE), move || hooks::mutate(mutant));
        World {
            rig: Rig::new(machine, script.options.clone()),
            script,
            line: Line::new(CALLERS, CONNECTIONS),
            judge: Judge::new(),
            server: None,
            writers: Default::default(),
            readers: READERS.map(|_| None).collect(),
            watchers: WATCHERS.map(|_| None).collect(),
            authors: AUTHORS.map(|_| None).collect(),
            sweeping: None,
            resume: Vec::new(),
            listed: None,
            tokens: Vec::new(),
            leases: Vec::new(),
            unique: 0,
            together: false,
            away: false,
            done: Done::default(),
            time: Time::new(),
        }
    }

    fn rig(&self) -> &Rig {
        &self.rig
    }

    fn rig_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }

    fn cut_at_a_boundary(&mut self, random: &mut Random) {
        self.together = random.chance(50);
    }

    fn begin(&mut self) -> Result<(), Stop> {
        self.start_server();
        Ok(())
    }

    fn step(&mut self, step: Step<Kind>) -> Result<(), Stop> {
        self.carry_out(step)
    }

    fn turn(&mut self) -> Result<bool, Stop> {
        let went_on = self.rig.machine.turn()?;
        self.line.pump(&self.rig.machine);
        self.see()?;
        self.look()?;
        Ok(went_on)
    }

    fn opened(&mut self) -> Result<(), Stop> {
        self.see()?;
        self.note(|| "opened".into());
        Ok(())
    }

    fn ended(&mut self) -> Result<(), String> {
        self.writers = Default::default();
        self.line.drop_all();
        if std::mem::take(&mut self.together) { self.stop_server() } else { Ok(()) }
    }

    fn comes_back(&self) -> bool {
        !self.away
    }

    fn last(&mut self) -> Result<(), Stop> {
        self.settle()
    }

    fn finish(&mut self) -> Result<Done, String> {
        self.stop_server()?;
        self.done.revisions = self.judge.revision();
        self.done.boundaries = self.rig.machine.boundaries();
        self.done.crashes += self.rig.crashes;
        self.done.reloads = self.judge.known.compacted;
        self.done.veiled = self.judge.known.veiled;
        Ok(self.done.clone())
    }

    fn pass(&mut self, millis: u64) {
        self.rig.machine.hand().advance(millis);
        self.time.advance(millis);
    }
}

impl World {
    fn start_server(&mut self) {
        self.note(|| "the API server starts".into());
        self.done.starts += 1;
        self.judge.started();
        self.line.wire.forget_veils();
        let storages = if self.script.late { &STORAGES[..1] } else { &STORAGES[..] };
        self.server =
            Some(Server::start(&self.rig.machine, &self.line.wire, &self.time.handle(), SEATS, Rows::of(storages)));
    }

    /// The API server's process ends where it is.
    fn stop_server(&mut self) -> Result<(), String> {
        let Some(server) = self.server.take() else { return Ok(()) };
        self.note(|| "the API server ends".into());
        self.done.crashes += 1;
        server.stop(&self.rig.machine)?;
        self.line.drop_all();
        self.readers.iter_mut().for_each(|reader| *reader = None);
        self.authors.iter_mut().for_each(|author| *author = None);
        self.sweeping = None;
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
        let seen = match self.rig.machine.is_open() {
            true => self.rig.witness.see(&self.rig.machine.engine(), self.judge.revision() + 1)?,
            false => Vec::new(),
        };
        let known = Known { failures: self.rig.machine.failures(), ..self.line.wire.known() };
        let calls = self.line.is_idle();
        let at_rest = calls && FEEDERS.into_iter().all(|seat| self.rig.machine.is_at_rest(seat));
        if at_rest {
            self.line.wire.rests();
        }
        self.judge.see(&seen, known, &self.line.wire.veils(), at_rest, self.rig.machine.now())
    }

    /// Judges what has been answered and told.
    fn look(&mut self) -> Result<(), String> {
        if let Some(server) = &mut self.server
            && !server.look(&self.rig.machine)?
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
        self.rig.look_at_upkeep()?;
        for at in 0..self.readers.len() {
            let Some(answer) = self.readers[at].as_ref().and_then(|reading| take(&reading.answer)) else { continue };
            let Some(reading) = self.readers[at].take() else { continue };
            self.read(at, reading, answer)?;
        }
        for at in 0..self.watchers.len() {
            self.look_at_watch(at)?;
        }
        for at in 0..self.authors.len() {
            let Some(answer) = self.authors[at].as_ref().and_then(|writing| take(&writing.answer)) else { continue };
            let Some(writing) = self.authors[at].take() else { continue };
            self.written(at, &writing, &answer)?;
        }
        if let Some(answer) = self.sweeping.as_ref().and_then(|(_, _, slot)| take(slot))
            && let Some((sweep, since, _)) = self.sweeping.take()
        {
            self.note(|| format!("  the collection is answered {answer:?}"));
            self.done.swept += answer.as_ref().map_or(0, |swept| swept.len() as u64);
            let verdict = self.judge.answered_sweep(&sweep, since, &answer);
            verdict.map_err(|why| format!("{sweep:?} since {} is answered {answer:?}: {why}", since.revision))?;
        }
        Ok(())
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
        self.line.wire.is_quiet() && self.rig.machine.is_quiet()
    }

    fn up(&self) -> Option<&Up> {
        self.server.as_ref().and_then(Server::up)
    }

    /// Someone who has all answers asks the store.
    fn ask(&mut self, ask: Ask) -> Result<(), Stop> {
        if !self.rig.machine.is_open() {
            return Ok(());
        }
        let free = |world: &Self| world.writers.iter().position(Option::is_none);
        self.turns_until("no writer is answered", |world| free(world).is_some())?;
        let writer = free(self).unwrap_or_default();
        self.note(|| format!("writer {writer}: {ask:?}"));
        self.judge.asked_elsewhere(&ask);
        let (engine, answer) = (self.rig.machine.engine(), Slot::default());
        self.rig.machine.start(writer, &answer, move || fiber::wait(ask.of(&engine)));
        self.writers[writer] = Some(answer);
        Ok(())
    }

    fn draw(&mut self, random: &Random) -> Draw<'_> {
        Draw {
            random: random.clone(),
            judge: &self.judge,
            script: &self.script,
            leases: &self.leases,
            wall: self.rig.machine.hand().wall_millis(),
            unique: &mut self.unique,
        }
    }
}
