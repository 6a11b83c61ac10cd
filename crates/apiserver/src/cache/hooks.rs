//! Where tests take hold of the cache and of the registry over it: places at which another thread may come in between, what is
//! drawn at random, and bugs that can be put in to see whether the simulator finds them. Outside of this crate's own tests all
//! of it is nothing.

/// A bug that is not there unless it is asked for.
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
    /// A write that was refused because its object is another now is tried again with the revision of the new one, and the
    /// content of the one that it had.
    RetryReusesStaleObject,
    /// An update replaces the object, whatever it is by now.
    UpdateUnguarded,
    /// A delete removes the object, whatever it is by now.
    DeleteUnguarded,
    /// A create replaces an object that is there already.
    CreateUnguarded,
    /// A refusal that follows from an object in memory is told without a look whether it is still so.
    RefusalOfStaleObject,
    /// That nothing is to be written is told of an object in memory without a look whether it is still so.
    UnchangedOfStaleObject,
    /// The preconditions of a delete are not looked at again when it is tried again.
    PreconditionsLookedAtOnce,
    /// A write is answered before the caches have it.
    AnsweredBeforeTheCaches,
    /// A write of which nobody knows whether it happened is tried again.
    UnknownTriedAgain,
    /// A generated name that is taken is not made again.
    GeneratedNameMadeOnce,
    /// The last holder lets go of an object that is being deleted, and it stays.
    LetGoAndKept,
    /// A dry run of an update writes.
    DryRunWrites,
    /// A pod that goes at once is removed without its end having been written to it.
    EndUntold,
    /// A collection is deleted as memory has it, however old that is.
    CollectionOfStaleList,
    /// The objects of a collection are deleted, though only a dry run was asked for.
    CollectionForgetsDryRun,
    /// What is known of a text that is on its way to the store has values of labels end one byte early.
    MarksMisplaced,
    /// What is known of one text is taken for what is known of another.
    MarksOfAnother,
    /// The addresses of a Service that goes stay claimed.
    AddressNotReleased,
    /// An address that is given back stays claimed where memory has the claim of its former owner.
    ClaimOfStaleMemory,
    /// That an address is taken, or that none is left, is told as memory has it.
    FullOfStaleMemory,
    /// Node ports are claimed whatever others have claimed meanwhile.
    PortsUnguarded,
    /// An address that another server has given out meanwhile is given out again.
    AddressUnguarded,
}

#[cfg(test)]
pub(crate) use on::{dice, drawn, is, mutate, pause};

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn pause(_: impl FnOnce() -> bool) {}

/// What is drawn instead of random bytes.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn drawn<const N: usize>() -> Option<[u8; N]> {
    None
}

/// A bound that only large clusters reach; small in this crate's tests, so that they reach it too.
pub(crate) const fn bound(large: usize, in_tests: usize) -> usize {
    if cfg!(test) { in_tests } else { large }
}

#[cfg(test)]
mod on {
    use super::Mutant;
    use std::cell::{Cell, RefCell};
    use store::testing::random::Random;

    /// So many different short draws there are.
    const FEW: u64 = 4;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
        static DICE: RefCell<Option<Random>> = const { RefCell::new(None) };
    }

    /// Sets what is drawn from on this thread.
    pub(crate) fn dice(random: Option<Random>) {
        DICE.set(random);
    }

    /// What is drawn instead of random bytes. A few of them are drawn again and again, so that names collide.
    pub(crate) fn drawn<const N: usize>() -> Option<[u8; N]> {
        DICE.with_borrow_mut(|dice| {
            let dice = dice.as_mut()?;
            let few = [dice.below(FEW) as u8; N];
            Some(if N < 8 { few } else { std::array::from_fn(|_| dice.draw() as u8) })
        })
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
