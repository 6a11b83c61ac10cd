//! Carries out a script on a machine and has everything judged that the API server tells.

use super::follow::{Begin, Ended, Follower};
use super::judge::{Found, Judge, Read, Since, expect};
use super::script::{Draw, Kind, Script, Watched};
use super::server::{
    CALLERS, CONNECTIONS, FEED, INSIDE, OUTSIDE, READERS, Server, Time, Up, WATCHERS, WRITERS, run, take,
};
use super::view::{Object, STORAGES, View};
use super::wire::{self, Asked, Known, Wire};
use crate::cache::hooks::{self, Mutant};
use crate::http::media;
use crate::http::stream::WatchBody;
use crate::options::ListOptions;
use crate::registry::selection;
use crate::registry::token::Token;
use api::Status;
use bytes::Bytes;
use http_body::Body as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use store::LeaseId;
use store::testing::disk::Loss;
use store::testing::fiber;
use store::testing::random::Random;
use store::testing::sim::ask::{Answer, Ask};
use store::testing::sim::machine::{Machine, Slot, Stop};
use store::testing::sim::story::{Step, brief};
use store::testing::sim::witness::Witness;

/// More turns than this in which nothing ends are a hang.
const TURNS: usize = 20_000;
/// So many turns are waited for an API server that starts.
const PATIENCE: u64 = 300;
/// What is read of a watch at once, at most.
const FRAMES: usize = 6;

/// What one simulation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cache) struct Done {
    pub(in crate::cache) revisions: i64,
    /// Ends of the store, and of the API server.
    pub(in crate::cache) crashes: u64,
    pub(in crate::cache) starts: u64,
    pub(in crate::cache) reads: u64,
    pub(in crate::cache) refused: u64,
    pub(in crate::cache) watches: u64,
    pub(in crate::cache) events: u64,
    pub(in crate::cache) bookmarks: u64,
    /// Watches that were too slow, and that lost what they followed.
    pub(in crate::cache) slow: u64,
    pub(in crate::cache) expired: u64,
    /// How often a cache had to load anew.
    pub(in crate::cache) reloads: u64,
    /// Values that could not be read.
    pub(in crate::cache) veiled: u64,
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.revisions += other.revisions;
        self.crashes += other.crashes;
        self.starts += other.starts;
        self.reads += other.reads;
        self.refused += other.refused;
        self.watches += other.watches;
        self.events += other.events;
        self.bookmarks += other.bookmarks;
        self.slow += other.slow;
        self.expired += other.expired;
        self.reloads += other.reloads;
        self.veiled += other.veiled;
    }
}

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

/// What was read of a watch, and whether that is its end.
struct Pieces {
    pieces: Vec<Bytes>,
    ended: bool,
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

    fn read(&mut self, at: usize, reading: Reading, answer: Result<Found, Status>) -> Result<(), String> {
        self.note(|| format!("  reader {at} is answered {answer:?}"));
        self.done.reads += 1;
        let verdict = self.judge.answered(&reading.read, reading.since, &answer);
        verdict.map_err(|why| format!("{:?} since {}: {why}", reading.read, reading.since.revision))?;
        let next = match (&answer, &reading.read) {
            (Ok(found), Read::List(view, options)) => {
                self.resume.push((view.clone(), found.revision));
                self.listed = Some(found.revision);
                (!found.next.is_empty()).then(|| (found.next.clone(), view, options))
            }
            (Err(status), Read::List(view, options)) => {
                self.done.refused += 1;
                let token = status.details.as_ref().map(|details| details.continue_token.clone());
                token.filter(|token| !token.is_empty()).map(|token| (token, view, options))
            }
            _ => None,
        };
        if let Some((token, view, options)) = next {
            let token = Token::decode(&token).map_err(|status| status.message)?;
            let options = ListOptions {
                token: Some(token),
                version: None,
                version_match: crate::options::Match::Unset,
                ..options.clone()
            };
            self.tokens.push((view.clone(), options));
        }
        Ok(())
    }

