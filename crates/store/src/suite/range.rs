//! Ranges, at present and in the past.

use super::*;

async fn names(store: &dyn Store, keys: KeyRange) -> Vec<String> {
    list(store, keys, 0).await.expect("listed").into_iter().map(|(key, _)| key).collect()
}

pub async fn order_bounds_and_prefixes(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for name in ["/b", "/a/2", "/a", "/a/1", "/a0", "/a/10"] {
        put(&*store, name, name).await;
    }
    assert_eq!(names(&*store, KeyRange::prefix(key("/a/"))).await, ["/a/1", "/a/10", "/a/2"]);
    assert_eq!(names(&*store, KeyRange::key(key("/a"))).await, ["/a"]);
    assert_eq!(names(&*store, KeyRange::between(key("/a/1"), key("/a/2"))).await, ["/a/1", "/a/10"]);
    assert_eq!(names(&*store, KeyRange::between(key("/a0"), key(""))).await, ["/a0", "/b"], "to the end");
    assert_eq!(names(&*store, KeyRange::between(key("/b"), key("/a"))).await, [] as [&str; 0]);
    assert_eq!(names(&*store, KeyRange::all()).await.len(), 6);
    apply(&*store, vec![Op::Put { key: Bytes::from_static(&[0xff, 0xff]), value: key("end"), lease: 0 }]).await;
    let end = store.range(Range::of(KeyRange::prefix(vec![0xff]))).await.expect("read");
    assert_eq!(end.count, 1, "a prefix of the highest bytes has no end");
}

pub async fn limit_count_and_more(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for number in 0..10 {
        put(&*store, &format!("/k/{number}"), "x").await;
    }
    put(&*store, "/l", "x").await;
    let range = |limit| Range::of(KeyRange::prefix(key("/k/"))).limit(limit);
    for (limit, told, more) in [(0, 10, false), (3, 3, true), (10, 10, false), (11, 10, false)] {
        let result = store.range(range(limit)).await.expect("read");
        assert_eq!((result.kvs.len(), result.count, result.more), (told, 10, more), "limit {limit}");
    }
}

pub async fn past_revisions(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/b", "1").await;
    let third = put(&*store, "/a", "2").await;
    let fourth = delete(&*store, "/b").await;
    let fifth = put(&*store, "/b", "2").await;
    let told = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let at = async |revision| list(&*store, KeyRange::all(), revision).await.expect("listed");
    assert_eq!(at(first).await, told(&[("/a", "1")]));
    assert_eq!(at(second).await, told(&[("/a", "1"), ("/b", "1")]));
    assert_eq!(at(third).await, told(&[("/a", "2"), ("/b", "1")]));
    assert_eq!(at(fourth).await, told(&[("/a", "2")]));
    assert_eq!(at(fifth).await, told(&[("/a", "2"), ("/b", "2")]));
    assert_eq!(at(0).await, at(fifth).await);
    let past = store.range(Range::of(KeyRange::key(key("/a"))).at(second)).await.expect("read");
    assert_eq!((past.kvs[0].mod_revision, past.kvs[0].version, past.revision), (first, 1, fifth));
}

pub async fn keys_only_and_count_only(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let revision = put(&*store, "/a", "value").await;
    let all = Range::of(KeyRange::all());
    let keys = store.range(Range { keys_only: true, ..all.clone() }).await.expect("read");
    assert_eq!((keys.count, &keys.kvs[0].value[..], keys.kvs[0].mod_revision), (1, &b""[..], revision));
    let count = store.range(Range { count_only: true, ..all }).await.expect("read");
    assert_eq!((count.count, count.kvs.len(), count.more), (1, 0, false));
}

pub async fn future_revisions_are_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let current = put(&*store, "/a", "1").await;
    let refused = store.range(Range::of(KeyRange::all()).at(current + 1)).await;
    let Err(Error::FutureRevision { asked, current: told }) = refused else { panic!("{refused:?}") };
    assert_eq!((asked, told), (current + 1, current));
}

pub async fn large_values_and_many_keys(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let large = vec![b'x'; 1 << 20];
    put(&*store, "/large", &large).await;
    for chunk in 0..60 {
        let ops = (0..50).map(|number| put_op(&format!("/many/{:04}", chunk * 50 + number), "v")).collect();
        apply(&*store, ops).await;
    }
    assert_eq!(get(&*store, "/large").await.map(|kv| kv.value.len()), Some(large.len()));
    let result = store.range(Range::of(KeyRange::prefix(key("/many/")))).await.expect("read");
    assert_eq!((result.kvs.len(), result.count), (3000, 3000));
    assert!(result.kvs.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(store.status().await.expect("status").keys, 3001);
}
