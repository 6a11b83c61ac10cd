//! A disk that fails and a clock that is set: full disks, failed syncs, what is promised meanwhile.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::embedded::{Clock, Disk, Turns};
use crate::suite::{get, key, put, put_leased, put_op};
use crate::testing::clock::Hand;
use crate::testing::disk::{Call, Fate, Loss, MemoryDisk, Platter};
use crate::testing::random::Random;
use crate::{Error, KeyRange, Range, Txn};

fn quiet() -> Options {
    Options { segment_bytes: 64 << 10, upkeep_interval: Duration::from_secs(3600), ..Options::default() }
}

fn open(disk: &Arc<Platter>) -> Arc<Embedded> {
    let clock = Arc::new(crate::embedded::SystemClock::default());
    Embedded::open_on(Arc::new(MemoryDisk::new(disk)), clock, quiet()).expect("opened")
}

/// The disk as a loss of power leaves it: what is not durable is lost.
fn crashed(disk: &Platter) -> Arc<Platter> {
    Arc::new(disk.after(Loss::ALL, &mut Random::new(0)))
}

/// Hands a request to the writer of an engine at rest, and lets it be carried out.
fn asked<'a, T>(turns: &RefCell<Turns>, mut request: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
    assert!(request.as_mut().now_or_never().is_none());
    turns.borrow_mut().next(false);
    request
}

/// Puts until the store takes writes again; tells the revision.
async fn healed(store: &Embedded, at: &str) -> i64 {
    let deadline = std::time::Instant::now() + crate::suite::PATIENCE;
    loop {
        match store.txn(Txn::of(vec![put_op(at, "x")])).await {
            Ok(result) => return result.revision,
            Err(Error::ReadOnly { .. }) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_stops_writes_until_there_is_space() {
    let disk = Arc::new(Platter::default());
    let store = open(&disk);
    let before = put(&*store, "/a", "1").await;
    disk.faults().full.store(true, Ordering::SeqCst);
    let first = store.txn(Txn::of(vec![put_op("/a", "2")])).await.expect_err("the disk is full");
    assert!(matches!(&first, Error::Unknown { reason } if reason.contains("cannot be written")), "{first}");
    let second = store.txn(Txn::of(vec![put_op("/a", "3")])).await.expect_err("the disk is full");
    assert!(matches!(second, Error::ReadOnly { .. }), "{second}");
    assert!(store.status().await.expect("status").read_only.is_some());
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.value), Some(key("1")), "reads go on and see nothing of it");
    assert_eq!(store.status().await.expect("status").revision, before);
    disk.faults().full.store(false, Ordering::SeqCst);
    assert_eq!(healed(&store, "/b").await, before + 1, "no revision was lost");
    assert_eq!(store.status().await.expect("status").read_only, None);
    store.close();
    let store = open(&disk);
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.value), Some(key("1")));
    assert!(get(&*store, "/b").await.is_some());
}

/// Panics at a call on a file, once it is told to.
struct Trap(std::sync::atomic::AtomicBool, Call, &'static str);

impl Trap {
    fn store(disk: &Arc<Platter>, call: Call, name: &'static str) -> (Arc<Embedded>, Arc<Self>) {
        let trap = Arc::new(Trap(false.into(), call, name));
        let clock = Arc::new(crate::embedded::SystemClock::default());
        let trapped = Arc::new(MemoryDisk::with(disk, trap.clone()));
        (Embedded::open_on(trapped, clock, quiet()).expect("opened"), trap)
    }
}

impl Fate for Trap {
    fn before(&self, call: Call, name: &str) -> std::io::Result<()> {
        assert!(!self.0.load(Ordering::SeqCst) || call != self.1 || !name.starts_with(self.2), "trapped");
        Ok(())
    }

    fn after_sync(&self) {}
}

#[tokio::test]
async fn a_writer_that_panics_is_told_and_nothing_goes_on_without_it() {
    let disk = Arc::new(Platter::default());
    let (store, trap) = Trap::store(&disk, Call::Write, "log-");
    put(&*store, "/a", "1").await;
    assert_eq!(store.failed().now_or_never(), None);
    trap.0.store(true, Ordering::SeqCst);
    store.txn(Txn::of(vec![put_op("/a", "2")])).await.expect_err("the writer is gone");
    assert_eq!(store.failed().await, "its writer panicked: trapped");
    for told in [store.health().await.expect_err("it has failed"), store.compact(2).await.expect_err("nobody compacts")]
    {
        assert!(matches!(&told, Error::Failed { reason } if reason.contains("trapped")), "{told}");
    }
    store.close();
    let store = open(&disk);
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.value), Some(key("1")));
    assert_eq!(store.health().await.expect("healthy"), None);
}

