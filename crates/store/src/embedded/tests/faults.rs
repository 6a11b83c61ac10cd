//! A disk that fails and a clock that is set: full disks, failed syncs, what is promised meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};

use super::*;
use crate::embedded::{Clock, Disk, File};
use crate::suite::{get, key, put, put_leased, put_op};
use crate::{Error, KeyRange, Range, Txn};

/// A disk in memory with what is written and what is durable. Fails on request.
#[derive(Default)]
struct Memory {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    durable_names: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    faults: Arc<Faults>,
    path: PathBuf,
}

#[derive(Default)]
struct Faults {
    full: AtomicBool,
    syncs_fail: AtomicBool,
}

#[derive(Default)]
struct MemoryFile {
    written: Mutex<Vec<u8>>,
    durable: Mutex<Vec<u8>>,
    faults: Arc<Faults>,
}

impl Memory {
    /// The disk as a crash leaves it: what is not durable is lost.
    fn crashed(&self) -> Self {
        let crashed = Self { path: self.path.clone(), ..Self::default() };
        for (name, file) in self.durable_names.lock().unwrap().iter() {
            let bytes = file.durable.lock().unwrap().clone();
            let file = MemoryFile {
                written: Mutex::new(bytes.clone()),
                durable: Mutex::new(bytes),
                faults: Arc::clone(&crashed.faults),
            };
            crashed.files.lock().unwrap().insert(name.clone(), Arc::new(file));
        }
        *crashed.durable_names.lock().unwrap() = crashed.files.lock().unwrap().clone();
        crashed
    }

    fn check_space(&self) -> io::Result<()> {
        match self.faults.full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Disk for Memory {
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>> {
        self.check_space()?;
        let written = Mutex::new(vec![0; size as usize]);
        let file = Arc::new(MemoryFile { written, faults: Arc::clone(&self.faults), ..MemoryFile::default() });
        self.files.lock().unwrap().insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let files = self.files.lock().unwrap();
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(file) as Arc<dyn File>)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().unwrap().remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        *self.durable_names.lock().unwrap() = self.files.lock().unwrap().clone();
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.written.lock().unwrap().len() as u64)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let written = self.written.lock().unwrap();
        let range = offset as usize..offset as usize + buffer.len();
        buffer.copy_from_slice(written.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn read_cached(&self, _: &mut [u8], _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut written = self.written.lock().unwrap();
        let end = offset as usize + bytes.len();
        if written.len() < end {
            written.resize(end, 0);
        }
        written[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the cable was pulled"));
        }
        let written = self.written.lock().unwrap().clone();
        *self.durable.lock().unwrap() = written;
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
}

/// A clock that goes when it is told to.
#[derive(Default)]
struct Hand {
    monotonic: AtomicU64,
    wall: AtomicI64,
}

impl Clock for Hand {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic.load(Ordering::SeqCst))
    }

    fn wall_millis(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }
}

fn open(disk: &Arc<Memory>) -> Arc<Embedded> {
    let clock = Arc::new(crate::embedded::SystemClock::default());
    let options = Options { segment_bytes: 64 << 10, upkeep_interval: Duration::from_secs(3600), ..Options::default() };
    Embedded::open_on(Arc::clone(disk) as Arc<dyn Disk>, clock, options).expect("opened")
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
    let disk = Arc::new(Memory::default());
    let store = open(&disk);
    let before = put(&*store, "/a", "1").await;
    disk.faults.full.store(true, Ordering::SeqCst);
    let first = store.txn(Txn::of(vec![put_op("/a", "2")])).await.expect_err("the disk is full");
    assert!(matches!(&first, Error::Unknown { reason } if reason.contains("cannot be written")), "{first}");
    let second = store.txn(Txn::of(vec![put_op("/a", "3")])).await.expect_err("the disk is full");
    assert!(matches!(second, Error::ReadOnly { .. }), "{second}");
    assert!(store.status().await.expect("status").read_only.is_some());
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.value), Some(key("1")), "reads go on and see nothing of it");
    assert_eq!(store.status().await.expect("status").revision, before);
    disk.faults.full.store(false, Ordering::SeqCst);
    assert_eq!(healed(&store, "/b").await, before + 1, "no revision was lost");
    assert_eq!(store.status().await.expect("status").read_only, None);
    store.close();
    let store = open(&disk);
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.value), Some(key("1")));
    assert!(get(&*store, "/b").await.is_some());
}

