//! The watch cache and the registry on the simulator: many seeds, every boundary of a few, and bugs put back that must be found.

use crate::cache::hooks::Mutant;
use crate::cache::sim::Single;
use store::testing::sim::trial;

store::simulation! { Single, seeds: 40, boundaries: 1, bound: 300, mutants: {
    a_watch_registered_after_its_snapshot: Mutant::WatchAfterSnapshot,
    a_watch_from_an_earlier_now: Mutant::NowBeforeWatch,
    an_event_told_twice_after_a_resumption: Mutant::ResumeTellsAgain,
    a_slow_watcher_that_skips: Mutant::SlowWatcherSkips,
    a_consistent_read_that_does_not_wait: Mutant::ReadWithoutProgress,
    a_bookmark_ahead_of_what_was_told: Mutant::BookmarkAhead,
    an_object_that_leaves_a_view_without_a_word: Mutant::LeavingUntold,
    a_stale_index_of_a_field: Mutant::StaleFieldIndex,
    a_stale_index_of_labels: Mutant::StaleLabelIndex,
    a_difference_that_observers_miss: Mutant::ReloadForgetsDifference,
    a_watch_that_goes_on_over_what_was_missed: Mutant::ReloadKeepsWatches,
    a_page_of_a_newer_snapshot: Mutant::PageOfPresent,
    a_watch_from_before_what_is_kept: Mutant::TrimForgetsFloor,
    a_past_undone_from_the_wrong_end: Mutant::UndoneForward,
    an_event_told_to_who_knows_it: Mutant::AheadToldTwice,
    a_read_that_trusts_progress_too_early: Mutant::ProgressBeforeChanges,
    a_revision_skipped_after_a_cut: Mutant::ResumeSkipsOne,
    an_unreadable_object_told_as_removed: Mutant::UnreadableToldRemoved,
    a_waiter_that_is_forgotten: Mutant::WaiterForgotten,
    a_waiter_that_looks_only_once: Mutant::WaitsWithoutALook,
    an_unreadable_object_taken_for_absent: Mutant::UnreadableTakenForAbsent,
    a_retry_that_reuses_the_stale_object: Mutant::RetryReusesStaleObject,
    an_update_without_a_guard: Mutant::UpdateUnguarded,
    a_delete_without_a_guard: Mutant::DeleteUnguarded,
    a_create_without_a_guard: Mutant::CreateUnguarded,
    a_refusal_because_of_a_stale_object: Mutant::RefusalOfStaleObject,
    nothing_done_because_of_a_stale_object: Mutant::UnchangedOfStaleObject,
    preconditions_that_are_looked_at_once: Mutant::PreconditionsLookedAtOnce,
    a_write_answered_before_the_caches_have_it: Mutant::AnsweredBeforeTheCaches,
    a_write_tried_again_that_may_have_been_done: Mutant::UnknownTriedAgain,
    a_generated_name_that_is_taken: Mutant::GeneratedNameMadeOnce,
    an_object_that_nobody_holds_and_stays: Mutant::LetGoAndKept,
    a_dry_run_that_writes: Mutant::DryRunWrites,
    an_end_that_watchers_are_not_told: Mutant::EndUntold,
    a_collection_as_it_was: Mutant::CollectionOfStaleList,
    a_dry_run_that_deletes_a_collection: Mutant::CollectionForgetsDryRun,
    marks_at_the_wrong_bytes: Mutant::MarksMisplaced,
    marks_of_another_text: Mutant::MarksOfAnother,
} }

#[test]
fn much_happens_in_a_simulation() {
    let total = trial::total::<Single>(40..70);
    assert!(total.revisions > 400 && total.crashes > 60 && total.starts > 40, "{total:?}");
    assert!(total.reads > 200 && total.watches > 60 && total.events > 80 && total.bookmarks > 20, "{total:?}");
    assert!(total.refused > 20 && total.slow > 0 && total.expired > 0 && total.reloads > 0, "{total:?}");
    assert!(total.veiled > 10 && total.writes > 200 && total.denied > 200 && total.swept > 10, "{total:?}");
}