    fn look_at_watch(&mut self, at: usize) -> Result<(), String> {
        match self.watchers[at].as_mut() {
            None => Ok(()),
            Some(Watching::Beginning(_, _, begun)) => match take(begun) {
                Some(begun) => self.watch_begun(at, begun),
                None => Ok(()),
            },
            Some(Watching::There(follower, _, told)) => {
                follower.waits(&self.judge);
                match take(told) {
                    Some(pieces) => self.watch_told(at, &pieces),
                    None => Ok(()),
                }
            }
        }
    }

    fn watch_begun(
        &mut self,
        at: usize,
        begun: Result<(Pin<Box<WatchBody>>, Option<i64>), Status>,
    ) -> Result<(), String> {
        let Some(Watching::Beginning(watched, since, _)) = self.watchers[at].take() else { return Ok(()) };
        let Watched { view, options, timeout } = *watched;
        let asked = options.version.map_or(0, u64::cast_signed);
        let (body, initial) = match begun {
            Ok(begun) => begun,
            Err(status) => {
                self.note(|| format!("  watch {at} is refused: {status:?}"));
                self.done.refused += 1;
                return self.judge.may_refuse(&status, asked, view.storage, since);
            }
        };
        self.note(|| format!("  watch {at} begins with {initial:?}"));
        self.done.watches += 1;
        let begin = match initial {
            Some(revision) => {
                let least = options.version.map_or(since.revision, u64::cast_signed);
                expect((least..=self.judge.revision()).contains(&revision), || {
                    format!("a watch begins with {revision}, and {least} was there before")
                })?;
                Begin::With(revision)
            }
            None if asked == 0 => {
                let least = options.version.map_or(since.revision, u64::cast_signed);
                Begin::Between(least, self.judge.revision())
            }
            None => Begin::After(asked),
        };
        let marks = (options.bookmarks, options.bookmarks && options.send_initial_events == Some(true));
        let timeout = timeout.as_millis() as u64;
        let follower = Follower::new(view, since, &begin, marks, timeout, &self.judge);
        let stream = Arc::new(Mutex::new(Some(body)));
        self.watchers[at] = Some(Watching::There(Box::new(follower), stream, Slot::default()));
        Ok(())
    }