#[tokio::test]
async fn an_upkeep_that_panics_is_told_and_is_not_tried_again() {
    let disk = Arc::new(Platter::default());
    let (store, trap) = Trap::store(&disk, Call::Create, "checkpoint.new");
    put(&*store, "/a", "1").await;
    trap.0.store(true, Ordering::SeqCst);
    let failed = |error: &Error| matches!(error, Error::Failed { reason } if reason == "its upkeep panicked: trapped");
    assert!(store.maintain().await.is_err_and(|error| failed(&error)));
    trap.0.store(false, Ordering::SeqCst);
    assert!(store.maintain().await.is_err_and(|error| failed(&error)), "what it counts may be wrong");
    assert!(store.health().await.is_err_and(|error| failed(&error)));
    put(&*store, "/a", "2").await;
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.value), Some(key("2")), "reads and writes go on");
    assert_eq!(store.failed().now_or_never(), None, "nobody need end for it");
}

#[tokio::test]
async fn a_store_goes_on_with_the_space_that_there_is() {
    let disk = Arc::new(Platter::default());
    disk.faults().scarce.store(8 << 10, Ordering::SeqCst);
    let store = open(&disk);
    for number in 0..100 {
        put(&*store, &format!("/{number}"), "x".repeat(1000)).await;
    }
    store.close();
    let store = open(&disk);
    assert_eq!(store.status().await.expect("status").keys, 100);
    disk.faults().scarce.store(1, Ordering::SeqCst);
    let refused = store.txn(Txn::of(vec![put_op("/a", "2")])).await.expect_err("no segment can be begun");
    assert!(matches!(&refused, Error::Unknown { .. } | Error::ReadOnly { .. }), "{refused}");
}

#[tokio::test]
async fn what_a_failed_sync_left_is_disowned() {
    let disk = Arc::new(Platter::default());
    let store = open(&disk);
    put(&*store, "/kept", "1").await;
    disk.faults().syncs_fail.store(true, Ordering::SeqCst);
    // The bytes are in the file, and may reach the disk any time.
    let lost = store.txn(Txn::of(vec![put_op("/lost", "1"), put_op("/kept", "2")])).await.expect_err("the sync failed");
    assert!(matches!(&lost, Error::Unknown { reason } if reason.contains("the cable was pulled")), "{lost}");
    disk.faults().syncs_fail.store(false, Ordering::SeqCst);
    let revision = healed(&store, "/new").await;
    assert_eq!(revision, 3, "the revision of the failed write is given again");
    disk.write_back();
    store.close();
    for disk in [Arc::clone(&disk), crashed(&disk)] {
        let store = open(&disk);
        assert!(get(&*store, "/lost").await.is_none());
        assert_eq!(get(&*store, "/kept").await.map(|kv| kv.value), Some(key("1")));
        assert_eq!(get(&*store, "/new").await.map(|kv| kv.mod_revision), Some(3));
    }
}

