//! Compaction of history.

use super::*;
use crate::Watch;

pub async fn reads_below_are_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/a", "2").await;
    put(&*store, "/a", "3").await;
    store.compact(second).await.expect("compacted");
    let refused = list(&*store, KeyRange::all(), first).await;
    let Err(Error::Compacted { asked, compacted }) = refused else { panic!("{refused:?}") };
    assert_eq!((asked, compacted), (first, second));
    assert_eq!(store.status().await.expect("status").compacted, second);
    assert_eq!(get(&*store, "/a").await.map(|kv| text(&kv.value)), Some("3".into()));
}

pub async fn the_mark_itself_is_readable(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "1").await;
    put(&*store, "/b", "1").await;
    let mark = put(&*store, "/a", "2").await;
    put(&*store, "/a", "3").await;
    delete(&*store, "/b").await;
    store.compact(mark).await.expect("compacted");
    let expected = [("/a".to_owned(), "2".to_owned()), ("/b".to_owned(), "1".to_owned())];
    assert_eq!(list(&*store, KeyRange::all(), mark).await.expect("listed"), expected);
}

pub async fn watches_below_are_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/a", "2").await;
    store.compact(second).await.expect("compacted");
    let error = match store.watch(Watch::of(KeyRange::all(), first)).await {
        Err(error) => error,
        Ok(mut stream) => loop {
            if let Err(error) = batch(&mut stream).await {
                break error;
            }
        },
    };
    let Error::Compacted { compacted, .. } = error else { panic!("{error:?}") };
    assert_eq!(compacted, second);
}

pub async fn a_watch_from_the_mark_misses_nothing(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "1").await;
    put(&*store, "/b", "1").await;
    let mark = delete(&*store, "/a").await;
    let last = put(&*store, "/b", "2").await;
    store.compact(mark).await.expect("compacted");
    let mut stream = match store.watch(Watch::of(KeyRange::all(), mark)).await {
        Err(Error::Compacted { compacted, .. }) => return assert_eq!(compacted, mark),
        begun => begun.expect("watching"),
    };
    established(&mut stream).await;
    let first = batch(&mut stream).await;
    if let Err(Error::Compacted { compacted, .. }) = first {
        return assert_eq!(compacted, mark);
    }
    let first = first.expect("told");
    let mut told: Vec<String> = first.events.iter().map(words).collect();
    if first.revision < last {
        told.extend(told_until(&mut stream, last).await);
    }
    assert_eq!(told, [format!("delete /a @{mark}"), format!("put /b=2 @{last}")]);
}

pub async fn deleted_keys_are_forgotten(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for number in 0..100 {
        put(&*store, &format!("/k/{number}"), "x").await;
    }
    apply(&*store, vec![Op::Delete { keys: KeyRange::prefix(key("/k/")) }]).await;
    let last = put(&*store, "/end", "x").await;
    store.compact(last).await.expect("compacted");
    assert_eq!(list(&*store, KeyRange::all(), last).await.expect("listed").len(), 1);
    let born = put(&*store, "/k/5", "again").await;
    assert_eq!(get(&*store, "/k/5").await.map(|kv| (kv.create_revision, kv.version)), Some((born, 1)));
}

pub async fn marks_are_checked(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/a", "2").await;
    let refused = store.compact(second + 1).await;
    assert!(matches!(refused, Err(Error::FutureRevision { .. })), "{refused:?}");
    store.compact(second).await.expect("compacted");
    for again in [first, second] {
        let refused = store.compact(again).await;
        assert!(matches!(refused, Err(Error::Compacted { .. })), "{refused:?}");
    }
}

pub async fn compaction_survives_reopening(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    put(&*store, "/gone", "1").await;
    delete(&*store, "/gone").await;
    let mark = put(&*store, "/a", "2").await;
    let last = put(&*store, "/a", "3").await;
    store.compact(mark).await.expect("compacted");
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    let status = store.status().await.expect("status");
    assert_eq!((status.compacted, status.revision), (mark, last));
    assert!(matches!(list(&*store, KeyRange::all(), first).await, Err(Error::Compacted { .. })));
    assert_eq!(list(&*store, KeyRange::all(), mark).await.expect("listed"), [("/a".to_owned(), "2".to_owned())]);
}