    fn watch_told(&mut self, at: usize, told: &Pieces) -> Result<(), String> {
        let mut ended = None;
        for piece in &told.pieces {
            for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.note(|| format!("  watch {at} is told {}", String::from_utf8_lossy(line)));
                let event = serde_json::from_slice(line).map_err(|error| format!("watch {at}: {error}"))?;
                let Some(Watching::There(follower, ..)) = &mut self.watchers[at] else { return Ok(()) };
                expect(ended.is_none(), || format!("watch {at} is told {event} after its end"))?;
                let verdict = follower.told(&event, &self.judge);
                ended = verdict.map_err(|why| format!("watch {at} of {:?}: {why}", follower.view))?;
                if event["type"] == "BOOKMARK" {
                    self.done.bookmarks += 1;
                } else {
                    self.done.events += 1;
                }
            }
        }
        let Some(Watching::There(follower, ..)) = &self.watchers[at] else { return Ok(()) };
        if told.ended && ended.is_none() {
            let why = follower.ended(&self.judge);
            ended = Some(why.map_err(|why| format!("watch {at} of {:?}: {why}", follower.view))?);
        }
        let Some(ended) = ended else { return Ok(()) };
        self.note(|| format!("  watch {at} ends: {ended:?}"));
        match ended {
            Ended::Expired => {
                self.done.expired += 1;
                // Its client lists again.
                self.watchers[at] = None;
            }
            Ended::Slow | Ended::Timeout => {
                self.done.slow += u64::from(ended == Ended::Slow);
                self.forget_watch(at);
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

    fn step(&mut self, step: Step<Kind>) -> Result<(), Stop> {
        let mut random = Random::new(step.dice);
        let turns = random.below(10);
        match step.kind {
            Kind::Write => {
                let ask = self.draw(&random).write();
                self.ask(ask)?;
            }
            Kind::Burst => {
                let ask = self.draw(&random).burst();
                self.ask(ask)?;
            }
            Kind::Lease => self.ask(Ask::Grant(Duration::from_secs(*random.pick(&[3, 30, 200])), 0))?,
            Kind::Read => {
                self.wait_for_server()?;
                self.begin_read(&mut random);
            }
            Kind::Watch => {
                self.wait_for_server()?;
                if random.chance(40) {
                    let ask = self.draw(&random).write();
                    self.ask(ask)?;
                }
                let from = random.chance(60).then(|| self.resume.pop()).flatten();
                let watched = self.draw(&random).watch(from);
                self.begin_watch(random.index(WATCHERS.len()), watched)?;
            }
            Kind::Follow => self.follow(random.index(WATCHERS.len()), 1 + random.index(FRAMES)),
            Kind::Due => {
                self.note(|| "bookmarks are due".into());
                self.pass(61_000);
                let ask = self.draw(&random).write();
                self.ask(ask)?;
                (0..self.watchers.len()).for_each(|at| self.follow(at, FRAMES));
                // Those who read stay where they are while it is brought to them.
                self.some_turns(random.below(12))?;
                let reading: Vec<usize> = WATCHERS.filter(|seat| !self.machine.is_free(*seat)).collect();
                self.machine.freeze(reading);
                self.some_turns(60)?;
                self.machine.freeze([]);
            }
            Kind::Cut => self.cut(random.index(WATCHERS.len()))?,
            Kind::Compact => {
                let ask = self.draw(&random).compact();
                self.ask(ask)?;
            }
            Kind::Upkeep => {
                if self.upkeep.is_none() && self.machine.is_open() {
                    let slot = Slot::default();
                    self.machine.upkeep(random.chance(50), &slot);
                    self.upkeep = Some(slot);
                }
            }
            Kind::Advance => {
                let millis = self.draw(&random).pass();
                self.note(|| format!("{millis} ms pass"));
                self.pass(millis);
            }
            Kind::Stall => {
                self.note(|| "the store's watch stalls".into());
                self.machine.freeze(CONNECTIONS);
            }
            Kind::Release => self.machine.freeze([]),
            Kind::Lose => self.lose(&mut random)?,
            Kind::Overtake => self.overtake(&random)?,
            Kind::Crash | Kind::Away | Kind::CrashTogether if self.machine.is_open() => {
                self.loss = random.chance(60).then(|| Loss::any(&mut random));
                self.together = step.kind == Kind::CrashTogether;
                self.away = step.kind == Kind::Away;
                self.machine.cut_after(random.below(8));
            }
            Kind::Crash | Kind::Away | Kind::CrashTogether => {}
            Kind::Back => self.back()?,
            Kind::Restart => {
                self.stop_server()?;
                self.start_server();
            }
            Kind::Fail => {
                let what = self.machine.fail_any(&mut random);
                self.note(|| what);
            }
            Kind::Heal => self.machine.heal(),
            Kind::Add => self.add(),
            Kind::Key => {
                let there = !self.wire.has_key();
                self.note(|| format!("the key is there: {there}"));
                self.wire.set_key(there);
            }
            Kind::Settle => self.settle()?,
        }
        if self.server.is_none() {
            self.start_server();
        }
        self.some_turns(turns)
    }

    /// Who wants something of an API server that starts waits a little.
    fn wait_for_server(&mut self) -> Result<(), Stop> {
        for _ in 0..PATIENCE {
            if self.up().is_some() || !self.turn()? {
                break;
            }
        }
        Ok(())
    }

    fn some_turns(&mut self, turns: u64) -> Result<(), Stop> {
        for _ in 0..turns {
            if !self.turn()? {
                break;
            }
        }
        Ok(())
    }

    fn add(&mut self) {
        if let Some(server) = &mut self.server {
            server.add(&self.machine, STORAGES[1]);
        }
    }

    fn back(&mut self) -> Result<(), Stop> {
        self.away = false;
        if self.machine.is_open() { Ok(()) } else { self.open() }
    }

    /// Some of what goes over the wire does not arrive.
    fn lose(&mut self, random: &mut Random) -> Result<(), String> {
        let connection = random.chance(60);
        let seats = if connection { CONNECTIONS } else { CALLERS };
        self.note(|| if connection { "the store's watch is cut".into() } else { "calls are cut".into() });
        for seat in seats {
            self.machine.stop(seat)?;
            if !connection {
                self.callers[seat - CALLERS.start] = None;
            }
        }
        Ok(())
    }

    fn overtake(&mut self, random: &Random) -> Result<(), Stop> {
        self.wait_for_server()?;
        self.note(|| "the API server is overtaken".into());
        self.machine.freeze([FEED]);
        CONNECTIONS.into_iter().try_for_each(|seat| self.machine.stop(seat))?;
        let burst = self.draw(random).burst();
        self.ask(burst)?;
        self.some_turns(100)?;
        self.ask(Ask::Compact(self.judge.revision()))?;
        self.some_turns(100)?;
        self.machine.freeze([]);
        Ok(())
    }

    fn begin_read(&mut self, random: &mut Random) {
        let Some(at) = self.readers.iter().position(Option::is_none) else { return };
        let read = match random.below(10) {
            0 | 1 => {
                let (storage, key, version) = self.draw(random).get();
                Read::Get(storage, key, version)
            }
            2..5 if !self.tokens.is_empty() => {
                let (view, options) = self.tokens.swap_remove(random.index(self.tokens.len()));
                Read::List(view, options)
            }
            _ => {
                let (view, options) = self.draw(random).list();
                Read::List(view, options)
            }
        };
        self.reads(at, read);
    }

    fn reads(&mut self, at: usize, read: Read) {
        let storage = match &read {
            Read::List(view, _) => view.storage,
            Read::Get(storage, ..) => *storage,
        };
        let Some(up) = self.up().filter(|up| up.serves(storage)).cloned() else { return };
        self.note(|| format!("reader {at}: {read:?}"));
        let (since, answer, asked) = (self.judge.since(), Slot::default(), read.clone());
        let work = async move { find(&up, &asked).await };
        run(&self.machine, READERS.start + at, &self.time.handle(), &answer, work);
        self.readers[at] = Some(Reading { read, since, answer });
    }

    fn begin_watch(&mut self, at: usize, watched: Watched) -> Result<(), Stop> {
        let Some(up) = self.up().filter(|up| up.serves(watched.view.storage)).cloned() else { return Ok(()) };
        self.cut(at)?;
        self.note(|| format!("watch {at}: {watched:?}"));
        let (since, begun, asked) = (self.judge.since(), Slot::default(), watched.clone());
        let work = async move { watch(&up, asked).await };
        run(&self.machine, WATCHERS.start + at, &self.time.handle(), &begun, work);
        self.watchers[at] = Some(Watching::Beginning(Box::new(watched), since, begun));
        Ok(())
    }

    /// Reads a few frames of a watch, if nobody does already.
    fn follow(&mut self, at: usize, most: usize) {
        let seat = WATCHERS.start + at;
        if let Some(Watching::There(_, stream, told)) = &self.watchers[at]
            && self.machine.is_free(seat)
        {
            let stream = Arc::clone(stream);
            run(&self.machine, seat, &self.time.handle(), told, async move { pieces(&stream, most) });
        }
    }

    /// A client goes away from its watch, wherever that is.
    fn cut(&mut self, at: usize) -> Result<(), Stop> {
        self.machine.stop(WATCHERS.start + at)?;
        self.look_at_watch(at)?;
        if self.watchers[at].is_some() {
            self.note(|| format!("watch {at} is cut"));
        }
        self.forget_watch(at);
        Ok(())
    }

    /// Everything is there again and comes to rest, and all is looked at.
    fn settle(&mut self) -> Result<(), Stop> {
        self.note(|| "settling".into());
        self.wire.set_key(true);
        self.machine.heal();
        self.machine.freeze([]);
        self.back()?;
        if self.server.is_none() {
            self.start_server();
        }
        let idle = |world: &Self| {
            world.up().is_some_and(|up| up.registry.caches().following() && STORAGES.iter().all(|s| up.serves(*s)))
                && world.readers.iter().all(Option::is_none)
                && world.writers.iter().all(Option::is_none)
        };
        self.turns()?;
        for _ in 0..30 {
            // Whatever waits before it tries again does.
            self.pass(1000);
            if self.server.is_none() {
                self.start_server();
            }
            self.add();
            self.turns()?;
            if idle(self) && self.judge.known.veiled == 0 {
                break;
            }
        }
        if !idle(self) {
            return Err(Stop::Wrong("the API server does not come back".into()));
        }
        self.ask(Draw::nothing())?;
        self.turns()?;
        self.look_at_all()
    }

    fn look_at_all(&mut self) -> Result<(), Stop> {
        let everything = self.draw(&Random::new(0)).everything();
        for (at, (view, options)) in everything.into_iter().enumerate() {
            self.listed = None;
            self.reads(at, Read::List(view, options));
            self.turns_until("a list is not answered", |world| world.readers[at].is_none())?;
            // What it found was compared.
            expect(self.listed == Some(self.judge.revision()), || "a list is refused after all is settled".into())?;
        }
        let revision = self.judge.revision();
        self.follow_all()?;
        self.pass(61_000);
        self.follow_all()?;
        for watching in self.watchers.iter().flatten() {
            match watching {
                Watching::There(follower, ..) => {
                    follower.caught_up(&self.judge)?;
                    // Unless something happened of itself.
                    if self.judge.revision() == revision {
                        follower.knows(revision)?;
                    }
                }
                Watching::Beginning(..) => return Err(Stop::Wrong("a watch does not begin".into())),
            }
        }
        if let Some(up) = self.up() {
            for (storage, projection) in STORAGES.into_iter().zip(&up.projections) {
                projection.settled(storage, &self.judge.history)?;
            }
        }
        Ok(())
    }

    /// Reads all watches until they are quiet, and nothing happens any more.
    fn follow_all(&mut self) -> Result<(), Stop> {
        loop {
            self.turns()?;
            let before = self.trace.len();
            for at in 0..self.watchers.len() {
                self.follow(at, FRAMES);
            }
            self.turns()?;
            if self.trace.len() == before {
                return Ok(());
            }
        }
    }
}

async fn find(up: &Up, read: &Read) -> Result<Found, Status> {
    match read {
        Read::List(view, options) => {
            let served = up.of(view.storage)?;
            let cacher = served.storage("list")?;
            let (labels, fields) = (&options.label_selector, &options.field_selector);
            let filter = selection::filter(served, cacher, view.namespace, "", labels, fields)?;
            let listed = up.registry.list(served, &filter, options).await?;
            let objects = listed.entries.iter().map(|entry| Object::read(entry.item(), None));
            Ok(Found {
                revision: listed.revision.cast_signed(),
                objects: objects.collect::<Result<_, _>>().map_err(Status::internal)?,
                next: listed.next,
                remaining: listed.remaining,
            })
        }
        Read::Get(storage, key, version) => {
            let (namespace, name) = key.split_once('/').unwrap_or_default();
            let entry = up.registry.get(up.of(*storage)?, namespace, name, *version).await?;
            let object = Object::read(entry.item(), None).map_err(Status::internal)?;
            Ok(Found { revision: object.revision, objects: vec![object], next: String::new(), remaining: None })
        }
    }
}

async fn watch(up: &Up, watched: Watched) -> Result<(Pin<Box<WatchBody>>, Option<i64>), Status> {
    let Watched { view, options, timeout } = watched;
    let served = up.of(view.storage)?;
    let cacher = served.storage("watch")?;
    let (labels, fields) = (&options.label_selector, &options.field_selector);
    let filter = selection::filter(served, cacher, view.namespace, "", labels, fields)?;
    let (watcher, initial) = up.registry.watch(served, filter.clone(), &options).await?;
    let revision = initial.as_ref().map(|(_, revision)| revision.cast_signed());
    let shown = media::View::default();
    let body = WatchBody::new(served.clone(), shown, watcher, initial, filter, &options, timeout);
    Ok((Box::pin(body), revision))
}

/// What there is to read of a watch now.
fn pieces(stream: &Mutex<Option<Pin<Box<WatchBody>>>>, most: usize) -> Pieces {
    let mut told = Pieces { pieces: Vec::new(), ended: false };
    let mut body = take(stream);
    while let Some(reading) = body.as_mut().filter(|_| told.pieces.len() < most) {
        match reading.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => break,
            Poll::Ready(Some(Ok(frame))) => told.pieces.extend(frame.into_data()),
            Poll::Ready(None) => {
                told.ended = true;
                body = None;
            }
            Poll::Ready(Some(Err(_))) => unreachable!("a watch's body does not fail"),
        }
    }
    *stream.lock().unwrap_or_else(PoisonError::into_inner) = body;
    told
}
