//! Where tests take hold of the engine: places at which another thread may come in between, and known bugs of other
//! stores that can be put back to see whether the simulator finds them. In a release all of it is nothing.

/// A bug that is not in the engine unless it is asked for: each was one of some store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A watch that starts below the compaction mark begins at the mark, and nobody is told.
    WatchSkipsToTheMark,
    /// Compaction drops a deletion at the mark, which a watch from the mark must tell.
    CompactionForgetsTombstone,
    /// After a restart revisions go on from the highest that a key has, and the deletions after it are forgotten.
    RevisionFromKeys,
    /// Leases are measured with the calendar.
    LeaseByWallClock,
    /// A write is acknowledged before it is synced.
    SyncSkipped,
    /// A torn tail takes the whole frame before it along.
    TornTailTakesNeighbour,
    /// History is replayed up to what is the present then, which live events tell again.
    HistoryOverlapsLive,
    /// A read of the present is answered as of a revision before it.
    StaleRead,
    /// A restored snapshot has the keys that were deleted.
    RestoreLosesDeletes,
    /// Of a transaction that is torn, the whole entries are taken.
    TornTransactionTaken,
    /// A sync that failed is tried again, and its success believed.
    SyncRetried,
    /// The checkpoint's name is not synced.
    CheckpointNameNotSynced,
    /// The checkpoint is not synced before it gets its name.
    CheckpointNotSynced,
    /// A new segment's name is not synced.
    SegmentNameNotSynced,
    /// Moved values are not synced before the old segments go.
    PackedNotSynced,
    /// Segments are removed before the checkpoint that does not need them is there.
    SegmentRemovedEarly,
    /// What a failed write left at the end of a segment counts.
    DisownedTailReplayed,
    /// The end of a lease is not written down.
    LeaseEndNotLogged,
    /// A renewal of a lease of which less was written is not written.
    RenewalNotLogged,
    /// A group that could not be written stays in memory.
    FailedGroupStays,
    /// A watcher that is too slow loses events and goes on.
    SlowWatcherSkips,
    /// Versions that a reader has found are dropped under it.
    PruneIgnoresReaders,
    /// A write is visible before it is durable.
    VisibleBeforeDurable,
    /// A list tells the revision of when it was finished.
    ListTellsLaterRevision,
    /// An error is told of what is not durable yet.
    RefusalNotDurable,
    /// What a start found in the page cache is taken for durable.
    TailTakenAsDurable,
    /// What is below the compaction mark is dropped, whatever history is to be kept.
    HistoryPrunedAtTheMark,
    /// A start takes history for whole that was dropped in part.
    HistoryMarkForgotten,
    /// What was there when a second ended is what the next one began with.
    SecondHasTheNext,
    /// A history is relied on that was written while some keys were excepted from it that are not any more.
    ExceptionsForgotten,
    /// A checkpoint does not have the times of the revisions before it.
    TimesNotWritten,
}

#[cfg(any(test, feature = "suite"))]
mod on {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Puts a bug into the engines whose work is done on this thread.
    pub fn mutate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }

    /// No lock is held here, so another thread may come in between.
    pub(crate) fn pause() {
        crate::testing::fiber::pause();
    }
}

#[cfg(any(test, feature = "suite"))]
pub use on::mutate;
#[cfg(any(test, feature = "suite"))]
pub(crate) use on::{is, pause};

#[cfg(not(any(test, feature = "suite")))]
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

#[cfg(not(any(test, feature = "suite")))]
#[inline(always)]
pub(crate) const fn pause() {}

/// A bound that only large stores reach; small in this crate's tests, so that they reach it too.
pub(crate) const fn bound(large: usize, in_tests: usize) -> usize {
    if cfg!(test) { in_tests } else { large }
}