#[tokio::test]
async fn a_failed_group_leaves_no_trace_in_memory() {
    let disk = Arc::new(Platter::default());
    let store = open(&disk);
    let lease = store.lease_grant(Duration::from_secs(600)).await.expect("granted");
    let other = store.lease_grant(Duration::from_secs(600)).await.expect("granted");
    put_leased(&*store, "/leased", lease).await;
    let last = put(&*store, "/a", "1").await;
    disk.faults().syncs_fail.store(true, Ordering::SeqCst);
    let moved = crate::Op::Put { key: key("/leased"), value: key("moved"), lease: other };
    let ops = vec![moved, crate::Op::Delete { keys: KeyRange::key(key("/a")) }, put_op("/b", "x")];
    assert!(store.txn(Txn::of(ops)).await.is_err());
    disk.faults().syncs_fail.store(false, Ordering::SeqCst);
    assert_eq!(store.status().await.expect("status").keys, 2);
    assert_eq!(healed(&store, "/c").await, last + 1);
    store.lease_revoke(other).await.expect("revoked");
    assert_eq!(get(&*store, "/leased").await.map(|kv| kv.lease), Some(lease), "it hangs where it hung");
    store.lease_revoke(lease).await.expect("revoked");
    let keys = store.range(Range::of(KeyRange::all())).await.expect("read").kvs;
    assert_eq!(keys.iter().map(|kv| &kv.key[..]).collect::<BTreeSet<_>>(), BTreeSet::from([&b"/a"[..], b"/c"]));
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_loss_of_everything_unsynced() {
    let disk = Arc::new(Platter::default());
    let store = open(&disk);
    for number in 0..200 {
        put(&*store, &format!("/k/{number}"), "x".repeat(1000)).await;
        if number % 50 == 49 {
            store.compact(number).await.expect("compacted");
            store.maintain().await.expect("maintained");
        }
        if number % 10 == 0 {
            let crashed = crashed(&disk);
            let after = open(&crashed);
            let listed = after.range(Range { count_only: true, ..Range::of(KeyRange::all()) }).await.expect("read");
            assert_eq!(listed.count as i64, number + 1);
        }
    }
}

#[tokio::test]
async fn leases_are_measured_by_the_monotonic_clock_only() {
    let disk = Arc::new(Platter::default());
    let clock = Arc::new(Hand::default());
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let make = || {
        let (disk, clock) = (Arc::new(MemoryDisk::new(&disk)) as Arc<dyn Disk>, Arc::clone(&clock) as Arc<dyn Clock>);
        Embedded::open_on(disk, clock, options.clone()).expect("opened")
    };
    let store = make();
    let lease = store.lease_grant(Duration::from_secs(60)).await.expect("granted");
    put_leased(&*store, "/leased", lease).await;
    // Somebody sets the time by years, both ways; the store is busy meanwhile.
    for wall in [4_000_000_000_000, -5, 1_700_000_000_000] {
        clock.set_wall(wall);
        put(&*store, "/busy", "x").await;
        assert!(get(&*store, "/leased").await.is_some());
    }
    clock.set(59_999);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/leased").await.is_some(), "never early");
    store.close();
    // After a restart it has its full time again: nothing shorter was written.
    let store = make();
    clock.set(119_998);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/leased").await.is_some());
    clock.set(119_999);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/leased").await.is_none());
}

#[tokio::test]
async fn a_long_lease_keeps_what_passed_and_a_renewal_counts() {
    let disk = Arc::new(Platter::default());
    let clock = Arc::new(Hand::default());
    let options = Options { upkeep_interval: Duration::from_secs(3600), ..Options::default() };
    let make = || {
        let (disk, clock) = (Arc::new(MemoryDisk::new(&disk)) as Arc<dyn Disk>, Arc::clone(&clock) as Arc<dyn Clock>);
        Embedded::open_on(disk, clock, options.clone()).expect("opened")
    };
    let hour = Duration::from_secs(3600);
    let minutes = |count: u64| clock.set(count * 60_000);
    let store = make();
    let passing = store.lease_grant(hour).await.expect("granted");
    let renewed = store.lease_grant(hour).await.expect("granted");
    put_leased(&*store, "/passing", passing).await;
    put_leased(&*store, "/renewed", renewed).await;
    store.maintain().await.expect("maintained");
    minutes(40);
    store.maintain().await.expect("maintained");
    assert_eq!(store.lease_keep_alive(renewed).await.expect("renewed"), hour);
    store.close();
    let store = make();
    minutes(61);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/passing").await.is_none(), "it had twenty minutes left at the restart");
    assert!(get(&*store, "/renewed").await.is_some());
    minutes(99);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/renewed").await.is_some(), "a renewal before the restart gave it an hour from then");
}

#[tokio::test]
async fn a_write_whose_replaced_value_cannot_be_read_is_not_told_as_failed() {
    let disk = Arc::new(Platter::default());
    let clock = Arc::new(crate::embedded::SystemClock::default());
    let options = Options { recent_bytes: 0, ..quiet() };
    let store = Embedded::open_on(Arc::new(MemoryDisk::new(&disk)), clock, options).expect("opened");
    put(&*store, "/a", "1").await;
    disk.faults().reads_fail.store(true, Ordering::SeqCst);
    let txn = Txn { previous: true, ..Txn::of(vec![put_op("/a", "2")]) };
    let told = store.txn(txn).await.expect_err("what was there cannot be read");
    assert!(matches!(&told, Error::Unknown { reason } if reason.contains("revision 3 was written")), "{told}");
    disk.faults().reads_fail.store(false, Ordering::SeqCst);
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.value), Some(key("2")));
}

