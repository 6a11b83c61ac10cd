//! Where tests take hold of the cache: places at which another thread may come in between, and bugs that can be put back to
//! see whether the simulator finds them. Outside of this crate's own tests all of it is nothing.

/// A bug that is not in the cache unless it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A watch is registered some time after its snapshot was taken.
    WatchAfterSnapshot,
    /// From which revision a watch from now on begins is looked up some time before it begins.
    NowBeforeWatch,
    /// A watch that is resumed tells once more what was told last.
    ResumeTellsAgain,
    /// A watcher that is too slow loses events and goes on.
    SlowWatcherSkips,
    /// A consistent read does not wait until the cache has come as far as the store.
    ReadWithoutProgress,
    /// The revision of a bookmark is looked up after it was found that nothing waits.
    BookmarkAhead,
    /// An object that leaves a watch's view goes without a word.
    LeavingUntold,
    /// An object stays in the index by its old field.
    StaleFieldIndex,
    /// An object is not in the index by its new label.
    StaleLabelIndex,
    /// Observers are not told what happened before all was loaded anew.
    ReloadForgetsDifference,
    /// Watches go on over what was missed when all was loaded anew.
    ReloadKeepsWatches,
    /// The next page of a list is of the present.
    PageOfPresent,
    /// Changes are dropped, and watches from before them begin.
    TrimForgetsFloor,
    /// The past is found by undoing the oldest change first.
    UndoneForward,
    /// Who knows more than this server is told it again.
    AheadToldTwice,
    /// The cache says that it has reached a revision before it has its changes.
    ProgressBeforeChanges,
    /// The store is followed from one revision too late after its watch ended.
    ResumeSkipsOne,
    /// An object that can no longer be read is told as removed.
    UnreadableToldRemoved,
    /// Who waits for a revision is not told that it is reached.
    WaiterForgotten,
    /// Who is about to wait for a revision does not notice that it is reached meanwhile.
    WaitsWithoutALook,
    /// An object that cannot be read is taken for absent.
    UnreadableTakenForAbsent,
}

#[cfg(test)]
pub(crate) use on::{is, mutate, pause};

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn pause(_: impl FnOnce() -> bool) {}

/// A bound that only large clusters reach; small in this crate's tests, so that they reach it too.
pub(crate) const fn bound(large: usize, in_tests: usize) -> usize {
    if cfg!(test) { in_tests } else { large }
}

#[cfg(test)]
mod on {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Puts a bug into the caches whose work is done on this thread.
    pub(crate) fn mutate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }

    /// Another thread may come in between if no lock is held.
    pub(crate) fn pause(unlocked: impl FnOnce() -> bool) {
        if store::testing::fiber::inside() && unlocked() {
            store::testing::fiber::pause();
        }
    }
}
