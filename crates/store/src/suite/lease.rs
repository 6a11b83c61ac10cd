//! Leases.

use super::*;
use crate::Watch;

/// Long enough to survive a busy machine.
const LONG: Duration = Duration::from_secs(600);

/// Waits until a key is gone.
async fn gone(store: &dyn Store, at: &str) -> i64 {
    let mut stream = store.watch(Watch::of(KeyRange::key(key(at)), 0)).await.expect("watching");
    let since = established(&mut stream).await;
    if get(store, at).await.is_none() {
        return since;
    }
    loop {
        if let Some(Event::Delete { revision, .. }) = batch(&mut stream).await.expect("told").events.last() {
            return *revision;
        }
    }
}

pub async fn keys_end_with_their_lease(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let lease = store.lease_grant(Duration::from_secs(1)).await.expect("granted");
    let started = std::time::Instant::now();
    put_leased(&*store, "/short", lease).await;
    put(&*store, "/stays", "x").await;
    gone(&*store, "/short").await;
    assert!(started.elapsed() >= Duration::from_millis(950), "never early");
    assert!(get(&*store, "/stays").await.is_some());
    let refused = store.lease_keep_alive(lease).await;
    assert!(matches!(refused, Err(Error::LeaseNotFound(id)) if id == lease), "{refused:?}");
}

pub async fn revocation_is_one_revision(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let lease = store.lease_grant(LONG).await.expect("granted");
    put_leased(&*store, "/a", lease).await;
    let before = put_leased(&*store, "/b", lease).await;
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.lease), Some(lease));
    let mut stream = store.watch(Watch::of(KeyRange::all(), 0)).await.expect("watching");
    established(&mut stream).await;
    store.lease_revoke(lease).await.expect("revoked");
    let after = store.status().await.expect("status").revision;
    assert_eq!(after, before + 1);
    let told = told_until(&mut stream, after).await;
    assert_eq!(told, [format!("delete /a @{after}"), format!("delete /b @{after}")]);
}

pub async fn renewal_keeps_the_keys(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let ttl = Duration::from_secs(2);
    let lease = store.lease_grant(ttl).await.expect("granted");
    put_leased(&*store, "/kept", lease).await;
    let started = std::time::Instant::now();
    // Renewed for longer than its time.
    while started.elapsed() < ttl + Duration::from_millis(500) {
        assert_eq!(store.lease_keep_alive(lease).await.expect("renewed"), ttl);
        assert!(get(&*store, "/kept").await.is_some());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gone(&*store, "/kept").await;
}

pub async fn a_key_moves_between_leases(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = store.lease_grant(LONG).await.expect("granted");
    let second = store.lease_grant(LONG).await.expect("granted");
    assert_ne!(first, second);
    put_leased(&*store, "/moved", first).await;
    put_leased(&*store, "/moved", second).await;
    put_leased(&*store, "/freed", first).await;
    put(&*store, "/freed", "x").await;
    put_leased(&*store, "/reborn", first).await;
    delete(&*store, "/reborn").await;
    put(&*store, "/reborn", "x").await;
    let before = store.status().await.expect("status").revision;
    store.lease_revoke(first).await.expect("revoked");
    assert_eq!(store.status().await.expect("status").revision, before, "nothing hung on it any more");
    store.lease_revoke(second).await.expect("revoked");
    assert!(get(&*store, "/moved").await.is_none());
    assert!(get(&*store, "/freed").await.is_some() && get(&*store, "/reborn").await.is_some());
}

pub async fn unknown_leases_are_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let op = Op::Put { key: key("/a"), value: key("x"), lease: 4711 };
    let refused = store.txn(Txn::of(vec![put_op("/b", "x"), op])).await;
    assert!(matches!(refused, Err(Error::LeaseNotFound(4711))), "{refused:?}");
    assert!(get(&*store, "/b").await.is_none(), "all or nothing");
    assert!(matches!(store.lease_revoke(4711).await, Err(Error::LeaseNotFound(4711))));
}

pub async fn leases_survive_reopening(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let kept = store.lease_grant(LONG).await.expect("granted");
    let short = store.lease_grant(Duration::from_millis(1500)).await.expect("granted");
    let revoked = store.lease_grant(LONG).await.expect("granted");
    put_leased(&*store, "/kept", kept).await;
    put_leased(&*store, "/short", short).await;
    put_leased(&*store, "/revoked", revoked).await;
    store.lease_revoke(revoked).await.expect("revoked");
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(get(&*store, "/kept").await.map(|kv| kv.lease), Some(kept));
    assert!(get(&*store, "/revoked").await.is_none());
    assert_eq!(store.lease_keep_alive(kept).await.expect("renewed"), LONG);
    gone(&*store, "/short").await;
    store.lease_revoke(kept).await.expect("revoked");
    assert!(get(&*store, "/kept").await.is_none());
}
