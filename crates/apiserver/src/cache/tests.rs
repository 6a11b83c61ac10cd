//! Of the parts that need no store.

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
    assert!(item.starts_with(r#"{"data":{"#) && item.contains(r#""metadata":{"resourceVersion":"42","annotations""#), "{item}");
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
    let mut state = State::new(0, &paths);
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
