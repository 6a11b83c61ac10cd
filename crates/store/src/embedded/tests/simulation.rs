//! The engine on the simulator: many seeds, every boundary of a few, and known bugs that must be found.

use crate::embedded::hooks::Mutant;
use crate::testing::sim::seeds::{self, number};
use crate::testing::sim::{Done, shortened, simulate, trace};

/// Seeds within which each bug is found.
const BOUND: u64 = 2000;
/// Seeds that are tried each time.
const SEEDS: u64 = 1200;

/// A bug that was put back is found, by a seed that the engine without it passes.
fn found(mutant: Mutant) {
    let seed = (0..BOUND).find(|seed| simulate(*seed, Some(mutant), None).is_err());
    let Some(seed) = seed else { panic!("{mutant:?} is not found by {BOUND} seeds") };
    passes(seed, None);
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
    a_watch_that_skips_to_the_mark: WatchSkipsToTheMark,
    a_compaction_that_forgets_a_tombstone: CompactionForgetsTombstone,
    a_revision_reused_after_a_restart: RevisionFromKeys,
    a_lease_that_ends_early_after_a_clock_jump: LeaseByWallClock,
    an_acknowledged_write_that_was_not_synced: SyncSkipped,
    an_acknowledged_write_lost_when_the_tail_is_torn: TornTailTakesNeighbour,
    an_event_told_twice_after_a_reconnect: HistoryOverlapsLive,
    a_stale_consistent_read: StaleRead,
    a_delete_lost_in_a_restored_snapshot: RestoreLosesDeletes,
    a_put_of_several_keys_done_in_part: TornTransactionTaken,
    a_failed_sync_taken_for_done: SyncRetried,
    a_checkpoint_whose_name_is_not_synced: CheckpointNameNotSynced,
    a_checkpoint_that_is_not_synced: CheckpointNotSynced,
    a_segment_whose_name_is_not_synced: SegmentNameNotSynced,
    moved_values_that_are_not_synced: PackedNotSynced,
    a_segment_removed_before_the_checkpoint: SegmentRemovedEarly,
    a_failed_write_that_comes_back: DisownedTailReplayed,
    a_lease_whose_end_is_forgotten: LeaseEndNotLogged,
    a_renewal_that_is_forgotten: RenewalNotLogged,
    a_failed_write_that_stays_in_memory: FailedGroupStays,
    a_slow_watch_that_skips: SlowWatcherSkips,
    a_version_dropped_under_its_reader: PruneIgnoresReaders,
    a_write_seen_before_it_is_durable: VisibleBeforeDurable,
    a_list_that_tells_a_later_revision: ListTellsLaterRevision,
    a_refusal_of_what_is_not_durable: RefusalNotDurable,
    a_tail_taken_for_durable: TailTakenAsDurable,
}

/// Seeds of this share of all that are tried each time.
fn share(share: u64) {
    for seed in seeds::share(share, SEEDS) {
        passes(seed, None);
    }
}

fn passes(seed: u64, power: Option<u64>) -> Done {
    simulate(seed, None, power).unwrap_or_else(|failure| panic!("{}", shortened(*failure, None, power)))
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
fn the_power_goes_at_every_boundary() {
    for seed in 0..number("PILOTHOUSE_SEEDS").map_or(2, |seeds| seeds / 100) {
        let boundaries = passes(seed, Some(u64::MAX)).boundaries;
        assert!(boundaries > 50, "seed {seed} does too little");
        for boundary in 0..boundaries {
            passes(seed, Some(boundary));
        }
    }
}

#[test]
fn a_seed_always_stands_for_the_same() {
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed));
    }
}

#[test]
fn much_happens_in_a_simulation() {
    let mut total = Done::default();
    for seed in 0..50 {
        total += passes(seed, None);
    }
    assert!(total.crashes > 50 && total.failures > 20, "{total:?}");
    assert!(total.revisions > 300 && total.answers > 1000 && total.batches > 300, "{total:?}");
}

/// Not a test unless a seed is asked for: what found something does it again.
#[test]
fn one_seed() {
    if let Some(seed) = seeds::one() {
        passes(seed, number("PILOTHOUSE_POWER"));
    }
}

/// Not a test unless a time is asked for: seeds on all processors, new ones or from a given one on, until it is over or one
/// finds something.
#[test]
#[allow(clippy::print_stdout, reason = "who asked for it wants to know what was done")]
fn for_a_time() {
    if let Some((seeds, first, done)) = seeds::for_a_time(|seed| passes(seed, None)) {
        println!("the store: {seeds} seeds from {first} on: {done:?}");
    }
}
