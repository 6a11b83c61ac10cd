//! The watch cache on the simulator: many seeds, and bugs put back that must be found.

use crate::cache::hooks::Mutant;
use crate::cache::sim::{Done, shortened, simulate, trace};
use store::testing::sim::seeds;

/// Seeds within which each bug is found.
const BOUND: u64 = 300;
/// Seeds that are tried each time.
const SEEDS: u64 = 40;

/// A bug that was put back is found, by a seed that the cache without it passes.
#[allow(clippy::print_stdout, reason = "who asks for it wants to know how soon it is found")]
fn found(mutant: Mutant) {
    let failure = (0..BOUND).find_map(|seed| simulate(seed, Some(mutant)).err());
    let Some(failure) = failure else { panic!("{mutant:?} is not found by {BOUND} seeds") };
    println!("{mutant:?} is found by seed {}: {}", failure.seed, failure.what);
    passes(failure.seed);
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident,)*) => {
        mod mutants {
            use super::{Mutant, found};

            $(
                #[test]
                fn $name() {
                    found(Mutant::$mutant);
                }
            )*
        }
    };
}

mutants! {
    a_watch_registered_after_its_snapshot: WatchAfterSnapshot,
    a_watch_from_an_earlier_now: NowBeforeWatch,
    an_event_told_twice_after_a_resumption: ResumeTellsAgain,
    a_slow_watcher_that_skips: SlowWatcherSkips,
    a_consistent_read_that_does_not_wait: ReadWithoutProgress,
    a_bookmark_ahead_of_what_was_told: BookmarkAhead,
    an_object_that_leaves_a_view_without_a_word: LeavingUntold,
    a_stale_index_of_a_field: StaleFieldIndex,
    a_stale_index_of_labels: StaleLabelIndex,
    a_difference_that_observers_miss: ReloadForgetsDifference,
    a_watch_that_goes_on_over_what_was_missed: ReloadKeepsWatches,
    a_page_of_a_newer_snapshot: PageOfPresent,
    a_watch_from_before_what_is_kept: TrimForgetsFloor,
    a_past_undone_from_the_wrong_end: UndoneForward,
    an_event_told_to_who_knows_it: AheadToldTwice,
    a_read_that_trusts_progress_too_early: ProgressBeforeChanges,
    a_revision_skipped_after_a_cut: ResumeSkipsOne,
    an_unreadable_object_told_as_removed: UnreadableToldRemoved,
    a_waiter_that_is_forgotten: WaiterForgotten,
    a_waiter_that_looks_only_once: WaitsWithoutALook,
    an_unreadable_object_taken_for_absent: UnreadableTakenForAbsent,
}

/// Seeds of this share of all that are tried each time.
fn share(share: u64) {
    for seed in seeds::share(share, SEEDS) {
        passes(seed);
    }
}

fn passes(seed: u64) -> Done {
    simulate(seed, None).unwrap_or_else(|failure| panic!("{}", shortened(*failure, None)))
}

#[test]
fn seeds_of_the_first_share() {
    share(0);
}

#[test]
fn seeds_of_the_second_share() {
    share(1);
}

#[test]
fn seeds_of_the_third_share() {
    share(2);
}

#[test]
fn seeds_of_the_fourth_share() {
    share(3);
}

#[test]
fn a_seed_always_stands_for_the_same() {
    for seed in 0..4 {
        assert_eq!(trace(seed), trace(seed));
    }
}

#[test]
fn much_happens_in_a_simulation() {
    let mut total = Done::default();
    for seed in 40..70 {
        total += passes(seed);
    }
    assert!(total.revisions > 400 && total.crashes > 60 && total.starts > 40, "{total:?}");
    assert!(total.reads > 200 && total.watches > 60 && total.events > 80 && total.bookmarks > 20, "{total:?}");
    assert!(total.refused > 20 && total.slow > 0 && total.expired > 0 && total.reloads > 0, "{total:?}");
    assert!(total.veiled > 10, "{total:?}");
}

/// Not a test unless a seed is asked for: what found something does it again.
#[test]
fn one_seed() {
    if let Some(seed) = seeds::one() {
        passes(seed);
    }
}

/// Not a test unless a time is asked for: seeds on all processors, new ones or from a given one on, until it is over or one
/// finds something.
#[test]
#[allow(clippy::print_stdout, reason = "who asked for it wants to know what was done")]
fn for_a_time() {
    if let Some((seeds, first, done)) = seeds::for_a_time(passes) {
        println!("the watch cache: {seeds} seeds from {first} on: {done:?}");
    }
}
