//! Several servers on one etcd, and administrators beside them.

use std::process::Command;
use std::sync::Arc;

use super::super::compactor::{self, Round};
use super::{Remote, server::Cluster};
use crate::suite::{established, get, key, put, put_op, text, told_until};
use crate::{Error, Etcd, KeyRange, Range, Store, Txn, Watch};

fn etcdctl(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = Command::new("/usr/bin/etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=unix://{}", cluster.socket(0).display()))
        .args(arguments)
        .output()
        .expect("etcdctl runs (Debian's package etcd-client)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_see_each_others_writes() {
    let cluster = Cluster::start(3);
    let one = Etcd::connect(cluster.options_of(&[0])).await.expect("etcd answers");
    let other = Etcd::connect(cluster.options_of(&[1, 2])).await.expect("etcd answers");
    let mut stream = other.watch(Watch::of(KeyRange::prefix(key("/registry/")), 0)).await.expect("watching");
    established(&mut stream).await;
    let revision = put(&*one, "/registry/a", "1").await;
    assert_eq!(get(&*other, "/registry/a").await.map(|kv| kv.mod_revision), Some(revision));
    let refused = other.txn(Txn::guarded(key("/registry/a"), 0, put_op("/registry/a", "2"))).await.expect("evaluated");
    assert!(!refused.succeeded, "the other's write is seen by a compare");
    assert_eq!(told_until(&mut stream, revision).await, [format!("put /registry/a=1 @{revision}")]);
}

/// Debian's version tells progress that isn't true; see the module `watch`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_never_ahead_of_events() {
    let cluster = Cluster::start(3);
    let writer = Etcd::connect(cluster.options_of(&[0])).await.expect("etcd answers");
    let reader = Etcd::connect(cluster.options_of(&[1])).await.expect("etcd answers");
    let mut stream = reader.watch(Watch::of(KeyRange::prefix(key("/registry/")), 0)).await.expect("watching");
    established(&mut stream).await;
    for round in 0..200 {
        // Sometimes the last write is none of those that are watched.
        let at = if round % 3 == 0 { "/elsewhere" } else { "/registry/n" };
        let revision = put(&*writer, at, round.to_string()).await;
        let asked = reader.request_progress().await.expect("requested");
        assert!(asked >= revision, "a consistent read is asked of the majority");
        let told = told_until(&mut stream, asked).await;
        let expected = if round % 3 == 0 { vec![] } else { vec![format!("put {at}={round} @{revision}")] };
        assert_eq!(told, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_histories_come_in_fragments_and_whole() {
    let remote = Remote::start(1).await;
    let store: Arc<dyn Store> = remote.store.clone();
    let value = "x".repeat(400 << 10);
    let first = put(&*store, "/registry/0", &value).await;
    let mut last = first;
    for number in 1..20 {
        last = put(&*store, &format!("/registry/{number}"), &value).await;
    }
    let mut stream = store.watch(Watch::of(KeyRange::prefix(key("/registry/")), first)).await.expect("watching");
    established(&mut stream).await;
    let told = told_until(&mut stream, last).await;
    assert_eq!(told.len(), 20);
    for (number, event) in told.iter().enumerate() {
        assert!(
            event.starts_with(&format!("put /registry/{number}=x"))
                && event.ends_with(&format!("@{}", first + number as i64))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_servers_compacts() {
    let remote = Remote::start(1).await;
    let other = Etcd::connect(remote.cluster.options()).await.expect("etcd answers");
    let (one, two) = (&remote.store.core, &other.core);
    let first = put(&*remote.store, "/registry/a", "1").await;
    let mut rounds = (Round::default(), Round::default());
    rounds.0 = compactor::step(one, rounds.0).await.expect("stepped");
    rounds.1 = compactor::step(two, rounds.1).await.expect("stepped");
    assert_eq!(remote.store.status().await.expect("status").compacted, 0, "nobody knows yet what is old");
    put(&*remote.store, "/registry/a", "2").await;
    // The second comes first this time: the first then only looks.
    rounds.1 = compactor::step(two, rounds.1).await.expect("stepped");
    let mark = other.status().await.expect("status").compacted;
    assert!(mark > first, "what was there an interval ago is forgotten");
    rounds.0 = compactor::step(one, rounds.0).await.expect("stepped");
    assert_eq!(other.status().await.expect("status").compacted, mark, "once in an interval");
    let refused = remote.store.range(Range::of(KeyRange::all()).at(first)).await;
    assert!(matches!(refused, Err(Error::Compacted { .. })), "{refused:?}");
    // Upstream's servers take part by the same key.
    assert_eq!(etcdctl(&remote.cluster, &["get", "compact_rev_key"]), format!("compact_rev_key\n{mark}\n"));
    rounds.0 = compactor::step(one, rounds.0).await.expect("stepped");
    assert!(remote.store.status().await.expect("status").compacted > mark);
    assert_ne!(rounds.0, rounds.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_find_upstreams_layout() {
    let remote = Remote::start(1).await;
    put(&*remote.store, "/registry/pods/default/web", "{}").await;
    let told = etcdctl(&remote.cluster, &["get", "--prefix", "/registry"]);
    assert_eq!(told, "/registry/pods/default/web\n{}\n");
    etcdctl(&remote.cluster, &["put", "/registry/pods/default/hand", "made"]);
    let held = get(&*remote.store, "/registry/pods/default/hand").await.expect("it is there");
    assert_eq!(text(&held.value), "made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_prefix_keeps_clusters_apart() {
    let cluster = Cluster::start(1);
    let plain = Etcd::connect(cluster.options()).await.expect("etcd answers");
    let options = cluster.options().with_prefix("/second/k8s").expect("a prefix");
    let second = Etcd::connect(options).await.expect("etcd answers");
    put(&*plain, "/registry/pods/a", "first").await;
    let mut stream = second.watch(Watch::of(KeyRange::prefix(key("/registry/")), 0)).await.expect("watching");
    established(&mut stream).await;
    put(&*plain, "/registry/pods/b", "first").await;
    let created = second.txn(Txn::guarded(key("/registry/pods/a"), 0, put_op("/registry/pods/a", "second"))).await;
    let created = created.expect("evaluated");
    assert!(created.succeeded);
    let event = format!("put /registry/pods/a=second @{}", created.revision);
    assert_eq!(told_until(&mut stream, created.revision).await, [event]);
    let listed = crate::suite::list(&*second, KeyRange::prefix(key("/registry/")), 0).await.expect("listed");
    assert_eq!(listed, [("/registry/pods/a".to_owned(), "second".to_owned())]);
    assert_eq!(etcdctl(&cluster, &["get", "--prefix", "/second"]), "/second/k8s/pods/a\nsecond\n");
}
