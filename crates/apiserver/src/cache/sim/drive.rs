//! Carries out a script on a machine and has everything judged that the API server tells.

mod answers;
mod settle;
mod steps;

use super::client::Pieces;
use super::done::Done;
use super::follow::Follower;
use super::judge::{Found, Judge, Read, Since};
use super::script::{Draw, Kind, Setting, Watched};
use super::server::{
    AUTHORS, CALLERS, CONNECTIONS, FEEDERS, INSIDE, OUTSIDE, READERS, Rows, SEATS, Site, Time, WATCHERS, WRITERS,
};
use super::view::{STORAGES, View};
use super::wire::Line;
use super::write::{Sweep, Swept, Write, Wrote};
use crate::cache::Cacher;
use crate::cache::hooks::{self, Mutant};
use crate::http::stream::WatchBody;
use crate::options::ListOptions;
use api::Status;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use store::embedded::Clock;
use store::testing::fiber;
use store::testing::random::Random;
use store::testing::sim::ask::{Answer, Ask};
use store::testing::sim::driver::Driver;
use store::testing::sim::machine::{Request, Slot, Stop, answered, take};
use store::testing::sim::rig::Rig;
use store::testing::sim::world::{Verdict, World};
use store::{Event, LeaseId};

/// What is read of a watch at once, at most.
const FRAMES: usize = 6;

/// What those who read, those who write, and who deletes a collection have under way.
type Reading = Request<Read, Since, Result<Found, Status>>;
type Writing = Request<Box<Write>, Since, Result<Wrote, Status>>;
type Sweeping = Request<Sweep, Since, Result<Swept, Status>>;

/// What a watch begins with: what it tells, and of which revision what there is.
type Begun = Result<(Pin<Box<WatchBody>>, Option<i64>), Status>;
type Stream = Arc<Mutex<Option<Pin<Box<WatchBody>>>>>;

/// A watch that is being made, or is there.
enum Watching {
    Beginning(Request<Box<Watched>, Since, Begun>),
    There(Box<Follower>, Stream, Slot<Pieces>),
}

/// One API server under way, on a store that others write to.
pub(in crate::cache) struct Single {
    setting: Setting,
    rig: Rig,
    judge: Judge,
    site: Site,
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
    /// At the next end of the store the API server ends too.
    together: bool,
    done: Done,
    /// Goes last: what is above may have timers.
    time: Time,
}

impl World for Single {
    type Setting = Setting;
    type Mutant = Mutant;
    type Done = Done;

    const SEATS: (usize, usize) = (INSIDE, OUTSIDE);

    fn mutate(mutant: Option<Mutant>) {
        hooks::mutate(mutant);
    }

    fn new(rig: Rig, setting: Setting) -> Single {
        Single {
            setting,
            rig,
            judge: Judge::new(),
            site: Site::new(SEATS, Line::new(CALLERS, CONNECTIONS)),
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
            done: Done::default(),
            time: Time::new(),
        }
    }

    fn rig(&mut self) -> &mut Rig {
        &mut self.rig
    }

    fn step(&mut self, kind: Kind, random: &mut Random) -> Result<(), Stop> {
        self.perform(kind, random)
    }

    fn span(&self, random: &mut Random) -> u64 {
        *random.pick(&[1, 150, 900, 3100, 3100, 11_000, 61_000, 61_000, 150_000, 301_000])
    }

    fn passed(&mut self, millis: u64) {
        self.time.advance(millis);
    }

    fn crash(&mut self, random: &mut Random) {
        let what = random.below(4);
        self.together = what == 0;
        self.rig.away = what == 1;
    }

    fn ended(&mut self) -> Verdict {
        self.writers = Default::default();
        self.site.line.drop_all();
        if std::mem::take(&mut self.together) { self.stop_server() } else { Ok(()) }
    }

    fn start(&mut self) {
        if self.site.runs() {
            return;
        }
        self.note(|| "the API server starts".into());
        self.done.starts += 1;
        self.judge.started();
        self.site.line.wire.forget_veils();
        let storages = if self.setting.late { &STORAGES[..1] } else { &STORAGES[..] };
        self.site.start(&self.rig.machine, &self.time, Rows::of(storages));
    }

    fn revive(&mut self) {
        self.site.line.wire.set_key(true);
        self.start();
        self.add();
    }

    fn revision(&self) -> i64 {
        self.judge.revision()
    }

    fn seen(&mut self, events: &[Event], _: bool) -> Verdict {
        let known = self.site.known(&self.rig.machine);
        let calls = self.site.line.is_idle();
        let at_rest = calls && FEEDERS.into_iter().all(|seat| self.rig.machine.is_at_rest(seat));
        let wire = &self.site.line.wire;
        if at_rest {
            wire.rests();
        }
        self.judge.see(events, known, &wire.veils(), at_rest, self.rig.machine.now())
    }

    fn carry(&mut self) {
        self.site.line.pump(&self.rig.machine);
    }

    fn look(&mut self) -> Verdict {
        if !self.site.look(&self.rig.machine)? {
            // As a process that could not start it ends, and is started again with the next step.
            self.stop_server()?;
        }
        if let Some(storage) = self.site.added() {
            self.judge.added(storage);
        }
        if let Some(up) = self.site.up() {
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
        for at in 0..self.readers.len() {
            if let Some((read, since, answer)) = answered(&mut self.readers[at]) {
                self.read(at, &read, since, answer)?;
            }
        }
        for at in 0..self.watchers.len() {
            self.look_at_watch(at)?;
        }
        for at in 0..self.authors.len() {
            if let Some((write, since, answer)) = answered(&mut self.authors[at]) {
                self.written(at, &write, since, &answer)?;
            }
        }
        if let Some((sweep, since, answer)) = answered(&mut self.sweeping) {
            self.note(|| format!("  the collection is answered {answer:?}"));
            self.done.swept += answer.as_ref().map_or(0, |swept| swept.len() as u64);
            let verdict = self.judge.answered_sweep(&sweep, since, &answer);
            verdict.map_err(|why| format!("{sweep:?} since {} is answered {answer:?}: {why}", since.revision))?;
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.site.line.wire.is_quiet()
    }

    fn is_settled(&self) -> Result<bool, String> {
        let serves = self.site.up().is_some_and(|up| {
            let reads = |cacher: Arc<Cacher>| cacher.newest_unreadable().is_none();
            STORAGES.iter().all(|storage| up.serves(*storage)) && up.registry.caches().all().into_iter().all(reads)
        });
        let answered = self.readers.iter().all(Option::is_none)
            && self.writers.iter().all(Option::is_none)
            && self.authors.iter().all(Option::is_none)
            && self.sweeping.is_none();
        Ok(self.site.follows() && serves && answered)
    }

    fn inspect(&mut self) -> Result<(), Stop> {
        self.ask(Draw::nothing())?;
        self.rest()?;
        self.look_at_all()
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
}

impl Single {
    /// The API server's process ends where it is.
    fn stop_server(&mut self) -> Verdict {
        if !self.site.stop(&self.rig.machine)? {
            return Ok(());
        }
        self.note(|| "the API server ends".into());
        self.done.crashes += 1;
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
            setting: &self.setting,
            leases: &self.leases,
            wall: self.rig.machine.hand().wall_millis(),
            unique: &mut self.unique,
        }
    }
}
