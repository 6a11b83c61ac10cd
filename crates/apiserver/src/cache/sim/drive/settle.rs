//! All is looked at when everything has come to rest.

use super::{FRAMES, Single, Watching};
use crate::cache::sim::judge::Read;
use crate::cache::sim::script::Draw;
use crate::cache::sim::view::STORAGES;
use store::testing::sim::driver::Driver;
use store::testing::sim::machine::Stop;
use store::testing::sim::world::expect;

impl Single {
    pub(super) fn look_at_all(&mut self) -> Result<(), Stop> {
        for (at, (view, options)) in Draw::everything().into_iter().enumerate() {
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
        if let Some(up) = self.site.up() {
            for (storage, projection) in STORAGES.into_iter().zip(&up.projections) {
                projection.settled(storage, &self.judge.history)?;
            }
        }
        Ok(())
    }

    /// Reads all watches until they are quiet, and nothing happens any more.
    fn follow_all(&mut self) -> Result<(), Stop> {
        loop {
            self.rest()?;
            let before = self.rig.trace.len();
            for at in 0..self.watchers.len() {
                self.follow(at, FRAMES);
            }
            self.rest()?;
            if self.rig.trace.len() == before {
                return Ok(());
            }
        }
    }
}
