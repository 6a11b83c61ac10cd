//! Of the parts that need no store.

mod pair;
mod simulation;

use super::cacher::Age;
use super::*;
use std::sync::Arc;

fn row(group: &str, plural: &str) -> &'static schema::Resource {
    schema::resource::get(group, "v1", plural).expect("a built-in resource")
}

fn pod(key: &str, revision: u64, text: &str) -> Entry {
    let row = row("", "pods");
    let head = schema::encoded::head("v1", "Pod");
    Entry::from_stored(key, revision, text.as_bytes(), &head, &row.schema, &Paths::of(row)).expect("an entry")
}

#[test]
fn an_entry_finds_its_texts_again() {
    let paths = Paths::of(row("", "pods"));
    let text = r#"{"kind":"Pod","apiVersion":"v1","data":{"a":["}\"",{}]},"metadata":{"annotations":{"x":"{\"}"},"labels":{"app":"web","tier":"a.b"},"name":"p","namespace":"ns","uid":"u-1"},"spec":{"nodeName":"n1","containers":[{"nodeName":"no"}]},"status":{"phase":"Running"}}"#;
    let entry = pod("ns/p", 42, text);
    assert_eq!((entry.namespace(), entry.name(), entry.uid()), ("ns", "p", "u-1"));
    assert_eq!(entry.labels().collect::<Vec<_>>(), [("app", "web"), ("tier", "a.b")]);
    let field = |entry: &Entry, label: &str| entry.field(&paths, paths.position(label).expect("a field")).to_owned();
    assert_eq!(field(&entry, "spec.nodeName"), "n1");
    assert_eq!(field(&entry, "status.phase"), "Running");
    assert_eq!(field(&entry, "spec.hostNetwork"), "false");
    let item = std::str::from_utf8(entry.item()).expect("text");
    assert!(
        item.starts_with(r#"{"data":{"#) && item.contains(r#""metadata":{"resourceVersion":"42","annotations""#),
        "{item}"
    );
    let later = entry.at_revision(1_000_000);
    assert_eq!(later.uid(), "u-1");
    assert_eq!(field(&later, "status.phase"), "Running");
    assert!(std::str::from_utf8(later.item()).expect("text").contains(r#""resourceVersion":"1000000","annotations""#));
}

#[test]
fn what_is_not_compact_is_encoded_anew() {
    let text = "{ \"apiVersion\": \"v1\", \"kind\": \"Pod\",\n \"metadata\": {\"name\": \"p\", \"resourceVersion\": \"3\", \"labels\": {\"a\": \"b\"}}}";
    let entry = pod("ns/p", 7, text);
    assert_eq!(entry.labels().collect::<Vec<_>>(), [("a", "b")]);
    assert!(std::str::from_utf8(entry.item()).expect("text").contains("\"metadata\":{\"resourceVersion\":\"7\","));
}

/// One place in an event is a field of its own, and what another falls back to.
#[test]
fn a_place_may_be_of_several_fields() {
    let row = row("", "events");
    let paths = Paths::of(row);
    let head = schema::encoded::head("v1", "Event");
    let of = |source: &str| {
        let text = format!(
            r#"{{"kind":"Event","apiVersion":"v1","metadata":{{"name":"e","namespace":"n"}},"source":{{{source}}},"reportingComponent":"kubelet"}}"#
        );
        let entry = Entry::from_stored("n/e", 1, text.as_bytes(), &head, &row.schema, &paths).expect("an entry");
        ["reportingComponent", "source"]
            .map(|label| entry.field(&paths, paths.position(label).expect("a field")).to_owned())
    };
    assert_eq!(of(""), ["kubelet", "kubelet"]);
    assert_eq!(of(r#""component":"x""#), ["kubelet", "x"]);
}

fn simple(key: &str, revision: u64, node: &str) -> Arc<Entry> {
    let name = key.rsplit('/').next().unwrap_or(key);
    Arc::new(pod(
        key,
        revision,
        &format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}"}},"spec":{{"nodeName":"{node}"}}}}"#),
    ))
}

fn keys(state: &State, scope: &Scope, after: Option<&str>) -> Vec<String> {
    state.range(scope, after).map(|entry| entry.key().to_owned()).collect()
}

#[test]
fn a_state_is_ranged_by_scope() {
    let paths = Paths::of(row("", "pods"));
    let mut state = State::new(0);
    for (i, key) in ["a/x", "a/y", "a-b/x", "b/x"].iter().enumerate() {
        state.insert(simple(key, i as u64 + 1, if i % 2 == 0 { "n0" } else { "n1" }), &paths);
    }
    assert_eq!(keys(&state, &Scope::All, None), ["a-b/x", "a/x", "a/y", "b/x"]);
    assert_eq!(keys(&state, &Scope::Namespace("a".into()), None), ["a/x", "a/y"]);
    assert_eq!(keys(&state, &Scope::Namespace("a".into()), Some("a/x")), ["a/y"]);
    assert_eq!(keys(&state, &Scope::Namespace("a".into()), Some("b/x")), [""; 0]);
    assert_eq!(keys(&state, &Scope::Namespace("b".into()), Some("a/x")), ["b/x"]);
    let node = paths.position("spec.nodeName").expect("a field");
    assert_eq!(keys(&state, &Scope::Field(node, "n0".into()), None), ["a-b/x", "a/x"]);
    let snapshot = state.clone();
    state.insert(simple("a/x", 9, "n1"), &paths);
    state.remove("a-b/x", &paths);
    assert_eq!(keys(&state, &Scope::Field(node, "n0".into()), None), [""; 0]);
    assert_eq!(keys(&state, &Scope::Field(node, "n1".into()), None), ["a/x", "a/y", "b/x"]);
    assert_eq!(state.get("a/x").map(|e| e.revision()), Some(9));
    assert_eq!(keys(&snapshot, &Scope::Field(node, "n0".into()), None), ["a-b/x", "a/x"]);
    assert_eq!(state.bytes(), state.range(&Scope::All, None).map(|e| e.size()).sum::<usize>());
}

fn layout() -> Layout {
    let row = row("", "pods");
    Layout {
        prefix: "/registry/pods/".into(),
        resource: "configmaps".to_owned(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        schema: row.schema.clone(),
        paths: Paths::of(row),
    }
}

/// A cacher without a store behind it.
fn cacher() -> Arc<Cacher> {
    Arc::new(Cacher::new(layout(), Arc::default(), 1))
}

fn put(key: &str, revision: u64, node: &str, label: &str) -> cacher::Raw {
    let name = key.rsplit('/').next().unwrap_or(key);
    let text = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"labels":{{"l":"{label}"}},"name":"{name}"}},"spec":{{"nodeName":"{node}"}}}}"#
    );
    cacher::Raw { key: key.into(), revision, value: Some(text.into()) }
}

