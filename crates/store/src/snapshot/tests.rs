//! Snapshots of either engine, taken by the other.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::embedded::Options;
use crate::face::tests::Started;
use crate::suite::{delete, get, put, put_leased};
use crate::{Embedded, Error, Etcd, KeyRange, Range, Store, Watch, snapshot};

fn open(directory: &Path) -> Arc<Embedded> {
    Embedded::open(directory, Options { retention: None, ..Options::default() }).expect("the store opens")
}

async fn kvs(store: &dyn Store) -> Vec<crate::KeyValue> {
    store.range(Range::of(KeyRange::all())).await.expect("read").kvs
}

async fn save(store: &Embedded, path: &Path) {
    let (export, path) = (store.export().await.expect("exported"), path.to_owned());
    tokio::task::spawn_blocking(move || snapshot::save(&export, &path)).await.expect("run").expect("saved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_store_has_everything_and_revisions_above_any_issued() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, file, two) = (directory.path().join("one"), directory.path().join("snap"), directory.path().join("two"));
    let store = open(&one);
    let lease = store.lease_grant(std::time::Duration::from_secs(600)).await.expect("granted");
    let kept = put(&*store, "/a", "1").await;
    put(&*store, "/gone", "x").await;
    put_leased(&*store, "/leased", lease).await;
    let compacted = put(&*store, "/b", "1").await;
    store.compact(compacted).await.expect("compacted");
    put(&*store, "/b", "2").await;
    let last = delete(&*store, "/gone").await;
    save(&store, &file).await;
    // After the snapshot, so that nobody may take what comes after the restore for this.
    let lost = put(&*store, "/lost", "x").await;
    let expected: Vec<_> = kvs(&*store).await.into_iter().filter(|kv| kv.mod_revision <= last).collect();
    let status = snapshot::status(&file).expect("a status");
    assert_eq!((status.revision, status.keys, status.verified), (last, 3, true));

    let restored = snapshot::restore(&file, &two, 1_000_000, false).expect("restored");
    assert_eq!((restored.snapshot, restored.revision, restored.keys, restored.leases), (last, last + 1_000_000, 3, 1));
    assert!(crate::tools::verify(&two).expect("verified").damage.is_empty());
    let store = open(&two);
    assert_eq!(kvs(&*store).await, expected, "the deletion is not lost, nor anything else");
    assert_eq!(get(&*store, "/a").await.expect("it is there").mod_revision, kept);
    assert_eq!(store.lease_keep_alive(lease).await.expect("renewed").as_secs(), 600);
    let stale = store.watch(Watch::of(KeyRange::all(), lost + 1)).await;
    assert!(matches!(stale.err(), Some(Error::Compacted { .. })), "who saw what is lost is told to list anew");
    assert!(put(&*store, "/new", "x").await > lost);
    store.lease_revoke(lease).await.expect("revoked");
    assert!(get(&*store, "/leased").await.is_none(), "keys hang on their lease again");
    let again = snapshot::restore(&file, &two, 1, false);
    assert!(matches!(again, Err(Error::Io { .. })), "a store is never replaced: {again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_of_etcd_are_restored() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let etcd = Started::on(path, "data");
    let there = Etcd::connect(etcd.options()).await.expect("etcd answers");
    let lease = there.lease_grant(std::time::Duration::from_secs(600)).await.expect("granted");
    for number in 0..300 {
        put(&*there, &format!("/registry/{number:03}"), "x".repeat(number * 20)).await;
    }
    put_leased(&*there, "/registry/leased", lease).await;
    let mark = put(&*there, "/registry/000", "again").await;
    there.compact(mark).await.expect("compacted");
    let last = delete(&*there, "/registry/001").await;
    let file = path.join("snap.db");
    let url = format!("--endpoints=unix://{}", path.join("c:1").display());
    let saved = Command::new("/usr/bin/etcdctl")
        .env("ETCDCTL_API", "3")
        .args([&url, "snapshot", "save"])
        .arg(&file)
        .output()
        .expect("etcdctl runs");
    assert!(saved.status.success(), "{saved:?}");
    let status = snapshot::status(&file).expect("a status");
    assert_eq!((status.revision, status.keys), (last, 300));
    let restored = snapshot::restore(&file, &path.join("store"), 1_000, false).expect("restored");
    assert_eq!(restored.revision, last + 1_000);
    assert_eq!(kvs(&*open(&path.join("store"))).await, kvs(&*there).await);

    // A member's own file has no trailer, and is only taken when that is said.
    drop(etcd);
    let member = path.join("data/member/snap/db");
    let refused = snapshot::restore(&member, &path.join("other"), 1, false).expect_err("refused").to_string();
    assert!(refused.contains("--skip-hash-check"), "{refused}");
    snapshot::restore(&member, &path.join("other"), 1, true).expect("restored");
    assert_eq!(kvs(&*open(&path.join("other"))).await.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, target) = (directory.path().join("snap"), directory.path().join("store"));
    let store = open(&directory.path().join("one"));
    put(&*store, "/a", "x".repeat(20_000)).await;
    save(&store, &file).await;
    let whole = std::fs::read(&file).expect("read");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (bytes, unverified) in [
        (flipped, false),
        (whole[..whole.len() - 512].to_vec(), false),
        (whole[..whole.len() / 2].to_vec(), true),
        (b"no snapshot".to_vec(), true),
        (Vec::new(), true),
        (vec![0; 65536], true),
    ] {
        std::fs::write(&file, bytes).expect("written");
        let told = snapshot::restore(&file, &target, 1, unverified).expect_err("refused").to_string();
        assert!(told.contains("snap"), "{told}");
        assert!(!target.exists() || std::fs::read_dir(&target).expect("listed").next().is_none());
    }
}

#[test]
fn a_snapshot_is_made_where_there_is_space() {
    use std::io::{Error as Io, ErrorKind};
    let places = ["/store", "/other"].map(std::path::PathBuf::from);
    let refusing = |kinds: [Option<ErrorKind>; 2]| {
        let places = places.clone();
        move |place: &Path| {
            let at = places.iter().position(|known| known == place).expect("one of them");
            kinds[at].map_or(Ok(at), |kind| Err(Error::io("write a snapshot into", place)(Io::from(kind))))
        }
    };
    let made = |kinds| snapshot::where_space_is(&places, refusing(kinds));
    assert_eq!(made([None, None]).expect("made"), 0);
    assert_eq!(made([Some(ErrorKind::StorageFull), None]).expect("made"), 1);
    assert_eq!(made([Some(ErrorKind::QuotaExceeded), None]).expect("made"), 1);
    let told = made([Some(ErrorKind::StorageFull); 2]).expect_err("both are full").to_string();
    assert_eq!(told, "cannot write a snapshot into /other");
    let told = made([Some(ErrorKind::PermissionDenied), None]).expect_err("another would not help").to_string();
    assert_eq!(told, "cannot write a snapshot into /store");
}
