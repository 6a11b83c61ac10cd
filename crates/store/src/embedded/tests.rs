use super::*;
use crate::{Event, KeyRange, Op};
use bytes::Bytes;
use futures::StreamExt;

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()), lease: 0 }
}

async fn all(store: &Embedded) -> Result<Vec<(String, String)>, Error> {
    let found = store.range(Range::of(KeyRange::all())).await?;
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    Ok(found.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect())
}

fn small() -> Options {
    Options { segment_bytes: 16 << 10, history: Duration::ZERO, ..Options::default() }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Embedded::open(dir.path(), small())?;
    for i in 0..200 {
        store.txn(Txn::of(vec![put(&format!("k{}", i % 20), &format!("v{i}"))])).await?;
    }
    store.txn(Txn::of(vec![Op::Delete { keys: KeyRange::key("k3") }])).await?;
    let (before, revision) = (all(&store).await?, store.status().await?.revision);
    assert!(matches!(Embedded::open(dir.path(), small()), Err(Error::Locked { .. })));
    drop(store);
    let store = Embedded::open(dir.path(), small())?;
    assert_eq!(all(&store).await?, before);
    assert_eq!(store.status().await?.revision, revision);
    assert_eq!(before.len(), 19);
    Ok(())
}

#[tokio::test]
async fn upkeep_gives_space_back_and_nothing_comes_back_to_life() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Embedded::open(dir.path(), small())?;
    let value = "x".repeat(500);
    for round in 0..20 {
        for i in 0..40 {
            store.txn(Txn::of(vec![put(&format!("k{i}"), &format!("{round}{value}"))])).await?;
        }
    }
    store.txn(Txn::of(vec![Op::Delete { keys: KeyRange::prefix("k1") }])).await?;
    let (before, large) = (all(&store).await?, store.status().await?.size);
    let revision = store.status().await?.revision;
    store.compact(revision).await?;
    store.maintain().await?;
    store.maintain().await?;
    assert!(store.status().await?.size < large / 4, "{} of {large}", store.status().await?.size);
    assert_eq!(all(&store).await?, before);
    store.txn(Txn::of(vec![put("after", "checkpoint")])).await?;
    drop(store);
    let store = Embedded::open(dir.path(), small())?;
    let mut expected = before;
    expected.insert(0, ("after".into(), "checkpoint".into()));
    assert_eq!(all(&store).await?, expected);
    assert!(matches!(store.range(Range::of(KeyRange::all()).at(revision - 1)).await, Err(Error::Compacted { .. })));
    store.maintain().await?;
    drop(store);
    let store = Embedded::open(dir.path(), small())?;
    assert_eq!(all(&store).await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_damage_is_told() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Embedded::open(dir.path(), Options { segment_bytes: 1 << 20, ..small() })?;
    for i in 0..10 {
        store.txn(Txn::of(vec![put(&format!("k{i}"), "value")])).await?;
    }
    drop(store);
    let log = dir.path().join(segment::name(format::Kind::Log, 1));
    let whole = std::fs::read(&log)?;
    let end = whole.iter().rposition(|b| *b != 0).unwrap_or(0);
    // Cut anywhere in the last frame: the nine before are there.
    std::fs::write(&log, &whole[..end - 3])?;
    let store = Embedded::open(dir.path(), small())?;
    assert_eq!(all(&store).await?.len(), 9);
    assert_eq!(store.txn(Txn::of(vec![put("again", "x")])).await?.revision, 11);
    drop(store);
    let store = Embedded::open(dir.path(), small())?;
    assert_eq!(all(&store).await?.len(), 10);
    drop(store);
    // A flipped bit in the middle is damage, not a torn tail.
    let mut damaged = std::fs::read(&log)?;
    damaged[4096 + 60] ^= 1;
    std::fs::write(&log, damaged)?;
    let error = Embedded::open(dir.path(), small()).err().ok_or("damage must be told")?;
    assert!(matches!(&error, Error::Corrupt { place, .. } if place.contains("log-00000001.seg at offset 4096")), "{error}");
    Ok(())
}

#[tokio::test]
async fn leases_end_and_survive_restarts() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Embedded::open(dir.path(), small())?;
    let long = store.lease_grant(Duration::from_secs(3600)).await?;
    let short = store.lease_grant(Duration::from_millis(150)).await?;
    let on = |key: &'static str, lease| Op::Put { key: key.into(), value: "v".into(), lease };
    store.txn(Txn::of(vec![on("long", long), on("short", short)])).await?;
    let mut watch = store.watch(Watch::of(KeyRange::key("short"), 0)).await?;
    let deleted = async {
        while let Some(batch) = watch.next().await {
            if batch?.events.iter().any(|e| matches!(e, Event::Delete { .. })) {
                return Ok::<_, Error>(true);
            }
        }
        Ok(false)
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), deleted).await??);
    drop(watch);
    store.maintain().await?;
    drop(store);
    let store = Embedded::open(dir.path(), small())?;
    assert_eq!(all(&store).await?.len(), 1);
    store.lease_revoke(long).await?;
    assert!(all(&store).await?.is_empty());
    assert!(matches!(store.lease_keep_alive(short).await, Err(Error::LeaseNotFound(_))));
    Ok(())
}

#[tokio::test]
async fn a_watch_misses_nothing_between_history_and_the_present() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Embedded::open(dir.path(), Options { recent_bytes: 2000, ..small() })?;
    for i in 0..50 {
        store.txn(Txn::of(vec![put("a", &i.to_string()), put("b", &i.to_string())])).await?;
    }
    let mut watch = store.watch(Watch::of(KeyRange::prefix("a"), 2)).await?;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for i in 50..100 {
                store.txn(Txn::of(vec![put("a", &i.to_string())])).await?;
            }
            Ok::<_, Error>(())
        })
    };
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let batch = watch.next().await.ok_or("the watch ended")??;
        for event in batch.events {
            let Event::Put { kv, .. } = event else { return Err("nothing is deleted".into()) };
            seen.push(String::from_utf8_lossy(&kv.value).parse::<usize>()?);
        }
    }
    writer.await??;
    assert!(seen.iter().copied().eq(0..100), "{seen:?}");
    Ok(())
}