fn parsed(cacher: &Cacher, raws: Vec<cacher::Raw>) -> Vec<cacher::Parsed> {
    raws.into_iter().map(|raw| cacher.parse(raw)).collect()
}

/// A storage's contents.
fn filled(cacher: &Cacher, raws: Vec<cacher::Raw>) -> State {
    let mut state = State::new(0);
    cacher.fill(&mut state, parsed(cacher, raws));
    state
}

/// More than one page, parsed by several threads; with one that cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn many_objects_are_loaded_each_in_its_place() {
    use store::Store as _;
    const MANY: usize = 203;
    const LOST: usize = 150;
    let directory = tempfile::tempdir().expect("a directory");
    let store = store::Embedded::open(directory.path(), store::embedded::Options::default()).expect("a store");
    let key = |n: usize| format!("a/{n:05}");
    let node = |n: usize| format!("n{}", n % 7);
    for n in 0..MANY {
        let full = format!("{}{}", layout().prefix, key(n));
        let value = if n == LOST { "{".into() } else { put(&key(n), 0, &node(n), "x").value.expect("a value") };
        let put = store::Op::Put { key: full.into(), value, lease: 0 };
        store.txn(store::Txn::of(vec![put])).await.expect("written");
    }
    let caches = Caches::open(store, vec![layout()]).await.expect("the caches");
    let cacher = caches.get(&layout().prefix).expect("the storage");
    assert!(cacher.newest_unreadable().is_some());
    let field = cacher.paths().position("spec.nodeName").expect("a field");
    let (state, _) = cacher.now();
    let found: Vec<(&str, &str)> =
        state.range(&Scope::All, None).map(|entry| (entry.key(), entry.field(cacher.paths(), field))).collect();
    let there: Vec<(String, String)> = (0..MANY).filter(|n| *n != LOST).map(|n| (key(n), node(n))).collect();
    assert_eq!(found, there.iter().map(|(key, node)| (key.as_str(), node.as_str())).collect::<Vec<_>>());
}

