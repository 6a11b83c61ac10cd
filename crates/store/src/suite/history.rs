//! What a store tells of its past.

use super::*;
use crate::{History, Versions};

fn history(store: &dyn Store) -> &dyn History {
    store.history().expect("the engine has history")
}

async fn versions(store: &dyn Store, until: i64, limit: usize) -> Versions {
    history(store).versions(key("/a"), until, limit).await.expect("told")
}

/// `VALUE @REVISION`, or `deleted @REVISION`, newest first.
fn told(versions: &Versions) -> Vec<String> {
    let word = |kv: &Option<KeyValue>| kv.as_ref().map_or("deleted".to_owned(), |kv| text(&kv.value));
    versions.versions.iter().map(|version| format!("{} @{}", word(&version.kv), version.revision)).collect()
}

pub async fn versions_are_told_with_deletions(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    put(&*store, "/ab", "x").await;
    let second = put(&*store, "/a", "2").await;
    let third = delete(&*store, "/a").await;
    let fourth = put(&*store, "/a", "3").await;
    put(&*store, "/b", "x").await;
    let all = versions(&*store, 0, 0).await;
    let words = [format!("3 @{fourth}"), format!("deleted @{third}"), format!("2 @{second}"), format!("1 @{first}")];
    assert_eq!(told(&all), words);
    assert!(!all.more);
    let [newest, .., oldest] = &all.versions[..] else { panic!("{all:?}") };
    assert_eq!(newest.kv.as_ref().map(|kv| (kv.create_revision, kv.version)), Some((fourth, 1)));
    assert_eq!(oldest.kv.as_ref().map(|kv| (kv.create_revision, kv.version)), Some((first, 1)));
    assert_eq!(told(&versions(&*store, third, 0).await), words[1..]);
    drop(store);
    fixture.reopen().await;
    assert_eq!(told(&versions(&*fixture.store(), 0, 0).await), words);
    let never = history(&*fixture.store()).versions(key("/never"), 0, 0).await.expect("told");
    assert_eq!((never.versions, never.more), (Vec::new(), false));
}

pub async fn a_page_of_versions_goes_on(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let mut revisions = Vec::new();
    for number in 0..5 {
        revisions.push(put(&*store, "/a", number.to_string()).await);
    }
    let first = versions(&*store, 0, 2).await;
    assert_eq!(
        (told(&first), first.more),
        (vec![format!("4 @{}", revisions[4]), format!("3 @{}", revisions[3])], true)
    );
    let second = versions(&*store, revisions[3] - 1, 3).await;
    assert_eq!(told(&second).len(), 3);
    assert!(!second.more);
}

pub async fn a_range_is_of_its_revision(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "1").await;
    let past = put(&*store, "/b", "1").await;
    put(&*store, "/a", "2").await;
    let last = delete(&*store, "/b").await;
    let range = Range::of(KeyRange::all());
    let then = history(&*store).range_at(range.clone().at(past)).await.expect("read");
    assert_eq!(then.kvs.iter().map(|kv| text(&kv.value)).collect::<Vec<_>>(), ["1", "1"]);
    assert_eq!((then.count, then.revision), (2, last));
    let now = history(&*store).range_at(range).await.expect("read");
    assert_eq!(now.kvs.iter().map(|kv| text(&kv.value)).collect::<Vec<_>>(), ["2"]);
}

pub async fn history_ends_where_it_says(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/b", "1").await;
    for number in 0..4 {
        put(&*store, "/a", number.to_string()).await;
    }
    let mark = delete(&*store, "/b").await;
    let last = put(&*store, "/a", "4").await;
    store.compact(mark).await.expect("compacted");
    let kept = history(&*store).kept().await.expect("told");
    assert!((1..=mark).contains(&kept.revision), "{kept:?}");
    let range = Range::of(KeyRange::all());
    let at_mark = history(&*store).range_at(range.clone().at(mark)).await.expect("what the store reads, history reads");
    assert_eq!(at_mark.kvs.iter().map(|kv| text(&kv.value)).collect::<Vec<_>>(), ["3"]);
    let all = versions(&*store, 0, 0).await;
    assert_eq!(told(&all)[0], format!("4 @{last}"));
    assert!(all.since <= mark);
    if kept.revision > 1 {
        let below = history(&*store).range_at(range.at(kept.revision - 1)).await;
        assert!(matches!(below, Err(Error::Compacted { .. })), "{below:?}");
        let below = history(&*store).versions(key("/a"), kept.revision - 1, 0).await;
        assert!(matches!(below, Err(Error::Compacted { .. })), "{below:?}");
    }
}

pub async fn the_future_has_no_history(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let last = put(&*store, "/a", "1").await;
    let ahead = history(&*store).range_at(Range::of(KeyRange::all()).at(last + 1)).await;
    assert!(matches!(ahead, Err(Error::FutureRevision { .. })), "{ahead:?}");
    let ahead = history(&*store).versions(key("/a"), last + 1, 0).await;
    assert!(matches!(ahead, Err(Error::FutureRevision { .. })), "{ahead:?}");
}
