//! Leases.

use super::*;
use crate::Watch;

/// Long enough to survive a busy machine.
const LONG: Duration = Duration::from_secs(600);

/// Grants a lease of at least `ttl` and hangs a key on it, with more time if the machine is too busy for that.
async fn leased(store: &dyn Store, at: &str, mut ttl: Duration) -> (LeaseId, Duration, std::time::Instant) {
    loop {
        let granted = std::time::Instant::now();
        let lease = store.lease_grant(ttl).await.expect("granted");
        let op = Op::Put { key: key(at), value: key("leased"), lease };
        match store.txn(Txn::of(vec![op])).await {
            Ok(_) => return (lease, ttl, granted),
            Err(Error::LeaseNotFound(_)) => ttl *= 2,
            Err(other) => panic!("{other}"),
        }
    }
}

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
    let (lease, ttl, granted) = leased(&*store, "/short", Duration::from_secs(1)).await;
    put(&*store, "/stays", "x").await;
    gone(&*store, "/short").await;
    assert!(granted.elapsed() >= ttl, "never early");
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
    let mut wanted = Duration::from_secs(1);
    loop {
        let (lease, ttl, granted) = leased(&*store, "/kept", wanted).await;
        let mut renewed = granted;
        let mut on_time = true;
        // Renewed for longer than its time.
        while on_time && granted.elapsed() < ttl + ttl / 2 {
            let begun = std::time::Instant::now();
            let result = store.lease_keep_alive(lease).await;
            on_time = renewed.elapsed() < ttl;
            renewed = begun;
            if on_time {
                assert_eq!(result.expect("renewed"), ttl);
                let kept = get(&*store, "/kept").await.is_some();
                on_time = renewed.elapsed() < ttl;
                assert!(kept || !on_time);
                tokio::time::sleep(ttl / 10).await;
            }
        }
        gone(&*store, "/kept").await;
        if on_time {
            return;
        }
        // The machine was too busy to renew in time.
        wanted = ttl * 2;
    }
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
    let revoked = store.lease_grant(LONG).await.expect("granted");
    put_leased(&*store, "/kept", kept).await;
    leased(&*store, "/short", Duration::from_millis(1500)).await;
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
