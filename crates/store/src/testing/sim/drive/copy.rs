//! Copies of the store, as a directory or as a file of etcd's, are what it was.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;

use super::Simulation;
use crate::embedded::{Disk, tools};
use crate::testing::clock::Hand;
use crate::testing::disk::{MemoryDisk, Platter};
use crate::testing::fiber;
use crate::testing::random::Random;
use crate::testing::sim::driver::Driver;
use crate::testing::sim::machine::Stop;
use crate::{Embedded, Error, History, KeyRange, Range, Store, Txn, snapshot};

impl Simulation {
    /// Copies the store as a directory or as a file of etcd's, opens the copy, and compares.
    pub(super) fn snapshot(&mut self, random: &mut Random) -> Result<(), Stop> {
        let (platter, id) = (Arc::<Platter>::default(), random.draw());
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(&platter));
        let bump = 1 + random.below(50) as i64;
        let low = self.judge.revision();
        let failures = self.rig.machine.failures();
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
            Err(Error::Io { .. }) if self.rig.machine.failures() > failures => return Ok(()),
            Err(error) => return Err(format!("no snapshot is made: {error:?}").into()),
        };
        if !(low..=self.judge.revision()).contains(&at) {
            return Err(format!("a snapshot is of {at}, and {low} was there before").into());
        }
        let clock = Arc::new(Hand::default());
        let opened = Embedded::at_rest(disk, clock, self.rig.options.clone(), id);
        let (copy, mut turns) = opened.map_err(|error| format!("the copy does not open: {error:?}"))?;
        let status = fiber::wait(copy.status()).map_err(|error| format!("no status: {error:?}"))?;
        let all = Range::of(KeyRange::all());
        let read = fiber::wait(copy.range(all.clone())).map_err(|error| format!("no range: {error:?}"))?;
        let mut expected = self.judge.model.read(&all, at);
        expected.revision = revision;
        if (status.revision, status.compacted) != (revision, revision) || read != expected {
            return Err(format!("the copy of {at} is {status:?}\n {read:?}, and it was\n {expected:?}").into());
        }
        // It has no history of the store that it is a copy of: revisions between are of nobody.
        let before = fiber::wait(copy.range_at(all.at(revision - 1)));
        let refused = matches!(before, Err(Error::Compacted { compacted, .. }) if compacted == revision);
        if !refused && revision > 1 {
            return Err(format!("the copy of {revision} tells of a history that it has not: {before:?}").into());
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
}

/// Saves a snapshot in a file without a name and makes a store of it; tells the revisions of both.
fn by_a_file(engine: &Embedded, onto: Arc<dyn Disk>, id: u64, bump: i64) -> Result<(i64, i64), Error> {
    let export = fiber::wait(engine.export())?;
    let (file, _) = snapshot::unnamed(&export, &std::env::temp_dir())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let restored = snapshot::restore_into(&path, || Ok(tools::Builder::on(onto, id)), bump, false)?;
    Ok((restored.snapshot, restored.revision))
}
