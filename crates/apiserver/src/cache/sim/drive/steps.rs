//! What a step of the script is.

use super::{FRAMES, Single, Watching};
use crate::cache::sim::client::{find, pieces, watch};
use crate::cache::sim::judge::{Judge, Read, Since};
use crate::cache::sim::script::{Draw, Kind, Watched};
use crate::cache::sim::server::{AUTHORS, CONNECTIONS, FEED, PATIENCE, READERS, SWEEPER, Up, WATCHERS, run};
use crate::cache::sim::view::{STORAGES, Storage};
use crate::cache::sim::write::{Subject, sweep, write};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use store::testing::random::Random;
use store::testing::sim::ask::Ask;
use store::testing::sim::driver::Driver;
use store::testing::sim::machine::{Request, Slot, Stop};

impl Single {
    pub(super) fn perform(&mut self, kind: Kind, random: &mut Random) -> Result<(), Stop> {
        let ask = match kind {
            Kind::Write => self.draw(random).write(None),
            Kind::Burst => self.draw(random).burst(),
            Kind::Lease => Ask::Grant(Duration::from_secs(*random.pick(&[3, 30, 200])), 0),
            Kind::Compact => self.draw(random).compact(),
            Kind::Key if self.turn_key() => return Ok(()),
            Kind::Key => self.draw(random).burst(),
            Kind::Request => return self.requests(random),
            Kind::Sweep => return self.sweep_while_it_lags(random),
            Kind::Watch => return self.watch_while_it_lags(random),
            Kind::Due => return self.bookmarks_due(random),
            Kind::Cut => return self.cut(random.index(WATCHERS.len())),
            Kind::Lose => return Ok(self.lose(random)?),
            Kind::Overtake => return self.overtake(random),
            Kind::Back => return self.come_back(),
            Kind::Restart => return Ok(self.stop_server()?),
            Kind::Read => {
                self.wait_for_server()?;
                self.begin_read(random);
                return Ok(());
            }
            Kind::Follow => {
                self.follow(random.index(WATCHERS.len()), 1 + random.index(FRAMES));
                return Ok(());
            }
            Kind::Stall => {
                self.note(|| "the store's watch stalls".into());
                self.rig.machine.freeze(CONNECTIONS);
                return Ok(());
            }
            Kind::Release => {
                self.rig.machine.freeze([]);
                return Ok(());
            }
            Kind::Add => {
                self.add();
                return Ok(());
            }
        };
        self.ask(ask)
    }

    /// The key that some values are encrypted with goes, or comes back; whether it is there.
    fn turn_key(&mut self) -> bool {
        let there = !self.site.line.wire.has_key();
        self.note(|| format!("the key is there: {there}"));
        self.site.line.wire.set_key(there);
        there
    }

    /// So many times in a hundred the API server is told nothing, until it catches up.
    fn may_lag(&mut self, percent: u64, random: &mut Random) -> bool {
        let lags = random.chance(percent);
        if lags {
            self.rig.machine.freeze([FEED]);
        }
        lags
    }

    fn catch_up(&mut self, turns: u64) -> Result<(), Stop> {
        self.some_turns(turns)?;
        self.rig.machine.freeze([]);
        Ok(())
    }

    /// Several may write the same, and of what another server writes this one may know nothing yet.
    fn requests(&mut self, random: &mut Random) -> Result<(), Stop> {
        self.wait_for_server()?;
        let subject = self.draw(random).subject();
        let any = |random: &mut Random| (random.chance(60).then(|| subject.clone()), Random::new(random.draw()));
        let lags = self.may_lag(30, random);
        if lags {
            for _ in 0..1 + random.below(2) {
                let (subject, dice) = any(random);
                let ask = self.draw(&dice).write(subject);
                self.ask(ask)?;
            }
            self.some_turns(40)?;
        }
        for _ in 0..1 + random.below(3) {
            let (subject, dice) = any(random);
            self.begin_write(&dice, subject);
        }
        if lags { self.catch_up(random.below(40)) } else { Ok(()) }
    }

    /// What another server writes while a collection is deleted this one may not know yet.
    fn sweep_while_it_lags(&mut self, random: &mut Random) -> Result<(), Stop> {
        self.wait_for_server()?;
        let lags = self.may_lag(30, random);
        if lags {
            let ask = self.draw(random).burst();
            self.ask(ask)?;
            self.some_turns(40)?;
        }
        self.begin_sweep(random);
        if lags { self.catch_up(random.below(40)) } else { Ok(()) }
    }

