//! Members killed and paused: what was acknowledged is there, and watches tell each change once and in order.

use std::sync::Arc;
use std::time::Duration;

use super::Remote;
use crate::suite::{PATIENCE, established, get, key, put, put_op, text, told_until};
use crate::{Error, KeyRange, Store, Txn, Watch};

/// Writes numbers one after the other, each to a key of its own; tells which were acknowledged with their revisions.
async fn write(store: Arc<dyn Store>, numbers: std::ops::Range<usize>) -> Vec<(usize, i64)> {
    let mut acknowledged = Vec::new();
    for number in numbers {
        let at = format!("/registry/n/{number:04}");
        match store.txn(Txn::guarded(key(&at), 0, put_op(&at, number.to_string()))).await {
            Ok(result) => {
                assert!(result.succeeded, "nothing is sent twice");
                acknowledged.push((number, result.revision));
            }
            Err(Error::Unknown { .. } | Error::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    acknowledged
}

/// Creates a key while its member may be lost; tells the revision. What became of a write whose connection broke is asked
/// of the member that is there again: its process is another, so nothing is under way any more.
async fn surely_create(store: &dyn Store, at: &str) -> i64 {
    loop {
        match store.txn(Txn::guarded(key(at), 0, put_op(at, "x"))).await {
            Ok(result) => {
                assert!(result.succeeded, "nothing is sent twice");
                return result.revision;
            }
            Err(Error::Unknown { .. }) => {
                if let Some(held) = get(store, at).await {
                    return held.mod_revision;
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
}

async fn is_survived(remote: &mut Remote, lose: impl AsyncFnOnce(&mut Remote)) {
    let store: Arc<dyn Store> = remote.store.clone();
    let start = put(&*store, "/registry/start", "x").await;
    let mut streams = Vec::new();
    // As many as there are members, so that one of them is on the member that is lost.
    for _ in 0..3 {
        let mut stream =
            store.watch(Watch::of(KeyRange::prefix(key("/registry/n/")), start + 1)).await.expect("watching");
        established(&mut stream).await;
        streams.push(stream);
    }
    let before = write(store.clone(), 0..50).await;
    assert_eq!(before.len(), 50);
    let during = tokio::spawn(write(store.clone(), 50..150));
    lose(remote).await;
    let during = tokio::time::timeout(PATIENCE * 2, during).await.expect("writing goes on").expect("written");
    assert!(during.len() > 50, "only what was under way is uncertain: {}", during.len());
    let last = write(store.clone(), 150..160).await;
    assert_eq!(last.len(), 10, "all is well again");
    let end = last[9].1;
    let mut histories = Vec::new();
    for stream in &mut streams {
        histories.push(told_until(stream, end).await);
    }
    for history in &histories {
        assert_eq!(history, &histories[0], "every watch tells the same");
        let told: Vec<i64> = history
            .iter()
            .map(|event| event.rsplit('@').next().expect("a revision").parse().expect("a number"))
            .collect();
        assert!(told.is_sorted_by(|a, b| a < b), "in order, and once: {told:?}");
    }
    for (number, revision) in before.iter().chain(&during).chain(&last) {
        let event = format!("put /registry/n/{number:04}={number} @{revision}");
        assert!(histories[0].contains(&event), "{event}");
        let held = get(&*store, &format!("/registry/n/{number:04}")).await.expect("acknowledged, so it is there");
        assert_eq!((text(&held.value), held.mod_revision), (number.to_string(), *revision));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed() {
    let mut remote = Remote::start(3).await;
    is_survived(&mut remote, async |remote: &mut Remote| {
        let leader = remote.cluster.leader().await;
        remote.cluster.kill(leader);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_paused() {
    let mut remote = Remote::start(3).await;
    is_survived(&mut remote, async |remote: &mut Remote| {
        let leader = remote.cluster.leader().await;
        remote.cluster.pause(leader);
        // Longer than the others need to elect another.
        let deadline = std::time::Instant::now() + PATIENCE;
        let others: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
        let others = crate::Etcd::connect(remote.cluster.options_of(&others)).await.expect("the others answer");
        while others.range(crate::Range::of(KeyRange::key(key("/x")))).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "the others go on");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        remote.cluster.resume(leader);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_after_its_only_member_restarts() {
    let mut remote = Remote::start(1).await;
    let store: Arc<dyn Store> = remote.store.clone();
    let mut stream = store.watch(Watch::of(KeyRange::prefix(key("/registry/")), 0)).await.expect("watching");
    established(&mut stream).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..5 {
            let at = format!("/registry/{round}/{number}");
            let revision = surely_create(&*store, &at).await;
            expected.push(format!("put {at}=x @{revision}"));
        }
        if round == 1 {
            // Read before the loss, so that the watch resumes in the middle.
            let last = expected.len() as i64 + 1;
            assert_eq!(told_until(&mut stream, last).await, expected);
        }
        remote.cluster.kill(0);
        remote.cluster.run(0);
    }
    let last = surely_create(&*store, "/registry/last").await;
    expected.push(format!("put /registry/last=x @{last}"));
    assert_eq!(told_until(&mut stream, last).await, expected[10..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_away_during_a_compaction_is_told() {
    let mut remote = Remote::start(1).await;
    let store: Arc<dyn Store> = remote.store.clone();
    let first = put(&*store, "/registry/a", "0").await;
    let mut stream = store.watch(Watch::of(KeyRange::all(), 0)).await.expect("watching");
    assert_eq!(established(&mut stream).await, first);
    // Nobody reads the stream meanwhile, and its connection is lost.
    remote.cluster.kill(0);
    remote.cluster.run(0);
    let other: Arc<dyn Store> = crate::Etcd::connect(remote.cluster.options()).await.expect("etcd answers");
    for number in 1..5 {
        put(&*other, "/registry/a", number.to_string()).await;
    }
    let mark = put(&*other, "/registry/b", "x").await;
    other.compact(mark).await.expect("compacted");
    let error = loop {
        match crate::suite::batch(&mut stream).await {
            Ok(batch) => assert!(batch.events.is_empty(), "{batch:?}"),
            Err(error) => break error,
        }
    };
    let Error::Compacted { asked, compacted } = error else { panic!("{error}") };
    assert_eq!((asked, compacted), (first + 1, mark));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_calls_fail_and_say_why() {
    let mut remote = Remote::start(3).await;
    let store: Arc<dyn Store> = remote.store.clone();
    put(&*store, "/registry/a", "x").await;
    remote.cluster.kill(0);
    remote.cluster.kill(1);
    let read = store.range(crate::Range::of(KeyRange::key(key("/registry/a")))).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    let written = store.txn(Txn::of(vec![put_op("/registry/a", "y")])).await;
    assert!(matches!(written, Err(Error::Unavailable(_) | Error::Unknown { .. })), "{written:?}");
    remote.cluster.run(0);
    let deadline = std::time::Instant::now() + PATIENCE;
    while store.txn(Txn::of(vec![put_op("/registry/a", "z")])).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "writes are taken again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_that_are_there_tell_their_hashes_without_the_others() {
    let mut remote = Remote::start(3).await;
    put(&*remote.store, "/registry/a", "x").await;
    let lost = (remote.cluster.leader().await + 1) % 3;
    remote.cluster.kill(lost);
    let hashes = remote.store.hashes().await.expect("a majority answers");
    let of_lost = remote.cluster.socket(lost).display().to_string();
    assert_eq!(hashes.len(), 3);
    for (endpoint, hash) in &hashes {
        assert_eq!(hash.is_err(), endpoint.contains(&of_lost), "{endpoint}: {hash:?}");
    }
}