#[test]
fn a_refusal_is_not_told_before_what_it_tells_of_is_durable() {
    let disk = Arc::new(Platter::default());
    let clock = Arc::new(Hand::default());
    let (store, mut turns) = Embedded::at_rest(Arc::new(MemoryDisk::new(&disk)), clock, quiet(), 1).expect("opened");
    // So that the group below needs no new segment.
    let mut first = Box::pin(store.lease_grant(Duration::from_secs(60)));
    assert!(first.as_mut().now_or_never().is_none());
    turns.next(false);
    first.now_or_never().expect("answered").expect("granted");
    disk.faults().syncs_fail.store(true, Ordering::SeqCst);
    let mut granted = Box::pin(store.lease_grant_as(7, Duration::from_secs(60)));
    let mut refused = Box::pin(store.lease_grant_as(7, Duration::from_secs(60)));
    assert!(granted.as_mut().now_or_never().is_none() && refused.as_mut().now_or_never().is_none());
    turns.next(false);
    // The grant did not happen, so nobody may be told that the lease exists.
    for grant in [granted, refused] {
        let told = grant.now_or_never().expect("answered");
        assert!(matches!(told, Err(Error::Unknown { .. })), "{told:?}");
    }
}

#[tokio::test]
async fn what_a_killed_process_left_unsynced_is_durable_before_it_is_seen() {
    let disk = Arc::new(Platter::default());
    let store = open(&disk);
    put(&*store, "/a", "1").await;
    disk.faults().syncs_fail.store(true, Ordering::SeqCst);
    store.txn(Txn::of(vec![put_op("/b", "x".repeat(5000))])).await.expect_err("the sync failed");
    // Killed: the bytes are in the page cache, and the system takes them for written.
    drop(store);
    disk.faults().syncs_fail.store(false, Ordering::SeqCst);
    let store = open(&disk);
    let seen = get(&*store, "/b").await.expect("it is found after all");
    put(&*store, "/c", "1").await;
    drop(store);
    let store = open(&crashed(&disk));
    assert_eq!(get(&*store, "/b").await, Some(seen), "what was seen survives the loss of power");
    assert!(get(&*store, "/c").await.is_some());
}

#[test]
fn numbers_of_leases_are_not_given_again_by_another_run() {
    let disk = Arc::new(Platter::default());
    // Its calendar begins at the same moment with each start, as on a machine whose clock has no battery.
    let clock = Arc::new(Hand::default());
    let mut given = BTreeSet::new();
    for _ in 0..5 {
        let memory = Arc::new(MemoryDisk::new(&disk));
        let (store, turns) =
            Embedded::at_rest(memory, Arc::clone(&clock) as Arc<dyn Clock>, quiet(), 1).expect("opened");
        let turns = RefCell::new(turns);
        let granted = asked(&turns, store.lease_grant(Duration::from_secs(60)));
        let lease = granted.now_or_never().expect("answered").expect("granted");
        asked(&turns, store.lease_revoke(lease)).now_or_never().expect("answered").expect("revoked");
        assert!(given.insert(lease), "lease {lease:x} was another's before");
    }
}

#[test]
fn what_a_transaction_reads_of_the_past_is_there_until_it_is_answered() {
    let disk = Arc::new(MemoryDisk::new(&Arc::default()));
    // Each write has a segment of its own, which goes when nothing in it lives.
    let options = Options { segment_bytes: 4100, recent_bytes: 0, ..quiet() };
    let (store, turns) = Embedded::at_rest(disk, Arc::new(Hand::default()), options, 1).expect("opened");
    let turns = RefCell::new(turns);
    for value in ["1", "2", "3"] {
        asked(&turns, store.txn(Txn::of(vec![put_op("/a", value)]))).now_or_never().expect("answered").expect("put");
    }
    let past = crate::Op::Range(Range::of(KeyRange::all()).at(2));
    let txn = asked(&turns, store.txn(Txn::of(vec![put_op("/b", "1"), past])));
    // It is durable; before its client reads the values, all history is compacted and its segments go.
    asked(&turns, store.compact(5)).now_or_never().expect("answered").expect("compacted");
    for _ in 0..2 {
        let answered = |_: &Embedded| assert!(turns.borrow_mut().next(false));
        store.keep_up(true, &answered).expect("kept up");
    }
    let result = txn.now_or_never().expect("answered").expect("the past is read");
    assert_eq!(crate::suite::range_result(&result.results[1]).kvs[0].value, key("1"));
}
