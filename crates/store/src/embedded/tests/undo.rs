//! History beyond the compaction mark: how far back it reaches, by age and by size, and that it survives what stores survive.

use super::*;
use crate::embedded::{Clock, Disk};
use crate::suite::{delete, get, key, list, put};
use crate::testing::clock::Hand;
use crate::testing::disk::{Loss, MemoryDisk, Platter};
use crate::testing::random::Random;
use crate::{Error, History, KeyRange, Range, tools};

const HORIZON: Duration = Duration::from_secs(1000);
const EPOCH: i64 = 1_700_000_000;

/// A store on a disk in memory, with a clock that is set.
struct Bench {
    disk: Arc<Platter>,
    clock: Arc<Hand>,
    options: Options,
    store: Arc<Embedded>,
}

impl Bench {
    fn new(undo: Option<Undo>) -> Self {
        let options = Options {
            segment_bytes: 4096 + 3000,
            checkpoint_bytes: 4000,
            recent_bytes: 0,
            retention: None,
            upkeep_interval: Duration::from_secs(3600),
            undo,
            ..Options::default()
        };
        let (disk, clock) = (Arc::new(Platter::default()), Arc::new(Hand::default()));
        let store = Self::open(&disk, &clock, &options);
        let bench = Self { disk, clock, options, store };
        bench.set(0);
        bench
    }

