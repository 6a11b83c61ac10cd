//! What a step of the script is.

use super::{FRAMES, PATIENCE, Reading, Watching, World, Writing};
use crate::cache::sim::client::{find, pieces, watch};
use crate::cache::sim::judge::Read;
use crate::cache::sim::script::{Draw, Kind, Watched};
use crate::cache::sim::server::{AUTHORS, CONNECTIONS, FEED, READERS, SWEEPER, WATCHERS, run};
use crate::cache::sim::view::STORAGES;
use crate::cache::sim::write::{Subject, sweep, write};
use std::sync::Arc;
use std::time::Duration;
use store::testing::disk::Loss;
use store::testing::random::Random;
use store::testing::sim::ask::Ask;
use store::testing::sim::machine::{Slot, Stop};
use store::testing::sim::rig::Driver;
use store::testing::sim::story::Step;

impl World {
    pub(super) fn carry_out(&mut self, step: Step<Kind>) -> Result<(), Stop> {
        let mut random = Random::new(step.dice);
        let turns = random.below(10);
        match step.kind {
            Kind::Request => {
                self.wait_for_server()?;
                // Several may write the same, and of what another server writes this one may know nothing yet.
                let subject = self.draw(&random).subject();
                let lags = random.chance(30);
                if lags {
                    self.rig.machine.freeze([FEED]);
                    for _ in 0..1 + random.below(2) {
                        let (same, number) = (random.chance(60), random.draw());
                        let ask = self.draw(&Random::new(number)).write(same.then(|| subject.clone()));
                        self.ask(ask)?;
                    }
                    self.some_turns(40)?;
                }
                for _ in 0..1 + random.below(3) {
                    let (same, number) = (random.chance(60), random.draw());
                    self.begin_write(&Random::new(number), same.then(|| subject.clone()));
                }
                if lags {
                    self.some_turns(random.below(40))?;
                    self.rig.machine.freeze([]);
                }
            }
            Kind::Sweep => {
                self.wait_for_server()?;
                // What another server writes meanwhile this one may not know yet.
                let lags = random.chance(30);
                if lags {
                    self.rig.machine.freeze([FEED]);
                    let ask = self.draw(&random).burst();
                    self.ask(ask)?;
                    self.some_turns(40)?;
                }
                self.begin_sweep(&random);
                if lags {
                    self.some_turns(random.below(40))?;
                    self.rig.machine.freeze([]);
                }
            }
            Kind::Write => {
                let ask = self.draw(&random).write(None);
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
                // Its client may know more than the API server, from another one.
                let lags = random.chance(20);
                if lags {
                    self.rig.machine.freeze([FEED]);
                }
                if lags || random.chance(40) {
                    let ask = self.draw(&random).write(None);
                    self.ask(ask)?;
                }
                if lags {
                    self.some_turns(40)?;
                }
                let from = random.chance(60).then(|| self.resume.pop()).flatten();
                let watched = self.draw(&random).watch(from);
                self.begin_watch(random.index(WATCHERS.len()), watched)?;
                if lags {
                    self.some_turns(10)?;
                    self.rig.machine.freeze([]);
                }
            }
            Kind::Follow => self.follow(random.index(WATCHERS.len()), 1 + random.index(FRAMES)),
            Kind::Due => {
                self.note(|| "bookmarks are due".into());
                self.pass(61_000);
                let ask = self.draw(&random).write(None);
                self.ask(ask)?;
                (0..self.watchers.len()).for_each(|at| self.follow(at, FRAMES));
                // Those who read stay where they are while it is brought to them.
                self.some_turns(random.below(12))?;
                let reading: Vec<usize> = WATCHERS.filter(|seat| !self.rig.machine.is_free(*seat)).collect();
                self.rig.machine.freeze(reading);
                self.some_turns(60)?;
                self.rig.machine.freeze([]);
            }
            Kind::Cut => self.cut(random.index(WATCHERS.len()))?,
            Kind::Compact => {
                let ask = self.draw(&random).compact();
                self.ask(ask)?;
            }
            Kind::Upkeep => self.rig.begin_upkeep(random.chance(50)),
            Kind::Advance => {
                let millis = self.draw(&random).pass();
                self.note(|| format!("{millis} ms pass"));
                self.pass(millis);
            }
            Kind::Stall => {
                self.note(|| "the store's watch stalls".into());
                self.rig.machine.freeze(CONNECTIONS);
            }
            Kind::Release => self.rig.machine.freeze([]),
            Kind::Lose => self.lose(&mut random)?,
            Kind::Overtake => self.overtake(&random)?,
            Kind::Crash | Kind::Away | Kind::CrashTogether if self.rig.machine.is_open() => {
                let loss = random.chance(60).then(|| Loss::any(&mut random));
                self.together = step.kind == Kind::CrashTogether;
                self.away = step.kind == Kind::Away;
                self.rig.crash_soon(loss, 8, &mut random);
            }
            Kind::Crash | Kind::Away | Kind::CrashTogether => {}
            Kind::Back => self.back()?,
            Kind::Restart => {
                self.stop_server()?;
                self.start_server();
            }
            Kind::Fail => {
                let what = self.rig.machine.fail_any(&mut random);
                self.note(|| what);
            }
            Kind::Heal => {
                self.rig.machine.heal();
                // After that it tries again to write.
                self.pass(1100);
            }
            Kind::Add => self.add(),
            Kind::Key => {
                let there = !self.line.wire.has_key();
                self.note(|| format!("the key is there: {there}"));
                self.line.wire.set_key(there);
                if !there {
                    let ask = self.draw(&random).burst();
                    self.ask(ask)?;
                }
            }
            Kind::Settle => self.settle()?,
        }
        if self.server.is_none() {
            self.start_server();
        }
        self.some_turns(turns)
    }