/// Changes a byte of the only place in the log where a text is.
fn damage(directory: &std::path::Path, text: &str) {
    let log = directory.join("log-00000001.seg");
    let mut bytes = std::fs::read(&log).expect("the log");
    let found: Vec<usize> = memchr::memmem::find_iter(&bytes, text).collect();
    assert_eq!(found.len(), 1, "{text} at {found:?}");
    bytes[found[0]] ^= 1;
    std::fs::write(&log, bytes).expect("written");
}

/// What is damaged and no longer counts keeps nobody from serving the present; damage to that is told, and not waited for.
#[tokio::test]
async fn a_damaged_past_is_left_out_and_a_damaged_present_told() {
    use store::Store as _;
    let directory = tempfile::tempdir().expect("a directory");
    let options = store::embedded::Options { recent_bytes: 0, ..store::embedded::Options::default() };
    let store = store::Embedded::open(directory.path(), options).expect("a store");
    for (name, node) in [("x", "damaged-first"), ("x", "damaged-later"), ("y", "whole")] {
        let key = format!("{}a/{name}", layout().prefix).into();
        let value = put(&format!("a/{name}"), 0, node, "x").value.expect("a value");
        store.txn(store::Txn::of(vec![store::Op::Put { key, value, lease: 0 }])).await.expect("written");
    }
    damage(directory.path(), "damaged-first");
    let caches = Caches::open(store.clone(), vec![layout()]).await.expect("the caches");
    let cacher = caches.get(&layout().prefix).expect("the storage");
    let field = cacher.paths().position("spec.nodeName").expect("a field");
    let (state, now) = cacher.now();
    let nodes: Vec<&str> = state.range(&Scope::All, None).map(|entry| entry.field(cacher.paths(), field)).collect();
    assert_eq!(nodes, ["damaged-later", "whole"]);
    // Nobody is told that nothing happened before.
    assert!(matches!(cacher.watch(Filter::everything(), Start::After(now - 1)), Err(NoWatch::TooOld(_))));
    damage(directory.path(), "damaged-later");
    let error = Caches::open(store, vec![layout()]).await.expect_err("damage");
    assert!(matches!(&error, store::Error::Corrupt { place, .. } if place.contains("log-00000001.seg at")), "{error}");
}

fn gone(key: &str, revision: u64) -> cacher::Raw {
    cacher::Raw { key: key.into(), revision, value: None }
}

/// What a watcher has got, without waiting.
fn taken(watcher: &mut Watcher) -> Vec<(ChangeKind, String, u64)> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut told = Vec::new();
    while let std::task::Poll::Ready(Ok(batch)) = watcher.poll_next(&mut cx) {
        for delivery in batch.deliveries() {
            let object = delivery.change.object(delivery.kind);
            told.push((delivery.kind, object.key().to_owned(), object.revision()));
        }
    }
    told
}