    /// Who begins a watch may know more than the API server, from another one.
    fn watch_while_it_lags(&mut self, random: &mut Random) -> Result<(), Stop> {
        self.wait_for_server()?;
        let lags = self.may_lag(20, random);
        if lags || random.chance(40) {
            let ask = self.draw(random).write(None);
            self.ask(ask)?;
        }
        if lags {
            self.some_turns(40)?;
        }
        let from = random.chance(60).then(|| self.resume.pop()).flatten();
        let watched = self.draw(random).watch(from);
        self.begin_watch(random.index(WATCHERS.len()), watched)?;
        if lags { self.catch_up(10) } else { Ok(()) }
    }

    /// Bookmarks are due while something is written.
    fn bookmarks_due(&mut self, random: &mut Random) -> Result<(), Stop> {
        self.note(|| "bookmarks are due".into());
        self.pass(61_000);
        let ask = self.draw(random).write(None);
        self.ask(ask)?;
        (0..self.watchers.len()).for_each(|at| self.follow(at, FRAMES));
        // Those who read stay where they are while it is brought to them.
        self.some_turns(random.below(12))?;
        self.freeze_watchers();
        self.catch_up(60)
    }

    /// Those who read a watch stay where they are.
    fn freeze_watchers(&mut self) {
        let reading: Vec<usize> = WATCHERS.filter(|seat| !self.rig.machine.is_free(*seat)).collect();
        self.rig.machine.freeze(reading);
    }

    /// Who wants something of an API server that starts waits a little.
    pub(super) fn wait_for_server(&mut self) -> Result<(), Stop> {
        self.turns_while(PATIENCE, |world| world.site.up().is_some()).map(drop)
    }

    pub(super) fn add(&mut self) {
        self.site.add(&self.rig.machine, STORAGES[1]);
    }

    /// Some of what goes over the wire does not arrive.
    pub(super) fn lose(&mut self, random: &mut Random) -> Result<(), String> {
        let connection = random.chance(60);
        self.note(|| if connection { "the store's watch is cut".into() } else { "calls are cut".into() });
        self.site.line.cut(&self.rig.machine, connection)
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
        self.freeze_watchers();
        self.some_turns(100)?;
        // It waits a little before it loads anew.
        self.pass(150);
        self.catch_up(600)
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

    /// One who has a seat asks an API server that serves this storage, if there is one.
    fn begin<Q: Clone + Debug, A: Send + 'static, F: Future<Output = A> + Send + 'static>(
        &mut self,
        (who, seat): (&str, usize),
        (storage, asked): (Storage, Q),
        since: impl FnOnce(&mut Judge, &Q) -> Since,
        work: impl FnOnce(Up, Q) -> F,
    ) -> Option<Request<Q, Since, A>> {
        let up = self.site.up().filter(|up| up.serves(storage))?.clone();
        self.note(|| format!("{who} in seat {seat}: {asked:?}"));
        let (since, answer) = (since(&mut self.judge, &asked), Slot::default());
        run(&self.rig.machine, seat, &self.time.handle(), &answer, work(up, asked.clone()));
        Some(Request { asked, since, answer })
    }

    pub(super) fn reads(&mut self, at: usize, read: Read) {
        let storage = match &read {
            Read::List(view, _) => view.storage,
            Read::Get(storage, ..) => *storage,
        };
        let seat = READERS.start + at;
        self.readers[at] = self.begin(("reader", seat), (storage, read), |judge, _| judge.since(), find);
    }

    /// A client writes through the registry, if one has nothing under way.
    fn begin_write(&mut self, random: &Random, subject: Option<Subject>) {
        let Some(at) = self.authors.iter().position(Option::is_none) else { return };
        let asked = self.draw(random).request(subject);
        let about = (asked.storage, Box::new(asked));
        self.authors[at] = self.begin(("author", AUTHORS.start + at), about, |judge, write| judge.asked(write), write);
    }

    /// A client deletes a collection, if none is being deleted.
    fn begin_sweep(&mut self, random: &Random) {
        if self.sweeping.is_none() {
            let asked = self.draw(random).sweep();
            let about = (asked.view.storage, asked);
            self.sweeping = self.begin(("sweeper", SWEEPER), about, |judge, sweep| judge.asked_sweep(sweep), sweep);
        }
    }

    fn begin_watch(&mut self, at: usize, watched: Watched) -> Result<(), Stop> {
        self.cut(at)?;
        let about = (watched.view.storage, Box::new(watched));
        let begun = self.begin(("watcher", WATCHERS.start + at), about, |judge, _| judge.since(), watch);
        self.watchers[at] = begun.map(Watching::Beginning);
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
