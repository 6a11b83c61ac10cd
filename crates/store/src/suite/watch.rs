//! Watches.

use super::*;
use crate::Watch;

async fn watch(store: &dyn Store, keys: KeyRange, start: i64) -> WatchStream {
    store.watch(Watch::of(keys, start)).await.expect("the watch begins")
}

fn prefix(text: &str) -> KeyRange {
    KeyRange::prefix(key(text))
}

pub async fn first_batch_tells_the_revision(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let revision = put(&*store, "/a", "1").await;
    let mut stream = watch(&*store, KeyRange::all(), 0).await;
    assert_eq!(established(&mut stream).await, revision);
    let mut stream = watch(&*store, KeyRange::all(), revision).await;
    assert_eq!(established(&mut stream).await, revision);
}

pub async fn from_now(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "before").await;
    let mut stream = watch(&*store, prefix("/"), 0).await;
    established(&mut stream).await;
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/b", "2").await;
    assert_eq!(told_until(&mut stream, second).await, [format!("put /a=1 @{first}"), format!("put /b=2 @{second}")]);
}

pub async fn from_the_past(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "0").await;
    let first = put(&*store, "/a", "1").await;
    put(&*store, "/other", "1").await;
    let second = delete(&*store, "/a").await;
    let third = put(&*store, "/a", "2").await;
    let mut stream = watch(&*store, prefix("/a"), first).await;
    assert_eq!(established(&mut stream).await, third);
    let fourth = put(&*store, "/a", "3").await;
    let expected = [
        format!("put /a=1 @{first}"),
        format!("delete /a @{second}"),
        format!("put /a=2 @{third}"),
        format!("put /a=3 @{fourth}"),
    ];
    assert_eq!(told_until(&mut stream, fourth).await, expected);
}

pub async fn from_the_future(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let now = put(&*store, "/a", "0").await;
    let mut stream = watch(&*store, prefix("/a"), now + 2).await;
    established(&mut stream).await;
    put(&*store, "/a", "1").await;
    let wanted = put(&*store, "/a", "2").await;
    assert_eq!(told_until(&mut stream, wanted).await, [format!("put /a=2 @{wanted}")]);
}

pub async fn a_key_is_not_a_prefix(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let mut one = watch(&*store, KeyRange::key(key("/a")), 0).await;
    let mut many = watch(&*store, prefix("/a"), 0).await;
    established(&mut one).await;
    established(&mut many).await;
    let first = put(&*store, "/a/b", "1").await;
    let second = put(&*store, "/a", "2").await;
    assert_eq!(told_until(&mut one, second).await, [format!("put /a=2 @{second}")]);
    assert_eq!(told_until(&mut many, second).await, [format!("put /a/b=1 @{first}"), format!("put /a=2 @{second}")]);
}

pub async fn a_transaction_is_one_batch(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/c", "0").await;
    let mut live = watch(&*store, KeyRange::all(), 0).await;
    established(&mut live).await;
    let ops = vec![put_op("/b", "1"), put_op("/a", "1"), delete_op("/c")];
    let revision = apply(&*store, ops).await.revision;
    let mut past = watch(&*store, KeyRange::all(), revision).await;
    established(&mut past).await;
    for stream in [&mut live, &mut past] {
        let told = batch(stream).await.expect("told");
        assert_eq!(told.revision, revision);
        let mut events: Vec<String> = told.events.iter().map(words).collect();
        events.sort();
        let expected =
            [format!("delete /c @{revision}"), format!("put /a=1 @{revision}"), format!("put /b=1 @{revision}")];
        assert_eq!(events, expected);
    }
}

pub async fn order_across_many_writes(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let start = put(&*store, "/k/0", "x").await;
    let mut live = watch(&*store, prefix("/k/"), 0).await;
    established(&mut live).await;
    let mut last = start;
    for number in 0..500 {
        last = put(&*store, &format!("/k/{}", number % 7), number.to_string()).await;
    }
    let mut past = watch(&*store, prefix("/k/"), start + 1).await;
    established(&mut past).await;
    let live = told_until(&mut live, last).await;
    assert_eq!(live.len(), 500);
    for (number, event) in live.iter().enumerate() {
        assert_eq!(*event, format!("put /k/{}={number} @{}", number % 7, start + 1 + number as i64));
    }
    assert_eq!(told_until(&mut past, last).await, live, "history and the present tell the same");
}