#[test]
fn who_is_ahead_of_the_server_is_told_nothing_twice() {
    let cacher = cacher();
    let (mut watcher, ..) = cacher.watch(Filter::everything(), Start::After(5)).expect("a watch");
    cacher.apply(vec![put("a/x", 4, "n", "1"), put("a/y", 5, "n", "1"), put("a/z", 6, "n", "1")], Age::Present);
    assert_eq!(taken(&mut watcher), [(ChangeKind::Added, "a/z".to_owned(), 6)]);
}

#[test]
fn a_watch_from_now_is_never_too_old() {
    let cacher = cacher();
    cacher.apply(vec![put("a/x", 4, "n", "1")], Age::Present);
    let seen = cacher.now().1;
    // All is loaded anew between a look at where the cache is and the watch.
    cacher.replace(filled(&cacher, vec![put("a/x", 6, "n", "1")]), 6, Age::Present);
    assert!(matches!(cacher.watch(Filter::everything(), Start::After(seen)), Err(NoWatch::TooOld(_))));
    let (mut watcher, _, now) = cacher.watch(Filter::everything(), Start::Now).expect("a watch");
    assert_eq!(now, 6);
    cacher.apply(vec![put("a/x", 7, "n", "1")], Age::Present);
    assert_eq!(taken(&mut watcher), [(ChangeKind::Modified, "a/x".to_owned(), 7)]);
}

#[test]
fn who_reads_too_slowly_is_ended() {
    let cacher = cacher();
    let (mut slow, ..) = cacher.watch(Filter::everything(), Start::After(1)).expect("a watch");
    for revision in 2..20_000 {
        cacher.apply(vec![put("a/x", revision, "n", "1")], Age::Present);
    }
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(slow.poll_next(&mut cx), std::task::Poll::Ready(Err(End::Slow))));
    drop(slow);
    assert_eq!(cacher.watchers(), 0);
}

/// A value that nobody can read.
fn lost(key: &str, revision: u64) -> cacher::Raw {
    cacher::Raw { key: key.into(), revision, value: Some(bytes::Bytes::from_static(b"k8s:enc:")) }
}

fn end_of(watcher: &mut Watcher) -> Option<End> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match watcher.poll_next(&mut cx) {
        std::task::Poll::Ready(Err(end)) => Some(end),
        _ => None,
    }
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<(ChangeKind, String, u64)>>);

impl Observer for Told {
    fn changed(&self, _: &Cacher, change: &Change) {
        let told = (change.kind, change.entry.key().to_owned(), change.revision());
        self.0.lock().expect("no panic").push(told);
    }
}

#[test]
fn what_can_no_longer_be_read_is_not_told_as_removed() {
    let (cacher, observer) = (cacher(), Arc::new(Told::default()));
    cacher.observe(observer.clone());
    cacher.apply(vec![put("a/x", 2, "n", "1"), put("a/y", 3, "n", "1")], Age::Present);
    let (mut watcher, ..) = cacher.watch(Filter::everything(), Start::After(3)).expect("a watch");
    cacher.apply(vec![put("a/y", 4, "n", "2"), lost("a/x", 5), put("a/z", 6, "n", "1")], Age::Present);
    // What comes with it is told after the next list, too.
    assert_eq!(taken(&mut watcher), []);
    assert_eq!(end_of(&mut watcher), Some(End::Expired));
    let told = observer.0.lock().expect("no panic").split_off(2);
    assert_eq!(
        told.iter().map(|(kind, key, _)| (*kind, key.as_str())).collect::<Vec<_>>(),
        [(ChangeKind::Modified, "a/y"), (ChangeKind::Deleted, "a/x"), (ChangeKind::Added, "a/z"),]
    );
    assert!(matches!(cacher.get("a/x"), Err(unreadable) if unreadable.revision == 5));
    assert!(matches!(cacher.watch(Filter::everything(), Start::After(6)), Err(NoWatch::Unreadable(_))));
    let elsewhere = Filter::of(Scope::Namespace("b".into()));
    assert!(matches!(cacher.watch(elsewhere.clone(), Start::After(5)), Err(NoWatch::TooOld(TooOld { oldest: 6 }))));
    assert!(cacher.watch(elsewhere, Start::After(6)).is_ok());
}

