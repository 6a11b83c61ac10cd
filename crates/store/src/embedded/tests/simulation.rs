//! The engine on the simulator: many seeds, every boundary of a few, and known bugs that must be found.

use crate::embedded::hooks::Mutant;
use crate::testing::sim::{shortened, simulate};

/// Seeds within which each bug is found.
const BOUND: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// A bug that was put back is found, by a seed that the engine without it passes.
fn found(mutant: Mutant) {
    let bound = number("PILOTHOUSE_BOUND").unwrap_or(BOUND);
    let seed = (0..bound).find(|seed| simulate(*seed, Some(mutant), None).is_err());
    let Some(seed) = seed else { panic!("{mutant:?} is not found by {bound} seeds") };
    println!("{mutant:?} is found by seed {seed}");
    if let Err(failure) = simulate(seed, None, None) {
        panic!("{}", shortened(*failure, None, None));
    }
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

#[test]
fn one_seed() {
    let Some(seed) = number("PILOTHOUSE_SEED") else { return };
    if let Err(failure) = simulate(seed, None, None) {
        panic!("{}", shortened(*failure, None, None));
    }
}

#[test]
fn survey() {
    let count: u64 = number("PILOTHOUSE_SEEDS").unwrap_or(50);
    let start = std::time::Instant::now();
    let mut total = crate::testing::sim::Done::default();
    let list = std::env::var("LIST").map(|list| list.split(',').map(|n| n.parse().unwrap()).collect::<Vec<u64>>());
    for seed in list.unwrap_or((0..count).collect()) {
        match simulate(seed, None, None) {
            Err(failure) => println!("SEED {seed}: {}", failure.what),
            Ok(done) => {
                total.revisions += done.revisions;
                total.boundaries += done.boundaries;
                total.crashes += done.crashes;
                total.failures += done.failures;
                total.answers += done.answers;
                total.batches += done.batches;
            }
        }
    }
    println!("{total:?} {:?}", start.elapsed());
}