    /// Who wants something of an API server that starts waits a little.
    pub(super) fn wait_for_server(&mut self) -> Result<(), Stop> {
        for _ in 0..PATIENCE {
            if self.up().is_some() || !self.turn()? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self) {
        if let Some(server) = &mut self.server {
            server.add(&self.rig.machine, STORAGES[1]);
        }
    }

    pub(super) fn back(&mut self) -> Result<(), Stop> {
        self.away = false;
        if self.rig.machine.is_open() { Ok(()) } else { self.open() }
    }

    /// Some of what goes over the wire does not arrive.
    pub(super) fn lose(&mut self, random: &mut Random) -> Result<(), String> {
        let connection = random.chance(60);
        self.note(|| if connection { "the store's watch is cut".into() } else { "calls are cut".into() });
        self.line.cut(&self.rig.machine, connection)
    }

    pub(super) fn overtake(&mut self, random: &Random) -> Result<(), Stop> {
        self.wait_for_server()?;
        self.note(|| "the API server is overtaken".into());
        self.rig.machine.freeze([FEED]);
        CONNECTIONS.into_iter().try_for_each(|seat| self.rig.machine.stop(seat))?;
        let burst = self.draw(random).burst();
        self.ask(burst)?;
        // A watch may begin at the mark: it has to be further.
        self.ask(Draw::nothing())?;
        self.some_turns(100)?;
        self.ask(Ask::Compact(self.judge.revision()))?;
        self.some_turns(100)?;
        let mut random = random.clone();
        if random.chance(60) {
            // Someone is about to watch when all is loaded anew.
            let mut watched = self.draw(&random).watch(None);
            if random.chance(50) {
                watched.options.version = Some(0);
                watched.options.send_initial_events = Some(false);
            }
            self.begin_watch(random.index(WATCHERS.len()), watched)?;
            self.rig.machine.freeze(0..WATCHERS.start);
            self.some_turns(1 + random.below(4))?;
        }
        let watching: Vec<usize> = WATCHERS.filter(|seat| !self.rig.machine.is_free(*seat)).collect();
        self.rig.machine.freeze(watching);
        self.some_turns(100)?;
        // It waits a little before it loads anew.
        self.pass(150);
        self.some_turns(600)?;
        self.rig.machine.freeze([]);
        Ok(())
    }

    pub(super) fn begin_read(&mut self, random: &mut Random) {
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

    pub(super) fn reads(&mut self, at: usize, read: Read) {
        let storage = match &read {
            Read::List(view, _) => view.storage,
            Read::Get(storage, ..) => *storage,
        };
        let Some(up) = self.up().filter(|up| up.serves(storage)).cloned() else { return };
        self.note(|| format!("reader {at}: {read:?}"));
        let (since, answer, asked) = (self.judge.since(), Slot::default(), read.clone());
        let work = async move { find(&up, &asked).await };
        run(&self.rig.machine, READERS.start + at, &self.time.handle(), &answer, work);
        self.readers[at] = Some(Reading { read, since, answer });
    }

    /// A client writes through the registry, if one has nothing under way.
    pub(super) fn begin_write(&mut self, random: &Random, subject: Option<Subject>) {
        let Some(at) = self.authors.iter().position(Option::is_none) else { return };
        let asked = self.draw(random).request(subject);
        let Some(up) = self.up().filter(|up| up.serves(asked.storage)).cloned() else { return };
        self.note(|| format!("author {at}: {asked:?}"));
        let (since, answer) = (self.judge.asked(&asked), Slot::default());
        let request = asked.clone();
        let work = async move { write(&up, &request).await };
        run(&self.rig.machine, AUTHORS.start + at, &self.time.handle(), &answer, work);
        self.authors[at] = Some(Writing { write: Box::new(asked), since, answer });
    }

    /// A client deletes a collection, if none is being deleted.
    pub(super) fn begin_sweep(&mut self, random: &Random) {
        if self.sweeping.is_some() {
            return;
        }
        let asked = self.draw(random).sweep();
        let Some(up) = self.up().filter(|up| up.serves(asked.view.storage)).cloned() else { return };
        self.note(|| format!("a collection is to go: {asked:?}"));
        let (since, answer) = (self.judge.asked_sweep(&asked), Slot::default());
        let request = asked.clone();
        let work = async move { sweep(&up, &request).await };
        run(&self.rig.machine, SWEEPER, &self.time.handle(), &answer, work);
        self.sweeping = Some((asked, since, answer));
    }

    pub(super) fn begin_watch(&mut self, at: usize, watched: Watched) -> Result<(), Stop> {
        let Some(up) = self.up().filter(|up| up.serves(watched.view.storage)).cloned() else { return Ok(()) };
        self.cut(at)?;
        self.note(|| format!("watch {at}: {watched:?}"));
        let (since, begun, asked) = (self.judge.since(), Slot::default(), watched.clone());
        let work = async move { watch(&up, asked).await };
        run(&self.rig.machine, WATCHERS.start + at, &self.time.handle(), &begun, work);
        self.watchers[at] = Some(Watching::Beginning(Box::new(watched), since, begun));
        Ok(())
    }

    /// Reads a few frames of a watch, if nobody does already.
    pub(super) fn follow(&mut self, at: usize, most: usize) {
        let seat = WATCHERS.start + at;
        if let Some(Watching::There(_, stream, told)) = &self.watchers[at]
            && self.rig.machine.is_free(seat)
        {
            let stream = Arc::clone(stream);
            run(&self.rig.machine, seat, &self.time.handle(), told, async move { pieces(&stream, most) });
        }
    }

    /// A client goes away from its watch, wherever that is.
    pub(super) fn cut(&mut self, at: usize) -> Result<(), Stop> {
        self.rig.machine.stop(WATCHERS.start + at)?;
        self.look_at_watch(at)?;
        if self.watchers[at].is_some() {
            self.note(|| format!("watch {at} is cut"));
        }
        self.forget_watch(at);
        Ok(())
    }
}