#[test]
fn what_cannot_be_read_is_in_the_way_of_those_only_who_may_see_it() {
    let cacher = cacher();
    cacher.apply(vec![put("b/y", 2, "n", "1"), lost("a/x", 3)], Age::Present);
    let (state, _) = cacher.now();
    let of_the_node = || Filter::of(Scope::Field(0, "n".into()));
    assert!(of_the_node().check(&state).is_err(), "it may be on that node");
    // By its name it is none of theirs, whatever it has.
    let elsewhere = Filter { namespace: Some("b".into()), ..of_the_node() };
    assert!(elsewhere.check(&state).is_ok() && cacher.watch(elsewhere, Start::After(3)).is_ok());
    assert!(Filter { names: vec![(true, "y".into())], ..of_the_node() }.check(&state).is_ok());
    assert!(Filter { names: vec![(true, "x".into())], ..of_the_node() }.check(&state).is_err());
    assert!(Filter { namespaces: vec![(false, "a".into())], ..of_the_node() }.check(&state).is_ok());
}

#[test]
fn what_was_unreadable_never_comes_or_goes_unnoticed() {
    // It is removed, written anew, or can be read again as it is.
    let news: [(&str, fn(&Cacher)); 3] = [
        ("removed", |cacher| assert!(cacher.apply(vec![gone("a/x", 7)], Age::Present))),
        ("written", |cacher| assert!(cacher.apply(vec![put("a/x", 7, "n", "2")], Age::Present))),
        ("readable", |cacher| assert_eq!(cacher.mend(parsed(cacher, vec![put("a/x", 5, "n", "1")])), 1)),
    ];
    for (what, news) in news {
        let (cacher, observer) = (cacher(), Arc::new(Told::default()));
        cacher.apply(vec![put("a/y", 2, "n", "1"), lost("a/x", 5), put("b/x", 6, "n", "1")], Age::Present);
        cacher.observe(observer.clone());
        // A list that goes on from here would not have it.
        let (state, _) = cacher.now();
        assert!(state.check(&Scope::All).is_err() && state.check(&Scope::Namespace("b".into())).is_ok());
        cacher.pin(&state, 6);
        news(&cacher);
        let (state, _) = cacher.now();
        assert!(state.check(&Scope::All).is_ok());
        assert_eq!(state.get("a/x").is_some(), what != "removed", "{what}");
        // Another server may have told it to whoever comes with this revision.
        if what != "readable" {
            let refused = cacher.watch(Filter::everything(), Start::After(6));
            assert!(matches!(refused, Err(NoWatch::TooOld(TooOld { oldest: 7 }))), "{what}");
        }
        let past = cacher.at(6);
        assert!(
            past.as_ref().map_or(true, |past| past.check(&Scope::All).is_err() || past.get("a/x").is_some()),
            "{what}: {past:?}"
        );
        let told = observer.0.lock().expect("no panic").split_off(2);
        assert_eq!(told.len(), usize::from(what != "removed"), "{what}: {told:?}");
    }
}