pub async fn list_then_watch_leaves_no_gap(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..400 {
                put(&*store, "/n", number.to_string()).await;
            }
        })
    };
    for _ in 0..40 {
        let listed = store.range(Range::of(KeyRange::key(key("/n")))).await.expect("listed");
        let held = listed.kvs.first().map_or(-1, |kv| text(&kv.value).parse::<i64>().expect("a number"));
        if held == 399 {
            break;
        }
        let mut stream = watch(&*store, KeyRange::key(key("/n")), listed.revision + 1).await;
        established(&mut stream).await;
        let next = loop {
            if let Some(event) = batch(&mut stream).await.expect("told").events.first().cloned() {
                break event;
            }
        };
        let Event::Put { kv, .. } = next else { panic!("{next:?}") };
        assert_eq!(text(&kv.value), (held + 1).to_string(), "the very next change is told first");
    }
    writer.await.expect("the writer ends");
}

pub async fn previous_values(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let request = |start| Watch { previous: true, ..Watch::of(prefix("/a"), start) };
    let mut live = store.watch(request(0)).await.expect("watching");
    established(&mut live).await;
    let first = put(&*store, "/a", "1").await;
    put(&*store, "/a", "2").await;
    let third = delete(&*store, "/a").await;
    let mut past = store.watch(request(first)).await.expect("watching");
    established(&mut past).await;
    for stream in [&mut live, &mut past] {
        let mut told = Vec::new();
        while told.len() < 3 {
            told.extend(batch(stream).await.expect("told").events);
        }
        let previous: Vec<Option<String>> = told
            .iter()
            .map(|event| match event {
                Event::Put { previous, .. } | Event::Delete { previous, .. } => {
                    previous.as_ref().map(|kv| text(&kv.value))
                }
            })
            .collect();
        assert_eq!(previous, [None, Some("1".into()), Some("2".into())]);
        assert_eq!(told[2].revision(), third);
    }
}

pub async fn progress_on_request(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let mut stream = watch(&*store, prefix("/quiet/"), 0).await;
    let start = established(&mut stream).await;
    let revision = put(&*store, "/elsewhere", "1").await;
    assert!(revision > start);
    assert_eq!(store.request_progress().await.expect("requested"), revision);
    assert_eq!(told_until(&mut stream, revision).await, [] as [&str; 0]);
    let told = put(&*store, "/quiet/a", "1").await;
    assert_eq!(told_until(&mut stream, told).await, [format!("put /quiet/a=1 @{told}")]);
}

pub async fn progress_over_a_quiet_past(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let start = put(&*store, "/quiet/a", "1").await;
    let revision = put(&*store, "/elsewhere", "1").await;
    // History that has nothing of the range: still its end is told, after the first batch.
    let mut stream = watch(&*store, prefix("/quiet/"), start + 1).await;
    established(&mut stream).await;
    assert_eq!(store.request_progress().await.expect("requested"), revision);
    assert_eq!(told_until(&mut stream, revision).await, [] as [&str; 0]);
}

pub async fn deletions_are_told(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for name in ["/d/1", "/d/2"] {
        put(&*store, name, "x").await;
    }
    let mut stream = watch(&*store, prefix("/d/"), 0).await;
    established(&mut stream).await;
    let result = apply(&*store, vec![Op::Delete { keys: prefix("/d/") }]).await;
    let expected = [format!("delete /d/1 @{}", result.revision), format!("delete /d/2 @{}", result.revision)];
    assert_eq!(told_until(&mut stream, result.revision).await, expected);
}

pub async fn many_watchers_of_different_ranges(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let ranges = [
        KeyRange::all(),
        prefix("/a"),
        prefix("/a/"),
        prefix("/a/b/"),
        KeyRange::key(key("/a/b/c")),
        KeyRange::between(key("/a/b/c"), key("")),
        prefix("/z"),
        KeyRange::between(key("/b"), key("/a")),
    ];
    let mut streams = Vec::new();
    for range in &ranges {
        let mut stream = watch(&*store, range.clone(), 0).await;
        established(&mut stream).await;
        streams.push(stream);
    }
    let names = ["/a", "/a/b/c", "/a/b/d", "/ab", "/b", "/z/1", "/", "/a/b/c"];
    let mut written = Vec::new();
    for name in names {
        written.push((name, put(&*store, name, "v").await));
    }
    let last = store.request_progress().await.expect("requested");
    for (range, stream) in ranges.iter().zip(&mut streams) {
        let expected: Vec<String> = written
            .iter()
            .filter(|(name, _)| range.contains(name.as_bytes()))
            .map(|(name, revision)| format!("put {name}=v @{revision}"))
            .collect();
        assert_eq!(told_until(stream, last).await, expected, "{range:?}");
    }
}
