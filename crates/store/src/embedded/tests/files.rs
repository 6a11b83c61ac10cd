//! The engine's files: torn ends, damage, the lock, giving space back, the tools.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::embedded::format::{FIRST, FRAME_HEADER};
use crate::embedded::tools::drop_damaged_of;
use crate::suite::{delete, get, key, list, put};
use crate::{Error, KeyRange, Range, tools};

fn quiet() -> Options {
    Options { upkeep_interval: Duration::from_secs(3600), ..Options::default() }
}

/// The newest log segment and where its last frame ends.
fn log_end(directory: &Path) -> (PathBuf, u64) {
    let mut logs: Vec<PathBuf> = fs::read_dir(directory)
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")))
        .collect();
    logs.sort();
    let path = logs.pop().expect("there is a log");
    let bytes = fs::read(&path).expect("read");
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(FIRST, |last| last as u64 + 1);
    (path, end.next_multiple_of(8))
}

fn all_keys(store: &Embedded) -> Vec<(String, String)> {
    let result = store.shared.range(&Range::of(KeyRange::all())).expect("read");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    result.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("written");
}

/// A store with a few acknowledged puts, closed; the offsets at which each put's frame ends.
async fn written(count: usize) -> (tempfile::TempDir, Vec<u64>) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), quiet()).expect("opened");
    let mut ends = Vec::new();
    for number in 0..count {
        put(&*store, &format!("/k/{number}"), format!("value {number}")).await;
        ends.push(store.shared.segments.all()[0].end.load(Ordering::Relaxed));
    }
    store.close();
    (directory, ends)
}

#[tokio::test]
async fn what_is_on_a_read_only_file_system_can_be_read() {
    use nix::mount::{MsFlags, mount};
    let (directory, _) = written(3).await;
    let path = directory.path().to_owned();
    let read = std::thread::spawn(move || {
        // For this thread alone.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a name space");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing).expect("private");
        mount(Some(&path), &path, nothing, MsFlags::MS_BIND, nothing).expect("bound");
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(nothing, &path, nothing, flags, nothing).expect("read-only");
        (tools::verify(&path).map(|found| found.damage.len()), Embedded::open(&path, quiet()).err())
    });
    let (verified, refused) = read.join().expect("no panic");
    assert_eq!(verified.expect("verified"), 0);
    assert!(refused.is_some(), "what can't be written to is not opened");
}

/// What the files of a store take, reserved bytes included.
fn taken(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .expect("listed")
        .map(|entry| entry.expect("an entry").metadata().expect("known").len())
        .sum()
}

