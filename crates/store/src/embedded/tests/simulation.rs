//! The engine on the simulator: many seeds, every boundary of a few, and known bugs that must be found.

use crate::embedded::hooks::Mutant;
use crate::testing::sim::{Simulation, trial};

crate::simulation! { Simulation, seeds: 1200, boundaries: 2, bound: 400, mutants: {
    a_watch_that_skips_to_the_mark: Mutant::WatchSkipsToTheMark,
    a_compaction_that_forgets_a_tombstone: Mutant::CompactionForgetsTombstone,
    a_revision_reused_after_a_restart: Mutant::RevisionFromKeys,
    a_lease_that_ends_early_after_a_clock_jump: Mutant::LeaseByWallClock,
    an_acknowledged_write_that_was_not_synced: Mutant::SyncSkipped,
    an_acknowledged_write_lost_when_the_tail_is_torn: Mutant::TornTailTakesNeighbour,
    an_event_told_twice_after_a_reconnect: Mutant::HistoryOverlapsLive,
    a_stale_consistent_read: Mutant::StaleRead,
    a_delete_lost_in_a_restored_snapshot: Mutant::RestoreLosesDeletes,
    a_put_of_several_keys_done_in_part: Mutant::TornTransactionTaken,
    a_failed_sync_taken_for_done: Mutant::SyncRetried,
    a_checkpoint_whose_name_is_not_synced: Mutant::CheckpointNameNotSynced,
    a_checkpoint_that_is_not_synced: Mutant::CheckpointNotSynced,
    a_segment_whose_name_is_not_synced: Mutant::SegmentNameNotSynced,
    moved_values_that_are_not_synced: Mutant::PackedNotSynced,
    a_segment_removed_before_the_checkpoint: Mutant::SegmentRemovedEarly,
    a_failed_write_that_comes_back: Mutant::DisownedTailReplayed,
    a_lease_whose_end_is_forgotten: Mutant::LeaseEndNotLogged,
    a_renewal_that_is_forgotten: Mutant::RenewalNotLogged,
    a_failed_write_that_stays_in_memory: Mutant::FailedGroupStays,
    a_slow_watch_that_skips: Mutant::SlowWatcherSkips,
    a_version_dropped_under_its_reader: Mutant::PruneIgnoresReaders,
    a_write_seen_before_it_is_durable: Mutant::VisibleBeforeDurable,
    a_list_that_tells_a_later_revision: Mutant::ListTellsLaterRevision,
    a_refusal_of_what_is_not_durable: Mutant::RefusalNotDurable,
    a_tail_taken_for_durable: Mutant::TailTakenAsDurable,
    a_history_that_ends_at_the_compaction_mark: Mutant::HistoryPrunedAtTheMark,
    a_mark_of_history_that_is_forgotten: Mutant::HistoryMarkForgotten,
    a_second_with_the_state_of_the_next: Mutant::SecondHasTheNext,
    a_history_of_keys_that_had_none: Mutant::ExceptionsForgotten,
    times_that_a_checkpoint_forgets: Mutant::TimesNotWritten,
} }

#[test]
fn much_happens_in_a_simulation() {
    let total = trial::total::<Simulation>(0..50);
    assert!(total.crashes > 50 && total.failures > 20, "{total:?}");
    assert!(total.revisions > 300 && total.answers > 1000 && total.batches > 300 && total.recalled > 100, "{total:?}");
}