#[tokio::test]
async fn what_a_failed_sync_left_is_disowned() {
    let disk = Arc::new(Memory::default());
    let store = open(&disk);
    put(&*store, "/kept", "1").await;
    disk.faults.syncs_fail.store(true, Ordering::SeqCst);
    // The bytes are in the file, and may reach the disk any time.
    let lost = store.txn(Txn::of(vec![put_op("/lost", "1"), put_op("/kept", "2")])).await.expect_err("the sync failed");
    assert!(matches!(&lost, Error::Unknown { reason } if reason.contains("the cable was pulled")), "{lost}");
    disk.faults.syncs_fail.store(false, Ordering::SeqCst);
    let revision = healed(&store, "/new").await;
    assert_eq!(revision, 3, "the revision of the failed write is given again");
    for file in disk.files.lock().unwrap().values() {
        file.sync().expect("the page cache is written after all");
    }
    store.close();
    for disk in [Arc::clone(&disk), Arc::new(disk.crashed())] {
        let store = open(&disk);
        assert!(get(&*store, "/lost").await.is_none());
        assert_eq!(get(&*store, "/kept").await.map(|kv| kv.value), Some(key("1")));
        assert_eq!(get(&*store, "/new").await.map(|kv| kv.mod_revision), Some(3));
    }
}

#[tokio::test]
async fn a_failed_group_leaves_no_trace_in_memory() {
    let disk = Arc::new(Memory::default());
    let store = open(&disk);
    let lease = store.lease_grant(Duration::from_secs(600)).await.expect("granted");
    let other = store.lease_grant(Duration::from_secs(600)).await.expect("granted");
    put_leased(&*store, "/leased", lease).await;
    let last = put(&*store, "/a", "1").await;
    disk.faults.syncs_fail.store(true, Ordering::SeqCst);
    let moved = crate::Op::Put { key: key("/leased"), value: key("moved"), lease: other };
    let ops = vec![moved, crate::Op::Delete { keys: KeyRange::key(key("/a")) }, put_op("/b", "x")];
    assert!(store.txn(Txn::of(ops)).await.is_err());
    disk.faults.syncs_fail.store(false, Ordering::SeqCst);
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
    let disk = Arc::new(Memory::default());
    let store = open(&disk);
    for number in 0..200 {
        put(&*store, &format!("/k/{number}"), "x".repeat(1000)).await;
        if number % 50 == 49 {
            store.compact(number).await.expect("compacted");
            store.maintain().await.expect("maintained");
        }
        if number % 10 == 0 {
            let crashed = Arc::new(disk.crashed());
            let after = open(&crashed);
            let listed = after.range(Range { count_only: true, ..Range::of(KeyRange::all()) }).await.expect("read");
            assert_eq!(listed.count as i64, number + 1);
        }
    }
}

#[tokio::test]
async fn leases_are_measured_by_the_monotonic_clock_only() {
    let disk = Arc::new(Memory::default());
    let clock = Arc::new(Hand::default());
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let make = || {
        let (disk, clock) = (Arc::clone(&disk) as Arc<dyn Disk>, Arc::clone(&clock) as Arc<dyn Clock>);
        Embedded::open_on(disk, clock, options.clone()).expect("opened")
    };
    let store = make();
    let lease = store.lease_grant(Duration::from_secs(60)).await.expect("granted");
    put_leased(&*store, "/leased", lease).await;
    // Somebody sets the time by years, both ways; the store is busy meanwhile.
    for wall in [4_000_000_000_000, -5, 1_700_000_000_000] {
        clock.wall.store(wall, Ordering::SeqCst);
        put(&*store, "/busy", "x").await;
        assert!(get(&*store, "/leased").await.is_some());
    }
    clock.monotonic.store(59_999, Ordering::SeqCst);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/leased").await.is_some(), "never early");
    store.close();
    // After a restart it has its full time again: nothing shorter was written.
    let store = make();
    clock.monotonic.store(119_998, Ordering::SeqCst);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/leased").await.is_some());
    clock.monotonic.store(119_999, Ordering::SeqCst);
    put(&*store, "/busy", "x").await;
    assert!(get(&*store, "/leased").await.is_none());
}

#[tokio::test]
async fn a_long_lease_keeps_what_passed_and_a_renewal_counts() {
    let disk = Arc::new(Memory::default());
    let clock = Arc::new(Hand::default());
    let options = Options { upkeep_interval: Duration::from_secs(3600), ..Options::default() };
    let make = || {
        let (disk, clock) = (Arc::clone(&disk) as Arc<dyn Disk>, Arc::clone(&clock) as Arc<dyn Clock>);
        Embedded::open_on(disk, clock, options.clone()).expect("opened")
    };
    let hour = Duration::from_secs(3600);
    let minutes = |count: u64| clock.monotonic.store(count * 60_000, Ordering::SeqCst);
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
