//! What is there after closing and opening again.

use super::*;
use crate::Watch;

pub async fn everything_is_there_after_reopening(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for number in 0..200 {
        put(&*store, &format!("/k/{}", number % 50), format!("value {number}")).await;
    }
    delete(&*store, "/k/7").await;
    let before = store.range(Range::of(KeyRange::all())).await.expect("read");
    drop(store);
    for _ in 0..3 {
        fixture.reopen().await;
        let after = fixture.store().range(Range::of(KeyRange::all())).await.expect("read");
        assert_eq!(after, before);
    }
    assert_eq!(fixture.store().status().await.expect("status").keys, 49);
}

pub async fn revisions_continue(fixture: &mut dyn Fixture) {
    let mut last = 0;
    for round in 0..5 {
        let store = fixture.store();
        let revision = put(&*store, "/a", round.to_string()).await;
        assert!(revision > last);
        if last > 0 {
            assert_eq!(revision, last + 1);
        }
        last = revision;
        drop(store);
        fixture.reopen().await;
        assert_eq!(fixture.store().status().await.expect("status").revision, last);
    }
    assert_eq!(get(&*fixture.store(), "/a").await.map(|kv| kv.version), Some(5));
}

pub async fn history_is_there_after_reopening(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let second = delete(&*store, "/a").await;
    let third = put(&*store, "/a", "2").await;
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(list(&*store, KeyRange::all(), first).await.expect("listed"), [("/a".to_owned(), "1".to_owned())]);
    let mut stream = store.watch(Watch::of(KeyRange::all(), first)).await.expect("watching");
    established(&mut stream).await;
    let expected = [format!("put /a=1 @{first}"), format!("delete /a @{second}"), format!("put /a=2 @{third}")];
    assert_eq!(told_until(&mut stream, third).await, expected);
}