    fn open(disk: &Arc<Platter>, clock: &Arc<Hand>, options: &Options) -> Arc<Embedded> {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(disk));
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        Embedded::open_on(disk, clock, options.clone()).expect("opened")
    }

    fn set(&self, second: i64) {
        self.clock.set_wall((EPOCH + second) * 1000);
    }

    async fn put(&self, second: i64, at: &str, value: &str) -> i64 {
        self.set(second);
        put(&*self.store, at, value).await
    }

    /// Compacts all there is, prunes, packs and writes checkpoints.
    async fn compact(&self) -> i64 {
        let revision = self.store.revision();
        match self.store.compact(revision).await {
            Ok(()) | Err(Error::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        for _ in 0..3 {
            self.store.maintain().await.expect("maintained");
        }
        revision
    }

    /// Opens what a crash leaves; `undo`: with that.
    fn crash(&mut self, undo: Option<Undo>) {
        let crashed = Arc::new(self.disk.after(Loss::ALL, &mut Random::new(0)));
        self.store.close();
        self.disk = crashed;
        self.options.undo = undo;
        self.store = Self::open(&self.disk, &self.clock, &self.options);
    }

    async fn at(&self, revision: i64) -> Result<Vec<String>, Error> {
        let read = self.store.range_at(Range::of(KeyRange::prefix(key("/k/"))).at(revision)).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(read.kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect())
    }

    async fn at_second(&self, second: i64) -> Result<Vec<String>, Error> {
        let revision = self.store.revision_at(&KeyRange::prefix(key("/k/")), EPOCH + second).await?;
        self.at(revision).await
    }

    /// Versions of a key with their seconds, newest first.
    async fn versions(&self, at: &str) -> Vec<(Option<String>, Option<i64>)> {
        let versions = self.store.versions(key(at), 0, 0).await.expect("told").versions;
        let value = |kv: crate::KeyValue| String::from_utf8_lossy(&kv.value).into_owned();
        versions.into_iter().map(|v| (v.kv.map(value), v.time.map(|second| second - EPOCH))).collect()
    }

    /// Versions in memory, whether anyone can read them or not.
    fn held(&self) -> usize {
        self.store.shared.index().keys.values().map(|chain| chain.versions().count()).sum()
    }
}

fn undo() -> Option<Undo> {
    Some(Undo { horizon: HORIZON, bytes: 1 << 30, except: vec![key("/busy/")] })
}

#[tokio::test]
async fn compaction_ends_reads_and_watches_but_not_history() {
    let bench = Bench::new(undo());
    bench.put(0, "/k/a", "1").await;
    let second = bench.put(10, "/k/b", "1").await;
    bench.put(20, "/k/a", "2").await;
    bench.set(30);
    delete(&*bench.store, "/k/b").await;
    let mark = bench.compact().await;
    assert!(matches!(list(&*bench.store, KeyRange::all(), second).await, Err(Error::Compacted { .. })));
    assert_eq!(bench.store.status().await.expect("status").compacted, mark);
    assert_eq!(bench.at(second).await.expect("kept"), ["/k/a=1", "/k/b=1"]);
    for (second, then) in [
        (0, &["/k/a=1"][..]),
        (9, &["/k/a=1"]),
        (10, &["/k/a=1", "/k/b=1"]),
        (29, &["/k/a=2", "/k/b=1"]),
        (40, &["/k/a=2"]),
    ] {
        assert_eq!(bench.at_second(second).await.expect("kept"), then, "at {second}");
    }
    let before = bench.at_second(-1).await;
    assert!(matches!(before, Err(Error::TimeNotKept { oldest: Some(EPOCH), .. })), "{before:?}");
    assert_eq!(bench.versions("/k/b").await, [(None, Some(30)), (Some("1".into()), Some(10))]);
    // What a snapshot has, and what live keys there are, is as without.
    assert_eq!(bench.store.status().await.expect("status").keys, 1);
    let mut exported = 0;
    let export = bench.store.export().await.expect("exported");
    let counted = export.visit(|_| {
        exported += 1;
        Ok::<_, Error>(())
    });
    counted.expect("read");
    assert_eq!(exported, 2, "from the compaction mark on: the key, and the deletion at the mark");
}

#[tokio::test]
async fn history_and_its_times_survive_a_crash() {
    let mut bench = Bench::new(undo());
    for number in 0..40 {
        bench.put(number * 10, &format!("/k/{}", number % 4), &format!("{number} {}", "x".repeat(200))).await;
        if number % 9 == 8 {
            bench.compact().await;
        }
        if number % 7 == 6 {
            bench.crash(undo());
        }
    }
    for number in 3..40 {
        let then = bench.at_second(number * 10 + 5).await.expect("kept");
        assert_eq!(then.len(), 4);
        assert!(then.iter().any(|kv| kv.starts_with(&format!("/k/{}={number} ", number % 4))), "{number}: {then:?}");
        let damaged = then.iter().any(|kv| !kv.ends_with(&"x".repeat(200)));
        assert!(!damaged);
    }
    assert_eq!(bench.versions("/k/1").await.len(), 10);
    assert_eq!(bench.versions("/k/1").await.last().and_then(|(_, time)| *time), Some(10));
}

#[tokio::test]
async fn what_is_older_than_the_horizon_is_dropped() {
    let bench = Bench::new(undo());
    bench.put(0, "/k/a", "1").await;
    bench.put(100, "/k/a", "2").await;
    bench.set(150);
    delete(&*bench.store, "/k/a").await;
    bench.put(200, "/k/b", "1").await;
    bench.set(1099);
    bench.compact().await;
    assert_eq!(bench.at_second(99).await.expect("what was the present when the horizon began"), ["/k/a=1"]);
    let before = bench.at_second(-1).await;
    assert!(matches!(before, Err(Error::TimeNotKept { .. })), "{before:?}");
    bench.set(1160);
    bench.compact().await;
    let before = bench.at_second(149).await;
    assert!(matches!(before, Err(Error::TimeNotKept { .. })), "{before:?}");
    assert_eq!(bench.at_second(150).await.expect("kept"), [] as [&str; 0]);
    bench.set(5000);
    bench.compact().await;
    assert_eq!(bench.held(), 1, "only what is there is left");
    assert_eq!(bench.store.kept().await.expect("told").bytes, 0);
    assert_eq!(bench.at_second(4000).await.expect("kept"), ["/k/b=1"]);
}

#[tokio::test]
async fn the_oldest_is_dropped_when_it_is_too_much() {
    let limit = 20_000;
    let bench = Bench::new(Some(Undo { horizon: HORIZON, bytes: limit, except: Vec::new() }));
    for number in 0..200 {
        bench.put(number, &format!("/k/{}", number % 3), &format!("{number} {}", "x".repeat(300))).await;
        if number % 20 == 19 {
            bench.compact().await;
            assert!(bench.store.kept().await.expect("told").bytes <= limit);
        }
    }
    let kept = bench.store.kept().await.expect("told");
    assert!(kept.bytes > limit / 2, "{kept:?}");
    assert!(bench.held() < 60, "{}", bench.held());
    let below = bench.at(kept.revision - 1).await;
    assert!(matches!(below, Err(Error::Compacted { compacted, .. }) if compacted == kept.revision), "{below:?}");
    let since = kept.since.expect("a time") - EPOCH;
    assert_eq!(bench.at_second(since).await.expect("kept").len(), 3);
    assert!(matches!(bench.at_second(since - 1).await, Err(Error::TimeNotKept { .. })));
    assert!(bench.store.status().await.expect("status").size < 3 * limit, "their space is given back");
}

#[tokio::test]
async fn keys_that_are_excepted_have_no_history_beyond_the_mark() {
    let bench = Bench::new(undo());
    bench.put(0, "/k/a", "1").await;
    let early = bench.put(1, "/busy/lease", "0").await;
    for number in 2..50 {
        bench.put(number, "/busy/lease", &number.to_string()).await;
    }
    bench.compact().await;
    assert_eq!(bench.held(), 2);
    // All keys, and these, are not as they were; others are.
    for keys in [KeyRange::all(), KeyRange::prefix(key("/busy/")), KeyRange::key(key("/busy/lease"))] {
        let refused = bench.store.range_at(Range::of(keys.clone()).at(early)).await;
        assert!(matches!(refused, Err(Error::Compacted { .. })), "{keys:?}: {refused:?}");
        let refused = bench.store.revision_at(&keys, EPOCH + 20).await;
        assert!(matches!(refused, Err(Error::TimeNotKept { oldest: None, .. })), "{keys:?}: {refused:?}");
    }
    assert_eq!(bench.at(early).await.expect("kept"), ["/k/a=1"]);
    assert_eq!(bench.store.shared.times().up_to(i64::MAX).count(), 1, "what is not kept costs no time either");
}

#[tokio::test]
async fn an_engine_without_drops_it_and_one_with_other_exceptions_begins_anew() {
    let mut bench = Bench::new(undo());
    let first = bench.put(0, "/k/a", "1").await;
    bench.put(10, "/k/a", "2").await;
    bench.compact().await;
    // Opened for a moment with other exceptions, nothing is lost of what both keep, but it is not relied on.
    bench.crash(Some(Undo { horizon: HORIZON, bytes: 1 << 30, except: Vec::new() }));
    assert!(matches!(bench.at(first).await, Err(Error::Compacted { .. })));
    bench.put(20, "/k/a", "3").await;
    bench.compact().await;
    bench.crash(None);
    assert!(matches!(bench.at(first).await, Err(Error::Compacted { .. })));
    let last = bench.put(30, "/k/a", "4").await;
    bench.compact().await;
    assert_eq!(bench.held(), 1);
    assert!(matches!(bench.at_second(30).await, Err(Error::TimeNotKept { oldest: None, .. })));
    bench.crash(undo());
    assert!(matches!(bench.at(last - 1).await, Err(Error::Compacted { .. })));
    bench.put(40, "/k/a", "5").await;
    bench.compact().await;
    assert_eq!(bench.at(last).await.expect("kept from then on"), ["/k/a=4"]);
}

#[tokio::test]
async fn a_history_that_began_anew_is_there_after_the_next_start() {
    let mut bench = Bench::new(undo());
    bench.put(0, "/k/a", "1").await;
    bench.compact().await;
    let other = || Some(Undo { horizon: HORIZON, bytes: 1 << 30, except: Vec::new() });
    bench.crash(other());
    let first = bench.put(10, "/k/a", "2").await;
    bench.put(20, "/k/a", "3").await;
    bench.store.compact(bench.store.revision()).await.expect("compacted");
    // What is due, no more: so little was written that it is not worth a checkpoint of itself.
    let store = Arc::clone(&bench.store);
    let step = tokio::task::spawn_blocking(move || store.keep_up(false, &|_| ()));
    step.await.expect("run").expect("kept up");
    bench.crash(other());
    assert_eq!(bench.at(first).await.expect("kept"), ["/k/a=2"]);
}

#[tokio::test]
async fn a_read_of_history_keeps_what_it_reads() {
    let bench = Bench::new(undo());
    let first = bench.put(0, "/k/a", "1").await;
    bench.put(10, "/k/a", "2").await;
    bench.compact().await;
    let shared = Arc::clone(&bench.store.shared);
    let pin = shared.pin_above(first, || shared.undo()).expect("pinned");
    bench.set(9000);
    bench.compact().await;
    assert!(matches!(bench.at(first).await, Err(Error::Compacted { .. })), "nobody else gets there");
    let found = shared.find(&Range::of(KeyRange::key(key("/k/a"))), first);
    assert_eq!(shared.values(found.items).expect("still there")[0].value, key("1"));
    drop(pin);
    bench.compact().await;
    assert_eq!(bench.held(), 1);
}

#[tokio::test]
async fn the_tools_leave_it_or_forget_it() {
    let fixture = Local::new(Options { upkeep_interval: Duration::from_secs(3600), ..keeping() });
    let store = fixture.engine();
    for number in 0..50 {
        put(&**store, "/a", format!("{number} {}", "x".repeat(100))).await;
    }
    store.compact(40).await.expect("compacted");
    store.maintain().await.expect("maintained");
    store.close();
    let path = fixture.directory.path();
    let verified = tools::verify(path).expect("verified");
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    let store = Embedded::open(path, keeping()).expect("opened");
    assert_eq!(store.versions(key("/a"), 0, 0).await.expect("told").versions.len(), 50);
    store.close();
    let (before, after) = tools::compact(path).await.expect("compacted");
    assert!(after.live * 10 < before.live, "{before:?} {after:?}");
    let store = Embedded::open(path, keeping()).expect("opened");
    assert_eq!(store.versions(key("/a"), 0, 0).await.expect("told").versions.len(), 1);
    assert!(get(&*store, "/a").await.is_some());
}