#[test]
fn what_is_read_again_too_late_is_left_alone() {
    let cacher = cacher();
    cacher.apply(vec![lost("a/x", 2), lost("a/y", 3), lost("a/z", 4)], Age::Present);
    cacher.apply(vec![put("a/x", 5, "n", "1"), gone("a/y", 6), lost("a/z", 7)], Age::Present);
    let old = vec![put("a/x", 2, "n", "1"), put("a/y", 3, "n", "1"), put("a/z", 4, "n", "1")];
    assert_eq!(cacher.mend(parsed(&cacher, old)), 0);
    assert_eq!(cacher.get("a/x").expect("readable").map(|entry| entry.revision()), Some(5));
    assert!(cacher.get("a/y").expect("none").is_none());
    assert!(cacher.get("a/z").is_err());
}

#[test]
fn watchers_and_lists_begin_anew_when_something_can_be_read_again() {
    let cacher = cacher();
    cacher.apply(vec![put("b/x", 2, "n", "1"), lost("a/x", 3), put("b/x", 4, "n", "2")], Age::Present);
    let elsewhere = Filter::of(Scope::Namespace("b".into()));
    let (mut watcher, ..) = cacher.watch(elsewhere, Start::After(4)).expect("a watch");
    cacher.pin(&cacher.now().0, 4);
    cacher.apply(vec![put("b/x", 5, "n", "1")], Age::Present);
    assert!(cacher.at(4).is_ok());
    assert_eq!(cacher.mend(parsed(&cacher, vec![put("a/x", 3, "n", "1")])), 1);
    assert_eq!(taken(&mut watcher).len(), 1);
    assert_eq!(end_of(&mut watcher), Some(End::Expired));
    assert_eq!(cacher.at(4).err(), Some(TooOld { oldest: 5 }));
    assert!(cacher.at(5).is_ok_and(|state| state.get("a/x").is_some()));
}