#[tokio::test]
async fn starts_take_no_space_that_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    for start in 0..10 {
        let store = Embedded::open(directory.path(), quiet()).expect("opened");
        put(&*store, &format!("/k/{start}"), "a value").await;
        store.close();
        assert!(taken(directory.path()) < Options::default().segment_bytes + (1 << 20), "at start {start}");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_is_missed_soon_after_its_first_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let often = Options { upkeep_interval: Duration::from_millis(5), ..Options::default() };
    let store = Embedded::open(directory.path(), often).expect("opened");
    put(&*store, "/k", "a value").await;
    let refers = || fs::metadata(directory.path().join("checkpoint")).expect("a checkpoint").len();
    let empty = refers();
    let deadline = std::time::Instant::now() + crate::suite::PATIENCE;
    while refers() == empty {
        assert!(std::time::Instant::now() < deadline, "no checkpoint follows the first write");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close();
    fs::remove_file(log_end(directory.path()).0).expect("removed");
    let error = Embedded::open(directory.path(), quiet()).err().expect("the log is gone");
    assert!(matches!(&error, Error::Corrupt { what, .. } if what.contains("missing")), "{error}");
}

#[tokio::test]
async fn a_log_cut_anywhere_keeps_whole_writes_and_goes_on() {
    let (directory, ends) = written(4).await;
    let (path, end) = log_end(directory.path());
    assert_eq!(Some(&end), ends.last());
    let whole = fs::read(&path).expect("read");
    for cut in (FIRST..end).rev().step_by(5) {
        let copy = tempfile::tempdir().expect("a directory");
        fs::copy(directory.path().join("checkpoint"), copy.path().join("checkpoint")).expect("copied");
        let torn = copy.path().join(path.file_name().expect("a name"));
        fs::write(&torn, &whole[..cut as usize]).expect("written");
        let store = Embedded::open(copy.path(), quiet()).expect("a torn end is no damage");
        let kept = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(all_keys(&store).len(), kept, "cut at {cut}");
        let revision = put(&*store, "/after", "x").await;
        assert_eq!(revision, kept as i64 + 2);
        store.close();
        let store = Embedded::open(copy.path(), quiet()).expect("opened again");
        assert_eq!(all_keys(&store).len(), kept + 1, "cut at {cut}");
        store.close();
    }
}

#[tokio::test]
async fn a_header_without_a_frame_is_no_damage_where_nothing_is_reserved() {
    let (directory, _) = written(1).await;
    let (path, _) = log_end(directory.path());
    let whole = fs::read(&path).expect("read");
    for cut in [64, 100, FIRST as usize - 1] {
        fs::write(&path, &whole[..cut]).expect("written");
        let store = Embedded::open(directory.path(), quiet()).expect("it was killed before the first frame");
        assert_eq!(all_keys(&store).len(), 0, "cut at {cut}");
        store.close();
        assert!(tools::verify(directory.path()).expect("verified").damage.is_empty());
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_is_told_with_its_place() {
    let (directory, ends) = written(4).await;
    let (path, _) = log_end(directory.path());
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    // In the first three writes, each byte of the frame and of the entry.
    for at in (FIRST..ends[2]).step_by(7) {
        flip(&path, at);
        let frame = ends.iter().rev().find(|end| **end <= at).copied().unwrap_or(FIRST);
        let error = Embedded::open(directory.path(), quiet()).err().expect("damage is told");
        let Error::Corrupt { place, .. } = &error else { panic!("{error}") };
        assert!(place.ends_with(&format!("{name} at offset {frame}")), "{place} for a bit at {at}");
        let verification = tools::verify(directory.path()).expect("verified");
        assert_eq!(verification.damage.len(), 1);
        flip(&path, at);
    }
    // In the last, it is a write that was never whole.
    flip(&path, ends[2] + FRAME_HEADER as u64);
    let store = Embedded::open(directory.path(), quiet()).expect("opened");
    assert_eq!(all_keys(&store).len(), 3);
}

#[tokio::test]
async fn damage_under_a_value_is_never_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { recent_bytes: 0, ..quiet() };
    let store = Embedded::open(directory.path(), options).expect("opened");
    put(&*store, "/a", "x".repeat(100)).await;
    put(&*store, "/b", "good").await;
    let (path, _) = log_end(directory.path());
    flip(&path, FIRST + FRAME_HEADER as u64 + 48 + 2 + 50);
    let error = store.range(Range::of(KeyRange::key(key("/a")))).await.expect_err("damage");
    assert!(matches!(&error, Error::Corrupt { place, .. } if place.contains("log-00000001.seg at offset")), "{error}");
    assert!(store.range(Range::of(KeyRange::all())).await.is_err());
    assert_eq!(get(&*store, "/b").await.map(|kv| kv.value), Some(key("good")));
}

/// One damaged object costs that object, if its owner wants so.
#[tokio::test]
async fn objects_with_damaged_values_can_be_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { recent_bytes: 0, ..quiet() };
    let store = Embedded::open(directory.path(), options).expect("opened");
    put(&*store, "/a", "x".repeat(100)).await;
    put(&*store, "/b", "good").await;
    let (path, _) = log_end(directory.path());
    flip(&path, FIRST + FRAME_HEADER as u64 + 48 + 2 + 50);
    let mut told = Vec::new();
    let dropped = drop_damaged_of(&store, |key, damage| told.push((key.to_owned(), damage.to_string()))).await;
    assert_eq!((dropped.expect("dropped"), told.len()), (1, 1), "{told:?}");
    assert!(told[0].0 == "/a" && told[0].1.contains("log-00000001.seg at offset"), "{told:?}");
    assert_eq!(drop_damaged_of(&store, |key, _| panic!("{key}")).await.expect("nothing is damaged"), 0);
    assert_eq!(all_keys(&store), [("/b".to_owned(), "good".to_owned())]);
}

#[tokio::test]
async fn damage_to_the_checkpoint_is_told() {
    let (directory, _) = written(3).await;
    let path = directory.path().join("checkpoint");
    let store = Embedded::open(directory.path(), quiet()).expect("opened");
    store.maintain().await.expect("maintained");
    store.close();
    let length = fs::metadata(&path).expect("there").len();
    for at in (0..length).step_by(11) {
        flip(&path, at);
        let result = Embedded::open(directory.path(), quiet());
        // The padding of the start says nothing.
        if !(12..16).contains(&at) {
            let error = result.err().unwrap_or_else(|| panic!("a flipped bit at {at} is told"));
            assert!(matches!(&error, Error::Corrupt { place, .. } if place.contains("checkpoint")), "{error}");
        }
        flip(&path, at);
    }
    fs::remove_file(&path).expect("removed");
    let error = Embedded::open(directory.path(), quiet()).err().expect("it is missed");
    assert!(error.to_string().contains("the checkpoint is missing"), "{error}");
}

#[tokio::test]
async fn a_missing_segment_is_told() {
    let mut fixture = Local::new(Options { segment_bytes: 5000, ..quiet() });
    for number in 0..20 {
        put(&**fixture.engine(), &format!("/k/{number}"), "x".repeat(400)).await;
    }
    fixture.engine().close();
    fs::remove_file(fixture.directory.path().join("log-00000003.seg")).expect("removed");
    let error = Embedded::open(fixture.directory.path(), quiet()).err().expect("it is missed");
    assert!(error.to_string().contains("log segment 00000003, which it continues, is missing"), "{error}");
    fixture.store = None;
}

#[tokio::test]
async fn a_newer_format_is_no_damage() {
    for name in ["checkpoint", "log-00000001.seg"] {
        let (directory, _) = written(1).await;
        let path = directory.path().join(name);
        let mut bytes = fs::read(&path).expect("read");
        bytes[8] = 99;
        // The header of a segment has a checksum.
        let sum = crc32fast::hash(&bytes[..60]);
        if name != "checkpoint" {
            bytes[60..64].copy_from_slice(&sum.to_le_bytes());
        }
        fs::write(&path, bytes).expect("written");
        let newer = |error: &Error| {
            assert!(error.to_string().contains("format 99, written by a newer version"), "{error}");
            matches!(error, Error::NewerFormat { path: told, format: 99, known: 1 } if *told == path)
        };
        assert!(Embedded::open(directory.path(), quiet()).is_err_and(|error| newer(&error)), "{name}");
        assert!(tools::verify(directory.path()).is_err_and(|error| newer(&error)), "{name}");
    }
}

#[tokio::test]
async fn one_process_at_a_time() {
    let fixture = Local::new(quiet());
    let error = Embedded::open(fixture.directory.path(), quiet()).err().expect("refused");
    assert!(matches!(&error, Error::Locked { path } if path == fixture.directory.path()), "{error}");
    assert!(matches!(tools::verify(fixture.directory.path()), Err(Error::Locked { .. })));
    fixture.engine().close();
    drop(Embedded::open(fixture.directory.path(), quiet()).expect("free again"));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let fixture = Local::new(quiet());
    let store = fixture.engine();
    let mut stream = store.watch(crate::Watch::of(KeyRange::all(), 0)).await.expect("watching");
    crate::suite::established(&mut stream).await;
    store.close();
    assert!(matches!(crate::suite::batch(&mut stream).await, Err(Error::Closed)));
    assert!(matches!(store.txn(crate::Txn::default()).await, Err(Error::Closed)));
    assert!(matches!(store.watch(crate::Watch::of(KeyRange::all(), 0)).await, Err(Error::Closed)));
}

#[tokio::test]
async fn upkeep_gives_space_back_and_nothing_comes_back_to_life() {
    let mut fixture = Local::new(Options { segment_bytes: 16 << 10, ..quiet() });
    let store = Arc::clone(fixture.engine());
    for round in 0..20 {
        for number in 0..40 {
            put(&*store, &format!("/k/{number}"), format!("{round} {}", "x".repeat(500))).await;
        }
    }
    for number in 10..20 {
        delete(&*store, &format!("/k/{number}")).await;
    }
    let before = list(&*store, KeyRange::all(), 0).await.expect("listed");
    let status = store.status().await.expect("status");
    store.compact(status.revision).await.expect("compacted");
    store.maintain().await.expect("maintained");
    store.maintain().await.expect("maintained");
    let small = store.status().await.expect("status").size;
    assert!(small < status.size / 5, "{small} of {}", status.size);
    assert_eq!(list(&*store, KeyRange::all(), 0).await.expect("listed"), before);
    put(&*store, "/after", "the checkpoint").await;
    drop(store);
    for _ in 0..2 {
        fixture.reopen().await;
        let after = list(&**fixture.engine(), KeyRange::prefix(key("/k/")), 0).await.expect("listed");
        assert_eq!(after, before);
        fixture.engine().maintain().await.expect("maintained");
    }
    fixture.engine().close();
    let verification = tools::verify(fixture.directory.path()).expect("verified");
    assert!(verification.damage.is_empty(), "{:?}", verification.damage);
    assert_eq!(verification.status.keys, 31);
}

#[tokio::test]
async fn history_is_forgotten_by_age_and_by_size() {
    let aged = Options {
        retention: Some(Duration::from_millis(30)),
        upkeep_interval: Duration::from_millis(5),
        ..Options::default()
    };
    let sized = Options {
        retention: None,
        segment_bytes: 8 << 10,
        history_bytes: 16 << 10,
        upkeep_interval: Duration::from_millis(5),
        ..Options::default()
    };
    for options in [aged, sized] {
        let fixture = Local::new(options);
        let store = fixture.engine();
        let deadline = std::time::Instant::now() + crate::suite::PATIENCE;
        while store.status().await.expect("status").compacted < 20 {
            assert!(std::time::Instant::now() < deadline, "history is kept for ever");
            put(&**store, "/a", "x".repeat(500)).await;
        }
        assert!(matches!(list(&**store, KeyRange::all(), 3).await, Err(Error::Compacted { .. })));
        assert_eq!(list(&**store, KeyRange::all(), 0).await.expect("listed").len(), 1);
    }
}

#[tokio::test]
async fn a_snapshot_is_a_store_of_its_own() {
    let fixture = Local::new(tiny());
    let store = fixture.engine();
    let lease = store.lease_grant(Duration::from_secs(600)).await.expect("granted");
    for number in 0..100 {
        put(&**store, &format!("/k/{}", number % 30), format!("value {number}")).await;
    }
    crate::suite::put_leased(&**store, "/leased", lease).await;
    let before = store.range(Range::of(KeyRange::all())).await.expect("read");
    let target = fixture.directory.path().join("copy");
    let revision = store.snapshot(&target).await.expect("copied");
    assert_eq!(revision, before.revision);
    let refused = store.snapshot(&target).await.expect_err("never over something");
    assert!(refused.to_string().contains("copy"), "{refused}");
    put(&**store, "/later", "x").await;
    store.close();
    let second = fixture.directory.path().join("second");
    assert_eq!(tools::snapshot(fixture.directory.path(), &second).expect("copied"), revision + 1);
    assert!(tools::verify(&target).expect("verified").damage.is_empty());
    let copy = Embedded::open(&target, tiny()).expect("opened");
    assert_eq!(copy.range(Range::of(KeyRange::all())).await.expect("read").kvs, before.kvs);
    assert_eq!(copy.lease_keep_alive(lease).await.expect("renewed"), Duration::from_secs(600));
    assert_eq!(put(&*copy, "/new", "x").await, revision + 1);
    copy.close();
    let copy = Embedded::open(&target, tiny()).expect("opened again");
    assert_eq!(copy.status().await.expect("status").keys, 32);
}

#[tokio::test]
async fn the_tools_tell_what_is_there() {
    let fixture = Local::new(Options { segment_bytes: 8 << 10, ..quiet() });
    let store = fixture.engine();
    for number in 0..200 {
        put(&**store, &format!("/k/{}", number % 10), "x".repeat(300)).await;
    }
    store.close();
    let status = tools::status(fixture.directory.path()).expect("status");
    assert_eq!((status.keys, status.revision, status.compacted), (10, 201, 0));
    let (before, after) = tools::compact(fixture.directory.path()).await.expect("compacted");
    assert_eq!(before, status);
    assert!(after.size < before.size / 4 && after.compacted == 201 && after.keys == 10, "{before:?} {after:?}");
    let error = tools::status(&fixture.directory.path().join("absent")).expect_err("nothing is there");
    assert!(error.to_string().contains("cannot find a store in"), "{error}");
    assert!(!fixture.directory.path().join("absent").exists());
}

#[tokio::test]
async fn a_slow_watcher_is_ended_and_resumes() {
    let fixture = Local::new(Options { watch_events: 10, ..quiet() });
    let store = fixture.engine();
    let mut slow = store.watch(crate::Watch::of(KeyRange::all(), 0)).await.expect("watching");
    let mut other = store.watch(crate::Watch::of(KeyRange::prefix(key("/other")), 0)).await.expect("watching");
    crate::suite::established(&mut slow).await;
    crate::suite::established(&mut other).await;
    for number in 0..50 {
        put(&**store, "/a", number.to_string()).await;
    }
    let mut told = 0;
    let last = loop {
        match crate::suite::batch(&mut slow).await {
            Ok(batch) => told += batch.events.len(),
            Err(Error::SlowWatcher { last }) => break last,
            Err(other) => panic!("{other}"),
        }
    };
    assert!((1..=10).contains(&told), "{told}");
    let mut again = store.watch(crate::Watch::of(KeyRange::all(), last + 1)).await.expect("watching");
    crate::suite::established(&mut again).await;
    assert_eq!(told + crate::suite::told_until(&mut again, 51).await.len(), 50);
    let seen = put(&**store, "/other", "x").await;
    assert_eq!(crate::suite::told_until(&mut other, seen).await.len(), 1, "others never wait");
}
