//! Everything comes back and comes to rest, and is looked at.

use super::{FRAMES, Watching, World};
use crate::cache::sim::judge::{Read, expect};
use crate::cache::sim::script::Draw;
use crate::cache::sim::view::STORAGES;
use store::testing::random::Random;
use store::testing::sim::machine::Stop;
use store::testing::sim::rig::Driver;

impl World {
    /// Everything is there again and comes to rest, and all is looked at.
    pub(super) fn settle(&mut self) -> Result<(), Stop> {
        self.note(|| "settling".into());
        self.line.wire.set_key(true);
        self.rig.machine.heal();
        self.rig.machine.freeze([]);
        self.back()?;
        if self.server.is_none() {
            self.start_server();
        }
        let idle = |world: &Self| {
            world.up().is_some_and(|up| up.registry.caches().following() && STORAGES.iter().all(|s| up.serves(*s)))
                && world.readers.iter().all(Option::is_none)
                && world.writers.iter().all(Option::is_none)
                && world.authors.iter().all(Option::is_none)
                && world.sweeping.is_none()
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
            if idle(self) && self.line.wire.veils().values().all(|veils| veils.keys.is_empty()) {
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

    pub(super) fn look_at_all(&mut self) -> Result<(), Stop> {
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
    pub(super) fn follow_all(&mut self) -> Result<(), Stop> {
        loop {
            self.turns()?;
            let before = self.rig.trace.len();
            for at in 0..self.watchers.len() {
                self.follow(at, FRAMES);
            }
            self.turns()?;
            if self.rig.trace.len() == before {
                return Ok(());
            }
        }
    }
}
