//! Everything is finished, and looked at.

use super::{CLIENTS, Simulation, WATCHES};
use crate::testing::fiber;
use crate::testing::random::Random;
use crate::testing::sim::ask::{Answer, Ask};
use crate::testing::sim::driver::{Driver, TURNS};
use crate::testing::sim::machine::Stop;
use crate::testing::sim::world::World;
use crate::{KeyRange, LeaseId, Range, Store};

impl Simulation {
    pub(super) fn look_at_all(&mut self) -> Result<(), Stop> {
        self.follow_all()?;
        let leases = self.now(|engine| fiber::wait(engine.leases()))?;
        let now = self.rig.machine.now();
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
        self.check_history(status.compacted)?;
        self.check_the_past()
    }

    /// What is kept of history is what was: at its end, in the middle and now, and version by version.
    fn check_the_past(&mut self) -> Result<(), Stop> {
        self.recall(Ask::Kept)?;
        let (low, high) = (self.judge.kept().max(1), self.judge.revision());
        for revision in [low, low + 1, i64::midpoint(low, high), high] {
            if revision <= high {
                self.recall(Ask::Past(Range::of(KeyRange::prefix(crate::suite::key("/a/"))).at(revision)))?;
            }
        }
        for name in ["/a/1", "/a/2", "/b/3"] {
            self.recall(Ask::Versions(crate::suite::key(name), 0, 0))?;
        }
        Ok(())
    }

    /// Asks while everybody waits for it.
    fn recall(&mut self, ask: Ask) -> Result<(), Stop> {
        let since = self.judge.asked(&ask, self.rig.machine.now(), self.rig.machine.failures());
        let asked = ask.clone();
        let answer: Answer = self.now(move |engine| fiber::wait(asked.of(engine)))?;
        let (now, failures) = (self.rig.machine.now(), self.rig.machine.failures());
        Ok(self.judge.answered(&ask, since, answer, now, failures)?)
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

    /// Reads all watches until they are quiet, and have told everything.
    fn follow_all(&mut self) -> Result<(), Stop> {
        let mut random = Random::new(0);
        for at in 0..WATCHES {
            if let Some(watching) = &mut self.watches[at] {
                watching.quiet = false;
            }
            for _ in 0..TURNS {
                self.follow(at, &mut random);
                self.turns_until("a watch is not read", |world| world.rig.machine.is_free(CLIENTS + at))?;
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
}
