//! What every engine must do, as tests that run on any of them.
//!
//! An engine's own tests invoke [`suite!`](crate::suite!) with a function that makes a [`Fixture`]: each case becomes one test.

pub mod compaction;
pub mod concurrency;
pub mod durability;
pub mod history;
pub mod lease;
pub mod model;
pub mod range;
pub mod txn;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::{
    Compare, Error, Event, KeyRange, KeyValue, LeaseId, Op, OpResult, Range, Relation, Store, Target, Txn, TxnResult,
    WatchBatch, WatchStream,
};

/// A store to test.
#[async_trait]
pub trait Fixture: Send {
    /// The store as it is open now; empty at first.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the store and opens it again on what it made durable.
    async fn reopen(&mut self);
}

/// Makes one test of each case of the suite, given the path of an `async fn() -> impl Fixture`.
#[macro_export]
macro_rules! suite {
    ($make:path) => {
        $crate::suite!(@cases $make, txn: [
            put_tells_versions, one_revision_for_all, compares_choose_the_branch, compares_of_absent_keys,
            operations_see_those_before, no_effect_keeps_the_revision, the_same_key_twice_is_refused,
            replaced_values_on_request, deletes_of_ranges, guarded_writes,
            transactions_within,
        ]);
        $crate::suite!(@cases $make, range: [
            order_bounds_and_prefixes, limit_count_and_more, past_revisions, keys_only_and_count_only,
            future_revisions_are_refused, large_values_and_many_keys,
        ]);
        $crate::suite!(@cases $make, watch: [
            first_batch_tells_the_revision, from_now, from_the_past, from_the_future, a_key_is_not_a_prefix,
            a_transaction_is_one_batch, order_across_many_writes, list_then_watch_leaves_no_gap, previous_values,
            progress_on_request, progress_over_a_quiet_past, deletions_are_told, many_watchers_of_different_ranges,
        ]);
        $crate::suite!(@cases $make, lease: [
            keys_end_with_their_lease, revocation_is_one_revision, renewal_keeps_the_keys, a_key_moves_between_leases,
            unknown_leases_are_refused, leases_survive_reopening,
        ]);
        $crate::suite!(@cases $make, compaction: [
            reads_below_are_refused, the_mark_itself_is_readable, watches_below_are_refused,
            a_watch_from_the_mark_misses_nothing, deleted_keys_are_forgotten, marks_are_checked,
            compaction_survives_reopening,
        ]);
        $crate::suite!(@cases $make, history: [
            versions_are_told_with_deletions, a_page_of_versions_goes_on, a_range_is_of_its_revision,
            history_ends_where_it_says, the_future_has_no_history,
        ]);
        $crate::suite!(@cases $make, concurrency: [
            counters_lose_nothing, transfers_keep_the_sum, watchers_agree_on_the_order, readers_never_go_back,
        ]);
        $crate::suite!(@cases $make, durability: [
            everything_is_there_after_reopening, revisions_continue, history_is_there_after_reopening,
        ]);
    };
    (@cases $make:path, $module:ident: [$($case:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let mut fixture = $make().await;
                    $crate::suite::$module::$case(&mut fixture).await;
                }
            )*
        }
    };
}

/// Nothing in the suite takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put_op(at: &str, value: impl AsRef<[u8]>) -> Op {
    Op::Put { key: key(at), value: Bytes::copy_from_slice(value.as_ref()), lease: 0 }
}

pub(crate) fn delete_op(at: &str) -> Op {
    Op::Delete { keys: KeyRange::key(key(at)) }
}

pub(crate) fn compare(at: &str, relation: Relation, target: Target) -> Compare {
    Compare { key: key(at), relation, target }
}

/// Puts a value; tells the revision.
pub(crate) async fn put(store: &dyn Store, at: &str, value: impl AsRef<[u8]>) -> i64 {
    apply(store, vec![put_op(at, value)]).await.revision
}

pub(crate) async fn put_leased(store: &dyn Store, at: &str, lease: LeaseId) -> i64 {
    let op = Op::Put { key: key(at), value: key("leased"), lease };
    apply(store, vec![op]).await.revision
}

pub(crate) async fn delete(store: &dyn Store, at: &str) -> i64 {
    apply(store, vec![delete_op(at)]).await.revision
}

pub(crate) async fn apply(store: &dyn Store, ops: Vec<Op>) -> TxnResult {
    store.txn(Txn::of(ops)).await.expect("the transaction is applied")
}

pub(crate) async fn get(store: &dyn Store, at: &str) -> Option<KeyValue> {
    store.range(Range::of(KeyRange::key(key(at)))).await.expect("the key is read").kvs.pop()
}

/// Keys and values of a range at a revision (0: the present).
pub(crate) async fn list(store: &dyn Store, keys: KeyRange, revision: i64) -> Result<Vec<(String, String)>, Error> {
    let result = store.range(Range::of(keys).at(revision)).await?;
    Ok(result.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn range_result(result: &OpResult) -> &crate::RangeResult {
    match result {
        OpResult::Range(range) => range,
        other => panic!("not a range: {other:?}"),
    }
}

/// The next batch, which must come.
pub(crate) async fn batch(stream: &mut WatchStream) -> Result<WatchBatch, Error> {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("a batch comes").expect("the watch has not ended")
}

/// Reads the first batch of a watch.
pub(crate) async fn established(stream: &mut WatchStream) -> i64 {
    let first = batch(stream).await.expect("the watch is established");
    assert_eq!(first.events, [], "the first batch is empty");
    first.revision
}

/// Reads events until one of `revision` or a later one has come, as words: `put KEY=VALUE @REVISION`, `delete KEY @REVISION`.
pub(crate) async fn told_until(stream: &mut WatchStream, revision: i64) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let batch = batch(stream).await.expect("the watch goes on");
        told.extend(batch.events.iter().map(words));
        if batch.revision >= revision {
            return told;
        }
    }
}

pub(crate) fn words(event: &Event) -> String {
    match event {
        Event::Put { kv, .. } => format!("put {}={} @{}", text(&kv.key), text(&kv.value), kv.mod_revision),
        Event::Delete { key, revision, .. } => format!("delete {} @{revision}", text(key)),
    }
}