/// Takes note of what is read, and gives nothing that can be read while it has no key.
struct Noting {
    store: Arc<store::Embedded>,
    read: std::sync::Mutex<Vec<store::KeyRange>>,
    has_key: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl store::Store for Noting {
    async fn txn(&self, txn: store::Txn) -> Result<store::TxnResult, store::Error> {
        self.store.txn(txn).await
    }
    async fn range(&self, range: store::Range) -> Result<store::RangeResult, store::Error> {
        self.read.lock().expect("no panic").push(range.keys.clone());
        let mut result = self.store.range(range).await?;
        if !self.has_key.load(std::sync::atomic::Ordering::SeqCst) {
            result.kvs.iter_mut().for_each(|kv| kv.value = lost("", 0).value.unwrap_or_default());
        }
        Ok(result)
    }
    async fn watch(&self, watch: store::Watch) -> Result<store::WatchStream, store::Error> {
        self.store.watch(watch).await
    }
    async fn compact(&self, revision: i64) -> Result<(), store::Error> {
        self.store.compact(revision).await
    }
    async fn lease_grant(&self, ttl: std::time::Duration) -> Result<store::LeaseId, store::Error> {
        self.store.lease_grant(ttl).await
    }
    async fn lease_keep_alive(&self, lease: store::LeaseId) -> Result<std::time::Duration, store::Error> {
        self.store.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: store::LeaseId) -> Result<(), store::Error> {
        self.store.lease_revoke(lease).await
    }
    async fn request_progress(&self) -> Result<i64, store::Error> {
        self.store.request_progress().await
    }
    async fn status(&self) -> Result<store::StoreStatus, store::Error> {
        self.store.status().await
    }
}

#[tokio::test]
async fn only_what_cannot_be_read_is_read_again_and_ever_more_seldom() {
    use store::Store as _;
    let directory = tempfile::tempdir().expect("a directory");
    let engine = store::Embedded::open(directory.path(), store::embedded::Options::default()).expect("a store");
    let store = Noting { store: engine, read: std::sync::Mutex::default(), has_key: false.into() };
    let cacher = cacher();
    let many = mender::TRIED + 10;
    for number in 0..many {
        let key = format!("a/k{number:04}");
        let full = format!("{}{key}", cacher.layout.prefix);
        let value = put(&key, 0, "n", "1").value.expect("a value");
        let put = store::Op::Put { key: full.into(), value, lease: 0 };
        let written = store.txn(store::Txn::of(vec![put])).await.expect("written");
        cacher.apply(vec![lost(&key, written.revision.cast_unsigned())], Age::Present);
    }
    let read = || std::mem::take(&mut *store.read.lock().expect("no panic"));

    let first = mender::mend(&store, &cacher, None).await.expect("read").expect("in vain");
    let ranges = read();
    assert_eq!(ranges.len(), mender::TRIED);
    assert!(ranges.iter().all(|keys| keys.end.is_none()), "single keys");
    let pause = first.pause();
    let second = mender::mend(&store, &cacher, Some(first)).await.expect("read").expect("in vain");
    assert!(second.pause() > pause);
    // It goes on behind those that were tried.
    let next = format!("{}a/k{:04}", cacher.layout.prefix, mender::TRIED);
    assert_eq!(read().first().map(|keys| keys.start.clone()), Some(next.into()));
    // Something new is no reason to wait.
    cacher.apply(vec![lost("a/new", 1_000_000)], Age::Present);
    let third = mender::mend(&store, &cacher, Some(second)).await.expect("read").expect("in vain");
    assert_eq!(third.pause(), pause);
    cacher.apply(vec![gone("a/new", 1_000_001)], Age::Present);
    read();

    store.has_key.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(mender::mend(&store, &cacher, Some(third)).await.expect("read").is_none());
    assert_eq!(read().len(), many);
    assert!(cacher.unreadable().is_empty());
    assert_eq!(cacher.now().0.len(), many);
}

mod model {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Put {
            key: usize,
            node: usize,
            label: usize,
        },
        Delete {
            key: usize,
        },
        /// Several changes of one revision.
        Both {
            put: usize,
            delete: usize,
        },
        Pin,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_usize, 0..3_usize, 0..2_usize).prop_map(|(key, node, label)| Step::Put { key, node, label }),
            2 => (0..6_usize).prop_map(|key| Step::Delete { key }),
            1 => (0..6_usize, 0..6_usize).prop_map(|(put, delete)| Step::Both { put, delete }),
            1 => Just(Step::Pin),
        ]
    }

    fn key(n: usize) -> String {
        format!("{}/k{n}", ["a", "b"][n % 2])
    }

    type Told = BTreeMap<String, u64>;

    /// The changes of one revision, and the state after it.
    type History = Vec<(u64, BTreeMap<String, (u64, usize, usize)>)>;

    fn play(cacher: &Cacher, steps: &[Step]) -> History {
        let mut state = BTreeMap::new();
        let mut history: History = vec![(1, state.clone())];
        let mut revision = 1;
        for step in steps {
            let mut raws = Vec::new();
            match step {
                Step::Put { key: k, node, label } => {
                    revision += 1;
                    raws.push(put(&key(*k), revision, &format!("n{node}"), &label.to_string()));
                    state.insert(key(*k), (revision, *node, *label));
                }
                Step::Delete { key: k } if state.contains_key(&key(*k)) => {
                    revision += 1;
                    raws.push(gone(&key(*k), revision));
                    state.remove(&key(*k));
                }
                Step::Both { put: p, delete: d } if p != d && state.contains_key(&key(*d)) => {
                    revision += 1;
                    raws.push(put(&key(*p), revision, "n0", "1"));
                    raws.push(gone(&key(*d), revision));
                    state.insert(key(*p), (revision, 0, 1));
                    state.remove(&key(*d));
                }
                Step::Pin => {
                    let (now, at) = cacher.now();
                    cacher.pin(&now, at.max(revision));
                }
                _ => {}
            }
            if !raws.is_empty() {
                cacher.apply(raws, Age::Present);
                cacher.progress_for_tests(revision);
                history.push((revision, state.clone()));
            }
        }
        history
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Every past state is given exactly, and a filtered watch from any of them ends in what a filtered list shows.
        #[test]
        fn past_states_and_watches_agree_with_the_model(steps in prop::collection::vec(step(), 1..40), node in 0..3_usize, label in 0..2_usize) {
            let cacher = cacher();
            let history = play(&cacher, &steps);
            let field = cacher.paths().position("spec.nodeName").expect("a field");
            let (_, end) = history.last().expect("the beginning");
            for (revision, state) in &history {
                let past = cacher.at(*revision).expect("it is kept");
                let wanted: Told = state.iter().map(|(k, (at, ..))| (k.clone(), *at)).collect();
                let found: Told = past.range(&Scope::All, None).map(|e| (e.key().to_owned(), e.revision())).collect();
                prop_assert_eq!(&found, &wanted);
                let on_node: Vec<String> = past.range(&Scope::Field(field, format!("n{node}")), None).map(|e| e.key().to_owned()).collect();
                let wanted: Vec<String> = state.iter().filter(|(_, (_, n, _))| *n == node).map(|(k, _)| k.clone()).collect();
                prop_assert_eq!(on_node, wanted);

                let by_node = Filter::of(Scope::Field(field, format!("n{node}")));
                let labels = api::selector::LabelSelector::parse(&format!("l={label}")).expect("a selector");
                let by_label = Filter { labels: labels.clone(), ..Filter::of(Scope::Namespace("a".into())) };
                let of_label = |namespace: Option<&str>| Filter {
                    labels: labels.clone(),
                    ..Filter::of(Scope::Label { key: "l".into(), value: label.to_string(), namespace: namespace.map(str::to_owned) })
                };
                let (indexed, indexed_in_a) = (of_label(None), of_label(Some("a")));
                for filter in [&indexed, &indexed_in_a] {
                    let found: Vec<String> = past.range(&filter.scope, None).map(|e| e.key().to_owned()).collect();
                    let inside = |k: &str| filter == &indexed || k.starts_with("a/");
                    let wanted: Vec<String> = state.iter().filter(|(k, (.., l))| *l == label && inside(k)).map(|(k, _)| k.clone()).collect();
                    prop_assert_eq!(found, wanted);
                }
                prop_assert_eq!(past.len_of_label("l", &label.to_string()), state.values().filter(|(.., l)| *l == label).count());
                prop_assert_eq!(past.len_of_namespace("a"), state.keys().filter(|k| k.starts_with("a/")).count());
                for (filter, sees) in [
                    (indexed.clone(), Box::new(move |_: &str, _: usize, l: usize| l == label) as Box<dyn Fn(&str, usize, usize) -> bool>),
                    (indexed_in_a.clone(), Box::new(move |k: &str, _: usize, l: usize| k.starts_with("a/") && l == label)),
                    (by_node, Box::new(move |_: &str, n: usize, _: usize| n == node)),
                    (by_label, Box::new(move |k: &str, _: usize, l: usize| k.starts_with("a/") && l == label)),
                ] {
                    let seen = |state: &BTreeMap<String, (u64, usize, usize)>| -> Told {
                        state.iter().filter(|(k, (_, n, l))| sees(k, *n, *l)).map(|(k, (at, ..))| (k.clone(), *at)).collect()
                    };
                    let (mut watcher, ..) = cacher.watch(filter, Start::After(*revision)).expect("it is kept");
                    let mut told = seen(state);
                    let mut last = *revision;
                    for (kind, key, at) in taken(&mut watcher) {
                        prop_assert!(at >= last);
                        last = at;
                        match kind {
                            ChangeKind::Added => prop_assert!(told.insert(key, at).is_none()),
                            ChangeKind::Modified => prop_assert!(told.insert(key, at).is_some()),
                            ChangeKind::Deleted => prop_assert!(told.remove(&key).is_some()),
                        }
                    }
                    prop_assert_eq!(told, seen(end));
                }
            }
        }
    }
}
